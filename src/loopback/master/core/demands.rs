//! What only a master demands of a launch (wire file, section 16). What every executor has to demand, too, is in
//! [`crate::group::validate`].

use crate::mesos::v1::{
    AgentId, ExecutorId, ExecutorInfo, Resource, TaskInfo, container_info, executor_info,
};

/// More single ranges than this are an attack on whoever has to add them up.
const MOST_RANGES: usize = 1024;

/// Under which executor a task of LAUNCH runs: its own, or one that its agent makes for its command.
pub(super) fn executor_of(task: &TaskInfo) -> Result<ExecutorInfo, String> {
    match (&task.executor, &task.command) {
        (Some(executor), None) => Ok(executor.clone()),
        (None, Some(command)) => Ok(ExecutorInfo {
            r#type: Some(executor_info::Type::Default as i32),
            executor_id: ExecutorId {
                value: task.task_id.value.clone(),
            },
            name: Some(format!(
                "Command Executor (Task: {}) (Command: {})",
                task.task_id.value,
                command.value()
            )),
            ..Default::default()
        }),
        (Some(_), Some(_)) | (None, None) => {
            Err("Task should have exactly one of CommandInfo or ExecutorInfo present".to_owned())
        }
    }
}

/// Everything that is wrong.
pub(super) fn faults(
    tasks: &[TaskInfo],
    executor: &ExecutorInfo,
    agent: &AgentId,
    singly: bool,
) -> Vec<String> {
    let mut faults = Vec::new();
    let mut fault = |message: String| faults.push(message);
    if !singly {
        group_executor(executor, &mut fault);
        if tasks.is_empty() {
            fault("Task group has no tasks".to_owned());
        }
    }
    resources("ExecutorInfo", &executor.resources, &mut fault);
    for task in tasks {
        let id = &task.task_id.value;
        if task.agent_id != *agent {
            fault(format!(
                "Task {id} uses invalid agent {} while agent {} is expected",
                task.agent_id.value, agent.value
            ));
        }
        if task.resources.is_empty() {
            fault(format!("Task {id} uses no resources"));
        }
        resources(&format!("Task {id}"), &task.resources, &mut fault);
        if !singly && task.executor.as_ref().is_some_and(|own| !agrees(own, executor)) {
            fault(format!("Task {id} has another ExecutorInfo than its group"));
        }
    }
    faults
}

/// The framework's id may be left for the master to fill in.
fn agrees(own: &ExecutorInfo, executor: &ExecutorInfo) -> bool {
    let mut own = own.clone();
    own.framework_id = own.framework_id.or_else(|| executor.framework_id.clone());
    own == *executor
}

fn group_executor(executor: &ExecutorInfo, fault: &mut impl FnMut(String)) {
    match executor.r#type.map(|_| executor.r#type()) {
        None | Some(executor_info::Type::Unknown) => fault("'ExecutorInfo.type' must be set".to_owned()),
        Some(executor_info::Type::Default) => {
            if executor.command.is_some() {
                fault("'ExecutorInfo.command' must not be set for 'DEFAULT' executor".to_owned());
            }
            let container = executor.container.as_ref();
            if container.is_some_and(|c| {
                c.r#type() != container_info::Type::Mesos
                    || c.mesos.as_ref().is_some_and(|mesos| mesos.image.is_some())
            }) {
                fault(
                    "'ExecutorInfo.container' of a 'DEFAULT' executor must be MESOS without image".to_owned(),
                );
            }
        }
        Some(executor_info::Type::Custom) => {
            if executor.command.is_none() {
                fault("'ExecutorInfo.command' must be set for 'CUSTOM' executor".to_owned());
            }
        }
    }
    for (name, least) in [("cpus", 0.01), ("mem", 32.0), ("disk", 0.0)] {
        let held = executor.resources.iter().filter(|resource| resource.name == name);
        let held = held
            .filter_map(|resource| Some(resource.scalar.as_ref()?.value))
            .reduce(|sum, more| sum + more);
        if held.is_none_or(|held| held < least) {
            fault(format!(
                "Executor uses less {name} than the minimum required, {least}"
            ));
        }
    }
}

fn resources(owner: &str, resources: &[Resource], fault: &mut impl FnMut(String)) {
    let role = |resource: &Resource| {
        resource
            .allocation_info
            .as_ref()
            .and_then(|info| info.role.clone())
    };
    for resource in resources {
        if resource.name.is_empty() {
            fault(format!("{owner} has a resource without a name"));
        }
        let amount = resource.scalar.as_ref().map(|scalar| scalar.value);
        if amount.is_some_and(|amount| !amount.is_finite() || amount < 0.0) {
            fault(format!("{owner} cannot have {amount:?} {}", resource.name));
        }
        let ranges = resource.ranges.iter().flat_map(|ranges| &ranges.range);
        if ranges.clone().count() > MOST_RANGES {
            fault(format!(
                "{owner} has {} in more than {MOST_RANGES} ranges",
                resource.name
            ));
        } else if ranges.clone().any(|range| range.begin > range.end) {
            fault(format!(
                "{owner} has a range of {} that ends before it begins",
                resource.name
            ));
        }
    }
    if let Some(first) = resources.first().map(role)
        && resources.iter().any(|resource| role(resource) != first)
    {
        fault(format!(
            "The resources of {owner} are allocated to multiple roles"
        ));
    }
}
