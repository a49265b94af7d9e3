//! A machine, a shell that keeps its contract in every order it may, and an agent that acknowledges, kills, vanishes
//! and comes back.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    mem::discriminant,
    time::Duration,
};

use super::{
    super::scene::{SECOND, code, failure, policy, signal, subscribed, task},
    checks::Groups,
};
use crate::{
    group::{
        Event, Machine, MemberId, Settings, Stamp,
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
pub(super) enum Shell {
    /// Asked to prepare.
    Preparing,
    Gated,
    Releasing,
    Held,
    Running,
    /// Asked to give up what was this before.
    Discarding(Before),
    Killed,
    Nothing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Before {
    Preparing,
    Gated,
    Releasing,
    /// An answer had crossed with the wish; only `Discarded` is left.
    Answered,
}

/// How much of each may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Budget {
    pub(super) kills: u8,
    pub(super) losses: u8,
    pub(super) shutdowns: u8,
    pub(super) unhealthy: u8,
    pub(super) late_groups: u8,
    pub(super) failures: u8,
    /// Whether the agent acknowledges one by one, or everything at once.
    pub(super) one_by_one: bool,
}

#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) machine: Machine,
    pub(super) now: Duration,
    pub(super) shell: Vec<Shell>,
    /// The last state that was told of each member.
    pub(super) told: Vec<Option<TaskState>>,
    pub(super) forgotten: Vec<bool>,
    /// What was carried by a SUBSCRIBE that is not answered yet.
    pub(super) carried: Option<Vec<Vec<u8>>>,
    pub(super) budget: Budget,
    pub(super) steps: u64,
}

#[derive(Debug, Clone)]
pub(super) enum Move {
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

pub(super) fn is_terminal(state: TaskState) -> bool {
    matches!(
        state,
        TaskFinished | TaskFailed | TaskKilled | TaskLost | TaskDropped | TaskError
    )
}

impl World {
    pub(super) fn new(settings: Settings, groups: &[&[&str]], budget: Budget) -> World {
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

    pub(super) fn at(&mut self, id: MemberId) -> &mut Shell {
        &mut self.shell[id.0 as usize]
    }

    /// Plays one move and checks everything that must hold of it.
    pub(super) fn play(&mut self, step: Move) {
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
        let members = self.machine.members.iter();
        let before: Groups = members.map(|(id, member)| (*id, member.group)).collect();
        let kept = self.unacknowledged();
        let effects = self.machine.step(stamp, event.clone());
        self.check_updates(&event, kept, &effects);
        self.check_effects(&before, &effects);
        self.check_state(&event);
    }

    pub(super) fn unacknowledged(&self) -> Vec<Vec<u8>> {
        self.machine.unacknowledged().map(|s| s.uuid().to_vec()).collect()
    }

    /// Everything that may happen next.
    pub(super) fn moves(&self) -> Vec<Move> {
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
                    may(Event::Held(id));
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
                Shell::Gated | Shell::Held | Shell::Discarding(_) | Shell::Nothing => {}
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
    pub(super) fn answer(&mut self, step: &Move) {
        let Move::Event(event) = step else { return };
        match event {
            Event::Prepared(id) => {
                let at = self.at(*id);
                *at = match at {
                    Shell::Preparing => Shell::Gated,
                    _ => Shell::Discarding(Before::Answered),
                };
            }
            Event::Held(id) => {
                let at = self.at(*id);
                *at = match at {
                    Shell::Releasing => Shell::Held,
                    _ => Shell::Discarding(Before::Answered),
                };
            }
            Event::PrepareFailed(id, _)
            | Event::StartFailed(id, _)
            | Event::Discarded(id)
            | Event::Exited(id, _) => *self.at(*id) = Shell::Nothing,
            _ => {}
        }
    }

    pub(super) fn next(&self, step: Move) -> World {
        let mut next = self.clone();
        next.spend(&step);
        next.answer(&step);
        next.play(step);
        next
    }

    /// Everything that tells two worlds apart, with times as distances.
    pub(super) fn key(&self) -> u64 {
        let mut h = DefaultHasher::new();
        self.budget.hash(&mut h);
        self.hash_state(&mut h);
        h.finish()
    }

    /// The same for who goes straight to the end: what else might have happened does not count, the time that is left
    /// does.
    pub(super) fn place(&self, limit: Duration) -> u64 {
        let mut h = DefaultHasher::new();
        limit.saturating_sub(self.now).hash(&mut h);
        self.hash_state(&mut h);
        h.finish()
    }

    fn hash_state(&self, mut h: &mut DefaultHasher) {
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
                State::Stopping { cause, deadline, .. } => {
                    (discriminant(cause), left(Some(*deadline))).hash(&mut h);
                }
                State::Discarding { cause } | State::Killing { cause, .. } => {
                    discriminant(cause).hash(&mut h)
                }
                State::Ended(fate) => fate.hash(&mut h),
                State::Preparing | State::Gated | State::Releasing | State::Held | State::Running { .. } => {}
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
        (&self.shell, &self.forgotten).hash(&mut h);
        for told in &self.told {
            told.map(|t| t as i32).hash(&mut h);
        }
    }
}
