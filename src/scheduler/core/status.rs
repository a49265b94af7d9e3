//! The state of pods in the words of the API (API reference, section 8).

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;

use super::{
    instance::{Addresses, Condition, Goal, Instance, InstanceTask},
    machine::{Core, Deployment, DeploymentKind, PodState},
    matching::Reason,
    offers::UnusedOffer,
};
use crate::{
    mesos::v1::TaskState,
    pod::{InstanceId, Pod, PodId, Version, model, model::Container},
};

fn none<T>(value: &Option<T>) -> bool {
    value.is_none()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Overall {
    Degraded,
    Stable,
    Terminal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum InstanceState {
    Pending,
    Staging,
    Stable,
    Degraded,
    Terminal,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    pub id: PodId,
    pub spec: Arc<Pod>,
    pub status: Overall,
    pub status_since: Version,
    #[serde(skip_serializing_if = "none")]
    pub message: Option<String>,
    /// While instances are replaced; not in Marathon.
    #[serde(skip_serializing_if = "none")]
    pub rollout: Option<Rollout>,
    pub instances: Vec<InstanceStatus>,
    pub termination_history: Vec<Termination>,
    pub last_updated: Version,
    pub last_changed: Version,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    pub done: usize,
    pub wanted: usize,
    #[serde(skip_serializing_if = "none")]
    pub stuck: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceStatus {
    pub id: String,
    pub status: InstanceState,
    pub status_since: Version,
    #[serde(skip_serializing_if = "none")]
    pub message: Option<String>,
    #[serde(skip_serializing_if = "none")]
    pub agent_hostname: Option<String>,
    #[serde(skip_serializing_if = "none")]
    pub agent_id: Option<String>,
    pub resources: model::Resources,
    pub networks: Vec<Addresses>,
    pub containers: Vec<ContainerStatus>,
    pub spec_reference: String,
    pub last_updated: Version,
    pub last_changed: Version,
    pub role: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStatus {
    pub name: String,
    pub status: &'static str,
    pub status_since: Version,
    #[serde(skip_serializing_if = "none")]
    pub message: Option<String>,
    #[serde(skip_serializing_if = "none")]
    pub container_id: Option<String>,
    pub endpoints: Vec<EndpointStatus>,
    pub conditions: Vec<HealthCondition>,
    #[serde(skip_serializing_if = "none")]
    pub resources: Option<model::Resources>,
    #[serde(skip_serializing_if = "none")]
    pub termination: Option<ContainerEnd>,
    pub last_updated: Version,
    pub last_changed: Version,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointStatus {
    pub name: String,
    #[serde(skip_serializing_if = "none")]
    pub allocated_host_port: Option<u16>,
    #[serde(skip_serializing_if = "none")]
    pub healthy: Option<bool>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthCondition {
    pub name: &'static str,
    pub value: &'static str,
    pub reason: &'static str,
    pub last_changed: Version,
    pub last_updated: Version,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerEnd {
    #[serde(skip_serializing_if = "none")]
    pub message: Option<String>,
}

/// Both spellings of the instance's id: the API's own and the one the Go client reads.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Termination {
    #[serde(rename = "instanceID")]
    pub instance: String,
    pub instance_id: String,
    pub started_at: Version,
    pub terminated_at: Version,
    #[serde(skip_serializing_if = "none")]
    pub message: Option<String>,
    pub containers: Vec<TerminatedContainer>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TerminatedContainer {
    pub container_id: String,
    #[serde(skip_serializing_if = "none")]
    pub last_known_state: Option<&'static str>,
    #[serde(skip_serializing_if = "none")]
    pub termination: Option<ContainerEnd>,
}

/// A pod with instances to launch, for the queue.
#[derive(Debug)]
pub struct Waiting {
    pub pod: Arc<Pod>,
    pub count: usize,
    pub since: Version,
    /// For how long the one that waits longest has, whatever the time of day says.
    pub waited: std::time::Duration,
    /// Backing off for so long; `None`: waiting for an offer.
    pub delayed: Option<std::time::Duration>,
    pub processed: u64,
    pub unused: u64,
    /// How many of the latest offers each reason turned away; those that turned away none are not there.
    pub reasons: BTreeMap<Reason, usize>,
    pub latest: Vec<UnusedOffer>,
}

impl Core {
    /// Definitions, in the order of their ids.
    pub fn definitions(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.values().map(|state| &state.stored.pod)
    }

    pub fn definition(&self, id: &PodId) -> Option<&Arc<Pod>> {
        self.pods.get(&id.safe()).map(|state| &state.stored.pod)
    }

    pub fn all_instances(&self) -> impl Iterator<Item = &Instance> {
        self.pods.values().flat_map(|state| state.fleet.iter())
    }

    pub fn instance(&self, id: &InstanceId) -> Option<&Instance> {
        self.pods.get(id.safe_path())?.fleet.get(id)
    }

    /// Every deployment that is under way, with the pod it concerns.
    pub fn deployments(&self) -> impl Iterator<Item = (&PodId, &Deployment)> {
        self.pods
            .values()
            .filter_map(|state| Some((&state.stored.pod.id, state.stored.deployment.as_ref()?)))
    }

    pub fn status(&self, id: &PodId, now: Version) -> Option<PodStatus> {
        self.pods.get(&id.safe()).map(|state| pod_status(state, now))
    }

    pub fn statuses(&self, now: Version) -> Vec<PodStatus> {
        self.pods.values().map(|state| pod_status(state, now)).collect()
    }

    /// What waits to be launched, and why it still does.
    pub fn queue(&self, now: std::time::Duration) -> Vec<Waiting> {
        self.pods
            .values()
            .filter_map(|state| waiting(state, now))
            .collect()
    }
}

fn waiting(state: &PodState, now: std::time::Duration) -> Option<Waiting> {
    let scheduled = || state.fleet.scheduled();
    let since = scheduled().map(|instance| instance.since).min()?;
    let mut reasons = BTreeMap::new();
    for unused in &state.offers.latest {
        if let Some(first) = unused.refused.iter().map(|refused| refused.reason).min() {
            *reasons.entry(first).or_insert(0) += 1;
        }
    }
    Some(Waiting {
        pod: state.stored.pod.clone(),
        count: scheduled().count(),
        since,
        waited: scheduled()
            .map(|instance| now.saturating_sub(instance.timers.waiting))
            .max()
            .unwrap_or_default(),
        delayed: state
            .backoff
            .until()
            .and_then(|until| until.checked_sub(now))
            .filter(|left| !left.is_zero()),
        processed: state.offers.processed,
        unused: state.offers.unused,
        reasons,
        latest: state
            .offers
            .latest
            .iter()
            .map(|unused| (**unused).clone())
            .collect(),
    })
}

fn pod_status(state: &PodState, now: Version) -> PodStatus {
    let pod = &state.stored.pod;
    let instances: Vec<InstanceStatus> = state
        .fleet
        .iter()
        .map(|instance| instance_status(state.edition_of(instance), instance, now))
        .collect();
    let stable = instances
        .iter()
        .filter(|instance| instance.status == InstanceState::Stable)
        .count();
    let removing = state
        .stored
        .deployment
        .is_some_and(|d| d.kind == DeploymentKind::Remove);
    let status = match removing {
        true => Overall::Terminal,
        false if stable >= pod.scaling.instances as usize => Overall::Stable,
        false => Overall::Degraded,
    };
    let since = instances
        .iter()
        .map(|instance| instance.status_since)
        .max()
        .unwrap_or(now);
    PodStatus {
        id: pod.id.clone(),
        spec: pod.clone(),
        status,
        status_since: since,
        message: explain(state),
        rollout: state.progress().map(|progress| Rollout {
            done: progress.done,
            wanted: progress.wanted,
            stuck: progress.stuck,
        }),
        instances,
        termination_history: state.last_failure.iter().map(termination).collect(),
        last_updated: now,
        last_changed: since,
    }
}

/// One sentence on what is under way and what holds it up, for those who ask.
fn explain(state: &PodState) -> Option<String> {
    if let Some(progress) = state.progress() {
        let rolling = format!("rolling {}/{}", progress.done, progress.wanted);
        return Some(match progress.stuck {
            Some(why) => format!("{rolling}, stuck: {why}"),
            None => rolling,
        });
    }
    let waiting = state.fleet.scheduled().count();
    let unfit = state.offers.latest.back()?;
    (waiting > 0).then(|| {
        let waiting = match waiting {
            1 => "1 instance waits".to_owned(),
            _ => format!("{waiting} instances wait"),
        };
        format!(
            "{waiting} for an offer; the last one, of {}: {}",
            unfit.host,
            unfit.why()
        )
    })
}

fn instance_status(pod: &Pod, instance: &Instance, now: Version) -> InstanceStatus {
    let (status, message) = instance_state(pod, instance);
    let mut networks: BTreeMap<Option<String>, Vec<String>> = BTreeMap::new();
    for network in instance.tasks.values().flat_map(|task| &task.networks) {
        let known = networks.entry(network.name.clone()).or_default();
        known.extend(
            network
                .addresses
                .iter()
                .filter(|address| !known.contains(address))
                .cloned()
                .collect::<Vec<_>>(),
        );
    }
    let containers = pod
        .containers
        .iter()
        .filter_map(|container| {
            Some(container_status(
                container,
                instance,
                instance.tasks.get(&container.name)?,
                now,
            ))
        })
        .collect();
    InstanceStatus {
        id: instance.id.to_string(),
        status,
        status_since: instance.since,
        message: message.map(str::to_owned).or_else(|| instance.words()),
        agent_hostname: instance.placed.as_ref().map(|placed| placed.host.clone()),
        agent_id: instance.placed.as_ref().map(|placed| placed.agent.clone()),
        resources: total(pod),
        networks: networks
            .into_iter()
            .map(|(name, addresses)| Addresses { name, addresses })
            .collect(),
        containers,
        spec_reference: format!("/v2/pods{}::versions/{}", pod.id, instance.version),
        last_updated: now,
        last_changed: instance.since,
        role: pod.role.clone(),
    }
}

fn instance_state(pod: &Pod, instance: &Instance) -> (InstanceState, Option<&'static str>) {
    match instance.condition {
        Condition::Scheduled | Condition::Provisioned if instance.goal == Goal::Running => {
            (InstanceState::Pending, None)
        }
        Condition::Scheduled | Condition::Provisioned => (InstanceState::Terminal, None),
        Condition::Staging | Condition::Starting => (InstanceState::Staging, None),
        Condition::Running if instance.is_ready(|name| pod.is_checked(name)) => (InstanceState::Stable, None),
        Condition::Running => (
            InstanceState::Degraded,
            Some("at least one container is not healthy"),
        ),
        Condition::Unreachable => (
            InstanceState::Degraded,
            Some("pod instance has become unreachable"),
        ),
        Condition::Error
        | Condition::Failed
        | Condition::Finished
        | Condition::Killed
        | Condition::Killing
        | Condition::Gone
        | Condition::Dropped
        | Condition::Unknown => (InstanceState::Terminal, None),
    }
}

/// What the executor and all containers ask for together.
fn total(pod: &Pod) -> model::Resources {
    let executor = &pod.executor_resources;
    let start = model::Resources {
        cpus: executor.cpus,
        mem: executor.mem,
        disk: executor.disk,
        gpus: 0,
    };
    pod.containers
        .iter()
        .map(|container| container.resources)
        .fold(start, |sum, one| model::Resources {
            cpus: ((sum.cpus + one.cpus) * 1000.0).round() / 1000.0,
            mem: sum.mem + one.mem,
            disk: sum.disk + one.disk,
            gpus: sum.gpus.saturating_add(one.gpus),
        })
}

fn task_state(task: &InstanceTask) -> &'static str {
    let state = task.state.and_then(|state| TaskState::try_from(state).ok());
    state.unwrap_or(TaskState::TaskStaging).as_str_name()
}

fn container_status(
    container: &Container,
    instance: &Instance,
    task: &InstanceTask,
    now: Version,
) -> ContainerStatus {
    let active = !task.condition.is_terminal();
    let checked = container.health_check.is_some();
    let past_starting = !matches!(
        task.condition,
        Condition::Provisioned | Condition::Staging | Condition::Starting
    );
    let health = (checked && past_starting).then(|| HealthCondition {
        name: "healthy",
        value: if task.healthy == Some(true) {
            "true"
        } else {
            "false"
        },
        reason: if task.healthy.is_some() {
            "health-reported-by-mesos"
        } else {
            "health-unreported-by-mesos"
        },
        last_changed: task.since,
        last_updated: now,
    });
    ContainerStatus {
        name: container.name.clone(),
        status: task_state(task),
        status_since: task.since,
        message: task.message.clone(),
        container_id: task
            .state
            .map(|_| instance.id.task_id(&container.name, instance.incarnation)),
        endpoints: if active {
            endpoints(container, instance, task)
        } else {
            Vec::new()
        },
        conditions: health.into_iter().collect(),
        resources: active.then_some(container.resources),
        termination: (!active).then(|| ContainerEnd {
            message: task.message.clone(),
        }),
        last_updated: task.since,
        last_changed: task.since,
    }
}

fn endpoints(container: &Container, instance: &Instance, task: &InstanceTask) -> Vec<EndpointStatus> {
    let ports = instance.placed.as_ref().map(|placed| &placed.host_ports);
    let checked = match container.health_check.as_ref().map(|check| &check.probe) {
        Some(model::Probe::Http { endpoint, .. } | model::Probe::Tcp { endpoint }) => Some(endpoint),
        _ => None,
    };
    let mut all: Vec<EndpointStatus> = container
        .endpoints
        .iter()
        .map(|endpoint| EndpointStatus {
            name: endpoint.name.clone(),
            allocated_host_port: ports.and_then(|ports| ports.get(&endpoint.name)).copied(),
            healthy: if checked == Some(&endpoint.name) {
                task.healthy
            } else {
                None
            },
        })
        .collect();
    all.sort_by_key(|endpoint| {
        (
            checked == Some(&endpoint.name),
            endpoint.allocated_host_port.is_none(),
        )
    });
    all
}

fn termination(instance: &Instance) -> Termination {
    let containers = instance.tasks.iter().map(|(name, task)| TerminatedContainer {
        container_id: instance.id.task_id(name, instance.incarnation),
        last_known_state: task.state.map(|_| task_state(task)),
        termination: Some(ContainerEnd {
            message: task.message.clone(),
        }),
    });
    Termination {
        instance: instance.id.to_string(),
        instance_id: instance.id.to_string(),
        started_at: instance.active_since.unwrap_or(instance.since),
        terminated_at: instance.since,
        message: instance.words(),
        containers: containers.collect(),
    }
}
