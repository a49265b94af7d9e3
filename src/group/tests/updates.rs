//! Section 3 of the behaviour list: what an update says.

use std::collections::HashSet;

use super::scene::*;
use crate::{
    group::{Event, Settings},
    mesos::v1::{
        CheckInfo, CheckStatusInfo, NetworkInfo, TaskInfo,
        TaskState::*,
        check_info, check_status_info,
        task_status::{Reason, Source},
    },
};

fn exit_code(exit_code: i32) -> CheckStatusInfo {
    CheckStatusInfo {
        r#type: Some(check_info::Type::Command.into()),
        command: Some(check_status_info::Command {
            exit_code: Some(exit_code),
        }),
        ..Default::default()
    }
}

fn checked(id: &str) -> TaskInfo {
    TaskInfo {
        check: Some(CheckInfo {
            r#type: Some(check_info::Type::Command.into()),
            command: Some(check_info::Command {
                command: crate::mesos::v1::CommandInfo {
                    value: Some("true".into()),
                    ..Default::default()
                },
            }),
            ..Default::default()
        }),
        ..task(id)
    }
}

#[test]
fn u_01_every_update_says_who_when_and_where() {
    let mut scene = Scene::new();
    scene
        .run([task("a"), task("b")])
        .kill("a")
        .exited("a", code(0))
        .exited("b", code(0));
    let mut uuids = HashSet::new();
    for status in &scene.sent {
        assert_eq!(status.source(), Source::Executor);
        assert_eq!(status.executor_id.as_ref().unwrap().value, "executor");
        assert_eq!(status.timestamp, Some(1e9 + 1.0));
        assert_eq!(status.agent_id, None);
        let uuid = uuid::Uuid::from_slice(status.uuid()).unwrap();
        assert_eq!(uuid.get_version_num(), 4);
        assert!(uuids.insert(uuid), "two updates share a uuid");
    }
    assert_eq!(scene.sent.len(), 8);
}

#[test]
fn u_09_each_member_has_a_container_of_its_own_below_the_executor_s() {
    let mut scene = Scene::new();
    scene.run([task("a"), task("b")]).exited("a", code(0));
    let of = |task: &str| {
        let ids = scene.sent.iter().filter(|s| s.task_id.value == task);
        let ids = ids.map(|s| s.container_status.clone().unwrap().container_id.unwrap());
        let mut ids: Vec<_> = ids.collect();
        ids.dedup();
        assert_eq!(ids.len(), 1, "it stays the same");
        ids.remove(0)
    };
    let (a, b) = (of("a"), of("b"));
    assert_ne!(a.value, b.value);
    assert_eq!(a.parent.unwrap().value, "parent");
    let views: Vec<&str> = scene.machine.members().map(|m| m.container).collect();
    assert_eq!(views, [a.value.as_str(), b.value.as_str()]);
}

fn net(name: &str) -> NetworkInfo {
    NetworkInfo {
        name: Some(name.into()),
        ..Default::default()
    }
}

fn nets(scene: &Scene, task: &str) -> Vec<String> {
    let status = scene.last(task).container_status.clone().unwrap();
    status
        .network_infos
        .into_iter()
        .map(|n| n.name.unwrap_or_default())
        .collect()
}

#[test]
fn u_09_our_own_addresses_are_in_every_update() {
    let mut scene = Scene::new();
    scene.step(Event::Network {
        member: None,
        infos: vec![net("host")],
    });
    scene.launch([task("a"), task("b")]);
    assert_eq!(nets(&scene, "a"), ["host"]);
    let member = scene.id("b");
    scene.step(Event::Network {
        member: Some(member),
        infos: vec![net("pod")],
    });
    scene.prepared("a").prepared("b").held("a").held("b");
    assert_eq!(
        (nets(&scene, "a"), nets(&scene, "b")),
        (vec!["host".into()], vec!["pod".into()])
    );
}

#[test]
fn u_02_c_06_a_check_is_typed_and_empty_before_its_first_result() {
    let mut scene = Scene::new();
    scene.run([checked("a"), task("b")]);
    let empty = CheckStatusInfo {
        r#type: Some(check_info::Type::Command.into()),
        command: Some(check_status_info::Command { exit_code: None }),
        ..Default::default()
    };
    for status in scene.sent.iter().filter(|s| s.task_id.value == "a") {
        assert_eq!(status.check_status, Some(empty));
    }
    assert_eq!(scene.last("b").check_status, None);
}

#[test]
fn u_03_results_do_not_shadow_each_other_and_stay_to_the_end() {
    let mut scene = Scene::new();
    scene.run([checked("a")]).health("a", true);
    assert_eq!(scene.reason("a"), Some(Reason::TaskHealthCheckStatusUpdated));
    scene.check("a", exit_code(7));
    assert_eq!(scene.reason("a"), Some(Reason::TaskCheckStatusUpdated));
    assert_eq!(scene.last("a").healthy, Some(true));
    scene.health("a", false);
    assert_eq!(scene.last("a").check_status, Some(exit_code(7)));
    assert!(scene.message("a").contains("healthy: false"));
    scene.kill("a").exited("a", signal(15));
    for status in scene.sent.iter().rev().take(2) {
        assert_eq!(status.healthy, Some(false));
        assert_eq!(status.check_status, Some(exit_code(7)));
    }
}

#[test]
fn u_04_the_order_of_a_life() {
    let mut scene = Scene::new();
    scene
        .run([task("a")])
        .health("a", true)
        .kill("a")
        .exited("a", signal(15));
    assert_eq!(
        scene.states("a"),
        [TaskStarting, TaskRunning, TaskRunning, TaskKilling, TaskKilled]
    );
}

#[test]
fn u_06_h_21_a_late_result_says_nothing() {
    let mut scene = Scene::new();
    scene
        .launch([checked("a")])
        .health("a", true)
        .check("a", exit_code(1));
    assert_eq!(scene.states("a"), [TaskStarting]);
    scene.prepared("a").held("a").kill("a");
    scene
        .health("a", true)
        .check("a", exit_code(0))
        .unhealthy("a", "late");
    assert_eq!(scene.states("a").last(), Some(&TaskKilling));
    scene
        .exited("a", signal(15))
        .health("a", true)
        .check("a", exit_code(0));
    assert_eq!(scene.states("a").last(), Some(&TaskKilled));
    assert_eq!(scene.last("a").healthy, None);
}

#[test]
fn u_08_messages_are_those_of_mesos() {
    let mut scene = Scene::new();
    scene.run([task("a")]).exited("a", code(2));
    assert_eq!(scene.message("a"), "Command exited with status 2");
}

#[test]
fn h_05_every_failure_is_told() {
    let mut scene = Scene::new();
    scene
        .run([task("a")])
        .health("a", false)
        .health("a", false)
        .health("a", false);
    assert_eq!(scene.sent.iter().filter(|s| s.healthy == Some(false)).count(), 3);
}

#[test]
fn h_06_h_08_too_many_failures_are_an_ordinary_kill() {
    let mut scene = Scene::new();
    scene
        .run([with_grace("a", 9.0), task("b")])
        .health("a", false)
        .unhealthy("a", "3 failures");
    assert_eq!(scene.states("a").last(), Some(&TaskKilling));
    assert_eq!(scene.signals().len(), 2);
    scene.wait(3 * SECOND).exited("b", signal(9));
    assert_eq!(scene.machine.deadline(), Some(scene.now + 6 * SECOND));
}

#[test]
fn h_07_success_is_told_when_it_is_news() {
    let mut scene = Scene::new();
    scene.run([task("a")]).health("a", true).health("a", true);
    assert_eq!(scene.sent.iter().filter(|s| s.healthy == Some(true)).count(), 1);
    scene.health("a", false).health("a", true).health("a", true);
    assert_eq!(scene.sent.iter().filter(|s| s.healthy == Some(true)).count(), 2);
}

#[test]
fn h_09_before_the_first_result_health_is_unknown() {
    let mut scene = Scene::new();
    scene.run([task("a")]).kill("a").exited("a", signal(15));
    assert!(scene.sent.iter().all(|s| s.healthy.is_none()));
}

#[test]
fn c_02_only_a_result_that_differs_is_told() {
    let mut scene = Scene::new();
    scene.run([checked("a")]);
    let before = scene.sent.len();
    for n in [1, 1, 0, 0, 1] {
        scene.check("a", exit_code(n));
    }
    assert_eq!(scene.sent.len() - before, 3);
}

#[test]
fn u_11_an_acknowledgement_is_for_one_update() {
    let mut scene = Scene::new();
    scene.run([task("a"), task("b")]);
    let (first, all) = (
        scene.sent.first().cloned().unwrap(),
        scene.machine.unacknowledged().count(),
    );
    // Of another task, of nobody, and twice.
    scene.step(Event::Acknowledged {
        task: "b".into(),
        uuid: first.uuid().to_vec(),
    });
    scene.step(Event::Acknowledged {
        task: "a".into(),
        uuid: vec![0; 16],
    });
    assert_eq!(scene.machine.unacknowledged().count(), all);
    scene.acknowledge(&first).acknowledge(&first);
    assert_eq!(scene.machine.unacknowledged().count(), all - 1);
}

#[test]
fn dropped_is_lost_for_a_framework_that_is_not_partition_aware() {
    let mut scene = Scene::told(Settings::default(), subscribed(&[], None));
    scene.run([task("a")]).launch([task("a"), task("b")]);
    assert_eq!(scene.states("b"), [TaskLost]);
}
