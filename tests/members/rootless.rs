//! Without root (S8): what an ordinary user gets, and what is refused with a sentence.
//!
//! The test binary runs itself again as an ordinary user.

use std::{
    env,
    os::unix::{fs::chown, process::CommandExt},
    process::Command,
};

use podling::{
    container::plan::{Mount, MountSource, PidNamespace, Target, UserSpec},
    group::ExitStatus,
};

use crate::support::{World, exec, shell};

const NOBODY: u32 = 65534;
const ROLE: &str = "PODLING_TEST_ORDINARY";

#[test]
fn s8_an_ordinary_user_runs_members() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let directory = tempfile::Builder::new()
        .prefix("podling-user-")
        .tempdir()
        .unwrap();
    chown(directory.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let output = Command::new(env::current_exe().unwrap())
        .args(["rootless::as_user", "--nocapture", "--test-threads=1"])
        .env(ROLE, "1")
        .env("TMPDIR", directory.path())
        .current_dir("/")
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("6 passed"),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

/// Only in the run as an ordinary user.
fn world() -> Option<World> {
    env::var_os(ROLE).map(|_| World::new())
}

#[tokio::test]
async fn as_user_without_an_image() {
    let Some(world) = world() else { return };
    let mut plan = world.plan(&shell(
        "id -u; id -g; cat /proc/self/uid_map; pwd; echo hello > common/file; echo $$; cat common/file; grep Seccomp: /proc/self/status",
    ));
    plan.mounts.push(Mount {
        source: MountSource::ExecutorSandbox("shared".into()),
        target: Target::Sandbox("common".into()),
        read_only: false,
        field: "volume".into(),
    });
    plan.hostname = Some("box".into());
    let done = world.run(plan).await;
    let expected = format!(
        "{NOBODY}\n{NOBODY}\n{NOBODY} 0 1\n{}\n2\nhello\nSeccomp:\t2",
        done.sandbox.display()
    );
    let said: Vec<String> = done
        .said()
        .lines()
        .map(|line| {
            line.trim()
                .replace("          ", " ")
                .split(' ')
                .filter(|word| !word.is_empty())
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect();
    assert_eq!(said.join("\n"), expected);
    assert_eq!(
        std::fs::read_to_string(world.sandbox().join("shared/file")).unwrap(),
        "hello\n"
    );
}

#[tokio::test]
async fn as_user_with_a_root_file_system() {
    let Some(world) = world() else { return };
    let mut plan = world.rooted_plan(&shell(
        "id -u; ls /; echo x > /dev/null && head -c 1 /dev/zero | wc -c; cat /proc/keys; ls /sys/firmware; touch /ro/x || echo refused; cat /proc/1/comm",
    ));
    std::fs::create_dir(world.sandbox().join("host")).unwrap();
    plan.mounts.push(Mount {
        source: MountSource::Host(world.sandbox().join("host")),
        target: Target::Root("ro".into()),
        read_only: true,
        field: "volume".into(),
    });
    let mut running = world.start(plan.clone()).await.unwrap();
    let exit = running.wait().await;
    assert_eq!(exit.status, ExitStatus::Code(0));
    let said = std::fs::read_to_string(plan.sandbox.join("stdout")).unwrap();
    assert_eq!(
        said,
        "65534\nbin\ndev\netc\nmnt\nproc\nro\nsys\n1\nrefused\npodling-init\n"
    );
}

#[tokio::test]
async fn as_user_s3_every_class_in_every_mode() {
    if world().is_some() {
        let modes = crate::modes::MODES.into_iter();
        crate::modes::every_class(modes.filter(|mode| mode.rootless)).await;
    }
}

#[tokio::test]
async fn as_user_exec_and_kill() {
    let Some(world) = world() else { return };
    let mut running = world.start(world.plan(&exec(&["sleep", "1000"]))).await.unwrap();
    let plan = podling::container::ExecPlan {
        command: podling::container::plan::Command {
            program: "cat".into(),
            arguments: vec!["cat".into(), "/proc/1/comm".into()],
        },
        environment: vec![],
        cwd: None,
        streams: podling::container::ExecStreams::Null,
    };
    let said = running
        .entrance()
        .unwrap()
        .capture(plan.clone(), 100)
        .await
        .unwrap();
    assert_eq!(said.output, b"podling-init\n");
    // What is run in it is who it is.
    let mut plan = plan;
    plan.command = podling::container::plan::Command {
        program: "id".into(),
        arguments: vec!["id".into(), "-u".into()],
    };
    let said = running.entrance().unwrap().capture(plan, 100).await.unwrap();
    assert_eq!(said.output, b"65534\n");
    running.stop();
    assert_eq!(running.wait().await.status, ExitStatus::Signal(libc::SIGTERM));
}

#[tokio::test]
async fn as_user_what_needs_root_is_refused_with_a_sentence() {
    let Some(world) = world() else { return };
    let mut plan = world.plan(&shell("true"));
    plan.user = UserSpec::Named {
        text: "daemon".into(),
        host_too: true,
    };
    let error = world.runtime.prepare(plan).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "member `web`: becoming user 1 needs root; this executor runs as user 65534"
    );
    let mut plan = world.plan(&shell("true"));
    plan.namespaces.pid = PidNamespace::Shared("pod".into());
    let error = world.runtime.prepare(plan).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("needs root; this executor runs as an ordinary user"),
        "{error}"
    );
}

#[tokio::test]
async fn as_user_being_oneself_by_name_is_fine() {
    let Some(world) = world() else { return };
    let mut plan = world.plan(&shell(
        "touch mine; [ $(stat -c %u mine) = 65534 ] || echo not mine",
    ));
    plan.user = UserSpec::Named {
        text: "nobody".into(),
        host_too: true,
    };
    let done = world.run(plan).await;
    assert_eq!(done.said(), "");
    use std::os::unix::fs::MetadataExt;
    assert_eq!(done.sandbox.join("mine").metadata().unwrap().uid(), NOBODY);
    // In a root of its own it can also be root, of what is its own.
    let mut plan = world.rooted_plan(&shell("id -u; touch /mine; stat -c %u /mine"));
    plan.user = UserSpec::Named {
        text: "root".into(),
        host_too: true,
    };
    assert_eq!(world.run(plan).await.said(), "0\n0");
    let mut plan = world.plan(&shell("true"));
    plan.user = UserSpec::Named {
        text: "nobody:0".into(),
        host_too: true,
    };
    let error = world.runtime.prepare(plan).await.unwrap_err().to_string();
    assert!(error.contains("becoming group 0 needs root"), "{error}");
}
