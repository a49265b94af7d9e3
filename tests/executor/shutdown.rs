//! Ends that come from outside.

use std::time::Duration;

use nix::sys::signal::Signal;
use podling::mesos::v1::TaskState::*;

use crate::support::*;

#[test]
fn q_01_shutdown_kills_every_group_and_tells_it() {
    let sleepers = [Sleeper::new(), Sleeper::new()];
    let agent = agent()
        .task_group(group([sleepers[0].task("a")]))
        .task_group(group([sleepers[1].task("b")]))
        .start()
        .unwrap();
    agent.wait_told(&["a", "b"], TaskRunning).unwrap();
    agent.shutdown();
    let outcome = agent.finish();
    good(&outcome);
    for task in ["a", "b"] {
        assert_states(
            &outcome,
            task,
            &[TaskStarting, TaskRunning, TaskKilling, TaskKilled],
        );
    }
    assert!(sleepers.iter().all(Sleeper::is_gone));
}

/// Ignores SIGTERM once it runs; `ready` says that it does.
fn stubborn(place: &Place) -> String {
    format!(
        "trap '' TERM; touch {}; while true; do sleep 1000; done",
        place.file("ready").display()
    )
}

#[test]
fn q_04_the_agent_never_has_to_kill_us_whatever_the_members_policy_says() {
    let place = Place::new();
    let mut task = task("stubborn", &stubborn(&place));
    task.kill_policy = Some(grace(Duration::from_secs(600)));
    let agent = agent()
        .shutdown_grace(Duration::from_secs(2))
        .task_group(group([task]))
        .start()
        .unwrap();
    assert!(within(|| place.file("ready").exists()));
    agent.shutdown();
    let outcome = agent.finish();
    good(&outcome);
    assert_eq!(outcome.state("stubborn"), Some(TaskKilled));
}

#[test]
fn q_03_q_04_an_agent_that_acknowledges_no_end_does_not_hold_us() {
    let agent = agent()
        .never_ack_terminal()
        .shutdown_grace(Duration::from_secs(2))
        .task_group(group([Sleeper::new().task("a")]))
        .start()
        .unwrap();
    agent.wait_told(&["a"], TaskRunning).unwrap();
    agent.shutdown();
    let outcome = agent.finish();
    good(&outcome);
    assert_eq!(outcome.state("a"), Some(TaskKilled));
}

#[test]
fn q_06_sigterm_and_sigint_mean_shutdown() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let sleeper = Sleeper::new();
        let agent = agent().task_group(group([sleeper.task("a")])).start().unwrap();
        agent.wait_told(&["a"], TaskRunning).unwrap();
        agent.signal(signal).unwrap();
        let outcome = agent.finish();
        good(&outcome);
        assert_eq!(outcome.state("a"), Some(TaskKilled));
        assert!(sleeper.is_gone());
    }
}

#[test]
fn q_02_a_shutdown_without_an_agent_still_ends_members_by_their_grace() {
    let place = Place::new();
    let sleeper = Sleeper::new();
    let tidy = format!(
        "trap 'touch {}; exit 0' TERM; touch {}; while true; do sleep 0.01; done",
        place.file("tidied").display(),
        place.file("ready").display()
    );
    let agent = agent()
        .checkpoint()
        .task_group(group([task("tidy", &tidy), sleeper.task("b")]))
        .start()
        .unwrap();
    agent.wait_told(&["tidy", "b"], TaskRunning).unwrap();
    assert!(within(|| place.file("ready").exists()));
    agent.stop();
    agent.signal(Signal::SIGTERM).unwrap();
    agent
        .wait_for("the executor's end", |history| history.exit().is_some())
        .unwrap();
    assert_eq!(agent.history().exit().unwrap().code(), Some(0));
    assert!(place.file("tidied").exists(), "it was asked first");
    assert!(sleeper.is_gone());
}

#[test]
fn q_08_nothing_is_launched_after_a_shutdown() {
    let place = Place::new();
    let witness = place.file("late");
    let mut held = task("held", &stubborn(&place));
    held.kill_policy = Some(grace(Duration::from_millis(500)));
    let agent = agent().task_group(group([held])).start().unwrap();
    assert!(within(|| place.file("ready").exists()));
    agent.signal(Signal::SIGTERM).unwrap();
    agent.wait_told(&["held"], TaskKilling).unwrap();
    agent.launch(group([task("late", &format!("touch {}", witness.display()))]));
    let outcome = agent.finish();
    assert!(outcome.violations.is_empty(), "{outcome}");
    assert!(!outcome.history.states("late").contains(&TaskRunning));
    assert_eq!(outcome.state("held"), Some(TaskKilled));
    assert!(!witness.exists());
}

#[test]
fn q_07_nothing_is_left() {
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let sleepers = [Sleeper::new(), Sleeper::new(), Sleeper::new()];
    let tasks = sleepers
        .iter()
        .zip(["a", "b", "c"])
        .map(|(sleeper, id)| sleeper.task(id));
    // A child that leaves its session and its parent behind.
    let daemon = Sleeper::new();
    let forking = task(
        "d",
        &format!("setsid {} & {}", daemon.command(), sleepers[0].command()),
    );
    let agent = agent().task_group(group(tasks.chain([forking]))).start().unwrap();
    agent.wait_told(&["a", "b", "c", "d"], TaskRunning).unwrap();
    assert!(within(|| daemon.processes() > 0));
    let sandbox = agent.sandbox().to_owned();
    agent.kill("a").unwrap();
    good(&agent.finish());
    assert!(sleepers.iter().chain([&daemon]).all(Sleeper::is_gone));
    assert!(!mounts().contains(sandbox.to_str().unwrap()));
}
