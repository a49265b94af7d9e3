//! Strangers, what is out of reach, and what a restarted scheduler makes of what it finds.

use std::time::Duration;

use serde_json::json;

use super::{
    super::{
        status::{self, InstanceState, Overall},
        *,
    },
    world::*,
};
use crate::{
    mesos::v1::{self, TaskState},
    pod::{self, PodId},
};

#[test]
fn strangers_are_killed_when_they_run_and_told_when_they_ended() {
    let mut world = running(0);
    let id = "p.instance-6f1b2c3e-0b1a-11ee-8f7a-0242ac110002.a.1";
    world.step(Event::Update(Box::new(status(id, TaskState::TaskRunning))));
    assert_eq!(world.kills, [id]);
    world.step(Event::Update(Box::new(status("not-ours", TaskState::TaskFailed))));
    assert!(matches!(
        world.notices.last(),
        Some(Notice::UnknownInstanceTerminated { .. })
    ));
}

#[test]
fn a_scheduler_that_comes_back_finds_what_runs_and_starts_nothing_twice() {
    let mut world = running(3);
    let before = (world.instances("/p"), world.live());
    world.restart();
    world.connect();
    world.settle();
    assert_eq!(before, (world.instances("/p"), world.live()));
}

#[test]
fn a_new_framework_launches_again_what_went_with_the_old_one() {
    let mut world = running(2);
    let before = world.instances("/p");
    // The master killed all that was the old one's.
    world.tasks.clear();
    world.executors.clear();
    world.step(Event::Registered(v1::FrameworkId {
        value: "G".to_owned(),
    }));
    world.settle();
    assert_eq!(world.instances("/p"), before);
    assert_eq!(world.alive(), 2);
    assert!(world.live().iter().all(|task| task.ends_with(".2")));
    assert_eq!(world.store.framework.as_deref(), Some("G"));
}

#[test]
fn a_master_with_an_empty_registry_does_not_make_us_kill_what_runs() {
    let mut world = running(3);
    let before = (world.instances("/p"), world.live());
    world.master_is_empty();
    for _ in 0..10 {
        world.round();
        world.now += Duration::from_secs(20);
    }
    let state = world.state("/p").unwrap();
    assert!(
        state
            .instances
            .iter()
            .all(|instance| instance.status == InstanceState::Degraded),
        "out of reach, not ended"
    );
    world.away = false;
    world.settle();
    assert_eq!((world.instances("/p"), world.live()), before);
    assert_eq!(world.state("/p").unwrap().status, Overall::Stable);
    assert!(world.kills.is_empty() && world.shutdowns.is_empty());
}

#[test]
fn what_never_comes_back_to_an_empty_master_is_launched_again() {
    let mut world = running(2);
    let before = world.instances("/p");
    world.master_is_empty();
    // The agents are gone with all that was on them; others come.
    world.tasks.clear();
    world.executors.clear();
    world.round();
    world.now += settings().agents_return - Duration::from_secs(60);
    world.round();
    world.round();
    assert_eq!(world.alive(), 0, "there is still time to come back");
    // Offers come again, from others: the tasks stay unknown.
    world.now += Duration::from_secs(60);
    world.round();
    world.round();
    world.away = false;
    world.settle();
    assert_eq!(world.instances("/p"), before);
    assert_eq!(world.alive(), 2);
    assert!(world.live().iter().all(|task| task.ends_with(".2")));
}

#[test]
fn the_repeated_state_of_a_task_does_not_replace_its_words() {
    let mut world = running(1);
    let task = world.live()[0].clone();
    let says = |message: &str, reason: Option<v1::task_status::Reason>| {
        Event::Update(Box::new(v1::TaskStatus {
            message: Some(message.to_owned()),
            reason: reason.map(|reason| reason as i32),
            ..status(&task, TaskState::TaskRunning)
        }))
    };
    world.step(says("listening on 80", None));
    let reason = Some(v1::task_status::Reason::Reconciliation);
    world.step(says("Reconciliation: Latest task state", reason));
    let state = world.state("/p").unwrap();
    let words = state.instances[0].containers[0].message.as_deref();
    assert_eq!(words, Some("listening on 80"));
}

#[test]
fn unreachable_instances_are_replaced_after_their_time_and_taken_back_before() {
    let mut world = running(1);
    let pod = {
        let mut pod = definition(1, "x");
        pod.scheduling.unreachable_strategy = pod::model::UnreachableStrategy::Replace {
            inactive_after_seconds: 100,
            expunge_after_seconds: 200,
        };
        pod
    };
    world.command(Command::Update { pod, force: true }).unwrap();
    let first = world.instances("/p");
    let lose = |world: &mut World| {
        for id in world.live() {
            world.step(Event::Update(Box::new(status(&id, TaskState::TaskUnreachable))));
        }
    };
    lose(&mut world);
    assert_eq!(
        world.state("/p").unwrap().instances[0].status,
        InstanceState::Degraded
    );
    for id in world.live() {
        world.step(Event::Update(Box::new(status(&id, TaskState::TaskRunning))));
    }
    assert_eq!(world.state("/p").unwrap().status, Overall::Stable);
    lose(&mut world);
    world.now += Duration::from_secs(101);
    world.step(Event::Tick);
    assert_eq!(world.instances("/p").len(), 2);
    world.now += Duration::from_secs(100);
    world.step(Event::Tick);
    assert_eq!(world.instances("/p").len(), 1);
    assert_ne!(world.instances("/p"), first);
    // When they come back after all, they are strangers.
    let old = world
        .live()
        .into_iter()
        .find(|id| id.starts_with(&first[0]))
        .unwrap();
    world.step(Event::Update(Box::new(status(&old, TaskState::TaskRunning))));
    assert!(world.kills.contains(&old));
}

#[test]
fn nobody_waits_for_the_end_of_what_is_out_of_reach() {
    for wipe in [true, false] {
        let mut world = running(1);
        let first = world.instances("/p");
        for id in world.live() {
            world.step(Event::Update(Box::new(status(&id, TaskState::TaskUnreachable))));
        }
        let pod: PodId = "/p".parse().unwrap();
        if wipe {
            let instances = vec![first[0].parse().unwrap()];
            world.command(Command::Kill { pod, instances, wipe }).unwrap();
            assert!(!world.instances("/p").contains(&first[0]));
            assert_eq!(world.instances("/p").len(), 1, "another takes its place");
        } else {
            world.command(Command::Remove { id: pod, force: true }).unwrap();
            assert!(world.state("/p").is_none());
        }
    }
}

#[test]
fn an_instance_shows_and_is_judged_by_the_definition_it_runs() {
    let mut world = running(2);
    world.slots = 0;
    let mut checked = definition(2, "y");
    checked.containers.truncate(1);
    checked.containers[0].name = "renamed".to_owned();
    checked.containers[0].health_check = Some(
        serde_json::from_value(
            json!({"exec": {"command": {"shell": "true"}}, "gracePeriodSeconds": 1,
            "intervalSeconds": 2, "maxConsecutiveFailures": 3, "timeoutSeconds": 1, "delaySeconds": 1}),
        )
        .unwrap(),
    );
    world
        .command(Command::Update {
            pod: checked,
            force: true,
        })
        .unwrap();
    for restarted in [false, true] {
        if restarted {
            world.restart();
            world.connect();
        }
        let state = world.state("/p").unwrap();
        let names = |containers: &[status::ContainerStatus]| -> Vec<String> {
            containers
                .iter()
                .map(|container| container.name.clone())
                .collect()
        };
        let old: Vec<_> = state
            .instances
            .iter()
            .filter(|instance| instance.status == InstanceState::Stable)
            .collect();
        assert_eq!(old.len(), 2, "a check that came later does not make them unready");
        assert_eq!(names(&old[0].containers), ["a", "b"]);
        assert_eq!(old[0].resources.cpus, 0.9);
    }
    assert_eq!(world.alive(), 2, "the minimum stays until there is something new");
}
