//! What the agent does to a status before it goes on to the master (wire file, section 13).

use std::net::IpAddr;

use crate::mesos::v1::{
    AgentId, ContainerId, ContainerStatus, ExecutorId, NetworkInfo, TaskId, TaskState, TaskStatus,
    network_info::{IpAddress, Protocol},
    task_status::{Reason, Source},
};

/// What the agent knows of an executor's container.
#[derive(Debug)]
pub(super) struct Known<'k> {
    pub agent: &'k str,
    pub executor: &'k str,
    pub address: IpAddr,
    pub container: &'k ContainerId,
    pub pid: Option<u32>,
    /// Of the network the executor's container has joined; none on the host's.
    pub network_infos: &'k [NetworkInfo],
}

/// Fills in and merges what the agent knows better than the executor.
pub(super) fn complete(mut status: TaskStatus, known: &Known<'_>, now: f64) -> TaskStatus {
    status.agent_id.get_or_insert_with(|| AgentId {
        value: known.agent.to_owned(),
    });
    status.timestamp.get_or_insert(now);
    status.source = Some(Source::Executor as i32);
    status.executor_id = Some(ExecutorId {
        value: known.executor.to_owned(),
    });

    let asked = status
        .container_status
        .as_ref()
        .and_then(|c| c.container_id.as_ref());
    if asked.is_some_and(|id| id != known.container) {
        // A container of the executor's own making: the containerizer knows nothing of it and the status goes on as
        // it came.
        return status;
    }
    let container = status.container_status.get_or_insert_default();
    container.container_id = Some(known.container.clone());
    container.executor_pid = known.pid.or(container.executor_pid);
    container.network_infos.extend_from_slice(known.network_infos);
    if container.network_infos.is_empty() {
        container.network_infos.push(network_of(known.address));
    }
    status
}

fn network_of(address: IpAddr) -> NetworkInfo {
    let protocol = match address {
        IpAddr::V4(_) => Protocol::IPv4,
        IpAddr::V6(_) => Protocol::IPv6,
    };
    NetworkInfo {
        ip_addresses: vec![IpAddress {
            protocol: Some(protocol as i32),
            ip_address: Some(address.to_string()),
        }],
        ..Default::default()
    }
}

/// A status of the agent's own making.
pub(super) fn made_by_agent(
    task: &str,
    state: TaskState,
    reason: Reason,
    message: String,
    known: &Known<'_>,
    now: f64,
) -> TaskStatus {
    TaskStatus {
        task_id: TaskId {
            value: task.to_owned(),
        },
        state: state as i32,
        source: Some(Source::Agent as i32),
        reason: Some(reason as i32),
        message: Some(message),
        timestamp: Some(now),
        uuid: Some(uuid::Uuid::new_v4().as_bytes().to_vec()),
        agent_id: Some(AgentId {
            value: known.agent.to_owned(),
        }),
        executor_id: Some(ExecutorId {
            value: known.executor.to_owned(),
        }),
        container_status: Some(ContainerStatus {
            container_id: Some(known.container.clone()),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container() -> ContainerId {
        ContainerId {
            value: "executor".into(),
            parent: None,
        }
    }

    fn completed(status: TaskStatus, network_infos: &[NetworkInfo]) -> TaskStatus {
        let known = Known {
            agent: "A",
            executor: "e",
            address: IpAddr::from([10, 0, 0, 5]),
            container: &container(),
            pid: Some(77),
            network_infos,
        };
        complete(status, &known, 5.5)
    }

    fn named(name: &str) -> NetworkInfo {
        NetworkInfo {
            name: Some(name.into()),
            ..Default::default()
        }
    }

    #[test]
    fn a_status_without_container_gets_the_executors() {
        let status = completed(TaskStatus::default(), &[]);
        assert_eq!(status.agent_id.unwrap().value, "A");
        assert_eq!(status.timestamp, Some(5.5));
        let merged = status.container_status.unwrap();
        assert_eq!(merged.container_id, Some(container()));
        assert_eq!(merged.executor_pid, Some(77));
        assert_eq!(merged.network_infos[0].ip_addresses[0].ip_address(), "10.0.0.5");
    }

    #[test]
    fn u_09_a_container_of_the_executors_own_stays_as_it_is() {
        let own = ContainerStatus {
            container_id: Some(ContainerId {
                value: "member".into(),
                parent: Some(Box::new(container())),
            }),
            network_infos: vec![named("mine")],
            ..Default::default()
        };
        let status = TaskStatus {
            container_status: Some(own.clone()),
            timestamp: Some(1.0),
            ..Default::default()
        };
        let status = completed(status, &[named("agents")]);
        assert_eq!(status.container_status, Some(own));
        assert_eq!(status.timestamp, Some(1.0));
    }

    #[test]
    fn network_infos_are_appended_not_replaced() {
        let status = TaskStatus {
            container_status: Some(ContainerStatus {
                network_infos: vec![named("mine")],
                ..Default::default()
            }),
            ..Default::default()
        };
        let names: Vec<_> = completed(status, &[named("agents")])
            .container_status
            .unwrap()
            .network_infos
            .into_iter()
            .filter_map(|n| n.name)
            .collect();
        assert_eq!(names, ["mine", "agents"]);
    }
}
