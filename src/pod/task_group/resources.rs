//! What was found for an instance, as Mesos wants to hear it back.

use crate::mesos::v1;

/// The resources of one instance: whole pieces of the offer, with their role and reservation kept.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Allocation {
    pub executor: Vec<v1::Resource>,
    /// In the order of the pod's containers.
    pub containers: Vec<Vec<v1::Resource>>,
    /// Host ports as `ports` resources; they belong to the executor.
    pub ports: Vec<v1::Resource>,
    pub host_ports: HostPorts,
}

/// The host port of every endpoint that asked for one, by endpoint name (unique over the pod).
pub type HostPorts = std::collections::BTreeMap<String, u16>;

impl Allocation {
    pub(super) fn for_executor(&self) -> Vec<v1::Resource> {
        self.executor.iter().chain(&self.ports).cloned().collect()
    }

    pub(super) fn for_container(&self, index: usize) -> Vec<v1::Resource> {
        self.containers.get(index).cloned().unwrap_or_default()
    }
}
