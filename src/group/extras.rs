//! What a scheduler may ask of us beyond Mesos: versioned JSON in `ExecutorInfo.data`.

use serde::{Deserialize, Serialize};

/// Our own wishes of a scheduler, for all groups of an executor. Absent means plain Mesos semantics.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Extras {
    pub on_finish: OnFinish,
    /// As given; the network module knows what it means.
    pub network: Option<serde_json::Value>,
}

/// What a member that finished well means for the rest of its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFinish {
    /// The others go on, as in Mesos (G-01).
    #[default]
    Continue,
    /// Any end ends all.
    Kill,
}
