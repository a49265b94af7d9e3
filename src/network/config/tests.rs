use super::*;

fn config(toml: &str) -> Result<Networks, String> {
    // As the executor's configuration hands it over: one inline table.
    let table: toml::Table = toml::from_str(toml).unwrap();
    let text = toml::Value::Table(table).to_string();
    let config = Config::read(&text).map_err(|error| error.to_string())?;
    config.check().map_err(|error| error.to_string())
}

#[test]
fn nothing_said_is_one_network() {
    let networks = Config::default().check().unwrap();
    let network = networks.default().unwrap();
    assert_eq!(network.name, DEFAULT_NETWORK);
    assert_eq!(network.stacks[0].gateway.to_string(), "10.167.0.1");
    assert!(network.isolated && network.masquerade);
}

#[test]
fn an_operator_names_several_networks() {
    let networks = config(
        r#"
        default_network = "back"
        [networks.back]
        subnets = ["fd70:6f64:1::/64", "10.168.0.0/20"]
        gateways = ["10.168.0.9"]
        mtu = 1400
        isolated = false
        dns = { nameservers = ["10.168.0.9"] }
        [networks.front]
        subnets = ["10.169.0.0/20"]
        "#,
    )
    .unwrap();
    let back = networks.get("back").unwrap();
    assert_eq!(back.stacks[0].gateway.to_string(), "10.168.0.9");
    assert_eq!(back.stacks[1].gateway.to_string(), "fd70:6f64:1::1");
    assert_eq!(back.bridge.len(), 15);
    assert_ne!(back.bridge, networks.get("front").unwrap().bridge);
    assert_eq!(networks.names(), "back, front");
}

/// What is said about a network `a` with these lines besides its subnet.
fn about_a(lines: &str) -> String {
    let toml = format!("default_network = ''\n[networks.a]\nsubnets = ['10.1.0.0/24']\n{lines}");
    config(&toml).unwrap_err()
}

#[test]
fn every_field_of_a_network_has_its_limits_and_its_place() {
    for (lines, sentence) in [
        (
            "gateways = ['10.1.0.255']",
            "gateways[0]: 10.1.0.255 is not a usable address of the network's subnets",
        ),
        (
            "gateways = ['10.1.0.1', 'fd00::1']",
            "gateways[1]: fd00::1 is not a usable address",
        ),
        (
            "gateways = ['10.1.0.1', '10.1.0.2']",
            "gateways[1]: 10.1.0.2 is not a usable address",
        ),
        ("gateways = ['x']", "gateways[0]: invalid IP address syntax"),
        (
            "bridge = ''",
            "bridge: must be 1 to 15 letters, digits, `_` or `-`",
        ),
        ("bridge = 'a.b'", "bridge: must be 1 to 15 letters"),
        ("bridge = 'much-too-long-name'", "bridge: must be 1 to 15 letters"),
        ("bridge = 'all'", "bridge: `all` cannot be a bridge"),
        ("mtu = 9", "mtu: must be between 1280 and 65535"),
        ("mtu = 65536", "mtu: must be between 1280 and 65535"),
        ("mtu = '1400'", "mtu: invalid type: string"),
        ("isolated = 1", "isolated: invalid type: integer"),
        ("masquerade = 'no'", "masquerade: invalid type: string"),
        ("masquarade = true", "masquarade: unknown field"),
        (
            "dns = { nameservers = ['10.1.0.1', 'ns.example.org'] }",
            "dns.nameservers[1]: `ns.example.org` is not an address",
        ),
        (
            "dns = { search = ['a.org b.org'] }",
            "dns.search[0]: \"a.org b.org\" is not one word",
        ),
        (
            "dns = { options = [\"ndots:2\\nx\"] }",
            "dns.options[0]: \"ndots:2\\nx\" is not one word",
        ),
        ("dns = { domain = '' }", "dns.domain: \"\" is not one word"),
        ("dns = { servers = [] }", "dns.servers: unknown field"),
    ] {
        let error = about_a(lines);
        assert!(
            error.starts_with(&format!("network.networks.a.{sentence}")),
            "{error}"
        );
    }
    let good = "gateways = ['10.1.0.9']\ndns = { nameservers = ['fe80::1%eth0'], domain = 'a.org' }";
    config(&format!(
        "default_network = 'a'\n[networks.a]\nsubnets = ['10.1.0.0/24']\n{good}"
    ))
    .unwrap();
}

#[test]
fn subnets_are_checked_alone_and_against_each_other() {
    let subnets = |subnets: &str| {
        config(&format!(
            "default_network = ''\n[networks.a]\nsubnets = {subnets}"
        ))
        .unwrap_err()
    };
    for (given, sentence) in [
        ("[]", ": needs a subnet"),
        ("'10.1.0.0/24'", ": invalid type: string"),
        (
            "['10.1.0.0/24', '10.2.0.0/24']",
            "[1]: a network has at most one subnet for IPv4 and one for IPv6",
        ),
        (
            "['10.1.0.0/99']",
            "[0]: `10.1.0.0/99` is not an address range such as 10.1.0.0/16 or fd00:1::/64",
        ),
        ("['10.1.0.0/31']", "[0]: `10.1.0.0/31` leaves no room"),
        (
            "['10.1.0.7/24']",
            "[0]: `10.1.0.7/24` has bits beyond its prefix; write 10.1.0.0/24",
        ),
    ] {
        let error = subnets(given);
        assert!(
            error.starts_with(&format!("network.networks.a.subnets{sentence}")),
            "{error}"
        );
    }
    let two = |first: &str, second: &str| {
        config(&format!(
            "default_network = ''\n[networks.a]\nsubnets = ['10.1.0.0/24', 'fd70::/64']\n{first}\n[networks.b]\n{second}"
        ))
    };
    for (second, sentence) in [
        (
            "subnets = ['10.0.0.0/8']",
            "subnets: 10.0.0.0/8 overlaps 10.1.0.0/24 of network a",
        ),
        (
            "subnets = ['fd70::/48']",
            "subnets: fd70::/48 overlaps fd70::/64 of network a",
        ),
        (
            "subnets = ['10.2.0.0/24']\nbridge = 'one'",
            "bridge: `one` is already the bridge of network a",
        ),
    ] {
        let error = two("bridge = 'one'", second).unwrap_err();
        assert_eq!(error, format!("network.networks.b.{sentence}"));
    }
    two("", "subnets = ['10.1.1.0/24', 'fd70:0:0:1::/64']").unwrap();
}

#[test]
fn every_other_field_has_its_limits_and_its_place() {
    for (toml, sentence) in [
        (
            "default_network = 'x'",
            "default_network: `x` is not one of the networks",
        ),
        ("default_network = 3", "default_network: invalid type: integer"),
        (
            "table = 'a b'",
            "table: must be 1 to 64 letters, digits, `_` or `-`",
        ),
        ("table = ''", "table: must be"),
        (
            "state_dir = 'podling'",
            "state_dir: `podling` is not an absolute path",
        ),
        (
            "enable_forwarding = 'yes'",
            "enable_forwarding: invalid type: string",
        ),
        (
            "dns = { nameservers = ['localhost'] }",
            "dns.nameservers[0]: `localhost` is not an address",
        ),
        (
            "cni = { config_dirs = ['/etc/cni', 'net.d'] }",
            "cni.config_dirs[1]: `net.d` is not an absolute path",
        ),
        (
            "cni = { plugin_dirs = ['bin'] }",
            "cni.plugin_dirs[0]: `bin` is not an absolute path",
        ),
        (
            "cni = { timeout_seconds = 0 }",
            "cni.timeout_seconds: must be between 1 and 3600",
        ),
        (
            "cni = { timeout_seconds = -1 }",
            "cni.timeout_seconds: invalid value: integer `-1`",
        ),
        ("cni = { gc = 1 }", "cni.gc: invalid type: integer"),
        ("cni = { timeout = 1 }", "cni.timeout: unknown field"),
        ("networs = {}", "networs: unknown field"),
        (
            "[networks.'../a']\nsubnets = ['10.1.0.0/24']",
            "networks.../a: a network's name is 1 to 128",
        ),
    ] {
        let error = config(toml).unwrap_err();
        assert!(error.starts_with(&format!("network.{sentence}")), "{error}");
    }
    for text in ["", "{", "3", "[1]"] {
        let error = Config::read(text).unwrap_err().to_string();
        assert!(error.starts_with("network.*: "), "{error}");
    }
}

/// The page for operators shows settings and a request that are good as they stand there.
#[test]
fn the_documentations_examples_are_good() {
    let text = include_str!("../../../docs/network.md");
    let block = |kind: &str| {
        text.split(&format!("```{kind}\n"))
            .nth(1)
            .unwrap()
            .split("```")
            .next()
            .unwrap()
    };
    let settings: toml::Table = toml::from_str(block("toml")).unwrap();
    let config = Config::read(&settings["network"].to_string()).unwrap();
    // Every key of the settings is shown.
    let shown = settings["network"].to_string();
    for key in [
        "default_network",
        "enable_forwarding",
        "state_dir",
        "table",
        "dns",
        "subnets",
        "gateways",
        "bridge",
        "mtu",
        "isolated",
        "masquerade",
        "nameservers",
        "domain",
        "search",
        "options",
        "config_dirs",
        "plugin_dirs",
        "timeout_seconds",
        "gc",
    ] {
        assert!(shown.contains(&format!("{key} = ")), "{key}");
    }
    // And what is said to be the default is.
    let defaults = Config::default();
    assert_eq!(
        config.networks[DEFAULT_NETWORK],
        defaults.networks[DEFAULT_NETWORK]
    );
    assert_eq!((&config.cni, &config.table), (&defaults.cni, &defaults.table));
    assert_eq!(config.enable_forwarding, defaults.enable_forwarding);
    assert_eq!(config.state_dir(), defaults.state_dir());
    assert_eq!(config.default_network, defaults.default_network);

    let data: serde_json::Value = serde_json::from_str(block("json")).unwrap();
    let mut config = config;
    config.cni.config_dirs.clear();
    let manager = crate::network::Manager::open(config).unwrap();
    manager.read(None, Some(&data["network"])).unwrap();
}
