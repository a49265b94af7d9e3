//! What can happen to a group.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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

impl Default for Settings {
    /// What an agent with default flags gives an executor without checkpointing.
    fn default() -> Self {
        Settings {
            checkpoint: false,
            recovery_timeout: Duration::from_secs(15 * 60),
            shutdown_grace: Duration::from_secs(5),
            launch_deadline: Duration::from_secs(10 * 60),
        }
    }
}

/// Names one member for the life of the executor. Task ids come back (E-07); these do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MemberId(pub u32);

/// Names one task group for the life of the executor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupId(pub u32);

#[derive(Debug, Clone)]
pub enum Event {
    // ---- from the agent
    /// SUBSCRIBED arrived, the first one or one after a disconnection.
    Subscribed(Arc<v1::executor::event::Subscribed>),
    /// A connection to the agent broke after a subscription (a failed attempt to reconnect is not an event, nor is
    /// the closing of a stream that a newer one replaced, S-16).
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
    /// SHUTDOWN from the agent, or SIGTERM from an operator. Also when the registration minute is over (S-04).
    Shutdown,

    // ---- from the members; one answer for each effect that asks, see [`Effect`](super::Effect)
    /// The member waits at its gate: everything done but the last exec.
    Prepared(MemberId),
    PrepareFailed(MemberId, Failure),
    /// The exec itself succeeded; the member waits before its first instruction.
    Held(MemberId),
    StartFailed(MemberId, Failure),
    /// A preparation or a gated member was given up and nothing of it is left.
    Discarded(MemberId),
    /// The member has ended and its cgroup is empty.
    Exited(MemberId, Exit),

    // ---- from the network and the checks
    /// The addresses to tell in updates from now on (U-09): of one member, or, with `None`, of every member that has
    /// none of its own. In host mode the shell takes them from the `AgentInfo` of SUBSCRIBED.
    Network {
        member: Option<MemberId>,
        infos: Vec<v1::NetworkInfo>,
    },
    /// What the executor is to have for a network cannot be had: no group of it can run. The sentence names the field.
    NetworkRefused(String),
    /// What members ask for and do not get on this node, for the first status of each.
    Lesser(String),
    /// A health check's result that counts: failures inside the grace period are not told (H-04).
    Health {
        member: MemberId,
        healthy: bool,
        message: Option<String>,
    },
    /// The failures that `HealthCheck.consecutive_failures` allows are used up (H-06); `message` names check, count
    /// and last error (G-06).
    Unhealthy {
        member: MemberId,
        message: String,
    },
    /// The member is ready for work, or not any more. `status` is the result as Mesos knows results, if nothing else
    /// has a claim on that field.
    Ready {
        member: MemberId,
        ready: bool,
        status: Option<v1::CheckStatusInfo>,
        message: Option<String>,
    },
    /// A general check's result; the machine tells only changes (C-02).
    Check {
        member: MemberId,
        status: v1::CheckStatusInfo,
        message: Option<String>,
    },

    /// The time that [`Machine::deadline`](super::Machine::deadline) named has come.
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    pub status: ExitStatus,
    /// Set when a resource limit ended it; wins over the status (G-08).
    pub limit: Option<Limit>,
    /// The last line it wrote, if it ended badly and wrote one: mostly the very reason.
    pub words: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    Code(i32),
    Signal(i32),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Limit {
    /// Killed for want of memory; `message` names process, limit and peak.
    Memory { limit_bytes: u64, message: String },
}
