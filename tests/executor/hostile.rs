//! An agent that sends what no agent should.

use podling::{
    loopback::agent::{Agent, AgentBuilder},
    mesos::{
        codec::Encoding,
        v1::{TaskGroupInfo, TaskState::*, executor as wire},
    },
};

use crate::support::*;

/// With checkpoints, damage means a new subscription; members do not notice.
fn survives(builder: AgentBuilder, damage: impl FnOnce(&Agent)) {
    let sleeper = Sleeper::new();
    let agent = builder
        .checkpoint()
        .task_group(group([sleeper.task("a")]))
        .start()
        .unwrap();
    agent.wait_told(&["a"], TaskRunning).unwrap();
    damage(&agent);
    agent
        .wait_for("a new subscription", |history| {
            history.count_events(wire::event::Type::Subscribed) == 2
        })
        .unwrap();
    assert!(sleeper.processes() > 0);
    agent.kill("a").unwrap();
    good(&agent.finish());
}

#[test]
fn records_that_are_none() {
    survives(agent(), |agent| agent.send_raw(b"this is no record\n"));
    survives(agent(), |agent| agent.send_raw(b"-5\nabcde"));
    survives(agent(), |agent| agent.send_raw(b"99999999999999999999999999\n"));
    survives(agent(), |agent| agent.send_raw(b"\n\n\n"));
}

#[test]
fn records_that_are_too_large() {
    survives(agent().env("PODLING_RECORD_LIMIT", "65536"), |agent| {
        agent.send_raw(b"65537\n")
    });
    survives(agent(), |agent| agent.send_raw(b"18446744073709551615\n"));
}

#[test]
fn records_that_end_too_early() {
    survives(agent(), |agent| agent.send_raw_and_cut(b"100\nonly this"));
    survives(agent(), |agent| agent.send_raw_and_cut(b"10"));
}

#[test]
fn records_that_are_no_events() {
    survives(agent(), |agent| agent.send_raw(b"4\n\xff\xff\xff\xff"));
    let json = || agent().encoding(Encoding::Json);
    survives(json(), |agent| agent.send_raw(b"9\n{\"type\": }"));
    survives(json(), |agent| agent.send_raw(b"2\n[]"));
    // A required field is missing, or is of another type.
    let kill = br#"{"type":"KILL","kill":{}}"#;
    survives(json(), |agent| {
        agent.send_raw(&[format!("{}\n", kill.len()).as_bytes(), kill].concat())
    });
    let kill = br#"{"type":"KILL","kill":{"task_id":7}}"#;
    survives(json(), |agent| {
        agent.send_raw(&[format!("{}\n", kill.len()).as_bytes(), kill].concat())
    });
    let deep = "[".repeat(100_000);
    survives(json(), |agent| {
        agent.send_raw(format!("{}\n{deep}", deep.len()).as_bytes())
    });
}

#[test]
fn s_05_damage_without_checkpoints_is_the_end_of_the_group_but_no_crash() {
    let sleeper = Sleeper::new();
    let agent = agent().task_group(group([sleeper.task("a")])).start().unwrap();
    agent.wait_told(&["a"], TaskRunning).unwrap();
    agent.send_raw(b"this is no record\n");
    agent
        .wait_for("the end", |history| history.exit().is_some())
        .unwrap();
    assert_eq!(agent.history().exit().unwrap().code(), Some(0));
    assert!(sleeper.is_gone());
}

#[test]
fn json_with_unknown_names_is_read() {
    let builder = agent()
        .encoding(Encoding::Json)
        .unknown_events()
        .unknown_fields()
        .unknown_enum();
    good(
        &builder
            .task_group(group([task("a", "true")]))
            .start()
            .unwrap()
            .finish(),
    );
    good(
        &agent()
            .encoding(Encoding::Json)
            .bare_json()
            .task_group(group([task("a", "true")]))
            .start()
            .unwrap()
            .finish(),
    );
}

#[test]
fn l_11_task_ids_that_would_leave_the_sandbox() {
    let keeper = Sleeper::new();
    let agent = agent()
        .task_group(group([keeper.task("keeper")]))
        .start()
        .unwrap();
    agent.wait_told(&["keeper"], TaskRunning).unwrap();
    let place = Place::new();
    let witness = place.file("ran");
    for id in ["../../escape", "/etc/escape", "..", "a/b", "a\nb", ""] {
        agent.send(launch(group([task(id, &format!("touch {}", witness.display()))])));
    }
    let long = "x".repeat(5000);
    agent.send(launch(group([task(&long, "true")])));
    agent.send(launch(group([])));
    agent.launch(group([task("after", "true")]));
    agent.wait_told(&["after"], TaskFinished).unwrap();
    assert!(!witness.exists());
    let names: Vec<_> = std::fs::read_dir(agent.sandbox().join("tasks"))
        .unwrap()
        .flatten()
        .collect();
    let names: Vec<_> = names
        .iter()
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    assert!(
        names
            .iter()
            .all(|name| ["keeper", "after"].contains(&name.as_str())),
        "{names:?}"
    );
    assert!(!agent.sandbox().parent().unwrap().join("escape").exists());
    agent.kill("keeper").unwrap();
    let outcome = agent.finish();
    assert_eq!(outcome.exit.unwrap().code(), Some(0), "{}", outcome.history);
}

fn launch(task_group: TaskGroupInfo) -> wire::Event {
    wire::Event {
        r#type: Some(wire::event::Type::LaunchGroup.into()),
        launch_group: Some(wire::event::LaunchGroup { task_group }),
        ..Default::default()
    }
}
