//! Random calls of several frameworks, in any order.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::world::*;

#[derive(Debug, Clone)]
enum Act {
    Subscribe(usize),
    Leave(usize),
    Accept {
        by: usize,
        offers: Vec<usize>,
        cpus: u8,
        port: u8,
        executor: u8,
        again: bool,
    },
    Decline {
        by: usize,
        offer: usize,
        seconds: u8,
    },
    Say {
        by: usize,
        task: usize,
        state: u8,
    },
    Acknowledge {
        by: usize,
        task: usize,
    },
    EndExecutor {
        by: usize,
        at: usize,
    },
    Revive(usize),
    Suppress(usize),
    Teardown(usize),
    Wait(u16),
}

fn act() -> impl Strategy<Value = Act> {
    let who = 0usize..3;
    prop_oneof![
        2 => who.clone().prop_map(Act::Subscribe),
        1 => who.clone().prop_map(Act::Leave),
        6 => (who.clone(), prop::collection::vec(0usize..4, 0..3), 0u8..30, 0u8..13, 0u8..4, any::<bool>())
            .prop_map(|(by, offers, cpus, port, executor, again)| Act::Accept { by, offers, cpus, port, executor, again }),
        2 => (who.clone(), 0usize..4, 0u8..10).prop_map(|(by, offer, seconds)| Act::Decline { by, offer, seconds }),
        4 => (who.clone(), 0usize..8, 0u8..4).prop_map(|(by, task, state)| Act::Say { by, task, state }),
        2 => (who.clone(), 0usize..8).prop_map(|(by, task)| Act::Acknowledge { by, task }),
        2 => (who.clone(), 0usize..4).prop_map(|(by, at)| Act::EndExecutor { by, at }),
        2 => who.clone().prop_map(Act::Revive),
        1 => who.clone().prop_map(Act::Suppress),
        1 => who.prop_map(Act::Teardown),
        2 => (0u16..30).prop_map(Act::Wait),
    ]
}

proptest! {
    /// The audit after every step is the property: on each agent, what is free, offered and used is always exactly
    /// what it has. And no agent is ever sent a launch for more than that.
    #[test]
    fn it_never_gives_away_more_than_there_is(story in prop::collection::vec(act(), 0..60)) {
        let mut world = World::new(2);
        let mut ids: [Option<String>; 3] = Default::default();
        let mut launched = BTreeSet::new();
        let mut made = 0;
        for act in story {
            let subscribed = |world: &World, by: usize| {
                ids[by].clone().filter(|id| world.core.is_subscribed(id))
            };
            match act {
                Act::Subscribe(by) => {
                    let known = ids[by].clone().filter(|id| world.core.is_known(id));
                    ids[by] = Some(world.subscribe_as(known.as_deref(), &[], 10.0));
                }
                Act::Leave(by) => if let Some(id) = subscribed(&world, by) {
                    let stream = world.core.frameworks[&id].stream.clone().unwrap();
                    world.step(|core, out| core.disconnected(&id, &stream, out));
                },
                Act::Accept { by, offers, cpus, port, executor: number, again } => if let Some(id) = subscribed(&world, by) {
                    // Its own and others', present and past.
                    let all: Vec<String> = world.core.offers.keys().cloned().collect();
                    let named: Vec<OfferId> = offers.iter().filter_map(|at| all.get(*at))
                        .map(|id| OfferId { value: id.clone() }).collect();
                    let agent = named.first().and_then(|id| world.core.offers.get(&id.value)).map_or(0, |offer| offer.agent);
                    made += usize::from(!again);
                    let text = format!("cpus:{};ports:[{}-{}]", f64::from(cpus) / 10.0, port, port + 1);
                    let operation = group(executor(&format!("e{number}"), EXECUTOR), vec![task(&format!("t{made}"), agent, &text)]);
                    let before = world.down.len();
                    world.accept(&id, &named, vec![operation.clone(), operation], refusing(f64::from(cpus)));
                    for down in &world.down[before..] {
                        if let Down::Launch { tasks, .. } = down {
                            prop_assert!(launched.insert((id.clone(), tasks[0].task_id.value.clone())) || again);
                        }
                    }
                },
                Act::Decline { by, offer, seconds } => if let Some(id) = subscribed(&world, by) {
                    let offer = world.core.offers.keys().nth(offer).cloned().unwrap_or_default();
                    world.decline(&id, &[OfferId { value: offer }], refusing(f64::from(seconds)));
                },
                Act::Say { by, task, state } => if let Some(id) = ids[by].clone() {
                    let name = world.core.frameworks.get(&id).and_then(|known| known.tasks.keys().nth(task).cloned());
                    let state = [TaskState::TaskRunning, TaskState::TaskFailed, TaskState::TaskFinished, TaskState::TaskStarting][usize::from(state)];
                    world.tells(&id, &name.unwrap_or_default(), state, 1);
                },
                Act::Acknowledge { by, task } => if let Some(id) = subscribed(&world, by) {
                    let name = world.core.frameworks[&id].tasks.keys().nth(task).cloned().unwrap_or_default();
                    world.acknowledge(&id, &name, 1);
                },
                Act::EndExecutor { by, at } => if let Some(id) = ids[by].clone() {
                    let found = world.core.frameworks.get(&id).and_then(|known| known.executors.keys().nth(at).cloned());
                    if let Some((agent, executor)) = found {
                        // Its agent has told of its tasks by then.
                        let of = |task: &tasks::Task| (task.agent, &task.executor) == (agent, &executor);
                        let tasks: Vec<String> = world.core.frameworks[&id].tasks.iter()
                            .filter(|(_, task)| of(task)).map(|(name, _)| name.clone()).collect();
                        tasks.iter().for_each(|task| world.tells(&id, task, TaskState::TaskFailed, 2));
                        world.step(|core, out| core.ended(agent, &id, &executor, 0, out));
                    }
                },
                Act::Revive(by) => if let Some(id) = subscribed(&world, by) { world.call(&id, blank_call(Type::Revive)) },
                Act::Suppress(by) => if let Some(id) = subscribed(&world, by) { world.call(&id, blank_call(Type::Suppress)) },
                Act::Teardown(by) => if let Some(id) = subscribed(&world, by) { world.call(&id, blank_call(Type::Teardown)) },
                Act::Wait(seconds) => world.wait(f64::from(seconds)),
            }
            for (_, event) in world.events.drain(..) {
                for offer in event.offers.into_iter().flat_map(|offers| offers.offers) {
                    prop_assert!(!offer.resources.is_empty());
                }
            }
        }
    }
}
