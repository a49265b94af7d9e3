//! Real executors under the master: launched, killed, sent home, and left behind.

use serde_json::json;

use super::{Home, eventually, info};

#[test]
fn a_group_lives_and_dies_on_the_agent_it_was_sent_to() {
    let home = Home::new(2);
    let mut framework = home.subscribe(info(60.0));
    let offers = framework.next("OFFERS")["offers"]["offers"].clone();
    assert_eq!(offers.as_array().unwrap().len(), 2);
    let offer = &offers[1];
    framework.launch(offer, "e", &[("a", "exec sleep 1000"), ("b", "exit 0")]);
    // The rest comes back with the executor's name on it.
    let rest = framework.next_offer();
    assert_eq!(rest["agent_id"], offer["agent_id"]);
    assert_eq!(rest["executor_ids"], json!([{"value": "e"}]));
    let finished = framework.next_state("b", "TASK_FINISHED");
    assert_eq!(finished["agent_id"], offer["agent_id"]);
    assert_eq!(finished["executor_id"]["value"], "e");
    framework.call("KILL", Some(json!({"task_id": {"value": "a"}})));
    framework.next_state("a", "TASK_KILLED");
    let failure = framework.next("FAILURE")["failure"].clone();
    assert_eq!(
        (
            &failure["agent_id"],
            &failure["executor_id"]["value"],
            &failure["status"]
        ),
        (&offer["agent_id"], &json!("e"), &json!(0))
    );
    assert_eq!(home.cluster.live_tasks(), []);
}

#[test]
fn shutdown_ends_an_executor_with_its_tasks() {
    let home = Home::new(1);
    let mut framework = home.subscribe(info(60.0));
    let offer = framework.next_offer();
    framework.launch(&offer, "e", &[("a", "exec sleep 1000")]);
    framework.next_state("a", "TASK_RUNNING");
    let shutdown = json!({"executor_id": {"value": "e"}, "agent_id": offer["agent_id"]});
    framework.call("SHUTDOWN", Some(shutdown));
    framework.next_state("a", "TASK_KILLED");
    framework.next("FAILURE");
}

#[test]
fn an_executor_that_cannot_be_started_fails_its_tasks() {
    let home = Home::new(1);
    let mut framework = home.subscribe(info(60.0));
    let offer = framework.next_offer();
    let command = json!({"shell": false, "value": "/no/such/executor"});
    let executor = json!({"type": "CUSTOM", "executor_id": {"value": "e"}, "resources": super::scalars(0.1),
        "command": command});
    let task = json!({"name": "a", "task_id": {"value": "a"}, "agent_id": offer["agent_id"],
        "resources": super::scalars(0.1), "command": {"value": "true"}});
    let operation = json!({"type": "LAUNCH_GROUP",
        "launch_group": {"executor": executor, "task_group": {"tasks": [task]}}});
    framework.call(
        "ACCEPT",
        Some(json!({"offer_ids": [offer["id"]], "operations": [operation]})),
    );
    let failed = framework.next_state("a", "TASK_FAILED");
    assert!(
        failed["message"].as_str().unwrap().contains("/no/such/executor"),
        "{failed}"
    );
    framework.next("FAILURE");
}

#[test]
fn executors_outlive_the_stream_for_as_long_as_was_agreed() {
    let home = Home::new(1);
    let mut framework = home.subscribe(info(60.0));
    let offer = framework.next_offer();
    framework.launch(&offer, "e", &[("a", "exec sleep 1000")]);
    framework.next_state("a", "TASK_RUNNING");
    let id = framework.id.clone();
    drop(framework);

    let mut again = info(0.0);
    again["id"] = json!({"value": id});
    let mut framework = home.subscribe(again);
    framework.call("RECONCILE", Some(json!({"tasks": []})));
    let status = framework.next_state("a", "TASK_RUNNING");
    assert_eq!(status["reason"], "REASON_RECONCILIATION");
    // Now it has agreed to nothing.
    drop(framework);
    eventually("its tasks are gone", || home.cluster.live_tasks().is_empty());
}

#[test]
fn the_end_of_the_cluster_is_the_end_of_its_executors() {
    let home = Home::new(1);
    let marker = format!("9{}", std::process::id());
    let mut framework = home.subscribe(info(60.0));
    let offer = framework.next_offer();
    framework.launch(&offer, "e", &[("a", &format!("exec sleep 77{marker}"))]);
    framework.next_state("a", "TASK_RUNNING");
    drop(framework);
    drop(home);
    let running = || {
        std::fs::read_dir("/proc").unwrap().any(|entry| {
            let line = entry.map(|entry| std::fs::read(entry.path().join("cmdline")).unwrap_or_default());
            String::from_utf8_lossy(&line.unwrap_or_default())
                .contains(&format!("sleep\0{}", format_args!("77{marker}")))
        })
    };
    eventually("the member is gone", || !running());
}
