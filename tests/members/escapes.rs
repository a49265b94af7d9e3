//! S3: known ways out of containers stay closed. One test a class; each is also run on a runtime without the
//! protection, or shows that its trap is armed, so that it is known to notice.

use std::{
    fs::File,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::{PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use podling::{
    container::plan::{
        self, Capabilities, CapabilitySet, Context, Defaults, Mount, MountSource, Output, Plan, Rootfs,
        Target, Terminal, UserSpec,
    },
    group::ExitStatus,
};

use crate::support::{Outcome, World, exec, shell};

fn root(plan: &Plan) -> PathBuf {
    let Rootfs::Directory { path, .. } = &plan.rootfs else {
        unreachable!()
    };
    path.clone()
}

fn user(text: &str) -> UserSpec {
    UserSpec::Named {
        text: text.into(),
        host_too: false,
    }
}

fn volume(source: MountSource, target: &str) -> Mount {
    Mount {
        source,
        target: Target::Root(target.trim_start_matches('/').into()),
        read_only: false,
        field: "volume".into(),
    }
}

/// A member that may trace processes, which is as much as anybody is given.
fn tracer(world: &World, line: &str) -> Plan {
    let mut plan = world.rooted_plan(&shell(line));
    plan.capabilities = Capabilities::bounded(CapabilitySet(CapabilitySet::DOCKER.0 | 1 << 19));
    plan
}

#[tokio::test]
async fn s3_self_exe_overwrite() {
    let line = "dd if=/proc/1/exe of=copy 2>/dev/null; echo x >> /proc/1/exe; true";
    // Without the right to trace, the init is not even to be looked at.
    let world = World::new();
    let done = world.run(world.rooted_plan(&shell(line))).await;
    assert!(!done.sandbox.join("copy").exists(), "{done:?}");
    // With it: a few kilobytes that nobody can write to, and nothing of ours.
    let done = world.run(tracer(&world, line)).await;
    let copy = std::fs::read(done.sandbox.join("copy")).unwrap();
    assert!(copy.len() < 16 << 10, "{}", copy.len());
    assert_eq!(copy, podling::sys::INIT);
    assert!(!done.stderr.is_empty());

    let world = World::weakened(&["become opaque"]);
    let done = world.run(world.rooted_plan(&shell(line))).await;
    assert!(done.sandbox.join("copy").exists(), "the test would not notice");
}

#[tokio::test]
async fn s3_readable_state_of_the_init() {
    let line = "cat /proc/1/environ /proc/1/maps; ls -l /proc/1/fd /proc/1/root /proc/1/cwd; true";
    let world = World::new();
    let done = world.run(world.rooted_plan(&shell(line))).await;
    assert!(
        !done.stdout.contains("pipe") && !done.stdout.contains("00400000"),
        "{done:?}"
    );
    // Even who may trace finds nothing there: one pipe, no secrets, no way to the host.
    let done = world
        .run(tracer(
            &world,
            "cat /proc/1/environ; ls /proc/1/fd; ls -di /proc/1/root/. /",
        ))
        .await;
    let lines: Vec<_> = done.stdout.lines().collect();
    assert_eq!(lines[0], "0", "{done:?}");
    let inode = |line: &str| line.split_whitespace().next().unwrap().to_owned();
    assert_eq!(inode(lines[1]), inode(lines[2]), "{done:?}");
    // And it has no power to hand over.
    let done = world
        .run(tracer(
            &world,
            "grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp:)' /proc/1/status",
        ))
        .await;
    let status: Vec<_> = done
        .said()
        .lines()
        .map(|line| line.split_whitespace().nth(1).unwrap())
        .collect();
    assert_eq!(status, ["0000000000000020", "00000000a80c25fb", "1", "2"]);

    let world = World::weakened(&["become opaque"]);
    let done = world.run(world.rooted_plan(&shell(line))).await;
    assert!(
        done.stdout.contains("pipe"),
        "the test would not notice: {done:?}"
    );
}

#[tokio::test]
async fn s3_leaked_descriptor() {
    // Somebody forgot to mark one.
    let leak = File::open("/").unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    let fds = |done: Outcome| done.said().lines().count();
    let world = World::new();
    // (The listing has one of its own.)
    assert_eq!(
        fds(world
            .run(world.rooted_plan(&exec(&["/bin/ls", "/proc/self/fd"])))
            .await),
        4
    );
    let plan = world.plan(&shell("echo up; exec sleep 1000"));
    let said = plan.sandbox.join("stdout");
    let running = world.start(plan).await.unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while std::fs::read(&said).unwrap() != b"up\n" {
        assert!(Instant::now() < end, "it does not run");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let listed = std::fs::read_dir(format!("/proc/{}/fd", running.pid()))
        .unwrap()
        .count();
    assert_eq!(listed, 1, "the init keeps the pipe to tell by");

    let world = World::weakened(&["close what is not the task's"]);
    assert!(
        fds(world
            .run(world.rooted_plan(&exec(&["/bin/ls", "/proc/self/fd"])))
            .await)
            > 4
    );
}

#[tokio::test]
async fn s3_leaked_working_directory() {
    // An image whose working directory is a descriptor, and an executor that hands one of a host directory down.
    let plan = |world: &World| {
        let mut plan = world.rooted_plan(&shell("ls ../../../../../../..; true"));
        plan.stderr = Output::Descriptor(Arc::new(OwnedFd::from(File::open("/usr").unwrap())));
        plan.cwd = "/proc/self/fd/2".into();
        plan
    };
    let world = World::new();
    let error = world.runtime.prepare(plan(&world)).await.unwrap_err().to_string();
    assert!(
        error.starts_with("member `web`: make the working directory: "),
        "{error}"
    );
    let world = World::weakened(&["make the working directory"]);
    let error = world.runtime.prepare(plan(&world)).await.unwrap_err().to_string();
    assert!(
        error.starts_with("member `web`: check the working directory: "),
        "{error}"
    );

    let world = World::weakened(&["make the working directory", "check the working directory"]);
    let plan = plan(&world);
    let stdout = plan.sandbox.join("stdout");
    let _ = world.start(plan).await.unwrap().wait().await;
    assert!(
        std::fs::read_to_string(stdout).unwrap().contains("usr"),
        "the test would not notice"
    );
}

#[tokio::test]
async fn s3_mount_target_swap() {
    // The image has a link to the outside where a volume goes.
    let world = World::new();
    let outside = world.sandbox().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::create_dir(world.sandbox().join("source")).unwrap();
    for depth in ["", "/deeper/still"] {
        let mut plan = world.rooted_plan(&shell(&format!(
            "echo reached > /volume{depth}/file; ls /volume{depth}"
        )));
        symlink(
            format!("../../../../../../../..{}", outside.display()),
            root(&plan).join("volume"),
        )
        .unwrap();
        symlink(&outside, root(&plan).join("absolute")).unwrap();
        assert!(
            root(&plan).join("volume").canonicalize().unwrap() == outside,
            "the trap is armed"
        );
        plan.mounts.push(volume(
            MountSource::Host(world.sandbox().join("source")),
            &format!("volume{depth}"),
        ));
        plan.mounts.push(volume(
            MountSource::Host(world.sandbox().join("source")),
            "absolute/x",
        ));
        match world.runtime.prepare(plan).await {
            // Inside, the link leads nowhere.
            Err(error) => assert!(
                error.to_string().contains("Too many levels of symbolic links"),
                "{error}"
            ),
            Ok(gated) => {
                gated.release().await.unwrap().wait().await;
            }
        }
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn s3_mount_source_swap() {
    // What is a directory of the sandbox in the plan has become a link to the host.
    let world = World::new();
    std::fs::create_dir_all(world.sandbox().join("shared")).unwrap();
    symlink("/etc", world.sandbox().join("shared/evil")).unwrap();
    symlink("/etc", world.sandbox().join("evil")).unwrap();
    for path in ["evil", "shared/evil", "shared/evil/new"] {
        let mut plan = world.rooted_plan(&shell("cat /volume/passwd"));
        assert!(world.sandbox().join("evil/passwd").exists(), "the trap is armed");
        plan.mounts
            .push(volume(MountSource::ExecutorSandbox(path.into()), "volume"));
        let error = world.runtime.prepare(plan).await.unwrap_err().to_string();
        assert!(
            error.starts_with("member `web`: volume: make directory"),
            "{error}"
        );
    }
    assert!(!Path::new("/etc/new").exists());
    // The same for the member's own sandbox.
    let mut plan = world.rooted_plan(&shell("true"));
    symlink("/etc", world.sandbox().join("containers/link")).unwrap();
    plan.sandbox = world.sandbox().join("containers/link/sandbox");
    assert!(world.runtime.prepare(plan).await.is_err());
    assert!(!Path::new("/etc/sandbox").exists());
}

#[tokio::test]
async fn s3_procfs_redirection() {
    // A volume over /proc that has a file where one of our writes goes, and nothing where masks go.
    let world = World::new();
    let fake = world.sandbox().join("fake");
    std::fs::create_dir_all(fake.join("self")).unwrap();
    std::fs::write(fake.join("self/oom_score_adj"), "untouched").unwrap();
    let mut plan = world.rooted_plan(&shell("sleep 1000"));
    plan.oom_score_adj = Some(777);
    plan.mounts.push(volume(MountSource::Host(fake.clone()), "proc"));
    let running = world.start(plan).await.unwrap();
    let task = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", running.pid())).unwrap();
    let score = std::fs::read_to_string(format!("/proc/{}/oom_score_adj", task.trim())).unwrap();
    assert_eq!(score.trim(), "777");
    assert_eq!(
        std::fs::read_to_string(fake.join("self/oom_score_adj")).unwrap(),
        "untouched"
    );
}

#[tokio::test]
async fn s3_images_that_lie_about_the_root() {
    // With links a member would run without /proc, or with one of the image's making.
    let world = World::new();
    for name in ["proc", "sys", "dev"] {
        for target in ["/etc", "etc", "nowhere", "/proc/self/root"] {
            let plan = world.rooted_plan(&shell("true"));
            symlink(target, root(&plan).join(name)).unwrap();
            let error = world.runtime.prepare(plan).await.unwrap_err();
            assert!(error.invalid());
            assert_eq!(
                error.to_string(),
                format!(
                    "member `web`: /{name} of its root file system is a symbolic link; it has to be a directory"
                )
            );
        }
        let plan = world.rooted_plan(&shell("true"));
        std::fs::write(root(&plan).join(name), "").unwrap();
        let error = world.runtime.prepare(plan).await.unwrap_err().to_string();
        assert!(error.contains("is no directory"), "{error}");
    }
}

#[tokio::test]
async fn s2_the_root_is_looked_at_once_more_when_the_kernels_places_are_mounted() {
    use std::sync::atomic::{AtomicBool, Ordering};
    // What was a directory when it was looked at is a link afterwards.
    let world = World::new();
    let template = world.rooted_plan(&exec(&["/bin/grep", "-c", " /proc proc ", "/proc/self/mounts"]));
    let inside = root(&template);
    std::fs::create_dir_all(inside.join("proc")).unwrap();
    symlink("etc", inside.join("link")).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let attack = {
        let stop = Arc::clone(&stop);
        let directory =
            rustix::fs::open(&inside, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
        std::thread::spawn(move || {
            let flags = rustix::fs::RenameFlags::EXCHANGE;
            while !stop.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(&directory, "proc", &directory, "link", flags).unwrap();
            }
        })
    };
    let (mut ready, mut refused) = (0, 0);
    for number in 0..40 {
        let mut plan = template.clone();
        plan.sandbox = world.sandbox().join(format!("containers/race{number}"));
        match world.runtime.prepare(plan).await {
            Ok(member) => {
                // Nothing is mounted over what the link leads to.
                let mounts = std::fs::read_to_string(format!("/proc/{}/mountinfo", member.pid())).unwrap();
                assert!(
                    mounts.lines().all(|line| line.split(' ').nth(4) != Some("/etc")),
                    "{mounts}"
                );
                member.discard().await;
                ready += 1;
            }
            Err(error) => {
                let error = error.to_string();
                let known = ["is a symbolic link", "mount /proc: ", "mount "];
                assert!(known.iter().any(|known| error.contains(known)), "{error}");
                refused += 1;
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    attack.join().unwrap();
    assert_eq!(ready + refused, 40);
}

#[tokio::test]
async fn s3_console_and_terminals() {
    // The image brings devices of its own, and a volume brings terminals of its own.
    let world = World::new();
    let fake = world.sandbox().join("fake");
    std::fs::create_dir_all(&fake).unwrap();
    std::fs::write(fake.join("ptmx"), "untouched").unwrap();
    let mut plan = world.rooted_plan(&shell("test -t 0 && readlink /proc/self/fd/0"));
    std::fs::create_dir(root(&plan).join("dev")).unwrap();
    for name in ["console", "ptmx", "null", "tty"] {
        symlink(fake.join("ptmx"), root(&plan).join("dev").join(name)).unwrap();
    }
    plan.mounts
        .push(volume(MountSource::Host(fake.clone()), "dev/pts"));
    plan.terminal = Some(Terminal { size: None });
    let done = world.run(plan).await;
    assert_eq!(done.exit.status, ExitStatus::Code(0), "{done:?}");
    assert_eq!(std::fs::read_to_string(fake.join("ptmx")).unwrap(), "untouched");
}

#[tokio::test]
async fn s3_fifo_for_file() {
    let fifo = |path: &Path| {
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o666));
        rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).unwrap();
    };
    let world = World::new();
    let mut plan = world.rooted_plan(&shell("true"));
    plan.user = user("app");
    std::fs::remove_file(root(&plan).join("etc/passwd")).unwrap();
    fifo(&root(&plan).join("etc/passwd"));
    let error = world.runtime.prepare(plan).await.unwrap_err().to_string();
    assert!(error.contains("not a regular file"), "{error}");

    let plan = world.rooted_plan(&shell("true"));
    std::fs::create_dir_all(&plan.sandbox).unwrap();
    fifo(&plan.sandbox.join("stdout"));
    let error = world.runtime.prepare(plan).await.unwrap_err().to_string();
    assert!(error.contains("open stdout for stdout"), "{error}");
}

#[tokio::test]
async fn s3_image_config_as_control_input() {
    let image = |config: serde_json::Value| {
        let json = serde_json::json!({
            "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}, "config": config,
        });
        serde_json::from_value(json).unwrap()
    };
    let world = World::new();
    let plan = |config| {
        let mut task = shell("");
        task.command = None;
        plan::member(&task, Some(&image(config)), &world.rooted(), &Defaults::default())
    };
    for config in [
        serde_json::json!({"Cmd": ["/bin/sh\0-c"]}),
        serde_json::json!({"Cmd": ["/bin/sh"], "User": "0\0:0"}),
        serde_json::json!({"Cmd": ["/bin/sh"], "WorkingDir": "/a\0b"}),
        serde_json::json!({"Cmd": ["/bin/sh"], "StopSignal": "KILL; reboot"}),
    ] {
        assert!(plan(config.clone()).is_err(), "{config}");
    }
    // Users are names or numbers, lines and colons do not make more of them.
    for text in ["0\nroot", "root:x:0:0", " 0", "+0", "0x0", "-1", "4294967295:0"] {
        let planned = plan(serde_json::json!({"Cmd": ["/bin/sh"], "User": text})).unwrap();
        assert!(world.runtime.prepare(planned).await.is_err(), "{text:?}");
    }
    // Dots in places stay inside.
    let mut planned =
        plan(serde_json::json!({"Cmd": ["/bin/sh", "-c", "pwd"], "WorkingDir": "../../../../../tmp/made"}))
            .unwrap();
    planned.command.arguments.truncate(3);
    let error = world.runtime.prepare(planned).await;
    assert!(!Path::new("/tmp/made").exists());
    drop(error);
    // Volumes of an image name places inside only.
    let planned = plan(
        serde_json::json!({"Cmd": ["/bin/true"], "Volumes": {"/../../../etc": {}, "relative/../../x": {}}}),
    );
    assert!(
        planned
            .unwrap()
            .mounts
            .iter()
            .all(|mount| mount.field == "/dev/shm")
    );
}

#[tokio::test]
async fn s3_uid_wrap() {
    let world = World::new();
    for text in [
        "4294967295",
        "0:4294967295",
        "4294967296",
        "18446744073709551616",
        "99999999999999999999",
    ] {
        let mut plan = world.rooted_plan(&shell("id -u"));
        plan.user = user(text);
        let error = world.runtime.prepare(plan).await.unwrap_err();
        assert!(
            error.invalid() && error.to_string().contains("is no user or group id"),
            "{error}"
        );
    }
    let mut plan = world.rooted_plan(&shell("id -u"));
    plan.user = user("4294967294");
    assert_eq!(world.run(plan).await.said(), "4294967294");
}

#[tokio::test]
async fn s3_inheritable_capabilities() {
    let world = World::new();
    // A program of the image that takes what it can inherit.
    let plan = |caps: Capabilities| {
        let mut plan = world.rooted_plan(&exec(&["grep", "CapEff", "/proc/self/status"]));
        plan.command.program = "/bin/taker".into();
        let program = root(&plan).join("bin/taker");
        std::fs::copy(root(&plan).join("bin/busybox"), &program).unwrap();
        let inherit_all: Vec<u8> = [0x0200_0001u32, 0, u32::MAX, 0, u32::MAX]
            .into_iter()
            .flat_map(u32::to_le_bytes)
            .collect();
        rustix::fs::setxattr(
            &program,
            "security.capability",
            &inherit_all,
            rustix::fs::XattrFlags::empty(),
        )
        .unwrap();
        plan.user = user("app");
        plan.no_new_privileges = false;
        plan.capabilities = caps;
        plan
    };
    let caps = Capabilities::bounded(CapabilitySet::DOCKER);
    assert_eq!(world.run(plan(caps)).await.said(), "CapEff:\t0000000000000000");
    let weak = Capabilities {
        inheritable: caps.bounding,
        ..caps
    };
    assert_ne!(
        world.run(plan(weak)).await.said(),
        "CapEff:\t0000000000000000",
        "the test would not notice"
    );
}

#[tokio::test]
async fn s3_abstract_sockets() {
    // Members without a network of their own share names of abstract sockets with us: so we have none.
    let of_ours = || {
        let unix = std::fs::read_to_string("/proc/self/net/unix").unwrap();
        let own: Vec<_> = std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
            .filter_map(|link| {
                Some(
                    link.to_str()?
                        .strip_prefix("socket:[")?
                        .strip_suffix(']')?
                        .to_owned(),
                )
            })
            .collect();
        let named = |line: &&str| {
            let fields: Vec<_> = line.split_whitespace().collect();
            fields.len() > 7 && fields[7].starts_with("@podling") && own.contains(&fields[6].to_owned())
        };
        unix.lines().filter(named).count()
    };
    let world = World::new();
    let mut plan = world.rooted_plan(&exec(&["sleep", "1000"]));
    plan.terminal = Some(Terminal { size: None });
    let running = world.start(plan).await.unwrap();
    assert_eq!(of_ours(), 0);
    use std::os::linux::net::SocketAddrExt;
    let name = std::os::unix::net::SocketAddr::from_abstract_name(format!("podling-{}", std::process::id()))
        .unwrap();
    let _armed = std::os::unix::net::UnixListener::bind_addr(&name).unwrap();
    assert_eq!(of_ours(), 1, "the test would not notice");
    drop(running);
}

#[tokio::test]
async fn s3_readable_sandboxes_and_secrets() {
    // Another member, with another user, on the same host file system.
    let world = World::new();
    let mut victim = world.rooted_plan(&shell("echo secret > file; sleep 1000"));
    victim.user = user("app");
    victim.environment.push(("SECRET".into(), "hush".into()));
    let sandbox = victim.sandbox.clone();
    let running = world.start(victim).await.unwrap();
    while !sandbox.join("file").exists() {
        tokio::task::yield_now().await;
    }
    let line = format!(
        "cat {0}/file; ls {0}; cat /proc/[0-9]*/environ 2>/dev/null | grep -c hush",
        sandbox.display()
    );
    let plan = |world: &World| {
        let mut plan = world.plan(&shell(&line));
        plan.user = user("4711:4711");
        plan
    };
    let done = world.run(plan(&world)).await;
    assert_eq!(done.stdout, "0\n", "{done:?}");
    assert_eq!(sandbox.metadata().unwrap().permissions().mode() & 0o7777, 0o750);
    // What holds it back is the sandbox's mode alone.
    std::fs::set_permissions(&sandbox, std::fs::Permissions::from_mode(0o755)).unwrap();
    let done = world.run(plan(&world)).await;
    assert!(done.stdout.contains("secret"), "the test would not notice");
    drop(running);
}

#[tokio::test]
async fn s3_host_side_doors_and_sysctl_keys() {
    // Writes the value that is there already: nothing changes, but it could have.
    let line = "for f in kernel/panic kernel/core_pattern vm/overcommit_ratio fs/file-max; do \
        v=$(cat /proc/sys/$f); (echo $v > /proc/sys/$f) 2>/dev/null && echo $f; done; \
        (echo h > /proc/sysrq-trigger) 2>/dev/null && echo sysrq; mount -o remount,rw /proc/sys 2>/dev/null && echo remount; true";
    let world = World::new();
    assert_eq!(world.run(world.rooted_plan(&shell(line))).await.said(), "");
    let world = World::weakened(&["make /proc/sys read-only"]);
    assert!(
        world
            .run(world.rooted_plan(&shell(line)))
            .await
            .said()
            .contains("kernel/panic")
    );
    // And there is no way to ask for other values.
    let mut task = shell("true");
    task.container = Some(podling::mesos::v1::ContainerInfo {
        r#type: podling::mesos::v1::container_info::Type::Docker as i32,
        docker: Some(podling::mesos::v1::container_info::DockerInfo {
            image: "x".into(),
            parameters: vec![podling::mesos::v1::Parameter {
                key: "sysctl".into(),
                value: "kernel.core_pattern=|/tmp/x".into(),
            }],
            ..Default::default()
        }),
        ..Default::default()
    });
    assert!(plan::member(&task, None, &Context::default(), &Defaults::default()).is_err());
}

#[tokio::test]
async fn s3_the_mount_tree_is_no_way_back() {
    // A root that may mount could undo masks; ours may not, and the old root is not there to be found.
    let line = "umount /proc/keys 2>/dev/null && echo unmounted; umount -l / 2>/dev/null && echo root; \
        ls /proc/1/root/../../../../etc/hostname /../../../etc/machine-id 2>/dev/null; grep -c ' / / ' /proc/self/mountinfo; true";
    let world = World::new();
    assert_eq!(world.run(world.rooted_plan(&shell(line))).await.said(), "0");
    // Mounts made inside stay inside.
    let before = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut plan = world.rooted_plan(&shell("mkdir -p x && mount -t tmpfs none x && echo mounted"));
    plan.capabilities = Capabilities::bounded(CapabilitySet(CapabilitySet::DOCKER.0 | 1 << 21));
    plan.seccomp = plan::Seccomp::Unconfined;
    assert_eq!(world.run(plan).await.said(), "mounted");
    let after = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let ours = |text: &str| {
        text.lines()
            .filter(|line| line.contains(world.sandbox().to_str().unwrap()))
            .count()
    };
    assert_eq!(ours(&before), ours(&after));
}

#[tokio::test]
async fn s3_a_filter_that_is_left_out_is_noticed() {
    let line = "grep -E '^(Seccomp:|NoNewPrivs)' /proc/self/status | while read a b; do echo $b; done";
    let world = World::new();
    assert_eq!(world.run(world.rooted_plan(&shell(line))).await.said(), "1\n2");
    let world = World::weakened(&["give up new privileges", "install the system call filter"]);
    assert_eq!(world.run(world.rooted_plan(&shell(line))).await.said(), "0\n0");
}

/// Not a test of ours, but what the others rest on: descriptors by number mean the same here and in the script.
#[tokio::test]
async fn streams_may_be_any_descriptors() {
    let world = World::new();
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    assert!(write.as_raw_fd() > 2);
    let mut plan = world.rooted_plan(&shell("echo out; echo err >&2"));
    let write = Arc::new(write);
    plan.stdout = Output::Descriptor(Arc::clone(&write));
    plan.stderr = Output::Descriptor(write);
    world.start(plan).await.unwrap().wait().await;
    let mut said = [0u8; 32];
    let length = rustix::io::read(&read, &mut said).unwrap();
    assert_eq!(&said[..length], b"out\nerr\n");
}

#[tokio::test]
async fn s2_mount_targets_while_an_attacker_renames() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let world = World::new();
    let outside = world.sandbox().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::create_dir(world.sandbox().join("source")).unwrap();
    let template = world.rooted_plan(&shell("true"));
    let inside = root(&template);
    std::fs::create_dir(inside.join("v")).unwrap();
    symlink(
        format!("../../../../../../../..{}", outside.display()),
        inside.join("link"),
    )
    .unwrap();
    let before = outside.metadata().unwrap().modified().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let attack = {
        let stop = Arc::clone(&stop);
        let directory =
            rustix::fs::open(&inside, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
        std::thread::spawn(move || {
            let flags = rustix::fs::RenameFlags::EXCHANGE;
            while !stop.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(&directory, "v", &directory, "link", flags).unwrap();
            }
        })
    };
    let rounds = std::env::var("PODLING_RACES")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(20);
    let (mut gated, mut refused) = (0, 0);
    for number in 0..rounds {
        let mut plan = template.clone();
        plan.sandbox = world.sandbox().join(format!("containers/race{number}"));
        plan.mounts.push(volume(
            MountSource::Host(world.sandbox().join("source")),
            &format!("v/a{number}"),
        ));
        match world.runtime.prepare(plan).await {
            Ok(member) => {
                member.discard().await;
                gated += 1;
            }
            Err(_) => refused += 1,
        }
    }
    stop.store(true, Ordering::Relaxed);
    attack.join().unwrap();
    let after = outside.metadata().unwrap().modified().unwrap();
    assert_eq!(
        after, before,
        "something was made outside; {gated} were ready, {refused} refused"
    );
}
