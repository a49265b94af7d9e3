//! Groups of unique name below our own cgroup, and processes put into their members.

use std::{
    io::Write,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use podling::container::cgroup::{
    Bound, Config, GroupCgroup, Layout, Limits, MemberCgroup, Policy, Request, group_limits,
};

pub fn unique(what: &str) -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    format!(
        "test-{}-{}-{what}",
        std::process::id(),
        COUNTER.fetch_add(1, Ordering::Relaxed)
    )
}

/// Set for a run of these tests on a machine made to look like another.
pub const EXPECTED_MODE: &str = "EXPECTED_CGROUP_MODE";

pub fn layout() -> Layout {
    let layout = Layout::detect(&Config::default());
    if let Ok(expected) = std::env::var(EXPECTED_MODE) {
        assert_eq!(format!("{:?}", layout.mode()), expected);
    }
    assert!(
        !layout.controllers().is_empty(),
        "needs cgroups: {:?}",
        layout.missing()
    );
    layout
}

pub fn request() -> Request {
    Request {
        cpus: 0.5,
        revocable: false,
        cpu_limit: None,
        memory: 32 << 20,
        memory_limit: None,
        share: false,
        pids: None,
    }
}

pub struct World {
    pub layout: Layout,
    pub name: String,
    pub group: GroupCgroup,
}

impl World {
    pub fn new(what: &str) -> World {
        World::with(what, &[request()])
    }

    pub fn with(what: &str, requests: &[Request]) -> World {
        let (layout, name) = (layout(), unique(what));
        let group = layout
            .group(&name, &group_limits(requests, &Policy::default()))
            .unwrap();
        World { layout, name, group }
    }

    pub fn member(&self, request: &Request) -> MemberCgroup {
        let member = self
            .group
            .member("web", &request.limits(&Policy::default()))
            .unwrap();
        member.hold_cpu().unwrap();
        member
    }

    /// Directories of this group that still exist.
    pub fn left(layout: &Layout, name: &str) -> Vec<std::path::PathBuf> {
        layout
            .paths(name)
            .into_iter()
            .filter(|path| path.exists())
            .collect()
    }
}

pub fn pids(count: u64) -> Limits {
    Limits {
        pids: Some(Bound::At(count)),
        ..Limits::default()
    }
}

/// Runs a shell script inside a member. The shell waits on its input until it has been put into the cgroup.
pub fn shell(member: &MemberCgroup, script: &str) -> Child {
    let mut child = Command::new("sh")
        .arg("-c")
        .arg(format!("read go || exit 1\n{script}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    member.adopt(child.id().cast_signed()).unwrap();
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    child
}

/// The first line a child prints.
pub fn line(child: &mut Child) -> String {
    use std::io::{BufRead, BufReader};
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    line
}

pub fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(async { tokio::time::timeout(std::time::Duration::from_secs(60), future).await })
        .expect("took longer than a minute")
}
