//! pymesos' MesosExecutorDriver under the loopback agent: JSON over TCP, the documented short path, `Connection: close`
//! on the request that opens the stream.

use std::{path::Path, time::Duration};

use podling::{
    loopback::agent::{Agent, AgentBuilder, Entry, Phase, What},
    mesos::v1::{
        TaskGroupInfo, TaskInfo,
        TaskState::{self, TaskFinished, TaskKilled, TaskRunning, TaskStarting},
        executor::event,
    },
};

const QUICK: [TaskState; 3] = [TaskStarting, TaskRunning, TaskFinished];
const KILLED: [TaskState; 3] = [TaskStarting, TaskRunning, TaskKilled];

/// An agent with `pymesos_executor.py`, whose tasks named `waits…` run until they are killed.
fn pymesos() -> AgentBuilder {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/strangers/pymesos_executor.py");
    Agent::builder().executor_argv([crate::python(), script].map(|path| path.to_string_lossy().into_owned()))
}

fn group(names: &[&str]) -> TaskGroupInfo {
    TaskGroupInfo {
        tasks: names.iter().map(|name| task(name)).collect(),
    }
}

fn task(name: &str) -> TaskInfo {
    let mut task = TaskInfo {
        name: name.into(),
        ..Default::default()
    };
    task.task_id.value = name.into();
    task
}

#[test]
fn it_takes_a_group_a_kill_and_ends_by_itself() {
    let agent = pymesos().task_group(group(&["a", "waits", "b"])).start().unwrap();
    agent.wait_told(&["a", "b"], TaskFinished).unwrap();
    agent.kill("waits").unwrap();
    let outcome = agent.finish();
    assert!(outcome.is_good(), "{:?}", outcome.complaints());
    let history = outcome.history;
    assert_eq!(history.states("a"), QUICK);
    assert_eq!(history.states("b"), QUICK);
    assert_eq!(history.states("waits"), KILLED);
    assert_eq!(history.count_events(event::Type::Subscribed), 1);
    assert_eq!(history.count_events(event::Type::LaunchGroup), 1);
}

#[test]
fn it_takes_a_single_launch() {
    let outcome = pymesos().task(task("a")).start().unwrap().finish();
    assert!(outcome.is_good(), "{:?}", outcome.complaints());
    assert_eq!(outcome.history.count_events(event::Type::Launch), 1);
    assert_eq!(outcome.history.states("a"), QUICK);
}

#[test]
fn it_understands_a_message_and_shutdown() {
    let agent = pymesos().task_group(group(&["waits"])).start().unwrap();
    agent.wait_told(&["waits"], TaskRunning).unwrap();
    agent.message(b"hello");
    let answered = |call: &podling::mesos::v1::executor::Call| {
        call.message
            .as_ref()
            .is_some_and(|message| message.data == b"hello")
    };
    agent
        .wait_for("the message comes back", |history| history.calls().any(answered))
        .unwrap();
    agent.shutdown();
    let outcome = agent.finish();
    assert!(outcome.is_good(), "{:?}", outcome.complaints());
    assert_eq!(outcome.history.states("waits"), KILLED);
}

/// If the agent is still away, pymesos comes again one to three seconds later; a real agent waits for two unless told.
/// And it takes 503 for its end, so it is left alone until the recovery is over.
#[test]
fn it_finds_back_to_a_restarted_agent() {
    let patient = pymesos()
        .checkpoint()
        .reregistration_timeout(Duration::from_secs(4));
    let agent = patient.task_group(group(&["waits"])).start().unwrap();
    agent.wait_told(&["waits"], TaskRunning).unwrap();
    agent.restart().unwrap();
    agent
        .wait_for("it subscribes again", |history| {
            history.count_events(event::Type::Subscribed) == 2
        })
        .unwrap();
    let up = |entry: &Entry| matches!(entry.what, What::Agent(Phase::Up));
    agent
        .wait_for("recovery is over", |history| history.entries().iter().any(up))
        .unwrap();
    agent.kill("waits").unwrap();
    let outcome = agent.finish();
    assert!(outcome.is_good(), "{:?}", outcome.complaints());
    assert_eq!(outcome.history.states("waits"), KILLED);
}

/// Its own RecordIO and HTTP parsers see records in pieces, and one by one.
#[test]
fn it_reads_our_stream_however_it_is_cut() {
    for builder in [
        pymesos().chunk_every(7),
        pymesos().coalesce_records(),
        pymesos().segment_every(50),
    ] {
        let outcome = builder.task_group(group(&["a", "b"])).start().unwrap().finish();
        assert!(outcome.is_good(), "{:?}", outcome.complaints());
        assert_eq!(outcome.history.states("b"), QUICK);
    }
}
