//! What the log is told of what happens: one line for each thing that an operator may look for.

use super::core::{Condition, Notice};
use crate::mesos::v1::task_status::Reason;

/// Failures are warnings, what people did is information, everything else is detail.
pub(super) fn tell(notice: &Notice) {
    match notice {
        Notice::PodCreated(pod) => tracing::info!("pod {pod} created"),
        Notice::PodUpdated(pod) => tracing::info!("pod {pod} changed"),
        Notice::PodDeleted(pod) => tracing::info!("pod {pod} removed"),
        Notice::DeploymentSuccess { id, pod } => tracing::info!("deployment {id} of pod {pod} is done"),
        Notice::DeploymentFailed { id, pod } => {
            tracing::info!("deployment {id} of pod {pod} gave way to another");
        }
        Notice::InstanceChanged {
            instance,
            condition,
            host,
            ..
        } => tracing::debug!(
            "instance {instance} is {condition:?} on {}",
            host.as_deref().unwrap_or("no agent yet")
        ),
        Notice::StatusUpdate {
            pod, host, status, ..
        } => {
            let task = &status.task_id.value;
            let state = status.state().as_str_name();
            let reason = status.reason.and_then(|reason| Reason::try_from(reason).ok());
            let reason = reason.map_or("no reason given", |reason| reason.as_str_name());
            let message = status.message.as_deref().unwrap_or_default().escape_debug();
            match Condition::of(status.state()) {
                Condition::Failed
                | Condition::Error
                | Condition::Dropped
                | Condition::Gone
                | Condition::Unreachable => {
                    tracing::warn!("task {task} of pod {pod} on {host}: {state} ({reason}): {message}");
                }
                _ => tracing::debug!("task {task} of pod {pod} on {host}: {state}"),
            }
        }
        Notice::UnknownInstanceTerminated { task } => tracing::debug!("unknown task {task} has ended"),
        // The session tells these with their reasons.
        Notice::Registered { .. } | Notice::Disconnected => {}
    }
}
