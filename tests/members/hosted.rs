//! Members without an image: they see the host's root.

use podling::{
    container::{
        plan::{self, Defaults},
        policy::{Policy, Preset},
    },
    group::ExitStatus,
    mesos::v1,
};

use crate::support::{World, exec, shell};

#[tokio::test]
async fn e_10_e_11_output_goes_to_the_sandbox_which_is_the_cwd() {
    let world = World::new();
    let done = world.shell("pwd; echo oops >&2; readlink /proc/self/fd/0").await;
    assert_eq!(done.said(), format!("{}\n/dev/null", done.sandbox.display()));
    assert_eq!(done.stderr, "oops\n");
}

#[tokio::test]
async fn exit_codes_and_signals_are_told_exactly() {
    let world = World::new();
    for code in [0, 1, 77, 255] {
        let done = world.shell(&format!("exit {code}")).await;
        assert_eq!(done.exit.status, ExitStatus::Code(code));
    }
    for signal in [1, 6, 9, 11, 15, 31, 34, 64] {
        let done = world.shell(&format!("kill -{signal} $$; sleep 60")).await;
        assert_eq!(done.exit.status, ExitStatus::Signal(signal));
    }
}

#[tokio::test]
async fn z_01_own_pid_namespace_with_a_fresh_proc() {
    let world = World::new();
    let done = world
        .shell("echo $$; cat /proc/1/comm; ls /proc | grep -c '^[0-9]'")
        .await;
    let lines: Vec<_> = done.said().lines().collect();
    assert_eq!(lines[..2], ["2", "podling-init"]);
    assert!(lines[2].parse::<u32>().unwrap() <= 4, "{lines:?}");
}

#[tokio::test]
async fn k_04_sleep_dies_on_the_first_term() {
    let world = World::new();
    let mut running = world.start(world.plan(&exec(&["sleep", "1000"]))).await.unwrap();
    running.stop();
    assert_eq!(running.wait().await.status, ExitStatus::Signal(libc::SIGTERM));
}

#[tokio::test]
async fn k_07_kill_ends_everything() {
    let world = World::new();
    let line = "trap '' TERM; (trap '' TERM; setsid sleep 1000 &) ; sleep 1000";
    let mut running = world.start(world.plan(&shell(line))).await.unwrap();
    running.kill();
    assert_eq!(running.wait().await.status, ExitStatus::Signal(libc::SIGKILL));
}

#[tokio::test]
async fn l1_what_cannot_be_executed_is_known_before_the_gate() {
    let world = World::new();
    let error = world
        .runtime
        .prepare(world.plan(&exec(&["/srv/no/app"])))
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "member `web`: exec `/srv/no/app`: No such file or directory (os error 2)"
    );
    let error = world
        .runtime
        .prepare(world.plan(&exec(&["no-such-program"])))
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "member `web`: exec `no-such-program`: No such file or directory (os error 2)"
    );
    let error = world
        .runtime
        .prepare(world.plan(&exec(&["/etc/passwd"])))
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "member `web`: exec `/etc/passwd`: Permission denied (os error 13)"
    );
    let error = world
        .runtime
        .prepare(world.plan(&exec(&["/etc"])))
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "member `web`: exec `/etc`: Permission denied (os error 13)"
    );
}

#[tokio::test]
async fn l1_nothing_runs_before_release() {
    let world = World::new();
    let plan = world.plan(&shell("echo ran"));
    let stdout = plan.sandbox.join("stdout");
    let gated = world.runtime.prepare(plan).await.unwrap();
    assert_eq!(std::fs::read_to_string(&stdout).unwrap(), "");
    gated.discard().await;
    assert_eq!(std::fs::read_to_string(&stdout).unwrap(), "");
}

#[tokio::test]
async fn s1_z_04_z_05_z_06_the_defaults_as_seen_from_inside() {
    let world = World::new();
    let done = world.shell("grep -E '^(Cap|NoNewPrivs|Seccomp:|Uid|Gid|Groups|SigBlk|SigIgn)' /proc/self/status; umask; ls /proc/self/fd").await;
    let status = done.said();
    let field = |name: &str| {
        let line = status
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_else(|| panic!("{name} in {status}"));
        line.split_once(':').unwrap().1.trim().to_owned()
    };
    assert_eq!(field("CapBnd"), "00000000a80425fb");
    assert_eq!(field("CapEff"), "00000000a80425fb");
    assert_eq!(field("CapPrm"), "00000000a80425fb");
    assert_eq!(field("CapInh"), "0000000000000000");
    assert_eq!(field("CapAmb"), "0000000000000000");
    assert_eq!(field("NoNewPrivs"), "1");
    assert_eq!(field("Seccomp"), "2");
    assert_eq!(field("SigBlk"), "0000000000000000");
    assert_eq!(field("SigIgn"), "0000000000000000");
    // The listing itself has one more open.
    assert!(status.ends_with("0022\n0\n1\n2\n3"), "{status}");
}

/// What the kernel shows on the host's root is not the member's to change, whatever else is; it needs no capability.
#[tokio::test]
async fn s3_host_side_doors_of_a_root_on_the_host_s_root_are_shut() {
    // Asked, not done: a successful write to some of these would be felt by the machine.
    let line = "for p in /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /proc/sys/fs/suid_dumpable \
                /proc/sysrq-trigger /sys /sys/kernel /dev; do [ -w $p ] && echo $p; done; true";
    let world = World::new();
    assert_eq!(world.shell(line).await.said(), "");
    let weak = World::weakened(&[
        "make /proc/sys/kernel read-only",
        "make /proc/sys/fs read-only",
        "make /proc/sysrq-trigger read-only",
        "make /sys read-only",
        "make /dev read-only",
    ]);
    let open = weak.shell(line).await;
    for door in [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/fs/suid_dumpable",
        "/proc/sysrq-trigger",
        "/sys/kernel",
        "/dev",
    ] {
        // Not every kernel has them all.
        let there = std::path::Path::new(door).exists();
        let said = open.said();
        assert_eq!(
            said.lines().any(|line| line == door),
            there,
            "the trap for {door}: {said}"
        );
    }
    // What people do write to.
    let line = "for p in /proc/sys/vm/swappiness /proc/self/oom_score_adj /dev/null /dev/shm /tmp; do \
                [ -w $p ] || echo $p; done; echo x > /dev/null; echo x > /dev/shm/podling-$$ && rm /dev/shm/podling-$$";
    assert_eq!(world.shell(line).await.said(), "");
}

/// Who may mount could undo it, and may be there for that.
#[tokio::test]
async fn s3_host_side_doors_are_no_obstacle_for_who_may_mount() {
    let world = World::new();
    let mut task = shell("[ -w /proc/sys/kernel/core_pattern ] && echo open");
    task.container = Some(v1::ContainerInfo {
        r#type: v1::container_info::Type::Mesos.into(),
        linux_info: Some(v1::LinuxInfo {
            bounding_capabilities: Some(v1::CapabilityInfo {
                capabilities: vec![v1::capability_info::Capability::SysAdmin as i32],
            }),
            ..Default::default()
        }),
        ..Default::default()
    });
    let defaults = Defaults {
        policy: Policy::of(Preset::Mesos),
        ..Defaults::default()
    };
    let plan = plan::member(&task, None, &world.context(), &defaults).unwrap();
    assert_eq!(world.run(plan).await.said(), "open");
}
