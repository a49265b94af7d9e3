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
        check_check(check, faults);
    }
    if let Some(check) = &task.health_check {
        check_health_check(check, faults);
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

fn check_check(check: &CheckInfo, faults: &mut Faults) {
    match check.r#type() {
        check_info::Type::Command => match &check.command {
            Some(command) => check_command("check.command.command", &command.command, faults),
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

fn check_health_check(check: &HealthCheck, faults: &mut Faults) {
    match check.r#type() {
        health_check::Type::Command => match &check.command {
            Some(command) => check_command("health_check.command", command, faults),
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

fn check_command(path: &str, command: &CommandInfo, faults: &mut Faults) {
    if command.value.is_none() {
        faults.add(format!("{path}.value"), "is missing");
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
mod tests {
    use super::*;
    use crate::mesos::v1::{
        self, ContainerInfo, ExecutorId, KillPolicy, LinuxInfo, NetworkInfo, TaskId, value, volume,
    };

    fn task(id: &str) -> TaskInfo {
        TaskInfo {
            task_id: TaskId { value: id.into() },
            ..Default::default()
        }
    }

    fn executor() -> ExecutorInfo {
        ExecutorInfo {
            executor_id: ExecutorId { value: "e".into() },
            ..Default::default()
        }
    }

    fn mesos() -> ContainerInfo {
        ContainerInfo {
            r#type: container_info::Type::Mesos.into(),
            ..Default::default()
        }
    }

    fn scalar(name: &str, value: f64) -> Resource {
        Resource {
            name: name.into(),
            scalar: Some(value::Scalar { value }),
            ..Default::default()
        }
    }

    fn with(change: impl Fn(&mut TaskInfo)) -> TaskInfo {
        let mut task = task("t");
        change(&mut task);
        task
    }

    fn in_container(change: impl Fn(&mut ContainerInfo)) -> TaskInfo {
        with(|t| change(t.container.get_or_insert_with(mesos)))
    }

    fn with_volume(change: impl Fn(&mut Volume)) -> TaskInfo {
        in_container(|c| {
            let mut volume = Volume {
                container_path: "/data".into(),
                ..Default::default()
            };
            change(&mut volume);
            c.volumes.push(volume);
        })
    }

    fn with_check(change: impl Fn(&mut CheckInfo)) -> TaskInfo {
        with(|t| {
            change(t.check.get_or_insert_with(|| CheckInfo {
                r#type: Some(check_info::Type::Tcp.into()),
                tcp: Some(check_info::Tcp { port: 80 }),
                ..Default::default()
            }))
        })
    }

    fn with_health(change: impl Fn(&mut HealthCheck)) -> TaskInfo {
        with(|t| {
            change(t.health_check.get_or_insert_with(|| HealthCheck {
                r#type: Some(health_check::Type::Http.into()),
                http: Some(health_check::HttpCheckInfo {
                    port: 80,
                    ..Default::default()
                }),
                ..Default::default()
            }))
        })
    }

    fn first(task: TaskInfo) -> String {
        let faults = group(&[task], &executor());
        faults.first().map(Fault::to_string).unwrap_or_default()
    }

    #[test]
    fn what_mesos_takes_is_taken() {
        let good = [
            task("pod.instance-1.web"),
            task("żółw"),
            task(&"x".repeat(255)),
            in_container(|_| {}),
            with_volume(|v| v.host_path = Some("/tmp".into())),
            with_check(|_| {}),
            with_health(|h| h.delay_seconds = Some(0.5)),
            with(|t| t.resources = vec![scalar("cpus", 0.1), scalar("mem", 32.0), scalar("gpus", 0.0)]),
            in_container(|c| c.linux_info = Some(LinuxInfo::default())),
            with(|t| {
                t.executor = Some(ExecutorInfo {
                    name: Some("filled in by the master".into()),
                    ..executor()
                })
            }),
        ];
        for task in good {
            assert_eq!(first(task.clone()), "", "{task:?}");
        }
    }

    #[test]
    fn what_cannot_run_is_refused_with_its_place() {
        let minus = || Some(DurationInfo { nanoseconds: -1 });
        let mut limited = with(|t| t.resources = vec![scalar("mem", 64.0)]);
        limited.container = Some(ContainerInfo {
            linux_info: Some(LinuxInfo {
                share_cgroups: Some(false),
                ..Default::default()
            }),
            ..mesos()
        });
        let limit = |name: &str, value: f64| {
            let mut task = limited.clone();
            task.limits.insert(name.into(), value::Scalar { value });
            task
        };
        assert_eq!(first(limit("mem", 64.0)), "");
        assert_eq!(first(limit("mem", f64::INFINITY)), "");

        let long = "x".repeat(256);
        let bad = [
            (task(""), "tasks[0].task_id: must not be empty"),
            (task(".."), "tasks[0].task_id: `..` cannot name"),
            (task("a/b"), "tasks[0].task_id: \"a/b\" has a slash"),
            (task("a\\b"), "tasks[0].task_id: \"a\\\\b\" has a slash"),
            (task("a\nb"), "tasks[0].task_id: \"a\\nb\" has a slash"),
            (task(&long), "tasks[0].task_id: has 256 bytes"),
            (
                with(|t| {
                    t.kill_policy = Some(KillPolicy {
                        grace_period: minus(),
                    })
                }),
                "tasks[0].kill_policy.grace_period: must not be negative",
            ),
            (
                with(|t| t.max_completion_time = minus()),
                "tasks[0].max_completion_time: must not be negative",
            ),
            (
                with(|t| t.executor = Some(ExecutorInfo::default())),
                "tasks[0].executor.executor_id: `` is not this executor",
            ),
            (
                with(|t| t.resources = vec![scalar("mem", 1.0), scalar("cpus", -1.0)]),
                "tasks[0].resources[1]: cpus cannot be -1",
            ),
            (
                with(|t| t.resources = vec![scalar("mem", f64::NAN)]),
                "tasks[0].resources[0]: mem cannot be NaN",
            ),
            (
                with(|t| t.resources = vec![scalar("gpus", 1.0)]),
                "tasks[0].resources[0]: gpus are not supported",
            ),
            (limit("disk", 1.0), "tasks[0].limits.disk: only cpus and mem"),
            (
                limit("mem", 63.0),
                "tasks[0].limits.mem: 63 is below the request of 64",
            ),
            (limit("mem", f64::NAN), "tasks[0].limits.mem: NaN is below"),
            (
                with(|t| {
                    t.limits.insert("mem".into(), value::Scalar { value: 1.0 });
                }),
                "tasks[0].limits.mem: needs container.linux_info.share_cgroups",
            ),
            (
                in_container(|c| c.r#type = container_info::Type::Docker.into()),
                "tasks[0].container.type: DOCKER",
            ),
            (
                in_container(|c| c.network_infos = vec![NetworkInfo::default()]),
                "tasks[0].container.network_infos: the network belongs to the whole group",
            ),
            (
                with_volume(|_| {}),
                "tasks[0].container.volumes[0]: needs exactly one of",
            ),
            (
                with_volume(|v| {
                    v.host_path = Some("/a".into());
                    v.image = Some(v1::Image::default());
                }),
                "tasks[0].container.volumes[0]: needs exactly one of",
            ),
            (
                with_volume(|v| {
                    v.host_path = Some("/a".into());
                    v.container_path.clear();
                }),
                "tasks[0].container.volumes[0].container_path: must not be empty",
            ),
            (
                with_volume(|v| {
                    v.source = Some(volume::Source {
                        r#type: Some(source::Type::SandboxPath.into()),
                        ..Default::default()
                    })
                }),
                "tasks[0].container.volumes[0].source: sandbox_path is missing",
            ),
            (with_check(|c| c.r#type = None), "tasks[0].check.type: must be"),
            (with_check(|c| c.tcp = None), "tasks[0].check.tcp: is missing"),
            (
                with_check(|c| c.tcp = Some(check_info::Tcp { port: 0 })),
                "tasks[0].check.tcp.port: 0 is not between 1 and 65535",
            ),
            (
                with_check(|c| {
                    c.r#type = Some(check_info::Type::Command.into());
                    c.command = Some(check_info::Command::default());
                }),
                "tasks[0].check.command.command.value: is missing",
            ),
            (
                with_check(|c| c.interval_seconds = Some(-0.1)),
                "tasks[0].check.interval_seconds: must be a finite",
            ),
            (
                with_health(|h| h.grace_period_seconds = Some(f64::INFINITY)),
                "tasks[0].health_check.grace_period_seconds: must be a finite",
            ),
            (
                with_health(|h| h.r#type = Some(99)),
                "tasks[0].health_check.type: must be",
            ),
            (
                with_health(|h| {
                    if let Some(http) = &mut h.http {
                        http.scheme = Some("ftp".into());
                    }
                }),
                "tasks[0].health_check.http.scheme: must be http or https",
            ),
            (
                with_health(|h| {
                    if let Some(http) = &mut h.http {
                        http.path = Some("up".into());
                    }
                }),
                "tasks[0].health_check.http.path: must start with `/`",
            ),
            (
                with_health(|h| {
                    if let Some(http) = &mut h.http {
                        http.port = 70_000;
                    }
                }),
                "tasks[0].health_check.http.port: 70000 is not between 1 and 65535",
            ),
        ];
        for (task, fault) in bad {
            let found = first(task);
            assert!(found.starts_with(fault), "{found:?} instead of {fault:?}");
        }
    }

    #[test]
    fn r_05_members_may_differ_in_share_cgroups() {
        let own = in_container(|c| {
            c.linux_info = Some(LinuxInfo {
                share_cgroups: Some(false),
                ..Default::default()
            })
        });
        assert!(!shares_cgroups(&own) && shares_cgroups(&task("u")));
        let two = [own.clone(), task("u")];
        assert!(group(&two, &executor()).is_empty());
        // But not to a master.
        let faults = disagreements(&two);
        assert_eq!(faults.len(), 1);
        assert!(faults[0].concerns(1) && !faults[0].concerns(0));
        assert!(disagreements(&[own.clone(), own]).is_empty());
    }

    #[test]
    fn a_fault_of_the_executor_is_everyones() {
        let mut tiny = executor();
        tiny.resources = vec![scalar("cpus", 0.001), scalar("mem", 32.0)];
        let faults = group(&[task("a"), task("b")], &tiny);
        assert_eq!(faults.len(), 1);
        assert!(faults[0].concerns(0) && faults[0].concerns(1));
        assert_eq!(
            faults[0].to_string(),
            "executor.resources: cpus must be at least 0.01"
        );

        let mut docker = executor();
        docker.container = Some(ContainerInfo {
            r#type: container_info::Type::Docker.into(),
            ..mesos()
        });
        let faults = group(&[task("a")], &docker);
        assert_eq!(faults[0].path, "container.type");
    }
}
