//! The executor as an agent sees it: how soon it subscribes, how soon a pod runs, how soon one member's death
//! reaches the others, and what it all takes in memory.
//!
//! `cargo bench --bench executor`; `PODLING_EXECUTOR` measures another binary, such as the static one that is
//! shipped, `PODLING_BENCH_RUNS` changes the number of runs, and `PODLING_BENCH_NOTE` is kept with the results.
//! Between runs is a pause of 150 ms: back to back, the kernel is warmer than it ever is on an agent. Raw results go
//! to `benches/results/executor.json`.

// A benchmark that cannot go on may end at once.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "common/figures.rs"]
mod figures;

use std::{
    env, fs,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime},
};

use nix::sys::signal::{SigSet, Signal};
use podling::{
    loopback::agent::{Agent, What, default_executor},
    mesos::v1::{
        CommandInfo, Resource, TaskGroupInfo, TaskId, TaskInfo, TaskState,
        executor::event,
        value::{self, Scalar},
    },
};
use serde_json::json;

use self::figures::{Figures, Memory, micros};

const PAUSE: Duration = Duration::from_millis(150);

fn main() {
    let arguments: Vec<String> = env::args().collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        // What members run: see `deaths`.
        [_, "member-dies", gate, out] => die(Path::new(gate), Path::new(out)),
        [_, "member-waits", out] => await_term(Path::new(out)),
        _ => measure(),
    }
}

/// Microseconds of a clock that all processes of this machine share.
fn now() -> u64 {
    micros(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap())
}

fn die(gate: &Path, out: &Path) {
    let _ = fs::File::open(gate).unwrap().read(&mut [0]);
    fs::write(out, now().to_string()).unwrap();
    // As late as it can be known.
    fs::write(out, now().to_string()).unwrap();
    panic!("a member that fails");
}

fn await_term(out: &Path) {
    let mut set = SigSet::empty();
    set.add(Signal::SIGTERM);
    set.thread_block().unwrap();
    fs::write(out.with_extension("ready"), "").unwrap();
    set.wait().unwrap();
    let at = now();
    fs::write(out, at.to_string()).unwrap();
}

struct Bench {
    executor: String,
    runs: usize,
    figures: Figures,
}

fn measure() {
    let executor =
        env::var("PODLING_EXECUTOR").unwrap_or_else(|_| env!("CARGO_BIN_EXE_podling-executor").to_owned());
    let runs = env::var("PODLING_BENCH_RUNS")
        .ok()
        .and_then(|runs| runs.parse().ok())
        .unwrap_or(40);
    let mut bench = Bench {
        executor,
        runs,
        figures: Figures::default(),
    };
    println!("{} runs each, 150 ms apart; {}", bench.runs, bench.executor);
    bench.launches();
    bench.deaths();
    bench.memory();
    bench.figures.save("executor.json", bench.runs);
}

impl Bench {
    fn agent(&self, tasks: Vec<TaskInfo>) -> Agent {
        let builder = Agent::builder()
            .executor_argv([self.executor.as_str()])
            .env("PODLING_LOG", "error");
        builder
            .executor_info(default_executor())
            .task_group(TaskGroupInfo { tasks })
            .start()
            .unwrap()
    }

    fn launches(&mut self) {
        let mut subscribe = Vec::new();
        for count in [1, 3, 10] {
            let ids: Vec<String> = (0..count).map(|number| format!("m{number}")).collect();
            let names: Vec<&str> = ids.iter().map(String::as_str).collect();
            let mut running = Vec::new();
            for _ in 0..self.runs {
                thread::sleep(PAUSE);
                let agent = self.agent(ids.iter().map(|id| task(id, shell("sleep 1000"))).collect());
                agent.wait_told(&names, TaskState::TaskRunning).unwrap();
                let history = agent.history();
                let started = history.when(|what| matches!(what, What::Starting)).unwrap();
                let asked = history
                    .when(|what| matches!(what, What::Call(call) if call.subscribe.is_some()))
                    .unwrap();
                subscribe.push(micros(asked - started));
                let launched = history.when_sent(event::Type::LaunchGroup).unwrap();
                let last = names
                    .iter()
                    .filter_map(|name| history.when_told(name, TaskState::TaskRunning))
                    .max();
                running.push(micros(last.unwrap() - launched));
                agent.shutdown();
                assert!(agent.finish().is_good());
            }
            self.figures
                .report(&format!("LAUNCH_GROUP to last RUNNING, {count} members"), running);
        }
        self.figures.report("exec to SUBSCRIBE", subscribe);
    }

    fn deaths(&mut self) {
        let exe = env::current_exe().unwrap().to_str().unwrap().to_owned();
        let (mut told, mut ended) = (Vec::new(), Vec::new());
        for _ in 0..self.runs {
            thread::sleep(PAUSE);
            let place = tempfile::tempdir().unwrap();
            let file = |name: &str| place.path().join(name);
            let text = |path: PathBuf| path.to_str().unwrap().to_owned();
            let gate = file("gate");
            nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).unwrap();
            let siblings = ["b", "c"];
            let mut tasks = vec![task(
                "a",
                argv([&exe, "member-dies", &text(gate.clone()), &text(file("a"))]),
            )];
            tasks.extend(siblings.map(|id| task(id, argv([&exe, "member-waits", &text(file(id))]))));
            let agent = self.agent(tasks);
            agent.wait_told(&["a", "b", "c"], TaskState::TaskRunning).unwrap();
            while !siblings
                .iter()
                .all(|id| file(id).with_extension("ready").exists())
            {
                thread::sleep(Duration::from_millis(1));
            }
            thread::sleep(PAUSE);
            fs::OpenOptions::new()
                .write(true)
                .open(&gate)
                .unwrap()
                .write_all(b"x")
                .unwrap();
            agent.wait_told(&siblings, TaskState::TaskKilled).unwrap();
            let killed = now();
            assert!(agent.finish().is_good());
            let at = |name: &str| fs::read_to_string(file(name)).unwrap().parse::<u64>().unwrap();
            told.push(siblings.map(at).into_iter().max().unwrap() - at("a"));
            ended.push(killed - at("a"));
        }
        self.figures
            .report("death of a member to SIGTERM at both siblings", told);
        self.figures
            .report("death of a member to last KILLED of two siblings", ended);
    }

    fn memory(&mut self) {
        let ids: Vec<String> = (0..10).map(|number| format!("m{number}")).collect();
        let names: Vec<&str> = ids.iter().map(String::as_str).collect();
        // Another one beside it, as on any node: what both have is not private.
        let other = self.agent(vec![task("other", shell("sleep 1000"))]);
        other.wait_told(&["other"], TaskState::TaskRunning).unwrap();
        let agent = self.agent(ids.iter().map(|id| task(id, shell("sleep 1000"))).collect());
        agent.wait_told(&names, TaskState::TaskRunning).unwrap();
        // Five quiet seconds after the launch it gives back what only launches need.
        thread::sleep(Duration::from_secs(7));
        let executor = Memory::of(agent.facts().pid);
        let inits: Vec<Memory> = children(agent.facts().pid).into_iter().map(Memory::of).collect();
        println!("with 10 members: executor {executor}");
        if let Some(largest) = inits.iter().max_by_key(|memory| memory.private) {
            println!("                 {} inits, the largest {largest}", inits.len());
        }
        let size = fs::metadata(&self.executor).unwrap().len();
        println!("binary: {:.2} MB", size as f64 / 1e6);
        self.figures.keep(
            "memory, kB",
            json!({
                "executor": executor.json(),
                "inits": inits.iter().map(Memory::json).collect::<Vec<_>>(),
                "binary bytes": size,
            }),
        );
        for agent in [agent, other] {
            agent.shutdown();
            assert!(agent.finish().is_good());
        }
    }
}

fn task(id: &str, command: CommandInfo) -> TaskInfo {
    let scalar = |name: &str, amount: f64| Resource {
        name: name.into(),
        r#type: value::Type::Scalar.into(),
        scalar: Some(Scalar { value: amount }),
        ..Default::default()
    };
    TaskInfo {
        name: id.into(),
        task_id: TaskId { value: id.into() },
        resources: vec![scalar("cpus", 0.1), scalar("mem", 32.0)],
        command: Some(command),
        ..Default::default()
    }
}

fn shell(command: &str) -> CommandInfo {
    CommandInfo {
        shell: Some(true),
        value: Some(command.into()),
        ..Default::default()
    }
}

fn argv<'a>(words: impl IntoIterator<Item = &'a str>) -> CommandInfo {
    let arguments: Vec<String> = words.into_iter().map(str::to_owned).collect();
    CommandInfo {
        shell: Some(false),
        value: arguments.first().cloned(),
        arguments,
        ..Default::default()
    }
}

fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect()
}
