//! What members get from the node: images and networks, through the agent's door and through `podling up`.

#![allow(clippy::unwrap_used, clippy::panic)]

mod names;

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use podling::{
    loopback::agent::{Agent, AgentBuilder, Outcome},
    mesos::v1::{
        CommandInfo, ContainerInfo, Image, Resource, Secret, TaskGroupInfo, TaskId, TaskInfo,
        TaskState::{TaskFailed, TaskFinished, TaskKilled},
        TaskStatus, container_info, image, secret,
        task_status::Reason,
        value,
    },
};

const EXECUTOR: &str = env!("CARGO_BIN_EXE_podling-executor");
const PODLING: &str = env!("CARGO_BIN_EXE_podling");

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory with an OCI layout in it, and a store for what is pulled.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Place(
            tempfile::Builder::new()
                .prefix("podling-provision-")
                .tempdir()
                .unwrap(),
        )
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn umoci(&self, arguments: &[&str]) {
        let output = Command::new("umoci")
            .args(arguments)
            .current_dir(self.0.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "umoci {arguments:?}: {said}");
    }

    /// A layout whose image `t` has a shell and a file that says `text`.
    fn image(self, text: &str) -> Self {
        let bin = self.path("bin");
        fs::create_dir_all(&bin).unwrap();
        fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
        for name in ["sh", "cat", "id", "hostname", "ip", "nc", "mkdir", "sleep"] {
            symlink("busybox", bin.join(name)).unwrap();
        }
        self.write(text);
        self.umoci(&["init", "--layout", "layout"]);
        self.umoci(&["new", "--image", "layout:t"]);
        self.umoci(&["insert", "--image", "layout:t", "bin", "/bin"]);
        self.umoci(&["insert", "--image", "layout:t", "data", "/data"]);
        self.umoci(&[
            "config",
            "--image",
            "layout:t",
            "--config.env=FROM=image",
            "--config.workingdir=/work/here",
            "--config.user=1000:1000",
            "--config.entrypoint=/bin/sh",
            "--config.cmd=-c",
            "--config.cmd=echo \"$FROM $PWD $(id -u)\"; cat /data/text",
        ]);
        self
    }

    /// The same tag, but another text.
    fn changed(&self, text: &str) {
        self.write(text);
        self.umoci(&["insert", "--image", "layout:t", "data", "/data"]);
    }

    /// A directory that ends with a link: umoci leaves out the padding of a file at the end of its archives.
    fn write(&self, text: &str) {
        let data = self.path("data");
        fs::create_dir_all(&data).unwrap();
        fs::write(data.join("text"), text).unwrap();
        let _ = symlink("text", data.join("zz"));
    }

    fn reference(&self) -> String {
        format!("oci:{}:t", self.path("layout").display())
    }

    fn agent(&self) -> AgentBuilder {
        Agent::builder()
            .executor_argv([EXECUTOR])
            .env("PODLING_IMAGES_STORE", self.path("store").to_str().unwrap())
            .patience(PATIENCE)
    }
}

fn scalar(name: &str, amount: f64) -> Resource {
    Resource {
        name: name.to_owned(),
        r#type: value::Type::Scalar.into(),
        scalar: Some(value::Scalar { value: amount }),
        ..Default::default()
    }
}

/// A task that runs a shell command, or what its image says.
fn task(id: &str, command: Option<&str>) -> TaskInfo {
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

fn from_image(mut task: TaskInfo, reference: &str) -> TaskInfo {
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

fn image_of(task: &mut TaskInfo) -> &mut Image {
    let mesos = task.container.as_mut().unwrap().mesos.as_mut().unwrap();
    mesos.image.as_mut().unwrap()
}

fn run(agent: AgentBuilder, tasks: impl IntoIterator<Item = TaskInfo>) -> (Outcome, tempfile::TempDir) {
    let work = tempfile::tempdir().unwrap();
    let tasks = tasks.into_iter().collect();
    let agent = agent.work_dir(work.path()).task_group(TaskGroupInfo { tasks });
    let outcome = agent.start().unwrap().finish();
    assert!(
        outcome.is_good() && outcome.violations.is_empty(),
        "{outcome}\n{}",
        outcome.history
    );
    (outcome, work)
}

fn last<'a>(outcome: &'a Outcome, task: &str) -> &'a TaskStatus {
    outcome.history.updates(task).last().unwrap()
}

/// What a member wrote, wherever in the work directory its sandbox is.
fn stdout(work: &Path, task: &str) -> Option<String> {
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
fn said(done: &(Outcome, tempfile::TempDir), task: &str) -> String {
    let status = last(&done.0, task);
    assert_eq!(status.state(), TaskFinished, "{task}: {status:?}");
    stdout(done.1.path(), task).unwrap()
}

/// What is in a directory; nothing if there is none.
fn below(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default()
}

#[test]
fn i_10_i_12_i_13_a_member_runs_what_its_image_says() {
    let place = Place::new().image("first\n");
    let done = run(place.agent(), [from_image(task("web", None), &place.reference())]);
    assert_eq!(said(&done, "web"), "image /work/here 1000\nfirst\n");
    // What it wrote to its image went with it.
    let mut sandboxes = vec![done.1.path().to_owned()];
    while let Some(directory) = sandboxes.pop() {
        assert_eq!(below(&directory.join(".podling/rootfs")), [] as [PathBuf; 0]);
        sandboxes.extend(
            below(&directory)
                .into_iter()
                .filter(|path| path.is_dir() && !path.is_symlink()),
        );
    }
}

#[test]
fn p_05_a_cached_image_is_not_asked_for_again_unless_forced() {
    let place = Place::new().image("first\n");
    let web = from_image(
        task("web", Some("cat /data/text; echo mine >/data/text")),
        &place.reference(),
    );
    let as_root = |mut task: TaskInfo| {
        task.command.as_mut().unwrap().user = Some("0".to_owned());
        task
    };
    let web = as_root(web);
    assert_eq!(said(&run(place.agent(), [web.clone()]), "web"), "first\n");
    place.changed("second\n");
    // Neither what the source has now, nor what the last member wrote.
    assert_eq!(said(&run(place.agent(), [web.clone()]), "web"), "first\n");
    let mut forced = web;
    image_of(&mut forced).cached = Some(false);
    assert_eq!(said(&run(place.agent(), [forced]), "web"), "second\n");
}

#[test]
fn l_03_an_image_that_cannot_be_had_fails_the_group_before_anything_runs() {
    let place = Place::new();
    let web = from_image(task("web", None), "127.0.0.1:1/none:x");
    let beside = task("beside", Some("echo a byte"));
    let (outcome, work) = run(place.agent(), [web, beside]);
    let failed = last(&outcome, "web");
    assert_eq!(failed.state(), TaskFailed);
    assert_eq!(failed.reason(), Reason::ContainerLaunchFailed);
    let message = failed.message();
    assert!(
        message.contains("member `web`: image 127.0.0.1:1/none:x"),
        "{message}"
    );
    let killed = last(&outcome, "beside");
    assert_eq!(killed.state(), TaskKilled);
    assert!(killed.message().contains("web"), "{killed:?}");
    assert_eq!(stdout(work.path(), "beside").unwrap_or_default(), "");
}

#[test]
fn p_06_a_secret_by_reference_is_refused_with_a_sentence() {
    let place = Place::new();
    let mut web = from_image(task("web", None), "127.0.0.1:1/none:x");
    image_of(&mut web).docker.as_mut().unwrap().config = Some(Secret {
        r#type: Some(secret::Type::Reference.into()),
        reference: Some(secret::Reference {
            name: "pull".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    });
    let (outcome, _work) = run(place.agent(), [web]);
    let message = last(&outcome, "web").message();
    assert!(
        message.contains("secret of type REFERENCE; give its VALUE"),
        "{message}"
    );
}

/// Runs a test as a node of its own: no bridge, rule or address of this machine is touched.
fn on_a_node(test: impl FnOnce() + Send + 'static) {
    let node = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("these tests need root");
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).unwrap();
        sh("ip link set lo up");
        test();
    });
    if let Err(panic) = node.join() {
        std::panic::resume_unwind(panic);
    }
}

fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn n_01_n_09_members_of_a_pod_share_an_address_and_their_localhost() {
    on_a_node(|| {
        let place = Place::new().image("");
        let serve = "busybox nc -l -p 7000 -e echo over localhost";
        let ask = "until busybox nc 127.0.0.1 7000; do busybox sleep 0.05; done; echo $MESOS_CONTAINER_IP; hostname";
        let mut server = from_image(task("server", Some(serve)), &place.reference());
        server.command.as_mut().unwrap().user = Some("0".to_owned());
        let agent = place.agent().with_executor_info(|executor| {
            let data = br#"{"podling":1,"network":{"mode":"bridge"}}"#;
            executor.data = Some(data.to_vec().into());
            executor.container = Some(ContainerInfo {
                r#type: container_info::Type::Mesos.into(),
                hostname: Some("shop".to_owned()),
                ..Default::default()
            });
        });
        let done = run(agent, [server, task("client", Some(ask))]);
        assert_eq!(said(&done, "client"), "over localhost\n10.167.0.2\nshop\n");
        for member in ["server", "client"] {
            let status = last(&done.0, member);
            let infos = &status.container_status.as_ref().unwrap().network_infos;
            assert_eq!(infos.len(), 1, "{infos:?}");
            assert_eq!(infos[0].name.as_deref(), Some("mesos-bridge"));
            assert_eq!(infos[0].ip_addresses[0].ip_address.as_deref(), Some("10.167.0.2"));
        }
        // The first update comes before there is a network, and does not pretend.
        let starting = done.0.history.updates("client")[0].container_status.as_ref();
        assert!(starting.is_none_or(|status| status.network_infos.is_empty()));
        // Gone with the pod: its interface, its address.
        assert!(!sh("ip -br link").contains("plv"));
        assert_eq!(
            below(Path::new("/run/podling/network/leases")),
            [] as [PathBuf; 0]
        );
    });
}

#[test]
fn a_network_that_nobody_knows_fails_the_group_before_anything_runs() {
    on_a_node(|| {
        let agent = Place::new().agent().with_executor_info(|executor| {
            let data = br#"{"podling":1,"network":{"networks":[{"name":"dcos"}]}}"#;
            executor.data = Some(data.to_vec().into());
        });
        let tasks = [task("a", Some("echo a byte")), task("b", Some("echo a byte"))];
        let (outcome, work) = run(agent, tasks);
        for id in ["a", "b"] {
            let status = last(&outcome, id);
            assert_eq!(
                (status.state(), status.reason()),
                (TaskFailed, Reason::TaskInvalid)
            );
            let message = status.message();
            assert!(message.contains("this node has no network `dcos`"), "{message}");
            assert_eq!(stdout(work.path(), id).unwrap_or_default(), "");
        }
    });
}

#[test]
fn up_runs_an_image_on_a_network() {
    on_a_node(|| {
        let place = Place::new().image("from the layout\n");
        let pod = serde_json::json!({
            "id": "/shop",
            "networks": [{"mode": "container", "name": "dcos"}],
            "containers": [{
                "name": "web",
                "resources": {"cpus": 0.1, "mem": 32},
                "image": {"kind": "DOCKER", "id": place.reference()},
            }],
        });
        let file = place.path("pod.json");
        fs::write(&file, pod.to_string()).unwrap();
        let output = Command::new(PODLING)
            .args(["up", "--once", "--listen", "127.0.0.1:0"])
            .arg(&file)
            .env("PODLING_IMAGES_STORE", place.path("store"))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(text.contains("from the layout"), "{text}");
        assert!(text.contains("/shop web · RUNNING"), "{text}");
        let links = sh("ip -br link");
        assert!(
            !links.contains("podling"),
            "up takes its bridges with it: {links}"
        );
    });
}
