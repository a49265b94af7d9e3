//! Tasks and executors from start to end: what the agent sends, keeps and concludes.

use std::time::Duration;

use nix::sys::signal::Signal;
use podling::{
    loopback::agent::{Agent, History, Killed, What},
    mesos::{
        codec::Encoding,
        v1::{
            ContainerId, ContainerStatus, DurationInfo, KillPolicy, NetworkInfo, TaskState, TaskStatus,
            executor::event,
            framework_info::capability,
            task_status::{Reason, Source},
        },
    },
};

use crate::{Body, client::Peer, group, task};

use TaskState::{TaskFailed, TaskFinished, TaskKilled, TaskKilling, TaskRunning, TaskStarting};

fn last_forwarded(history: &History, task: &str) -> TaskStatus {
    (*history.forwarded(task).last().unwrap()).clone()
}

#[test]
fn a_good_life() {
    for encoding in [Encoding::Protobuf, Encoding::Json] {
        let body = Body::new();
        let agent = body.agent().task_group(group(&["a", "b"])).start().unwrap();
        let peer = Peer::new(&agent, encoding);
        let mut stream = peer.subscribed();
        let launch = stream.next().launch_group.unwrap();
        let tasks = &launch.task_group.tasks;
        assert_eq!(
            tasks
                .iter()
                .map(|task| task.task_id.value.as_str())
                .collect::<Vec<_>>(),
            ["a", "b"]
        );
        for task in tasks {
            assert_eq!(task.agent_id.value, agent.facts().agent_id);
            assert_eq!(
                task.executor.as_ref(),
                Some(&agent.facts().executor),
                "repeated in each task"
            );
        }

        let mut calls = peer.connect();
        for (uuid, state) in [TaskStarting, TaskRunning, TaskFinished].into_iter().enumerate() {
            for (task, first) in [("a", 0), ("b", 100)] {
                peer.update(&mut calls, task, state, first + uuid as u8);
                let acknowledged = stream.next().acknowledged.unwrap();
                assert_eq!(acknowledged.task_id.value, task);
                assert_eq!(acknowledged.uuid, [first + uuid as u8; 16]);
            }
        }
        body.end();
        let outcome = agent.finish();
        assert!(outcome.is_good(), "{outcome}\n{}", outcome.history);
        assert!(outcome.violations.is_empty());
        assert_eq!(outcome.state("a"), Some(TaskFinished));
        assert!(
            outcome
                .history
                .updates("b")
                .iter()
                .all(|status| status.source() == Source::Executor)
        );
    }
}

#[test]
fn resources_of_launched_tasks_are_allocated() {
    let body = Body::new();
    let mut group = group(&["a"]);
    group.tasks[0].resources.push(podling::mesos::v1::Resource {
        name: "cpus".into(),
        ..Default::default()
    });
    let agent = body.agent().task_group(group).start().unwrap();
    let mut stream = Peer::new(&agent, Encoding::Protobuf).subscribed();
    let launched = stream.next().launch_group.unwrap().task_group.tasks.remove(0);
    assert_eq!(
        launched.resources[0].allocation_info.as_ref().unwrap().role(),
        "*"
    );
}

#[test]
fn groups_and_tasks_come_in_order_and_at_any_time() {
    let body = Body::new();
    let agent = body
        .agent()
        .task_group(group(&["a"]))
        .task(task("b", "true"))
        .start()
        .unwrap();
    let mut stream = Peer::new(&agent, Encoding::Protobuf).subscribed();
    assert!(stream.next().launch_group.is_some());
    assert_eq!(stream.next().launch.unwrap().task.task_id.value, "b");
    agent.launch(group(&["c", "d"]));
    assert_eq!(stream.next().launch_group.unwrap().task_group.tasks.len(), 2);
    agent.launch_task(task("e", "true"));
    assert_eq!(stream.next().r#type(), event::Type::Launch);
}

#[test]
fn kill_carries_its_policy() {
    let body = Body::new();
    let agent = body.agent().task_group(group(&["a"])).start().unwrap();
    let mut stream = Peer::new(&agent, Encoding::Json).subscribed();
    stream.next();
    agent.kill("a").unwrap();
    assert_eq!(stream.next().kill.unwrap().kill_policy, None);
    let policy = KillPolicy {
        grace_period: Some(DurationInfo { nanoseconds: 7 }),
    };
    agent.kill_with("a", Some(policy)).unwrap();
    assert_eq!(stream.next().kill.unwrap().kill_policy, Some(policy));
    assert!(
        agent.kill("nobody").is_err(),
        "an agent sends no KILL for what it does not know"
    );
}

#[test]
fn l_13_killed_before_delivery() {
    let body = Body::new();
    let agent = body.agent().task_group(group(&["a", "b"])).start().unwrap();
    agent.kill("a").unwrap();
    for task in ["a", "b"] {
        let status = last_forwarded(&agent.history(), task);
        assert_eq!((status.state(), status.source()), (TaskKilled, Source::Agent));
        assert_eq!(status.reason(), Reason::TaskKilledDuringLaunch);
    }
    // Never given anything and nothing to come: the executor is sent home (MESOS-8411).
    let mut stream = Peer::new(&agent, Encoding::Protobuf).subscribe();
    assert_eq!(stream.next().r#type(), event::Type::Shutdown);
    stream.end();
    body.end();
    let outcome = agent.finish();
    assert!(outcome.is_good(), "{outcome}");
}

#[test]
fn a_group_that_comes_after_a_withdrawn_one_is_delivered() {
    let body = Body::new();
    let agent = body
        .agent()
        .task_group(group(&["a"]))
        .task_group(group(&["b"]))
        .start()
        .unwrap();
    agent.kill("a").unwrap();
    let mut stream = Peer::new(&agent, Encoding::Protobuf).subscribed();
    assert_eq!(
        stream.next().launch_group.unwrap().task_group.tasks[0]
            .task_id
            .value,
        "b"
    );
}

#[test]
fn messages_are_opaque() {
    let body = Body::new();
    let agent = body.agent().start().unwrap();
    let mut stream = Peer::new(&agent, Encoding::Json).subscribed();
    agent.message(&[0, 255, 7]);
    assert_eq!(stream.next().message.unwrap().data, [0, 255, 7]);
}

#[test]
fn g_10_an_executor_that_dies_leaves_its_tasks_to_the_agent() {
    let body = Body::new();
    let agent = body.agent().task_group(group(&["a", "b", "c"])).start().unwrap();
    let peer = Peer::new(&agent, Encoding::Protobuf);
    let mut stream = peer.subscribed();
    stream.next();
    let mut calls = peer.connect();
    peer.update(&mut calls, "a", TaskRunning, 1);
    peer.update(&mut calls, "b", TaskFinished, 2);
    agent.signal(Signal::SIGKILL).unwrap();
    let outcome = agent.finish();
    for task in ["a", "c"] {
        let status = last_forwarded(&outcome.history, task);
        assert_eq!(
            (status.state(), status.source()),
            (TaskFailed, Source::Agent),
            "{task}"
        );
        assert_eq!(status.reason(), Reason::ExecutorTerminated);
    }
    assert_eq!(last_forwarded(&outcome.history, "b").state(), TaskFinished);
    assert_eq!(outcome.killed, None, "not by the agent");
    let complaints = outcome.complaints();
    assert_eq!(complaints.len(), 3, "the signal, a and c: {complaints:?}");
}

#[test]
fn an_executor_that_ends_well_but_early_is_not_good() {
    let body = Body::new();
    let agent = body.agent().task_group(group(&["a"])).start().unwrap();
    let mut stream = Peer::new(&agent, Encoding::Protobuf).subscribed();
    stream.next();
    body.end();
    let outcome = agent.finish();
    assert!(outcome.exit.unwrap().success());
    assert!(!outcome.is_good());
    assert!(
        outcome
            .to_string()
            .contains("left task a without a terminal state"),
        "{outcome}"
    );
}

#[test]
fn an_executor_that_never_subscribes_is_killed() {
    let body = Body::new();
    let agent = body
        .agent()
        .task_group(group(&["a"]))
        .registration_timeout(Duration::from_millis(50))
        .start()
        .unwrap();
    let outcome = agent.finish();
    assert_eq!(outcome.killed, Some(Killed::RegistrationTimeout));
    let status = last_forwarded(&outcome.history, "a");
    assert_eq!(
        (status.state(), status.reason()),
        (TaskFailed, Reason::ExecutorRegistrationTimeout)
    );
}

#[test]
fn shutdown_within_the_grace_period() {
    let body = Body::new();
    let agent = body.agent().task_group(group(&["a"])).start().unwrap();
    let peer = Peer::new(&agent, Encoding::Protobuf);
    let mut stream = peer.subscribed();
    stream.next();
    agent.shutdown();
    assert_eq!(stream.next().r#type(), event::Type::Shutdown);
    peer.update(&mut peer.connect(), "a", TaskKilled, 1);
    body.end();
    let outcome = agent.finish();
    assert!(outcome.is_good(), "{outcome}");
}

#[test]
fn shutdown_ends_by_force_when_the_grace_period_is_over() {
    for subscribed in [true, false] {
        let body = Body::new();
        let agent = body
            .agent()
            .shutdown_grace(Duration::from_millis(50))
            .start()
            .unwrap();
        let _stream = subscribed.then(|| Peer::new(&agent, Encoding::Protobuf).subscribed());
        agent.shutdown();
        let outcome = agent.finish();
        assert_eq!(
            outcome.killed,
            Some(Killed::ShutdownGrace),
            "subscribed: {subscribed}"
        );
        assert!(!outcome.is_good());
    }
}

#[test]
fn the_executors_own_grace_period_wins() {
    let body = Body::new();
    let agent = body
        .agent()
        .with_executor_info(|info| {
            info.shutdown_grace_period = Some(DurationInfo {
                nanoseconds: 50_000_000,
            });
        })
        .shutdown_grace(Duration::from_secs(3600))
        .start()
        .unwrap();
    agent.shutdown();
    assert_eq!(agent.finish().killed, Some(Killed::ShutdownGrace));
}

#[test]
fn s_17_who_subscribes_to_its_end_is_told_so() {
    let body = Body::new();
    let agent = body.agent().task_group(group(&["a"])).start().unwrap();
    agent.shutdown();
    let mut stream = Peer::new(&agent, Encoding::Protobuf).subscribe();
    assert_eq!(stream.next().r#type(), event::Type::Shutdown);
    assert_eq!(stream.end(), crate::client::StreamEnd::Proper);
}

#[test]
fn s_16_a_second_subscription_replaces_the_first() {
    let body = Body::new();
    let agent = body.agent().start().unwrap();
    let peer = Peer::new(&agent, Encoding::Protobuf);
    let mut first = peer.subscribed();
    let mut second = peer.subscribed();
    assert_eq!(first.end(), crate::client::StreamEnd::Proper);
    agent.message(b"x");
    assert!(second.next().message.is_some());
}

#[test]
fn what_the_executors_process_group_holds_dies_with_it() {
    let scratch = crate::Scratch::new();
    let held = scratch.0.join("held");
    nix::unistd::mkfifo(&held, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let script = format!("exec 3> {}; sleep 1000 & exit 0", held.display());
    let agent = Agent::builder()
        .executor_argv(["/bin/sh", "-c", &script])
        .start()
        .unwrap();
    // The end of the pipe is the end of the last one who holds it: the child that was left behind.
    assert_eq!(std::fs::read(held).unwrap(), b"");
    assert!(agent.finish().exit.unwrap().success());
}

#[test]
fn section_13_container_statuses_are_merged_by_their_id() {
    let body = Body::new();
    let agent = body.agent().task_group(group(&["plain", "own"])).start().unwrap();
    let peer = Peer::new(&agent, Encoding::Protobuf);
    let mut stream = peer.subscribed();
    stream.next();
    let mut calls = peer.connect();
    peer.update(&mut calls, "plain", TaskRunning, 1);

    let mine = ContainerStatus {
        container_id: Some(ContainerId {
            value: "member".into(),
            parent: Some(Box::new(ContainerId {
                value: agent.facts().container_id.clone(),
                parent: None,
            })),
        }),
        network_infos: vec![NetworkInfo {
            name: Some("mine".into()),
            ..Default::default()
        }],
        ..Default::default()
    };
    let mut call = peer.update_call("own", TaskRunning, 2);
    call.update.as_mut().unwrap().status.container_status = Some(mine.clone());
    assert_eq!(peer.post(&mut calls, &call).status, 202);

    let history = agent.history();
    let plain = last_forwarded(&history, "plain").container_status.unwrap();
    assert_eq!(plain.container_id.unwrap().value, agent.facts().container_id);
    assert_eq!(plain.executor_pid, Some(agent.facts().pid));
    assert_eq!(plain.network_infos[0].ip_addresses[0].ip_address(), "127.0.0.1");
    assert_eq!(last_forwarded(&history, "own").container_status, Some(mine));
}

#[test]
fn violations_are_found_acknowledged_and_kept_from_the_master() {
    let body = Body::new();
    let agent = body.agent().task_group(group(&["a"])).start().unwrap();
    let peer = Peer::new(&agent, Encoding::Protobuf);
    let mut stream = peer.subscribed();
    stream.next();
    let mut calls = peer.connect();
    for (uuid, state) in [TaskKilling, TaskRunning, TaskFailed, TaskKilled, TaskRunning]
        .into_iter()
        .enumerate()
    {
        peer.update(&mut calls, "a", state, uuid as u8);
        assert_eq!(stream.next().r#type(), event::Type::Acknowledged);
    }
    peer.update(&mut calls, "nobody", TaskRunning, 9);
    assert_eq!(stream.next().acknowledged.unwrap().task_id.value, "nobody");
    body.end();
    let outcome = agent.finish();
    let told: Vec<String> = outcome
        .violations
        .iter()
        .map(|violation| violation.to_string())
        .collect();
    assert_eq!(
        told,
        [
            "task a went back from TASK_KILLING to TASK_RUNNING",
            "task a ended twice: TASK_FAILED, then TASK_KILLED",
            "task a was told to be TASK_RUNNING after TASK_FAILED",
            "task nobody, told to be TASK_RUNNING, was never given to this executor",
        ]
    );
    let forwarded: Vec<TaskState> = outcome
        .history
        .forwarded("a")
        .iter()
        .map(|status| status.state())
        .collect();
    assert_eq!(forwarded, [TaskKilling, TaskRunning, TaskFailed]);
    assert_eq!(
        outcome.complaints(),
        ["task a has more than one terminal state: TASK_FAILED, TASK_KILLED"]
    );
}

#[test]
fn u_05_killing_needs_the_capability() {
    let body = Body::new();
    let agent = body
        .agent()
        .capabilities(&[capability::Type::PartitionAware])
        .task_group(group(&["a"]))
        .start()
        .unwrap();
    let peer = Peer::new(&agent, Encoding::Protobuf);
    let mut stream = peer.subscribe();
    let framework = stream.next().subscribed.unwrap().framework_info;
    assert_eq!(framework.capabilities.len(), 1);
    peer.update(&mut peer.connect(), "a", TaskKilling, 1);
    assert_eq!(agent.history().violations().len(), 1);
}

#[test]
fn an_update_for_another_agent_is_dropped_without_a_word() {
    let body = Body::new();
    let agent = body.agent().task_group(group(&["a"])).start().unwrap();
    let peer = Peer::new(&agent, Encoding::Protobuf);
    let mut stream = peer.subscribed();
    stream.next();
    let mut calls = peer.connect();
    let mut call = peer.update_call("a", TaskRunning, 1);
    call.update.as_mut().unwrap().status.agent_id = Some(podling::mesos::v1::AgentId {
        value: "other".into(),
    });
    assert_eq!(peer.post(&mut calls, &call).status, 202);
    agent.message(b"next");
    assert!(
        stream.next().message.is_some(),
        "no acknowledgement came before it"
    );
    assert!(agent.history().forwarded("a").is_empty());
}

#[test]
fn the_history_has_times_that_never_go_back() {
    let body = Body::new();
    let agent = body.agent().task_group(group(&["a"])).start().unwrap();
    let peer = Peer::new(&agent, Encoding::Protobuf);
    let mut stream = peer.subscribed();
    stream.next();
    peer.update(&mut peer.connect(), "a", TaskRunning, 1);
    let history = agent.history();
    assert!(history.entries().is_sorted_by_key(|entry| entry.at));
    let launched = history.when_sent(event::Type::LaunchGroup).unwrap();
    assert!(history.when_told("a", TaskRunning).unwrap() > launched);
    assert!(history.when(|what| matches!(what, What::Starting)).unwrap() < launched);
}

#[test]
fn what_is_awaited_in_vain_is_told_with_the_history() {
    let body = Body::new();
    let agent = body.agent().patience(Duration::from_millis(20)).start().unwrap();
    let _stream = Peer::new(&agent, Encoding::Protobuf).subscribed();
    let error = agent.wait_told(&["a"], TaskRunning).unwrap_err().to_string();
    assert!(
        error.contains("TASK_RUNNING of a") && error.contains("event SUBSCRIBED"),
        "{error}"
    );
}

#[test]
fn a_dropped_agent_takes_its_executor_and_its_directory_along() {
    let body = Body::new();
    let agent = body.agent().start().unwrap();
    let (pid, sandbox) = (agent.facts().pid, agent.sandbox().to_owned());
    assert!(sandbox.join("stdout").is_file() && sandbox.join("stderr").is_file());
    assert!(sandbox.parent().unwrap().join("latest").join("stdout").is_file());
    drop(agent);
    assert!(!sandbox.exists());
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn an_executor_that_cannot_be_started_is_named() {
    let error = Agent::builder()
        .executor_argv(["/no/such/executor"])
        .start()
        .unwrap_err();
    assert!(error.to_string().contains("/no/such/executor"), "{error}");
    assert!(
        Agent::builder()
            .start()
            .unwrap_err()
            .to_string()
            .contains("no executor")
    );
}
