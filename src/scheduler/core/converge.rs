//! What a pod needs next, from what it wants and what it has.

use super::{
    effect::{Change, Notice},
    event::Settings,
    instance::{Condition, Goal, Instance},
    machine::{Core, DeploymentKind, Out, PodState, Timer, changed},
    rollout::{self, Census},
};
use crate::pod::{
    InstanceId,
    model::{KillSelection, UnreachableStrategy},
};
use std::time::Duration;

/// Instances of a pod that are made in one step.
const SLICE: usize = 256;

impl Core {
    /// Brings one pod a step nearer to what is wanted. Does nothing when there is nothing to do, so it may be
    /// called after anything.
    pub(super) fn converge(&mut self, key: &str, out: &mut Out) {
        let Some(state) = self.pods.get_mut(key) else {
            return;
        };
        if state
            .backoff
            .expire(out.stamp.now, &state.stored.pod.scheduling.backoff)
        {
            out.store(state.trouble());
        }
        let mut fresh = state.bury(self.settings.relaunch, out);
        state.give_up_unreachable(out);
        if state.stored.removing {
            state.retire(state.instances.keys().cloned().collect(), out);
        } else {
            fresh |= state.fill(out);
        }
        state.pursue(&self.settings, out);
        state.drop_editions();
        let gone = state.close(out);
        if gone {
            self.pods.remove(key);
        }
        self.note_waiting(key, fresh, out);
    }
}

impl PodState {
    /// An instance of the configuration that is wanted now.
    pub(super) fn is_current(&self, instance: &Instance) -> bool {
        instance.config == self.stored.config
    }

    /// By the checks it was launched with: a check that came later says nothing about it.
    pub(super) fn is_ready(&self, instance: &Instance) -> bool {
        let edition = self.edition_of(instance);
        instance.is_ready(|container| edition.is_checked(container))
    }

    fn forget(&mut self, id: &InstanceId, out: &mut Out) {
        self.instances.remove(id);
        out.store(Change::ForgetInstance(id.clone()));
    }

    /// What has ended is launched again, or forgotten. True when something waits again.
    fn bury(&mut self, relaunch: bool, out: &mut Out) -> bool {
        let (mut again, mut failed) = (false, false);
        let over: Vec<InstanceId> = self
            .instances
            .values()
            .filter(|instance| instance.is_over() || instance.is_given_up())
            .map(|i| i.id.clone())
            .collect();
        for id in over {
            let (version, config) = (self.stored.version, self.stored.config);
            let Some(instance) = self.instances.get_mut(&id) else {
                continue;
            };
            let failure = instance.condition.is_failure();
            if failure {
                self.last_failure = Some(instance.clone());
                failed = true;
            }
            let wanted = instance.goal == Goal::Running && !self.stored.removing && instance.config == config;
            if !wanted {
                self.forget(&id, out);
                continue;
            }
            if !relaunch {
                continue;
            }
            if failure {
                self.backoff
                    .failed(out.stamp.now, &self.stored.pod.scheduling.backoff);
            }
            instance.reschedule(version, config, out.stamp.wall);
            instance.timers.waiting = out.stamp.now;
            self.order = self.order.saturating_add(1);
            instance.order = self.order;
            out.store(Change::Instance(instance.clone()));
            out.tell(changed(instance));
            again = true;
        }
        if failed {
            out.store(self.trouble());
        }
        again
    }

    /// Unreachable instances are replaced and in the end forgotten, as their pod says.
    fn give_up_unreachable(&mut self, out: &mut Out) {
        let UnreachableStrategy::Replace {
            inactive_after_seconds,
            expunge_after_seconds,
        } = self.stored.pod.scheduling.unreachable_strategy
        else {
            return;
        };
        let now = out.stamp.now;
        let mut expunged = Vec::new();
        for instance in self.instances.values() {
            let Some(since) = instance.timers.unreachable else {
                continue;
            };
            let away = now.saturating_sub(since);
            let limits = [inactive_after_seconds, expunge_after_seconds].map(Duration::from_secs);
            if away >= Duration::from_secs(expunge_after_seconds) {
                expunged.push(instance.id.clone());
            } else if let Some(next) = limits.into_iter().find(|limit| *limit > away) {
                out.wake(next - away, Timer::Instance(instance.id.clone()));
            }
        }
        for id in expunged {
            self.forget(&id, out);
        }
    }

    /// Away so long that another takes its place.
    fn is_inactive(&self, instance: &Instance, now: Duration) -> bool {
        match (
            self.stored.pod.scheduling.unreachable_strategy,
            instance.timers.unreachable,
        ) {
            (
                UnreachableStrategy::Replace {
                    inactive_after_seconds,
                    ..
                },
                Some(since),
            ) => now.saturating_sub(since) >= Duration::from_secs(inactive_after_seconds),
            _ => false,
        }
    }

    /// Starts what is missing and ends what is too much. True when something new waits.
    fn fill(&mut self, out: &mut Out) -> bool {
        let wanted = self.stored.pod.scaling.instances as usize;
        let now = out.stamp.now;
        let counts =
            |instance: &&Instance| instance.goal == Goal::Running && !self.is_inactive(instance, now);
        let (new, old): (Vec<&Instance>, Vec<&Instance>) = self
            .instances
            .values()
            .filter(counts)
            .partition(|instance| self.is_current(instance));
        let old_alive = self
            .instances
            .values()
            .filter(|i| !self.is_current(i) && !i.is_scheduled())
            .count();
        let ready = |instances: &[&Instance]| instances.iter().filter(|i| self.is_ready(i)).count();
        let census = Census {
            wanted,
            old: old.len(),
            old_ready: ready(&old),
            old_alive,
            new: new.len(),
            new_ready: ready(&new),
        };
        let surplus = census.new.saturating_sub(wanted);
        let mut retired = self.victims(new, surplus);
        let start = if old.is_empty() && old_alive == 0 {
            wanted.saturating_sub(census.new)
        } else {
            let moves = rollout::plan(census, self.stored.pod.scheduling.upgrade);
            retired.extend(self.victims(old, moves.kill_old));
            moves.start_new
        };
        self.retire(retired, out);
        // The rest is made between what else happens: a pod may ask for thousands.
        if start > SLICE {
            out.wake(Duration::ZERO, Timer::Pod(self.stored.pod.id.safe()));
        }
        for _ in 0..start.min(SLICE) {
            let id = InstanceId::new(&self.stored.pod.id, out.chance.uuid());
            let pod = self.stored.pod.id.clone();
            let mut instance = Instance::new(
                id.clone(),
                pod,
                self.stored.version,
                self.stored.config,
                out.stamp.wall,
            );
            instance.timers.waiting = now;
            instance.order = self.next_order();
            out.store(Change::Instance(instance.clone()));
            out.tell(changed(&instance));
            self.instances.insert(id, instance);
        }
        start > 0
    }

    /// Which of these go first: what serves nobody before what serves, then by age.
    fn victims(&self, mut candidates: Vec<&Instance>, count: usize) -> Vec<InstanceId> {
        let age = |instance: &Instance| match self.stored.pod.scheduling.kill_selection {
            KillSelection::YoungestFirst => u64::MAX - instance.order,
            KillSelection::OldestFirst => instance.order,
        };
        candidates.sort_by_key(|instance| {
            let rank = match instance.condition {
                Condition::Scheduled => 0,
                Condition::Provisioned => 1,
                Condition::Unreachable => 2,
                Condition::Staging => 3,
                Condition::Starting => 4,
                Condition::Running if self.is_ready(instance) => 6,
                _ => 5,
            };
            (rank, age(instance), instance.id.clone())
        });
        candidates
            .into_iter()
            .take(count)
            .map(|instance| instance.id.clone())
            .collect()
    }

    /// Ends these for good; what was never sent is simply forgotten.
    fn retire(&mut self, ids: Vec<InstanceId>, out: &mut Out) {
        for id in ids {
            let Some(instance) = self.instances.get_mut(&id) else {
                continue;
            };
            if instance.is_scheduled() || instance.condition == Condition::Unreachable {
                // It may come back from where it is now; then it is a stranger and told to go.
                self.forget(&id, out);
            } else if instance.goal != Goal::Decommissioned {
                instance.goal = Goal::Decommissioned;
                out.store(Change::Instance(instance.clone()));
            }
        }
    }

    /// Tells those that are to go, once for each connection to a master: an earlier scheduler may have decided it and
    /// died before it said so.
    fn pursue(&mut self, settings: &Settings, out: &mut Out) {
        let unasked = |i: &&mut Instance| i.goal == Goal::Decommissioned && i.timers.killed.is_none();
        for instance in self.instances.values_mut().filter(unasked) {
            settings.end(instance, out);
        }
    }

    /// Ends the deployment when there is nothing left to do for it. True when the pod itself is gone.
    fn close(&mut self, out: &mut Out) -> bool {
        let Some(deployment) = self.stored.deployment else {
            return false;
        };
        let id = self.stored.pod.id.clone();
        if deployment.kind == DeploymentKind::Remove {
            if !self.instances.is_empty() {
                return false;
            }
            out.store(Change::ForgetPod(id.clone()));
            out.tell(Notice::PodDeleted(id.clone()));
            out.tell(Notice::DeploymentSuccess {
                id: deployment.id,
                pod: id,
            });
            return true;
        }
        let now = out.stamp.now;
        let present = || {
            self.instances
                .values()
                .filter(|instance| !self.is_inactive(instance, now))
        };
        let settled = present().all(|i| self.is_current(i) && i.goal == Goal::Running && self.is_ready(i));
        if settled && present().count() == self.stored.pod.scaling.instances as usize {
            self.stored.deployment = None;
            out.store(Change::Pod(self.stored.clone()));
            out.tell(Notice::DeploymentSuccess {
                id: deployment.id,
                pod: id,
            });
        }
        false
    }
}
