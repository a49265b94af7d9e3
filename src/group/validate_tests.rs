//! What is taken, and what is refused with its place.

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
fn h_20_what_cannot_run_is_refused_with_its_place() {
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
        (
            with_health(|h| {
                h.r#type = Some(health_check::Type::Command.into());
                h.command = Some(CommandInfo {
                    value: Some("true".into()),
                    user: Some("nobody".into()),
                    ..Default::default()
                });
            }),
            "tasks[0].health_check.command.user: a check runs as the member's user",
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
