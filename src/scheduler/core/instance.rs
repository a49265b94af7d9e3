//! One copy of a pod, and the condition its tasks put it in.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::event::Settings;
use crate::{
    mesos::v1::{self, TaskState},
    pod::{InstanceId, PodId, Version, task_group::HostPorts},
};

/// What an instance is meant to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Goal {
    Running,
    /// Ends, and is forgotten when it has.
    Decommissioned,
}

/// The state of an instance as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// Waits for an offer.
    Scheduled,
    /// Matched with an offer and sent, not yet heard of.
    Provisioned,
    Staging,
    Starting,
    Running,
    Killing,
    Unreachable,
    Finished,
    Killed,
    Failed,
    Error,
    Dropped,
    Gone,
    Unknown,
}

/// When several tasks differ, the first of these speaks for the instance (API reference, section 8.2).
const SPEAKS_FIRST: [Condition; 14] = [
    Condition::Error,
    Condition::Failed,
    Condition::Gone,
    Condition::Dropped,
    Condition::Unreachable,
    Condition::Killing,
    Condition::Starting,
    Condition::Staging,
    Condition::Unknown,
    Condition::Provisioned,
    Condition::Scheduled,
    Condition::Running,
    Condition::Finished,
    Condition::Killed,
];

impl Condition {
    pub fn of(state: TaskState) -> Self {
        match state {
            TaskState::TaskStaging => Condition::Staging,
            TaskState::TaskStarting => Condition::Starting,
            TaskState::TaskRunning => Condition::Running,
            TaskState::TaskKilling => Condition::Killing,
            TaskState::TaskFinished => Condition::Finished,
            TaskState::TaskFailed => Condition::Failed,
            TaskState::TaskKilled => Condition::Killed,
            TaskState::TaskError => Condition::Error,
            TaskState::TaskLost | TaskState::TaskGone | TaskState::TaskGoneByOperator => Condition::Gone,
            TaskState::TaskDropped => Condition::Dropped,
            TaskState::TaskUnreachable => Condition::Unreachable,
            TaskState::TaskUnknown => Condition::Unknown,
        }
    }

    /// The task will not be heard of again.
    pub fn is_terminal(self) -> bool {
        match self {
            Condition::Finished
            | Condition::Killed
            | Condition::Failed
            | Condition::Error
            | Condition::Dropped
            | Condition::Gone
            | Condition::Unknown => true,
            Condition::Scheduled
            | Condition::Provisioned
            | Condition::Staging
            | Condition::Starting
            | Condition::Running
            | Condition::Killing
            | Condition::Unreachable => false,
        }
    }

    /// Ends that make the next launch wait; an end that somebody asked for does not.
    pub fn is_failure(self) -> bool {
        self.is_terminal() && self != Condition::Killed && self != Condition::Unknown
    }
}

/// One container of an instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstanceTask {
    pub condition: Condition,
    /// The Mesos state as it came, once one came.
    pub state: Option<i32>,
    pub since: Version,
    pub healthy: Option<bool>,
    pub message: Option<String>,
    pub reason: Option<i32>,
    /// Networks and addresses, as the executor reported them.
    pub networks: Vec<Addresses>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    pub name: Option<String>,
    pub addresses: Vec<String>,
}

/// The agent an instance was sent to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    pub agent: String,
    pub host: String,
    pub host_ports: HostPorts,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    pub id: InstanceId,
    pub pod: PodId,
    /// The version it runs, or will run.
    pub version: Version,
    /// The configuration that version belongs to; scaling does not change it.
    pub config: Version,
    /// Grows each time the same instance is launched again.
    pub incarnation: u32,
    pub goal: Goal,
    pub condition: Condition,
    pub since: Version,
    /// Since when it runs, as people see it.
    pub active_since: Option<Version>,
    /// Its place in the order of killing: grows with every instance of the pod that is made or begins to run. Kept
    /// beside the times because clocks are set back. Zero in what older versions stored.
    #[serde(default)]
    pub order: u64,
    pub placed: Option<Placed>,
    /// By container name; empty while it waits for an offer.
    pub tasks: BTreeMap<String, InstanceTask>,
    /// Timers start anew with every scheduler and are not stored.
    #[serde(skip)]
    pub timers: Timers,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Timers {
    /// Since when it waits for an offer.
    pub waiting: Duration,
    /// When it was sent, to notice a launch nobody confirms.
    pub sent: Option<Duration>,
    /// When it was last told to go.
    pub killed: Option<Duration>,
    pub unreachable: Option<Duration>,
}

impl Instance {
    pub fn new(id: InstanceId, pod: PodId, version: Version, config: Version, since: Version) -> Self {
        Instance {
            id,
            pod,
            version,
            config,
            incarnation: 1,
            goal: Goal::Running,
            condition: Condition::Scheduled,
            since,
            active_since: None,
            order: 0,
            placed: None,
            tasks: BTreeMap::new(),
            timers: Timers::default(),
        }
    }

    /// Back to waiting for an offer, as the next incarnation.
    pub fn reschedule(&mut self, version: Version, config: Version, since: Version) {
        let next = self.incarnation.saturating_add(1);
        *self = Instance {
            incarnation: next,
            ..Instance::new(self.id.clone(), self.pod.clone(), version, config, since)
        };
    }

    pub fn is_scheduled(&self) -> bool {
        self.condition == Condition::Scheduled
    }

    /// Its timers after a restart of the scheduler; when they have to be looked at, if ever.
    pub fn resume(&mut self, now: Duration, settings: &Settings) -> Option<Duration> {
        match self.condition {
            Condition::Provisioned | Condition::Staging => {
                self.timers.sent = Some(now);
                Some(now.saturating_add(settings.launch_timeout))
            }
            Condition::Unreachable => {
                self.timers.unreachable = Some(now);
                Some(now)
            }
            _ => None,
        }
    }

    /// Nothing of it runs, and nothing is on its way.
    pub fn is_over(&self) -> bool {
        !self.is_scheduled() && self.tasks.values().all(|task| task.condition.is_terminal())
    }

    /// To go for good, and out of reach: nobody waits for its end.
    pub fn is_given_up(&self) -> bool {
        self.goal == Goal::Decommissioned && self.condition == Condition::Unreachable
    }

    /// Runs, and every check that there is says so.
    pub fn is_ready(&self, checked: impl Fn(&str) -> bool) -> bool {
        self.condition == Condition::Running
            && self.tasks.iter().all(|(name, task)| match task.healthy {
                // It has done what it was there for.
                _ if task.condition == Condition::Finished => true,
                Some(healthy) => healthy,
                None => !checked(name),
            })
    }

    /// What the task that decided the instance's condition had to say.
    pub fn words(&self) -> Option<String> {
        let spoke = |task: &&InstanceTask| task.condition == self.condition && task.message.is_some();
        self.tasks
            .values()
            .find(spoke)
            .and_then(|task| task.message.clone())
    }

    /// Task ids of what still runs, in the order of container names.
    pub fn live_tasks(&self) -> impl Iterator<Item = String> {
        self.tasks
            .iter()
            .filter(|(_, task)| !task.condition.is_terminal())
            .map(|(container, _)| self.id.task_id(container, self.incarnation))
    }

    pub fn agent(&self) -> Option<v1::AgentId> {
        self.placed.as_ref().map(|placed| v1::AgentId {
            value: placed.agent.clone(),
        })
    }

    /// Derives the condition of the whole from its tasks; true when it changed.
    pub fn settle(&mut self, now: Version) -> bool {
        let spoken = |condition: &&Condition| self.tasks.values().any(|task| task.condition == **condition);
        let Some(condition) = SPEAKS_FIRST.iter().find(spoken).copied() else {
            return false;
        };
        if condition == Condition::Running && self.active_since.is_none() {
            self.active_since = Some(now);
        }
        let changed = condition != self.condition;
        if changed {
            self.condition = condition;
            self.since = now;
        }
        changed
    }
}

impl InstanceTask {
    pub fn sent(since: Version) -> Self {
        InstanceTask {
            condition: Condition::Provisioned,
            state: None,
            since,
            healthy: None,
            message: None,
            reason: None,
            networks: Vec::new(),
        }
    }

    /// Takes over what a status says; true when it says something new.
    pub fn take(&mut self, status: &v1::TaskStatus, now: Version) -> bool {
        let before = self.clone();
        let condition = Condition::of(status.state());
        if condition != self.condition {
            self.since = now;
        }
        self.condition = condition;
        self.state = Some(status.state);
        self.healthy = status.healthy.or(self.healthy);
        // A master that is asked repeats the state, but not the words that came with it.
        let repeats =
            status.reason() == v1::task_status::Reason::Reconciliation && before.state == Some(status.state);
        if !repeats {
            self.message.clone_from(&status.message);
            self.reason = status.reason;
        }
        if let Some(container) = &status.container_status {
            self.networks = container.network_infos.iter().map(addresses).collect();
        }
        *self != before
    }
}

fn addresses(info: &v1::NetworkInfo) -> Addresses {
    Addresses {
        name: info.name.clone(),
        addresses: info
            .ip_addresses
            .iter()
            .filter_map(|address| address.ip_address.clone())
            .collect(),
    }
}
