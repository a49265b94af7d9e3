//! Stories of everything that can go wrong, in any order.

use std::time::Duration;

use proptest::prelude::*;

use super::{
    super::{status::Overall, *},
    world::*,
};
use crate::{mesos::v1::TaskState, pod::Version};

#[derive(Debug, Clone)]
enum Mishap {
    Scale(usize),
    Change(u8),
    Remove,
    Kill { wipe: bool },
    Fail(usize),
    Finish(usize),
    Disconnect,
    Deaf,
    EmptyMaster,
    AgentsReturn,
    Crash { at: usize, by: usize },
    Round,
    Wait(u64),
}

fn mishaps() -> impl Strategy<Value = Vec<Mishap>> {
    let people = prop_oneof![
        (0usize..5).prop_map(Mishap::Scale),
        (0u8..3).prop_map(Mishap::Change),
        Just(Mishap::Remove),
        any::<bool>().prop_map(|wipe| Mishap::Kill { wipe }),
    ];
    let faults = prop_oneof![
        (0usize..20).prop_map(Mishap::Fail),
        (0usize..20).prop_map(Mishap::Finish),
        Just(Mishap::Disconnect),
        Just(Mishap::Deaf),
        Just(Mishap::EmptyMaster),
        Just(Mishap::AgentsReturn),
        (0usize..6, 0usize..5).prop_map(|(at, by)| Mishap::Crash { at, by }),
    ];
    let one = prop_oneof![
        4 => people,
        5 => faults,
        4 => Just(Mishap::Round),
        2 => (0u64..40).prop_map(Mishap::Wait),
    ];
    prop::collection::vec(one, 0..40)
}

proptest! {
    /// R8, short form: whatever goes wrong, no task is launched twice, there are never more instances than the
    /// definition and its upgrade allow, and in the end exactly what is wanted runs.
    #[test]
    fn r8_every_story_ends_with_what_is_wanted(story in mishaps()) {
        let mut world = World::new();
        world.connect();
        world.command(Command::Create(definition(2, "0"))).unwrap();
        let (mut instances, mut command) = (2, 0u8);
        // Scaling and changing over each other may leave instances of several wishes alive at once.
        let mut most = 2 * 2 + 1;
        for mishap in story {
            let exists = world.state("/p").is_some();
            match mishap {
                Mishap::Scale(count) => {
                    instances = count;
                    world.command(update(instances, &command.to_string())).unwrap();
                }
                Mishap::Change(next) => {
                    command = next;
                    world.command(update(instances, &command.to_string())).unwrap();
                }
                Mishap::Remove if exists => {
                    world.command(Command::Remove { id: "/p".parse().unwrap(), force: true }).unwrap();
                }
                Mishap::Kill { wipe } if exists => {
                    let ids = world.instances("/p").iter().take(1).map(|id| id.parse().unwrap()).collect();
                    world.command(Command::Kill { pod: "/p".parse().unwrap(), instances: ids, wipe }).unwrap();
                }
                Mishap::Fail(index) | Mishap::Finish(index) => {
                    let state = if matches!(mishap, Mishap::Fail(_)) { TaskState::TaskFailed } else { TaskState::TaskFinished };
                    if let Some(id) = world.live().get(index) {
                        world.becomes(id, state);
                    }
                }
                Mishap::Disconnect => {
                    world.connected = false;
                    world.updates.clear();
                    world.step(Event::Disconnected);
                    world.connect();
                }
                Mishap::Deaf => world.deaf = !world.deaf,
                Mishap::EmptyMaster => world.master_is_empty(),
                Mishap::AgentsReturn => world.away = false,
                Mishap::Crash { at, by } => {
                    world.crash_at = Some(at);
                    match by {
                        0 => world.round(),
                        1 => world.step(Event::Tick),
                        2 if !world.away => world.offer(3),
                        _ => drop(world.command(update(instances, &command.to_string()))),
                    }
                    world.restart();
                    world.connect();
                }
                Mishap::Round => world.round(),
                Mishap::Wait(seconds) => world.now += Duration::from_secs(seconds),
                Mishap::Remove | Mishap::Kill { .. } => {}
            }
            most = most.max(2 * instances + 1);
            prop_assert!(world.alive() <= 2 * most, "{} alive", world.alive());
        }
        (world.deaf, world.away) = (false, false);
        world.connected = false;
        world.updates.clear();
        world.step(Event::Disconnected);
        world.connect();
        let wanted = world.core.status(&"/p".parse().unwrap(), Version::from_millis(EPOCH).unwrap());
        let wanted = wanted.filter(|status| status.status != Overall::Terminal).map(|status| status.spec.scaling.instances as usize);
        world.settle();
        world.settle();
        for (task, times) in &world.ever_launched {
            prop_assert_eq!(*times, 1, "{} launched twice", task);
        }
        prop_assert_eq!(world.alive(), wanted.unwrap_or(0));
        let status = world.state("/p");
        prop_assert_eq!(status.is_some(), wanted.is_some());
        if let Some(status) = status {
            prop_assert_eq!(status.status, Overall::Stable);
            prop_assert_eq!(world.core.deployments().count(), 0);
            let stored: Vec<String> = world.store.instances.keys().map(ToString::to_string).collect();
            prop_assert_eq!(stored, status.instances.iter().map(|i| i.id.clone()).collect::<Vec<_>>());
        }
    }
}
