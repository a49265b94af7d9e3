//! Every reachable state of small worlds (L2): a machine, a shell that keeps its contract in every order it may, an
//! agent that acknowledges, kills, vanishes and comes back.
//!
//! Time passes only by ticks, so what tells two states apart is how far their deadlines are from now.

use std::{
    collections::{HashSet, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    mem::discriminant,
    time::Duration,
};

use super::scene::{SECOND, code, failure, policy, signal, subscribed, task};
use crate::{
    group::{
        Effect, Event, Machine, MemberId, MemberSignal, Settings, Stamp,
        session::{Link, Phase},
        state::State,
    },
    mesos::v1::{
        TaskState::{self, *},
        TaskStatus,
        framework_info::capability::Type::TaskKillingState,
    },
};

/// What the shell owes, or has, for a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Shell {
    /// Asked to prepare.
    Preparing,
    Gated,
    Releasing,
    Running,
    /// Asked to give up what was this before.
    Discarding(Before),
    Killed,
    Nothing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Before {
    Preparing,
    Gated,
    Releasing,
    /// An answer had crossed with the wish; only `Discarded` is left.
    Answered,
}

/// How much of each may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Budget {
    kills: u8,
    losses: u8,
    shutdowns: u8,
    unhealthy: u8,
    late_groups: u8,
    failures: u8,
    /// Whether the agent acknowledges one by one, or everything at once.
    one_by_one: bool,
}

#[derive(Debug, Clone)]
struct World {
    machine: Machine,
    now: Duration,
    shell: Vec<Shell>,
    /// The last state that was told of each member.
    told: Vec<Option<TaskState>>,
    forgotten: Vec<bool>,
    /// What was carried by a SUBSCRIBE that is not answered yet.
    carried: Option<Vec<Vec<u8>>>,
    budget: Budget,
    steps: u64,
}

#[derive(Debug, Clone)]
enum Move {
    Event(Event),
    /// Write a SUBSCRIBE.
    Subscribe,
    /// Let time pass until something is due.
    Tick,
    AcknowledgeAll,
}

fn acknowledgement(status: &TaskStatus) -> Event {
    Event::Acknowledged {
        task: status.task_id.value.clone(),
        uuid: status.uuid().to_vec(),
    }
}

fn is_terminal(state: TaskState) -> bool {
    matches!(
        state,
        TaskFinished | TaskFailed | TaskKilled | TaskLost | TaskDropped | TaskError
    )
}

impl World {
    fn new(settings: Settings, groups: &[&[&str]], budget: Budget) -> World {
        let mut world = World {
            machine: Machine::new(settings),
            now: SECOND,
            shell: Vec::new(),
            told: Vec::new(),
            forgotten: Vec::new(),
            carried: None,
            budget,
            steps: 0,
        };
        world.play(Move::Subscribe);
        world.play(Move::Event(Event::Subscribed(subscribed(
            &[TaskKillingState],
            None,
        ))));
        for group in groups {
            let tasks = group.iter().map(|id| task(id)).collect();
            world.play(Move::Event(Event::LaunchGroup(tasks)));
        }
        world
    }

    fn at(&mut self, id: MemberId) -> &mut Shell {
        &mut self.shell[id.0 as usize]
    }

    /// Plays one move and checks everything that must hold of it.
    fn play(&mut self, step: Move) {
        let event = match step {
            Move::Subscribe => {
                let carried = self.machine.subscribe();
                let listed = carried
                    .unacknowledged_tasks
                    .iter()
                    .map(|t| t.task_id.value.as_str());
                let unknown = self.machine.members.values().filter(|m| !m.acknowledged);
                assert!(listed.eq(unknown.map(|m| m.task_id())), "S-09");
                let uuids = carried
                    .unacknowledged_updates
                    .iter()
                    .map(|u| u.status.uuid().to_vec());
                let uuids: Vec<Vec<u8>> = uuids.collect();
                assert_eq!(uuids, self.unacknowledged(), "S-08");
                self.carried = Some(uuids);
                return;
            }
            Move::Tick => {
                self.now = self.now.max(self.machine.deadline().unwrap());
                Event::Tick
            }
            Move::AcknowledgeAll => {
                let pending: Vec<_> = self.machine.unacknowledged().map(acknowledgement).collect();
                for event in pending {
                    self.play(Move::Event(event));
                }
                return;
            }
            Move::Event(event) => event,
        };
        self.steps += 1;
        let stamp = Stamp {
            now: self.now,
            wall: 0.0,
            entropy: (u128::from(self.steps) << 64).to_le_bytes(),
        };
        let (before, kept) = (self.machine.clone(), self.unacknowledged());
        let effects = self.machine.step(stamp, event.clone());
        self.check_updates(&event, kept, &effects);
        self.check_effects(&before, &effects);
        self.check_state(&event);
    }

    fn unacknowledged(&self) -> Vec<Vec<u8>> {
        self.machine.unacknowledged().map(|s| s.uuid().to_vec()).collect()
    }

    /// R3, U-04: the stream.
    fn check_updates(&mut self, event: &Event, kept: Vec<Vec<u8>>, effects: &[Effect]) {
        let mut kept = kept;
        if let Event::Acknowledged { uuid, .. } = event {
            kept.retain(|u| u != uuid);
        }
        let now: Vec<_> = self.machine.unacknowledged().collect();
        let uuids = self.unacknowledged();
        assert!(uuids.starts_with(&kept), "an update was lost or out of order");
        let fresh = &now[kept.len()..];

        let sent = effects.iter().filter_map(|e| match e {
            Effect::Send(status) => Some(status.uuid().to_vec()),
            _ => None,
        });
        let sent: Vec<Vec<u8>> = sent.collect();
        let expected: Vec<Vec<u8>> = match event {
            Event::Subscribed(_) => {
                let carried = self.carried.take().unwrap_or_default();
                uuids.iter().filter(|u| !carried.contains(u)).cloned().collect()
            }
            _ if self.machine.link == Link::Subscribed => fresh.iter().map(|s| s.uuid().to_vec()).collect(),
            _ => Vec::new(),
        };
        assert_eq!(sent, expected, "sent is what is new and can be sent");

        for status in fresh {
            let member = self.machine.members.values().find(|m| {
                let container = status
                    .container_status
                    .as_ref()
                    .and_then(|c| c.container_id.as_ref());
                container.is_some_and(|c| c.value == m.container)
            });
            let id = member.expect("every update is about a member").id.0 as usize;
            self.told.resize(self.told.len().max(id + 1), None);
            let legal = match self.told[id] {
                None => status.state() == TaskStarting || status.state() == TaskLost,
                Some(TaskStarting) => matches!(
                    status.state(),
                    TaskRunning | TaskKilling | TaskFailed | TaskKilled
                ),
                Some(TaskRunning) => {
                    matches!(
                        status.state(),
                        TaskKilling | TaskFailed | TaskKilled | TaskFinished
                    )
                }
                Some(TaskKilling) => matches!(status.state(), TaskKilled | TaskFailed),
                Some(_) => false,
            };
            assert!(legal, "{:?} after {:?}", status.state(), self.told[id]);
            self.told[id] = Some(status.state());
        }
    }

    /// The contract written on each effect, seen from the shell.
    fn check_effects(&mut self, before: &Machine, effects: &[Effect]) {
        let released = effects.iter().any(|e| matches!(e, Effect::Release(_)));
        for (n, effect) in effects.iter().enumerate() {
            match effect {
                Effect::Prepare { member, .. } => {
                    let n = member.0 as usize + 1;
                    self.shell.resize(self.shell.len().max(n), Shell::Nothing);
                    self.forgotten.resize(self.forgotten.len().max(n), false);
                    *self.at(*member) = Shell::Preparing;
                }
                Effect::Release(member) => {
                    assert_eq!(*self.at(*member), Shell::Gated);
                    *self.at(*member) = Shell::Releasing;
                    // L1: everybody is, or was until this very moment, at the gate, and nobody is given up.
                    let group = before.members[member].group;
                    for sibling in before.members.values().filter(|m| m.group == group) {
                        let at = *self.at(sibling.id);
                        assert!(
                            matches!(at, Shell::Gated | Shell::Releasing),
                            "released beside {at:?}"
                        );
                    }
                }
                Effect::Discard(member) => {
                    let at = self.at(*member);
                    *at = Shell::Discarding(match *at {
                        Shell::Preparing => Before::Preparing,
                        Shell::Gated => Before::Gated,
                        Shell::Releasing => Before::Releasing,
                        other => panic!("discard of {other:?}"),
                    });
                }
                Effect::Signal(member, signal) => {
                    let at = self.at(*member);
                    assert!(matches!(at, Shell::Running | Shell::Killed), "signal to {at:?}");
                    if *signal == MemberSignal::Kill {
                        *at = Shell::Killed;
                    }
                }
                Effect::Forget(member) => {
                    let n = member.0 as usize;
                    assert!(
                        !std::mem::replace(&mut self.forgotten[n], true),
                        "forgotten twice"
                    );
                    assert!(self.told[n].is_some_and(is_terminal));
                    assert_eq!(*self.at(*member), Shell::Nothing, "something was still there");
                }
                Effect::Exit => assert_eq!(n, effects.len() - 1, "exit is the last effect"),
                Effect::Note(note) => assert!(!note.contains("makes no sense"), "{note}"),
                Effect::Send(_) => {}
            }
        }
        assert!(!(released && effects.iter().any(|e| matches!(e, Effect::Discard(_)))));
    }

    fn check_state(&self, event: &Event) {
        let machine = &self.machine;
        let deadline = machine.deadline();
        if matches!(event, Event::Tick) {
            assert!(deadline.is_none_or(|d| d > self.now), "the shell would spin");
        }
        for member in machine.members.values() {
            let fallen = machine.groups[&member.group].fallen;
            let alive = member.state.is_launching() || member.state.is_running();
            assert!(!(fallen && alive), "{} outlives its group", member.task_id());
            let terminal = self.told[member.id.0 as usize].is_some_and(is_terminal);
            assert_eq!(terminal, member.state.has_ended(), "told exactly when ended");
        }
        if machine.is_done() {
            let forced = matches!(event, Event::Tick);
            let ended = machine.members.values().all(|m| m.state.has_ended());
            let severed = machine.link == Link::Severed;
            assert!(ended || forced, "exit with members left");
            assert!(
                machine.outbox.is_empty() || severed || forced,
                "exit with updates left"
            );
        }
    }

    /// Everything that may happen next.
    fn moves(&self) -> Vec<Move> {
        let mut moves = Vec::new();
        if self.machine.is_done() {
            return moves;
        }
        let mut may = |event| moves.push(Move::Event(event));
        let fail = self.budget.failures > 0;
        for (n, shell) in self.shell.iter().enumerate() {
            let id = MemberId(n as u32);
            match shell {
                Shell::Preparing | Shell::Discarding(Before::Preparing) => {
                    may(Event::Prepared(id));
                    if fail {
                        may(Event::PrepareFailed(id, failure("bad")));
                    }
                }
                Shell::Releasing | Shell::Discarding(Before::Releasing) => {
                    may(Event::Started(id));
                    if fail {
                        may(Event::StartFailed(id, failure("bad")));
                    }
                }
                Shell::Running => {
                    may(Event::Exited(id, code(0)));
                    if fail {
                        may(Event::Exited(id, code(1)));
                    }
                }
                Shell::Killed => may(Event::Exited(id, signal(9))),
                Shell::Gated | Shell::Discarding(_) | Shell::Nothing => {}
            }
            if matches!(shell, Shell::Discarding(_)) {
                may(Event::Discarded(id));
            }
            let member = self.machine.members.get(&id);
            if self.budget.unhealthy > 0 && member.is_some_and(|m| m.state.is_running()) {
                may(Event::Unhealthy {
                    member: id,
                    message: "sick".into(),
                });
            }
        }
        if self.machine.link == Link::Subscribed {
            // The oldest and the newest: enough to see every order of two.
            let mut pending = self.machine.unacknowledged();
            if self.budget.one_by_one {
                for status in [pending.next(), pending.last()].into_iter().flatten() {
                    may(acknowledgement(status));
                }
            }
            if self.budget.kills > 0 {
                for member in self.machine.members.values().filter(|m| !m.state.has_ended()) {
                    for policy in [None, Some(policy(0.0))] {
                        may(Event::Kill {
                            task: member.task_id().into(),
                            policy,
                        });
                    }
                }
            }
            if self.budget.late_groups > 0 {
                may(Event::LaunchGroup(vec![task("a"), task("late")]));
            }
            if self.budget.losses > 0 {
                may(Event::Disconnected);
            }
        } else if self.machine.seeks_agent() {
            if self.carried.is_some() {
                may(Event::Subscribed(subscribed(&[TaskKillingState], None)));
            } else {
                moves.push(Move::Subscribe);
            }
        }
        if !self.budget.one_by_one && self.machine.link == Link::Subscribed && !self.machine.outbox.is_empty()
        {
            moves.push(Move::AcknowledgeAll);
        }
        if self.budget.shutdowns > 0 {
            moves.push(Move::Event(Event::Shutdown));
        }
        if self.machine.deadline().is_some() {
            moves.push(Move::Tick);
        }
        moves
    }

    fn spend(&mut self, step: &Move) {
        let budget = &mut self.budget;
        let Move::Event(event) = step else { return };
        let left = match event {
            Event::Kill { .. } => &mut budget.kills,
            Event::Disconnected => &mut budget.losses,
            Event::Shutdown => &mut budget.shutdowns,
            Event::Unhealthy { .. } => &mut budget.unhealthy,
            Event::LaunchGroup(_) => &mut budget.late_groups,
            Event::PrepareFailed(..) | Event::StartFailed(..) => &mut budget.failures,
            Event::Exited(_, exit) if *exit == code(1) => &mut budget.failures,
            _ => return,
        };
        *left -= 1;
    }

    /// The shell's side of an answer, before the machine hears it.
    fn answer(&mut self, step: &Move) {
        let Move::Event(event) = step else { return };
        match event {
            Event::Prepared(id) => {
                let at = self.at(*id);
                *at = match at {
                    Shell::Preparing => Shell::Gated,
                    _ => Shell::Discarding(Before::Answered),
                };
            }
            // A start that crossed with our wish: the shell leaves the member alone.
            Event::Started(id) => *self.at(*id) = Shell::Running,
            Event::PrepareFailed(id, _)
            | Event::StartFailed(id, _)
            | Event::Discarded(id)
            | Event::Exited(id, _) => *self.at(*id) = Shell::Nothing,
            _ => {}
        }
    }

    fn next(&self, step: Move) -> World {
        let mut next = self.clone();
        next.spend(&step);
        next.answer(&step);
        next.play(step);
        next
    }

    /// From here, a shell that only does what it cannot refuse gets to the end: whoever is killed ends, whoever is
    /// given up is gone, and time passes. Nobody stops because he is asked to, nobody acknowledges.
    fn check_end(&self) {
        if self.machine.is_done() {
            return;
        }
        let mut world = self.clone();
        let limit = world.now + world.machine.settings.shutdown_grace;
        world.play(Move::Event(Event::Shutdown));
        for _ in 0..100 {
            if world.machine.is_done() {
                for (n, told) in world.told.iter().enumerate() {
                    assert!(told.is_some_and(is_terminal), "member {n} was told {told:?}");
                }
                return;
            }
            let answers = world.shell.iter().enumerate().find_map(|(n, shell)| match shell {
                Shell::Killed => Some(Event::Exited(MemberId(n as u32), signal(9))),
                Shell::Discarding(_) => Some(Event::Discarded(MemberId(n as u32))),
                _ => None,
            });
            let step = match answers {
                Some(event) => Move::Event(event),
                None => Move::Tick,
            };
            world.answer(&step);
            world.play(step);
            assert!(world.now <= limit, "no end in time");
        }
        panic!("no end in sight: {:?}", world.machine);
    }

    /// Everything that tells two worlds apart, with times as distances.
    fn key(&self) -> u64 {
        let mut h = DefaultHasher::new();
        let machine = &self.machine;
        let left = |at: Option<Duration>| at.map(|at| at.saturating_sub(self.now));
        discriminant(&machine.link).hash(&mut h);
        discriminant(&machine.phase).hash(&mut h);
        left(machine.linger).hash(&mut h);
        left(machine.session_deadline()).hash(&mut h);
        if let Phase::Closing { by } = machine.phase {
            left(Some(by)).hash(&mut h);
        }
        for group in machine.groups.values() {
            (group.fallen, left(group.launch_until)).hash(&mut h);
        }
        for (id, member) in &machine.members {
            (id, member.acknowledged, member.healthy, member.state.name()).hash(&mut h);
            match &member.state {
                State::Discarding { cause, deadline } | State::Stopping { cause, deadline, .. } => {
                    (discriminant(cause), left(Some(*deadline))).hash(&mut h);
                }
                State::Killing { cause, .. } => discriminant(cause).hash(&mut h),
                State::Ended(fate) => fate.hash(&mut h),
                State::Preparing | State::Gated | State::Releasing | State::Running { .. } => {}
            }
        }
        let carried = self.carried.as_ref();
        let pending = machine.unacknowledged().map(|status| {
            let carried = carried.map(|c| c.iter().any(|u| u == status.uuid()));
            (&status.task_id.value, status.state, carried)
        });
        let mut pending: Vec<_> = pending.collect();
        if !self.budget.one_by_one {
            // The order is checked at each step; what follows does not depend on it.
            pending.sort();
        }
        pending.hash(&mut h);
        (&self.shell, &self.forgotten, self.budget).hash(&mut h);
        for told in &self.told {
            told.map(|t| t as i32).hash(&mut h);
        }
        h.finish()
    }
}

/// Walks everything reachable from a world; gives the numbers of states and of edges.
fn explore(first: World) -> (usize, usize) {
    let mut seen: HashSet<u64> = HashSet::from([first.key()]);
    let mut queue = VecDeque::from([first]);
    let (mut edges, mut ends) = (0, 0);
    let mut names: HashSet<&'static str> = HashSet::new();
    while let Some(world) = queue.pop_front() {
        let moves = world.moves();
        assert!(
            world.machine.is_done() || !moves.is_empty() || world.shell.contains(&Shell::Running),
            "stuck: {world:?}"
        );
        ends += usize::from(world.machine.is_done());
        world.check_end();
        names.extend(world.machine.members.values().map(|m| m.state.name()));
        for step in moves {
            edges += 1;
            let next = world.next(step);
            if seen.insert(next.key()) {
                queue.push_back(next);
            }
        }
    }
    assert!(ends > 0);
    // A group of one passes its gate in one step.
    let waits = names.contains("gated");
    assert_eq!(
        names.len(),
        7 + usize::from(waits),
        "every state of a member is reached: {names:?}"
    );
    (seen.len(), edges)
}

const NOTHING: Budget = Budget {
    kills: 0,
    losses: 0,
    shutdowns: 0,
    unhealthy: 0,
    late_groups: 0,
    failures: 0,
    one_by_one: false,
};

fn walk(name: &str, checkpoint: bool, groups: &[&[&str]], budget: Budget) {
    let settings = Settings {
        checkpoint,
        ..Settings::default()
    };
    let (states, edges) = explore(World::new(settings, groups, budget));
    println!("{name}: {states} states, {edges} edges, each checked");
}

#[test]
fn l2_one_member_everything() {
    let budget = Budget {
        kills: 2,
        losses: 1,
        shutdowns: 1,
        unhealthy: 1,
        late_groups: 1,
        failures: 1,
        one_by_one: true,
    };
    walk("1 member, everything", true, &[&["a"]], budget);
}

#[test]
fn l2_two_members_with_acknowledgements_one_by_one() {
    let budget = Budget {
        kills: 1,
        losses: 1,
        one_by_one: true,
        ..NOTHING
    };
    walk("2 members, 1 kill, 1 loss", true, &[&["a", "b"]], budget);
}

#[test]
fn l2_two_members_without_checkpointing() {
    let budget = Budget {
        kills: 2,
        losses: 1,
        shutdowns: 1,
        unhealthy: 1,
        failures: 2,
        ..NOTHING
    };
    walk("2 members, no checkpointing", false, &[&["a", "b"]], budget);
}

#[test]
fn l2_three_members() {
    let budget = Budget {
        failures: 1,
        ..NOTHING
    };
    walk("3 members, 1 failure", true, &[&["a", "b", "c"]], budget);
}

#[test]
fn l2_two_groups() {
    let budget = Budget { kills: 1, ..NOTHING };
    walk("2 groups, 1 kill", true, &[&["a"], &["b"]], budget);
}

#[test]
#[ignore = "long: run with --ignored"]
fn l2_three_members_at_length() {
    let budget = Budget {
        kills: 2,
        losses: 1,
        failures: 1,
        ..NOTHING
    };
    walk(
        "3 members, 2 kills, 1 loss, 1 failure",
        true,
        &[&["a", "b", "c"]],
        budget,
    );
}

#[test]
#[ignore = "long: run with --ignored"]
fn l2_two_members_everything_one_by_one() {
    let budget = Budget {
        kills: 2,
        losses: 1,
        shutdowns: 1,
        failures: 1,
        one_by_one: true,
        ..NOTHING
    };
    walk("2 members, everything", true, &[&["a", "b"]], budget);
}
