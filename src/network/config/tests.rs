use super::*;

fn config(toml: &str) -> Result<Networks, String> {
    let config: Config = toml::from_str(toml).map_err(|error| error.message().to_owned())?;
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

#[test]
fn bad_words_name_their_place() {
    for (toml, sentence) in [
        (
            r#"default_network = "x""#,
            "default_network: `x` is not one of the networks",
        ),
        (
            "default_network = ''\n[networks.a]\nsubnets = []",
            "networks.a.subnets: needs a subnet",
        ),
        (
            "default_network = ''\n[networks.a]\nsubnets = ['10.1.0.0/24', '10.2.0.0/24']",
            "networks.a.subnets[1]: a network has at most one subnet for IPv4 and one for IPv6",
        ),
        (
            "default_network = ''\n[networks.a]\nsubnets = ['10.1.0.0/24']\n[networks.b]\nsubnets = ['10.0.0.0/8']",
            "networks.b.subnets: 10.0.0.0/8 overlaps 10.1.0.0/24 of network a",
        ),
        (
            "default_network = ''\n[networks.a]\nsubnets = ['10.1.0.0/24']\ngateways = ['10.1.0.255']",
            "networks.a.gateways[0]: 10.1.0.255 is not a usable address of the network's subnets",
        ),
        (
            "default_network = ''\n[networks.a]\nsubnets = ['10.1.0.0/24']\nbridge = 'much-too-long-name'",
            "networks.a.bridge: must be 1 to 15 letters, digits, `_` or `-`",
        ),
        (
            "default_network = ''\n[networks.'../a']\nsubnets = ['10.1.0.0/24']",
            "networks.../a: a network's name is 1 to 128",
        ),
        (
            "default_network = ''\n[networks.a]\nsubnets = ['10.1.0.0/24']\nmtu = 9",
            "networks.a.mtu: must be",
        ),
        ("table = 'a b'", "table: must be"),
    ] {
        let error = config(toml).unwrap_err();
        assert!(
            error.starts_with(&format!("network configuration: {sentence}")),
            "{error}"
        );
    }
    assert!(config("networs = {}").unwrap_err().contains("unknown field"));
}
