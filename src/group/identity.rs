//! Who we are, as SUBSCRIBED tells it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    extras::{Extras, ExtrasError},
    wire::Wire,
};
use crate::mesos::v1::{self, executor::event::Subscribed, framework_info::capability::Type as Capability};

/// Our place in the cluster. Each SUBSCRIBED brings it anew (S-13).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    told: Wire<Subscribed>,
    extras: Result<Extras, ExtrasError>,
}

impl Identity {
    pub fn new(told: Arc<Subscribed>) -> Identity {
        let extras = Extras::parse(told.executor_info.data.as_deref().unwrap_or_default());
        Identity {
            told: Wire(told),
            extras,
        }
    }

    pub fn executor_id(&self) -> v1::ExecutorId {
        self.told.executor_info.executor_id.clone()
    }

    pub fn executor_info(&self) -> &v1::ExecutorInfo {
        &self.told.executor_info
    }

    pub fn container_id(&self) -> Option<v1::ContainerId> {
        self.told.container_id.clone()
    }

    pub fn extras(&self) -> &Result<Extras, ExtrasError> {
        &self.extras
    }

    /// The framework understands TASK_KILLING (U-05).
    pub fn knows_killing(&self) -> bool {
        self.can(Capability::TaskKillingState)
    }

    /// The framework understands TASK_DROPPED.
    pub fn is_partition_aware(&self) -> bool {
        self.can(Capability::PartitionAware)
    }

    fn can(&self, capability: Capability) -> bool {
        let capabilities = &self.told.framework_info.capabilities;
        capabilities.iter().any(|c| c.r#type == Some(capability.into()))
    }
}
