use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::network::config::{Config, DEFAULT_NETWORK};

fn networks() -> Networks {
    let toml =
        "[networks.mesos-bridge]\nsubnets = ['10.1.0.0/16']\n[networks.back]\nsubnets = ['10.2.0.0/16']";
    toml::from_str::<Config>(toml).unwrap().check().unwrap()
}

fn read(extras: Value) -> Result<Request, String> {
    let cni = |name: &str| match name {
        "calico" => Some(Plugins { can_publish: true }),
        "macvlan" => Some(Plugins { can_publish: false }),
        _ => None,
    };
    Request::read(None, Some(&extras), &networks(), &cni).map_err(|error| error.to_string())
}

fn own(extras: Value) -> Vec<Attachment> {
    match read(extras).unwrap().kind {
        Kind::Own(attachments) => attachments,
        other => panic!("{other:?}"),
    }
}

fn container(infos: &[Option<&str>]) -> v1::ContainerInfo {
    let info = |name: &Option<&str>| v1::NetworkInfo {
        name: name.map(str::to_owned),
        ..Default::default()
    };
    v1::ContainerInfo {
        network_infos: infos.iter().map(info).collect(),
        ..Default::default()
    }
}

fn agent(infos: &[Option<&str>]) -> Result<Kind, RequestError> {
    Request::read(Some(&container(infos)), None, &networks(), &|_| None).map(|request| request.kind)
}

#[test]
fn n_01_named_networks_are_the_agents_and_unnamed_ones_the_hosts() {
    assert_eq!(agent(&[]).unwrap(), Kind::Host);
    assert_eq!(agent(&[None]).unwrap(), Kind::Host);
    let Kind::Agent(infos) = agent(&[Some("a"), Some("b")]).unwrap() else {
        panic!()
    };
    assert_eq!(infos.len(), 2);
}

#[test]
fn n_08_the_same_network_twice_is_refused() {
    let error = agent(&[Some("a"), Some("a")]).unwrap_err().to_string();
    assert_eq!(
        error,
        "container.network_infos[1].name: the pod is already in network `a`"
    );
    let error = read(json!({"networks": [{"name": "back"}, {"name": "back"}]})).unwrap_err();
    assert_eq!(
        error,
        "data.network.networks[1].name: the pod is already in network `back`"
    );
}

#[test]
fn modes_decide_who_makes_a_network() {
    assert_eq!(read(json!({})).unwrap().kind, Kind::Host);
    assert_eq!(read(json!({"mode": "host"})).unwrap().kind, Kind::Host);
    let bridge = |attachment: &Attachment| match &attachment.by {
        Maker::Bridge(network) => network.name.clone(),
        Maker::Cni => "CNI".to_owned(),
    };
    for (extras, makers) in [
        (json!({"mode": "bridge"}), vec![DEFAULT_NETWORK]),
        (json!({"mode": "container"}), vec![DEFAULT_NETWORK]),
        (
            json!({"mode": "bridge", "networks": [{"name": "back"}]}),
            vec!["back"],
        ),
        (
            json!({"networks": [{"name": "calico"}, {"name": "back"}]}),
            vec!["CNI", "back"],
        ),
        (
            json!({"mode": "cni", "networks": [{"name": "calico"}]}),
            vec!["CNI"],
        ),
    ] {
        assert_eq!(
            own(extras.clone()).iter().map(bridge).collect::<Vec<_>>(),
            makers,
            "{extras}"
        );
    }
}

#[test]
fn n_07_ports_are_read_with_their_defaults() {
    let attachments = own(
        json!({"networks": [{"name": "back", "labels": {"a": "b"}, "portMappings": [
            {"hostPort": 1, "containerPort": 2, "protocol": "UDP"},
            {"hostPort": 1, "protocol": "https"},
            {"hostPort": 65535},
        ]}]}),
    );
    let ports = &attachments[0].port_mappings;
    let all: Vec<_> = ports
        .iter()
        .map(|p| (p.host_port, p.container_port, p.protocol))
        .collect();
    assert_eq!(
        all,
        [
            (1, 2, Protocol::Udp),
            (1, 1, Protocol::Tcp),
            (65535, 65535, Protocol::Tcp)
        ]
    );
    assert_eq!(attachments[0].labels["a"], "b");
}

#[test]
fn one_mapping_may_be_on_several_networks() {
    let ports = json!([{"hostPort": 80, "containerPort": 8080}]);
    let both = |other: Value| {
        json!({"networks": [
        {"name": "back", "portMappings": ports}, {"name": "calico", "portMappings": other}]})
    };
    assert_eq!(own(both(ports.clone())).len(), 2);
    let error = read(both(json!([{"hostPort": 80, "containerPort": 81}]))).unwrap_err();
    assert_eq!(
        error,
        "data.network.networks[1].portMappings[0].hostPort: 80/tcp is already taken by \
         data.network.networks[0].portMappings[0]"
    );
}

#[test]
fn a_bad_request_names_its_place() {
    let mapping = |mapping: Value| json!({"networks": [{"name": "back", "portMappings": [mapping]}]});
    for (extras, sentence) in [
        (json!([]), "data.network: expected an object"),
        (
            json!({"mod": "host"}),
            "data.network.mod: unknown key; there are: mode, networks",
        ),
        (json!({"mode": 3}), "data.network.mode: expected a string"),
        (
            json!({"mode": "overlay"}),
            "data.network.mode: `overlay` is not a mode",
        ),
        (
            json!({"mode": "host", "networks": [{}]}),
            "data.network.networks: mode host joins no other networks",
        ),
        (json!({"networks": {}}), "data.network.networks: expected a list"),
        (
            json!({"networks": ["x"]}),
            "data.network.networks[0]: expected an object",
        ),
        (
            json!({"networks": [{"nam": 1}]}),
            "data.network.networks[0].nam: unknown key",
        ),
        (
            json!({"networks": [{"name": "../x"}]}),
            "data.network.networks[0].name: a network's name is 1 to 128",
        ),
        (
            json!({"networks": [{"name": "back", "labels": {"a": 1}}]}),
            "data.network.networks[0].labels.a: expected a string",
        ),
        (
            json!({"mode": "cni"}),
            "data.network.networks: mode cni needs the name of a network",
        ),
        (
            json!({"mode": "cni", "networks": [{"name": "x"}]}),
            "data.network.networks[0].name: no CNI configuration list has the name `x`",
        ),
        (
            json!({"mode": "bridge", "networks": [{"name": "x"}]}),
            "data.network.networks[0].name: this node has no network `x`: neither",
        ),
        // Not quietly some other one.
        (
            json!({"networks": [{"name": "dcos"}]}),
            "data.network.networks[0].name: this node has no network `dcos`: neither",
        ),
        (
            mapping(json!({})),
            "data.network.networks[0].portMappings[0].hostPort: is missing",
        ),
        (
            mapping(json!({"hostPort": 0})),
            "data.network.networks[0].portMappings[0].hostPort: 0 is not a port",
        ),
        (
            mapping(json!({"hostPort": 70000})),
            "data.network.networks[0].portMappings[0].hostPort: 70000 is above 65535",
        ),
        (
            mapping(json!({"hostPort": 1.5})),
            "data.network.networks[0].portMappings[0].hostPort: expected a number",
        ),
        (
            mapping(json!({"hostPort": 1, "containerPort": -1})),
            "data.network.networks[0].portMappings[0].containerPort: expected a number",
        ),
        (
            mapping(json!({"hostPort": 1, "protocol": "sctp"})),
            "data.network.networks[0].portMappings[0].protocol: sctp ports cannot be published",
        ),
        (
            mapping(json!({"hostPort": 1, "protocol": "icmp"})),
            "data.network.networks[0].portMappings[0].protocol: `icmp` is neither tcp nor udp",
        ),
    ] {
        let error = read(extras).unwrap_err();
        assert!(error.starts_with(sentence), "{error}");
    }
    let twice = Request::read(
        Some(&container(&[Some("a")])),
        Some(&json!({})),
        &networks(),
        &|_| None,
    );
    assert!(
        twice
            .unwrap_err()
            .to_string()
            .starts_with("data.network: the agent has already made")
    );
}

#[test]
fn n_03_a_hostname_is_checked() {
    let named = |hostname: &str| v1::ContainerInfo {
        hostname: Some(hostname.into()),
        ..Default::default()
    };
    let read = |hostname: &str| Request::read(Some(&named(hostname)), None, &networks(), &|_| None);
    assert_eq!(
        read("web-1.example").unwrap().hostname.as_deref(),
        Some("web-1.example")
    );
    for bad in ["", "a b", "a\nb", "-a", &"x".repeat(65)] {
        assert!(
            read(bad)
                .unwrap_err()
                .to_string()
                .starts_with("container.hostname: "),
            "{bad}"
        );
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z/.]{0,6}".prop_map(Value::from),
        Just(json!("back")),
    ];
    let key = prop_oneof![
        "mode",
        "networks",
        "name",
        "labels",
        "portMappings",
        "hostPort",
        "protocol",
        "[a-z]{3}"
    ];
    leaf.prop_recursive(5, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key.clone(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn l_7_any_json_is_read_or_refused_with_its_place(extras in any_json()) {
        if let Err(error) = read(extras) {
            prop_assert!(error.starts_with("data.network"), "{error}");
        }
    }
}
