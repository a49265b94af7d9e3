//! What the whole is for: a pod with everything it may ask for. Members from a stored image, each with cgroup, limits
//! and system call filter, on a network of their own with an address on the node's bridge; started, and gone again.
//!
//! `cargo bench --bench pod`; `PODLING_EXECUTOR` measures another binary, such as the static one that is shipped,
//! `PODLING_BENCH_RUNS` changes the number of runs, and `PODLING_BENCH_NOTE` is kept with the results. Ours, three
//! times `crun run` and podman's pod take turns, 150 ms apart: back to back, the kernel is warmer than it ever is on an
//! agent. Raw results go to `benches/results/pod.json`.
//!
//! All happens on a node of its own: in network and mount namespaces of this process.

// A benchmark that cannot go on may end at once.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};
use podling::{
    loopback::agent::{Agent, default_executor},
    mesos::v1::{
        CommandInfo, ContainerInfo, Image, Resource, TaskGroupInfo, TaskId, TaskInfo, TaskState,
        container_info, executor::event, image, value,
    },
};
use serde_json::json;

const PAUSE: Duration = Duration::from_millis(150);
/// How long pods are started and removed without a pause, and by how many at once.
const CHURN: Duration = Duration::from_secs(8);
const AT_ONCE: usize = 6;

fn main() {
    // `cargo test --benches` only wants to know that it builds.
    if !env::args().any(|argument| argument == "--bench") {
        return;
    }
    own_node();
    let place = tempfile::Builder::new()
        .prefix("podling-bench-")
        .tempdir()
        .unwrap();
    let bench = Bench::new(place.path());
    let results = bench.measure();
    bench.save(&results);
}

/// No bridge, rule or address of this machine is touched; and crun refuses machines with version 2 cgroups beside
/// those of version 1, so that it gets to see no others.
fn own_node() {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("this benchmark needs root");
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).unwrap();
    tool("ip", &["link", "set", "lo", "up"]);
}

struct Bench<'a> {
    place: &'a Path,
    executor: String,
    runs: usize,
}

type Results = BTreeMap<String, Vec<f64>>;

impl<'a> Bench<'a> {
    fn new(place: &'a Path) -> Self {
        let number = |name: &str| env::var(name).ok().and_then(|text| text.parse().ok());
        let bench = Bench {
            place,
            executor: env::var("PODLING_EXECUTOR")
                .unwrap_or_else(|_| env!("CARGO_BIN_EXE_podling-executor").to_owned()),
            runs: number("PODLING_BENCH_RUNS").unwrap_or(40),
        };
        bench.image();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.join(name)
    }

    /// A layout with one image, and the same tree as a bundle.
    fn image(&self) {
        let bin = self.path("bundle/rootfs/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
        for name in ["sh", "sleep", "true"] {
            std::os::unix::fs::symlink("busybox", bin.join(name)).unwrap();
        }
        let layout = self.path("layout");
        let (layout, bin) = (layout.to_str().unwrap(), bin.to_str().unwrap());
        let image = format!("{layout}:t");
        tool("umoci", &["init", "--layout", layout]);
        tool("umoci", &["new", "--image", &image]);
        tool("umoci", &["insert", "--image", &image, bin, "/bin"]);
    }

    fn measure(&self) -> Results {
        let mut results = Results::new();
        let mut note = |name: String, took: Duration| {
            results.entry(name).or_default().push(took.as_secs_f64() * 1e3);
        };
        let crun = Crun::new(self.path("bundle"));
        let podman = Podman::new(self.place);
        // The store, the bridge and the tables are there from the second pod of a node on.
        self.pod(1);
        for run in 0..self.runs {
            for count in [1, 3, 10] {
                thread::sleep(PAUSE);
                let (started, removed) = self.pod(count);
                note(format!("pod of {count}: LAUNCH_GROUP to last RUNNING"), started);
                note(format!("pod of {count}: SHUTDOWN to executor gone"), removed);
            }
            if let Some(crun) = &crun {
                thread::sleep(PAUSE);
                note("crun run, 3".to_owned(), crun.run(3, run));
            }
            // It is slow enough for a few to tell.
            if let Some(podman) = podman.as_ref().filter(|_| run < 10) {
                thread::sleep(PAUSE);
                let (started, removed) = podman.pod(3, run);
                note("podman pod of 3: to the last one started".to_owned(), started);
                note("podman pod of 3: removed".to_owned(), removed);
            }
        }
        results.insert("churn: pods of 3 per second".to_owned(), vec![self.churn()]);
        results
    }

    /// Starts and ends one pod.
    fn pod(&self, count: usize) -> (Duration, Duration) {
        let reference = format!("oci:{}:t", self.path("layout").display());
        let names: Vec<String> = (0..count).map(|number| format!("m{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut executor = default_executor();
        executor.data = Some(br#"{"podling":1,"network":{"mode":"bridge"}}"#.to_vec().into());
        let agent = Agent::builder()
            .executor_argv([self.executor.as_str()])
            .env("PODLING_LOG", "error")
            .env("PODLING_IMAGES_STORE", self.path("store").to_str().unwrap())
            .executor_info(executor)
            .task_group(TaskGroupInfo {
                tasks: names.iter().map(|name| member(name, &reference)).collect(),
            })
            .start()
            .unwrap();
        agent.wait_told(&names, TaskState::TaskRunning).unwrap();
        let history = agent.history();
        let asked = history.when_sent(event::Type::LaunchGroup).unwrap();
        let running = names
            .iter()
            .filter_map(|name| history.when_told(name, TaskState::TaskRunning));
        let started = running.max().unwrap() - asked;
        let begin = Instant::now();
        agent.shutdown();
        let outcome = agent.finish();
        assert!(outcome.is_good(), "{outcome}\n{}", outcome.history);
        (started, begin.elapsed())
    }

    fn churn(&self) -> f64 {
        let begin = Instant::now();
        let pods = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| {
                    while begin.elapsed() < CHURN {
                        self.pod(3);
                        pods.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        pods.into_inner() as f64 / begin.elapsed().as_secs_f64()
    }

    fn save(&self, results: &Results) {
        println!(
            "{:<48} {:>9} {:>9} {:>9} {:>5}",
            "milliseconds", "least", "median", "p99", "runs"
        );
        let mut shown = serde_json::Map::new();
        for (name, values) in results {
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share).round() as usize];
            let (least, median, p99) = (at(0.0), at(0.5), at(0.99));
            println!(
                "{name:<48} {least:>9.2} {median:>9.2} {p99:>9.2} {:>5}",
                sorted.len()
            );
            shown.insert(name.clone(), json!({"median": median, "p99": p99, "raw": values}));
        }
        let median = |name: &str| shown.get(name).and_then(|value| value["median"].as_f64());
        let ours = median("pod of 3: LAUNCH_GROUP to last RUNNING");
        for peer in ["crun run, 3", "podman pod of 3: to the last one started"] {
            if let (Some(ours), Some(theirs)) = (ours, median(peer)) {
                println!("{:.4} of {peer}", ours / theirs);
            }
        }
        let all = json!({
            "unit": "ms",
            "kernel": rustix::system::uname().release().to_string_lossy(),
            "processors": thread::available_parallelism().map_or(0, usize::from),
            "load": fs::read_to_string("/proc/loadavg").unwrap_or_default().trim(),
            "note": env::var("PODLING_BENCH_NOTE").unwrap_or_default(),
            "results": shown,
        });
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/results");
        fs::write(
            folder.join("pod.json"),
            serde_json::to_string(&all).unwrap() + "\n",
        )
        .unwrap();
    }
}

/// Says nothing unless it fails.
fn tool(name: &str, arguments: &[&str]) {
    let output = Command::new(name).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {arguments:?}: {said}");
}

fn there_is(name: &str) -> bool {
    let mut command = Command::new(name);
    command
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn member(id: &str, reference: &str) -> TaskInfo {
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
            shell: Some(true),
            value: Some("exec sleep 1000".into()),
            ..Default::default()
        }),
        container: Some(ContainerInfo {
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
        }),
        ..Default::default()
    }
}

/// Three containers one after the other: no network, no overlay, no filter.
struct Crun {
    bundle: PathBuf,
}

impl Crun {
    fn new(bundle: PathBuf) -> Option<Self> {
        if !there_is("crun") {
            return None;
        }
        tool("crun", &["spec", "--bundle", bundle.to_str()?]);
        let config = bundle.join("config.json");
        let mut spec: serde_json::Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
        spec["process"]["terminal"] = json!(false);
        spec["process"]["args"] = json!(["/bin/true"]);
        fs::write(&config, spec.to_string()).unwrap();
        Some(Crun { bundle })
    }

    fn run(&self, count: usize, run: usize) -> Duration {
        without_unified_cgroups(|| {
            let begin = Instant::now();
            for number in 0..count {
                let id = format!("podling-bench-{}-{run}-{number}", std::process::id());
                tool("crun", &["run", "--bundle", self.bundle.to_str().unwrap(), &id]);
            }
            begin.elapsed()
        })
    }
}

/// As podman calls it.
const IMAGE: &str = "localhost/bench:t";

struct Podman<'a> {
    place: &'a Path,
}

impl<'a> Podman<'a> {
    fn new(place: &'a Path) -> Option<Self> {
        let podman = Podman { place };
        if !there_is("podman") {
            return None;
        }
        let archive = place.join("archive.tar");
        let (from, to) = (
            format!("oci:{}:t", place.join("layout").display()),
            format!("docker-archive:{}:{IMAGE}", archive.display()),
        );
        tool("skopeo", &["--insecure-policy", "copy", "-q", &from, &to]);
        let ready = without_unified_cgroups(|| {
            podman.asked(&["load", "-q", "-i", archive.to_str().unwrap()])?;
            podman.try_pod(1, usize::MAX)
        });
        match ready {
            Ok(_) => Some(podman),
            Err(said) => {
                println!("podman is here but does not run a pod: {said}");
                None
            }
        }
    }

    /// What it printed; else what it complained about.
    fn asked(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new("podman");
        command
            .args([
                "--cgroup-manager=cgroupfs",
                "--events-backend=none",
                "--runtime=crun",
            ])
            .arg("--root")
            .arg(self.place.join("podman"))
            .arg("--runroot")
            .arg(self.place.join("podman-run"))
            .args(arguments);
        let output = command.output().map_err(|error| error.to_string())?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        }
    }

    fn try_pod(&self, count: usize, run: usize) -> Result<(Duration, Duration), String> {
        let name = format!("bench{run}");
        let begin = Instant::now();
        let result = self.asked(&["pod", "create", "--name", &name]).and_then(|_| {
            (0..count).try_for_each(|_| {
                let run = [
                    "run",
                    "-d",
                    "--pod",
                    &name,
                    "localhost/bench:t",
                    "/bin/sleep",
                    "1000",
                ];
                self.asked(&run).map(drop)
            })
        });
        let started = begin.elapsed();
        let begin = Instant::now();
        let removed = self.asked(&["pod", "rm", "-f", "-t", "0", &name]);
        result.and(removed)?;
        Ok((started, begin.elapsed()))
    }

    fn pod(&self, count: usize, run: usize) -> (Duration, Duration) {
        without_unified_cgroups(|| self.try_pod(count, run)).unwrap()
    }
}

/// crun refuses machines with version 2 cgroups beside those of version 1: a thread of its own does not see them.
fn without_unified_cgroups<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let thread = move || {
        podling::sys::mount::separate_thread().unwrap();
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        let _ = umount2("/sys/fs/cgroup/unified", MntFlags::MNT_DETACH);
        work()
    };
    thread::scope(|scope| scope.spawn(thread).join()).unwrap()
}
