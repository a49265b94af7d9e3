//! Section 2 of the behaviour list, and L1: a group starts whole or not at all.

use super::scene::*;
use crate::{
    group::{Effect, Event, Failure, Settings},
    mesos::v1::{TaskState::*, container_info, task_status::Reason},
};

#[test]
fn l_02_starting_for_every_task_before_anything_is_made() {
    let mut scene = Scene::new();
    let id = |n: u128| crate::group::Stamp {
        now: SECOND,
        wall: 0.0,
        entropy: n.to_le_bytes(),
    };
    let effects = scene
        .machine
        .step(id(9), Event::LaunchGroup(vec![task("a"), task("b")]));
    let kinds: Vec<&str> = effects
        .iter()
        .map(|e| match e {
            Effect::Send(s) if s.state() == TaskStarting => "starting",
            Effect::Prepare { .. } => "prepare",
            _ => "other",
        })
        .collect();
    assert_eq!(kinds, ["starting", "starting", "prepare", "prepare"]);
}

#[test]
fn l_03_nobody_is_released_before_everybody_is_ready() {
    let mut scene = Scene::new();
    scene.launch([task("a"), task("b"), task("c")]);
    assert_eq!(scene.to_prepare(), ["a", "b", "c"]);
    assert!(scene.prepared("b").to_release().is_empty());
    assert!(scene.prepared("a").to_release().is_empty());
    assert_eq!(scene.prepared("c").to_release(), ["a", "b", "c"]);
}

#[test]
fn l_03_all_are_let_go_and_reported_running_when_the_last_one_is_executed() {
    let mut scene = Scene::new();
    scene.launch([task("a"), task("b")]).prepared("a").prepared("b");
    assert!(scene.held("b").to_begin().is_empty());
    assert_eq!(scene.states("b"), [TaskStarting]);
    assert_eq!(scene.held("a").to_begin(), ["a", "b"]);
    for member in ["a", "b"] {
        assert_eq!(scene.states(member), [TaskStarting, TaskRunning]);
    }
}

#[test]
fn l_04_groups_of_one_executor_have_separate_fates() {
    let mut scene = Scene::new();
    scene.run([task("a1"), task("a2")]).run([task("b1"), task("b2")]);
    scene.exited("a1", code(1));
    assert_eq!(scene.state("a2"), "stopping");
    assert_eq!((scene.state("b1"), scene.state("b2")), ("running", "running"));
    assert_ne!(scene.group("a1"), scene.group("b1"));
}

#[test]
fn l_05_one_failure_before_the_gates_open_and_nobody_runs() {
    let mut scene = Scene::new();
    scene.launch([task("a"), task("b"), task("c")]).prepared("a");
    scene.prepare_failed("b", "member `b`: no such image");
    assert_eq!(scene.to_discard(), ["a", "c"]);
    scene.prepared("c").discarded("a").discarded("c");
    assert_eq!(scene.states("b"), [TaskStarting, TaskFailed]);
    assert_eq!(scene.message("b"), "member `b`: no such image");
    for sibling in ["a", "c"] {
        assert_eq!(scene.states(sibling), [TaskStarting, TaskKilled]);
        assert_eq!(scene.reason(sibling), Some(Reason::TaskKilledDuringLaunch));
        assert!(
            scene.message(sibling).contains("member `b`"),
            "{}",
            scene.message(sibling)
        );
        assert!(scene.message(sibling).contains("no such image"));
    }
}

#[test]
fn l_05_a_failed_launch_leaves_other_groups_alone() {
    let mut scene = Scene::new();
    scene.run([task("other")]);
    scene.launch([task("a"), task("b")]).prepare_failed("a", "bad");
    scene.discarded("b");
    assert_eq!(scene.state("other"), "running");
}

#[test]
fn l_06_a_failed_launch_has_a_reason() {
    let mut scene = Scene::new();
    scene.launch([task("a")]).prepare_failed("a", "bad");
    assert_eq!(scene.reason("a"), Some(Reason::ContainerLaunchFailed));

    let mut scene = Scene::new();
    scene.launch([task("a")]);
    let member = scene.id("a");
    scene.step(Event::PrepareFailed(
        member,
        Failure {
            message: "no command".into(),
            invalid: true,
        },
    ));
    assert_eq!(scene.reason("a"), Some(Reason::TaskInvalid));
    assert_eq!(scene.states("a"), [TaskStarting, TaskFailed]);
}

#[test]
fn l_05_an_exec_that_fails_calls_back_the_others_before_their_first_instruction() {
    let mut scene = Scene::new();
    scene.launch([task("a"), task("b"), task("c")]);
    scene.prepared("a").prepared("b").prepared("c").held("a");
    scene.start_failed("b", "exec: permission denied");
    assert_eq!(scene.reason("b"), Some(Reason::ContainerLaunchFailed));
    assert!(scene.signals().is_empty() && scene.to_begin().is_empty());
    assert_eq!(scene.to_discard(), ["a", "c"]);
    // Its exec was on its way.
    assert!(scene.held("c").to_begin().is_empty());
    scene.discarded("a").discarded("c");
    for sibling in ["a", "c"] {
        assert_eq!(scene.states(sibling), [TaskStarting, TaskKilled]);
        assert_eq!(scene.reason(sibling), Some(Reason::TaskKilledDuringLaunch));
        assert!(scene.message(sibling).contains("permission denied"));
    }
}

#[test]
fn l_08_a_kill_before_the_start_prevents_the_start() {
    for ready in 0..=1 {
        let mut scene = Scene::new();
        scene.launch([task("a"), task("b")]);
        if ready == 1 {
            scene.prepared("a");
        }
        scene.kill("a");
        assert_eq!(scene.to_discard(), ["a", "b"]);
        assert!(scene.prepared("b").to_release().is_empty());
        scene.discarded("a").discarded("b");
        for member in ["a", "b"] {
            assert_eq!(scene.states(member), [TaskStarting, TaskKilled]);
            assert_eq!(scene.reason(member), Some(Reason::TaskKilledDuringLaunch));
        }
        assert!(scene.message("b").contains("member `a`"));
    }
}

#[test]
fn l_08_an_exec_that_was_faster_than_the_kill_is_not_let_go() {
    let mut scene = Scene::new();
    scene.launch([task("a")]).prepared("a").kill("a");
    assert_eq!(scene.to_discard(), ["a"]);
    scene.held("a");
    assert!(scene.signals().is_empty() && scene.to_begin().is_empty());
    scene.discarded("a");
    assert_eq!(scene.states("a"), [TaskStarting, TaskKilled]);
    assert_eq!(scene.reason("a"), Some(Reason::TaskKilledDuringLaunch));
}

#[test]
fn l_08_a_kill_while_all_are_held_but_one() {
    let mut scene = Scene::new();
    scene.launch([task("a"), task("b")]).prepared("a").prepared("b");
    scene.held("a").kill("a");
    assert_eq!(scene.to_discard(), ["a", "b"]);
    assert!(scene.held("b").to_begin().is_empty());
    scene.discarded("a").discarded("b");
    for member in ["a", "b"] {
        assert_eq!(scene.states(member), [TaskStarting, TaskKilled]);
    }
}

#[test]
fn l_09_a_shutdown_while_launching_cancels_and_reports() {
    let mut scene = Scene::new();
    scene.launch([task("a"), task("b")]).prepared("a").shutdown();
    assert_eq!(scene.to_discard(), ["a", "b"]);
    scene.discarded("a").discarded("b");
    assert_eq!(scene.states("a"), [TaskStarting, TaskKilled]);
    assert!(scene.message("a").contains("shut down"));
    assert!(scene.acknowledge_all().has_exited());
}

#[test]
fn l_11_an_invalid_group_is_refused_whole_with_the_place() {
    let mut scene = Scene::new();
    let mut bad = task("bad");
    bad.container = Some(crate::mesos::v1::ContainerInfo {
        r#type: container_info::Type::Docker.into(),
        ..Default::default()
    });
    scene.launch([task("good"), bad]);
    assert!(scene.to_prepare().is_empty());
    assert_eq!(scene.states("bad"), [TaskFailed]);
    assert_eq!(scene.reason("bad"), Some(Reason::TaskInvalid));
    assert!(
        scene
            .message("bad")
            .starts_with("tasks[1].container.type: DOCKER")
    );
    assert_eq!(scene.states("good"), [TaskKilled]);
    assert_eq!(scene.reason("good"), Some(Reason::TaskKilledDuringLaunch));
    assert!(scene.message("good").contains("tasks[1].container.type"));
    assert!(scene.acknowledge_all().has_exited());
}

#[test]
fn l_11_a_task_id_used_twice_in_a_group_gets_one_end() {
    let mut scene = Scene::new();
    scene.launch([task("a"), task("a"), task("b")]);
    assert_eq!(scene.states("a").len(), 1);
    assert_eq!(scene.states("b").len(), 1);
}

#[test]
fn l_11_a_network_that_cannot_be_had_refuses_the_group() {
    let mut scene = Scene::new();
    let why = "executor.data.network.mode: `overlay` is not a mode";
    scene.step(Event::NetworkRefused(why.into()));
    scene.launch([task("a"), task("b")]);
    assert!(scene.to_prepare().is_empty());
    for member in ["a", "b"] {
        assert_eq!(scene.states(member), [TaskFailed]);
        assert_eq!(scene.reason(member), Some(Reason::TaskInvalid));
        assert_eq!(scene.message(member), why);
    }
    assert!(scene.acknowledge_all().has_exited());
}

#[test]
fn l_11_extras_that_cannot_be_obeyed_refuse_the_group() {
    let told = subscribed(&[], Some(r#"{"podling":1,"restart":{"policy":"always"}}"#));
    let mut scene = Scene::told(Settings::default(), told);
    scene.launch([task("a"), task("b")]);
    for member in ["a", "b"] {
        assert_eq!(scene.states(member), [TaskFailed]);
        assert_eq!(scene.reason(member), Some(Reason::TaskInvalid));
        assert!(scene.message(member).contains("restart: not supported yet"));
    }
}

#[test]
fn l_12_a_duplicate_never_touches_the_task_that_runs() {
    let mut scene = Scene::new();
    scene.run([task("a"), task("b")]);
    let running = scene.id("a");
    scene.sent.clear();
    scene.launch([task("a"), task("c")]);
    assert!(scene.to_prepare().is_empty());
    assert!(scene.notes()[0].contains("`a`"));
    assert_eq!(scene.states("a"), []);
    assert_eq!(scene.states("c"), [TaskDropped]);
    assert!(scene.message("c").contains("`a`"));
    assert_eq!(scene.id("a"), running);
    assert_eq!((scene.state("a"), scene.state("b")), ("running", "running"));
}

#[test]
fn e_07_a_task_id_may_come_back_after_its_end() {
    let mut scene = Scene::new();
    scene.run([task("other")]).run([task("a")]).exited("a", code(0));
    let first = scene.id("a");
    scene.run([task("a")]);
    assert_ne!(scene.id("a"), first);
    assert_eq!(
        scene.states("a"),
        [TaskStarting, TaskRunning, TaskFinished, TaskStarting, TaskRunning]
    );
    // A KILL means the one that lives.
    scene.kill("a");
    assert_eq!(scene.state("a"), "stopping");
}

#[test]
fn l_15_a_launch_that_takes_too_long_fails_where_it_hangs() {
    let mut scene = Scene::with(Settings {
        launch_deadline: 20 * SECOND,
        ..Settings::default()
    });
    scene.launch([task("quick"), task("slow")]).prepared("quick");
    scene.wait(19 * SECOND);
    assert!(scene.to_discard().is_empty());
    scene.wait(SECOND);
    let mut discarded = scene.to_discard();
    discarded.sort();
    assert_eq!(discarded, ["quick", "slow"]);
    scene.discarded("slow").discarded("quick");
    assert_eq!(scene.states("slow"), [TaskStarting, TaskFailed]);
    assert_eq!(scene.reason("slow"), Some(Reason::ContainerLaunchFailed));
    assert!(scene.message("slow").contains("20s"));
    assert_eq!(scene.states("quick"), [TaskStarting, TaskKilled]);
    assert!(scene.message("quick").contains("`slow`"));
}

#[test]
fn l_15_the_launch_deadline_ends_with_the_launch() {
    let mut scene = Scene::new();
    scene.run([task("a")]);
    assert_eq!(scene.machine.deadline(), None);
}

#[test]
fn s_14_one_task_is_a_group_of_one() {
    let mut scene = Scene::new();
    scene.launch([task("a")]);
    assert_eq!(scene.prepared("a").to_release(), ["a"]);
}

#[test]
fn a_member_that_dies_at_its_gate_has_failed_to_launch() {
    let mut scene = Scene::new();
    scene
        .launch([task("a"), task("b")])
        .prepared("a")
        .exited("a", signal(9));
    assert_eq!(scene.states("a"), [TaskStarting, TaskFailed]);
    assert_eq!(scene.reason("a"), Some(Reason::ContainerLaunchFailed));
    assert!(scene.message("a").contains("at its gate"));
    assert_eq!(scene.state("b"), "discarding");
}

#[test]
fn a_group_before_subscribed_is_ignored() {
    let mut scene = Scene::unsubscribed(Settings::default(), subscribed(&[], None));
    scene.launch([task("a")]);
    assert!(scene.to_prepare().is_empty() && scene.sent.is_empty());
    assert_eq!(scene.notes().len(), 1);
}

#[test]
fn an_empty_group_is_nothing() {
    let mut scene = Scene::new();
    scene.launch([]);
    assert!(scene.effects.is_empty() && scene.sent.is_empty());
    assert_eq!(scene.run([task("a")]).state("a"), "running");
}
