//! L1: a group with one member that cannot start. Nobody of it runs, and everybody is told why.

use std::{
    fs,
    io::Read,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    process::Command,
};

use podling::{
    loopback::agent::AgentBuilder,
    mesos::v1::{
        CapabilityInfo, ContainerInfo, Image, LinuxInfo, RLimitInfo, SeccompInfo, TaskInfo, TaskState::*,
        Volume, container_info, image, r_limit_info, task_status::Reason, volume,
    },
};

use crate::support::*;

type Spoil = Box<dyn Fn(&mut TaskInfo)>;

struct Cause {
    name: &'static str,
    spoil: Spoil,
    /// What the status of the bad member says.
    says: &'static str,
    reason: Reason,
}

fn container(task: &mut TaskInfo) -> &mut ContainerInfo {
    task.container.get_or_insert_with(|| ContainerInfo {
        r#type: container_info::Type::Mesos.into(),
        ..Default::default()
    })
}

fn linux(task: &mut TaskInfo) -> &mut LinuxInfo {
    container(task).linux_info.get_or_insert_default()
}

/// Runs a program by its path, not a shell line.
fn program(task: &mut TaskInfo, path: &str) {
    let command = task.command.get_or_insert_default();
    command.shell = Some(false);
    command.value = Some(path.to_owned());
}

fn image(task: &mut TaskInfo, reference: &str) {
    container(task).mesos = Some(container_info::MesosInfo {
        image: Some(Image {
            r#type: image::Type::Docker.into(),
            docker: Some(image::Docker {
                name: reference.to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        }),
    });
}

fn rlimit(task: &mut TaskInfo, soft: Option<u64>, hard: Option<u64>) {
    container(task).rlimit_info = Some(RLimitInfo {
        rlimits: vec![r_limit_info::RLimit {
            r#type: Some(r_limit_info::r_limit::Type::RlmtNofile.into()),
            soft,
            hard,
        }],
    });
}

fn profile(task: &mut TaskInfo, name: &str) {
    linux(task).seccomp = Some(SeccompInfo {
        profile_name: Some(name.to_owned()),
        unconfined: None,
    });
}

/// Two images in one layout: `empty` has nothing at all, `file` a working directory that is a file.
fn images(place: &Place) -> String {
    let umoci = |arguments: &[&str]| {
        let output = Command::new("umoci")
            .args(arguments)
            .current_dir(place.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "umoci {arguments:?}: {output:?}");
    };
    fs::create_dir(place.file("data")).unwrap();
    fs::copy("/bin/busybox", place.file("data/sh")).unwrap();
    std::os::unix::fs::symlink("sh", place.file("data/zz")).unwrap();
    umoci(&["init", "--layout", "layout"]);
    umoci(&["new", "--image", "layout:empty"]);
    umoci(&["new", "--image", "layout:file"]);
    umoci(&["insert", "--image", "layout:file", "data", "/bin"]);
    umoci(&[
        "config",
        "--image",
        "layout:file",
        "--config.workingdir=/bin/sh/below",
    ]);
    format!("oci:{}", place.file("layout").display())
}

fn causes(place: &Place) -> Vec<Cause> {
    use Reason::{ContainerLaunchFailed as Failed, TaskInvalid as Invalid};
    let layout = images(place);
    let text = |name: &str, text: &str, mode: u32| {
        let path = place.file(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path.display().to_string()
    };
    let plain = text("plain", "echo ran", 0o644);
    let script = text("script", "#!/no/such/interpreter\necho ran", 0o755);
    let directory = place.path().display().to_string();
    text("broken.json", "{\"defaultAction\": 5}", 0o644);
    let cause = |name, says, reason, spoil: Spoil| Cause {
        name,
        spoil,
        says,
        reason,
    };
    vec![
        cause(
            "a missing program",
            "exec `/no/program`: No such file",
            Failed,
            Box::new(|t| program(t, "/no/program")),
        ),
        cause(
            "a name that is nowhere",
            "exec `no-such-name`: No such file",
            Failed,
            Box::new(|t| program(t, "no-such-name")),
        ),
        cause(
            "not executable",
            "Permission denied",
            Failed,
            Box::new(move |t| program(t, &plain)),
        ),
        cause(
            "a directory",
            "Permission denied",
            Failed,
            Box::new(move |t| program(t, &directory)),
        ),
        cause(
            "a missing interpreter",
            "find what runs `",
            Failed,
            Box::new(move |t| program(t, &script)),
        ),
        cause(
            "no command",
            "command",
            Invalid,
            Box::new(|t| t.command.get_or_insert_default().value = None),
        ),
        cause(
            "an unknown user",
            "no-such-user-here",
            Invalid,
            Box::new(|t| {
                t.command.get_or_insert_default().user = Some("no-such-user-here".into());
            }),
        ),
        cause(
            "an image that is nowhere",
            "127.0.0.1:1",
            Failed,
            Box::new(|t| image(t, "127.0.0.1:1/none:x")),
        ),
        cause("an empty root", "exec `/bin/sh`: No such file", Failed, {
            let layout = layout.clone();
            Box::new(move |t| image(t, &format!("{layout}:empty")))
        }),
        cause(
            "a bad working directory",
            "make the working directory: Not a directory",
            Failed,
            Box::new(move |t| image(t, &format!("{layout}:file"))),
        ),
        cause(
            "capabilities beyond the bounding set",
            "NET_ADMIN is not in bounding_capabilities",
            Invalid,
            Box::new(|t| {
                linux(t).effective_capabilities = Some(CapabilityInfo {
                    capabilities: vec![1012],
                });
                linux(t).bounding_capabilities = Some(CapabilityInfo {
                    capabilities: vec![1000],
                });
            }),
        ),
        cause(
            "a capability the operator forbids",
            "SYS_ADMIN: this node's policy `standard` does not allow it; `allowed_capabilities`",
            Invalid,
            Box::new(|t| {
                linux(t).effective_capabilities = Some(CapabilityInfo {
                    capabilities: vec![1021],
                });
            }),
        ),
        cause(
            "a profile that is nowhere",
            "seccomp profile \"none.json\"",
            Invalid,
            Box::new(|t| profile(t, "none.json")),
        ),
        cause(
            "a profile that is none",
            "seccomp profile \"broken.json\"",
            Invalid,
            Box::new(|t| profile(t, "broken.json")),
        ),
        cause(
            "a limit that cannot be",
            "set resource limit nofile: Operation not permitted",
            Failed,
            Box::new(|t| rlimit(t, Some(u64::MAX - 1), Some(u64::MAX - 1))),
        ),
        cause(
            "half a limit",
            "container.rlimit_info.rlimits[0]",
            Invalid,
            Box::new(|t| rlimit(t, Some(5), None)),
        ),
        cause(
            "a volume whose source is missing",
            "\"/no/such/source\": No such file",
            Failed,
            Box::new(|t| {
                container(t).volumes.push(Volume {
                    mode: volume::Mode::Rw.into(),
                    container_path: "volume".into(),
                    host_path: Some("/no/such/source".into()),
                    ..Default::default()
                });
            }),
        ),
    ]
}

fn agent_with(place: &Place) -> AgentBuilder {
    agent()
        .env("PODLING_SECCOMP_PROFILES", place.path().to_str().unwrap())
        .env("PODLING_ALLOWED_CAPABILITIES", "CHOWN,NET_ADMIN,SETUID,SETGID")
        .env("PODLING_CAPABILITIES", "CHOWN,SETUID,SETGID")
        .env("PODLING_IMAGES_STORE", place.file("store").to_str().unwrap())
}

#[test]
fn l_1_one_bad_member_of_any_kind_and_nobody_runs() {
    let place = Place::new();
    // Siblings write to what we hold, and to their logs.
    let pipe = place.file("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
    let mut held = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(&pipe)
        .unwrap();
    let sleeper = Sleeper::new();
    let causes = causes(&place);
    assert!(causes.len() >= 12);
    let agent = agent_with(&place)
        .task_group(group([sleeper.task("other")]))
        .start()
        .unwrap();
    agent.wait_told(&["other"], TaskRunning).unwrap();
    for (number, cause) in causes.iter().enumerate() {
        let name = cause.name;
        let (bad, siblings) = (
            format!("bad{number}"),
            [format!("a{number}"), format!("z{number}")],
        );
        let mut doomed = task(&bad, "echo ran");
        (cause.spoil)(&mut doomed);
        let line = format!("echo alive; echo alive > {}", pipe.display());
        let [first, last] = siblings.each_ref().map(|id| task(id, &line));
        agent.launch(group([first, doomed, last]));
        agent
            .wait_told(&[&bad], TaskFailed)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let siblings = siblings.each_ref().map(String::as_str);
        agent.wait_told(&siblings, TaskKilled).unwrap();
        let history = agent.history();
        let status = history.updates(&bad).last().copied().unwrap().clone();
        assert!(
            status.message().contains(cause.says),
            "{name}: {}",
            status.message()
        );
        assert!(
            status.message().contains(&format!("`{bad}`")),
            "{name}: {}",
            status.message()
        );
        assert_eq!(status.reason(), cause.reason, "{name}");
        for id in siblings {
            assert!(!history.states(id).contains(&TaskRunning), "{name}");
            let told = history.updates(id).last().copied().unwrap().message().to_owned();
            assert!(told.contains(&bad), "{name}: {told}");
        }
        let mut said = Vec::new();
        let error = held.read_to_end(&mut said).unwrap_err();
        assert_eq!(
            (error.kind(), said.len()),
            (std::io::ErrorKind::WouldBlock, 0),
            "{name}: a sibling ran"
        );
    }
    assert_eq!(agent.history().state("other"), Some(TaskRunning));
    let containers = agent.sandbox().join("containers");
    for container in fs::read_dir(containers).unwrap().flatten() {
        let stdout = fs::read(container.path().join("stdout")).unwrap_or_default();
        assert_eq!(stdout, b"", "{}", container.path().display());
    }
    agent.kill("other").unwrap();
    good(&agent.finish());
}

#[test]
fn z_10_an_operator_gives_members_users_of_their_own() {
    let place = Place::new();
    let layout = images(&place);
    let mut with_image = task(
        "image",
        "stat -c %u /bin/sh; /bin/sh -c 'echo $(id -u)'; touch /made && stat -c %u /made",
    );
    image(&mut with_image, &format!("{layout}:busy"));
    // A shell with the programs that this needs.
    for name in ["stat", "id", "touch"] {
        let _ = std::os::unix::fs::symlink("sh", place.file("data").join(name));
    }
    for arguments in [
        &["new", "--image", "layout:busy"][..],
        &["insert", "--image", "layout:busy", "data", "/bin"],
    ] {
        let done = Command::new("umoci")
            .args(arguments)
            .current_dir(place.path())
            .status()
            .unwrap();
        assert!(done.success());
    }
    let without = task("plain", "id -u; cat /proc/self/uid_map");
    let work = Place::new();
    let agent = agent()
        .work_dir(work.path())
        .env("PODLING_USER_NAMESPACE", "300000:65536")
        .env("PODLING_IMAGES_STORE", place.file("store").to_str().unwrap())
        .task_group(group([with_image, without]))
        .start()
        .unwrap();
    let sandbox = agent.sandbox().to_owned();
    let outcome = agent.finish();
    good(&outcome);
    assert_eq!(
        outcome.state("image"),
        Some(TaskFinished),
        "{outcome}\n{}",
        outcome.history
    );
    assert_eq!(stdout(&sandbox, "image"), "0\n0\n0\n");
    let plain = stdout(&sandbox, "plain");
    assert_eq!(
        plain.split_whitespace().collect::<Vec<_>>(),
        ["0", "0", "300000", "65536"]
    );
}
