//! What people ask for.

use std::sync::Arc;

use super::{
    effect::{Change, Notice},
    event::{Accepted, Refusal},
    instance::Goal,
    machine::{Core, Deployment, DeploymentKind, Out, PodState, StoredPod},
};
use crate::pod::{InstanceId, Pod, PodId};

impl Core {
    pub(super) fn create(&mut self, mut pod: Pod, out: &mut Out) -> Result<Accepted, Refusal> {
        let key = pod.id.safe();
        if self.pods.contains_key(&key) {
            return Err(Refusal::Exists(pod.id));
        }
        if let Some(other) = self.kin(&key) {
            let other = other.clone();
            return Err(Refusal::Group { id: pod.id, other });
        }
        let version = self.versions.next(out.stamp.wall);
        pod.version = Some(version);
        let pod = Arc::new(pod);
        let deployment = Deployment {
            id: out.chance.uuid(),
            kind: DeploymentKind::Create,
            since: version,
        };
        let stored = StoredPod {
            pod: pod.clone(),
            version,
            config: version,
            removing: false,
            deployment: Some(deployment),
        };
        out.store(Change::Version(pod.clone()));
        out.store(Change::Pod(stored.clone()));
        out.tell(Notice::PodCreated(pod.id.clone()));
        self.pods.insert(key.clone(), PodState::new(stored));
        self.converge(&key, out);
        Ok(Accepted {
            deployment: deployment.id,
            pod: Some(pod),
            instances: Vec::new(),
        })
    }

    /// A pod that would be a group of this one, or in the group that this one would be. A safe path holds `_` only
    /// for the slashes of the path.
    fn kin(&self, key: &str) -> Option<&PodId> {
        let parents = key.match_indices('_').filter_map(|(end, _)| key.get(..end));
        let parent = parents.filter_map(|parent| self.pods.get(parent)).next();
        let below = format!("{key}_");
        let child = || {
            self.pods
                .range(below.clone()..)
                .next()
                .filter(|(found, _)| found.starts_with(&below))
                .map(|(_, state)| state)
        };
        parent.or_else(child).map(|state| &state.stored.pod.id)
    }

    /// Launches again what waits for nothing but its delay.
    pub(super) fn reset_delay(&mut self, id: &PodId, out: &mut Out) -> Result<Accepted, Refusal> {
        let key = id.safe();
        let state = self
            .pods
            .get_mut(&key)
            .filter(|state| state.fleet.has_scheduled())
            .ok_or_else(|| Refusal::NotQueued(id.clone()))?;
        state.backoff.reset();
        out.store(state.trouble());
        let pod = Some(state.stored.pod.clone());
        self.note_waiting(&key, true, out);
        Ok(Accepted {
            deployment: out.chance.uuid(),
            pod,
            instances: Vec::new(),
        })
    }

    pub(super) fn update(&mut self, mut pod: Pod, force: bool, out: &mut Out) -> Result<Accepted, Refusal> {
        let key = pod.id.safe();
        let Some(state) = self.pods.get_mut(&key) else {
            return self.create(pod, out);
        };
        state.locked(force)?;
        let id = out.chance.uuid();
        let before = &state.stored.pod;
        pod.version = before.version;
        if pod == **before && !state.stored.removing {
            return Ok(Accepted {
                deployment: id,
                pod: Some(before.clone()),
                instances: Vec::new(),
            });
        }
        let kind = if pod.restarts(before) {
            DeploymentKind::Restart
        } else {
            DeploymentKind::Scale
        };
        let version = self.versions.next(out.stamp.wall);
        pod.version = Some(version);
        let pod = Arc::new(pod);
        state.supersede(out);
        state
            .fleet
            .keep_edition(state.stored.version, state.stored.pod.clone());
        state.stored.pod = pod.clone();
        state.stored.version = version;
        state.stored.removing = false;
        state.stored.deployment = Some(Deployment {
            id,
            kind,
            since: version,
        });
        if kind == DeploymentKind::Restart {
            state.stored.config = version;
            state.backoff.reset();
            out.store(state.trouble());
        }
        state.fleet.measure_by(&state.stored);
        state.offers.forget();
        out.store(Change::Version(pod.clone()));
        out.store(Change::Pod(state.stored.clone()));
        out.tell(Notice::PodUpdated(pod.id.clone()));
        self.converge(&key, out);
        Ok(Accepted {
            deployment: id,
            pod: Some(pod),
            instances: Vec::new(),
        })
    }

    pub(super) fn remove(&mut self, id: &PodId, force: bool, out: &mut Out) -> Result<Accepted, Refusal> {
        let key = id.safe();
        let state = self
            .pods
            .get_mut(&key)
            .ok_or_else(|| Refusal::Unknown(id.clone()))?;
        state.locked(force)?;
        let deployment = out.chance.uuid();
        state.supersede(out);
        state.stored.removing = true;
        state.stored.deployment = Some(Deployment {
            id: deployment,
            kind: DeploymentKind::Remove,
            since: out.stamp.wall,
        });
        out.store(Change::Pod(state.stored.clone()));
        self.converge(&key, out);
        Ok(Accepted {
            deployment,
            pod: None,
            instances: Vec::new(),
        })
    }

    pub(super) fn kill(
        &mut self,
        pod: &PodId,
        ids: &[InstanceId],
        wipe: bool,
        out: &mut Out,
    ) -> Result<Accepted, Refusal> {
        let key = pod.safe();
        let state = self
            .pods
            .get_mut(&key)
            .ok_or_else(|| Refusal::Unknown(pod.clone()))?;
        let mut concerned = Vec::new();
        for id in ids {
            concerned.extend(state.fleet.get(id).cloned());
            state.fleet.change(id, |instance| {
                if wipe {
                    instance.goal = Goal::Decommissioned;
                    instance.timers.killed = None;
                    out.store(Change::Instance(instance.clone()));
                } else {
                    self.settings.end(instance, out);
                }
            });
        }
        let pod = Some(state.stored.pod.clone());
        self.converge(&key, out);
        Ok(Accepted {
            deployment: out.chance.uuid(),
            pod,
            instances: concerned,
        })
    }
}

impl PodState {
    fn locked(&self, force: bool) -> Result<(), Refusal> {
        match self.stored.deployment {
            // What cannot go on must not stand in the way of its own repair.
            Some(deployment) if !force && self.stuck().is_none() => Err(Refusal::Locked {
                deployment: deployment.id,
            }),
            _ => Ok(()),
        }
    }

    /// The running deployment, if any, gives way to another.
    fn supersede(&mut self, out: &mut Out) {
        if let Some(deployment) = self.stored.deployment.take() {
            out.tell(Notice::DeploymentFailed {
                id: deployment.id,
                pod: self.stored.pod.id.clone(),
            });
        }
    }
}

impl Pod {
    /// Whether this container has a health check.
    pub(super) fn is_checked(&self, container: &str) -> bool {
        let named = self.containers.iter().find(|known| known.name == container);
        named.is_some_and(|known| known.health_check.is_some())
    }

    /// Whether running instances of `before` have to be replaced by instances of this definition.
    fn restarts(&self, before: &Pod) -> bool {
        let mut same = before.clone();
        same.version = self.version;
        same.scaling.clone_from(&self.scaling);
        same.executor_resources = self.executor_resources;
        same.scheduling.kill_selection = self.scheduling.kill_selection;
        same.scheduling.unreachable_strategy = self.scheduling.unreachable_strategy;
        same != *self
    }
}
