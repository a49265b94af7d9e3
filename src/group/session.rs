//! The agent: subscribed, away, lost; and the end of the executor.
//!
//! ```text
//! Fresh ──▶ Subscribed ◀──▶ Away ──(recovery time over)──▶ Severed
//!               └──────────(no checkpointing)─────────────▶ Severed
//! ```
//!
//! Losing the agent for good is a shutdown with nobody left to tell.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    Effect,
    identity::Identity,
    machine::{Machine, Step},
    member::Member,
    verdict::Cause,
};
use crate::mesos::v1::executor::{call, event::Subscribed};

/// How long to wait for acknowledgements after the last end (Q-03). Only time with an agent counts: while it is
/// away, the recovery time is the bound.
const ACKNOWLEDGEMENTS: Duration = Duration::from_secs(60);

/// Even without any grace the members need a moment to die, and their ends to be told.
const LEAST_SHUTDOWN: Duration = Duration::from_secs(1);

/// Our connection to the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Link {
    /// Never subscribed yet.
    Fresh,
    Subscribed,
    /// Lost, and awaited until then: members go on running (S-06).
    Away {
        until: Duration,
    },
    /// Lost, and not awaited any more.
    Severed,
}

/// How far the executor's own life has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    Serving,
    /// Everything is being ended; `by` is when the process has to go in any case (Q-04).
    Closing {
        by: Duration,
    },
    /// [`Effect::Exit`] was given.
    Done,
}

impl Machine {
    // ---- the agent

    /// → Subscribed, from anywhere.
    pub(super) fn subscribed(&mut self, told: Arc<Subscribed>, step: &mut Step) {
        self.link = Link::Subscribed;
        self.identity = Some(Identity::new(told));
        for status in self.outbox.left_behind() {
            step.push(Effect::Send(status.0));
        }
    }

    pub(super) fn disconnected(&mut self, step: &mut Step) {
        match self.link {
            // → Away, Severed
            Link::Subscribed if self.settings.checkpoint => {
                let until = step.now.saturating_add(self.settings.recovery_timeout);
                self.link = Link::Away { until };
                self.linger = None;
            }
            Link::Subscribed => self.sever(step),
            // A connection that nothing came of, or news of an old one: the recovery time goes on running (S-07).
            Link::Fresh | Link::Away { .. } | Link::Severed => {}
        }
    }

    /// The agent is lost for good (S-05, S-06).
    fn sever(&mut self, step: &mut Step) {
        self.link = Link::Severed;
        self.close(&Cause::AgentLost, step);
    }

    /// The SUBSCRIBE to send now, with everything the agent has not acknowledged (S-08). Call it when the request
    /// is written: what happens between this call and [`Event::Subscribed`](super::Event::Subscribed) is sent after
    /// that event, and nothing that this value carries is sent again. Without this call before it, everything is.
    pub fn subscribe(&mut self) -> call::Subscribe {
        // S-09: a task that the agent takes for staging and that is missing here would be declared lost.
        let unknown = self.members.values().filter(|m| !m.acknowledged);
        let tasks = unknown.map(|m| (*m.task).clone()).collect();
        let updates = self.outbox.carry().into_iter().map(|status| call::Update {
            status: (*status).clone(),
        });
        call::Subscribe {
            unacknowledged_tasks: tasks,
            unacknowledged_updates: updates.collect(),
        }
    }

    /// Whether the shell should (go on trying to) connect: not subscribed, and there is still something to tell or
    /// to be told. Turns false for good after a shutdown without an agent, or a lost agent without checkpointing.
    pub fn seeks_agent(&self) -> bool {
        !self.is_done() && matches!(self.link, Link::Fresh | Link::Away { .. })
    }

    pub(super) fn acknowledged(&mut self, task: &str, uuid: &[u8]) {
        if let Some(id) = self.outbox.acknowledge(task, uuid) {
            if let Some(member) = self.members.get_mut(&id) {
                member.acknowledged = true;
            }
            self.sweep();
        }
    }

    /// Forgets members whose end is acknowledged, and groups without members.
    pub(super) fn sweep(&mut self) {
        let outbox = &self.outbox;
        self.members
            .retain(|id, m| !m.state.has_ended() || outbox.holds(*id));
        let members = &self.members;
        self.groups
            .retain(|id, _| members.values().any(|m| m.group == *id));
    }

    // ---- the end

    /// SHUTDOWN from the agent, or an operator's SIGTERM (Q-06).
    pub(super) fn shutdown(&mut self, step: &mut Step) {
        // Q-02, S-17: no agent now means none within the grace.
        if self.link != Link::Subscribed {
            self.link = Link::Severed;
        }
        self.close(&Cause::Shutdown, step);
    }

    /// Serving → Closing: every member is ended within what the shutdown grace allows (Q-01).
    fn close(&mut self, cause: &Cause, step: &mut Step) {
        if self.phase == Phase::Serving {
            let grace = self.settings.shutdown_grace.max(LEAST_SHUTDOWN);
            self.phase = Phase::Closing {
                by: step.now.saturating_add(grace),
            };
            self.end_all(cause, step);
        }
    }

    /// There were members, and all of them have ended.
    pub(super) fn has_nothing_left(&self) -> bool {
        self.next_member > 0 && self.members.values().all(|m| m.state.has_ended())
    }

    pub(super) fn session_deadline(&self) -> Option<Duration> {
        let away = match self.link {
            Link::Away { until } => Some(until),
            Link::Fresh | Link::Subscribed | Link::Severed => None,
        };
        let closing = match self.phase {
            Phase::Closing { by } => Some(by),
            Phase::Serving | Phase::Done => None,
        };
        [away, closing, self.linger].into_iter().flatten().min()
    }

    pub(super) fn session_due(&mut self, step: &mut Step) {
        if let Link::Away { until } = self.link
            && until <= step.now
        {
            self.sever(step);
        }
    }

    /// Closes every step: is it time to go?
    pub(super) fn settle(&mut self, step: &mut Step) {
        let now = step.now;
        let forced = matches!(self.phase, Phase::Closing { by } if by <= now);
        let everyone_ended = self.members.values().all(|m| m.state.has_ended());
        if !everyone_ended {
            if forced {
                let left = self.members.values().filter(|m| !m.state.has_ended());
                let left: Vec<&str> = left.map(Member::task_id).collect();
                step.push(Effect::Note(format!(
                    "the shutdown grace period is over and these members have not ended: {}",
                    left.join(", ")
                )));
                self.exit(step);
            }
            return;
        }
        if self.phase == Phase::Serving && self.next_member == 0 {
            // The first group is yet to come.
            return;
        }
        if self.link == Link::Subscribed {
            self.linger.get_or_insert(now.saturating_add(ACKNOWLEDGEMENTS));
        }
        let lingered = self.linger.is_some_and(|until| until <= now);
        if self.outbox.is_empty() || self.link == Link::Severed || lingered || forced {
            self.exit(step);
        }
    }

    fn exit(&mut self, step: &mut Step) {
        if !self.outbox.is_empty() {
            let count = self.outbox.iter().count();
            step.push(Effect::Note(format!("{count} updates were never acknowledged")));
        }
        self.phase = Phase::Done;
        step.push(Effect::Exit);
    }

    /// [`Effect::Exit`] was given.
    pub fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }
}
