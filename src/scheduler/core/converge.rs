//! What a pod needs next, from what it wants and what it has.

use super::{
    effect::{Change, Notice},
    event::Settings,
    instance::{Condition, Goal, Instance},
    machine::{Core, DeploymentKind, Out, PodState, Timer, changed},
    rollout,
};
use crate::pod::{InstanceId, model::UnreachableStrategy};
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
        state.fleet.look_back_to(state.horizon(out.stamp.now));
        let mut fresh = state.bury(self.settings.relaunch, out);
        state.give_up_unreachable(out);
        if state.stored.removing {
            state.retire(state.fleet.undecided(), out);
        } else {
            fresh |= state.fill(out);
        }
        state.pursue(&self.settings, out);
        state.fleet.drop_editions();
        let gone = state.close(out);
        if gone {
            self.pods.remove(key);
        }
        self.note_waiting(key, fresh, out);
    }
}

impl PodState {
    fn forget(&mut self, id: &InstanceId, out: &mut Out) {
        self.fleet.dismiss(id);
        out.store(Change::ForgetInstance(id.clone()));
    }

    /// What has ended is launched again, or forgotten. True when something waits again.
    fn bury(&mut self, relaunch: bool, out: &mut Out) -> bool {
        let (mut again, mut failed) = (false, false);
        for id in self.fleet.over() {
            let (version, config) = (self.stored.version, self.stored.config);
            let Some(instance) = self.fleet.get(&id) else {
                continue;
            };
            let failure = instance.condition.is_failure();
            let wanted = instance.goal == Goal::Running && !self.stored.removing && instance.config == config;
            if failure {
                self.last_failure = Some(instance.clone());
                failed = true;
            }
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
            let order = self.next_order();
            self.fleet.change(&id, |instance| {
                instance.reschedule(version, config, out.stamp.wall);
                instance.timers.waiting = out.stamp.now;
                instance.order = order;
                out.store(Change::Instance(instance.clone()));
                out.tell(changed(instance));
            });
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
        let [inactive, expunge] = [inactive_after_seconds, expunge_after_seconds].map(Duration::from_secs);
        if let Some(long_ago) = now.checked_sub(expunge) {
            for id in self.fleet.away_since(long_ago) {
                self.forget(&id, out);
            }
        }
        // Only the next of each kind: whoever is woken for it looks for the one after it.
        let next = [
            (self.fleet.first_away(None), expunge),
            (self.fleet.first_away(self.horizon(now)), inactive),
        ];
        for (first, limit) in next {
            if let Some((since, id)) = first {
                let left = since.saturating_add(limit).saturating_sub(now);
                out.wake(left, Timer::Instance(id.clone()));
            }
        }
    }

    /// Whoever is away since then or before is away so long that another takes its place.
    fn horizon(&self, now: Duration) -> Option<Duration> {
        match self.stored.pod.scheduling.unreachable_strategy {
            UnreachableStrategy::Replace {
                inactive_after_seconds,
                ..
            } => now.checked_sub(Duration::from_secs(inactive_after_seconds)),
            UnreachableStrategy::Disabled(_) => None,
        }
    }

    /// Starts what is missing and ends what is too much. True when something new waits.
    fn fill(&mut self, out: &mut Out) -> bool {
        let wanted = self.stored.pod.scaling.instances as usize;
        let now = out.stamp.now;
        let census = self.fleet.census(wanted);
        let surplus = census.new.saturating_sub(wanted);
        let mut retired: Vec<InstanceId> = self.fleet.first_of_current(surplus).collect();
        let start = if census.old == 0 && census.old_alive == 0 {
            wanted.saturating_sub(census.new)
        } else {
            let moves = rollout::plan(census, self.stored.pod.scheduling.upgrade);
            retired.extend(self.fleet.first_of_old(moves.kill_old));
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
            let mut instance =
                Instance::new(id, pod, self.stored.version, self.stored.config, out.stamp.wall);
            instance.timers.waiting = now;
            instance.order = self.next_order();
            out.store(Change::Instance(instance.clone()));
            out.tell(changed(&instance));
            self.fleet.admit(instance);
        }
        start > 0
    }

    /// Ends these for good; what was never sent is simply forgotten.
    fn retire(&mut self, ids: Vec<InstanceId>, out: &mut Out) {
        for id in ids {
            let Some(instance) = self.fleet.get(&id) else {
                continue;
            };
            if instance.is_scheduled() || instance.condition == Condition::Unreachable {
                // It may come back from where it is now; then it is a stranger and told to go.
                self.forget(&id, out);
            } else if instance.goal != Goal::Decommissioned {
                self.fleet.change(&id, |instance| {
                    instance.goal = Goal::Decommissioned;
                    out.store(Change::Instance(instance.clone()));
                });
            }
        }
    }

    /// Tells those that are to go, once for each connection to a master: an earlier scheduler may have decided it and
    /// died before it said so.
    fn pursue(&mut self, settings: &Settings, out: &mut Out) {
        for id in self.fleet.untold() {
            self.fleet.change(&id, |instance| settings.end(instance, out));
        }
    }

    /// Ends the deployment when there is nothing left to do for it. True when the pod itself is gone.
    fn close(&mut self, out: &mut Out) -> bool {
        let Some(deployment) = self.stored.deployment else {
            return false;
        };
        let id = self.stored.pod.id.clone();
        if deployment.kind == DeploymentKind::Remove {
            if !self.fleet.is_empty() {
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
        if self.fleet.is_settled(self.stored.pod.scaling.instances as usize) {
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
