//! Communication by System V and POSIX means: whose it is (Z-02).

use std::process::Command;

use podling::{
    container::plan::{Context, Defaults, IpcNamespace, Plan, member},
    mesos::v1::{self, LinuxInfo, linux_info::IpcMode},
};

use crate::support::{World, shell};

/// A segment of the host that everybody may attach, for as long as this lives.
struct Segment(String);

fn python(script: &str) -> String {
    let output = Command::new("python3").args(["-c", script]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

impl Segment {
    fn new() -> Self {
        Segment(python(
            "import ctypes; print(ctypes.CDLL(None).shmget(0, 4096, 0o1000 | 0o666))",
        ))
    }

    /// What a member does to get at it.
    fn attack(&self) -> String {
        format!(
            "exec python3 -c 'import ctypes, os; c = ctypes.CDLL(None, use_errno=True); c.shmat.restype = ctypes.c_void_p; \
             a = c.shmat({}, None, 0); print(\"attached\" if a != ctypes.c_void_p(-1).value else os.strerror(ctypes.get_errno()))'",
            self.0
        )
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        python(&format!(
            "import ctypes; ctypes.CDLL(None).shmctl({}, 0, None)",
            self.0
        ));
    }
}

fn in_mode(world: &World, mode: IpcMode, shm_size: Option<u32>, rooted: bool, line: &str) -> Plan {
    let mut task = shell(line);
    task.container.get_or_insert_default().linux_info = Some(LinuxInfo {
        ipc_mode: Some(mode.into()),
        shm_size,
        ..LinuxInfo::default()
    });
    task.container.get_or_insert_default().r#type = v1::container_info::Type::Mesos.into();
    let context: Context = if rooted { world.rooted() } else { world.context() };
    member(&task, None, &context, &Defaults::default()).unwrap()
}

#[tokio::test]
async fn s3_a_segment_of_the_host_cannot_be_attached_from_a_pods_ipc() {
    let world = World::new();
    let segment = Segment::new();
    let plan = world.plan(&shell(&segment.attack()));
    // The attack is a good one where the namespace is the host's, as it is for who has the host's root.
    assert_eq!(plan.namespaces.ipc, IpcNamespace::Parent);
    assert_eq!(world.run(plan).await.said(), "attached");
    let mut plan = world.plan(&shell(&segment.attack()));
    plan.namespaces.ipc = IpcNamespace::Shared("pod".into());
    assert_eq!(world.run(plan).await.said(), "Invalid argument");
    // What members with an image have without asking.
    let rooted = world.rooted_plan(&shell("cat /proc/sysvipc/shm | wc -l; ls /dev/shm | wc -l"));
    assert_eq!(world.run(rooted).await.said(), "1\n0");
}

#[tokio::test]
async fn z_02_members_of_a_pod_share_and_other_pods_do_not() {
    let world = World::new();
    let keep = "echo shared > /dev/shm/x; echo ready; sleep 1000";
    let first = world.rooted_plan(&shell(keep));
    let said = first.sandbox.join("stdout");
    let first = world.start(first).await.unwrap();
    crate::support::until(|| std::fs::read_to_string(&said).unwrap() == "ready\n").await;
    let look = "cat /dev/shm/x; readlink /proc/self/ns/ipc";
    let namespace = |pid| std::fs::read_link(format!("/proc/{pid}/ns/ipc")).unwrap();
    let own = namespace(first.pid()).display().to_string();
    assert_ne!(own, namespace(std::process::id() as i32).display().to_string());
    let second = world.run(world.rooted_plan(&shell(look))).await;
    assert_eq!(second.said(), format!("shared\n{own}"));
    let mut stranger = world.rooted();
    stranger.group = "another".into();
    let plan = member(
        &shell("ls /dev/shm; readlink /proc/self/ns/ipc"),
        None,
        &stranger,
        &Defaults::default(),
    );
    assert_ne!(world.run(plan.unwrap()).await.said(), own);
    drop(first);
}

#[tokio::test]
async fn z_02_modes_on_request_and_the_size_of_shared_memory() {
    let world = World::new();
    let look = "grep ' /dev/shm ' /proc/self/mountinfo; readlink /proc/self/ns/ipc";
    let host = std::fs::read_link("/proc/self/ns/ipc")
        .unwrap()
        .display()
        .to_string();
    for rooted in [false, true] {
        let private = in_mode(&world, IpcMode::Private, Some(3), rooted, look);
        let private = world.run(private).await;
        let said = private.said();
        assert!(
            said.contains("size=3072k") && !said.contains(&host),
            "{rooted}: {said}"
        );
        let parent = in_mode(&world, IpcMode::ShareParent, None, rooted, look);
        let parent = world.run(parent).await;
        assert!(parent.said().ends_with(&host), "{rooted}: {parent:?}");
    }
}
