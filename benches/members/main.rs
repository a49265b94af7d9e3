//! Members without an executor round them: how long from a plan to the last exec, side by side with crun, runc and
//! podman on the same root file systems, and what an init takes. Pods as an agent sees them are in `pod.rs`.
//!
//! `cargo bench --bench members` takes four minutes; `PODLING_BENCH_RUNS` changes the number of runs. Ours and theirs
//! take turns, with a pause of 150 ms before each: back to back, the kernel is warmer than it ever is on an agent. Raw
//! results go to `benches/results/members.json`, with the machine's load before and after.
//!
//! The other runtimes do less here: no overlay, no system call filter. Their figures include starting the tool, which
//! is what whoever uses them pays.

// A benchmark that cannot go on may end at once.
#![allow(clippy::unwrap_used, clippy::panic)]

mod peers;

use std::{
    collections::BTreeMap,
    env, fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use podling::{
    container::{
        ExecPlan, ExecStreams, Gated, Running, Runtime, Setup,
        cgroup::{Bound, Config, GroupCgroup, Layout, Limits},
        plan::{self, Command, Context, Defaults, Plan, Rootfs},
    },
    mesos::v1,
    sys,
};
use serde_json::json;

const PAUSE: Duration = Duration::from_millis(150);

fn main() {
    // `cargo test --benches` only wants to know that it builds.
    if !env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(measure());
}

struct Bench {
    directory: tempfile::TempDir,
    runtime: Runtime,
    group: GroupCgroup,
    runs: usize,
    made: u32,
    results: BTreeMap<String, Vec<f64>>,
}

/// What a member of ours is made of.
#[derive(Clone, Copy)]
enum Kind {
    /// The host's root, nothing else.
    Bare,
    /// Layers under an overlay, the default filter, cgroups with limits.
    Full,
}

async fn measure() {
    let runs = env::var("PODLING_BENCH_RUNS")
        .ok()
        .and_then(|runs| runs.parse().ok())
        .unwrap_or(100);
    let directory = tempfile::Builder::new()
        .prefix("podling-bench-")
        .tempdir()
        .unwrap();
    make_root(&directory.path().join("layer"));
    let name = format!("bench-{}", std::process::id());
    let setup = Setup {
        name: name.clone(),
        sandbox: directory.path().to_owned(),
    };
    let mut bench = Bench {
        runtime: Runtime::open(setup).unwrap(),
        group: Layout::detect(&Config::default())
            .group(&name, &Limits::default())
            .unwrap(),
        directory,
        runs,
        made: 0,
        results: BTreeMap::new(),
    };
    let before = machine();
    let peers = peers::peers(bench.directory.path());
    for run in 0..bench.runs {
        for count in [1, 3, 10] {
            bench.start(Kind::Bare, "without image", count).await;
            bench.start(Kind::Full, "overlay, filter, cgroups", count).await;
        }
        bench.exec().await;
        for peer in &peers {
            // One takes as long as all the others together, again and again.
            if peer.name == "podman" && run % 5 > 0 {
                continue;
            }
            for count in [1, 3] {
                tokio::time::sleep(PAUSE).await;
                let took = peer.run(count).unwrap();
                bench.note(format!("{} run, {count}", peer.name), took);
            }
        }
    }
    bench.churn().await;
    bench.memory().await;
    bench.report(&before);
}

impl Bench {
    fn note(&mut self, name: String, took: Duration) {
        self.results
            .entry(name)
            .or_default()
            .push(took.as_secs_f64() * 1e6);
    }

    fn plan(&mut self, kind: Kind, argv: &[&str]) -> Plan {
        self.made += 1;
        let number = self.made;
        let at = |name: &str| self.directory.path().join(format!("{name}{number}"));
        let mut context = Context {
            sandbox: at("containers/m"),
            group: "group".into(),
            ..Context::default()
        };
        if let Kind::Full = kind {
            // Takes the place of the layers until they are mounted.
            context.rootfs = Rootfs::Directory {
                path: at("upper"),
                read_only: false,
            };
        }
        let task = v1::TaskInfo {
            name: "bench".into(),
            command: Some(v1::CommandInfo {
                shell: Some(false),
                value: Some(argv[0].into()),
                arguments: argv.iter().map(|&argument| argument.into()).collect(),
                ..Default::default()
            }),
            ..Default::default()
        };
        plan::member(&task, None, &context, &Defaults::default()).unwrap()
    }

    /// What belongs to the launch, beyond the plan.
    fn furnished(&self, kind: Kind, mut plan: Plan) -> Plan {
        if let Kind::Full = kind {
            if let Rootfs::Directory { path: upper, .. } = &plan.rootfs {
                let work = upper.with_extension("work");
                fs::create_dir_all(upper).unwrap();
                fs::create_dir_all(&work).unwrap();
                let layer = self.directory.path().join("layer");
                let overlay = sys::overlay::Overlay::open(&[layer], Some((upper, &work)));
                plan.rootfs = Rootfs::Mounted {
                    mount: Arc::new(overlay.and_then(|overlay| overlay.mount()).unwrap()),
                    read_only: false,
                };
            }
            let limits = Limits {
                weight: Some(1.0),
                quota: Some(Bound::At(1.0)),
                memory: Some(Bound::At(256 << 20)),
                pids: Some(Bound::At(512)),
                ..Limits::default()
            };
            let name = plan.sandbox.file_name().unwrap().to_string_lossy().into_owned();
            plan.cgroup = Some(Arc::new(self.group.member(&name, &limits).unwrap()));
        }
        plan
    }

    async fn start(&mut self, kind: Kind, name: &str, count: usize) {
        let plans: Vec<_> = (0..count)
            .map(|_| self.plan(kind, &["/bin/sleep", "1000"]))
            .collect();
        tokio::time::sleep(PAUSE).await;
        let begin = Instant::now();
        let running = self.launch(kind, plans).await;
        let took = begin.elapsed();
        self.note(format!("{name}, {count}: plan to last exec"), took);

        let begin = Instant::now();
        end(running).await;
        let took = begin.elapsed();
        self.note(format!("{name}, {count}: kill to the last one gone"), took);
    }

    /// All at their gates first, then all released, as a group is.
    async fn launch(&self, kind: Kind, plans: Vec<Plan>) -> Vec<Running> {
        let preparing: Vec<_> = plans
            .into_iter()
            .map(|plan| self.runtime.prepare(self.furnished(kind, plan)))
            .collect();
        let gated: Vec<Gated> = join(preparing).await.into_iter().map(Result::unwrap).collect();
        join(gated.into_iter().map(Gated::release).collect())
            .await
            .into_iter()
            .map(Result::unwrap)
            .collect()
    }

    async fn exec(&mut self) {
        let plan = self.plan(Kind::Full, &["/bin/sleep", "1000"]);
        let running = self.launch(Kind::Full, vec![plan]).await;
        let entrance = running[0].entrance().unwrap();
        tokio::time::sleep(PAUSE).await;
        let plan = ExecPlan {
            command: Command {
                program: "/bin/true".into(),
                arguments: vec!["true".into()],
            },
            environment: vec![],
            cwd: None,
            streams: ExecStreams::Null,
        };
        let begin = Instant::now();
        let mut executing = entrance.exec(plan).await.unwrap();
        self.note("exec into a member: to the exec".into(), begin.elapsed());
        executing.wait().await;
        self.note("exec into a member: to its end".into(), begin.elapsed());
        end(running).await;
    }

    async fn churn(&mut self) {
        let begin = Instant::now();
        let mut groups = 0;
        while begin.elapsed() < Duration::from_secs(5) {
            let plans: Vec<_> = (0..3)
                .map(|_| self.plan(Kind::Full, &["/bin/sleep", "1000"]))
                .collect();
            let running = self.launch(Kind::Full, plans).await;
            end(running).await;
            groups += 1;
        }
        let rate = f64::from(groups) / begin.elapsed().as_secs_f64();
        println!("groups of 3 started and removed: {rate:.0} per second");
        self.results
            .insert("churn: groups of 3 per second".into(), vec![rate]);
    }

    async fn memory(&mut self) {
        let plan = self.plan(Kind::Full, &["/bin/sleep", "1000"]);
        let running = self.launch(Kind::Full, vec![plan]).await;
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", running[0].pid())).unwrap();
        let field = |name: &str| -> f64 {
            let lines = rollup.lines().filter(|line| line.starts_with(name));
            lines
                .filter_map(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok())
                .sum()
        };
        let (rss, private) = (field("Rss:"), field("Private_"));
        println!("an init: {rss} kB resident, {private} kB private");
        self.results.insert("init: kB resident".into(), vec![rss]);
        self.results.insert("init: kB private".into(), vec![private]);
        end(running).await;
    }

    fn report(&self, before: &serde_json::Value) {
        println!(
            "{:<56} {:>9} {:>9} {:>9} {:>9}",
            "microseconds", "minimum", "median", "p99", "runs"
        );
        let mut shown = serde_json::Map::new();
        for (name, values) in &self.results {
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share).round() as usize];
            if values.len() > 1 {
                println!(
                    "{name:<56} {:>9.0} {:>9.0} {:>9.0} {:>9}",
                    sorted[0],
                    at(0.5),
                    at(0.99),
                    sorted.len()
                );
            }
            shown.insert(
                name.clone(),
                json!({"median": at(0.5), "minimum": sorted[0], "p99": at(0.99), "raw": values}),
            );
        }
        let median = |name: &str| shown.get(name).and_then(|value| value["median"].as_f64());
        for peer in ["crun", "runc", "podman"] {
            for count in [1, 3] {
                let ours = median(&format!("overlay, filter, cgroups, {count}: plan to last exec"));
                if let (Some(ours), Some(theirs)) = (ours, median(&format!("{peer} run, {count}"))) {
                    println!("{count} member(s): {:.3} of {peer}", ours / theirs);
                }
            }
        }
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/results");
        fs::create_dir_all(&directory).unwrap();
        let text = serde_json::to_string_pretty(&json!({
            "unit": "us", "before": before, "after": machine(), "results": shown,
        }))
        .unwrap();
        fs::write(directory.join("members.json"), text).unwrap();
    }
}

/// What else runs on this machine, for whoever reads the figures.
fn machine() -> serde_json::Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    json!({
        "kernel": read("/proc/sys/kernel/osrelease"),
        "processors": std::thread::available_parallelism().map_or(0, usize::from),
        "load": read("/proc/loadavg"),
    })
}

async fn end(mut running: Vec<Running>) {
    for member in &running {
        member.kill();
    }
    join(running.iter_mut().map(Running::wait).collect()).await;
}

/// All at once, on this thread: members die with the thread that starts them.
async fn join<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = futures
        .into_iter()
        .map(|future| (Box::pin(future), None))
        .collect();
    std::future::poll_fn(move |context| {
        for (future, output) in waiting.iter_mut().filter(|(_, output)| output.is_none()) {
            if let std::task::Poll::Ready(ready) = future.as_mut().poll(context) {
                *output = Some(ready);
            }
        }
        match waiting.iter().all(|(_, output)| output.is_some()) {
            true => std::task::Poll::Ready(
                waiting
                    .iter_mut()
                    .filter_map(|(_, output)| output.take())
                    .collect(),
            ),
            false => std::task::Poll::Pending,
        }
    })
    .await
}

fn make_root(root: &Path) {
    fs::create_dir_all(root.join("bin")).unwrap();
    let busybox = ["/usr/bin/busybox", "/bin/busybox"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    fs::copy(
        busybox.expect("busybox-static is installed"),
        root.join("bin/busybox"),
    )
    .unwrap();
    for name in ["sleep", "true"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
    }
}
