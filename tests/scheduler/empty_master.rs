//! A master that comes back with an empty registry, and what runs on agents it has never heard of.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use podling::loopback::{
    agent::CommandLine,
    master::{Access, Cluster, Options},
};
use serde_json::{Value, json};

use crate::process::{Scheduler, runs};

const PATIENCE: Duration = Duration::from_secs(60);

fn await_status(scheduler: &Scheduler, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = scheduler.get("/v2/pods/web::status");
        if is(&status) {
            return status;
        }
        assert!(Instant::now() < deadline, "never {what}: {status:#}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn s3_healthy_instances_outlive_a_master_that_knows_no_agents() {
    let directory = tempfile::tempdir().unwrap();
    let work_dir = directory.path().join("work");
    std::fs::create_dir(&work_dir).unwrap();
    let cluster = Cluster::start(Options {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        agents: 3,
        resources: "cpus:4;mem:1024;disk:1024;ports:[31000-31009]".to_owned(),
        default_executor: CommandLine::typed(env!("CARGO_BIN_EXE_podling-executor")),
        work_dir: work_dir.clone(),
        executor_environment: Vec::new(),
        access: Access::default(),
    })
    .unwrap();
    let scheduler = Scheduler::start(cluster.address(), &directory.path().join("state.db"));
    let pod = json!({"id": "/web", "scaling": {"kind": "fixed", "instances": 3}, "containers": [
        {"name": "a", "resources": {"cpus": 0.1, "mem": 32}, "exec": {"command": {"shell": "exec sleep 1000"}}}]});
    assert_eq!(scheduler.call("POST", "/v2/pods", Some(&pod)).0, 201);
    let before = await_status(&scheduler, "stable", |status| status["status"] == "STABLE");
    let hosts: std::collections::BTreeSet<&str> = before["instances"]
        .as_array()
        .unwrap()
        .iter()
        .map(|instance| instance["agentHostname"].as_str().unwrap())
        .collect();
    assert_eq!(hosts.len(), 3, "spread over all agents");
    let live = cluster.live_tasks();

    cluster.fail_over();
    let away = await_status(&scheduler, "out of reach", |status| {
        status["status"] == "DEGRADED"
    });
    for instance in away["instances"].as_array().unwrap() {
        assert_eq!(instance["status"], "DEGRADED", "{instance:#}");
    }
    cluster.agents_return();
    let after = await_status(&scheduler, "stable again", |status| status["status"] == "STABLE");
    let ids = |status: &Value| -> Vec<String> {
        let instances = status["instances"].as_array().unwrap().iter();
        instances.map(|instance| instance["id"].to_string()).collect()
    };
    assert_eq!(ids(&after), ids(&before));
    assert_eq!(cluster.live_tasks(), live);
    assert!(runs(&work_dir).iter().all(|(_, count)| *count == 1));
}
