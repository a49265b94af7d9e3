//! Updates, kills and reconciliation.

use super::world::*;

#[test]
fn r3_updates_go_one_by_one_and_again_until_they_are_acknowledged() {
    let (mut world, id) = World::with_task();
    for (number, state) in [
        TaskState::TaskStarting,
        TaskState::TaskRunning,
        TaskState::TaskFinished,
    ]
    .into_iter()
    .enumerate()
    {
        world.tells(&id, "t", state, number as u8);
    }
    let first = [("t", TaskState::TaskStarting)];
    assert_eq!(states(&world.updates()), first);
    world.wait(9.9);
    assert_eq!(world.updates(), []);
    world.wait(0.2);
    assert_eq!(states(&world.updates()), first);
    world.wait(19.0);
    assert_eq!(world.updates(), [], "the pause doubles");
    world.wait(1.1);
    assert_eq!(states(&world.updates()), first);
    world.acknowledge(&id, "t", 9);
    assert_eq!(world.updates(), [], "that was another's uuid");
    world.acknowledge(&id, "t", 0);
    assert_eq!(states(&world.updates()), [("t", TaskState::TaskRunning)]);

    // A scheduler that comes back hears it again.
    let id = world.subscribe_as(Some(&id), &[], 1000.0);
    assert_eq!(states(&world.updates()), [("t", TaskState::TaskRunning)]);
    world.acknowledge(&id, "t", 1);
    assert_eq!(states(&world.updates()), [("t", TaskState::TaskFinished)]);
    assert_eq!(
        states(&world.reconcile(&id, &[])),
        [("t", TaskState::TaskFinished)]
    );
    world.acknowledge(&id, "t", 2);
    world.wait(10_000.0);
    assert_eq!(world.updates(), []);
    assert_eq!(
        world.reconcile(&id, &[]),
        [],
        "what was heard to its end is forgotten"
    );
}

#[test]
fn reconciliation_tells_what_is_known_and_what_is_not() {
    let (mut world, id) = World::with_task();
    world.tells(&id, "t", TaskState::TaskRunning, 1);
    world.updates();
    let implicit = world.reconcile(&id, &[]);
    assert_eq!(states(&implicit), [("t", TaskState::TaskRunning)]);
    assert_eq!(implicit[0].reason(), Reason::Reconciliation);
    assert!(implicit[0].uuid.is_none());
    let explicit = world.reconcile(&id, &[("t", None), ("u", Some(0)), ("v", None), ("w", Some(7))]);
    assert_eq!(
        states(&explicit),
        [
            ("t", TaskState::TaskRunning),
            ("u", TaskState::TaskGone),
            ("v", TaskState::TaskUnknown),
            ("w", TaskState::TaskUnknown)
        ]
    );
    let id = world.subscribe_as(Some(&id), &[], 0.0);
    world.updates();
    let plain = world.reconcile(&id, &[("u", Some(0))]);
    assert_eq!(
        states(&plain),
        [("u", TaskState::TaskLost)],
        "one that knows no partitions"
    );
}

#[test]
fn a_kill_goes_to_the_agent_or_is_answered() {
    let (mut world, id) = World::with_task();
    let kill = |task: &str| Call {
        kill: Some(call::Kill {
            task_id: TaskId { value: task.into() },
            agent_id: None,
            kill_policy: None,
        }),
        ..blank_call(Type::Kill)
    };
    world.down.clear();
    world.call(&id, kill("t"));
    assert!(matches!(&world.down[..], [Down::Kill { task, executor, .. }] if task == "t" && executor == "e"));
    world.call(&id, kill("never"));
    assert_eq!(states(&world.updates()), [("never", TaskState::TaskUnknown)]);
}

#[test]
fn the_end_of_an_executor_is_told_and_gives_back_what_was_its() {
    let (mut world, id) = World::with_task();
    world.tells(&id, "t", TaskState::TaskFailed, 1);
    world.wait(6.0);
    let offer = world.offer();
    assert_eq!(offer.executor_ids.len(), 1, "its tasks have ended, it has not");
    world.decline(&id, &[offer.id], refusing(1000.0));
    world.step(|core, out| core.ended(0, &id, "e", 7, out));
    let failure = world
        .events
        .iter()
        .find_map(|(_, event)| event.failure.as_ref())
        .unwrap();
    assert_eq!(
        (
            failure.executor_id.as_ref().unwrap().value.as_str(),
            failure.status
        ),
        ("e", Some(7))
    );
    let offer = world.offer();
    assert!(offer.executor_ids.is_empty() && has(&offer) == total().to_string());
}

#[test]
fn a_master_without_a_registry_knows_nothing_of_agents_that_have_not_come_back() {
    let (mut world, id) = World::with_task();
    world.tells(&id, "t", TaskState::TaskRunning, 1);
    world.updates();
    world.step(|core, out| core.fail_over(out));
    assert!(
        !world.core.is_subscribed(&id),
        "everybody has to find the new master"
    );
    let id = world.subscribe_as(Some(&id), &[capability::Type::PartitionAware], 1000.0);
    assert_eq!(world.updates(), [], "what the agent has to say is not heard");
    assert_eq!(
        states(&world.reconcile(&id, &[("t", Some(0))])),
        [("t", TaskState::TaskUnknown)]
    );
    assert_eq!(world.reconcile(&id, &[]), []);
    world.tells(&id, "t", TaskState::TaskFinished, 2);
    assert_eq!(world.updates(), []);

    world.step(|core, out| core.agents_return(out));
    assert_eq!(states(&world.updates()), [("t", TaskState::TaskRunning)]);
    assert_eq!(
        states(&world.reconcile(&id, &[("t", Some(0))])),
        [("t", TaskState::TaskFinished)]
    );
}
