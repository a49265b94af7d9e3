//! Files, variables, what is wrong with them, and the reference for operators.

use super::{words::list, *};
use crate::container::policy::{Access, Filters, HostVolumes, Policy, Preset};

fn vars(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs
        .iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

fn file(text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("executor.toml");
    std::fs::write(&path, text).expect("file");
    (dir, path.display().to_string())
}

#[test]
fn variables_win_over_the_file_and_the_origin_is_kept() {
    let (_dir, path) = file("encoding = \"json\"\nrecord_limit = 100000\nlaunch_deadline = \"1mins\"\n");
    let effective = Effective::load(&vars(&[
        ("PODLING_CONFIG", &path),
        ("PODLING_LAUNCH_DEADLINE", "2mins"),
    ]))
    .expect("valid");
    assert_eq!(effective.config.encoding, Encoding::Json);
    assert_eq!(effective.config.record_limit, 100_000);
    assert_eq!(effective.config.launch_deadline, Duration::from_secs(120));
    assert_eq!(effective.origin("encoding"), Origin::File(path.into()));
    assert_eq!(
        effective.origin("launch_deadline"),
        Origin::Variable("PODLING_LAUNCH_DEADLINE".into())
    );
    assert_eq!(effective.origin("log"), Origin::Default);
    assert_eq!(effective.changed().count(), 3);
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let cases = [
        ("colour = 3\n", "no key `colour`"),
        ("record_limit = 5\n", "record_limit"),
        ("record_limit = [1]\n", "record_limit"),
        ("encoding = \"xml\"\n", "`xml` is neither"),
        ("launch_deadline = \"0secs\"\n", "longer than nothing"),
        ("encoding = \n", "executor.toml"),
        ("images_mirrors = \"docker.io\"\n", "not `registry=mirror"),
        (
            "images_devices = \"all\"\n",
            "none of `drop`, `keep` and `refuse`",
        ),
        (
            "images_authorities = \"ca.pem\"\n",
            "`ca.pem`, which is not an absolute path",
        ),
        ("policy = \"lax\"\n", "none of `mesos`, `standard` and `strict`"),
        (
            "allow_root = \"yes\"\n",
            "neither `true` nor `false`, and not `policy`",
        ),
        (
            "allowed_host_volumes = \"srv\"\n",
            "`srv`, which is not an absolute path",
        ),
        ("allowed_host_volumes = \"/a/../b\"\n", "which has `..` in it"),
        ("[network]\ndefault_networks = \"x\"\n", "unknown field"),
        ("[network]\ndefault_network = \"x\"\n", "not one of the networks"),
    ];
    for (text, expected) in cases {
        let (_dir, path) = file(text);
        let error = Effective::load(&vars(&[("PODLING_CONFIG", &path)])).expect_err(text);
        assert!(error.to_string().contains(expected), "{text}: {error}");
    }
    let error = Effective::load(&vars(&[("PODLING_CONFIG", "/nonexistent/x.toml")])).expect_err("missing");
    assert!(error.to_string().contains("/nonexistent/x.toml"));
    let error = Effective::load(&vars(&[("PODLING_ENCODING", "xml")])).expect_err("xml");
    assert!(error.to_string().contains("PODLING_ENCODING"), "{error}");
}

#[test]
fn s6_settings_that_others_may_write_are_refused_by_name() {
    use std::os::unix::fs::PermissionsExt as _;
    let (_dir, path) = file("encoding = \"json\"\n");
    let load = || Effective::load(&vars(&[("PODLING_CONFIG", &path)])).map_err(|error| error.to_string());
    load().expect("ours");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).expect("mode");
    let error = load().expect_err("everybody's");
    assert!(error.contains(&path) && error.contains("chmod go-w"), "{error}");
    if rustix::process::geteuid().is_root() {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("mode");
        std::os::unix::fs::chown(&path, Some(65534), None).expect("owner");
        let error = load().expect_err("nobody's");
        assert!(error.contains(&path) && error.contains("user 65534"), "{error}");
    }
}

#[test]
fn variables_that_mean_nothing_are_noticed() {
    let all = vars(&[
        ("PODLING_LOG", "info"),
        ("PODLING_CONFIG", "/x"),
        ("PODLING_LOGS", "info"),
        ("HOME", "/"),
    ]);
    assert_eq!(Effective::strangers(&all).collect::<Vec<_>>(), ["PODLING_LOGS"]);
}

/// The reference for operators has one row a key; `UPDATE_DOCS=1 cargo test the_reference` writes it anew.
#[test]
fn the_reference_for_operators_is_complete() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/executor.md");
    let text = std::fs::read_to_string(&path).expect("docs/executor.md");
    let (before, rest) = text.split_once("<!-- keys -->\n").expect("a place for the table");
    let (_, after) = rest
        .split_once("<!-- end of keys -->")
        .expect("the end of that place");
    let mut table = "| key | variable | default | |\n|---|---|---|---|\n".to_owned();
    for key in KEYS {
        let default = match (key.show)(&Config::default()) {
            nothing if nothing.is_empty() => String::new(),
            value => format!("`{value}`"),
        };
        table += &format!(
            "| `{}` | `{}` | {default} | {} |\n",
            key.name,
            key.variable(),
            key.about
        );
    }
    let wanted = format!("{before}<!-- keys -->\n{table}<!-- end of keys -->{after}");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &wanted).expect("written");
        return;
    }
    assert!(
        text == wanted,
        "docs/executor.md is not up to date: UPDATE_DOCS=1 cargo test the_reference"
    );
}

#[test]
fn every_key_reads_back_what_it_shows() {
    let mut config = Config {
        ca_file: Some("/ca.pem".into()),
        agent_name: Some("agent".into()),
        images: image::OperatorConfig {
            quota: image::Quota::Bytes(5),
            reserve: image::Reserve(6),
            insecure: list("a:1, b"),
            mirrors: [("docker.io".into(), list("m:1,n")), ("q.io".into(), list("m"))].into(),
            credentials: Some("/auth.json".into()),
            authorities: vec!["/ca.pem".into(), "/other.pem".into()],
            token_services: list("sso.example.org"),
            devices: image::DevicePolicy::Refuse,
            layer_limit: 1 << 30,
            stall: Duration::from_secs(5),
            read_only: true,
            ..image::OperatorConfig::default()
        },
        members: MembersConfig {
            defaults: plan::Defaults {
                capabilities: Some(plan::CapabilitySet::of(&[19])),
                policy: Policy {
                    capabilities: Some(plan::CapabilitySet(u64::MAX)),
                    filters: Some(Filters::Profiles),
                    host_volumes: Some(HostVolumes::new([
                        ("/a".into(), Access::Write),
                        ("/a/b".into(), Access::Read),
                        ("/a/b/c".into(), Access::None),
                    ])),
                    host_network: Some(true),
                    host_ipc: Some(false),
                    shared_pid: Some(true),
                    root: Some(false),
                    ..Policy::of(Preset::Strict)
                },
                ..plan::Defaults::default()
            },
            ..MembersConfig::default()
        },
        ..Config::default()
    };
    let network = "{ default_network = \"a\", networks = { a = { subnets = [\"10.1.0.0/24\"] } } }";
    let network_key = KEYS.iter().find(|key| key.name == "network").expect("a key");
    (network_key.read)(&mut config, network).expect("a network");
    assert_eq!(config.network.config.networks.len(), 1);
    let before = config.clone();
    for key in KEYS {
        let shown = (key.show)(&config);
        (key.read)(&mut config, &shown).unwrap_or_else(|problem| panic!("{} = {shown}: {problem}", key.name));
    }
    assert_eq!(config, before);
}
