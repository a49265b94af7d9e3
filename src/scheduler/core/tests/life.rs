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
    assert!(message.contains("needs 0.9 cpus, 0 offered"), "{message}");
    let queue = world.core.queue(world.now);
    let offered: Vec<&str> = queue[0].latest[0]
        .resources
        .iter()
        .map(|offered| offered.name.as_str())
        .collect();
    assert_eq!(
        offered,
        ["cpus", "mem", "disk"],
        "what the offer had is told with it"
    );
    assert_eq!(queue[0].count, 2);
    assert_eq!(
        queue[0].reasons.keys().next(),
        Some(&matching::Reason::InsufficientCpus)
    );
}

/// A pod of two whose second version fails as soon as it starts.
fn stuck_roll() -> World {
    let mut world = running(2);
    world.command(update(2, "bad")).unwrap();
    // New instances are launched beside the old ones, and fail before they run.
    for _ in 0..3 {
        world.executors_end();
        world.offer(50);
        let (old, new): (Vec<_>, Vec<_>) = world
            .live()
            .into_iter()
            .partition(|id| world.is_of_first_version(id));
        assert_eq!((old.len(), new.len()), (4, 4), "the minimum stays");
        for id in new {
            world.fails(&id, "no such image");
        }
        world.now += std::time::Duration::from_secs(5);
        world.step(Event::Tick);
    }
    world
}

#[test]
fn a_roll_that_is_stuck_says_how_far_it_came_and_why() {
    let world = stuck_roll();
    let state = world.state("/p").unwrap();
    assert_eq!(state.status, Overall::Stable, "as Marathon has it: enough serve");
    assert_eq!(
        state.message.as_deref(),
        Some("rolling 0/2, stuck: no such image")
    );
    let rollout = state.rollout.unwrap();
    assert_eq!((rollout.done, rollout.wanted), (0, 2));
}

#[test]
fn a_stuck_deployment_does_not_lock_out_its_repair() {
    let repair = || Command::Update {
        pod: definition(2, "y"),
        force: false,
    };
    let mut world = stuck_roll();
    world.command(repair()).unwrap();
    world.settle();
    assert_eq!(
        (world.state("/p").unwrap().status, world.alive()),
        (Overall::Stable, 2)
    );
    assert!(world.state("/p").unwrap().rollout.is_none());

    let mut world = stuck_roll();
    let id: PodId = "/p".parse().unwrap();
    world.command(Command::Remove { id, force: false }).unwrap();

    // One that goes on as it should is locked.
    let mut world = running(2);
    world.command(update(2, "y")).unwrap();
    assert!(matches!(
        world.command(repair()),
        Ok(_) | Err(Refusal::Locked { .. })
    ));
    let other = Command::Update {
        pod: definition(3, "z"),
        force: false,
    };
    assert!(matches!(world.command(other), Err(Refusal::Locked { .. })));

    // What fits on no offer waits for ever, and may be made smaller.
    let mut world = World::new();
    world.connect();
    world.slots = 0;
    world.command(Command::Create(definition(2, "x"))).unwrap();
    world.offer_exactly(offer(0));
    world.command(repair()).unwrap();
}

#[test]
fn a_pod_is_no_group_of_another() {
    let named = |id: &str| {
        let mut pod = definition(1, "x");
        pod.id = id.parse().unwrap();
        Command::Create(pod)
    };
    let mut world = World::new();
    world.connect();
    world.command(named("/g/a")).unwrap();
    world.command(named("/h")).unwrap();
    for (id, other) in [("/g", "/g/a"), ("/g/a/b", "/g/a"), ("/h/x/y", "/h")] {
        let (id, other): (PodId, PodId) = (id.parse().unwrap(), other.parse().unwrap());
        let refused = world.command(named(id.as_str())).unwrap_err();
        assert_eq!(refused, Refusal::Group { id, other });
    }
    for fine in ["/g/b", "/g-a", "/ga", "/hh"] {
        world.command(named(fine)).unwrap();
    }
}

#[test]
fn a_delay_that_is_lifted_lets_the_pod_launch_at_once() {
    let mut world = running(1);
    let task = world.live()[0].clone();
    world.becomes(&task, TaskState::TaskFailed);
    world.round();
    assert_eq!(world.alive(), 0);
    assert!(world.core.queue(world.now)[0].delayed.is_some());
    world.command(Command::ResetDelay("/p".parse().unwrap())).unwrap();
    world.executors_end();
    world.round();
    assert_eq!(world.alive(), 1);
    let id: PodId = "/p".parse().unwrap();
    world.settle();
    let nothing = world.command(Command::ResetDelay(id.clone())).unwrap_err();
    assert_eq!(nothing, Refusal::NotQueued(id));
}

#[test]
fn a_node_that_goes_down_delays_its_pod_once() {
    let mut world = running(50);
    for task in world.live() {
        world.becomes(&task, TaskState::TaskGone);
    }
    for update in std::mem::take(&mut world.updates) {
        world.step(Event::Update(Box::new(update)));
    }
    world.executors.clear();
    let delayed = world.core.queue(world.now)[0].delayed.unwrap();
    assert!(delayed <= std::time::Duration::from_secs(2), "{delayed:?}");
}
