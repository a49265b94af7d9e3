//! Z-10: members whose root is nobody on the host.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    sync::Arc,
};

use podling::{
    container::{
        IdRange, MappedUsers,
        plan::{
            self, Command, Context, Defaults, IpcNamespace, Mount, MountSource, Network, PidNamespace, Plan,
            Rootfs, Target, Terminal, UserSpec,
        },
        policy::{Policy, Preset},
    },
    mesos::v1,
};

use crate::support::{World, shell};

const FIRST: u32 = 200_000;

fn users(world: &World) -> Arc<MappedUsers> {
    let range = IdRange::new(FIRST, 65_536).unwrap();
    Arc::new(world.runtime.map_users(range).unwrap())
}

/// Those members, with a root file system of their own and without.
fn plans(world: &World, task: &v1::TaskInfo) -> [Plan; 2] {
    let users = users(world);
    [world.rooted(), world.context()].map(|context| {
        let context = Context {
            users: Some(Arc::clone(&users)),
            ..context
        };
        plan::member(task, None, &context, &Defaults::default()).unwrap()
    })
}

fn user(text: &str) -> UserSpec {
    UserSpec::Named {
        text: text.into(),
        host_too: true,
    }
}

#[tokio::test]
async fn z_10_root_of_a_member_is_nobody_on_the_host() {
    let world = World::new();
    let line = "id -u; echo mine > file; stat -c %u file; cat /proc/self/uid_map; grep ^CapEff /proc/self/status; \
                (echo x > /proc/sys/kernel/panic) 2>/dev/null && echo open; sleep 1000";
    for plan in plans(&world, &shell(line)) {
        let sandbox = plan.sandbox.clone();
        let running = world.start(plan).await.unwrap();
        let said = || fs::read_to_string(sandbox.join("stdout")).unwrap();
        while said().lines().count() < 4 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        let said = said();
        let lines: Vec<Vec<&str>> = said
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(lines[0], ["0"]);
        assert_eq!(lines[1], ["0"]);
        assert_eq!(lines[2], ["0", "200000", "65536"]);
        // Docker's set: what it is worth, the next tests tell.
        assert_eq!(lines[3], ["CapEff:", "00000000a80425fb"]);
        assert_eq!(lines.len(), 4, "{said}");
        assert_eq!(sandbox.join("file").metadata().unwrap().uid(), FIRST);
        assert_eq!(sandbox.metadata().unwrap().uid(), FIRST);
        // As the host sees them: the task is another user, and its init has no power over anybody else's.
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", running.pid())).unwrap();
        let task = children.split_whitespace().next().unwrap();
        let status = fs::read_to_string(format!("/proc/{task}/status")).unwrap();
        assert!(
            status.contains("\nUid:\t200000\t200000\t200000\t200000\n"),
            "{status}"
        );
        let own = fs::read_link("/proc/self/ns/user").unwrap();
        for process in [task, &running.pid().to_string()] {
            assert_ne!(fs::read_link(format!("/proc/{process}/ns/user")).unwrap(), own);
        }
    }
}

#[tokio::test]
async fn z_10_files_of_images_and_volumes_show_the_owners_they_have() {
    let world = World::new();
    let volume = world.sandbox().join("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("theirs"), "").unwrap();
    std::os::unix::fs::chown(volume.join("theirs"), Some(1234), Some(1235)).unwrap();
    let line = "stat -c '%u %g' /etc/passwd /volume/theirs /shm /bin; touch /new /volume/new; chown app:app /new; \
                stat -c '%u %g' /new; echo secret: $(cat /secret); stat -c %u /secret; touch /dev/shm/x && echo shm";
    let mut plan = plans(&world, &shell(line)).into_iter().next().unwrap();
    let Rootfs::Directory { path: root, .. } = plan.rootfs.clone() else {
        unreachable!()
    };
    std::os::unix::fs::symlink("busybox", root.join("bin/chown")).unwrap();
    plan.mounts.extend(
        [
            (MountSource::Host(volume.clone()), "volume"),
            (
                MountSource::Tmpfs {
                    size: None,
                    mode: 0o755,
                },
                "shm",
            ),
            (MountSource::Secret(Arc::from(&b"hush"[..])), "secret"),
        ]
        .map(|(source, target)| Mount {
            source,
            target: Target::Root(target.into()),
            read_only: false,
            field: target.into(),
        }),
    );
    let done = world.run(plan).await;
    let lines: Vec<_> = done.said().lines().collect();
    assert_eq!(
        lines,
        [
            "0 0",
            "1234 1235",
            "0 0",
            "0 0",
            "1234 1235",
            "secret: hush",
            "0",
            "shm"
        ],
        "{done:?}"
    );
    // What it made belongs to the same users outside, as it would without.
    for (path, owner) in [
        (root.join("new"), 1234),
        (volume.join("new"), 0),
        (root.join("volume"), 0),
    ] {
        assert_eq!(path.metadata().unwrap().uid(), owner, "{}", path.display());
    }
}

#[tokio::test]
async fn z_10_what_belongs_to_the_hosts_root_is_out_of_reach() {
    let world = World::new();
    let secret = world.sandbox().join("of-root");
    fs::write(&secret, "hush").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let line = format!(
        "cat {0}; chmod 777 {0}; rm -f {0}; kill -0 {1}; true",
        secret.display(),
        std::process::id()
    );
    let [_, mapped] = plans(&world, &shell(&line));
    let done = world.run(mapped).await;
    assert_eq!(done.stdout, "", "{done:?}");
    assert_eq!(secret.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    // The same member without such users: it is the mapping that holds it back.
    let done = world.run(world.plan(&shell(&line))).await;
    assert_eq!(done.stdout, "hush", "the test would not notice");
}

#[tokio::test]
async fn z_10_users_by_name_shared_processes_terminals_and_exec() {
    let world = World::new();
    let [mut rooted, _] = plans(
        &world,
        &shell("id -u; id -G; test -t 1 && stat -c '%u %g' /dev/pts/0; sleep 1000"),
    );
    rooted.user = user("app");
    rooted.terminal = Some(Terminal { size: None });
    rooted.namespaces.pid = PidNamespace::Shared("pod".into());
    rooted.namespaces.ipc = IpcNamespace::Private { shm_size: None };
    let sandbox = rooted.sandbox.clone();
    let mut running = world.start(rooted).await.unwrap();
    let said = || {
        fs::read_to_string(sandbox.join("stdout"))
            .unwrap()
            .replace('\r', "")
    };
    while said().lines().count() < 3 {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    assert_eq!(said(), "1234\n1235 1300\n1234 5\n");
    let entrance = running.entrance().unwrap();
    let exec = podling::container::ExecPlan {
        command: Command {
            program: "sh".into(),
            arguments: [
                "sh",
                "-c",
                "id -u; cat /proc/self/uid_map; grep -E ^Cap.*[^0] /proc/self/status | wc -l",
            ]
            .map(str::to_owned)
            .into(),
        },
        environment: vec![],
        cwd: None,
        streams: podling::container::ExecStreams::Null,
    };
    let said = String::from_utf8(entrance.capture(exec, 1000).await.unwrap().output).unwrap();
    let lines: Vec<_> = said.lines().map(str::trim).collect();
    assert_eq!(lines[0], "1234");
    assert!(lines[1].ends_with("65536"), "{said}");
    running.kill();
    running.wait().await;
}

#[tokio::test]
async fn z_10_low_ports_and_the_end_of_the_executor() {
    let world = World::new();
    let own = tokio::task::spawn_blocking(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        fs::File::open(format!("/proc/self/task/{}/ns/net", nix::unistd::gettid())).unwrap()
    });
    let network = Arc::new(own.await.unwrap().into());
    let [mut plan, _] = plans(
        &world,
        &shell("cat /proc/sys/net/ipv4/ip_unprivileged_port_start"),
    );
    plan.namespaces.network = Network::Join(network);
    assert_eq!(world.run(plan).await.said(), "0");
    assert_ne!(
        fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap(),
        "0\n",
        "the host's is left alone"
    );
}

#[tokio::test]
async fn z_10_users_that_are_none_of_them_are_refused_by_name() {
    let world = World::new();
    let [mut plan, _] = plans(&world, &shell("true"));
    plan.user = user("65536");
    let error = world.runtime.prepare(plan).await.unwrap_err();
    assert!(error.invalid());
    assert_eq!(
        error.to_string(),
        "member `web`: user 65536 is none of the 65536 that members have here (user_namespace)"
    );
    // A file system that cannot show them so is named, too.
    let [mut plan, _] = plans(&world, &shell("true"));
    plan.policy = Policy::of(Preset::Mesos);
    plan.mounts.push(Mount {
        source: MountSource::Host(Path::new("/proc/self").into()),
        target: Target::Root("volume".into()),
        read_only: false,
        field: "container.volumes[0]".into(),
    });
    let error = world.runtime.prepare(plan).await.unwrap_err().to_string();
    assert!(
        error.contains("container.volumes[0]: ") && error.contains("cannot show mapped owners"),
        "{error}"
    );
}
