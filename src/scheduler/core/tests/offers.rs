//! What becomes of offers, and which are of no use yet.

use std::time::Duration;

use super::{super::*, world::*};

#[test]
fn an_instance_does_not_meet_the_executor_of_its_last_run() {
    let mut world = running(1);
    let executor = world.executors.first().unwrap().clone();
    world.everything_ends();
    assert!(world.wants_offers);
    world.offer(9);
    assert_eq!(world.alive(), 0);
    let message = world.state("/p").unwrap().message.unwrap();
    assert!(message.contains("of the last run has not ended"), "{message}");
    assert!(world.shutdowns.is_empty(), "it is given time");

    // On another agent the same id is another executor.
    let elsewhere = offer(9);
    world.executors.clear();
    world.offer_exactly(elsewhere);
    assert_eq!(world.alive(), 1);
    assert!(world.executors.contains(&executor));
}

#[test]
fn the_end_of_the_old_executor_brings_new_offers_at_once() {
    let mut world = running(1);
    world.everything_ends();
    world.offer(9);
    world.now += Duration::from_secs(1);
    world.wants_offers = false;
    world.executors_end();
    assert!(world.wants_offers);
    world.round();
    assert!(world.live().iter().all(|task| task.ends_with(".2")));
    assert_eq!(world.alive(), 1);
}

#[test]
fn an_offer_that_nobody_needs_is_held_for_the_next_pod_and_then_given_back() {
    let mut world = World::new();
    world.connect();
    world.now += Duration::from_secs(10);
    world.offer(9);
    assert!(world.outstanding.is_some(), "held");
    world.wants_offers = false;
    world.command(Command::Create(definition(1, "x"))).unwrap();
    assert_eq!(world.alive(), 1, "no other offer was needed");

    world.offer(8);
    assert!(world.outstanding.is_some());
    world.now += settings().offer_linger;
    world.step(Event::Tick);
    assert!(world.outstanding.is_none() && !world.wants_offers);

    // What the master took back is not used.
    world.offer(8);
    let rescinded = world.outstanding.take().unwrap();
    world.step(Event::Rescinded(rescinded));
    world.command(update(2, "x")).unwrap();
    assert_eq!(world.alive(), 1);
    assert!(world.wants_offers);
}

#[test]
fn an_executor_that_does_not_end_is_told_to() {
    let mut world = running(1);
    let executor = world.executors.first().unwrap().clone();
    world.everything_ends();
    world.now += Duration::from_secs(100);
    world.offer(9);
    assert_eq!((world.alive(), &world.shutdowns), (0, &vec![executor]));
}
