//! Other runtimes on the same machine, with the same root file system.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command as Tool, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use podling::sys;
use serde_json::json;

use crate::make_root;

/// Another runtime, run by a thread that does not see version 2 cgroups beside those of version 1: crun refuses such
/// machines.
pub struct Peer {
    pub name: &'static str,
    runs: mpsc::Sender<usize>,
    took: mpsc::Receiver<Result<Duration, String>>,
}

/// What one run of it takes, given a bundle, a place for its state and a name.
type Order = fn(&Path, &Path, &str) -> Tool;

fn with_bundle(tool: &str, bundle: &Path, state: &Path, name: &str) -> Tool {
    let mut order = Tool::new(tool);
    order
        .arg("--root")
        .arg(state)
        .args(["run", "-b"])
        .arg(bundle)
        .arg(name);
    order
}

fn podman(bundle: &Path, state: &Path, name: &str) -> Tool {
    let mut order = Tool::new("podman");
    order
        .arg("--root")
        .arg(state.join("root"))
        .arg("--runroot")
        .arg(state.join("run"))
        .args(["--cgroup-manager=cgroupfs", "--events-backend=none"])
        .args([
            "run",
            "--rm",
            "--network=none",
            "--ulimit=nofile=1024:1024",
            "--ulimit=nproc=1024:1024",
        ])
        .args(["--name", name, "--rootfs"])
        .arg(bundle.join("rootfs"))
        .arg("/bin/true");
    order
}

/// Those that are installed and work here.
pub fn peers(directory: &Path) -> Vec<Peer> {
    let known: [(&'static str, Order); 3] = [
        ("crun", |bundle, state, name| {
            with_bundle("crun", bundle, state, name)
        }),
        ("runc", |bundle, state, name| {
            with_bundle("runc", bundle, state, name)
        }),
        ("podman", podman),
    ];
    known
        .into_iter()
        .filter_map(|(name, order)| Peer::new(name, order, directory))
        .collect()
}

impl Peer {
    fn new(name: &'static str, order: Order, directory: &Path) -> Option<Self> {
        let quiet = |tool: &str, arguments: &[&str], at: &Path| {
            let mut tool = Tool::new(tool);
            let tool = tool
                .args(arguments)
                .current_dir(at)
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            tool.status().ok().filter(|status| status.success())
        };
        quiet(name, &["--version"], directory)?;
        let bundle = directory.join(format!("bundle-{name}"));
        make_root(&bundle.join("rootfs"));
        quiet("crun", &["spec"], &bundle)?;
        let config = bundle.join("config.json");
        let mut spec: serde_json::Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
        spec["process"]["terminal"] = json!(false);
        spec["process"]["args"] = json!(["/bin/true"]);
        spec["linux"]["namespaces"]
            .as_array_mut()
            .unwrap()
            .retain(|namespace| namespace["type"] != "network");
        fs::write(&config, spec.to_string()).unwrap();

        let (runs, orders) = mpsc::channel();
        let (answer, took) = mpsc::channel();
        let state: PathBuf = directory.join(format!("state-{name}"));
        fs::create_dir(&state).unwrap();
        thread::spawn(move || {
            sys::mount::separate_thread().unwrap();
            let _ = Tool::new("mount").args(["--make-rprivate", "/"]).status();
            let unified = "/sys/fs/cgroup/unified";
            let _ = Tool::new("umount").arg(unified).stderr(Stdio::null()).status();
            for (number, count) in orders.iter().enumerate() {
                let begin = Instant::now();
                let result = (0..count).try_for_each(|member| {
                    let id = format!("podling-bench-{}-{number}-{member}", std::process::id());
                    let output = order(&bundle, &state, &id)
                        .output()
                        .map_err(|error| error.to_string())?;
                    match output.status.success() {
                        true => Ok(()),
                        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
                    }
                });
                if answer.send(result.map(|()| begin.elapsed())).is_err() {
                    break;
                }
            }
        });
        let peer = Self { name, runs, took };
        // Once without looking at the clock: what does not work here is left out.
        match peer.run(1) {
            Ok(_) => Some(peer),
            Err(error) => {
                println!("without {name}: {}", error.lines().last().unwrap_or_default());
                None
            }
        }
    }

    /// So many containers, one after the other, from start to end.
    pub fn run(&self, count: usize) -> Result<Duration, String> {
        self.runs.send(count).unwrap();
        self.took.recv().unwrap()
    }
}
