//! Members with a root file system of their own.

use std::{collections::BTreeMap, os::unix::fs::MetadataExt, path::PathBuf, sync::Arc};

use podling::{
    container::plan::{self, Defaults, Mount, MountSource, Plan, Rootfs, Target, UserSpec},
    group::ExitStatus,
};

use crate::support::{World, exec, make_root, overlay, shell};

/// Mount point → (root of the mount, type, options).
fn mounts(mountinfo: &str) -> BTreeMap<String, (String, String, Vec<String>)> {
    let parse = |line: &str| {
        let (left, right) = line.split_once(" - ").unwrap();
        let left: Vec<_> = left.split(' ').collect();
        let kind = right.split(' ').next().unwrap().to_owned();
        (
            left[4].to_owned(),
            (
                left[3].to_owned(),
                kind,
                left[5].split(',').map(str::to_owned).collect(),
            ),
        )
    };
    mountinfo.lines().map(parse).collect()
}

#[tokio::test]
async fn i_16_i_17_i_18_the_tree_as_seen_from_inside() {
    let world = World::new();
    let done = world
        .run(world.rooted_plan(&exec(&["/bin/cat", "/proc/self/mountinfo"])))
        .await;
    let mounts = mounts(done.said());
    let check = |place: &str, kind: &str, options: &str| {
        let (_, found, given) = mounts
            .get(place)
            .unwrap_or_else(|| panic!("{place} in {mounts:#?}"));
        assert_eq!(found, kind, "{place}");
        for option in options.split(',') {
            assert!(
                given.iter().any(|given| given == option),
                "{place}: {option} in {given:?}"
            );
        }
    };
    check("/proc", "proc", "rw,nosuid,nodev,noexec");
    check("/sys", "sysfs", "ro,nosuid,nodev,noexec");
    check("/sys/fs/cgroup", "tmpfs", "ro,nosuid,nodev,noexec");
    check("/dev", "tmpfs", "rw,nosuid");
    check("/dev/pts", "devpts", "rw,nosuid,noexec");
    check("/dev/mqueue", "mqueue", "rw,nosuid,nodev,noexec");
    check("/dev/shm", "tmpfs", "rw,nosuid,nodev,noexec");
    check("/proc/sys", "proc", "ro");
    check("/proc/keys", "tmpfs", "nosuid");
    check("/sys/firmware", "tmpfs", "ro");
    assert!(mounts.contains_key("/mnt/mesos/sandbox"));
    // Nothing of the host's tree is left.
    let roots: Vec<_> = mounts.values().filter(|(_, kind, _)| kind == "ext4").collect();
    assert_eq!(roots.len(), 2, "{roots:?}");
}

#[tokio::test]
async fn i_17_masked_paths_read_as_nothing_and_read_only_ones_refuse() {
    let world = World::new();
    let line = "cat /proc/keys /proc/timer_list; ls /sys/firmware; echo 1 > /proc/sys/kernel/panic && echo wrote; \
                touch /sys/x && echo wrote; true";
    let done = world.run(world.rooted_plan(&shell(line))).await;
    assert_eq!(done.said(), "", "{done:?}");
}

#[tokio::test]
async fn e_04_i_12_sandbox_and_working_directory() {
    let world = World::new();
    let done = world
        .run(world.rooted_plan(&shell("pwd; echo $MESOS_SANDBOX; echo kept > file")))
        .await;
    assert_eq!(done.said(), "/mnt/mesos/sandbox\n/mnt/mesos/sandbox");
    assert_eq!(
        std::fs::read_to_string(done.sandbox.join("file")).unwrap(),
        "kept\n"
    );

    let mut plan = world.rooted_plan(&shell("pwd"));
    plan.cwd = "/not/there/yet".into();
    assert_eq!(world.run(plan).await.said(), "/not/there/yet");
}

#[tokio::test]
async fn i_14_users_are_those_of_the_image() {
    let world = World::new();
    let as_user = |text: &str| Plan {
        user: UserSpec::Named {
            text: text.into(),
            host_too: false,
        },
        ..world.rooted_plan(&shell("id -u; id -g; id -G; touch mine"))
    };
    let done = world.run(as_user("app")).await;
    assert_eq!(done.said(), "1234\n1235\n1235 1300");
    let metadata = done.sandbox.metadata().unwrap();
    assert_eq!(
        (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777),
        (1234, 1235, 0o750),
        "E-06"
    );
    assert_eq!(done.sandbox.join("stdout").metadata().unwrap().uid(), 1234);
    assert_eq!(world.run(as_user("77:88")).await.said(), "77\n88\n88");
    let error = world.runtime.prepare(as_user("nobody")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "member `web`: user \"nobody\" is not in /etc/passwd of the root file system"
    );
    assert!(error.invalid());
}

fn mount(source: MountSource, target: &str, read_only: bool) -> Mount {
    Mount {
        source,
        target: match target.strip_prefix('/') {
            Some(rest) => Target::Root(rest.into()),
            None => Target::Sandbox(target.into()),
        },
        read_only,
        field: "container.volumes[0]".into(),
    }
}

#[tokio::test]
async fn v_02_v_04_members_share_by_their_parents_sandbox() {
    let world = World::new();
    let with_shared = |mut plan: Plan| {
        plan.mounts.push(mount(
            MountSource::ExecutorSandbox("shared/deep".into()),
            "common",
            false,
        ));
        plan
    };
    // One without an image, and one with another user and an image.
    let writer = with_shared(world.plan(&shell("echo hello > common/file")));
    let mut reader = with_shared(world.rooted_plan(&shell(
        "cat common/file; (echo me > common/mine) 2>/dev/null || echo refused",
    )));
    reader.user = UserSpec::Named {
        text: "app".into(),
        host_too: false,
    };
    assert_eq!(world.run(writer).await.said(), "");
    // It belongs to the user of whoever came first, as in Mesos.
    assert_eq!(world.run(reader).await.said(), "hello\nrefused");
    let mut first = world.rooted_plan(&shell("echo mine > of/file; stat -c '%u %g %a' of"));
    first
        .mounts
        .push(mount(MountSource::ExecutorSandbox("of-app".into()), "of", false));
    first.user = UserSpec::Named {
        text: "app".into(),
        host_too: false,
    };
    assert_eq!(world.run(first).await.said(), "1234 1235 755");
}

#[tokio::test]
async fn v_07_v_09_host_paths_of_files_and_directories_read_only_with_all_below() {
    let world = World::new();
    let host = world.sandbox().join("host");
    std::fs::create_dir_all(host.join("sub")).unwrap();
    std::fs::write(host.join("file"), "text\n").unwrap();
    let mut plan = world.rooted_plan(&shell(
        "cat /d/file /f; echo x > /d/sub/new || echo refused; echo y > /w/new",
    ));
    plan.mounts
        .push(mount(MountSource::Host(host.clone()), "/d", true));
    plan.mounts
        .push(mount(MountSource::Host(host.join("file")), "/f", true));
    plan.mounts
        .push(mount(MountSource::Host(host.clone()), "/w", false));
    assert_eq!(world.run(plan).await.said(), "text\ntext\nrefused");
    assert_eq!(std::fs::read_to_string(host.join("new")).unwrap(), "y\n");

    let mut plan = world.rooted_plan(&shell("true"));
    plan.mounts
        .push(mount(MountSource::Host("/no/such/place".into()), "/d", true));
    let error = world.runtime.prepare(plan).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "member `web`: container.volumes[0]: open host path \"/no/such/place\": No such file or directory (os error 2)"
    );
}

#[tokio::test]
async fn v_16_a_later_mount_may_lie_below_an_earlier_one() {
    let world = World::new();
    let mut plan = world.rooted_plan(&shell("echo a > /v/one/file; ls /v /v/one; stat -f -c %T /v/one"));
    plan.mounts
        .push(mount(MountSource::OwnSandbox("base".into()), "/v", false));
    plan.mounts.push(mount(
        MountSource::Tmpfs {
            size: Some(1 << 20),
            mode: 0o755,
        },
        "/v/one",
        false,
    ));
    let done = world.run(plan).await;
    assert_eq!(done.said(), "/v:\none\n\n/v/one:\nfile\ntmpfs");
    assert!(!done.sandbox.join("base/one/file").exists());
}

#[tokio::test]
async fn v_12_a_secret_is_a_file_that_exists_nowhere_else() {
    let world = World::new();
    for image in [true, false] {
        let line = "cat run/secret; stat -c %a:%u run/secret";
        let mut plan = if image {
            world.rooted_plan(&shell(line))
        } else {
            world.plan(&shell(line))
        };
        plan.mounts.push(mount(
            MountSource::Secret(Arc::from(&b"hush\n"[..])),
            "run/secret",
            true,
        ));
        let done = world.run(plan).await;
        assert_eq!(done.said(), "hush\n400:0");
        assert_eq!(
            std::fs::read(done.sandbox.join("run/secret")).unwrap(),
            b"",
            "only the place of it is left"
        );
    }
}

#[tokio::test]
async fn i_21_an_overlay_is_the_member_s_alone_and_the_layers_stay_as_they_are() {
    let world = World::new();
    let at = |name: &str| -> PathBuf { world.sandbox().join(name) };
    make_root(&at("base"));
    std::fs::create_dir_all(at("top/etc")).unwrap();
    // The upper layer's passwd is the one that counts.
    std::fs::write(at("top/etc/passwd"), "app:x:55:56::/:\n").unwrap();
    let context = plan::Context {
        rootfs: overlay(&[at("top"), at("base")], &at("upper")),
        ..world.context()
    };
    let mut task =
        shell("id -u; echo gone > /bin/new 2>/dev/null || echo refused; rm -f /etc/passwd; ls /etc");
    task.command.as_mut().unwrap().user = Some("app".into());
    let plan = plan::member(&task, None, &context, &Defaults::default()).unwrap();
    assert_eq!(world.run(plan).await.said(), "55\nrefused\ngroup\npasswd");

    let mut task = shell("rm /etc/passwd; ls /etc; echo new > /new");
    task.command.as_mut().unwrap().user = Some("root".into());
    let context = plan::Context {
        sandbox: world.context().sandbox,
        rootfs: overlay(&[at("top"), at("base")], &at("upper2")),
        ..context
    };
    let plan = plan::member(&task, None, &context, &Defaults::default()).unwrap();
    assert_eq!(world.run(plan).await.said(), "group");
    assert!(at("top/etc/passwd").exists() && at("base/etc/passwd").exists() && at("upper2/new").exists());
}

#[tokio::test]
async fn a_read_only_root_is_read_only_but_its_mounts_are_not() {
    let world = World::new();
    let mut plan = world.rooted_plan(&shell(
        "touch /x || echo refused; touch here /dev/shm/x && echo fine",
    ));
    if let Rootfs::Directory { read_only, .. } = &mut plan.rootfs {
        *read_only = true;
    }
    assert_eq!(world.run(plan).await.said(), "refused\nfine");
}

#[tokio::test]
async fn i_11_programs_are_looked_up_inside() {
    let world = World::new();
    let mut plan = world.rooted_plan(&exec(&["only-inside"]));
    let Rootfs::Directory { path, .. } = &plan.rootfs else {
        unreachable!()
    };
    std::fs::create_dir_all(path.join("opt")).unwrap();
    std::os::unix::fs::symlink("/bin/busybox", path.join("opt/only-inside")).unwrap();
    plan.environment = vec![("PATH".into(), "/nowhere:/opt:/bin".into())];
    let error = world.start(plan.clone()).await;
    // busybox knows no such applet, but it was executed.
    assert_eq!(error.unwrap().wait().await.status, ExitStatus::Code(127));
    plan.environment = vec![("PATH".into(), "/usr/bin".into())];
    let error = world.runtime.prepare(plan).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "member `web`: exec `only-inside`: No such file or directory (os error 2)"
    );
}
