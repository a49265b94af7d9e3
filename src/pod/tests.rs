//! The pod model against the seeds, Marathon's samples, the rule tables of the reference, and hostile input.

mod rules;
mod shapes;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Kind, Profile, Support, Violations, model::*, read};

/// Everything on: these tests are about definitions, not about what runs by now.
fn profile() -> Profile {
    Profile::anything()
}

fn fixture(name: &str) -> Value {
    let path = format!("{}/tests/fixtures/pods/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(&path).expect(&path)).expect(&path)
}

fn accepted(value: &Value) -> Pod {
    read(value, &profile())
        .unwrap_or_else(|violations| panic!("{violations}"))
        .pod
}

fn refused(value: &Value) -> Violations {
    read(value, &profile())
        .map(|definition| panic!("accepted: {:?}", definition.pod))
        .unwrap_err()
}

fn simple() -> Value {
    fixture("seed-simplepod")
}

/// The seeds' quick start with one value put at a JSON pointer.
fn with(pointer: &str, value: Value) -> Value {
    let mut pod = simple();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = pod.pointer_mut(parent).unwrap();
    match parent {
        Value::Array(items) => items.push(value),
        _ => parent[key] = value,
    }
    pod
}

#[test]
fn every_definition_of_the_seeds_is_accepted() {
    for name in [
        "seed-complete-pod",
        "seed-pod-with-endpoint",
        "seed-pod-with-healthcheck",
        "seed-pod-with-multiple-containers",
        "seed-pod-with-virtual-network",
        "seed-simple-pod",
        "seed-simple-pod-2",
        "seed-simplepod",
        "seed-simplepod2",
        "seed-test-pod",
        "seed-with-ephemeral-vol",
    ] {
        let pod = accepted(&fixture(name));
        // The canonical form is a definition again, and the same one.
        let canonical = serde_json::to_value(&pod).unwrap();
        assert_eq!(accepted(&canonical), pod, "{name}");
        // It is also what the store keeps.
        assert_eq!(serde_json::from_value::<Pod>(canonical).unwrap(), pod, "{name}");
    }
}

#[test]
fn marathons_samples_are_answered_as_marathon_does() {
    accepted(&fixture("marathon-simple-pod"));
    accepted(&fixture("marathon-container-net-pod"));
    let private = fixture("marathon-private-docker-pod");
    let definition = read(&private, &profile()).unwrap();
    let ignored: Vec<String> = definition.ignored.iter().map(ToString::to_string).collect();
    assert_eq!(
        ignored,
        ["containers[0].image.force is not a field of a pod and has no effect; did you mean `forcePull`?"]
    );

    let places: Vec<String> = refused(&fixture("marathon-rejected-test-pod"))
        .0
        .iter()
        .map(|v| v.place.slashed())
        .collect();
    assert_eq!(places, ["/containers(0)/name", "/containers(1)/name"]);

    let nameless = Profile {
        default_network: None,
        ..profile()
    };
    let violations = read(&fixture("marathon-container-net-pod"), &nameless).unwrap_err();
    assert_eq!(violations.0[0].place.slashed(), "/networks");
}

#[test]
fn the_quick_start_gets_every_default() {
    assert_eq!(
        serde_json::to_value(accepted(&simple())).unwrap(),
        json!({
            "id": "/simplepod", "role": "*",
            "containers": [{"name": "sleep1", "exec": {"command": {"shell": "sleep 1000"}},
                "resources": {"cpus": 0.1, "mem": 32.0, "disk": 0.0, "gpus": 0}}],
            "networks": [{"mode": "host"}],
            "scaling": {"kind": "fixed", "instances": 1},
            "scheduling": {
                "backoff": {"backoff": 1.0, "backoffFactor": 1.15, "maxLaunchDelay": 3600.0},
                "upgrade": {"minimumHealthCapacity": 1.0, "maximumOverCapacity": 1.0},
                "killSelection": "YOUNGEST_FIRST",
                "unreachableStrategy": {"inactiveAfterSeconds": 900, "expungeAfterSeconds": 604_800}},
            "executorResources": {"cpus": 0.1, "mem": 32.0, "disk": 10.0}
        })
    );
}

#[test]
fn reading_is_lenient_where_marathon_is() {
    let pod = accepted(&json!({
        "id": "//team//web/", "foo": [1], "version": "2017-01-03T18:21:19.31Z",
        "containers": [{"name": "a", "resources": {"cpus": 1, "mem": 64.0}, "image": {"kind": "docker", "id": "x"},
            "exec": {"command": {"shell": ""}}, "labels": null,
            "endpoints": [{"name": "w", "hostPort": 0.0, "protocol": ["HTTP"]}],
            "healthCheck": {"http": {"endpoint": "w", "scheme": "https"}}}],
        "scaling": {"kind": "fixed", "instances": 3.0, "maxInstances": null},
        "scheduling": {"killSelection": "Oldest_First", "unreachableStrategy": "disabled",
            "placement": {"constraints": [["hostname", "unique"], {"fieldName": "rack", "operator": "GROUP_BY", "value": "2"}]}}
    }));
    assert_eq!(pod.id.as_str(), "/team/web");
    assert_eq!(pod.version, None, "the client's version is thrown away");
    assert_eq!(
        pod.containers[0].exec, None,
        "an empty shell command means the image's own"
    );
    assert_eq!(pod.scaling.instances, 3);
    assert_eq!(pod.scheduling.kill_selection, KillSelection::OldestFirst);
    assert_eq!(pod.scheduling.placement.constraints[0].operator, Operator::Unique);
    assert!(pod.on_host_network());
}

#[test]
fn host_ports_are_filled_in_outside_container_networks() {
    let endpoints = json!([{"name": "a", "resources": {}, "exec": {"command": {"argv": ["x"]}},
        "endpoints": [{"name": "w", "protocol": ["tcp"]}]}]);
    for networks in [
        json!([]),
        json!([{"mode": "host"}]),
        json!([{"mode": "container/bridge"}]),
    ] {
        let pod = accepted(&json!({"id": "/a", "containers": endpoints, "networks": networks}));
        assert_eq!(pod.containers[0].endpoints[0].host_port, Some(0));
    }
    let pod = accepted(&fixture("seed-pod-with-endpoint"));
    assert_eq!(pod.containers[0].endpoints[0].host_port, None);
    assert_eq!(pod.networks[0].name.as_deref(), Some("dcos"));
}

#[test]
fn all_violations_come_at_once() {
    let shapes = refused(&json!({"id": 7, "containers": [{"name": "A"}, {"resources": {}}], "networks": 1}));
    assert_eq!(
        shapes.0.iter().map(|v| v.place.slashed()).collect::<Vec<_>>(),
        [
            "/id",
            "/containers(0)/name",
            "/containers(0)/resources",
            "/containers(1)/name",
            "/networks"
        ]
    );
    let rules = refused(&json!({"id": "relative", "containers": [], "volumes": [{"name": "v"}]}));
    assert_eq!(
        rules.0.iter().map(|v| v.place.slashed()).collect::<Vec<_>>(),
        ["/id", "/containers", "/volumes(0)"]
    );
}

#[test]
fn a_misspelt_field_is_named_with_the_one_that_was_meant() {
    let mut pod = simple();
    pod["scalling"] = json!({"kind": "fixed", "instances": 3});
    pod["nonsense"] = json!(1);
    pod["containers"][0]["enviroment"] = json!({"A": "b"});
    let definition = read(&pod, &profile()).unwrap();
    let meant: Vec<_> = definition
        .ignored
        .iter()
        .map(|ignored| (ignored.place.to_string(), ignored.meant))
        .collect();
    for expected in [
        ("containers[0].enviroment", Some("environment")),
        ("nonsense", None),
        // `scaling` is there already, so it is not what was meant.
        ("scalling", None),
    ] {
        assert!(meant.contains(&(expected.0.to_owned(), expected.1)), "{meant:?}");
    }
}

#[test]
fn a_variable_may_have_254_characters_and_no_more() {
    let named = |length: usize| with("/environment", json!({"A".repeat(length): "x"}));
    accepted(&named(254));
    assert_eq!(refused(&named(255)).0.len(), 1);
}

#[test]
fn a_role_nobody_offers_resources_to_us_in_is_refused() {
    let dev = with("/role", json!("dev"));
    let subscribed = |roles: &[&str]| Profile {
        roles: Some(roles.iter().map(ToString::to_string).collect()),
        ..profile()
    };
    assert!(read(&dev, &subscribed(&["*", "dev"])).is_ok());
    assert!(read(&dev, &profile()).is_ok(), "not known here");
    let violations = read(&dev, &subscribed(&["*", "ops"])).unwrap_err();
    assert_eq!(violations.0[0].place.slashed(), "/role");
    assert_eq!(violations.0[0].message, "got dev, expected one of: [*, ops]");
}

#[test]
fn ids_of_tasks_stay_below_what_mesos_takes() {
    let named = |path: usize, container: usize| {
        let mut pod = with("/id", json!(format!("/{}", "a".repeat(path))));
        pod["containers"][0]["name"] = json!("c".repeat(container));
        pod
    };
    let longest = accepted(&named(134, 63));
    let instance = super::InstanceId::new(&longest.id, uuid::Uuid::nil());
    assert_eq!(instance.task_id(&longest.containers[0].name, u32::MAX).len(), 255);
    let violations = refused(&named(135, 63));
    assert_eq!(violations.0[0].place.slashed(), "/id");
    assert!(violations.0[0].message.contains("255"), "{violations}");
    assert_eq!(refused(&named(254, 1)).0.len(), 1);
}

#[test]
fn what_cannot_run_yet_is_refused_by_name() {
    let nothing = Profile {
        support: Support::NOTHING,
        ..Profile::default()
    };
    let violations = read(&fixture("seed-complete-pod"), &nothing).unwrap_err();
    let sentences: Vec<String> = violations.0.iter().map(ToString::to_string).collect();
    for words in [
        "networks: container networks are",
        "containers[0].image: images are",
        "containers[0].artifacts",
    ] {
        assert!(
            sentences.iter().any(|sentence| sentence.starts_with(words)),
            "{words}: {sentences:?}"
        );
    }
    for sentence in &sentences {
        assert!(
            sentence.ends_with("not supported by this version of podling"),
            "{sentence}"
        );
    }
    for name in [
        "seed-simplepod",
        "seed-pod-with-multiple-containers",
        "seed-with-ephemeral-vol",
    ] {
        assert!(read(&fixture(name), &nothing).is_ok(), "{name}");
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        ".{0,12}".prop_map(Value::from),
        Just(json!("fixed")),
        Just(json!("host")),
    ];
    let keys = prop::sample::select(vec![
        "id",
        "containers",
        "name",
        "resources",
        "cpus",
        "exec",
        "command",
        "shell",
        "argv",
        "endpoints",
        "hostPort",
        "networks",
        "mode",
        "scaling",
        "kind",
        "instances",
        "scheduling",
        "placement",
        "constraints",
        "volumes",
        "healthCheck",
        "http",
        "image",
        "environment",
        "secret",
        "linuxInfo",
        "seccomp",
        "other",
    ]);
    leaf.prop_recursive(5, 64, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(keys.clone().prop_map(str::to_owned), inner, 0..8)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    /// L7: whatever the JSON, the answer is a pod or a list of violations with places.
    #[test]
    fn l7_no_json_makes_the_reader_panic(value in any_json(), pointer in "[a-zA-Z]{0,12}") {
        for profile in [profile(), Profile::default()] {
            if let Err(violations) = read(&value, &profile) {
                prop_assert!(!violations.is_empty());
            }
            // The same inside an otherwise right definition.
            let mut pod = fixture("seed-complete-pod");
            pod["containers"][0][pointer.as_str()] = value.clone();
            let _ = read(&pod, &profile);
        }
        let mut pod = simple();
        for key in pod.as_object().unwrap().keys().cloned().collect::<Vec<_>>() {
            let before = pod[&key].take();
            pod[&key] = value.clone();
            let _ = read(&pod, &profile());
            pod[&key] = before;
        }
    }
}
