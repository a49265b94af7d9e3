//! Section 9 of the behaviour list: shutdown and exit.

use super::scene::*;
use crate::{
    group::{
        MemberSignal::{Kill, Stop},
        Settings,
    },
    mesos::v1::TaskState::*,
};

#[test]
fn q_01_everyone_is_killed_told_and_awaited() {
    let mut scene = Scene::new();
    scene.run([task("a")]).run([task("b")]).shutdown();
    assert_eq!(scene.signals(), [("a".into(), Stop), ("b".into(), Stop)]);
    scene.exited("a", signal(15)).exited("b", code(0));
    for member in ["a", "b"] {
        assert_eq!(
            scene.states(member),
            [TaskStarting, TaskRunning, TaskKilling, TaskKilled]
        );
        assert!(scene.message(member).contains("shut down"));
    }
    assert!(!scene.has_exited());
    assert!(scene.acknowledge_all().has_exited());
}

#[test]
fn q_01_q_04_each_policy_counts_within_the_shutdown_grace() {
    let mut scene = Scene::new();
    scene
        .run([
            with_grace("short", 1.0),
            with_grace("long", 600.0),
            task("default"),
        ])
        .shutdown();
    scene.wait(SECOND);
    assert_eq!(scene.signals(), [("short".into(), Kill)]);
    scene.wait(2 * SECOND);
    assert_eq!(scene.signals(), [("default".into(), Kill)]);
    scene.wait(SECOND);
    assert_eq!(scene.signals(), [("long".into(), Kill)]);
}

#[test]
fn q_01_a_shutdown_shortens_a_long_kill() {
    let mut scene = Scene::new();
    scene.run([task("a")]).kill_within("a", 600.0).shutdown();
    assert_eq!(scene.machine.deadline(), Some(scene.now + 3 * SECOND));
    assert_eq!(scene.states("a"), [TaskStarting, TaskRunning, TaskKilling]);
}

#[test]
fn q_02_without_an_agent_the_members_still_get_their_grace() {
    let mut scene = Scene::checkpointed();
    scene.run([task("a")]).acknowledge_all().disconnected().shutdown();
    assert_eq!(scene.signals(), [("a".into(), Stop)]);
    assert!(!scene.machine.seeks_agent());
    scene.wait(3 * SECOND);
    assert_eq!(scene.signals(), [("a".into(), Kill)]);
    // Nobody is there to acknowledge.
    assert!(scene.exited("a", signal(9)).has_exited());
}

#[test]
fn q_02_s_17_a_shutdown_before_subscribed_ends_at_once() {
    let mut scene = Scene::unsubscribed(Settings::default(), subscribed(&[], None));
    assert!(scene.machine.seeks_agent());
    assert!(scene.shutdown().has_exited());
    assert!(!scene.machine.seeks_agent());
}

#[test]
fn q_03_acknowledgements_are_awaited_for_a_minute() {
    let mut scene = Scene::new();
    scene.run([task("a")]).exited("a", code(0));
    assert!(!scene.wait(59 * SECOND).has_exited());
    assert!(scene.wait(SECOND).has_exited());
    assert!(scene.notes()[0].contains("never acknowledged"));
}

#[test]
fn q_03_some_acknowledgements_are_not_all() {
    let mut scene = Scene::new();
    scene.run([task("a")]).exited("a", code(0));
    let first = scene.machine.unacknowledged().next().cloned().unwrap();
    assert!(!scene.acknowledge(&first).has_exited());
    assert!(scene.acknowledge_all().has_exited());
}

#[test]
fn q_04_the_executor_goes_when_its_grace_is_over() {
    let mut scene = Scene::new();
    scene.run([task("stuck")]).shutdown();
    assert!(!scene.wait(SECOND * 499 / 100).has_exited());
    scene.wait(SECOND / 100);
    assert!(scene.has_exited());
    assert!(scene.notes()[0].contains("stuck"));
}

#[test]
fn q_04_neither_do_acknowledgements_hold_it_longer() {
    let mut scene = Scene::new();
    scene.run([task("a")]).shutdown().exited("a", signal(15));
    assert!(scene.wait(5 * SECOND).has_exited());
}

#[test]
fn q_04_no_grace_at_all_still_kills_and_tells() {
    let mut scene = Scene::with(Settings {
        shutdown_grace: std::time::Duration::ZERO,
        ..Settings::default()
    });
    scene.run([with_grace("a", 600.0)]).shutdown();
    assert_eq!(scene.signals(), [("a".into(), Stop), ("a".into(), Kill)]);
    scene.exited("a", signal(9));
    assert_eq!(scene.last("a").state(), TaskKilled);
    assert!(scene.acknowledge_all().has_exited());
}

#[test]
fn q_06_a_second_shutdown_changes_nothing() {
    let mut scene = Scene::new();
    scene.run([task("a")]).shutdown();
    let before = scene.machine.clone();
    scene.wait(SECOND).shutdown();
    assert_eq!(scene.machine, before);
}

#[test]
fn q_08_no_launch_after_a_shutdown() {
    let mut scene = Scene::new();
    scene.run([task("a")]).shutdown().launch([task("b"), task("c")]);
    assert!(scene.to_prepare().is_empty());
    for refused in ["b", "c"] {
        assert_eq!(scene.states(refused), [TaskDropped]);
        assert!(scene.message(refused).contains("shutting down"));
    }
}

#[test]
fn q_09_no_launch_between_the_last_end_and_the_exit() {
    for (aware, state) in [(true, TaskDropped), (false, TaskLost)] {
        let mut scene = match aware {
            true => Scene::new(),
            false => Scene::told(Settings::default(), subscribed(&[], None)),
        };
        scene.run([task("a")]).exited("a", code(0)).launch([task("b")]);
        assert!(scene.to_prepare().is_empty());
        assert_eq!(scene.states("b"), [state]);
        assert!(scene.message("b").contains("about to exit"));
        assert!(scene.acknowledge_all().has_exited());
    }
}

#[test]
fn q_10_a_refused_group_does_not_end_the_groups_that_run() {
    let mut scene = Scene::new();
    scene.run([task("a")]).launch([task("")]).launch([task("..")]);
    assert_eq!(scene.state("a"), "running");
    assert!(!scene.machine.is_done());
}

#[test]
fn nothing_follows_the_exit() {
    let mut scene = Scene::new();
    scene.run([task("a")]).exited("a", code(0)).acknowledge_all();
    let sent = scene.sent.len();
    scene
        .launch([task("b")])
        .kill("b")
        .shutdown()
        .disconnected()
        .wait(3600 * SECOND);
    assert!(scene.effects.is_empty());
    assert_eq!(scene.sent.len(), sent);
    assert_eq!(scene.machine.deadline(), None);
}
