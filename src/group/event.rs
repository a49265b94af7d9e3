//! What can happen to a group.

use std::{sync::Arc, time::Duration};

use crate::mesos::v1;

/// When something happened, and fresh chance for what follows from it. Made by the shell for every event.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stamp {
    /// Monotonic time since the executor started; never goes back.
    pub now: Duration,
    /// Seconds since the epoch, for `TaskStatus.timestamp`.
    pub wall: f64,
    /// Fresh random bits; update uuids of this event are derived from them.
    pub entropy: [u8; 16],
}

/// Fixed for the life of an executor; read from the environment and the operator's configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// `MESOS_CHECKPOINT`: survive losing the agent (S-05, S-06).
    pub checkpoint: bool,
    /// `MESOS_RECOVERY_TIMEOUT`: how long to wait for the agent to come back (S-06, S-07).
    pub recovery_timeout: Duration,
    /// `MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD`.
    pub shutdown_grace: Duration,
    /// How long a group may take from arrival to the last release (L-15).
    pub launch_deadline: Duration,
}

/// Names one member for the life of the executor. Task ids come back (E-07); these do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct MemberId(pub u32);

#[derive(Debug, Clone)]
pub enum Event {
    // ---- from the agent
    /// SUBSCRIBED arrived, the first one or one after a disconnection.
    Subscribed(Arc<v1::executor::event::Subscribed>),
    /// A connection to the agent broke after a subscription (a failed attempt to reconnect is not an event).
    Disconnected,
    /// LAUNCH_GROUP, or LAUNCH as a group of one.
    LaunchGroup(Vec<v1::TaskInfo>),
    Kill {
        task: String,
        policy: Option<v1::KillPolicy>,
    },
    Acknowledged {
        task: String,
        uuid: Vec<u8>,
    },
    /// SHUTDOWN from the agent, or SIGTERM from an operator.
    Shutdown,

    // ---- from the members; one answer for each effect that asks, see [`Effect`](super::Effect)
    /// The member waits at its gate: everything done but the last exec.
    Prepared(MemberId),
    PrepareFailed(MemberId, Failure),
    /// The exec itself succeeded.
    Started(MemberId),
    StartFailed(MemberId, Failure),
    /// A preparation or a gated member was given up and nothing of it is left.
    Discarded(MemberId),
    /// The member has ended and its cgroup is empty.
    Exited(MemberId, Exit),

    /// A deadline that [`Machine::deadline`](super) named has passed.
    Tick,
}

/// Why a member could not be made ready or started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// A sentence that names member, step and cause.
    pub message: String,
    /// The definition itself was wrong (reason TASK_INVALID), not its execution.
    pub invalid: bool,
}

/// How a member ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Exit {
    pub status: ExitStatus,
    /// Set when a resource limit ended it; wins over the status (G-08).
    pub limit: Option<Limit>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    Code(i32),
    Signal(i32),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Limit {
    /// Killed for want of memory; `message` names process, limit and peak.
    Memory { limit_bytes: u64, message: String },
}
