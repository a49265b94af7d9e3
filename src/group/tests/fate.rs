//! Sections 7 and 8 of the behaviour list: ends, and what they mean for the group.

use super::scene::*;
use crate::{
    group::{
        MemberSignal::{Kill, Stop},
        Settings,
    },
    mesos::v1::{TaskInfo, TaskState::*, task_status::Reason},
};

#[test]
fn g_01_a_good_exit_is_finished_and_the_others_go_on() {
    let mut scene = Scene::new();
    scene.run([task("a"), task("b")]).exited("a", code(0));
    assert_eq!(scene.states("a"), [TaskStarting, TaskRunning, TaskFinished]);
    assert_eq!(scene.message("a"), "Command exited with status 0");
    assert_eq!(scene.reason("a"), None);
    assert_eq!(scene.state("b"), "running");
    assert_eq!(scene.signals(), []);
}

#[test]
fn g_01_with_on_finish_kill_any_end_ends_all() {
    let told = subscribed(&[], Some(r#"{"podling":1,"onFinish":"kill"}"#));
    let mut scene = Scene::told(Settings::default(), told);
    scene.run([task("a"), task("b")]).exited("a", code(0));
    assert_eq!(scene.states("a"), [TaskStarting, TaskRunning, TaskFinished]);
    assert_eq!(scene.signals(), [("b".into(), Stop)]);
    scene.exited("b", code(0));
    assert_eq!(scene.states("b"), [TaskStarting, TaskRunning, TaskKilled]);
    assert!(scene.message("b").contains("member `a` of its group finished"));
}

#[test]
fn g_02_a_bad_exit_fails_and_the_others_are_killed_naming_it() {
    for (exit, words) in [
        (code(3), "Command exited with status 3"),
        (signal(11), "Command terminated with signal SIGSEGV"),
    ] {
        let mut scene = Scene::new();
        scene.run([task("a"), task("b"), task("c")]).exited("a", exit);
        assert_eq!(scene.states("a"), [TaskStarting, TaskRunning, TaskFailed]);
        assert_eq!(scene.message("a"), words);
        assert_eq!(scene.signals(), [("b".into(), Stop), ("c".into(), Stop)]);
        scene.exited("b", signal(15)).exited("c", code(0));
        for sibling in ["b", "c"] {
            assert_eq!(
                scene.states(sibling),
                [TaskStarting, TaskRunning, TaskKilling, TaskKilled]
            );
            // G-11
            let message = scene.message(sibling);
            assert!(
                message.contains("member `a` of its group failed") && message.contains(words),
                "{message}"
            );
        }
    }
}

#[test]
fn g_02_the_signals_leave_before_a_word_is_written() {
    let mut scene = Scene::new();
    scene.run([task("a"), task("b")]);
    let stamp = crate::group::Stamp {
        now: scene.now,
        wall: 0.0,
        entropy: [1; 16],
    };
    let member = scene.id("a");
    let effects = scene
        .machine
        .step(stamp, crate::group::Event::Exited(member, code(1)));
    assert!(matches!(effects.first(), Some(crate::group::Effect::Signal(..))));
}

#[test]
fn g_03_the_group_falls_once() {
    let mut scene = Scene::new();
    scene
        .run([task("a"), task("b"), task("c")])
        .exited("a", code(1))
        .exited("b", code(1));
    assert_eq!(scene.signals(), []);
    // What it was told first stands.
    assert!(scene.message("b").contains("`a`"));
    assert_eq!(scene.states("b").last(), Some(&TaskKilled));
}

#[test]
fn g_04_other_groups_go_on_and_end_alone() {
    let mut scene = Scene::new();
    scene
        .run([task("a")])
        .run([task("b")])
        .exited("a", code(1))
        .acknowledge_all();
    assert!(!scene.has_exited());
    assert_eq!((scene.state("a"), scene.state("b")), ("gone", "running"));
    scene.exited("b", code(0));
    assert!(scene.acknowledge_all().has_exited());
}

#[test]
fn g_05_when_nobody_is_left_the_executor_goes() {
    for exit in [code(0), code(1), signal(9)] {
        let mut scene = Scene::new();
        scene.run([task("a")]).exited("a", exit);
        assert!(!scene.has_exited(), "the end is not acknowledged");
        assert!(scene.acknowledge_all().has_exited());
        assert!(scene.machine.is_done());
    }
}

#[test]
fn g_06_g_07_the_unhealthy_mark_is_on_one_member_only() {
    let mut scene = Scene::new();
    scene
        .run([task("sick"), task("well")])
        .health("well", true)
        .health("sick", false);
    scene.unhealthy("sick", "the check of :80 failed 3 times, last: refused");
    scene.exited("sick", signal(15)).exited("well", signal(15));
    let sick = scene.last("sick");
    assert_eq!(
        (sick.state(), sick.healthy, sick.reason),
        (TaskKilled, Some(false), None)
    );
    assert!(sick.message().contains("failed 3 times, last: refused"));
    let well = scene.last("well");
    assert_eq!((well.state(), well.healthy), (TaskKilled, Some(true)));
    assert!(well.message().contains("`sick`"));
}

#[test]
fn g_06_an_unhealthy_end_says_so_even_if_no_failure_was_told() {
    let mut scene = Scene::new();
    scene
        .run([task("a")])
        .health("a", true)
        .unhealthy("a", "gone")
        .exited("a", signal(15));
    assert_eq!(scene.last("a").healthy, Some(false));
}

#[test]
fn an_end_is_followed_by_forget() {
    let mut scene = Scene::new();
    scene.run([task("a"), task("b")]);
    let member = scene.id("a");
    scene.exited("a", code(0));
    assert!(matches!(scene.effects.as_slice(), [crate::group::Effect::Forget(id)] if *id == member));
}

#[test]
fn g_08_a_limit_wins_over_the_exit() {
    let mut scene = Scene::new();
    scene.run([task("a"), task("b")]).exited("a", out_of_memory());
    let last = scene.last("a").clone();
    assert_eq!(last.state(), TaskFailed);
    assert_eq!(scene.reason("a"), Some(Reason::ContainerLimitationMemory));
    assert!(last.message().contains("hog"));
    let resources = last.limitation.unwrap().resources;
    assert_eq!(resources[0].name, "mem");
    assert_eq!(resources[0].scalar.unwrap().value, 64.0);
    assert_eq!(scene.state("b"), "stopping");
}

#[test]
fn u_10_a_limitation_comes_only_with_its_reason() {
    let mut scene = Scene::new();
    scene
        .run([task("a"), task("b")])
        .exited("a", code(1))
        .exited("b", signal(15));
    assert!(scene.sent.iter().all(|s| s.limitation.is_none()));
}

#[test]
fn g_08_a_limit_wins_over_a_kill() {
    let mut scene = Scene::new();
    scene.run([task("a")]).kill("a").exited("a", out_of_memory());
    assert_eq!(scene.reason("a"), Some(Reason::ContainerLimitationMemory));
}

fn limited(id: &str, n: f64) -> TaskInfo {
    TaskInfo {
        max_completion_time: Some(seconds(n)),
        ..with_grace(id, 30.0)
    }
}

#[test]
fn x_01_the_time_starts_with_running() {
    let mut scene = Scene::new();
    scene
        .launch([limited("a", 5.0)])
        .wait(60 * SECOND)
        .prepared("a")
        .wait(60 * SECOND)
        .held("a");
    assert_eq!(scene.machine.deadline(), Some(scene.now + 5 * SECOND));
}

#[test]
fn x_02_no_grace_no_killing_and_the_group_falls() {
    let mut scene = Scene::new();
    scene.run([limited("a", 5.0), task("b")]).wait(5 * SECOND);
    assert_eq!(
        scene.signals(),
        [("a".into(), Stop), ("a".into(), Kill), ("b".into(), Stop)]
    );
    scene.exited("a", code(0)).exited("b", signal(15));
    assert_eq!(scene.states("a"), [TaskStarting, TaskRunning, TaskFailed]);
    assert_eq!(scene.reason("a"), Some(Reason::MaxCompletionTimeReached));
    assert!(scene.message("a").contains("5s"));
    assert_eq!(
        scene.states("b"),
        [TaskStarting, TaskRunning, TaskKilling, TaskKilled]
    );
    assert!(scene.message("b").contains("max_completion_time"));
}

#[test]
fn x_03_a_kill_stops_the_clock() {
    let mut scene = Scene::new();
    scene.run([limited("a", 5.0)]).kill("a").wait(6 * SECOND);
    assert_eq!(scene.signals(), []);
    scene.exited("a", signal(15));
    assert_eq!((scene.last("a").state(), scene.reason("a")), (TaskKilled, None));
}

#[test]
fn x_04_zero_means_no_limit_and_a_negative_one_is_refused() {
    let mut scene = Scene::new();
    assert_eq!(scene.run([limited("a", 0.0)]).machine.deadline(), None);
    scene.launch([limited("b", -1.0)]);
    assert_eq!(scene.reason("b"), Some(Reason::TaskInvalid));
    assert!(scene.message("b").contains("max_completion_time"));
}
