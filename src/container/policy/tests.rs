//! Preset × wish → verdict, and what decides where an operator says otherwise.

use std::collections::BTreeMap;

use super::*;
use crate::container::plan::{Defaults, Rootfs, member};

fn ptrace() -> CapabilitySet {
    CapabilitySet::of(&[19])
}

fn volume(path: &str, read_only: bool) -> Wish<'_> {
    let path = Path::new(path);
    Wish::HostVolume { path, read_only }
}

#[test]
fn s3_what_each_preset_says_to_each_wish() {
    let docker = CapabilitySet::DOCKER;
    let table: [(Wish<'_>, [bool; 3], &str); 22] = [
        (
            Wish::Capabilities(CapabilitySet::EMPTY),
            [true, true, true],
            "allowed_capabilities",
        ),
        (
            Wish::Capabilities(STRICT_CAPABILITIES),
            [true, true, true],
            "allowed_capabilities",
        ),
        (
            Wish::Capabilities(docker),
            [true, true, false],
            "allowed_capabilities",
        ),
        (
            Wish::Capabilities(ptrace()),
            [true, false, false],
            "allowed_capabilities",
        ),
        (
            Wish::Capabilities(CapabilitySet(u64::MAX)),
            [true, false, false],
            "allowed_capabilities",
        ),
        (Wish::Unconfined, [true, false, false], "allowed_seccomp"),
        (Wish::Profile("own.json"), [true, true, false], "allowed_seccomp"),
        (
            volume("/srv/data", false),
            [true, true, false],
            "allowed_host_volumes",
        ),
        (
            volume("/srv/data", true),
            [true, true, false],
            "allowed_host_volumes",
        ),
        (volume("/", true), [true, true, false], "allowed_host_volumes"),
        // It would show /proc/sys, too.
        (volume("/", false), [true, false, false], "allowed_host_volumes"),
        (
            volume("/proc/sys/kernel", false),
            [true, false, false],
            "allowed_host_volumes",
        ),
        (volume("/proc", true), [true, true, false], "allowed_host_volumes"),
        (
            volume("/sys", false),
            [true, false, false],
            "allowed_host_volumes",
        ),
        (
            volume("/dev", false),
            [true, false, false],
            "allowed_host_volumes",
        ),
        (
            volume("/dev/shm", false),
            [true, true, false],
            "allowed_host_volumes",
        ),
        (
            volume("/process", false),
            [true, true, false],
            "allowed_host_volumes",
        ),
        (
            volume("/srv/../proc", false),
            [false, false, false],
            "allowed_host_volumes",
        ),
        (Wish::HostNetwork, [true, true, false], "allow_host_network"),
        (Wish::HostIpc, [true, true, false], "allow_host_ipc"),
        (Wish::SharedPid, [true, true, false], "allow_shared_pid"),
        (Wish::Root, [true, true, false], "allow_root"),
    ];
    for (wish, verdicts, setting) in table {
        for (preset, allowed) in Preset::ALL.into_iter().zip(verdicts) {
            let verdict = Policy::of(preset).verdict(&wish);
            assert_eq!(verdict.is_ok(), allowed, "{preset:?} {wish:?}");
            if let Err(refusal) = verdict {
                assert_eq!(refusal.setting, setting, "{wish:?}");
                let said = format!(
                    ": this node's policy `{}` does not allow it; `{setting}`",
                    preset.name()
                );
                assert!(refusal.to_string().ends_with(&said), "{refusal}");
            }
        }
    }
}

#[test]
fn s3_an_item_of_its_own_wins_over_the_preset_both_ways() {
    let open = Policy {
        capabilities: Some(ptrace()),
        filters: Some(Filters::Any),
        host_volumes: Some(HostVolumes::new([
            ("/srv".into(), Access::Write),
            ("/srv/keys".into(), Access::None),
        ])),
        host_network: Some(true),
        host_ipc: Some(true),
        shared_pid: Some(true),
        root: Some(true),
        ..Policy::of(Preset::Strict)
    };
    let shut = Policy {
        capabilities: Some(CapabilitySet::EMPTY),
        filters: Some(Filters::Default),
        host_volumes: Some(HostVolumes::default()),
        host_network: Some(false),
        host_ipc: Some(false),
        shared_pid: Some(false),
        root: Some(false),
        ..Policy::of(Preset::Mesos)
    };
    let wishes = [
        Wish::Capabilities(ptrace()),
        Wish::Unconfined,
        Wish::Profile("own.json"),
        volume("/srv/data", false),
        Wish::HostNetwork,
        Wish::HostIpc,
        Wish::SharedPid,
        Wish::Root,
    ];
    for wish in wishes {
        assert_eq!(open.verdict(&wish), Ok(()), "{wish:?}");
        assert!(shut.verdict(&wish).is_err(), "{wish:?}");
    }
    // A volume that shows what is withheld is no way to it.
    for path in ["/srv/keys", "/srv/keys/a", "/srv", "/", "/srvs"] {
        assert!(open.verdict(&volume(path, true)).is_err(), "{path}");
    }
}

fn task(change: impl FnOnce(&mut v1::ContainerInfo)) -> v1::TaskInfo {
    let mut container = v1::ContainerInfo {
        r#type: v1::container_info::Type::Mesos as i32,
        ..Default::default()
    };
    change(&mut container);
    v1::TaskInfo {
        name: "web".into(),
        command: Some(v1::CommandInfo {
            value: Some("true".into()),
            ..Default::default()
        }),
        container: Some(container),
        ..Default::default()
    }
}

/// What a node with this preset answers to a task with an image, on its pod's own network.
fn planned(preset: Preset, task: &v1::TaskInfo) -> Result<Plan, String> {
    let context = Context {
        rootfs: Rootfs::Directory {
            path: "/image".into(),
            read_only: false,
        },
        network_of_agent: true,
        image_volumes: BTreeMap::new(),
        ..Context::default()
    };
    let defaults = Defaults {
        policy: Policy::of(preset),
        ..Defaults::default()
    };
    member(task, None, &context, &defaults).map_err(|error| error.to_string())
}

#[test]
fn s3_what_a_task_asks_for_is_found_in_its_definition() {
    use v1::{capability_info::Capability, linux_info::IpcMode};
    type Change = fn(&mut v1::ContainerInfo);
    let linux: [(&str, Change); 5] = [
        ("container.linux_info: SYS_PTRACE: ", |container| {
            container
                .linux_info
                .get_or_insert_default()
                .effective_capabilities = Some(v1::CapabilityInfo {
                capabilities: vec![Capability::SysPtrace as i32, Capability::Chown as i32],
            });
        }),
        ("container.linux_info.seccomp: no filter", |container| {
            container.linux_info.get_or_insert_default().seccomp = Some(v1::SeccompInfo {
                unconfined: Some(true),
                ..Default::default()
            });
        }),
        ("container.volumes[0]: /srv of the host", |container| {
            container.volumes.push(v1::Volume {
                mode: v1::volume::Mode::Rw as i32,
                container_path: "/d".into(),
                host_path: Some("/srv".into()),
                ..Default::default()
            });
        }),
        ("container.linux_info.ipc_mode: the host's IPC", |container| {
            container.linux_info.get_or_insert_default().ipc_mode = Some(IpcMode::ShareParent as i32);
        }),
        (
            "container.linux_info.share_pid_namespace: processes shared",
            |container| {
                container.linux_info.get_or_insert_default().share_pid_namespace = Some(true);
            },
        ),
    ];
    planned(Preset::Strict, &task(|_| {})).expect("nothing is asked for");
    for (said, change) in linux {
        let task = task(change);
        let refused = planned(Preset::Strict, &task).expect_err(said);
        assert!(refused.starts_with(said), "{refused}");
        planned(Preset::Mesos, &task).expect(said);
    }
    for user in ["root", "0", "0:5", "00"] {
        let mut task = task(|_| {});
        task.command.as_mut().expect("a command").user = Some(user.into());
        let refused = planned(Preset::Strict, &task).expect_err(user);
        assert!(
            refused.starts_with("command.user: user 0 without a user namespace"),
            "{refused}"
        );
    }
    let on_the_host = Context::default();
    let strict = Defaults {
        policy: Policy::of(Preset::Strict),
        ..Defaults::default()
    };
    let refused = member(&task(|_| {}), None, &on_the_host, &strict).expect_err("its network");
    assert!(
        refused.to_string().starts_with("network: the host's network"),
        "{refused}"
    );
}

#[test]
fn s3_nobody_is_given_what_nobody_may_ask_for_unless_the_operator_says_so() {
    let strict = planned(Preset::Strict, &task(|_| {})).expect("a plan");
    assert_eq!(strict.capabilities.bounding, STRICT_CAPABILITIES);
    let standard = planned(Preset::Standard, &task(|_| {})).expect("a plan");
    assert_eq!(standard.capabilities.bounding, CapabilitySet::DOCKER);
}
