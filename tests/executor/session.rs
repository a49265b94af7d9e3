//! Finding the agent, losing it, and coming back.

use std::{fs, time::Duration};

use nix::sys::signal::Signal;
use podling::{
    loopback::agent::{Agent, Connections, Phase, What},
    mesos::v1::{TaskState::*, executor::event},
};

use crate::support::*;

fn subscriptions(agent: &Agent) -> usize {
    agent.history().count_events(event::Type::Subscribed)
}

fn wait_subscribed(agent: &Agent, times: usize) {
    agent
        .wait_for("another subscription", |history| {
            history.count_events(event::Type::Subscribed) >= times
        })
        .unwrap();
}

#[test]
fn s_02_s_03_an_agent_that_is_not_ready_is_asked_again() {
    let agent = agent()
        .answer_subscribe_with([503, 404])
        .task_group(group([task("a", "true")]))
        .start()
        .unwrap();
    let outcome = agent.finish();
    good(&outcome);
    assert_eq!(outcome.state("a"), Some(TaskFinished));
}

#[test]
fn s_03_a_refusal_ends_the_executor_with_a_failure() {
    for status in [400, 401, 403] {
        let agent = agent()
            .answer_subscribe_with([status])
            .task_group(group([task("a", "true")]))
            .start()
            .unwrap();
        let sandbox = agent.sandbox().to_owned();
        agent
            .wait_for("the end", |history| history.exit().is_some())
            .unwrap();
        let said = fs::read_to_string(sandbox.join("stderr")).unwrap();
        let outcome = agent.finish();
        assert_eq!(outcome.exit.unwrap().code(), Some(1), "{}", outcome.history);
        assert!(said.contains(&status.to_string()), "{said}");
    }
}

#[test]
fn s_05_agent_restart_without_metadata_checkpointed_ends_the_group_and_the_executor() {
    let sleeper = Sleeper::new();
    let agent = agent().task_group(group([sleeper.task("a")])).start().unwrap();
    agent.wait_told(&["a"], TaskRunning).unwrap();
    agent.restart().unwrap();
    agent
        .wait_for("the executor's end", |history| history.exit().is_some())
        .unwrap();
    let history = agent.history();
    assert_eq!(history.exit().unwrap().code(), Some(0), "{history}");
    assert_eq!(subscriptions(&agent), 1);
    assert!(sleeper.is_gone());
}

#[test]
fn s_06_s_07_s_10_agent_restart_with_metadata_checkpointed_is_outlived() {
    let sleepers = [Sleeper::new(), Sleeper::new()];
    let tasks = group([sleepers[0].task("a"), sleepers[1].task("b")]);
    let agent = agent().checkpoint().task_group(tasks).start().unwrap();
    agent.wait_told(&["a", "b"], TaskRunning).unwrap();
    for round in 2..5 {
        agent.restart().unwrap();
        wait_subscribed(&agent, round);
        assert!(sleepers.iter().all(|sleeper| sleeper.processes() > 0));
    }
    agent.kill("b").unwrap();
    let outcome = agent.finish();
    good(&outcome);
    for task in ["a", "b"] {
        assert_states(
            &outcome,
            task,
            &[TaskStarting, TaskRunning, TaskKilling, TaskKilled],
        );
    }
}

#[test]
fn s_06_losing_either_connection_is_healed() {
    let sleeper = Sleeper::new();
    let agent = agent()
        .checkpoint()
        .task_group(group([sleeper.task("a")]))
        .start()
        .unwrap();
    agent.wait_told(&["a"], TaskRunning).unwrap();
    for (round, which) in [Connections::Stream, Connections::Calls, Connections::Both]
        .into_iter()
        .enumerate()
    {
        // An agent knows what a connection is for when it has been used.
        let busy = format!("t{round}");
        agent.launch(group([task(&busy, "true")]));
        agent.wait_told(&[&busy], TaskFinished).unwrap();
        assert!(agent.cut(which) > 0);
        wait_subscribed(&agent, round + 2);
    }
    assert!(sleeper.processes() > 0);
    agent.kill("a").unwrap();
    good(&agent.finish());
}

#[test]
fn s_06_an_agent_that_stays_away_is_waited_for_as_long_as_it_says() {
    let sleeper = Sleeper::new();
    let agent = agent()
        .checkpoint()
        .recovery_timeout(Duration::from_millis(300))
        .task_group(group([sleeper.task("a")]))
        .start()
        .unwrap();
    agent.wait_told(&["a"], TaskRunning).unwrap();
    agent.stop();
    agent
        .wait_for("the executor's end", |history| history.exit().is_some())
        .unwrap();
    let history = agent.history();
    let gone = history
        .when(|what| matches!(what, What::Agent(Phase::Away)))
        .unwrap();
    let ended = history.when(|what| matches!(what, What::Exited { .. })).unwrap();
    assert!(ended - gone >= Duration::from_millis(290), "{:?}", ended - gone);
    assert!(sleeper.is_gone());
}

#[test]
fn s_08_s_09_u_11_what_is_unacknowledged_comes_again_exactly() {
    let agent = agent()
        .checkpoint()
        .withhold_acks()
        .task_group(group([task("done", "true"), Sleeper::new().task("runs")]))
        .start()
        .unwrap();
    agent.wait_told(&["done"], TaskFinished).unwrap();
    agent.wait_told(&["runs"], TaskRunning).unwrap();
    agent.cut(Connections::Both);
    wait_subscribed(&agent, 2);

    let history = agent.history();
    let sent: Vec<_> = history
        .calls()
        .filter_map(|call| call.update.as_ref())
        .map(|update| &update.status)
        .collect();
    let subscribes = history.subscribes();
    assert!(subscribes[0].unacknowledged_updates.is_empty() && subscribes[0].unacknowledged_tasks.is_empty());
    let again: Vec<_> = subscribes[1]
        .unacknowledged_updates
        .iter()
        .map(|update| &update.status)
        .collect();
    assert_eq!(again, sent, "same updates, same order, same uuids");
    let tasks: Vec<_> = subscribes[1]
        .unacknowledged_tasks
        .iter()
        .map(|task| task.task_id.value.as_str())
        .collect();
    assert_eq!(tasks, ["done", "runs"]);

    agent.release_acks();
    agent.kill("runs").unwrap();
    let outcome = agent.finish();
    good(&outcome);
}

#[test]
fn s_08_an_acknowledged_task_is_not_listed() {
    let agent = agent()
        .checkpoint()
        .task_group(group([Sleeper::new().task("a")]))
        .start()
        .unwrap();
    agent.wait_told(&["a"], TaskRunning).unwrap();
    agent
        .wait_for("both acknowledgements", |history| {
            history.count_events(event::Type::Acknowledged) == 2
        })
        .unwrap();
    // The executor has read them when it has read what came after.
    agent.launch(group([task("after", "true")]));
    agent.wait_told(&["after"], TaskFinished).unwrap();
    agent
        .wait_for("all acknowledgements", |history| {
            history.count_events(event::Type::Acknowledged) == 5
        })
        .unwrap();
    agent.message(b"drain");
    agent.cut(Connections::Calls);
    wait_subscribed(&agent, 2);
    let history = agent.history();
    let listed = &history.subscribes()[1].unacknowledged_tasks;
    assert!(listed.iter().all(|task| task.task_id.value != "a"), "{listed:?}");
    agent.kill("a").unwrap();
    good(&agent.finish());
}

#[test]
fn r_3_a_lost_acknowledgement_brings_the_same_update_again() {
    let agent = agent()
        .checkpoint()
        .lose_first_ack("a", TaskRunning)
        .task_group(group([Sleeper::new().task("a")]))
        .start()
        .unwrap();
    agent.wait_told(&["a"], TaskRunning).unwrap();
    agent.cut(Connections::Stream);
    wait_subscribed(&agent, 2);
    agent.kill("a").unwrap();
    let outcome = agent.finish();
    good(&outcome);
    let sent = outcome.history.calls().flat_map(|call| {
        let again = call
            .subscribe
            .iter()
            .flat_map(|subscribe| &subscribe.unacknowledged_updates);
        call.update
            .iter()
            .chain(again)
            .map(|update| &update.status)
            .collect::<Vec<_>>()
    });
    let running: Vec<_> = sent.filter(|status| status.state() == TaskRunning).collect();
    assert_eq!(running.len(), 2);
    assert_eq!(running[0], running[1]);
}

#[test]
fn s_12_an_end_while_disconnected_is_delivered_afterwards() {
    let place = Place::new();
    let waits = format!(
        "while ! test -e {}; do sleep 0.01; done; exit 3",
        place.file("go").display()
    );
    let sibling = Sleeper::new();
    let agent = agent()
        .checkpoint()
        .task_group(group([task("a", &waits), sibling.task("b")]))
        .start()
        .unwrap();
    agent.wait_told(&["a", "b"], TaskRunning).unwrap();
    agent.stop();
    fs::write(place.file("go"), "").unwrap();
    // S-11: nothing waits for the agent, the sibling's end neither.
    assert!(sibling.is_gone());
    agent.come_back(Phase::Recovering).unwrap();
    let outcome = agent.finish();
    good(&outcome);
    assert_eq!(outcome.state("a"), Some(TaskFailed));
    assert_eq!(outcome.state("b"), Some(TaskKilled));
}

#[test]
fn s_14_a_single_launch_is_a_group_of_one() {
    let outcome = agent().task(task("a", "exit 0")).start().unwrap().finish();
    good(&outcome);
    assert_states(&outcome, "a", &[TaskStarting, TaskRunning, TaskFinished]);
}

#[test]
fn s_15_messages_heartbeats_errors_and_unknown_events_are_taken_calmly() {
    use podling::mesos::v1::executor as wire;
    let agent = agent()
        .unknown_events()
        .unknown_fields()
        .unknown_enum()
        .ack_twice()
        .heartbeat_every(Duration::from_millis(5))
        .task_group(group([Sleeper::new().task("a")]))
        .start()
        .unwrap();
    agent.wait_told(&["a"], TaskRunning).unwrap();
    agent.message(&[0xff; 1000]);
    agent.send(wire::Event {
        r#type: Some(event::Type::Error.into()),
        error: Some(event::Error {
            message: "\u{1b}[2J".into(),
        }),
        ..Default::default()
    });
    // Named, but without what the name promises.
    for kind in [
        event::Type::Kill,
        event::Type::LaunchGroup,
        event::Type::Acknowledged,
        event::Type::Unknown,
    ] {
        agent.send(wire::Event {
            r#type: Some(kind.into()),
            ..Default::default()
        });
    }
    agent.kill("a").unwrap();
    good(&agent.finish());
}

#[test]
fn s_18_the_token_opens_the_agent_and_never_reaches_a_task() {
    let look = "env; tr '\\0' '\\n' < /proc/1/environ || true";
    let agent = agent()
        .authentication()
        .task_group(group([task("a", look), Sleeper::new().task("b")]))
        .start()
        .unwrap();
    agent.wait_told(&["a"], TaskFinished).unwrap();
    let seen = stdout(agent.sandbox(), "a");
    assert!(seen.contains("MESOS_SANDBOX"), "{seen}");
    assert!(!seen.contains("TOKEN") && !seen.contains("eyJ"), "{seen}");
    let environ = fs::read(format!("/proc/{}/environ", agent.facts().pid)).unwrap();
    let environ = String::from_utf8_lossy(&environ);
    assert!(
        environ.contains("MESOS_SANDBOX") && !environ.contains("eyJ"),
        "{environ}"
    );
    agent.kill("b").unwrap();
    good(&agent.finish());
}

#[test]
fn domain_sockets_are_used_when_there_are_any() {
    let agent = agent()
        .domain_socket()
        .task_group(group([task("a", "true")]))
        .start()
        .unwrap();
    let socket = agent.facts().domain_socket.clone();
    assert!(socket.is_some());
    let outcome = agent.finish();
    good(&outcome);
}

#[test]
fn agents_go_by_other_names_and_addresses() {
    good(
        &agent()
            .ipv6()
            .name("slave(42)")
            .task_group(group([task("a", "true")]))
            .start()
            .unwrap()
            .finish(),
    );
}

#[test]
fn records_may_be_cut_and_joined_anywhere() {
    let launch = || group([task("a", "true"), task("b", "exit 1"), Sleeper::new().task("c")]);
    good(
        &agent()
            .chunk_every(1)
            .task_group(launch())
            .start()
            .unwrap()
            .finish(),
    );
    good(
        &agent()
            .chunk_every(7)
            .segment_every(3)
            .task_group(launch())
            .start()
            .unwrap()
            .finish(),
    );
    good(
        &agent()
            .coalesce_records()
            .task_group(launch())
            .start()
            .unwrap()
            .finish(),
    );
}

#[test]
fn a_half_open_connection_is_noticed_by_our_own_heartbeats() {
    let sleeper = Sleeper::new();
    let agent = agent()
        .checkpoint()
        .env("PODLING_HEARTBEAT_INTERVAL", "50ms")
        .env("PODLING_ANSWER_TIMEOUT", "200ms")
        .task_group(group([sleeper.task("a")]))
        .start()
        .unwrap();
    agent.wait_told(&["a"], TaskRunning).unwrap();
    assert!(agent.freeze(Connections::Both) > 0);
    wait_subscribed(&agent, 2);
    assert!(sleeper.processes() > 0);
    agent.kill("a").unwrap();
    good(&agent.finish());
}

#[test]
fn a_call_connection_that_dies_under_a_call_loses_nothing() {
    for calls in 1..4 {
        let agent = agent()
            .checkpoint()
            .drop_call_connection_after(calls)
            .task_group(group([task("a", "exit 0"), task("b", "exit 0")]))
            .start()
            .unwrap();
        let outcome = agent.finish();
        good(&outcome);
        for task in ["a", "b"] {
            assert_states(&outcome, task, &[TaskStarting, TaskRunning, TaskFinished]);
        }
    }
}

#[test]
fn a_stopped_executor_goes_on_where_it_was() {
    let agent = agent()
        .checkpoint()
        .task_group(group([Sleeper::new().task("a")]))
        .start()
        .unwrap();
    agent.wait_told(&["a"], TaskRunning).unwrap();
    agent.signal(Signal::SIGSTOP).unwrap();
    agent.kill("a").unwrap();
    agent.signal(Signal::SIGCONT).unwrap();
    good(&agent.finish());
}
