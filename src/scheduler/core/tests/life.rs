//! Pods come, change and go.

use super::{
    super::{
        status::{InstanceState, Overall},
        *,
    },
    world::*,
};
use crate::{
    mesos::v1::TaskState,
    pod::{InstanceId, PodId},
};

#[test]
fn a_pod_comes_up_and_its_deployment_ends() {
    let world = running(3);
    assert_eq!(world.core.deployments().count(), 0);
    assert!(
        world
            .notices
            .iter()
            .any(|notice| matches!(notice, Notice::DeploymentSuccess { .. }))
    );
    assert!(!world.wants_offers, "nothing waits: offers are suppressed");
}

#[test]
fn what_exists_is_not_created_twice_and_what_is_unknown_is_said_so() {
    let mut world = running(1);
    let id: PodId = "/p".parse().unwrap();
    assert_eq!(
        world.command(Command::Create(definition(1, "x"))).unwrap_err(),
        Refusal::Exists(id)
    );
    let other: PodId = "/q".parse().unwrap();
    let refused = world
        .command(Command::Remove {
            id: other.clone(),
            force: false,
        })
        .unwrap_err();
    assert_eq!(refused, Refusal::Unknown(other));
}

#[test]
fn a_running_deployment_locks_the_pod_unless_forced() {
    let mut world = World::new();
    world.connect();
    let first = world
        .command(Command::Create(definition(1, "x")))
        .unwrap()
        .deployment;
    let second = Command::Update {
        pod: definition(2, "x"),
        force: false,
    };
    assert_eq!(
        world.command(second).unwrap_err(),
        Refusal::Locked { deployment: first }
    );
    world.command(update(2, "x")).unwrap();
    world.settle();
    assert_eq!(world.alive(), 2);
}

#[test]
fn scaling_keeps_the_instances_that_stay() {
    let mut world = running(1);
    let first = world.instances("/p");
    world.command(update(3, "x")).unwrap();
    world.settle();
    let three = world.instances("/p");
    assert!(three.len() == 3 && first.iter().all(|id| three.contains(id)));
    world.command(update(1, "x")).unwrap();
    world.settle();
    let one = world.instances("/p");
    assert!(one.len() == 1 && three.contains(&one[0]));
    assert_eq!(one, first, "the youngest go first");
    assert_eq!(world.store.versions.len(), 3);
}

#[test]
fn an_update_to_the_same_definition_changes_nothing() {
    let mut world = running(2);
    let before = (world.store.versions.len(), world.instances("/p"));
    world.command(update(2, "x")).unwrap();
    world.settle();
    assert_eq!(before, (world.store.versions.len(), world.instances("/p")));
    assert_eq!(world.core.deployments().count(), 0);
}

#[test]
fn a_new_command_replaces_every_instance() {
    let mut world = running(2);
    let before = world.instances("/p");
    world.command(update(2, "y")).unwrap();
    world.settle();
    let after = world.instances("/p");
    assert!(after.len() == 2 && after.iter().all(|id| !before.contains(id)));
    assert_eq!(world.alive(), 2);
    assert_eq!(world.state("/p").unwrap().status, Overall::Stable);
}

#[test]
fn a_failed_task_takes_the_instance_with_it_and_the_same_instance_comes_back() {
    let mut world = running(1);
    let before = world.instances("/p");
    let tasks = world.live();
    world.becomes(&tasks[0], TaskState::TaskFailed);
    world.round();
    assert_eq!(world.alive(), 0, "backing off");
    assert_eq!(world.state("/p").unwrap().termination_history.len(), 1);
    world.settle();
    assert_eq!(world.instances("/p"), before);
    assert!(
        world.live().iter().all(|id| id.ends_with(".2")),
        "{:?}",
        world.live()
    );
}

#[test]
fn one_finished_task_does_not_end_an_instance_and_all_finished_do() {
    let mut world = running(1);
    let tasks = world.live();
    world.becomes(&tasks[0], TaskState::TaskFinished);
    world.round();
    assert_eq!(
        world.state("/p").unwrap().instances[0].status,
        InstanceState::Stable
    );
    world.becomes(&tasks[1], TaskState::TaskFinished);
    world.settle();
    assert!(world.live().iter().all(|id| id.ends_with(".2")));
}

#[test]
fn a_killed_instance_comes_back_at_once_and_a_wiped_one_is_replaced() {
    for wipe in [false, true] {
        let mut world = running(2);
        let before = world.instances("/p");
        let victim: InstanceId = before[0].parse().unwrap();
        let command = Command::Kill {
            pod: "/p".parse().unwrap(),
            instances: vec![victim],
            wipe,
        };
        assert_eq!(world.command(command).unwrap().instances.len(), 1);
        world.settle();
        let after = world.instances("/p");
        assert_eq!((after.len(), after.contains(&before[0])), (2, !wipe));
        assert_eq!(world.alive(), 2);
    }
}

#[test]
fn a_removed_pod_goes_when_its_last_instance_has() {
    let mut world = running(2);
    world
        .command(Command::Remove {
            id: "/p".parse().unwrap(),
            force: false,
        })
        .unwrap();
    assert_eq!(world.state("/p").unwrap().status, Overall::Terminal);
    world.settle();
    assert!(world.state("/p").is_none());
    assert_eq!(world.alive(), 0);
    assert!(world.store.pods.is_empty() && world.store.instances.is_empty());
    assert_eq!(world.store.versions.len(), 1, "the history outlives the pod");
}

#[test]
fn what_cannot_be_placed_waits_and_says_why() {
    let mut world = World::new();
    world.slots = 1;
    world.connect();
    world.command(Command::Create(definition(3, "x"))).unwrap();
    world.settle();
    assert_eq!(world.alive(), 1);
    world.offer_exactly(offer(0));
    let state = world.state("/p").unwrap();
    assert_eq!(state.status, Overall::Degraded);
    let message = state.message.unwrap();
    assert!(message.contains("cpus wanted in pieces, 0 offered"), "{message}");
    let queue = world.core.queue(world.now);
    assert_eq!(queue[0].count, 2);
    assert_eq!(
        queue[0].reasons.keys().next(),
        Some(&matching::Reason::InsufficientCpus)
    );
}
