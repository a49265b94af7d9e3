//! Kills: how much grace a member gets, and how a group falls.
//!
//! A kill always ends (L3): the deadline is fixed when the kill begins, a later kill may only move it closer, and
//! after it the whole container is killed, which the kernel does not refuse.

use std::time::Duration;

use super::{
    GroupId, MemberId,
    machine::{Machine, Step},
    session::Phase,
    state::Input,
    verdict::Cause,
};
use crate::mesos::v1::{KillPolicy, TaskInfo};

/// Grace when nobody asked for any (K-02).
const DEFAULT_GRACE: Duration = Duration::from_secs(3);

/// How long a member may take to end after its stop signal: the KILL's policy, else the task's, else 3 s. A policy
/// without a grace period says nothing; a negative one means none.
fn grace(asked: Option<&KillPolicy>, task: &TaskInfo) -> Duration {
    let of = |policy: &KillPolicy| policy.grace_period.as_ref().map(|p| p.nanoseconds);
    let nanoseconds = asked
        .and_then(of)
        .or_else(|| task.kill_policy.as_ref().and_then(of));
    match nanoseconds {
        Some(n) => Duration::from_nanos(u64::try_from(n).unwrap_or(0)),
        None => DEFAULT_GRACE,
    }
}

/// The most grace there is when the executor itself has to be gone after `shutdown_grace`: what is left after
/// cleaning up and sending the last update.
fn most_grace(shutdown_grace: Duration) -> Duration {
    let margin = (shutdown_grace / 4).min(Duration::from_secs(1));
    shutdown_grace.saturating_sub(margin)
}

impl Machine {
    /// KILL from the agent.
    pub(super) fn kill(&mut self, task: &str, policy: Option<&KillPolicy>, step: &mut Step) {
        // K-06: unknown or ended is not worth an update. K-11: a shutdown knows better.
        if let Some(id) = self.active(task)
            && self.phase == Phase::Serving
        {
            self.order(id, Cause::Requested, policy, step);
        }
    }

    /// Ends one member, and with it its group.
    pub(super) fn order(&mut self, id: MemberId, cause: Cause, policy: Option<&KillPolicy>, step: &mut Step) {
        let Some(member) = self.members.get(&id) else {
            return;
        };
        let mut grace = grace(policy, &member.task);
        if matches!(self.phase, Phase::Closing { .. }) {
            grace = grace.min(most_grace(self.settings.shutdown_grace));
        }
        let deadline = step.now.saturating_add(grace);
        self.turn(id, Input::Kill { cause, deadline }, step);
    }

    /// One member has ended the common life of its group: the others are killed at once, each by its own policy
    /// (K-09, G-02). `why` completes "member `x` of its group …".
    pub(super) fn fall(&mut self, group: GroupId, first: MemberId, why: &str, step: &mut Step) {
        let Some(g) = self.groups.get_mut(&group) else {
            return;
        };
        if !std::mem::replace(&mut g.fallen, true) {
            g.launch_until = None;
            self.fall_all(group, first, why, step);
        }
    }

    /// Ends all members of a fallen group whose end is not decided yet.
    pub(super) fn fall_all(&mut self, group: GroupId, first: MemberId, why: &str, step: &mut Step) {
        let Some(name) = self.members.get(&first).map(|m| m.task_id()) else {
            return;
        };
        let cause = Cause::Sibling {
            why: format!("member `{name}` of its group {why}"),
        };
        for id in self.members_of(group) {
            let undecided = |m: &super::member::Member| m.state.is_launching() || m.state.is_running();
            if self.members.get(&id).is_some_and(undecided) {
                self.order(id, cause.clone(), None, step);
            }
        }
    }

    /// Ends everything (Q-01, S-05, S-06).
    pub(super) fn end_all(&mut self, cause: &Cause, step: &mut Step) {
        for group in self.groups.values_mut() {
            group.fallen = true;
            group.launch_until = None;
        }
        for id in self.members.keys().copied().collect::<Vec<_>>() {
            self.order(id, cause.clone(), None, step);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesos::v1::DurationInfo;

    fn policy(nanoseconds: Option<i64>) -> KillPolicy {
        KillPolicy {
            grace_period: nanoseconds.map(|nanoseconds| DurationInfo { nanoseconds }),
        }
    }

    #[test]
    fn k_02_the_kill_wins_over_the_task_and_the_task_over_three_seconds() {
        let second = 1_000_000_000;
        let task = |p| TaskInfo {
            kill_policy: p,
            ..TaskInfo::default()
        };
        let of = |asked: Option<KillPolicy>, own| grace(asked.as_ref(), &task(own)).as_secs();
        assert_eq!(of(None, None), 3);
        assert_eq!(of(None, Some(policy(Some(7 * second)))), 7);
        assert_eq!(
            of(Some(policy(Some(9 * second))), Some(policy(Some(7 * second)))),
            9
        );
        assert_eq!(of(Some(policy(None)), Some(policy(Some(7 * second)))), 7);
        assert_eq!(of(Some(policy(None)), Some(policy(None))), 3);
        assert_eq!(of(Some(policy(Some(-1))), None), 0);
    }

    #[test]
    fn q_04_the_grace_leaves_time_for_the_last_words() {
        assert_eq!(most_grace(Duration::from_secs(5)), Duration::from_secs(4));
        assert_eq!(most_grace(Duration::from_secs(60)), Duration::from_secs(59));
        assert_eq!(most_grace(Duration::from_secs(1)), Duration::from_millis(750));
        assert_eq!(most_grace(Duration::ZERO), Duration::ZERO);
    }
}
