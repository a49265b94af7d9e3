//! Images made by the tests, and an agent to run them under.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use podling::{
    loopback::agent::{Agent, AgentBuilder, Outcome},
    mesos::v1::{
        CommandInfo, ContainerInfo, Image, Resource, TaskGroupInfo, TaskId, TaskInfo,
        TaskState::TaskFinished, TaskStatus, container_info, image, value,
    },
};
use serde_json::{Value, json};

use super::build::{Layer, Packing, TestImage, digest};
pub use super::own_node::{on_own_node as on_a_node, sh};

pub const EXECUTOR: &str = env!("CARGO_BIN_EXE_podling-executor");
pub const PODLING: &str = env!("CARGO_BIN_EXE_podling");

/// Far longer than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A directory with an OCI layout in it, and a store for what is pulled.
pub struct Place(tempfile::TempDir);

impl Place {
    pub fn new() -> Self {
        Place(
            tempfile::Builder::new()
                .prefix("podling-provision-")
                .tempdir()
                .unwrap(),
        )
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn umoci(&self, arguments: &[&str]) {
        let output = Command::new("umoci")
            .args(arguments)
            .current_dir(self.0.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "umoci {arguments:?}: {said}");
    }

    /// A layout whose image `t` has a shell and a file that says `text`.
    pub fn image(self, text: &str) -> Self {
        let config = json!({
            "Env": ["PATH=/bin", "FROM=image"], "WorkingDir": "/work/here", "User": "1000:1000",
            "Entrypoint": ["/bin/sh", "-c"], "Cmd": ["echo \"$FROM $PWD $(id -u)\"; cat /data/text"],
        });
        let data = Layer::new().dir("data/", 0o755).file("data/text", text);
        self.layout("layout", &image(&config, data));
        self
    }

    pub fn reference(&self) -> String {
        format!("oci:{}:t", self.path("layout").display())
    }

    /// A layout with one image, under the tag `t`.
    pub fn layout(&self, name: &str, image: &TestImage) -> String {
        let path = self.path(name);
        image.write_layout(&path, "t");
        format!("oci:{}:t", path.display())
    }

    pub fn agent(&self) -> AgentBuilder {
        Agent::builder()
            .executor_argv([EXECUTOR])
            .env("PODLING_IMAGES_STORE", self.path("store").to_str().unwrap())
            .patience(PATIENCE)
    }
}

/// A layer with a shell, and users of its own.
pub fn shell() -> Layer {
    let busybox = fs::read("/bin/busybox").unwrap();
    let names = [
        "sh", "cat", "echo", "id", "hostname", "ip", "ls", "nc", "mkdir", "sleep", "stat", "touch", "true",
    ];
    let layer = Layer::new()
        .dir("bin/", 0o755)
        .file_mode("bin/busybox", busybox, 0o755)
        .dir("etc/", 0o755)
        .file("etc/passwd", "root:x:0:0::/:\napp:x:1234:5678::/:\n")
        .file("etc/group", "root:x:0:\napp:x:5678:\nextra:x:99:app\n")
        .dir("tmp/", 0o1777);
    names.iter().fold(layer, |layer, name| {
        layer.symlink(&format!("bin/{name}"), "busybox")
    })
}

/// An image of a shell and more files, with this for its `config`.
pub fn image(config: &Value, more: Layer) -> TestImage {
    let layers = [shell().tar(), more.tar()];
    let diff_ids = layers.each_ref().map(|layer| digest(layer));
    let document = json!({
        "architecture": "amd64", "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let packed = layers.iter().map(|layer| Packing::Gzip.pack(layer)).collect();
    TestImage::from_parts(document, packed, Packing::Gzip, false)
}

/// An image that says `text`.
pub fn saying(text: &str) -> TestImage {
    image(
        &json!({"Cmd": ["/bin/echo", text]}),
        Layer::new().file("text", text),
    )
}

pub fn scalar(name: &str, amount: f64) -> Resource {
    Resource {
        name: name.to_owned(),
        r#type: value::Type::Scalar.into(),
        scalar: Some(value::Scalar { value: amount }),
        ..Default::default()
    }
}

/// A task that runs a shell command, or what its image says.
pub fn task(id: &str, command: Option<&str>) -> TaskInfo {
    TaskInfo {
        name: id.to_owned(),
        task_id: TaskId { value: id.to_owned() },
        resources: vec![scalar("cpus", 0.1), scalar("mem", 32.0)],
        command: Some(CommandInfo {
            shell: Some(command.is_some()),
            value: command.map(str::to_owned),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub fn from_image(mut task: TaskInfo, reference: &str) -> TaskInfo {
    task.container = Some(ContainerInfo {
        r#type: container_info::Type::Mesos.into(),
        mesos: Some(container_info::MesosInfo {
            image: Some(Image {
                r#type: image::Type::Docker.into(),
                docker: Some(image::Docker {
                    name: reference.to_owned(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
        }),
        ..Default::default()
    });
    task
}

pub fn image_of(task: &mut TaskInfo) -> &mut Image {
    let mesos = task.container.as_mut().unwrap().mesos.as_mut().unwrap();
    mesos.image.as_mut().unwrap()
}

/// Launches a group that the test ends, or otherwise bothers.
pub fn started(agent: AgentBuilder, work: &Path, tasks: impl IntoIterator<Item = TaskInfo>) -> Agent {
    let tasks = tasks.into_iter().collect();
    let agent = agent.work_dir(work).task_group(TaskGroupInfo { tasks });
    agent.start().unwrap()
}

pub fn run(agent: AgentBuilder, tasks: impl IntoIterator<Item = TaskInfo>) -> (Outcome, tempfile::TempDir) {
    let work = tempfile::tempdir().unwrap();
    let outcome = started(agent, work.path(), tasks).finish();
    assert!(
        outcome.is_good() && outcome.violations.is_empty(),
        "{outcome}\n{}",
        outcome.history
    );
    (outcome, work)
}

/// Waits for something that no update tells.
#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "never came: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

pub fn last<'a>(outcome: &'a Outcome, task: &str) -> &'a TaskStatus {
    outcome.history.updates(task).last().unwrap()
}

/// What a member wrote, wherever in the work directory its sandbox is.
pub fn stdout(work: &Path, task: &str) -> Option<String> {
    let mut directories = vec![work.to_owned()];
    while let Some(directory) = directories.pop() {
        let file = directory.join("tasks").join(task).join("stdout");
        if let Ok(text) = fs::read_to_string(file) {
            return Some(text);
        }
        for entry in fs::read_dir(directory).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                directories.push(entry.path());
            }
        }
    }
    None
}

#[track_caller]
pub fn said(done: &(Outcome, tempfile::TempDir), task: &str) -> String {
    let status = last(&done.0, task);
    assert_eq!(status.state(), TaskFinished, "{task}: {status:?}");
    stdout(done.1.path(), task).unwrap()
}

/// What is in a directory; nothing if there is none.
pub fn below(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default()
}
