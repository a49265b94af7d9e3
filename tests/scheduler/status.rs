//! What the API says of a running pod, field by field (API reference, section 8).

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use podling::loopback::{
    agent::CommandLine,
    master::{Access, Cluster, Options},
};
use serde_json::{Value, json};

use crate::process::Scheduler;

const PATIENCE: Duration = Duration::from_secs(60);

struct Home {
    scheduler: Scheduler,
    _cluster: Cluster,
    directory: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let work_dir = directory.path().join("work");
        std::fs::create_dir(&work_dir).unwrap();
        let cluster = Cluster::start(Options {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            agents: 1,
            resources: "cpus:4;mem:1024;disk:1024;ports:[31000-31009]".to_owned(),
            default_executor: CommandLine::typed(env!("CARGO_BIN_EXE_podling-executor")),
            work_dir,
            executor_environment: Vec::new(),
            access: Access::default(),
        })
        .unwrap();
        let scheduler = Scheduler::start(cluster.address(), &directory.path().join("state.db"));
        Home {
            scheduler,
            _cluster: cluster,
            directory,
        }
    }

    fn post(&self, pod: &Value) -> Value {
        let (status, body) = self.scheduler.call("POST", "/v2/pods", Some(pod));
        assert_eq!(status, 201, "{body}");
        body
    }

    fn await_status(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.scheduler.get("/v2/pods/team/web::status");
            if is(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "never {what}: {status:#}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Exactly these keys, and no null among them.
fn has_keys(value: &Value, keys: &[&str]) {
    let found: BTreeSet<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(found, keys.iter().copied().collect(), "{value:#}");
    assert!(
        value.as_object().unwrap().values().all(|value| !value.is_null()),
        "{value:#}"
    );
}

fn is_time(value: &Value) -> bool {
    let text = value.as_str().unwrap();
    text.len() == "2017-01-03T18:21:19.310Z".len() && text.ends_with('Z') && text.as_bytes()[10] == b'T'
}

#[test]
fn a_running_pod_shows_every_field_clients_read() {
    let home = Home::new();
    let member = |name: &str, endpoints: Value| {
        json!({"name": name, "resources": {"cpus": 0.1, "mem": 32}, "endpoints": endpoints,
            "exec": {"command": {"shell": "exec sleep 1000"}}})
    };
    let pod = home.post(&json!({"id": "/team/web", "labels": {"a": "b"}, "executorResources": {"cpus": 0.2, "mem": 64},
        "containers": [member("a", json!([{"name": "http", "hostPort": 0}, {"name": "admin", "hostPort": 31005}])),
            member("b", json!([]))]}));
    let status = home.await_status("stable", |status| status["status"] == "STABLE");

    has_keys(
        &status,
        &[
            "id",
            "spec",
            "status",
            "statusSince",
            "instances",
            "terminationHistory",
            "lastUpdated",
            "lastChanged",
        ],
    );
    assert_eq!((&status["id"], &status["spec"]), (&json!("/team/web"), &pod));
    assert_eq!(status["terminationHistory"], json!([]));
    assert_eq!(status["lastChanged"], status["statusSince"]);
    let instance = &status["instances"][0];
    assert_eq!(status["statusSince"], instance["statusSince"]);
    has_keys(
        instance,
        &[
            "id",
            "status",
            "statusSince",
            "agentHostname",
            "agentId",
            "resources",
            "networks",
            "containers",
            "specReference",
            "lastUpdated",
            "lastChanged",
            "role",
        ],
    );
    assert!(instance["id"].as_str().unwrap().starts_with("team_web.instance-"));
    assert_eq!(
        (&instance["status"], &instance["role"]),
        (&json!("STABLE"), &json!("*"))
    );
    assert_eq!(instance["agentHostname"], "agent1.loopback");
    let sum = json!({"cpus": 0.4, "mem": 128.0, "disk": 10.0, "gpus": 0});
    assert_eq!(instance["resources"], sum, "the executor's share is part of it");
    let reference = format!("/v2/pods/team/web::versions/{}", pod["version"].as_str().unwrap());
    assert_eq!(instance["specReference"], reference);
    assert_eq!(home.scheduler.get(&reference), pod);
    let addresses = instance["networks"][0]["addresses"].as_array().unwrap();
    assert!(
        !addresses.is_empty() && addresses.iter().all(Value::is_string),
        "{instance:#}"
    );

    let container = &instance["containers"][0];
    has_keys(
        container,
        &[
            "name",
            "status",
            "statusSince",
            "containerId",
            "endpoints",
            "conditions",
            "resources",
            "lastUpdated",
            "lastChanged",
        ],
    );
    assert_eq!(
        (&container["name"], &container["status"]),
        (&json!("a"), &json!("TASK_RUNNING"))
    );
    let task = format!("{}.a.1", instance["id"].as_str().unwrap());
    assert_eq!(container["containerId"], task);
    assert_eq!(
        container["resources"],
        json!({"cpus": 0.1, "mem": 32.0, "disk": 0.0, "gpus": 0})
    );
    assert_eq!(container["lastChanged"], container["statusSince"]);
    let endpoints = container["endpoints"].as_array().unwrap();
    let port = |name: &str| {
        let endpoint = endpoints
            .iter()
            .find(|endpoint| endpoint["name"] == name)
            .unwrap();
        has_keys(endpoint, &["name", "allocatedHostPort"]);
        endpoint["allocatedHostPort"].as_u64().unwrap()
    };
    assert_eq!(port("admin"), 31005);
    assert!((31000..=31009).contains(&port("http")) && port("http") != 31005);
    for time in ["statusSince", "lastUpdated", "lastChanged"] {
        assert!(
            [&status, instance, container]
                .iter()
                .all(|value| is_time(&value[time])),
            "{time}"
        );
    }
    let all = home.scheduler.get("/v2/pods/::status");
    assert_eq!(
        (all.as_array().unwrap().len(), &all[0]["id"]),
        (1, &json!("/team/web"))
    );
}

#[test]
fn what_ended_is_told_with_its_reason() {
    let home = Home::new();
    let gate = home.directory.path().join("gate");
    // It fails once the gate is there, and waits for its next turn for an hour.
    let command = format!("while [ ! -e '{}' ]; do sleep 0.01; done; exit 7", gate.display());
    home.post(&json!({"id": "/team/web", "scheduling": {"backoff": {"backoff": 3600, "maxLaunchDelay": 3600}},
        "containers": [{"name": "a", "resources": {"cpus": 0.1, "mem": 32}, "exec": {"command": {"shell": command}}}]}));
    let before = home.await_status("stable", |status| status["status"] == "STABLE");
    std::fs::write(&gate, "").unwrap();
    let status = home.await_status("degraded", |status| status["terminationHistory"][0].is_object());
    assert_eq!(status["status"], "DEGRADED");
    let instance = &status["instances"][0];
    assert_eq!(
        (&instance["id"], &instance["status"]),
        (&before["instances"][0]["id"], &json!("PENDING")),
        "the same instance waits for its next run"
    );
    let end = &status["terminationHistory"][0];
    has_keys(
        end,
        &[
            "instanceID",
            "instanceId",
            "startedAt",
            "terminatedAt",
            "message",
            "containers",
        ],
    );
    assert_eq!(end["instanceID"], instance["id"]);
    assert!(end["message"].as_str().unwrap().contains("status 7"), "{end}");
    assert!(is_time(&end["startedAt"]) && is_time(&end["terminatedAt"]));
    let container = &end["containers"][0];
    has_keys(container, &["containerId", "lastKnownState", "termination"]);
    assert_eq!(container["lastKnownState"], "TASK_FAILED");
    assert!(
        container["termination"]["message"]
            .as_str()
            .unwrap()
            .contains("status 7")
    );

    let queue = home.scheduler.get("/v2/queue");
    let item = &queue["queue"][0];
    assert_eq!(
        (&item["pod"]["id"], &item["count"]),
        (&json!("/team/web"), &json!(1))
    );
    assert_eq!(item["delay"]["overdue"], false, "it backs off");
    assert!(item["delay"]["timeLeftSeconds"].as_u64().unwrap() > 3500);
}
