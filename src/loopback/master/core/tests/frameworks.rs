//! Schedulers that come, fail over, stay away and end.

use super::world::*;

#[test]
fn a_second_scheduler_takes_over_and_the_first_is_told() {
    let (mut world, id) = World::with_task();
    world.call(&id, blank_call(Type::Revive));
    let old = world.offer();
    world.events.clear();
    let same = world.subscribe_as(Some(&id), &[capability::Type::PartitionAware], 1000.0);
    assert_eq!(same, id);
    assert_eq!(
        world.events[0].1.error.as_ref().unwrap().message,
        "Framework failed over"
    );
    assert_eq!(world.closed, std::slice::from_ref(&id));
    assert!(world.events[1].1.subscribed.is_some());
    assert!(!world.core.is_stream(&id, "stream1") && world.core.is_stream(&id, "stream2"));
    // The end of the old stream changes nothing now.
    world.step(|core, out| core.disconnected(&id, "stream1", out));
    assert!(world.core.is_subscribed(&id));
    let new = world.offer();
    assert_ne!(new.id, old.id);
    world.accept(&id, &[old.id], vec![singles(vec![task("a", 0, "cpus:1")])], None);
    assert_eq!(states(&world.updates()), [("a", TaskState::TaskDropped)]);
    assert_eq!(
        states(&world.reconcile(&id, &[])),
        [("t", TaskState::TaskStaging)]
    );
}

#[test]
fn a_framework_that_stays_away_loses_everything_and_may_not_come_back() {
    let (mut world, id) = World::with_task();
    world.down.clear();
    world.step(|core, out| core.disconnected(&id, "stream1", out));
    world.wait(999.0);
    assert!(world.core.is_known(&id) && world.down.is_empty());
    world.tells(&id, "t", TaskState::TaskRunning, 1);
    assert_eq!(world.updates(), [], "nobody listens");
    world.wait(2.0);
    assert!(!world.core.is_known(&id));
    assert!(matches!(&world.down[..], [Down::Shutdown { executor, .. }] if executor == "e"));
    world.events.clear();
    world.subscribe_as(Some(&id), &[], 1000.0);
    assert_eq!(
        world.events[0].1.error.as_ref().unwrap().message,
        "Framework has been removed"
    );
    assert_eq!(world.closed.last(), Some(&id));
}

#[test]
fn teardown_ends_it_at_once() {
    let (mut world, id) = World::with_task();
    world.down.clear();
    world.call(&id, blank_call(Type::Teardown));
    assert!(matches!(world.down[..], [Down::Shutdown { .. }]));
    assert_eq!(world.closed, std::slice::from_ref(&id));
    assert!(!world.core.is_known(&id));
    // What its executor still says is nobody's any more.
    world.tells(&id, "t", TaskState::TaskKilled, 1);
    world.step(|core, out| core.ended(0, &id, "e", 0, out));
}

#[test]
fn without_a_failover_timeout_the_end_of_the_stream_is_the_end() {
    let mut world = World::new(1);
    let id = world.subscribe_as(None, &[], 0.0);
    world.step(|core, out| core.disconnected(&id, "stream1", out));
    assert!(!world.core.is_known(&id));
}

#[test]
fn a_call_without_its_body_or_with_a_bad_uuid_is_refused() {
    let mut world = World::new(1);
    let id = world.subscribe();
    for kind in [
        Type::Accept,
        Type::Decline,
        Type::Kill,
        Type::Acknowledge,
        Type::Reconcile,
        Type::Shutdown,
        Type::Message,
        Type::Subscribe,
    ] {
        let refusal = world
            .step(|core, out| core.call(&id, &blank_call(kind), out))
            .unwrap_err();
        assert_eq!(refusal.status, 400, "{kind:?}");
    }
    let acknowledge = Some(call::Acknowledge {
        uuid: vec![1; 15],
        ..Default::default()
    });
    let call = Call {
        acknowledge,
        ..blank_call(Type::Acknowledge)
    };
    let refusal = world.step(|core, out| core.call(&id, &call, out)).unwrap_err();
    assert!(refusal.reason.contains("UUID"), "{}", refusal.reason);
    let unknown = blank_call(Type::AcceptInverseOffers);
    assert_eq!(
        world
            .step(|core, out| core.call(&id, &unknown, out))
            .unwrap_err()
            .status,
        501
    );
}
