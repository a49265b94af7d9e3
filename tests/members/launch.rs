//! L1: nobody of a group runs unless all can.

use std::{
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    sync::Arc,
    time::Duration,
};

use podling::{
    container::{
        Gated, LaunchError,
        plan::{Mount, MountSource, Output, Plan, Rlimit, Rootfs, Seccomp, Target, UserSpec},
    },
    group::ExitStatus,
};

use crate::support::{World, exec, shell};

fn root(plan: &Plan) -> &Path {
    match &plan.rootfs {
        Rootfs::Directory { path, .. } => path,
        _ => unreachable!(),
    }
}

fn program(plan: &mut Plan, name: &str, content: &[u8], mode: u32) {
    let path = root(plan).join("bin").join(name);
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    plan.command.program = format!("/bin/{name}");
    plan.command.arguments = vec![format!("/bin/{name}")];
}

fn mount(plan: &mut Plan, source: MountSource, target: &str) {
    plan.mounts.push(Mount {
        source,
        target: Target::Root(target.into()),
        read_only: false,
        field: "container.volumes[0]".into(),
    });
}

/// A loader that no image has, in an otherwise sound ELF file.
fn foreign_elf() -> Vec<u8> {
    let mut file = vec![0u8; 64];
    file[..8].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0]);
    file[16..20].copy_from_slice(&[2, 0, 62, 0]);
    file[32] = 64; // program headers follow
    file[54] = 56;
    file[56] = 1;
    let loader = b"/lib64/ld-none.so.9\0";
    let mut header = vec![3u8, 0, 0, 0, 4, 0, 0, 0];
    for word in [120u64, 0, 0, loader.len() as u64, loader.len() as u64, 1] {
        header.extend(word.to_le_bytes());
    }
    file.extend(header);
    file.extend(loader);
    file
}

type Spoil = fn(&mut Plan);

/// What can be wrong with a member, and what is said of it.
const CAUSES: [(Spoil, &str); 18] = [
    (
        |plan| plan.command.program = "/no/such".into(),
        "exec `/no/such`: No such file or directory",
    ),
    (
        |plan| plan.command.program = "nosuch".into(),
        "exec `nosuch`: No such file or directory",
    ),
    (
        |plan| plan.command.program = "/etc".into(),
        "exec `/etc`: Permission denied",
    ),
    (
        |plan| program(plan, "plain", b"text", 0o644),
        "exec `/bin/plain`: Permission denied",
    ),
    (
        |plan| program(plan, "script", b"#! /no/interpreter -x\n", 0o755),
        "find what runs `/bin/script`: `/no/interpreter`, which its first line names: No such file",
    ),
    (
        |plan| program(plan, "foreign", &foreign_elf(), 0o755),
        "find what runs `/bin/foreign`: `/lib64/ld-none.so.9`, the loader that it needs: No such file",
    ),
    (
        |plan| {
            plan.user = UserSpec::Named {
                text: "nobody".into(),
                host_too: false,
            }
        },
        "user \"nobody\" is not in /etc/passwd",
    ),
    (
        |plan| {
            plan.user = UserSpec::Named {
                text: "0:none".into(),
                host_too: false,
            }
        },
        "group \"none\" is not in /etc/group",
    ),
    (
        |plan| std::fs::remove_dir_all(root(plan)).unwrap(),
        "open root file system",
    ),
    (
        |plan| mount(plan, MountSource::Host("/no/such".into()), "x"),
        "open host path \"/no/such\"",
    ),
    (
        |plan| {
            std::fs::write(root(plan).join("file"), "").unwrap();
            mount(plan, MountSource::OwnSandbox("d".into()), "file/below");
        },
        "container.volumes[0] at \"file/below\": Not a directory",
    ),
    (
        |plan| {
            symlink("nowhere", root(plan).join("dangling")).unwrap();
            mount(plan, MountSource::OwnSandbox("d".into()), "dangling");
        },
        "at \"dangling\": Too many levels of symbolic links",
    ),
    (
        |plan| plan.seccomp = Seccomp::Profile("nosuch".into()),
        "seccomp profile \"nosuch\"",
    ),
    (
        |plan| {
            plan.rlimits = vec![Rlimit {
                resource: libc::RLIMIT_NOFILE,
                soft: None,
                hard: None,
            }]
        },
        "set resource limit nofile: Operation not permitted",
    ),
    (
        |plan| plan.oom_score_adj = Some(2000),
        "set oom_score_adj to 2000: Invalid argument",
    ),
    (
        |plan| plan.hostname = Some("x".repeat(65)),
        "set the host name: Invalid argument",
    ),
    (
        |plan| plan.stdout = Output::File("no/such/file".into()),
        "open no/such/file for stdout",
    ),
    (
        |plan| plan.sandbox = "/elsewhere".into(),
        "sandbox /elsewhere is not below the executor's",
    ),
];

#[tokio::test]
async fn l1_one_bad_member_of_a_group_and_nobody_runs() {
    let world = World::new();
    let rounds = std::env::var("PODLING_GROUPS")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(CAUSES.len());
    for round in 0..rounds {
        let (spoil, expected) = CAUSES[round % CAUSES.len()];
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let write = Arc::new(write);
        let mut plans: Vec<_> = (0..3).map(|_| world.rooted_plan(&shell("echo I ran"))).collect();
        for plan in &mut plans {
            plan.stdout = Output::Descriptor(Arc::clone(&write));
            plan.stderr = Output::Descriptor(Arc::clone(&write));
        }
        drop(write);
        spoil(&mut plans[round % 3]);

        let mut gated: Vec<Gated> = Vec::new();
        let mut failed: Vec<LaunchError> = Vec::new();
        for plan in plans {
            match world.runtime.prepare(plan).await {
                Ok(member) => gated.push(member),
                Err(error) => failed.push(error),
            }
        }
        let said: Vec<_> = failed.iter().map(ToString::to_string).collect();
        assert_eq!(said.len(), 1, "{expected}: {said:?}");
        assert!(
            said[0].starts_with("member `web`: ") && said[0].contains(expected),
            "{expected}: {said:?}"
        );
        for member in gated {
            member.discard().await;
        }
        // Nobody has it open any more, and nobody wrote to it.
        let mut byte = [0u8];
        assert_eq!(rustix::io::read(&read, &mut byte), Ok(0), "{expected}");
    }
}

#[tokio::test]
async fn l1_a_member_that_dies_at_its_gate_is_told_as_such() {
    let world = World::new();
    let gated = world.runtime.prepare(world.plan(&shell("true"))).await.unwrap();
    let init = rustix::process::Pid::from_raw(gated.pid()).unwrap();
    rustix::process::kill_process(init, rustix::process::Signal::KILL).unwrap();
    while std::fs::read_to_string(format!("/proc/{}/stat", gated.pid()))
        .unwrap()
        .split(") ")
        .nth(1)
        .unwrap()
        .starts_with(['S', 'R', 'D'])
    {
        tokio::task::yield_now().await;
    }
    match gated.release().await {
        Err(error) => assert_eq!(
            error.to_string(),
            "member `web`: was killed by signal 9 before it was started"
        ),
        // The end of the report is all there is to see of a start; then the end tells.
        Ok(mut running) => assert_eq!(running.wait().await.status, ExitStatus::Signal(libc::SIGKILL)),
    }
}

#[tokio::test]
async fn l_08_a_preparation_can_be_given_up_at_any_time() {
    let world = World::new();
    let count = || {
        let children = std::fs::read_to_string(format!(
            "/proc/self/task/{}/children",
            rustix::thread::gettid().as_raw_nonzero()
        ));
        children.unwrap().split_whitespace().count()
    };
    let before = count();
    for micros in (0..4000).step_by(200) {
        let preparing = world
            .runtime
            .prepare(world.rooted_plan(&exec(&["sleep", "1000"])));
        let _ = tokio::time::timeout(Duration::from_micros(micros), preparing).await;
    }
    while count() > before {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
