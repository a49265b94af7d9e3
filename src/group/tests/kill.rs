//! Section 6 of the behaviour list, and L3: a kill always ends.

use super::scene::*;
use crate::{
    group::{
        MemberSignal::{Kill, Stop},
        Settings,
    },
    mesos::v1::TaskState::*,
};

fn to(task: &str, signal: crate::group::MemberSignal) -> (String, crate::group::MemberSignal) {
    (task.into(), signal)
}

#[test]
fn k_01_killing_then_stop_then_kill_after_the_grace() {
    let mut scene = Scene::new();
    scene.run([task("a")]).kill_within("a", 7.0);
    assert_eq!(scene.states("a"), [TaskStarting, TaskRunning, TaskKilling]);
    assert_eq!(scene.signals(), [to("a", Stop)]);
    scene.wait(7 * SECOND - SECOND / 1000);
    assert_eq!(scene.signals(), []);
    scene.wait(SECOND / 1000);
    assert_eq!(scene.signals(), [to("a", Kill)]);
    scene.exited("a", signal(9));
    assert_eq!(
        scene.states("a"),
        [TaskStarting, TaskRunning, TaskKilling, TaskKilled]
    );
    assert_eq!(
        scene.message("a"),
        "killed on request; Command terminated with signal SIGKILL"
    );
    assert_eq!(scene.reason("a"), None);
}

#[test]
fn u_05_no_killing_for_a_framework_that_does_not_know_it() {
    let mut scene = Scene::told(Settings::default(), subscribed(&[], None));
    scene.run([task("a")]).kill("a").exited("a", signal(15));
    assert_eq!(scene.states("a"), [TaskStarting, TaskRunning, TaskKilled]);
}

#[test]
fn k_02_the_grace_of_the_kill_of_the_task_and_the_default() {
    for (own, asked, expected) in [(None, None, 3), (Some(8.0), None, 8), (Some(8.0), Some(5.0), 5)] {
        let mut scene = Scene::new();
        scene.run([own.map_or_else(|| task("a"), |own| with_grace("a", own))]);
        match asked {
            Some(asked) => scene.kill_within("a", asked),
            None => scene.kill("a"),
        };
        assert_eq!(scene.machine.deadline(), Some(scene.now + expected * SECOND));
    }
}

#[test]
fn k_03_no_grace_means_kill_straight_after_stop() {
    let mut scene = Scene::new();
    scene.run([task("a")]).kill_within("a", 0.0);
    assert_eq!(scene.signals(), [to("a", Stop), to("a", Kill)]);
    assert_eq!(scene.states("a"), [TaskStarting, TaskRunning, TaskKilling]);
}

#[test]
fn k_05_a_second_kill_shortens_the_deadline() {
    let mut scene = Scene::new();
    scene.run([task("a")]).kill_within("a", 60.0).wait(SECOND);
    scene.kill_within("a", 2.0);
    assert_eq!(scene.machine.deadline(), Some(scene.now + 2 * SECOND));
    scene.kill_within("a", 0.0);
    assert_eq!(scene.signals(), [to("a", Kill)]);
    // Told once, however often it is killed.
    assert_eq!(scene.states("a"), [TaskStarting, TaskRunning, TaskKilling]);
}

#[test]
fn k_05_a_second_kill_never_extends_the_deadline() {
    let mut scene = Scene::new();
    scene.run([task("a")]).kill_within("a", 2.0);
    let deadline = scene.machine.deadline();
    scene.wait(SECOND).kill_within("a", 60.0).kill("a");
    assert_eq!(scene.machine.deadline(), deadline);
}

#[test]
fn k_05_a_kill_that_got_stuck_can_be_tried_again() {
    let mut scene = Scene::new();
    scene.run([task("a")]).kill_within("a", 0.0).kill("a");
    assert_eq!(scene.signals(), [to("a", Kill)]);
}

#[test]
fn k_06_unknown_and_ended_tasks_are_not_worth_an_update() {
    let mut scene = Scene::new();
    scene.run([task("a"), task("b")]).exited("a", code(0));
    let (sent, before) = (scene.sent.len(), scene.machine.clone());
    scene.kill("a").kill("nobody").kill("");
    assert_eq!(scene.sent.len(), sent);
    assert_eq!(scene.machine, before);
}

#[test]
fn k_08_a_good_exit_after_a_kill_is_killed() {
    let mut scene = Scene::new();
    scene.run([task("a")]).kill("a").exited("a", code(0));
    assert_eq!(
        scene.states("a"),
        [TaskStarting, TaskRunning, TaskKilling, TaskKilled]
    );
}

#[test]
fn k_09_siblings_are_killed_at_once_each_by_its_own_policy() {
    let mut scene = Scene::new();
    scene.run([
        task("a"),
        with_grace("b", 1.0),
        with_grace("c", 0.0),
        with_grace("d", 9.0),
    ]);
    scene.kill("a");
    assert_eq!(
        scene.signals(),
        [
            to("a", Stop),
            to("b", Stop),
            to("c", Stop),
            to("c", Kill),
            to("d", Stop)
        ]
    );
    scene.wait(SECOND);
    assert_eq!(scene.signals(), [to("b", Kill)]);
    scene.wait(2 * SECOND);
    assert_eq!(scene.signals(), [to("a", Kill)]);
    scene.wait(6 * SECOND);
    assert_eq!(scene.signals(), [to("d", Kill)]);
}

#[test]
fn k_10_each_of_many_kills_ends_its_task_once() {
    let mut scene = Scene::new();
    scene.run([task("a"), task("b"), task("c")]);
    scene.kill("a").kill("b").kill("c");
    for member in ["b", "c", "a"] {
        scene.exited(member, signal(15));
        assert_eq!(
            scene.states(member),
            [TaskStarting, TaskRunning, TaskKilling, TaskKilled]
        );
    }
    assert!(scene.acknowledge_all().has_exited());
}

#[test]
fn k_11_a_kill_during_shutdown_changes_nothing() {
    let mut scene = Scene::new();
    scene.run([task("a")]).shutdown();
    let before = scene.machine.clone();
    scene.kill_within("a", 0.0);
    assert_eq!(scene.machine, before);
}

#[test]
fn k_12_a_drain_may_shorten_what_the_task_asked_for() {
    let mut scene = Scene::new();
    scene.run([with_grace("a", 600.0)]).kill_within("a", 1.0);
    assert_eq!(scene.machine.deadline(), Some(scene.now + SECOND));
}

#[test]
fn k_12_a_drain_shortens_even_after_a_sibling_fell() {
    let mut scene = Scene::new();
    scene
        .run([task("a"), with_grace("b", 600.0)])
        .kill_within("a", 1.0)
        .kill_within("b", 1.0);
    assert_eq!(scene.machine.deadline(), Some(scene.now + SECOND));
    scene.wait(SECOND);
    assert_eq!(scene.signals(), [to("a", Kill), to("b", Kill)]);
}

#[test]
fn l3_a_member_that_is_given_up_has_no_grace() {
    let mut scene = Scene::new();
    scene.launch([task("a")]).prepared("a");
    scene.kill_within("a", 60.0).kill_within("a", 0.0).held("a");
    assert!(scene.signals().is_empty() && scene.to_begin().is_empty());
    assert_eq!(scene.machine.deadline(), None);
}
