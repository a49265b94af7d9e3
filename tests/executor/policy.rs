//! What a node's policy refuses, as the scheduler hears of it.

use std::os::unix::fs::symlink;

use podling::mesos::v1::{
    CapabilityInfo, ContainerInfo, LinuxInfo, SeccompInfo, TaskInfo, TaskState::*, TaskStatus, Volume,
    capability_info::Capability, container_info, linux_info::IpcMode, task_status::Reason::TaskInvalid,
    volume,
};

use crate::support::*;

fn container(task: &mut TaskInfo) -> &mut ContainerInfo {
    task.container.get_or_insert_with(|| ContainerInfo {
        r#type: container_info::Type::Mesos.into(),
        ..Default::default()
    })
}

fn linux(task: &mut TaskInfo) -> &mut LinuxInfo {
    container(task).linux_info.get_or_insert_default()
}

fn volume(task: &mut TaskInfo, path: &str, mode: volume::Mode) {
    container(task).volumes.push(Volume {
        mode: mode.into(),
        container_path: "volume".into(),
        host_path: Some(path.into()),
        ..Default::default()
    });
}

/// The last that is told of a task that asks for something, on a node with these settings.
fn told(settings: &[(&str, &str)], wish: &dyn Fn(&mut TaskInfo)) -> TaskStatus {
    let mut wishing = task("a", "true");
    wish(&mut wishing);
    let agent = agent().task_group(group([wishing]));
    let agent = settings
        .iter()
        .fold(agent, |agent, (name, value)| agent.env(name, value));
    let outcome = agent.start().unwrap().finish();
    last(&outcome, "a").clone()
}

#[test]
fn s3_each_kind_of_wish_is_refused_by_its_own_setting_and_granted_by_mesos() {
    let place = Place::new();
    symlink("/proc", place.file("link")).unwrap();
    let link = place.file("link/sys").to_str().unwrap().to_owned();
    let profiles = place.path().to_str().unwrap();
    std::fs::write(place.file("own.json"), r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#).unwrap();
    type Wish<'a> = Box<dyn Fn(&mut TaskInfo) + 'a>;
    // What the node says, what is asked for, what is told.
    type Kind<'a> = (&'a [(&'a str, &'a str)], Wish<'a>, &'a str);
    let kinds: Vec<Kind<'_>> = vec![
        (
            &[],
            Box::new(|task| {
                linux(task).effective_capabilities = Some(CapabilityInfo {
                    capabilities: vec![Capability::SysPtrace as i32],
                });
            }),
            "container.linux_info: SYS_PTRACE: this node's policy `standard` does not allow it; \
             `allowed_capabilities`",
        ),
        (
            &[],
            Box::new(|task| {
                linux(task).seccomp = Some(SeccompInfo {
                    unconfined: Some(true),
                    ..Default::default()
                });
            }),
            "this node's policy `standard` does not allow it; `allowed_seccomp`",
        ),
        (
            &[("PODLING_ALLOWED_SECCOMP", "default")],
            Box::new(|task| {
                linux(task).seccomp = Some(SeccompInfo {
                    profile_name: Some("own.json".into()),
                    ..Default::default()
                });
            }),
            "seccomp profile \"own.json\": this node's policy",
        ),
        (
            &[],
            Box::new(|task| volume(task, "/proc/sys", volume::Mode::Rw)),
            "`allowed_host_volumes`",
        ),
        // What a link makes of a name counts.
        (
            &[],
            Box::new(|task| volume(task, &link, volume::Mode::Rw)),
            "container.volumes[0]: /proc/sys of the host, to write",
        ),
        (
            &[("PODLING_ALLOWED_HOST_VOLUMES", "/srv,/usr:ro")],
            Box::new(|task| volume(task, "/usr/bin", volume::Mode::Rw)),
            "/usr/bin of the host, to write",
        ),
        (
            &[("PODLING_ALLOW_HOST_NETWORK", "false")],
            Box::new(|_| {}),
            "`allow_host_network`",
        ),
        (
            &[("PODLING_ALLOW_HOST_IPC", "false")],
            Box::new(|task| linux(task).ipc_mode = Some(IpcMode::ShareParent as i32)),
            "`allow_host_ipc`",
        ),
        (
            &[("PODLING_ALLOW_SHARED_PID", "false")],
            Box::new(|task| linux(task).share_pid_namespace = Some(true)),
            "`allow_shared_pid`",
        ),
        (
            &[("PODLING_ALLOW_ROOT", "false")],
            Box::new(|task| task.command.as_mut().unwrap().user = Some("root".into())),
            "command.user: user 0 without a user namespace",
        ),
        // The executor's own user is known when the member is prepared.
        (
            &[("PODLING_ALLOW_ROOT", "false")],
            Box::new(|_| {}),
            "command.user: user 0 without a user namespace",
        ),
    ];
    for (settings, wish, says) in &kinds {
        let refused = told(
            &[settings, &[("PODLING_SECCOMP_PROFILES", profiles)][..]].concat(),
            wish,
        );
        assert_eq!(refused.state(), TaskFailed, "{says}: {refused:?}");
        assert_eq!(refused.reason(), TaskInvalid, "{says}");
        assert!(refused.message().contains(says), "{says}: {}", refused.message());
        let granted = told(
            &[
                ("PODLING_POLICY", "mesos"),
                ("PODLING_SECCOMP_PROFILES", profiles),
            ],
            wish,
        );
        assert_eq!(granted.state(), TaskFinished, "{says}: {}", granted.message());
    }
}

#[test]
fn s3_strict_runs_what_asks_for_nothing() {
    let settings = [
        ("PODLING_POLICY", "strict"),
        // There is no network but the host's under this agent, and no image.
        ("PODLING_ALLOW_HOST_NETWORK", "true"),
    ];
    let modest = |task: &mut TaskInfo| {
        task.command.as_mut().unwrap().user = Some("nobody".into());
        linux(task).ipc_mode = Some(IpcMode::Private as i32);
    };
    let done = told(&settings, &modest);
    assert_eq!(done.state(), TaskFinished, "{}", done.message());
    let refused = told(&settings, &|task| {
        modest(task);
        volume(task, "/usr", volume::Mode::Ro);
    });
    assert!(
        refused.message().contains("this node's policy `strict`"),
        "{}",
        refused.message()
    );
}
