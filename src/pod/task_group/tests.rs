use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::pod::{self, Profile, Support};

const UUID: &str = "6f1b2c3e-0b1a-11ee-8f7a-0242ac110002";

fn profile() -> Profile {
    let support = Support {
        images: true,
        container_networks: true,
        ..Support::default()
    };
    Profile {
        support,
        ..Profile::default()
    }
}

fn scalar(name: &str, value: f64) -> v1::Resource {
    v1::Resource {
        name: name.to_owned(),
        r#type: v1::value::Type::Scalar as i32,
        scalar: Some(v1::value::Scalar { value }),
        ..Default::default()
    }
}

fn target(host_ports: &[(&str, u16)]) -> Target {
    Target {
        framework: v1::FrameworkId {
            value: "F".to_owned(),
        },
        agent: v1::AgentId {
            value: "A".to_owned(),
        },
        hostname: "node1".to_owned(),
        allocation: Allocation {
            executor: vec![scalar("cpus", 0.1)],
            containers: vec![vec![scalar("cpus", 0.5)], vec![scalar("cpus", 0.2)]],
            ports: vec![],
            host_ports: host_ports
                .iter()
                .map(|(name, port)| ((*name).to_owned(), *port))
                .collect(),
        },
    }
}

fn options(delivery: Delivery) -> Options {
    Options {
        delivery,
        variable_prefix: String::new(),
        bridge_name: "mesos-bridge".to_owned(),
    }
}

fn launch(definition: Value, target: Target, delivery: Delivery) -> v1::offer::operation::LaunchGroup {
    let pod = pod::read(&definition, &profile())
        .unwrap_or_else(|violations| panic!("{violations}"))
        .pod;
    let instance = InstanceId::new(&pod.id, Uuid::parse_str(UUID).unwrap());
    let options = options(delivery);
    let version = "2024-05-01T10:00:00Z".parse().unwrap();
    Launch {
        pod: &pod,
        version,
        instance: &instance,
        incarnation: 1,
        target: &target,
        options: &options,
    }
    .operation()
}

fn environment(task: &v1::TaskInfo) -> std::collections::BTreeMap<String, String> {
    let variables = &task
        .command
        .as_ref()
        .unwrap()
        .environment
        .as_ref()
        .unwrap()
        .variables;
    variables
        .iter()
        .map(|variable| (variable.name.clone(), variable.value.clone().unwrap()))
        .collect()
}

/// The worked example of the mapping reference, section 13.
fn worked_example() -> Value {
    json!({"id": "/team/web", "labels": {"owner": "ops"}, "environment": {"MODE": "blue"},
     "volumes": [{"name": "shared"}],
     "containers": [
      {"name": "srv", "resources": {"cpus": 0.5, "mem": 64}, "user": "nobody",
       "exec": {"command": {"shell": "serve --port $ENDPOINT_WEB_UI"}},
       "endpoints": [{"name": "web-ui", "hostPort": 0, "protocol": ["tcp"], "labels": {"VIP_0": "/web:80"}}],
       "volumeMounts": [{"name": "shared", "mountPath": "data"}],
       "lifecycle": {"killGracePeriodSeconds": 2.5}},
      {"name": "side", "resources": {"cpus": 0.1, "mem": 32}, "image": {"kind": "DOCKER", "id": "busybox", "forcePull": true},
       "exec": {"command": {"argv": ["tail", "-f", "/in/log"]}, "overrideEntrypoint": true},
       "endpoints": [{"name": "adm", "hostPort": 0}],
       "volumeMounts": [{"name": "shared", "mountPath": "/in", "readOnly": true}]}],
     "networks": [{"mode": "host"}]})
}

#[test]
fn the_worked_example_becomes_what_the_reference_says() {
    let group = launch(
        worked_example(),
        target(&[("web-ui", 31005), ("adm", 31077)]),
        Delivery::AgentDefault,
    );
    let executor = &group.executor;
    assert_eq!(executor.executor_id.value, format!("instance-team_web.{UUID}"));
    assert_eq!(executor.r#type, Some(v1::executor_info::Type::Default as i32));
    assert_eq!(executor.command, None);
    assert_eq!(executor.data, None);
    assert!(executor.container.as_ref().unwrap().network_infos.is_empty());

    let [srv, side] = &group.task_group.tasks[..] else {
        panic!("two tasks")
    };
    assert_eq!(srv.task_id.value, format!("team_web.instance-{UUID}.srv.1"));
    let command = srv.command.as_ref().unwrap();
    assert_eq!(
        (command.shell, command.user.as_deref()),
        (Some(true), Some("nobody"))
    );
    assert_eq!(
        srv.kill_policy
            .as_ref()
            .unwrap()
            .grace_period
            .unwrap()
            .nanoseconds,
        2_500_000_000
    );
    assert_eq!(
        serde_json::to_value(environment(srv)).unwrap(),
        json!({"MODE": "blue", "HOST": "node1", "MESOS_TASK_ID": format!("team_web.instance-{UUID}.srv.1"),
            "MESOS_EXECUTOR_ID": format!("instance-team_web.{UUID}"), "MARATHON_APP_ID": "/team/web",
            "MARATHON_APP_VERSION": "2024-05-01T10:00:00.000Z", "MARATHON_CONTAINER_ID": "srv",
            "MARATHON_APP_ENFORCE_GROUP_ROLE": "FALSE", "MARATHON_CONTAINER_RESOURCE_CPUS": "0.5",
            "MARATHON_CONTAINER_RESOURCE_MEM": "64.0", "MARATHON_CONTAINER_RESOURCE_DISK": "0.0",
            "MARATHON_CONTAINER_RESOURCE_GPUS": "0", "MARATHON_APP_LABELS": "OWNER",
            "MARATHON_APP_LABEL_OWNER": "ops", "ENDPOINT_WEB_UI": "31005", "EP_HOST_WEB_UI": "31005",
            "ENDPOINT_ADM": "31077", "EP_HOST_ADM": "31077"})
    );
    let volume = &srv.container.as_ref().unwrap().volumes[0];
    let source = volume.source.as_ref().unwrap().sandbox_path.as_ref().unwrap();
    assert_eq!(
        (volume.mode(), volume.container_path.as_str()),
        (v1::volume::Mode::Rw, "data")
    );
    assert_eq!(
        (source.r#type(), source.path.as_str()),
        (v1::volume::source::sandbox_path::Type::Parent, "volumes/shared")
    );
    let discovery = srv.discovery.as_ref().unwrap();
    assert_eq!(discovery.name.as_deref(), Some("web.team"));
    let port = &discovery.ports.as_ref().unwrap().ports[0];
    assert_eq!(
        (port.number, port.name.as_deref(), port.protocol.as_deref()),
        (31005, Some("web-ui"), Some("tcp"))
    );

    let command = side.command.as_ref().unwrap();
    assert_eq!(
        (command.shell, command.value.as_deref()),
        (Some(false), Some("tail"))
    );
    assert_eq!(command.arguments, ["tail", "-f", "/in/log"]);
    let container = side.container.as_ref().unwrap();
    assert_eq!(
        container.mesos.as_ref().unwrap().image.as_ref().unwrap().cached,
        Some(false)
    );
    assert_eq!(container.volumes[0].mode(), v1::volume::Mode::Ro);
    assert!(
        side.discovery
            .as_ref()
            .unwrap()
            .ports
            .as_ref()
            .unwrap()
            .ports
            .is_empty(),
        "no protocol, no entry"
    );
}

/// Section 5 of the mapping reference.
#[test]
fn commands_follow_the_entrypoint_table() {
    let image = json!({"kind": "DOCKER", "id": "x"});
    for (exec, image, shell, value, arguments) in [
        (json!(null), image.clone(), false, None, vec![]),
        (
            json!({"command": {"shell": "s"}}),
            json!(null),
            true,
            Some("s"),
            vec![],
        ),
        (
            json!({"command": {"argv": ["a", "b"]}}),
            image.clone(),
            false,
            None,
            vec!["a", "b"],
        ),
        (
            json!({"command": {"argv": ["a", "b"]}, "overrideEntrypoint": false}),
            image.clone(),
            false,
            None,
            vec!["a", "b"],
        ),
        (
            json!({"command": {"argv": ["a", "b"]}, "overrideEntrypoint": true}),
            image,
            false,
            Some("a"),
            vec!["a", "b"],
        ),
        (
            json!({"command": {"argv": ["a", "b"]}}),
            json!(null),
            false,
            Some("a"),
            vec!["a", "b"],
        ),
    ] {
        let pod =
            json!({"id": "/p", "containers": [{"name": "c", "resources": {}, "exec": exec, "image": image}]});
        let group = launch(pod, target(&[]), Delivery::AgentDefault);
        let command = group.task_group.tasks[0].command.as_ref().unwrap();
        assert_eq!(command.shell, Some(shell), "{exec}");
        assert_eq!(command.value.as_deref(), value, "{exec}");
        assert_eq!(command.arguments, arguments, "{exec}");
    }
}

/// A master and our executor refuse an executor that would share its cgroups with itself.
#[test]
fn r_05_legacy_shared_cgroups_are_a_matter_of_the_tasks() {
    let mut pod = worked_example();
    pod["legacySharedCgroups"] = json!(true);
    let group = launch(
        pod,
        target(&[("web-ui", 31005), ("adm", 31077)]),
        Delivery::AgentDefault,
    );
    let shares = |container: Option<&v1::ContainerInfo>| container?.linux_info.as_ref()?.share_cgroups;
    assert_eq!(shares(group.executor.container.as_ref()), Some(false));
    for task in &group.task_group.tasks {
        assert_eq!(shares(task.container.as_ref()), Some(true));
    }
    let faults = crate::group::validate::group(&group.task_group.tasks, &group.executor);
    assert_eq!(faults.len(), 0, "{faults:?}");
}

#[test]
fn users_cannot_override_what_the_system_says() {
    let mut pod = worked_example();
    pod["environment"] = json!({"HOST": "evil", "MESOS_TASK_ID": "evil", "MARATHON_APP_ID": "evil"});
    pod["containers"][0]["environment"] = json!({"ENDPOINT_WEB_UI": "1", "MODE": "green"});
    let group = launch(pod, target(&[("web-ui", 31005)]), Delivery::AgentDefault);
    let environment = environment(&group.task_group.tasks[0]);
    assert_eq!(environment["HOST"], "node1");
    assert_eq!(environment["MARATHON_APP_ID"], "/team/web");
    assert_eq!(environment["ENDPOINT_WEB_UI"], "31005");
    assert_eq!(environment["MODE"], "green");
}

fn networked(networks: Value, endpoints: Value) -> Value {
    json!({"id": "/p", "networks": networks, "containers": [{"name": "c", "resources": {},
        "exec": {"command": {"shell": "x"}}, "endpoints": endpoints}]})
}

#[test]
fn ports_are_mapped_on_the_networks_an_endpoint_names() {
    let networks = json!([{"name": "a", "labels": {"k": "v"}}, {"name": "b"}]);
    let endpoints = json!([
        {"name": "one", "containerPort": 80, "hostPort": 0, "protocol": ["http", "udp"], "networkNames": ["a"]},
        {"name": "two", "containerPort": 81, "protocol": ["tcp"]}]);
    let allocated = target(&[("one", 31000)]);
    let group = launch(
        networked(networks.clone(), endpoints.clone()),
        allocated.clone(),
        Delivery::AgentDefault,
    );
    let [a, b] = &group.executor.container.as_ref().unwrap().network_infos[..] else {
        panic!("two networks")
    };
    assert_eq!((a.name.as_deref(), b.name.as_deref()), (Some("a"), Some("b")));
    let mapped: Vec<_> = a
        .port_mappings
        .iter()
        .map(|mapping| {
            (
                mapping.host_port,
                mapping.container_port,
                mapping.protocol.as_deref(),
            )
        })
        .collect();
    assert_eq!(
        mapped,
        [(31000, 80, Some("tcp")), (31000, 80, Some("udp"))],
        "http is spoken over tcp"
    );
    assert!(b.port_mappings.is_empty());
    let discovery = group.task_group.tasks[0].discovery.as_ref().unwrap();
    let ports = &discovery.ports.as_ref().unwrap().ports;
    let shown: Vec<_> = ports
        .iter()
        .map(|port| (port.number, port.protocol.as_deref().unwrap()))
        .collect();
    assert_eq!(
        shown,
        [(31000, "http"), (31000, "udp"), (81, "tcp"), (81, "tcp")],
        "the user's own word"
    );

    // Our own executor is asked in its own words, and the agent is not.
    let own = Delivery::Own(Box::default());
    let group = launch(networked(networks, endpoints), allocated, own);
    assert!(
        group
            .executor
            .container
            .as_ref()
            .unwrap()
            .network_infos
            .is_empty()
    );
    let data: Value = serde_json::from_slice(group.executor.data.as_ref().unwrap()).unwrap();
    assert_eq!(data["podling"], 1);
    assert_eq!(
        data["network"]["networks"][0]["portMappings"][0]["hostPort"],
        31000
    );
    assert_eq!(data["network"]["mode"], "container");
    assert_eq!(understood(&data), ["a", "b"]);
    let pod = networked(json!([{"mode": "container/bridge"}]), json!([]));
    let own = Delivery::Own(Box::default());
    let group = launch(pod, target(&[]), own);
    let data: Value = serde_json::from_slice(group.executor.data.as_ref().unwrap()).unwrap();
    assert_eq!(understood(&data), ["mesos-bridge"]);
}

/// The names of the networks that our executor makes of it, on a node that knows `a` and `b`.
fn understood(data: &Value) -> Vec<String> {
    use crate::network::{config::Config, request::Kind};
    let mut config = Config::default();
    for (name, subnet) in [("a", "10.1.0.0/24"), ("b", "10.2.0.0/24")] {
        let mut network = config.networks["mesos-bridge"].clone();
        network.subnets = vec![subnet.parse().unwrap()];
        network.bridge = Some(name.to_owned());
        config.networks.insert(name.to_owned(), network);
    }
    let manager = crate::network::Manager::open(config).unwrap();
    let request = manager.read(None, Some(&data["network"])).unwrap();
    let Kind::Own(attachments) = request.kind else {
        panic!("{request:?}")
    };
    attachments
        .into_iter()
        .map(|attachment| attachment.name)
        .collect()
}

#[test]
fn a_bridge_maps_the_host_port_where_no_container_port_is_named() {
    let pod = networked(
        json!([{"mode": "container/bridge"}]),
        json!([{"name": "one", "protocol": ["tcp"]}]),
    );
    let group = launch(pod, target(&[("one", 31000)]), Delivery::AgentDefault);
    let info = &group.executor.container.as_ref().unwrap().network_infos[0];
    assert_eq!(info.name.as_deref(), Some("mesos-bridge"));
    assert_eq!(
        (
            info.port_mappings[0].host_port,
            info.port_mappings[0].container_port
        ),
        (31000, 31000)
    );
    assert_eq!(environment(&group.task_group.tasks[0])["ENDPOINT_ONE"], "31000");
}

#[test]
fn relative_host_volumes_lie_in_the_executors_sandbox() {
    let pod = json!({"id": "/p", "volumes": [{"name": "a", "host": "/var/data"}, {"name": "b", "host": "shared/b"}],
        "containers": [{"name": "c", "resources": {}, "exec": {"command": {"shell": "x"}},
            "volumeMounts": [{"name": "a", "mountPath": "/a"}, {"name": "b", "mountPath": "b"}]}]});
    let group = launch(pod, target(&[]), Delivery::AgentDefault);
    let volumes = &group.task_group.tasks[0].container.as_ref().unwrap().volumes;
    let source = |index: usize| volumes[index].source.as_ref().unwrap();
    assert_eq!(source(0).host_path.as_ref().unwrap().path, "/var/data");
    assert_eq!(source(1).sandbox_path.as_ref().unwrap().path, "shared/b");
}

#[test]
fn checks_look_at_the_port_inside_the_pod() {
    let pod = |networks: Value, endpoint: Value, check: Value| {
        json!({"id": "/p", "networks": networks, "containers": [{"name": "c", "resources": {},
            "exec": {"command": {"shell": "serve"}}, "endpoints": [endpoint], "healthCheck": check.clone(), "check": check}]})
    };
    let http = json!({"http": {"endpoint": "e", "path": "/ok"}, "intervalSeconds": 10, "timeoutSeconds": 5});
    let tcp = json!({"tcp": {"endpoint": "e"}});
    let container = json!([{"mode": "container", "name": "dcos"}]);
    let bridge = json!([{"mode": "container/bridge"}]);
    let on_host = json!({"name": "e", "hostPort": 0});
    let (inside, both) = (
        json!({"name": "e", "containerPort": 80}),
        json!({"name": "e", "containerPort": 80, "hostPort": 0}),
    );
    for (networks, endpoint, check, port) in [
        (json!([{"mode": "host"}]), &on_host, &http, 31005),
        (container.clone(), &inside, &http, 80),
        (container.clone(), &both, &tcp, 80),
        (bridge.clone(), &both, &http, 80),
        // Where Marathon silently sends no check at all.
        (bridge, &on_host, &tcp, 31005),
    ] {
        let definition = pod(networks, endpoint.clone(), check.clone());
        let group = launch(definition, target(&[("e", 31005)]), Delivery::AgentDefault);
        let task = &group.task_group.tasks[0];
        let (health, general) = (task.health_check.as_ref().unwrap(), task.check.as_ref().unwrap());
        let ports = match (&health.http, &health.tcp) {
            (Some(http), None) => (http.port, general.http.as_ref().unwrap().port),
            (None, Some(tcp)) => (tcp.port, general.tcp.unwrap().port),
            other => panic!("{other:?}"),
        };
        assert_eq!(ports, (port, port), "{endpoint} {check}");
    }
}

#[test]
fn checks_become_what_the_reference_says() {
    let check = json!({"http": {"endpoint": "e", "path": "/ok", "scheme": "HTTPS"}, "intervalSeconds": 10,
        "timeoutSeconds": 5, "gracePeriodSeconds": 7, "maxConsecutiveFailures": 4, "delaySeconds": 1});
    let exec = json!({"exec": {"command": {"argv": ["test", "-e", "/ok"]}}});
    let definition = json!({"id": "/p", "networks": [{"mode": "host"}], "containers": [{"name": "c", "resources": {},
        "exec": {"command": {"shell": "serve"}}, "endpoints": [{"name": "e", "hostPort": 0}],
        "healthCheck": check, "check": exec}]});
    let group = launch(definition, target(&[("e", 31005)]), Delivery::AgentDefault);
    let task = &group.task_group.tasks[0];
    let health = task.health_check.as_ref().unwrap();
    assert_eq!(health.r#type(), v1::health_check::Type::Http);
    let http = health.http.as_ref().unwrap();
    assert_eq!(
        (http.scheme.as_deref(), http.path.as_deref(), http.protocol()),
        (Some("https"), Some("/ok"), v1::network_info::Protocol::IPv4)
    );
    assert_eq!(
        (
            health.interval_seconds(),
            health.timeout_seconds(),
            health.delay_seconds(),
            health.grace_period_seconds(),
            health.consecutive_failures()
        ),
        (10.0, 5.0, 1.0, 7.0, 4)
    );
    let general = task.check.as_ref().unwrap();
    assert_eq!(general.r#type(), v1::check_info::Type::Command);
    let command = &general.command.as_ref().unwrap().command;
    assert_eq!(
        (command.shell, command.value.as_deref(), &command.arguments[..]),
        (
            Some(false),
            Some("test"),
            &["test", "-e", "/ok"].map(str::to_owned)[..]
        )
    );
    assert_eq!((general.interval_seconds(), general.delay_seconds()), (60.0, 2.0));
}
