//! Who is offered what, and which offers are worth nothing.

use super::world::*;

#[test]
fn every_agent_is_offered_whole_and_all_in_one_event() {
    let mut world = World::new(3);
    let id = world.subscribe();
    let events: Vec<_> = world
        .events
        .iter()
        .filter(|(_, event)| event.offers.is_some())
        .collect();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].0, id);
    let offers = world.offers();
    let hosts: Vec<&str> = offers.iter().map(|offer| offer.hostname.as_str()).collect();
    assert_eq!(hosts, ["host0", "host1", "host2"]);
    assert!(offers.iter().all(|offer| has(offer) == total().to_string()));
    let role = |resource: &Resource| resource.allocation_info.as_ref().unwrap().role.clone();
    assert!(
        offers[0]
            .resources
            .iter()
            .all(|resource| role(resource).as_deref() == Some("*"))
    );
}

#[test]
fn what_a_launch_leaves_is_offered_again_and_names_the_executor() {
    let mut world = World::new(1);
    let id = world.subscribe();
    let offer = world.offer();
    assert!(offer.executor_ids.is_empty());
    let tasks = vec![task("a", 0, "cpus:1;ports:[3-4]"), task("b", 0, "mem:100")];
    let launch = group(executor("e", EXECUTOR), tasks);
    world.accept(&id, &[offer.id], vec![launch], refusing(0.0));
    let offer = world.offer();
    assert_eq!(has(&offer), "cpus:2.9;disk:990;mem:892;ports:[1-2,5-10]");
    assert_eq!(offer.executor_ids, [ExecutorId { value: "e".into() }]);

    // A second group under the same executor pays for its tasks alone.
    let more = group(executor("e", EXECUTOR), vec![task("c", 0, "cpus:1")]);
    world.accept(&id, &[offer.id], vec![more], refusing(0.0));
    assert_eq!(has(&world.offer()), "cpus:1.9;disk:990;mem:892;ports:[1-2,5-10]");
}

#[test]
fn what_is_declined_comes_back_when_its_time_is_over_or_when_there_is_more() {
    let (mut world, id) = World::with_task();
    world.wait(6.0);
    let offer = world.offer();
    world.decline(&id, &[offer.id], None);
    assert_eq!(world.offers(), []);
    world.wait(4.9);
    assert_eq!(world.offers(), [], "five seconds when nothing is said");
    world.wait(0.2);
    let offer = world.offer();
    let less = has(&offer);
    world.decline(&id, &[offer.id], refusing(100.0));
    world.tells(&id, "t", TaskState::TaskFinished, 1);
    let offer = world.offer();
    assert_ne!(has(&offer), less, "the task's resources are news");
    world.decline(&id, &[offer.id], refusing(0.0));
    let offer = world.offer();
    world.decline(&id, &[offer.id], refusing(1e300));
    world.wait(1e6);
    assert_eq!(world.offers(), []);
    world.call(&id, blank_call(Type::Revive));
    assert_eq!(world.offers().len(), 1);
}

#[test]
fn nothing_is_offered_while_suppressed() {
    let mut world = World::new(2);
    let id = world.subscribe();
    let offers: Vec<OfferId> = world.offers().into_iter().map(|offer| offer.id).collect();
    world.call(&id, blank_call(Type::Suppress));
    world.decline(&id, &offers, refusing(0.0));
    world.wait(100.0);
    assert_eq!(world.offers(), []);
    world.call(&id, blank_call(Type::Revive));
    assert_eq!(world.offers().len(), 2);
}

#[test]
fn two_frameworks_share_the_agents() {
    let mut world = World::new(4);
    let first = world.subscribe();
    let all: Vec<OfferId> = world.offers().into_iter().map(|offer| offer.id).collect();
    let second = world.subscribe();
    assert_eq!(world.offers(), [], "everything is offered to the first");
    world.decline(&first, &all, refusing(0.0));
    let of = |framework: &str, offers: &[v1::Offer]| {
        offers
            .iter()
            .filter(|offer| offer.framework_id.value == framework)
            .count()
    };
    let offers = world.offers();
    assert_eq!((of(&first, &offers), of(&second, &offers)), (2, 2));
}

#[test]
fn offers_of_others_and_of_the_past_are_worth_nothing() {
    for (capabilities, state) in [
        (&[capability::Type::PartitionAware][..], TaskState::TaskDropped),
        (&[], TaskState::TaskLost),
    ] {
        let mut world = World::new(2);
        let id = world.subscribe_as(None, capabilities, 0.0);
        let offers = world.offers();
        let ids = |indices: &[usize]| -> Vec<OfferId> {
            indices.iter().map(|index| offers[*index].id.clone()).collect()
        };
        let never = OfferId {
            value: "never".into(),
        };
        let launch = || {
            vec![group(
                executor("e", EXECUTOR),
                vec![task("a", 0, "cpus:1"), task("b", 0, "cpus:1")],
            )]
        };
        for (named, why) in [
            (vec![never], "Offer never is no longer valid"),
            (ids(&[0, 1]), "one single agent"),
            (vec![], "No offers specified"),
        ] {
            world.accept(&id, &named, launch(), refusing(0.0));
            let updates = world.updates();
            assert_eq!(states(&updates), [("a", state), ("b", state)]);
            assert!(
                updates.iter().all(|status| status.message().contains(why)),
                "{updates:?}"
            );
            assert_eq!(updates[0].reason(), Reason::InvalidOffers);
            assert!(updates[0].uuid.is_none(), "there is nothing to acknowledge");
        }
        // What was named in vain is over, and offered anew.
        assert_eq!(world.offers().len(), 2);
        let twice = vec![singles(vec![task("c", 0, "cpus:1")])];
        world.accept(&id, &ids(&[0]), twice, None);
        assert_eq!(states(&world.updates()), [("c", state)]);
        assert!(world.down.is_empty());
    }
}

#[test]
fn one_offer_is_not_named_twice() {
    let mut world = World::new(1);
    let id = world.subscribe();
    let offer = world.offer().id;
    let launch = group(executor("e", EXECUTOR), vec![task("a", 0, "cpus:8")]);
    world.accept(&id, &[offer.clone(), offer], vec![launch], None);
    assert_eq!(states(&world.updates()), [("a", TaskState::TaskDropped)]);
}
