//! Members in cgroups: what they are held to, and that nothing of them stays.

use std::{path::PathBuf, sync::Arc};

use podling::{
    container::{
        cgroup::{Bound, Config, GroupCgroup, Layout, Limits},
        plan::Plan,
    },
    group::{ExitStatus, Limit},
};

use crate::support::{World, exec, shell};

fn within(group: &GroupCgroup, mut plan: Plan, limits: &Limits) -> (Plan, PathBuf) {
    let cgroup = group
        .member(
            &format!("m{}", plan.sandbox.file_name().unwrap().display()),
            limits,
        )
        .unwrap();
    let path = cgroup.path();
    plan.cgroup_view = Layout::detect(&Config::default())
        .view(Some(&cgroup))
        .map(Arc::new);
    plan.cgroup = Some(Arc::new(cgroup));
    (plan, path)
}

#[tokio::test]
async fn a_member_is_in_its_cgroups_and_sees_only_them() {
    let world = World::new();
    let group = world.group();
    for rooted in [false, true] {
        let task = exec(&["/bin/cat", "/proc/self/cgroup"]);
        let plan = if rooted {
            world.rooted_plan(&task)
        } else {
            world.plan(&task)
        };
        let (plan, path) = within(&group, plan, &Limits::default());
        let gated = world.runtime.prepare(plan.clone()).await.unwrap();
        let outside = std::fs::read_to_string(format!("/proc/{}/cgroup", gated.pid())).unwrap();
        assert!(
            outside
                .lines()
                .filter(|line| line.contains("podling-members-"))
                .count()
                >= 2,
            "{outside}"
        );
        gated.release().await.unwrap().wait().await;
        let inside = std::fs::read_to_string(plan.sandbox.join("stdout")).unwrap();
        assert!(!inside.contains("podling"), "{inside}");
        assert!(inside.lines().any(|line| line.ends_with(":/")), "{inside}");
        drop(plan);
        assert!(!path.exists(), "{}", path.display());
    }
}

#[tokio::test]
async fn h_22_an_exec_is_in_the_member_s_cgroups() {
    let world = World::new();
    let group = world.group();
    let (plan, _) = within(&group, world.plan(&exec(&["sleep", "1000"])), &Limits::default());
    let running = world.start(plan).await.unwrap();
    let plan = podling::container::ExecPlan {
        command: podling::container::plan::Command {
            program: "cat".into(),
            arguments: vec!["cat".into(), "/proc/1/cgroup".into(), "/proc/self/cgroup".into()],
        },
        environment: vec![],
        cwd: None,
        streams: podling::container::ExecStreams::Null,
    };
    let said = running.entrance().unwrap().capture(plan, 10_000).await.unwrap();
    let said = String::from_utf8(said.output).unwrap();
    let lines: Vec<_> = said.lines().collect();
    let (init, own) = lines.split_at(lines.len() / 2);
    assert!(!init.is_empty());
    assert_eq!(init, own);
}

#[tokio::test]
async fn r_06_want_of_memory_is_told_as_such() {
    let world = World::new();
    let group = world.group();
    let limits = Limits {
        memory: Some(Bound::At(32 << 20)),
        no_swap: true,
        ..Limits::default()
    };
    let line = "x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo survived";
    let (plan, _) = within(&group, world.plan(&shell(line)), &limits);
    let done = world.run(plan).await;
    let Some(Limit::Memory { limit_bytes, message }) = &done.exit.limit else {
        panic!("{done:?}");
    };
    assert_eq!(*limit_bytes, 32 << 20);
    assert!(message.contains("32.0 MiB"), "{message}");
}

/// Things that do not want to end.
const STUBBORN: [&str; 4] = [
    // Ignores TERM, in every process of it.
    "trap '' TERM; (trap '' TERM; sleep 1000) & (setsid sh -c 'trap \"\" TERM; sleep 1000' &); wait",
    // Forks as fast as it may.
    "f() { f | f & }; f; sleep 1000",
    // Stops itself and its children.
    "(kill -STOP $$; sleep 1000) & kill -STOP $$; sleep 1000",
    // Double-forked daemons whose parents are gone.
    "(setsid sh -c '(setsid sleep 1000 &) & exit' &); (sleep 1000 &) ; exec sleep 1000",
];

#[tokio::test]
async fn l3_a_kill_ends_whatever_the_member_does() {
    let world = World::new();
    let group = world.group();
    let limits = Limits {
        pids: Some(Bound::At(64)),
        ..Limits::default()
    };
    for shared in [false, true] {
        for line in STUBBORN {
            let (mut plan, path) = within(&group, world.plan(&shell(line)), &limits);
            if shared {
                plan.namespaces.pid = podling::container::plan::PidNamespace::Shared("pod".into());
            }
            let mut running = world.start(plan).await.unwrap();
            running.stop();
            tokio::task::yield_now().await;
            running.kill();
            let exit = running.wait().await;
            assert!(matches!(exit.status, ExitStatus::Signal(_)), "{line}: {exit:?}");
            drop(running);
            assert!(!path.exists(), "{line}");
        }
    }
}

#[tokio::test]
async fn l3_a_frozen_member_can_be_killed() {
    let world = World::new();
    let group = world.group();
    let (plan, path) = within(&group, world.plan(&exec(&["sleep", "1000"])), &Limits::default());
    let cgroup = plan.cgroup.clone().unwrap();
    let mut running = world.start(plan).await.unwrap();
    cgroup.freeze().unwrap();
    running.kill();
    assert_eq!(running.wait().await.status, ExitStatus::Signal(libc::SIGKILL));
    drop((running, cgroup));
    assert!(!path.exists());
}

#[tokio::test]
async fn z_09_only_the_usual_devices_can_be_used() {
    let world = World::new();
    let group = world.group();
    // Made, as the capability is there, but of no use.
    let line = "mknod disk b 254 0 && head -c 1 disk > /dev/null 2>&1 && echo read; head -c 1 /dev/zero > /dev/full; echo end";
    let (plan, _) = within(&group, world.plan(&shell(line)), &Limits::default());
    assert_eq!(world.run(plan).await.said(), "end");
}
