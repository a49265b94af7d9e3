//! What must hold of every move, and of every way to the end.

use super::{
    super::scene::signal,
    world::{Before, Move, Shell, World, is_terminal},
};
use crate::{
    group::{Effect, Event, GroupId, MemberId, MemberSignal, session::Link},
    mesos::v1::TaskState::*,
};
use std::collections::{HashMap, HashSet};

/// Which group each member was in before a move.
pub(super) type Groups = HashMap<MemberId, GroupId>;

impl World {
    /// R3, U-04: the stream.
    pub(super) fn check_updates(&mut self, event: &Event, kept: Vec<Vec<u8>>, effects: &[Effect]) {
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
                Some(TaskStarting) => {
                    matches!(status.state(), TaskRunning | TaskFailed | TaskKilled)
                }
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
    pub(super) fn check_effects(&mut self, before: &Groups, effects: &[Effect]) {
        let on = |e: &Effect| matches!(e, Effect::Release(_) | Effect::Begin(_));
        let released = effects.iter().any(on);
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
                    let group = before[member];
                    for (sibling, _) in before.iter().filter(|(_, of)| **of == group) {
                        let at = *self.at(*sibling);
                        assert!(
                            matches!(at, Shell::Gated | Shell::Releasing),
                            "released beside {at:?}"
                        );
                    }
                }
                Effect::Begin(member) => {
                    assert_eq!(*self.at(*member), Shell::Held);
                    *self.at(*member) = Shell::Running;
                    // L1: everybody's exec has succeeded, and nobody is given up.
                    let group = before[member];
                    for (sibling, _) in before.iter().filter(|(_, of)| **of == group) {
                        let at = *self.at(*sibling);
                        assert!(matches!(at, Shell::Held | Shell::Running), "began beside {at:?}");
                    }
                }
                Effect::Discard(member) => {
                    let at = self.at(*member);
                    *at = Shell::Discarding(match *at {
                        Shell::Preparing => Before::Preparing,
                        Shell::Gated => Before::Gated,
                        Shell::Releasing => Before::Releasing,
                        Shell::Held => Before::Answered,
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

    pub(super) fn check_state(&self, event: &Event) {
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

    /// From here, a shell that only does what it cannot refuse gets to the end: whoever is killed ends, whoever is
    /// given up is gone, and time passes. Nobody stops because he is asked to, nobody acknowledges.
    ///
    /// The way is decided by where it begins, so one that meets a way that has been gone before, with as much time left,
    /// ends as that one did; `gone` are those ways.
    pub(super) fn check_end(&self, gone: &mut HashSet<u64>) {
        if self.machine.is_done() {
            return;
        }
        let mut world = self.clone();
        let limit = world.now + world.machine.settings.shutdown_grace;
        world.play(Move::Event(Event::Shutdown));
        let mut way = Vec::new();
        loop {
            if world.machine.is_done() {
                for (n, told) in world.told.iter().enumerate() {
                    assert!(told.is_some_and(is_terminal), "member {n} was told {told:?}");
                }
                break;
            }
            let here = world.place(limit);
            if gone.contains(&here) {
                break;
            }
            assert!(!way.contains(&here), "no end in sight: {:?}", world.machine);
            way.push(here);
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
        gone.extend(way);
    }
}
