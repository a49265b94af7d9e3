//! Between its exec and its first instruction a member is held (L1). That must be seen by nobody afterwards.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use podling::{
    container::plan::{self, Defaults, PidNamespace, Plan},
    group::ExitStatus,
};

use crate::support::{World, exec, shell};

fn gone(pid: i32) -> bool {
    let end = Instant::now() + Duration::from_secs(20);
    while Path::new(&format!("/proc/{pid}")).exists() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

/// The task of an init, by its only child.
fn task_of(init: i32) -> i32 {
    let children = std::fs::read_to_string(format!("/proc/{init}/task/{init}/children")).unwrap();
    children.trim().parse().unwrap()
}

fn modes(world: &World, task: &podling::mesos::v1::TaskInfo) -> Vec<(&'static str, Plan)> {
    let mut shared = world.plan(task);
    shared.namespaces.pid = PidNamespace::Shared("pod".into());
    vec![
        ("image-less", world.plan(task)),
        ("image", world.rooted_plan(task)),
        ("shared", shared),
    ]
}

#[tokio::test]
async fn l_1_an_executed_member_has_not_made_a_step_until_it_may_begin() {
    let world = World::new();
    for (mode, plan) in modes(&world, &exec(&["echo", "ran"])) {
        let said = plan.sandbox.join("stdout");
        let held = world
            .runtime
            .prepare(plan)
            .await
            .unwrap()
            .execute()
            .await
            .unwrap();
        // It is there, it is the program, and it stands still.
        let task = task_of(held.pid());
        let status = std::fs::read_to_string(format!("/proc/{task}/status")).unwrap();
        assert!(status.contains("State:\tt (tracing stop)"), "{mode}: {status}");
        assert!(!status.starts_with("Name:\tpodling-init"), "{mode}: {status}");
        assert_eq!(std::fs::read(&said).unwrap(), b"", "{mode}");
        let mut running = held.begin();
        assert_eq!(running.wait().await.status, ExitStatus::Code(0), "{mode}");
        assert_eq!(std::fs::read(&said).unwrap(), b"ran\n", "{mode}");
    }
}

#[tokio::test]
async fn l_1_a_held_member_that_is_given_up_is_gone_without_a_step() {
    let world = World::new();
    for dropped in [false, true] {
        for (mode, plan) in modes(&world, &exec(&["echo", "ran"])) {
            let said = plan.sandbox.join("stdout");
            let held = world
                .runtime
                .prepare(plan)
                .await
                .unwrap()
                .execute()
                .await
                .unwrap();
            let task = task_of(held.pid());
            match dropped {
                true => drop(held),
                false => held.discard().await,
            }
            assert!(gone(task), "{mode}");
            assert_eq!(std::fs::read(&said).unwrap(), b"", "{mode}");
        }
    }
}

#[tokio::test]
async fn l_1_a_held_member_that_is_killed_from_outside_has_an_end() {
    let world = World::new();
    let gated = world
        .runtime
        .prepare(world.plan(&exec(&["sleep", "1000"])))
        .await
        .unwrap();
    let held = gated.execute().await.unwrap();
    let task = rustix::process::Pid::from_raw(task_of(held.pid())).unwrap();
    rustix::process::kill_process(task, rustix::process::Signal::KILL).unwrap();
    assert_eq!(
        held.begin().wait().await.status,
        ExitStatus::Signal(libc::SIGKILL)
    );
}

#[tokio::test]
async fn l_1_nobody_traces_a_member_that_has_begun_and_it_may_trace_its_own() {
    let world = World::new();
    for (mode, plan) in modes(&world, &shell("grep TracerPid /proc/self/status /proc/$$/status")) {
        let said = world.run(plan).await;
        assert!(
            said.said().lines().all(|line| line.ends_with(":\t0")),
            "{mode}: {said:?}"
        );
    }
    let said = world
        .shell("strace -f -e trace=execve -o trace sh -c 'true; env true' && grep -c execve trace")
        .await;
    assert!(said.said().parse::<u32>().unwrap() >= 2, "{said:?}");
}

/// Somebody of little rights who traces a set-user-id program keeps it from its rights.
#[tokio::test]
async fn z_05_a_set_user_id_program_has_its_rights_where_the_operator_lets_it() {
    let world = World::new();
    // Not busybox: that gives up such rights by itself.
    let own = world.sandbox().join("grep");
    std::fs::copy("/bin/grep", &own).unwrap();
    std::fs::set_permissions(&own, std::os::unix::fs::PermissionsExt::from_mode(0o4755)).unwrap();
    let mut task = exec(&[own.to_str().unwrap(), "Uid:", "/proc/self/status"]);
    task.command.as_mut().unwrap().user = Some("nobody".into());
    for (no_new_privileges, effective) in [(true, "65534"), (false, "0")] {
        let given = Defaults {
            no_new_privileges,
            ..Defaults::default()
        };
        let plan = plan::member(&task, None, &world.context(), &given).unwrap();
        let said = world.run(plan).await;
        let ids: Vec<&str> = said.said().split_whitespace().collect();
        assert_eq!(ids[..3], ["Uid:", "65534", effective], "{said:?}");
    }
}

/// Where all tracing is forbidden members run, and are said to.
#[tokio::test]
async fn l_1_a_host_that_forbids_tracing_still_runs_members() {
    let world = World::weakened(&["watch the task"]);
    let said = world.shell("echo ran").await;
    assert_eq!(said.said(), "ran");
    // The hole that the hold closes: by now it may have run.
    let plan = world.plan(&exec(&["echo", "ran"]));
    let file = plan.sandbox.join("stdout");
    let held = world
        .runtime
        .prepare(plan)
        .await
        .unwrap()
        .execute()
        .await
        .unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while std::fs::read(&file).unwrap() != b"ran\n" {
        assert!(Instant::now() < end, "it waits for somebody");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(held.begin().wait().await.status, ExitStatus::Code(0));
}
