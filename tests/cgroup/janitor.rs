//! What a killed executor leaves is removed by the next sweep, and nothing else (N3).

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use podling::container::{
    cgroup::{Policy, group_limits},
    janitor::{Leftover, Register, Report, sweep},
};

use crate::support::{World, layout, request, shell, unique};

/// Plays an executor in a process of its own: this test binary, asked for this test by name.
#[test]
#[ignore = "the victim of the other tests here"]
fn victim() {
    let Ok(run) = std::env::var("VICTIM_RUN_DIR") else {
        return;
    };
    let run = PathBuf::from(run);
    let name = std::env::var("VICTIM_NAME").unwrap();
    let policy = Policy::default();
    let say = |line: &str| {
        println!("\nvictim {line}");
        std::io::stdout().flush().unwrap();
    };
    say("starts");
    let claim = Register::open(&run).unwrap().claim(&name).unwrap();
    let upper = run.join(format!("upper-{name}"));
    claim
        .note(Leftover::Directory {
            path: upper.clone(),
            identity: None,
        })
        .unwrap();
    fs::create_dir(&upper).unwrap();
    claim.note(Leftover::directory(&upper).unwrap()).unwrap();
    fs::write(upper.join("written"), "x").unwrap();
    let layout = layout();
    let group = claim
        .group(&layout, &name, &group_limits(&[request()], &policy))
        .unwrap();
    let members: Vec<_> = (0..3)
        .map(|at| {
            group
                .member(&format!("m{at}"), &request().limits(&policy))
                .unwrap()
        })
        .collect();
    let children: Vec<Child> = members
        .iter()
        .map(|member| {
            shell(
                member,
                "setsid sleep 600 & trap '' TERM; while :; do sleep 60; done",
            )
        })
        .collect();
    say("ready");
    std::thread::sleep(Duration::from_secs(60));
    drop(children);
}

struct Executor {
    run: PathBuf,
    name: String,
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Executor {
    fn start(run: &Path, name: &str) -> Executor {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "janitor::victim", "--ignored", "--nocapture"])
            .env("VICTIM_RUN_DIR", run)
            .env("VICTIM_NAME", name)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Executor {
            run: run.into(),
            name: name.into(),
            child,
            lines,
        }
    }

    fn wait_for(&mut self, what: &str) {
        let mut line = String::new();
        while line != format!("victim {what}\n") {
            line.clear();
            assert!(
                self.lines.read_line(&mut line).unwrap() > 0,
                "the victim ended before it was {what}"
            );
        }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Directories, cgroups and entries that are still there.
    fn left(&self) -> Vec<PathBuf> {
        let mut left = World::left(&layout(), &self.name);
        let upper = self.run.join(format!("upper-{}", self.name));
        left.extend(upper.exists().then_some(upper));
        let entries = fs::read_dir(self.run.join("executors")).unwrap();
        left.extend(entries.map(|entry| entry.unwrap().path()));
        left
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = sweep(&self.run);
    }
}

fn clean(report: &Report) {
    assert!(
        report.failed.is_empty() && report.foreign.is_empty(),
        "{report:?}"
    );
}

#[test]
fn n_03_cgroups_processes_and_directories_of_a_killed_executor_go() {
    let run = tempfile::tempdir().unwrap();
    let mut dead = Executor::start(run.path(), &unique("dead"));
    let mut alive = Executor::start(run.path(), &unique("alive"));
    dead.wait_for("ready");
    alive.wait_for("ready");
    dead.kill();
    assert!(dead.left().len() >= 2);
    let report = sweep(run.path()).unwrap();
    clean(&report);
    assert_eq!((report.alive, report.cleaned.len()), (1, 1), "{report:?}");
    assert_eq!(World::left(&layout(), &dead.name), Vec::<PathBuf>::new());
    assert!(
        !World::left(&layout(), &alive.name).is_empty(),
        "the living one keeps its own"
    );
    alive.kill();
    clean(&sweep(run.path()).unwrap());
    assert_eq!(alive.left(), Vec::<PathBuf>::new());
}

#[test]
fn n_03_an_executor_killed_at_any_instant_leaves_nothing() {
    let run = tempfile::tempdir().unwrap();
    for round in 0..40u64 {
        let mut executor = Executor::start(run.path(), &unique("instant"));
        executor.wait_for("starts");
        // From "has done nothing yet" to "is done": about 10 ms apart.
        std::thread::sleep(Duration::from_micros(round * 400));
        executor.kill();
        // A child it was just starting holds the lock until its exec, a moment longer than the executor lived.
        let start = Instant::now();
        loop {
            let report = sweep(run.path()).unwrap();
            clean(&report);
            if report.alive == 0 {
                break;
            }
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "round {round}: still locked"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(executor.left(), Vec::<PathBuf>::new(), "round {round}");
    }
}

#[test]
fn n_03_foreign_cgroups_with_names_like_ours_are_not_touched() {
    let run = tempfile::tempdir().unwrap();
    let mut executor = Executor::start(run.path(), &unique("planted"));
    executor.wait_for("ready");
    // A group of somebody who keeps another register, or none.
    let stranger = World::new("stranger");
    let member = stranger.member(&request());
    let mut inside = shell(&member, "sleep 600");
    executor.kill();
    // After the executor's death its cgroups are removed by the agent, say, and others made under their name.
    let paths: Vec<PathBuf> = World::left(&layout(), &executor.name);
    let entry = fs::read_dir(run.path().join("executors"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let copy = fs::read(entry.path()).unwrap();
    clean(&sweep(run.path()).unwrap());
    for path in &paths {
        fs::create_dir(path).unwrap();
    }
    fs::write(entry.path(), copy).unwrap();
    let report = sweep(run.path()).unwrap();
    assert_eq!(report.foreign.len(), paths.len(), "{report:?}");
    assert_eq!(report.removed, Vec::<PathBuf>::new());
    for path in &paths {
        assert!(path.exists());
        fs::remove_dir(path).unwrap();
    }
    assert!(member.populated().unwrap(), "the stranger's processes live");
    assert_eq!(inside.try_wait().unwrap(), None);
    member.kill().unwrap();
    inside.wait().unwrap();
}

#[test]
fn n_03_node_gc_tells_what_it_did() {
    let run = tempfile::tempdir().unwrap();
    let mut executor = Executor::start(run.path(), &unique("gc"));
    executor.wait_for("ready");
    executor.kill();
    let gc = || {
        let output = Command::new(env!("CARGO_BIN_EXE_podling"))
            .args(["node", "gc", "-o", "json", "--run-dir"])
            .arg(run.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let told = gc();
    assert_eq!(told["cleaned"].as_array().unwrap().len(), 1, "{told}");
    assert!(told["removed"].as_array().unwrap().len() >= 2, "{told}");
    assert_eq!(told["networks"], 0);
    assert_eq!(executor.left(), Vec::<PathBuf>::new());
    assert_eq!(gc()["cleaned"].as_array().unwrap().len(), 0);
}
