//! What may be launched, and what a master says to the rest.

use super::world::*;

#[test]
fn a_group_that_asks_for_more_than_was_offered_ends_whole() {
    let mut world = World::new(1);
    let id = world.subscribe();
    for (first, second) in [
        ("cpus:3", "cpus:1"),
        ("mem:993", "cpus:1"),
        ("ports:[10-11]", "cpus:1"),
        ("ports:[1-2]", "ports:[11-11]"),
        ("gold:1", "cpus:1"),
    ] {
        let offer = world.offer();
        let tasks = vec![task("a", 0, first), task("b", 0, second)];
        world.accept(
            &id,
            &[offer.id],
            vec![group(executor("e", EXECUTOR), tasks)],
            refusing(0.0),
        );
        let updates = world.updates();
        assert_eq!(
            states(&updates),
            [("a", TaskState::TaskError), ("b", TaskState::TaskError)]
        );
        assert_eq!(updates[0].reason(), Reason::TaskGroupInvalid);
        assert!(
            updates[0].message().contains("more than available"),
            "{updates:?}"
        );
        assert!(world.down.is_empty());
    }
    assert_eq!(world.offers().len(), 1);
}

#[test]
fn what_was_freed_since_is_not_part_of_an_offer() {
    let (mut world, id) = World::with_task();
    world.call(&id, blank_call(Type::Revive));
    let before = world.offer();
    world.tells(&id, "t", TaskState::TaskFinished, 1);
    let greedy = group(executor("f", EXECUTOR), vec![task("a", 0, "cpus:3.5")]);
    world.accept(&id, &[before.id], vec![greedy], None);
    assert_eq!(
        states(&world.updates()).last(),
        Some(&("a", TaskState::TaskError))
    );
}

#[test]
fn each_demand_of_a_master_is_made() {
    type Spoil = fn(&mut ExecutorInfo, &mut Vec<TaskInfo>);
    let spoils: [(&str, Spoil); 17] = [
        ("'ExecutorInfo.type' must be set", |e, _| e.r#type = None),
        ("must not be set for 'DEFAULT'", |e, _| {
            e.command = Some(CommandInfo::default())
        }),
        ("must be set for 'CUSTOM'", |e, _| {
            e.r#type = Some(executor_info::Type::Custom as i32)
        }),
        ("invalid framework id", |e, _| {
            e.framework_id = Some(v1::FrameworkId {
                value: "other".into(),
            })
        }),
        ("less cpus than", |e, _| {
            e.resources = resources("cpus:0.001;mem:32;disk:1")
        }),
        ("less mem than", |e, _| {
            e.resources = resources("cpus:1;mem:31;disk:1")
        }),
        ("less disk than", |e, _| e.resources = resources("cpus:1;mem:32")),
        ("cannot have", |e, _| {
            e.resources[0].scalar = Some(v1::value::Scalar { value: f64::INFINITY })
        }),
        ("cannot have", |_, t| {
            t[0].resources[0].scalar = Some(v1::value::Scalar { value: f64::NAN })
        }),
        ("task_id", |_, t| t[0].task_id.value = "../up".into()),
        ("executor_id", |e, _| e.executor_id.value = "..".into()),
        ("used twice", |_, t| t[1].task_id.value = "a".into()),
        ("uses invalid agent", |_, t| t[1].agent_id.value = "S1".into()),
        ("uses no resources", |_, t| t[1].resources.clear()),
        ("no tasks", |_, t| t.clear()),
        ("another ExecutorInfo", |_, t| {
            t[0].executor = Some(ExecutorInfo {
                name: Some("x".into()),
                ..executor("e", EXECUTOR)
            })
        }),
        ("multiple roles", |_, t| {
            let role = |role: &str| {
                Some(v1::resource::AllocationInfo {
                    role: Some(role.into()),
                })
            };
            t[0].resources = resources("cpus:1;mem:1");
            t[0].resources[0].allocation_info = role("a");
            t[0].resources[1].allocation_info = role("b");
        }),
    ];
    let mut world = World::new(1);
    let id = world.subscribe();
    for (words, spoil) in spoils {
        let offer = world.offer();
        let (mut executor, mut tasks) = (
            executor("e", EXECUTOR),
            vec![task("a", 0, "cpus:1"), task("b", 0, "cpus:1")],
        );
        spoil(&mut executor, &mut tasks);
        let count = tasks.len();
        world.accept(&id, &[offer.id], vec![group(executor, tasks)], refusing(0.0));
        let updates = world.updates();
        assert_eq!(updates.len(), count, "{words}");
        for status in updates {
            assert_eq!(
                (status.state(), status.reason()),
                (TaskState::TaskError, Reason::TaskGroupInvalid)
            );
            assert!(status.message().contains(words), "{words}: {}", status.message());
        }
        assert!(world.down.is_empty(), "{words}");
    }
}

#[test]
fn a_live_executor_is_joined_only_under_its_own_description() {
    let (mut world, id) = World::with_task();
    world.call(&id, blank_call(Type::Revive));
    let offer = world.offer();
    let other = group(
        executor("e", "cpus:0.2;mem:32;disk:10"),
        vec![task("a", 0, "cpus:1")],
    );
    let twice = group(executor("f", EXECUTOR), vec![task("t", 0, "cpus:1")]);
    world.accept(&id, &[offer.id], vec![other, twice], None);
    let updates = world.updates();
    assert_eq!(
        states(&updates),
        [("a", TaskState::TaskError), ("t", TaskState::TaskError)]
    );
    assert!(
        updates[0]
            .message()
            .contains("not compatible with the existing executor e")
    );
    assert!(updates[1].message().contains("duplicate ID"));
}

#[test]
fn single_tasks_stand_each_for_itself_and_a_command_gets_an_executor_of_its_own() {
    let mut world = World::new(1);
    let id = world.subscribe();
    let offer = world.offer();
    let mut both = task("both", 0, "cpus:1");
    both.executor = Some(executor("x", ""));
    let mut own = task("own", 0, "cpus:1");
    (own.executor, own.command) = (Some(executor("mine", EXECUTOR)), None);
    let tasks = vec![task("a", 0, "cpus:1"), both, task("huge", 0, "cpus:9"), own];
    world.accept(&id, &[offer.id], vec![singles(tasks)], None);
    let updates = world.updates();
    assert_eq!(
        states(&updates),
        [("both", TaskState::TaskError), ("huge", TaskState::TaskError)]
    );
    assert_eq!(updates[0].reason(), Reason::TaskInvalid);
    let executors: Vec<String> = world
        .down
        .iter()
        .map(|down| match down {
            Down::Launch {
                executor,
                singly: true,
                ..
            } => executor.executor_id.value.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(executors, ["a", "mine"]);
}
