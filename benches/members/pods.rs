//! Pods as an agent sees them: from LAUNCH_GROUP to the last RUNNING, with a cached image, and with a network of
//! their own.

use std::{fs, path::Path, process::Command as Tool, thread, time::Duration};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use podling::{
    loopback::agent::Agent,
    mesos::v1::{
        CommandInfo, ContainerInfo, Image, Resource, TaskGroupInfo, TaskId, TaskInfo, TaskState,
        container_info, executor::event, image, value,
    },
};

use crate::{PAUSE, make_root};

/// What is measured, with the microseconds of each run.
pub type Measured = Vec<(String, Vec<Duration>)>;

/// Done as a node of its own: no bridge, rule or register of this machine is touched.
pub fn measure(directory: &Path, runs: usize) -> Option<Measured> {
    let layout = directory.join("layout");
    let umoci = |arguments: &[&str]| {
        let done = Tool::new("umoci")
            .args(arguments)
            .current_dir(directory)
            .output()
            .ok()?;
        done.status.success().then_some(())
    };
    make_root(&directory.join("image"));
    umoci(&["init", "--layout", "layout"])?;
    umoci(&["new", "--image", "layout:t"])?;
    umoci(&["insert", "--image", "layout:t", "image", "/"])?;
    let reference = format!("oci:{}:t", layout.display());
    let store = directory.join("store").display().to_string();
    let node = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).unwrap();
        Tool::new("ip")
            .args(["link", "set", "lo", "up"])
            .status()
            .unwrap();
        let mut measured = Measured::new();
        for (name, image, bridge) in [
            ("no image", None, false),
            ("cached image", Some(&reference), false),
            ("cached image, own network", Some(&reference), true),
        ] {
            for count in [1, 3, 10] {
                let mut took = Vec::new();
                // The first one pulls.
                for run in 0..=runs {
                    thread::sleep(PAUSE);
                    let pod = pod(count, image, bridge, &store);
                    took.extend((run > 0).then_some(pod));
                }
                measured.push((
                    format!("pod, {name}, {count}: LAUNCH_GROUP to last RUNNING"),
                    took,
                ));
            }
        }
        measured
    });
    node.join().ok()
}

fn pod(count: usize, image: Option<&String>, bridge: bool, store: &str) -> Duration {
    let ids: Vec<String> = (0..count).map(|number| format!("m{number}")).collect();
    let names: Vec<&str> = ids.iter().map(String::as_str).collect();
    let agent = Agent::builder()
        .executor_argv([env!("CARGO_BIN_EXE_podling-executor")])
        .env("PODLING_LOG", "error")
        .env("PODLING_IMAGES_STORE", store)
        .patience(Duration::from_secs(60))
        .with_executor_info(|executor| {
            if bridge {
                executor.data = Some(br#"{"podling":1,"network":{"mode":"bridge"}}"#.to_vec().into());
            }
        })
        .task_group(TaskGroupInfo {
            tasks: ids.iter().map(|id| task(id, image)).collect(),
        })
        .start()
        .unwrap();
    agent.wait_told(&names, TaskState::TaskRunning).unwrap();
    let history = agent.history();
    let launched = history.when_sent(event::Type::LaunchGroup).unwrap();
    let last = names
        .iter()
        .filter_map(|name| history.when_told(name, TaskState::TaskRunning))
        .max();
    let took = last.unwrap() - launched;
    agent.shutdown();
    assert!(agent.finish().is_good());
    took
}

fn task(id: &str, image: Option<&String>) -> TaskInfo {
    let scalar = |name: &str, amount: f64| Resource {
        name: name.into(),
        r#type: value::Type::Scalar.into(),
        scalar: Some(value::Scalar { value: amount }),
        ..Default::default()
    };
    TaskInfo {
        name: id.into(),
        task_id: TaskId { value: id.into() },
        resources: vec![scalar("cpus", 0.1), scalar("mem", 32.0)],
        command: Some(CommandInfo {
            shell: Some(false),
            value: Some("/bin/sleep".into()),
            arguments: vec!["sleep".into(), "1000".into()],
            ..Default::default()
        }),
        container: image.map(|reference| ContainerInfo {
            r#type: container_info::Type::Mesos.into(),
            mesos: Some(container_info::MesosInfo {
                image: Some(Image {
                    r#type: image::Type::Docker.into(),
                    docker: Some(image::Docker {
                        name: reference.clone(),
                        ..Default::default()
                    }),
                    ..Default::default()
                }),
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// What else runs on this machine, for whoever reads the figures.
pub fn machine() -> serde_json::Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    serde_json::json!({
        "kernel": read("/proc/sys/kernel/osrelease"),
        "processors": thread::available_parallelism().map_or(0, usize::from),
        "load": read("/proc/loadavg"),
    })
}
