//! Members that share their processes (Z-01).

use podling::{container::plan::PidNamespace, group::ExitStatus};

use crate::support::{World, exec, shell};

#[tokio::test]
async fn z_01_members_of_a_pod_may_see_each_other_and_nobody_else() {
    let world = World::new();
    let shared = |mut plan: podling::container::plan::Plan| {
        plan.namespaces.pid = PidNamespace::Shared("pod".into());
        plan
    };
    let sleeper = world
        .start(shared(world.plan(&exec(&["sleep", "1000"]))))
        .await
        .unwrap();
    for rooted in [false, true] {
        let line = shell(
            "cat /proc/1/comm; cat /proc/[0-9]*/comm | grep -c sleep; readlink /proc/1/ns/pid /proc/self/ns/pid; ls /proc | grep -c '^[0-9]'",
        );
        let plan = if rooted {
            world.rooted_plan(&line)
        } else {
            world.plan(&line)
        };
        let done = world.run(shared(plan)).await;
        let lines: Vec<_> = done.stdout.lines().collect();
        assert_eq!(lines[..2], ["podling-init", "1"], "{done:?}");
        assert!(lines.last().unwrap().parse::<u32>().unwrap() < 8, "{done:?}");
    }
    // Another pod is another world.
    let mut plan = world.plan(&shell("cat /proc/[0-9]*/comm | grep -c sleep; true"));
    plan.namespaces.pid = PidNamespace::Shared("other".into());
    assert_eq!(world.run(plan).await.said(), "0");
    drop(sleeper);
}

#[tokio::test]
async fn z_01_a_member_of_a_pod_ends_by_itself() {
    let world = World::new();
    let plan = || {
        let mut plan = world.plan(&exec(&["sleep", "1000"]));
        plan.namespaces.pid = PidNamespace::Shared("pod".into());
        plan
    };
    let (mut one, mut other) = (
        world.start(plan()).await.unwrap(),
        world.start(plan()).await.unwrap(),
    );
    one.stop();
    assert_eq!(one.wait().await.status, ExitStatus::Signal(libc::SIGTERM));
    other.kill();
    assert_eq!(other.wait().await.status, ExitStatus::Signal(libc::SIGKILL));
}
