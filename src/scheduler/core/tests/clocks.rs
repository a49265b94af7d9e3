//! Times: what no clock on the wall may decide, and what a restart may not forget.

use std::time::Duration;

use super::{super::*, world::*};
use crate::{
    mesos::v1::TaskState,
    pod::{InstanceId, model::UnreachableStrategy},
};

#[test]
fn a_clock_that_is_set_back_makes_no_executor_overdue() {
    let mut world = running(1);
    world.everything_ends();
    world.set_back = 75_000;
    world.offer(9);
    assert_eq!(
        (world.alive(), world.shutdowns.len()),
        (0, 0),
        "it has just ended"
    );
    world.now += settings().executor_patience;
    world.offer(9);
    assert_eq!(world.shutdowns.len(), 1);
}

#[test]
fn a_clock_that_is_set_back_makes_no_version_older_than_an_earlier_one() {
    let mut world = running(1);
    let first = world.versions();
    world.set_back = 3_600_000;
    world.command(update(1, "y")).unwrap();
    world
        .command(Command::Remove {
            id: "/p".parse().unwrap(),
            force: true,
        })
        .unwrap();
    world.settle();
    world.restart();
    world.connect();
    world.command(Command::Create(definition(1, "z"))).unwrap();
    let versions = world.versions();
    assert!(
        versions.len() == first.len() + 2 && versions.is_sorted(),
        "{versions:?}"
    );
}

#[test]
fn which_instance_is_the_youngest_is_no_question_of_clocks() {
    let mut world = running(1);
    let first = world.instances("/p");
    world.set_back = 3_600_000;
    world.command(update(3, "x")).unwrap();
    world.settle();
    // Neither now nor for the next scheduler.
    world.restart();
    world.connect();
    world.command(update(1, "x")).unwrap();
    world.settle();
    assert_eq!(world.instances("/p"), first, "the youngest go first");
}

fn fails(world: &mut World) {
    let task = world.live().remove(0);
    world.becomes(&task, TaskState::TaskFailed);
    for update in std::mem::take(&mut world.updates) {
        world.step(Event::Update(Box::new(update)));
    }
    world.executors.clear();
}

#[test]
fn a_restarted_scheduler_remembers_what_failed_and_does_not_begin_with_it_at_once() {
    let mut world = running(1);
    let delay = |world: &World| world.core.queue(world.now)[0].delayed.unwrap();
    for _ in 0..4 {
        fails(&mut world);
        world.now += delay(&world);
        world.step(Event::Tick);
        world.offer(9);
        assert_eq!(world.alive(), 1);
    }
    fails(&mut world);
    let before = delay(&world);
    assert!(before > Duration::from_secs(1), "{before:?}");
    world.restart();
    world.connect();
    assert_eq!(world.state("/p").unwrap().termination_history.len(), 1);
    world.offer(9);
    assert_eq!(world.alive(), 0, "it waits, and from the start");
    assert!(delay(&world) > before - Duration::from_millis(100));
    world.settle();
    assert_eq!(world.alive(), 1);
    // What is over long since is forgotten for good.
    world.now += Duration::from_secs(600);
    world.command(update(2, "x")).unwrap();
    world.restart();
    world.connect();
    world.offer(9);
    assert_eq!(world.alive(), 2);
}

#[test]
fn what_was_out_of_reach_when_the_scheduler_ended_is_replaced_by_the_next() {
    let mut world = World::new();
    world.connect();
    let mut pod = definition(1, "x");
    pod.scheduling.unreachable_strategy = UnreachableStrategy::Replace {
        inactive_after_seconds: 100,
        expunge_after_seconds: 200,
    };
    world.command(Command::Create(pod)).unwrap();
    world.settle();
    for id in world.live() {
        world.tasks.insert(id.clone(), TaskState::TaskUnreachable);
        world.step(Event::Update(Box::new(status(&id, TaskState::TaskUnreachable))));
    }
    let lost: InstanceId = world.instances("/p")[0].parse().unwrap();
    world.restart();
    world.connect();
    world.settle();
    assert!(world.core.instance(&lost).is_none(), "given up");
    assert_eq!(world.instances("/p").len(), 1, "and replaced");
}

#[test]
fn thousands_of_instances_are_made_in_pieces() {
    let mut world = World::new();
    world.command(Command::Create(definition(1000, "x"))).unwrap();
    let first = world.instances("/p").len();
    assert!(first < 300, "{first} in one step");
    let mut steps = 0;
    while world.core.deadline().is_some_and(|due| due <= world.now) {
        let before = world.instances("/p").len();
        world.step(Event::Tick);
        assert!(world.instances("/p").len() - before < 300);
        steps += 1;
        assert!(steps < 10, "there is an end");
    }
    assert_eq!(world.instances("/p").len(), 1000);
    assert_eq!(world.store.instances.len(), 1000);
    // A scheduler that ended in between goes on.
    world.command(update(3000, "x")).unwrap();
    world.restart();
    world.connect();
    while world.core.deadline().is_some_and(|due| due <= world.now) {
        world.step(Event::Tick);
    }
    assert_eq!(world.instances("/p").len(), 3000);
}
