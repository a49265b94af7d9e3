//! The counts of a pod's instances, whatever happens: every step of every test is audited against what one finds who
//! looks at each instance (`fleet::audit`); here are the steps that no story needs.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::{super::*, world::*};
use crate::{
    mesos::v1::{self, TaskState},
    pod::{
        Pod,
        model::{KillSelection, UnreachableStrategy},
    },
};

#[derive(Debug, Clone)]
enum Turn {
    Update {
        instances: usize,
        variant: u8,
        command: u8,
    },
    Remove,
    Kill {
        which: usize,
        wipe: bool,
    },
    Say {
        which: usize,
        state: TaskState,
        healthy: Option<bool>,
    },
    Round,
    Wait(u64),
    Restart,
}

/// Whatever of a definition the counts depend on, in both ways.
fn variant(instances: usize, variant: u8, command: u8) -> Pod {
    let mut pod = definition(instances, &command.to_string());
    if variant & 1 != 0 {
        pod.scheduling.kill_selection = KillSelection::OldestFirst;
    }
    if variant & 2 != 0 {
        pod.scheduling.unreachable_strategy = UnreachableStrategy::Replace {
            inactive_after_seconds: 10,
            expunge_after_seconds: 30,
        };
    }
    if variant & 4 != 0 {
        let check = json!({"exec": {"command": {"shell": "true"}}, "gracePeriodSeconds": 1, "intervalSeconds": 2,
            "maxConsecutiveFailures": 3, "timeoutSeconds": 1, "delaySeconds": 1});
        pod.containers[0].health_check = Some(serde_json::from_value(check).unwrap());
    }
    pod
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let states = prop::sample::select(vec![
        TaskState::TaskStaging,
        TaskState::TaskStarting,
        TaskState::TaskRunning,
        TaskState::TaskKilling,
        TaskState::TaskFinished,
        TaskState::TaskFailed,
        TaskState::TaskLost,
        TaskState::TaskUnknown,
        // The one that times decide about.
        TaskState::TaskUnreachable,
        TaskState::TaskUnreachable,
    ]);
    let says = (0usize..8, states, any::<Option<bool>>());
    let one = prop_oneof![
        3 => (0usize..6, 0u8..8, 0u8..3)
            .prop_map(|(instances, variant, command)| Turn::Update { instances, variant, command }),
        1 => Just(Turn::Remove),
        2 => (0usize..6, any::<bool>()).prop_map(|(which, wipe)| Turn::Kill { which, wipe }),
        8 => says.prop_map(|(which, state, healthy)| Turn::Say { which, state, healthy }),
        6 => Just(Turn::Round),
        4 => (0u64..25).prop_map(Turn::Wait),
        1 => Just(Turn::Restart),
    ];
    prop::collection::vec(one, 0..60)
}

fn take(world: &mut World, turn: Turn) {
    let id = "/p".parse().unwrap();
    match turn {
        Turn::Update {
            instances,
            variant: which,
            command,
        } => {
            let pod = variant(instances, which, command);
            world.command(Command::Update { pod, force: true }).unwrap();
        }
        Turn::Remove => drop(world.command(Command::Remove { id, force: true })),
        Turn::Kill { which, wipe } => {
            let found = world
                .core
                .all_instances()
                .nth(which)
                .map(|found| found.id.clone());
            let instances = found.into_iter().collect();
            drop(world.command(Command::Kill {
                pod: id,
                instances,
                wipe,
            }));
        }
        Turn::Say {
            which,
            state,
            healthy,
        } => {
            if let Some(task) = world.live().get(which) {
                let said = v1::TaskStatus {
                    healthy,
                    ..status(task, state)
                };
                world.step(Event::Update(Box::new(said)));
            }
        }
        Turn::Round => world.round(),
        Turn::Wait(seconds) => {
            world.now += Duration::from_secs(seconds);
            world.step(Event::Tick);
        }
        Turn::Restart => {
            world.restart();
            world.connect();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn whatever_happens_the_counts_are_what_one_finds_who_looks(turns in turns()) {
        let mut world = World::new();
        world.connect();
        world.command(Command::Create(variant(3, 2, 0))).unwrap();
        for turn in turns {
            take(&mut world, turn);
        }
    }
}

#[test]
fn instances_away_for_long_leave_and_come_back_into_the_counts_with_the_strategy() {
    let mut world = World::new();
    world.connect();
    world.command(Command::Create(variant(3, 2, 0))).unwrap();
    world.settle();
    let away = world.live().remove(0);
    world.step(Event::Update(Box::new(status(&away, TaskState::TaskUnreachable))));
    world.now += Duration::from_secs(11);
    world.step(Event::Tick);
    assert_eq!(world.instances("/p").len(), 4, "another takes its place");
    // Nobody is given up any more: there is one too many, and it is the one that serves nobody yet.
    world
        .command(Command::Update {
            pod: variant(3, 0, 0),
            force: true,
        })
        .unwrap();
    assert_eq!(world.instances("/p").len(), 3);
}
