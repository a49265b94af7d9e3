//! What can happen to the scheduler.

use std::{sync::Arc, time::Duration};

use uuid::Uuid;

use crate::{
    mesos::v1,
    pod::{InstanceId, Pod, PodId, Version, task_group},
};

/// When something happened, and fresh chance for what follows from it. Made by the shell for every step.
#[derive(Debug, Clone, Copy)]
pub struct Stamp {
    /// Monotonic; every timer counts on it.
    pub now: Duration,
    /// Wall clock; what people see, and the source of versions.
    pub wall: Version,
    /// Fresh random bits: ids and port choices are derived from them.
    pub entropy: u128,
}

/// Fixed for the life of a scheduler.
#[derive(Debug, Clone)]
pub struct Settings {
    pub launch: task_group::Options,
    /// Whether an instance that has ended is launched again. Without, it stays as it ended.
    pub relaunch: bool,
    /// How long the master should not offer what nobody wants now.
    pub decline_idle: Duration,
    /// The same while something waits for a better offer.
    pub decline_waiting: Duration,
    /// How long offers are held that nobody needs yet.
    pub offer_linger: Duration,
    /// At most one REVIVE in this time.
    pub revive_interval: Duration,
    /// A launch that is not confirmed in this time is given up.
    pub launch_timeout: Duration,
    /// A KILL is repeated at this pace until it is answered.
    pub kill_retry: Duration,
    /// An executor whose tasks have all ended is told to go when it has not gone by itself in this time.
    pub executor_patience: Duration,
    pub reconcile_interval: Duration,
    /// How long after a subscription an agent that the master does not know may still come back to it.
    pub agents_return: Duration,
    /// First pause before an unanswered reconciliation is asked again; doubles up to the interval.
    pub reconcile_retry: Duration,
}

impl Settings {
    pub fn new(launch: task_group::Options) -> Self {
        Settings {
            launch,
            relaunch: true,
            decline_idle: Duration::from_secs(120),
            decline_waiting: Duration::from_secs(5),
            offer_linger: Duration::from_millis(500),
            revive_interval: Duration::from_millis(250),
            launch_timeout: Duration::from_secs(300),
            kill_retry: Duration::from_secs(30),
            // It may wait for the agent to acknowledge its last word.
            executor_patience: Duration::from_secs(75),
            reconcile_interval: Duration::from_secs(600),
            // As long as a master waits for the agents in its registry.
            agents_return: Duration::from_secs(600),
            reconcile_retry: Duration::from_secs(1),
        }
    }
}

#[derive(Debug, Clone)]
pub enum Event {
    /// Subscribed, for the first time or again.
    Registered(v1::FrameworkId),
    /// The stream to the master ended.
    Disconnected,
    Offers(Vec<v1::Offer>),
    /// An offer is no longer good.
    Rescinded(v1::OfferId),
    Update(Box<v1::TaskStatus>),
    /// This executor has ended. Not every end is told.
    ExecutorEnded(v1::ExecutorId),
    /// A deadline that [`Core::deadline`](super::Core::deadline) named has passed.
    Tick,
}

/// What people ask for.
#[derive(Debug, Clone)]
pub enum Command {
    Create(Pod),
    Update {
        pod: Pod,
        force: bool,
    },
    Remove {
        id: PodId,
        force: bool,
    },
    /// Without `wipe` the same instances are launched again; with it others take their place.
    Kill {
        pod: PodId,
        instances: Vec<InstanceId>,
        wipe: bool,
    },
    /// Whatever made the launches of a pod wait is repaired.
    ResetDelay(PodId),
}

/// A command that was taken on.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// The deployment that was started; set even when nothing had to change.
    pub deployment: Uuid,
    /// The definition as it now stands; `None` when it is being removed.
    pub pod: Option<Arc<Pod>>,
    /// The instances concerned, as they were.
    pub instances: Vec<super::Instance>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("A pod with id [{0}] already exists.")]
    Exists(PodId),
    #[error("Pod '{0}' does not exist")]
    Unknown(PodId),
    #[error("Groups and Pods may not have the same identifier: {id} and {other} are pods")]
    Group { id: PodId, other: PodId },
    #[error("Application {0} not found in tasks queue.")]
    NotQueued(PodId),
    #[error(
        "App is locked by one or more deployments. Override with the option '?force=true'. View details at \
         '/v2/deployments/<DEPLOYMENT_ID>'."
    )]
    Locked { deployment: Uuid },
}
