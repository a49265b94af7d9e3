//! What an instance asks of an offer, as a value: whatever has the same shape fits into the same offers.

use super::{Milli, accepted_roles, milli};
use crate::pod::model::{Pod, Resources};

/// Everything of a definition that [`Pool::take`](super::Pool::take) looks at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shape {
    role: String,
    accepted: Vec<String>,
    executor: [Milli; 3],
    containers: Vec<[Milli; 4]>,
    /// By name, as a refusal tells it.
    host_ports: Vec<(String, u16)>,
}

impl Shape {
    pub fn of(pod: &Pod) -> Self {
        let executor = &pod.executor_resources;
        let container =
            |asked: &Resources| [asked.cpus, asked.mem, asked.disk, f64::from(asked.gpus)].map(milli);
        let endpoints = pod.containers.iter().flat_map(|container| &container.endpoints);
        Shape {
            role: pod.role.clone(),
            accepted: accepted_roles(pod).into_iter().map(str::to_owned).collect(),
            executor: [executor.cpus, executor.mem, executor.disk].map(milli),
            containers: pod
                .containers
                .iter()
                .map(|one| container(&one.resources))
                .collect(),
            host_ports: endpoints
                .filter_map(|endpoint| Some((endpoint.name.clone(), endpoint.host_port?)))
                .collect(),
        }
    }
}
