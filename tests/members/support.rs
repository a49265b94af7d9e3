//! An executor's sandbox for one test, and tasks to run in it.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use podling::{
    container::{
        ExecPlan, ExecStreams, Gated, LaunchError, Running, Runtime, Setup,
        cgroup::{Config, GroupCgroup, Layout, Limits},
        plan::{self, Command, Context, Defaults, Plan, Rootfs},
    },
    group::{Exit, ExitStatus},
    mesos::v1,
    sys::overlay::Overlay,
};

pub struct World {
    directory: tempfile::TempDir,
    pub runtime: Runtime,
    next: AtomicU32,
}

impl World {
    pub fn new() -> Self {
        Self::weakened(&[])
    }

    /// With a runtime that leaves out the named steps.
    pub fn weakened(steps: &'static [&'static str]) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("podling-members-")
            .tempdir()
            .unwrap();
        // tempfile makes it 0700; members of other users must get to their sandboxes, as on an agent.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(directory.path(), open).unwrap();
        let setup = Setup {
            name: format!("test-{}", std::process::id()),
            sandbox: directory.path().to_owned(),
        };
        Self {
            runtime: Runtime::open(setup).unwrap().weakened(steps),
            directory,
            next: AtomicU32::new(0),
        }
    }

    pub fn sandbox(&self) -> &Path {
        self.directory.path()
    }

    /// A context with a sandbox of its own.
    pub fn context(&self) -> Context {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Context {
            sandbox: self.sandbox().join(format!("containers/m{number}")),
            group: "group".into(),
            ..Context::default()
        }
    }

    /// A cgroup for members, named as nobody else's.
    pub fn group(&self) -> GroupCgroup {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        static WORLDS: AtomicU32 = AtomicU32::new(0);
        let world = WORLDS.fetch_add(1, Ordering::Relaxed);
        let name = format!("members-{}-{world}-{number}", std::process::id());
        Layout::detect(&Config::default())
            .group(&name, &Limits::default())
            .unwrap()
    }

    /// A context with a root file system of its own, made of busybox.
    pub fn rooted(&self) -> Context {
        let context = self.context();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.sandbox().join(format!("root{number}"));
        make_root(&path);
        Context {
            rootfs: Rootfs::Directory {
                path,
                read_only: false,
            },
            ..context
        }
    }

    pub fn rooted_plan(&self, task: &v1::TaskInfo) -> Plan {
        plan::member(task, None, &self.rooted(), &Defaults::default()).unwrap()
    }

    pub fn plan(&self, task: &v1::TaskInfo) -> Plan {
        plan::member(task, None, &self.context(), &Defaults::default()).unwrap()
    }

    pub async fn start(&self, plan: Plan) -> Result<Running, LaunchError> {
        let gated: Gated = self.runtime.prepare(plan).await?;
        gated.release().await
    }

    /// Runs a plan to its end; gives its exit and what it said.
    pub async fn run(&self, plan: Plan) -> Outcome {
        let sandbox = plan.sandbox.clone();
        let exit = self.start(plan).await.unwrap().wait().await;
        Outcome::read(exit, &sandbox)
    }

    /// Runs a shell line.
    pub async fn shell(&self, line: &str) -> Outcome {
        self.run(self.plan(&shell(line))).await
    }
}

/// Waits for what somebody else does, looking now and then.
pub async fn until(mut is: impl FnMut() -> bool) {
    let begin = std::time::Instant::now();
    while !is() {
        assert!(begin.elapsed().as_secs() < 20, "it has not come");
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

#[derive(Debug)]
pub struct Outcome {
    pub exit: Exit,
    pub stdout: String,
    pub stderr: String,
    pub sandbox: PathBuf,
}

impl Outcome {
    fn read(exit: Exit, sandbox: &Path) -> Self {
        let read = |name| std::fs::read_to_string(sandbox.join(name)).unwrap();
        Self {
            exit,
            stdout: read("stdout"),
            stderr: read("stderr"),
            sandbox: sandbox.to_owned(),
        }
    }

    /// What it said, provided that it ended well.
    pub fn said(&self) -> &str {
        assert_eq!(self.exit.status, ExitStatus::Code(0), "{self:?}");
        self.stdout.trim_end()
    }
}

/// Runs a shell line in a member that runs.
pub async fn say(running: &Running, line: &str) -> (ExitStatus, String) {
    let plan = ExecPlan {
        command: Command {
            program: "/bin/sh".into(),
            arguments: ["sh", "-c", line].map(str::to_owned).into(),
        },
        environment: vec![],
        cwd: None,
        streams: ExecStreams::Null,
    };
    let said = running.entrance().unwrap().capture(plan, 10_000).await.unwrap();
    (said.status, String::from_utf8(said.output).unwrap())
}

pub fn shell(line: &str) -> v1::TaskInfo {
    v1::TaskInfo {
        name: "web".into(),
        command: Some(v1::CommandInfo {
            value: Some(line.into()),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub fn exec(argv: &[&str]) -> v1::TaskInfo {
    v1::TaskInfo {
        name: "web".into(),
        command: Some(v1::CommandInfo {
            shell: Some(false),
            value: Some(argv[0].into()),
            arguments: argv.iter().map(|&argument| argument.into()).collect(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The smallest root file system that people would recognise.
pub fn make_root(root: &Path) {
    std::fs::create_dir_all(root.join("bin")).unwrap();
    std::fs::create_dir_all(root.join("etc")).unwrap();
    let busybox = ["/usr/bin/busybox", "/bin/busybox"]
        .iter()
        .find(|path| Path::new(path).exists());
    std::fs::copy(
        busybox.expect("busybox-static is installed"),
        root.join("bin/busybox"),
    )
    .unwrap();
    for name in [
        "sh", "cat", "ls", "id", "grep", "readlink", "sleep", "echo", "mount", "touch", "mkdir", "stat",
        "hostname", "wc", "dd", "chmod", "rm", "ln", "mknod", "umount",
    ] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    std::fs::write(
        root.join("etc/passwd"),
        "root:x:0:0::/:/bin/sh\napp:x:1234:1235::/:/bin/sh\n",
    )
    .unwrap();
    std::fs::write(
        root.join("etc/group"),
        "root:x:0:\napp:x:1235:\nextra:x:1300:app\n",
    )
    .unwrap();
}

/// Layers, the topmost first, as one root, with `upper` for what is written to it.
pub fn overlay(layers: &[PathBuf], upper: &Path) -> Rootfs {
    let work = upper.with_extension("work");
    for directory in [upper, &work] {
        std::fs::create_dir_all(directory).unwrap();
    }
    let overlay = Overlay::open(layers, Some((upper, &work))).unwrap();
    Rootfs::Mounted {
        mount: Arc::new(overlay.mount().unwrap()),
        read_only: false,
    }
}
