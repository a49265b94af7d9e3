//! What the whole of `podling up` takes in memory: one process with master, agents, scheduler and API, one executor an
//! instance, one init a member.
//!
//! `cargo bench --bench up`; `PODLING_UP` measures another binary, such as the static one that is shipped, beside which
//! its `podling-executor` lies, and `PODLING_BENCH_NOTE` is kept with the results. Raw results go to
//! `benches/results/up.json`.

// A benchmark that cannot go on may end at once.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    collections::BTreeMap,
    env, fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

/// Kilobytes of a group of processes. `pss` shares what is shared fairly; `private` goes with the process.
#[derive(Debug, Default, Clone, Copy)]
struct Memory {
    processes: u64,
    rss: u64,
    pss: u64,
    private: u64,
}

/// A process' numbers, by `smaps_rollup`.
fn memory(pid: u32) -> Option<Memory> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let of = |name: &str| -> u64 {
        let lines = text.lines().filter_map(|line| line.strip_prefix(name));
        lines
            .filter_map(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok())
            .sum()
    };
    Some(Memory {
        processes: 1,
        rss: of("Rss:"),
        pss: of("Pss:"),
        private: of("Private_Clean:") + of("Private_Dirty:"),
    })
}

/// A process and all below it, by the name of what they run.
fn family(top: u32) -> BTreeMap<String, Memory> {
    let mut parents: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // The name before it may hold anything but ends with the last bracket.
        let parent = stat
            .rsplit(')')
            .next()
            .and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok());
        if let Some(parent) = parent {
            parents.entry(parent).or_default().push(pid);
        }
    }
    let mut all = BTreeMap::new();
    let mut waiting = vec![top];
    while let Some(pid) = waiting.pop() {
        waiting.extend(parents.get(&pid).into_iter().flatten());
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let Some(one) = memory(pid) else { continue };
        let sum: &mut Memory = all.entry(name.trim().to_owned()).or_default();
        sum.processes += 1;
        sum.rss += one.rss;
        sum.pss += one.pss;
        sum.private += one.private;
    }
    all
}

fn as_json(memory: &Memory) -> Value {
    json!({"processes": memory.processes, "rss_kb": memory.rss, "pss_kb": memory.pss, "private_kb": memory.private})
}

/// Starts `up`, waits until its pods are as they should be, and a moment more.
fn start(program: &str, files: &[&str]) -> (Child, Duration) {
    let begin = Instant::now();
    let mut child = Command::new(program)
        .args(["up", "--listen", "127.0.0.1:0"])
        .args(files)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    for _ in files {
        lines
            .by_ref()
            .find(|line| line.contains("is as it should be"))
            .expect("the pod runs");
    }
    let took = begin.elapsed();
    // It must go on being read, and its reader must not go away.
    thread::spawn(move || lines.for_each(drop));
    thread::sleep(Duration::from_millis(300));
    (child, took)
}

fn main() {
    let program = env::var("PODLING_UP").unwrap_or_else(|_| env!("CARGO_BIN_EXE_podling").to_owned());
    let example = |name: &str| format!("{}/examples/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let (hello, sleepers) = (example("hello"), example("sleepers"));
    let mut results = serde_json::Map::new();
    println!(
        "{:<24}{:<18}{:>6}{:>10}{:>10}{:>10}",
        "", "", "count", "RSS kB", "PSS kB", "private"
    );
    for (what, files) in [
        ("hello: 1 × 2", vec![hello.as_str()]),
        ("sleepers: 10 × 3", vec![sleepers.as_str()]),
    ] {
        let (mut child, took) = start(&program, &files);
        let family = family(child.id());
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
        child.wait().unwrap();
        let mut whole = Memory::default();
        for (name, memory) in &family {
            print(what, name, memory);
            whole.processes += memory.processes;
            whole.rss += memory.rss;
            whole.pss += memory.pss;
            whole.private += memory.private;
        }
        print(what, "all", &whole);
        println!("{what:<24}started and stable after {took:?}");
        let mut parts: serde_json::Map<String, Value> = family
            .iter()
            .map(|(name, memory)| (name.clone(), as_json(memory)))
            .collect();
        parts.insert("all".to_owned(), as_json(&whole));
        parts.insert("stable_ms".to_owned(), json!(took.as_secs_f64() * 1000.0));
        results.insert(what.to_owned(), Value::Object(parts));
    }
    if let Ok(note) = env::var("PODLING_BENCH_NOTE") {
        results.insert("note".to_owned(), json!(note));
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/results/up.json");
    fs::write(file, serde_json::to_string_pretty(&results).unwrap() + "\n").unwrap();
}

fn print(what: &str, name: &str, memory: &Memory) {
    println!(
        "{what:<24}{name:<18}{:>6}{:>10}{:>10}{:>10}",
        memory.processes, memory.rss, memory.pss, memory.private
    );
}
