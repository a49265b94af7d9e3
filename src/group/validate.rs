//! What a task group must be before anything is made for it (L-11).
//!
//! A real master checks most of this already; a test harness, an old master or a stranger's scheduler may not. What
//! concerns images, users and mounts is checked where the member is planned: here is only what can be seen in the
//! definition itself.

use std::{collections::HashSet, fmt};

use crate::mesos::v1::{
    CheckInfo, CommandInfo, DurationInfo, ExecutorInfo, HealthCheck, Resource, TaskInfo, Volume, check_info,
    container_info, health_check, volume::source,
};

/// Something that cannot be run as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The place of the task in its group; `None` when the executor itself is at fault.
    task: Option<usize>,
    /// Where, from the task's or the executor's own root.
    path: String,
    problem: String,
}

impl Fault {
    /// Whether this is a fault of the n-th task. The executor's faults are everyone's.
    pub fn concerns(&self, n: usize) -> bool {
        self.task.is_none_or(|task| task == n)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.task {
            Some(n) => write!(f, "tasks[{n}].{}: {}", self.path, self.problem),
            None => write!(f, "executor.{}: {}", self.path, self.problem),
        }
    }
}

/// Everything that is wrong with a group. Members may differ in `share_cgroups`, which a master refuses: each of ours
/// has a cgroup of its own anyway, and it only says whether that is limited.
pub fn group(tasks: &[TaskInfo], executor: &ExecutorInfo) -> Vec<Fault> {
    let mut faults = Faults::default();
    check_executor(executor, &mut faults);
    let mut ids = HashSet::new();
    for (n, task) in tasks.iter().enumerate() {
        faults.task = Some(n);
        check_task(task, executor, &mut faults);
        let id = &task.task_id.value;
        if !ids.insert(id) {
            faults.add("task_id", format!("`{id}` is used twice in this group"));
        }
    }
    faults.found
}

/// What a master refuses on top of that: tasks of one executor that differ in `share_cgroups`.
pub fn disagreements(tasks: &[TaskInfo]) -> Vec<Fault> {
    let agreed = tasks.first().map(shares_cgroups);
    let mut faults = Faults::default();
    for (n, task) in tasks.iter().enumerate() {
        if agreed != Some(shares_cgroups(task)) {
            faults.task = Some(n);
            let path = "container.linux_info.share_cgroups";
            faults.add(path, "all tasks of an executor must agree on it");
        }
    }
    faults.found
}

/// Unset means yes.
pub fn shares_cgroups(task: &TaskInfo) -> bool {
    let container = task.container.as_ref();
    let linux = container.and_then(|c| c.linux_info.as_ref());
    linux.and_then(|l| l.share_cgroups).unwrap_or(true)
}

#[derive(Default)]
struct Faults {
    task: Option<usize>,
    found: Vec<Fault>,
}

impl Faults {
    fn add(&mut self, path: impl Into<String>, problem: impl Into<String>) {
        self.found.push(Fault {
            task: self.task,
            path: path.into(),
            problem: problem.into(),
        });
    }
}

fn check_executor(executor: &ExecutorInfo, faults: &mut Faults) {
    check_id("executor_id", &executor.executor_id.value, faults);
    if let Some(container) = &executor.container {
        if container.r#type() == container_info::Type::Docker {
            faults.add("container.type", "DOCKER cannot hold a task group; use MESOS");
        }
        if container.linux_info.as_ref().and_then(|l| l.share_cgroups) == Some(true) {
            faults.add("container.linux_info.share_cgroups", "is only for tasks");
        }
    }
    // Nothing at all is how test harnesses say "whatever"; too little is a mistake.
    for (name, least) in [("cpus", 0.01), ("mem", 32.0)] {
        let amount = total(&executor.resources, name);
        if amount.is_some_and(|amount| amount < least) {
            faults.add("resources", format!("{name} must be at least {least}"));
        }
    }
}

fn check_task(task: &TaskInfo, executor: &ExecutorInfo, faults: &mut Faults) {
    check_id("task_id", &task.task_id.value, faults);
    if let Some(own) = &task.executor
        && own.executor_id != executor.executor_id
    {
        let id = &own.executor_id.value;
        faults.add("executor.executor_id", format!("`{id}` is not this executor"));
    }
    let policy = task.kill_policy.as_ref().and_then(|p| p.grace_period.as_ref());
    check_duration("kill_policy.grace_period", policy, faults);
    check_duration("max_completion_time", task.max_completion_time.as_ref(), faults);
    check_resources(task, faults);
    check_container(task, faults);
    if let Some(check) = &task.check {
        check_check(check, task, faults);
    }
    if let Some(check) = &task.health_check {
        check_health_check(check, task, faults);
    }
}

fn check_id(path: &str, id: &str, faults: &mut Faults) {
    if let Some(problem) = id_problem(id) {
        faults.add(path, problem);
    }
}

/// Why this is no id of a framework, an executor or a task: they all become names of directories.
pub fn id_problem(id: &str) -> Option<String> {
    match id {
        "" => Some("must not be empty".into()),
        "." | ".." => Some(format!("`{id}` cannot name a directory of its own")),
        long if long.len() > 255 => Some(format!("has {} bytes, the limit is 255", long.len())),
        odd if odd.chars().any(|c| c.is_control() || c == '/' || c == '\\') => {
            Some(format!("{odd:?} has a slash, a backslash or a control character"))
        }
        _ => None,
    }
}

fn check_duration(path: &str, duration: Option<&DurationInfo>, faults: &mut Faults) {
    if duration.is_some_and(|d| d.nanoseconds < 0) {
        faults.add(path, "must not be negative");
    }
}

fn check_resources(task: &TaskInfo, faults: &mut Faults) {
    for (n, resource) in task.resources.iter().enumerate() {
        let Some(scalar) = &resource.scalar else { continue };
        if !scalar.value.is_finite() || scalar.value < 0.0 {
            let (name, value) = (&resource.name, scalar.value);
            faults.add(format!("resources[{n}]"), format!("{name} cannot be {value}"));
        } else if resource.name == "gpus" && scalar.value > 0.0 {
            faults.add(
                format!("resources[{n}]"),
                "gpus are not supported by this executor",
            );
        }
    }
    for (name, limit) in &task.limits {
        let path = format!("limits.{name}");
        let limit = limit.value;
        let request = total(&task.resources, name).unwrap_or(0.0);
        if name != "cpus" && name != "mem" {
            faults.add(path, "only cpus and mem can have a limit");
        } else if limit.is_nan() || limit < request {
            faults.add(path, format!("{limit} is below the request of {request}"));
        } else if shares_cgroups(task) {
            faults.add(path, "needs container.linux_info.share_cgroups to be false");
        }
    }
}

fn total(resources: &[Resource], name: &str) -> Option<f64> {
    let named = resources.iter().filter(|r| r.name == name);
    named
        .filter_map(|r| r.scalar.as_ref().map(|s| s.value))
        .reduce(|a, b| a + b)
}

fn check_container(task: &TaskInfo, faults: &mut Faults) {
    let Some(container) = &task.container else { return };
    if container.r#type() == container_info::Type::Docker {
        faults.add(
            "container.type",
            "DOCKER cannot be part of a task group; use MESOS with mesos.image",
        );
    }
    if !container.network_infos.is_empty() {
        // N-02.
        faults.add(
            "container.network_infos",
            "the network belongs to the whole group; set it on the executor",
        );
    }
    for (n, volume) in container.volumes.iter().enumerate() {
        check_volume(&format!("container.volumes[{n}]"), volume, faults);
    }
}

fn check_volume(path: &str, volume: &Volume, faults: &mut Faults) {
    if volume.container_path.is_empty() {
        faults.add(format!("{path}.container_path"), "must not be empty");
    }
    let kinds = [
        volume.host_path.is_some(),
        volume.image.is_some(),
        volume.source.is_some(),
    ];
    if kinds.into_iter().filter(|given| *given).count() != 1 {
        faults.add(path, "needs exactly one of host_path, image and source");
    }
    if let Some(source) = &volume.source {
        let (field, given) = match source.r#type() {
            source::Type::DockerVolume => ("docker_volume", source.docker_volume.is_some()),
            source::Type::HostPath => ("host_path", source.host_path.is_some()),
            source::Type::SandboxPath => ("sandbox_path", source.sandbox_path.is_some()),
            source::Type::Secret => ("secret", source.secret.is_some()),
            source::Type::CsiVolume => ("csi_volume", source.csi_volume.is_some()),
            source::Type::Unknown => ("a known type", false),
        };
        if !given {
            faults.add(format!("{path}.source"), format!("{field} is missing"));
        }
    }
}

fn check_check(check: &CheckInfo, task: &TaskInfo, faults: &mut Faults) {
    match check.r#type() {
        check_info::Type::Command => match &check.command {
            Some(command) => check_command("check.command.command", &command.command, task, faults),
            None => faults.add("check.command", "is missing"),
        },
        check_info::Type::Http => match &check.http {
            Some(http) => check_http("check.http", http.port, http.path.as_deref(), faults),
            None => faults.add("check.http", "is missing"),
        },
        check_info::Type::Tcp => match &check.tcp {
            Some(tcp) => check_port("check.tcp", tcp.port, faults),
            None => faults.add("check.tcp", "is missing"),
        },
        check_info::Type::Unknown => faults.add("check.type", "must be COMMAND, HTTP or TCP"),
    }
    for (name, seconds) in [
        ("delay_seconds", check.delay_seconds),
        ("interval_seconds", check.interval_seconds),
        ("timeout_seconds", check.timeout_seconds),
    ] {
        check_seconds(&format!("check.{name}"), seconds, faults);
    }
}

fn check_health_check(check: &HealthCheck, task: &TaskInfo, faults: &mut Faults) {
    match check.r#type() {
        health_check::Type::Command => match &check.command {
            Some(command) => check_command("health_check.command", command, task, faults),
            None => faults.add("health_check.command", "is missing"),
        },
        health_check::Type::Http => match &check.http {
            Some(http) => {
                check_http("health_check.http", http.port, http.path.as_deref(), faults);
                if http
                    .scheme
                    .as_deref()
                    .is_some_and(|s| s != "http" && s != "https")
                {
                    faults.add("health_check.http.scheme", "must be http or https");
                }
            }
            None => faults.add("health_check.http", "is missing"),
        },
        health_check::Type::Tcp => match &check.tcp {
            Some(tcp) => check_port("health_check.tcp", tcp.port, faults),
            None => faults.add("health_check.tcp", "is missing"),
        },
        health_check::Type::Unknown => faults.add("health_check.type", "must be COMMAND, HTTP or TCP"),
    }
    for (name, seconds) in [
        ("delay_seconds", check.delay_seconds),
        ("interval_seconds", check.interval_seconds),
        ("timeout_seconds", check.timeout_seconds),
        ("grace_period_seconds", check.grace_period_seconds),
    ] {
        check_seconds(&format!("health_check.{name}"), seconds, faults);
    }
}

fn check_command(path: &str, command: &CommandInfo, task: &TaskInfo, faults: &mut Faults) {
    if command.value.is_none() {
        faults.add(format!("{path}.value"), "is missing");
    }
    let members = task.command.as_ref().and_then(|command| command.user.as_ref());
    if command.user.is_some() && command.user.as_ref() != members {
        faults.add(format!("{path}.user"), "a check runs as the member's user");
    }
    if !command.uris.is_empty() {
        faults.add(format!("{path}.uris"), "nothing is fetched for a check");
    }
}

fn check_http(path: &str, port: u32, url_path: Option<&str>, faults: &mut Faults) {
    check_port(path, port, faults);
    if url_path.is_some_and(|p| !p.starts_with('/')) {
        faults.add(format!("{path}.path"), "must start with `/`");
    }
}

fn check_port(path: &str, port: u32, faults: &mut Faults) {
    if !(1..=65535).contains(&port) {
        faults.add(
            format!("{path}.port"),
            format!("{port} is not between 1 and 65535"),
        );
    }
}

fn check_seconds(path: &str, seconds: Option<f64>, faults: &mut Faults) {
    if seconds.is_some_and(|s| !s.is_finite() || s < 0.0) {
        faults.add(path, "must be a finite number of seconds, not negative");
    }
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
