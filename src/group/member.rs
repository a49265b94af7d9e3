//! What is known of one member, and how it is told.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    event::{GroupId, MemberId},
    identity::Identity,
    state::State,
    wire::Wire,
};
use crate::mesos::v1::{
    self, CheckInfo, CheckStatusInfo, TaskState, TaskStatus, check_info, check_status_info,
    task_status::{Reason, Source},
};

/// One member of a group, from its arrival until its end is acknowledged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Member {
    pub id: MemberId,
    pub group: GroupId,
    pub task: Wire<v1::TaskInfo>,
    /// The value of its own ContainerID.
    pub container: String,
    pub state: State,
    /// The last result of its health check that was told; unset before the first (H-09).
    pub healthy: Option<bool>,
    /// The last result of its check; empty but typed before the first (C-06). Unset if it has no check.
    pub check: Option<Wire<CheckStatusInfo>>,
    /// Whether it is ready for work, if a check of that kind has said so.
    pub ready: Option<bool>,
    /// Its own addresses, if they are not those of the executor.
    pub network: Option<Vec<Wire<v1::NetworkInfo>>>,
    /// The agent has taken charge of at least one update, so it knows that the task reached us (S-09).
    pub acknowledged: bool,
}

impl Member {
    pub fn new(id: MemberId, group: GroupId, task: v1::TaskInfo, container: String, state: State) -> Member {
        let check = task.check.as_ref().map(|check| Wire::new(no_result(check)));
        Member {
            id,
            group,
            task: Wire(Arc::new(task)),
            container,
            state,
            healthy: None,
            check,
            ready: None,
            network: None,
            acknowledged: false,
        }
    }

    pub fn task_id(&self) -> &str {
        &self.task.task_id.value
    }

    /// Zero and unset mean no limit; so does a negative one, which validation refuses.
    pub fn max_completion_time(&self) -> Option<Duration> {
        let limit = self.task.max_completion_time.as_ref()?.nanoseconds;
        u64::try_from(limit)
            .ok()
            .filter(|n| *n > 0)
            .map(Duration::from_nanos)
    }

    /// An update of this member with everything that is the same in all of them, and the last known results of
    /// its checks (U-01, U-03).
    pub fn status(
        &self,
        state: TaskState,
        identity: &Identity,
        shared_network: &[Wire<v1::NetworkInfo>],
        uuid: uuid::Uuid,
        wall: f64,
    ) -> TaskStatus {
        let network = self.network.as_deref().unwrap_or(shared_network);
        TaskStatus {
            task_id: self.task.task_id.clone(),
            state: state.into(),
            source: Some(Source::Executor.into()),
            executor_id: Some(identity.executor_id()),
            timestamp: Some(wall),
            uuid: Some(uuid.as_bytes().to_vec()),
            healthy: self.healthy,
            check_status: self.check.as_deref().cloned(),
            labels: self.ready.map(readiness),
            container_status: Some(v1::ContainerStatus {
                container_id: Some(v1::ContainerId {
                    value: self.container.clone(),
                    parent: identity.container_id().map(Box::new),
                }),
                network_infos: network.iter().map(|info| (**info).clone()).collect(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }
}

/// The label by which readiness is told.
fn readiness(ready: bool) -> v1::Labels {
    v1::Labels {
        labels: vec![v1::Label {
            key: "podling.ready".into(),
            value: Some(ready.to_string()),
        }],
    }
}

/// The status of a check before its first result: its type and an empty sub-message.
pub fn no_result(check: &CheckInfo) -> CheckStatusInfo {
    let mut status = CheckStatusInfo {
        r#type: check.r#type,
        ..Default::default()
    };
    match check.r#type() {
        check_info::Type::Command => status.command = Some(check_status_info::Command::default()),
        check_info::Type::Http => status.http = Some(check_status_info::Http::default()),
        check_info::Type::Tcp => status.tcp = Some(check_status_info::Tcp::default()),
        check_info::Type::Unknown => {}
    }
    status
}

/// The limit that ended a member, as the status tells it (U-10).
pub fn memory_limitation(bytes: u64) -> v1::TaskResourceLimitation {
    const MEGABYTE: f64 = 1024.0 * 1024.0;
    v1::TaskResourceLimitation {
        resources: vec![v1::Resource {
            name: "mem".into(),
            r#type: v1::value::Type::Scalar.into(),
            scalar: Some(v1::value::Scalar {
                value: bytes as f64 / MEGABYTE,
            }),
            ..Default::default()
        }],
    }
}

/// What an update adds to [`Member::status`].
#[derive(Debug, Default)]
pub struct Telling {
    pub reason: Option<Reason>,
    pub message: Option<String>,
    pub limitation: Option<v1::TaskResourceLimitation>,
}
