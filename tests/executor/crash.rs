//! The executor dies; nothing of it may stay.

use std::path::Path;

use nix::sys::signal::Signal;
use podling::{container::janitor, loopback::agent::What, mesos::v1::TaskState::*};

use crate::support::*;

/// What the dead executor made and could not remove is written down below `run`; the next start on the node cleans up.
fn clean_up_after(run: &Path) {
    let report = janitor::sweep(run).unwrap();
    assert!(
        report.failed.is_empty() && report.foreign.is_empty(),
        "{report:?}"
    );
    assert!(report.removed.iter().all(|path| !path.exists()), "{report:?}");
    assert_eq!(std::fs::read_dir(run.join("executors")).unwrap().count(), 0);
}

#[test]
fn sigkill_executor_g_10_members_die_with_it_and_their_ends_are_told() {
    let [sleeper, daemon] = [(); 2].map(|()| Sleeper::new());
    let forking = format!("setsid {} & {}", daemon.command(), sleeper.command());
    let run = Place::new();
    let agent = agent()
        .env("PODLING_RUN_DIR", run.path().to_str().unwrap())
        .task_group(group([task("a", &forking)]))
        .start()
        .unwrap();
    agent.wait_told(&["a"], TaskRunning).unwrap();
    assert!(within(|| daemon.processes() > 0 && sleeper.processes() > 0));
    agent.signal(Signal::SIGKILL).unwrap();
    // Before the agent could take the container apart it would have to have one; only our own care counts here.
    assert!(sleeper.is_gone() && daemon.is_gone());
    let outcome = agent.finish();
    assert_eq!(outcome.state("a"), Some(TaskFailed));
    assert!(outcome.tasks[0].made_by_agent);
    clean_up_after(run.path());
}

/// The crash points are there in debug builds, which tests are.
#[test]
fn n_3_a_crash_between_any_two_effects_leaves_no_process() {
    let mut crashes = 0;
    for point in 1.. {
        let sleepers = [Sleeper::new(), Sleeper::new()];
        let tasks = group([sleepers[0].task("a"), sleepers[1].task("b")]);
        let run = Place::new();
        let agent = agent()
            .env("PODLING_CRASH_BEFORE_EFFECT", &point.to_string())
            .env("PODLING_RUN_DIR", run.path().to_str().unwrap())
            .task_group(tasks)
            .start()
            .unwrap();
        let crashed = |history: &podling::loopback::agent::History| {
            history.when(|what| matches!(what, What::Exited { .. })).is_some()
        };
        agent
            .wait_for("the crash, or RUNNING", |history| {
                crashed(history) || history.all_told(&["a", "b"], TaskRunning)
            })
            .unwrap();
        if agent.kill("a").is_ok() && !crashed(&agent.history()) {
            agent.wait_for("the end", crashed).unwrap();
        }
        let outcome = agent.finish();
        assert!(sleepers.iter().all(Sleeper::is_gone), "crash point {point}");
        clean_up_after(run.path());
        match outcome.exit.unwrap().code() {
            // It was over before that point was reached.
            Some(0) => break,
            Some(code) => panic!("crash point {point}: ended with {code}\n{}", outcome.history),
            None => crashes += 1,
        }
        assert!(
            outcome
                .tasks
                .iter()
                .all(|end| podling::loopback::agent::is_terminal(end.state))
        );
    }
    // STARTING, prepare, release, RUNNING, KILLING, stop, KILLED and forget for each, at least.
    assert!(crashes >= 16, "{crashes} crash points");
}

/// L7: a mistake of ours is told and is the end, at once, of everything.
#[test]
fn l_7_g_10_a_panic_is_told_in_the_black_box_and_members_die() {
    let crashed = |history: &podling::loopback::agent::History| {
        history.when(|what| matches!(what, What::Exited { .. })).is_some()
    };
    // The first point that is reached by the kill of a member that runs.
    for point in 1.. {
        let sleeper = Sleeper::new();
        let (run, place) = (Place::new(), Place::new());
        let agent = agent()
            .work_dir(place.path())
            .env("PODLING_CRASH_BEFORE_EFFECT", &format!("panic:{point}"))
            .env("PODLING_RUN_DIR", run.path().to_str().unwrap())
            .task_group(group([sleeper.task("a")]))
            .start()
            .unwrap();
        let sandbox = agent.sandbox().to_owned();
        agent
            .wait_for("the panic, or RUNNING", |history| {
                crashed(history) || history.all_told(&["a"], TaskRunning)
            })
            .unwrap();
        let ran = agent.history().all_told(&["a"], TaskRunning) && !crashed(&agent.history());
        if ran {
            agent.kill("a").unwrap();
        }
        let outcome = agent.finish();
        assert!(sleeper.is_gone(), "{point}");
        clean_up_after(run.path());
        let signal = std::os::unix::process::ExitStatusExt::signal(&outcome.exit.unwrap());
        assert_eq!(signal, Some(libc::SIGABRT), "{point}\n{}", outcome.history);
        let told = std::fs::read_to_string(sandbox.join(".podling/blackbox.jsonl")).unwrap();
        let end: serde_json::Value = serde_json::from_str(told.lines().last().unwrap()).unwrap();
        assert_eq!(end["cause"], "panic", "{told}");
        let message = end["message"].as_str().unwrap();
        assert!(
            message.contains("src/executor/crash.rs:") && message.contains("a crash point"),
            "{message}"
        );
        if ran {
            break;
        }
    }
}
