//! Random lives: any number of members and groups, any answer, any event at any time, legal or not.

use proptest::{collection::vec, prelude::*};

use super::scene::*;
use crate::{
    group::{Effect, Event, Exit, Failure, Machine, MemberId, MemberSignal, Settings, Stamp, session::Phase},
    mesos::v1::{
        CheckStatusInfo, TaskInfo, TaskState,
        framework_info::capability::Type::{PartitionAware, TaskKillingState},
    },
};
use std::{collections::HashMap, time::Duration};

/// What may happen, with numbers where the world decides whom it concerns.
#[derive(Debug, Clone)]
enum Whim {
    Launch(Vec<u8>),
    Kill(u8, Option<u8>),
    /// Acknowledge the n-th unacknowledged update.
    Acknowledge(u8),
    Subscribe,
    Subscribed,
    Disconnected,
    Shutdown,
    /// Any of the shell's answers about any member, due or not.
    Answer(u8, u8),
    Exit(u8, Exit),
    Health(u8, bool),
    Check(u8, u8),
    Unhealthy(u8),
    Tick,
    Wait(u16),
}

fn exits() -> impl Strategy<Value = Exit> {
    prop_oneof![
        3 => Just(code(0)),
        2 => any::<i32>().prop_map(code),
        2 => any::<i32>().prop_map(signal),
        1 => Just(out_of_memory()),
    ]
}

fn whims() -> impl Strategy<Value = Whim> {
    prop_oneof![
        2 => vec(0u8..8, 0..5).prop_map(Whim::Launch),
        2 => (0u8..8, proptest::option::of(0u8..10)).prop_map(|(t, g)| Whim::Kill(t, g)),
        6 => any::<u8>().prop_map(Whim::Acknowledge),
        2 => Just(Whim::Subscribe),
        3 => Just(Whim::Subscribed),
        1 => Just(Whim::Disconnected),
        1 => Just(Whim::Shutdown),
        20 => (0u8..12, 0u8..5).prop_map(|(m, a)| Whim::Answer(m, a)),
        4 => (0u8..12, exits()).prop_map(|(m, e)| Whim::Exit(m, e)),
        3 => (0u8..12, any::<bool>()).prop_map(|(m, h)| Whim::Health(m, h)),
        2 => (0u8..12, 0u8..3).prop_map(|(m, n)| Whim::Check(m, n)),
        1 => (0u8..12).prop_map(Whim::Unhealthy),
        3 => Just(Whim::Tick),
        3 => (0u16..5000).prop_map(Whim::Wait),
    ]
}

/// A few definitions, some of them bad.
fn definition(n: u8) -> TaskInfo {
    let id = format!("t{n}");
    match n {
        0 => TaskInfo {
            max_completion_time: Some(seconds(2.0)),
            ..task(&id)
        },
        1 => with_grace(&id, 0.0),
        2 => with_grace(&id, 8.0),
        7 => with_grace(&id, -1.0),
        _ => task(&id),
    }
}

/// Plays whims and keeps an independent account of the update stream.
#[derive(Clone)]
struct Account {
    machine: Machine,
    now: Duration,
    steps: u128,
    /// Every update ever made, by uuid, in order; and whether it is acknowledged.
    made: Vec<(Vec<u8>, bool)>,
    /// The last state told of each container.
    last: HashMap<String, TaskState>,
    carried: Option<Vec<Vec<u8>>>,
    exits: usize,
}

fn rank(state: TaskState) -> u8 {
    use TaskState::*;
    match state {
        TaskStarting => 0,
        TaskRunning => 1,
        TaskKilling => 2,
        _ => 3,
    }
}

impl Account {
    fn new(settings: Settings) -> Account {
        Account {
            machine: Machine::new(settings),
            now: SECOND,
            steps: 0,
            made: Vec::new(),
            last: HashMap::new(),
            carried: None,
            exits: 0,
        }
    }

    fn pending(&self) -> Vec<Vec<u8>> {
        self.machine.unacknowledged().map(|s| s.uuid().to_vec()).collect()
    }

    fn whim(&mut self, whim: Whim) {
        let id = |n: u8| MemberId(n.into());
        let event = match whim {
            Whim::Launch(tasks) => Event::LaunchGroup(tasks.into_iter().map(definition).collect()),
            Whim::Kill(n, grace) => Event::Kill {
                task: format!("t{n}"),
                policy: grace.map(|g| policy(g.into())),
            },
            Whim::Acknowledge(n) => {
                let count = self.machine.unacknowledged().count().max(1);
                let Some(status) = self.machine.unacknowledged().nth(usize::from(n) % count) else {
                    return;
                };
                Event::Acknowledged {
                    task: status.task_id.value.clone(),
                    uuid: status.uuid().to_vec(),
                }
            }
            Whim::Subscribe => {
                let carried = self.machine.subscribe();
                let uuids = carried
                    .unacknowledged_updates
                    .iter()
                    .map(|u| u.status.uuid().to_vec());
                let uuids: Vec<_> = uuids.collect();
                assert_eq!(uuids, self.pending());
                self.carried = Some(uuids);
                return;
            }
            Whim::Subscribed => Event::Subscribed(subscribed(&[TaskKillingState, PartitionAware], None)),
            Whim::Disconnected => Event::Disconnected,
            Whim::Shutdown => Event::Shutdown,
            Whim::Answer(n, 0) => Event::Prepared(id(n)),
            Whim::Answer(n, 1) => Event::Held(id(n)),
            Whim::Answer(n, 2) => Event::Discarded(id(n)),
            Whim::Answer(n, 3) => Event::PrepareFailed(id(n), failure("bad")),
            Whim::Answer(n, _) => Event::StartFailed(
                id(n),
                Failure {
                    message: String::new(),
                    invalid: true,
                },
            ),
            Whim::Exit(n, exit) => Event::Exited(id(n), exit),
            Whim::Health(n, healthy) => Event::Health {
                member: id(n),
                healthy,
                message: None,
            },
            Whim::Check(n, value) => Event::Check {
                member: id(n),
                status: CheckStatusInfo {
                    r#type: Some(value.into()),
                    ..Default::default()
                },
                message: None,
            },
            Whim::Unhealthy(n) => Event::Unhealthy {
                member: id(n),
                message: "sick".into(),
            },
            Whim::Tick => Event::Tick,
            Whim::Wait(ms) => {
                self.now += Duration::from_millis(ms.into());
                return;
            }
        };
        self.event(event);
    }

    fn event(&mut self, event: Event) {
        self.steps += 1;
        let stamp = Stamp {
            now: self.now,
            wall: f64::INFINITY,
            entropy: self.steps.to_le_bytes(),
        };
        let was_done = self.machine.is_done();
        if let (Event::Acknowledged { uuid, .. }, false) = (&event, was_done) {
            for (made, acknowledged) in &mut self.made {
                *acknowledged |= made == uuid;
            }
        }
        let effects = self.machine.step(stamp, event.clone());
        assert!(!was_done || effects.is_empty(), "something follows the exit");
        self.note_updates(&event, &effects);
        self.exits += effects.iter().filter(|e| matches!(e, Effect::Exit)).count();
        assert_eq!(self.exits, usize::from(self.machine.is_done()));
        if matches!(event, Event::Tick) {
            assert!(self.machine.deadline().is_none_or(|d| d > self.now));
        }
    }

    fn note_updates(&mut self, event: &Event, effects: &[Effect]) {
        let statuses: Vec<_> = self.machine.unacknowledged().cloned().collect();
        for status in &statuses {
            if self.made.iter().any(|(uuid, _)| uuid == status.uuid()) {
                continue;
            }
            self.made.push((status.uuid().to_vec(), false));
            let container = status
                .container_status
                .clone()
                .unwrap()
                .container_id
                .unwrap()
                .value;
            let before = self.last.insert(container, status.state());
            let legal = match before {
                None => matches!(rank(status.state()), 0 | 3),
                Some(TaskState::TaskRunning) => rank(status.state()) >= 1,
                Some(before) => rank(before) < 3 && rank(status.state()) > rank(before),
            };
            assert!(legal, "{:?} after {before:?}", status.state());
        }
        // Kept: everything that was made and is not acknowledged, in order; but for a result of a check that a
        // newer one replaced before anybody saw it.
        let pending = self.pending();
        self.made
            .retain(|(uuid, acknowledged)| *acknowledged || pending.contains(uuid));
        let expected = self.made.iter().filter(|(_, acknowledged)| !acknowledged);
        assert!(
            expected.map(|(uuid, _)| uuid).eq(pending.iter()),
            "the order of updates changed"
        );

        let sent = effects.iter().filter_map(|e| match e {
            Effect::Send(s) => Some(s.uuid().to_vec()),
            _ => None,
        });
        let sent: Vec<Vec<u8>> = sent.collect();
        if let (Event::Subscribed(_), false) = (event, self.machine.is_done() && sent.is_empty()) {
            let carried = self.carried.take().unwrap_or_default();
            let left = pending.iter().filter(|u| !carried.contains(u));
            assert!(
                sent.iter().eq(left),
                "SUBSCRIBED sends what was not carried, and nothing else"
            );
        }
    }

    /// A shell that answers only what it must, and an agent that is silent: everything ends, in bounded time.
    fn finish(&mut self) {
        self.event(Event::Shutdown);
        let limit = self.now + Duration::from_secs(60);
        let mut killed: Vec<MemberId> = Vec::new();
        for _ in 0..1000 {
            if self.machine.is_done() {
                return;
            }
            let next = self.machine.members().find_map(|m| match m.state {
                "discarding" => Some(Event::Discarded(m.id)),
                "killing" => {
                    killed.push(m.id);
                    Some(Event::Exited(m.id, signal(9)))
                }
                _ => None,
            });
            match next {
                Some(event) => self.event(event),
                None => {
                    self.now = self
                        .machine
                        .deadline()
                        .expect("something has to happen")
                        .max(self.now);
                    self.event(Event::Tick);
                }
            }
            assert!(self.now <= limit);
        }
        panic!("no end in sight");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn l2_r3_l_07_any_life_keeps_its_promises(
        checkpoint in any::<bool>(),
        whims in vec(whims(), 0..150),
    ) {
        let mut account = Account::new(Settings { checkpoint, ..Settings::default() });
        account.whim(Whim::Subscribed);
        for whim in whims {
            account.whim(whim);
        }
        if !account.machine.is_done() {
            let open: Vec<String> = account.machine.members().map(|m| m.container.to_owned()).collect();
            // A shutdown that began earlier may already have lasted too long: then it goes with members left.
            let begins = account.machine.phase == Phase::Serving;
            account.finish();
            for container in open.into_iter().filter(|_| begins) {
                prop_assert!(account.last.get(&container).is_some_and(|s| rank(*s) == 3), "{container} has no end");
            }
        }
    }

    /// L1: whatever the order of answers, if one fails to be ready, nobody is released.
    #[test]
    fn l1_one_failure_releases_nobody(size in 2usize..7, bad in any::<prop::sample::Index>(), order in any::<u64>()) {
        let names: Vec<String> = (0..size).map(|n| format!("m{n}")).collect();
        let bad = bad.index(size);
        let mut scene = Scene::new();
        scene.launch(names.iter().map(|n| task(n)));
        let mut left: Vec<usize> = (0..size).collect();
        let mut order = order;
        while !left.is_empty() {
            let n = left.remove((order % left.len() as u64) as usize);
            order = order.rotate_right(7);
            if n == bad {
                scene.prepare_failed(&names[n], "bad");
            } else {
                scene.prepared(&names[n]);
            }
            prop_assert!(scene.to_release().is_empty());
        }
        prop_assert_eq!(scene.last(&names[bad]).state(), TaskState::TaskFailed);
        for name in names.iter().filter(|n| **n != names[bad]) {
            scene.discarded(name);
            prop_assert_eq!(scene.states(name), [TaskState::TaskStarting, TaskState::TaskKilled]);
        }
    }

    /// L3: however it is killed, the deadline only comes closer, and at the deadline comes the last signal.
    #[test]
    fn l3_a_kill_ends_at_the_earliest_deadline_it_was_given(
        kills in vec((0u64..20_000, 0u64..20_000), 1..8),
    ) {
        let mut scene = Scene::new();
        scene.run([task("a")]);
        let mut kills = kills;
        kills.sort();
        let begin = scene.now;
        let mut deadline = None;
        for (at, grace) in kills {
            let at = begin + Duration::from_millis(at);
            if deadline.is_some_and(|d| d <= at) {
                break;
            }
            scene.wait(at - scene.now);
            scene.kill_within("a", grace as f64 / 1000.0);
            let asked = at + Duration::from_millis(grace);
            deadline = Some(deadline.map_or(asked, |d: Duration| d.min(asked)));
        }
        let deadline = deadline.unwrap();
        if scene.state("a") == "stopping" {
            prop_assert_eq!(scene.machine.deadline(), Some(deadline));
            scene.wait(deadline - scene.now);
            prop_assert_eq!(scene.signals(), [("a".to_owned(), MemberSignal::Kill)]);
        }
        prop_assert_eq!(scene.state("a"), "killing");
    }

    /// A machine that is stored and read back goes on as if nothing had happened.
    #[test]
    fn r4_a_stored_machine_is_the_same_machine(whims in vec(whims(), 0..60), more in vec(whims(), 0..30)) {
        let mut account = Account::new(Settings { checkpoint: true, ..Settings::default() });
        account.whim(Whim::Subscribed);
        for whim in whims {
            account.whim(whim);
        }
        let stored = serde_json::to_vec(&account.machine).unwrap();
        let read: Machine = serde_json::from_slice(&stored).unwrap();
        prop_assert_eq!(&read, &account.machine);
        let mut other = Account { machine: read, ..account.clone() };
        for whim in more {
            account.whim(whim.clone());
            other.whim(whim);
            prop_assert_eq!(&other.machine, &account.machine);
        }
    }
}
