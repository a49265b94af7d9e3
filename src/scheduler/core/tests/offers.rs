//! What becomes of offers, and which are of no use yet.

use std::{collections::BTreeMap, time::Duration};

use super::{
    super::{offers::UnusedOffer, *},
    world::*,
};
use crate::mesos::v1;

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

/// Offers of several agents, each with room for so many instances.
fn offers_of(agents: &[(&str, usize)]) -> Event {
    let of = |(agent, slots): &(&str, usize)| v1::Offer {
        id: v1::OfferId {
            value: format!("O-{agent}"),
        },
        agent_id: v1::AgentId {
            value: (*agent).to_owned(),
        },
        hostname: (*agent).to_owned(),
        ..offer(*slots)
    };
    Event::Offers(agents.iter().map(of).collect())
}

/// How many instances each agent has.
fn spread(world: &World) -> BTreeMap<String, usize> {
    let mut spread = BTreeMap::new();
    for instance in world.core.all_instances() {
        if let Some(placed) = &instance.placed {
            *spread.entry(placed.agent.clone()).or_insert(0) += 1;
        }
    }
    spread
}

#[test]
fn instances_are_spread_over_agents_and_then_go_where_there_is_room() {
    let placed = |agents: &[(&str, usize)], instances: usize| {
        let mut world = World::new();
        world.connect();
        world
            .command(Command::Create(definition(instances, "x")))
            .unwrap();
        let stamp = world.stamp();
        drop(world.core.step(stamp, offers_of(agents)));
        spread(&world)
    };
    let expected = |counts: &[(&str, usize)]| -> BTreeMap<String, usize> {
        counts
            .iter()
            .map(|(agent, count)| ((*agent).to_owned(), *count))
            .collect()
    };
    let even = [("A1", 9), ("A2", 9), ("A3", 9)];
    assert_eq!(placed(&even, 3), expected(&[("A1", 1), ("A2", 1), ("A3", 1)]));
    assert_eq!(placed(&even, 7), expected(&[("A1", 3), ("A2", 2), ("A3", 2)]));
    // The one with most room first.
    assert_eq!(placed(&[("A1", 2), ("A2", 9)], 1), expected(&[("A2", 1)]));
    // A full agent does not keep the others from being used.
    assert_eq!(
        placed(&[("A1", 1), ("A2", 9)], 5),
        expected(&[("A1", 1), ("A2", 4)])
    );
    assert_eq!(
        placed(&[("A1", 1), ("A2", 1)], 5),
        expected(&[("A1", 1), ("A2", 1)])
    );
}

#[test]
fn what_came_later_is_placed_beside_what_is_there() {
    let mut world = World::new();
    world.connect();
    world.command(Command::Create(definition(2, "x"))).unwrap();
    let stamp = world.stamp();
    drop(world.core.step(stamp, offers_of(&[("A1", 9)])));
    assert_eq!(spread(&world).values().sum::<usize>(), 2);
    world.command(update(4, "x")).unwrap();
    let stamp = world.stamp();
    drop(
        world
            .core
            .step(stamp, offers_of(&[("A1", 9), ("A2", 1), ("A3", 9)])),
    );
    let counts: Vec<usize> = spread(&world).into_values().collect();
    assert_eq!(counts, [2, 1, 1]);
}

#[test]
fn a_pod_of_a_shape_that_was_refused_is_told_what_was_left_for_it() {
    let mut world = World::new();
    world.connect();
    let named = |id: &str, instances: usize| {
        let mut pod = definition(instances, "x");
        pod.id = id.parse().unwrap();
        Command::Create(pod)
    };
    // The first takes all there is but what is refused to the others, who have the same shape.
    for id in ["/a", "/b", "/c"] {
        world.command(named(id, 2)).unwrap();
    }
    world.offer(3);
    let queue = world.core.queue(world.now);
    let told: Vec<(String, usize, u64, u64, Vec<String>)> = queue
        .iter()
        .map(|waiting| {
            let why = waiting.latest.iter().map(UnusedOffer::why).collect();
            let id = waiting.pod.id.to_string();
            (id, waiting.count, waiting.processed, waiting.unused, why)
        })
        .collect();
    let why = vec!["needs 0.9 cpus, 0.3 offered".to_owned()];
    assert_eq!(
        told,
        [
            ("/b".to_owned(), 1, 2, 1, why.clone()),
            ("/c".to_owned(), 2, 1, 1, why)
        ]
    );
}
