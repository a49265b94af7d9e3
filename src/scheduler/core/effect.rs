//! What the scheduler wants done.

use std::{sync::Arc, time::Duration};

use uuid::Uuid;

use super::{
    instance::{Condition, Instance},
    machine::{StoredPod, Trouble},
};
use crate::{
    mesos::v1,
    pod::{InstanceId, Pod, PodId, Version},
};

#[derive(Debug, Clone)]
pub enum Effect {
    /// Store these changes, all or none, before anything that follows is done.
    Persist(Vec<Change>),
    Accept {
        offer: v1::OfferId,
        operations: Vec<v1::offer::Operation>,
    },
    Decline {
        offers: Vec<v1::OfferId>,
        refuse: Duration,
    },
    Kill {
        task: v1::TaskId,
        agent: Option<v1::AgentId>,
    },
    /// Ends an executor, whatever it still does.
    Shutdown {
        executor: v1::ExecutorId,
        agent: v1::AgentId,
    },
    Acknowledge {
        task: v1::TaskId,
        agent: v1::AgentId,
        uuid: Vec<u8>,
    },
    /// Empty: everything the master knows of us.
    Reconcile(Vec<(v1::TaskId, Option<v1::AgentId>)>),
    Revive,
    Suppress,
    /// Tell whoever listens.
    Publish(Notice),
}

/// One record of the store.
#[derive(Debug, Clone)]
pub enum Change {
    Framework(String),
    Pod(StoredPod),
    /// A version joins the history of its pod; the history outlives the pod.
    Version(Arc<Pod>),
    ForgetPod(PodId),
    Instance(Instance),
    ForgetInstance(InstanceId),
    /// What went wrong with a pod of late; nothing when all is forgotten.
    Trouble(PodId, Trouble),
}

/// What happened, for the event stream and for people who watch.
#[derive(Debug, Clone)]
pub enum Notice {
    PodCreated(PodId),
    PodUpdated(PodId),
    PodDeleted(PodId),
    InstanceChanged {
        pod: PodId,
        instance: InstanceId,
        version: Version,
        condition: Condition,
        agent: Option<String>,
        host: Option<String>,
    },
    StatusUpdate {
        pod: PodId,
        version: Version,
        host: String,
        status: Box<v1::TaskStatus>,
    },
    UnknownInstanceTerminated {
        task: String,
    },
    DeploymentSuccess {
        id: Uuid,
        pod: PodId,
    },
    DeploymentFailed {
        id: Uuid,
        pod: PodId,
    },
    Registered {
        framework: String,
    },
    Disconnected,
}
