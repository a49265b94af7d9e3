//! However `podling up` is ended, the machine is as it was before.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::node::{Node, USER, on_a_node, owner};

/// Far longer than any end takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A pod on the host's network, of members of several kinds: one forks, one does not want to go, one shares a volume.
const HOSTED: &str = r#"{"id": "/hosted", "scaling": {"kind": "fixed", "instances": 2}, "volumes": [{"name": "v"}], "containers": [
    {"name": "forks", "resources": {"cpus": 0.1, "mem": 32}, "volumeMounts": [{"name": "v", "mountPath": "v"}],
     "exec": {"command": {"shell": "sleep 1000 & sleep 1000 & echo > v/file; wait"}}},
    {"name": "stubborn", "resources": {"cpus": 0.1, "mem": 32}, "lifecycle": {"killGracePeriodSeconds": 0.2},
     "exec": {"command": {"shell": "trap '' TERM; while :; do sleep 0.1; done"}}},
    {"name": "brief", "resources": {"cpus": 0.1, "mem": 32}, "exec": {"command": {"shell": "mkdir -m 0 shut; echo done"}}}]}"#;

/// A pod with a network and a published port.
const NETWORKED: &str = r#"{"id": "/networked", "networks": [{"mode": "container/bridge"}], "containers": [
    {"name": "web", "resources": {"cpus": 0.1, "mem": 32}, "exec": {"command": {"shell": "sleep 1000"}},
     "endpoints": [{"name": "e", "containerPort": 80, "hostPort": 0, "protocol": ["tcp"]}]}]}"#;

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

fn files(node: &Node, ordinary: bool) -> Vec<String> {
    let mut files = vec![node.file("hosted.json", HOSTED)];
    if !ordinary {
        files.push(node.file("networked.json", NETWORKED));
    }
    files
}

/// Starts `up` and gives its child and whatever it prints, line by line.
fn start(node: &Node, ordinary: bool, arguments: &[&str]) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = node
        .up(ordinary, arguments)
        .stdout(Stdio::piped())
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    (child, stdout)
}

fn wait(mut child: Child, what: &str) -> Option<i32> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("{what}: does not end");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Not random enough for anybody but us; replays from its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

/// `PODLING_TEST_SEED` replays; `PODLING_TEST_INSTANTS` is for the long form.
fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn ctrl_c_at_any_instant(ordinary: bool) {
    on_a_node(move |node| {
        let seed =
            number("PODLING_TEST_SEED").unwrap_or_else(|| u64::from(std::process::id()) << 16 | 0x5eed);
        let instants = number("PODLING_TEST_INSTANTS").unwrap_or(6);
        println!("seed {seed}, {instants} instants");
        let mut dice = Dice(seed.max(1));
        let files = files(node, ordinary);
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        let before = node.look();
        for nth in 0..instants {
            // A start takes some 300 ms here; after that it runs.
            let instant = Duration::from_micros(dice.roll(900_000));
            let signals = 1 + usize::from(dice.roll(4) == 0);
            let what = format!("seed {seed}, instant {nth}: {signals} × Ctrl-C after {instant:?}");
            let (child, mut stdout) = start(node, ordinary, &files);
            let reader = thread::spawn(move || {
                let mut text = String::new();
                let _ = stdout.read_to_string(&mut text);
                text
            });
            thread::sleep(instant);
            for _ in 0..signals {
                kill(pid(&child), Signal::SIGINT).unwrap();
                thread::sleep(Duration::from_micros(dice.roll(20_000)));
            }
            wait(child, &what);
            reader.join().unwrap();
            node.nothing_left(&before, &what);
        }
    });
}

#[test]
fn ctrl_c_at_any_instant_leaves_nothing() {
    ctrl_c_at_any_instant(false);
}

#[test]
fn ctrl_c_at_any_instant_leaves_nothing_of_an_ordinary_user() {
    ctrl_c_at_any_instant(true);
}

/// Up to the point where everything runs.
fn everything_runs(node: &Node, ordinary: bool) -> (Child, BufReader<std::process::ChildStdout>) {
    let files = files(node, ordinary);
    let arguments: Vec<&str> = files.iter().map(String::as_str).collect();
    let (child, mut stdout) = start(node, ordinary, &arguments);
    let mut good = 0;
    let mut line = String::new();
    while good < files.len() {
        line.clear();
        assert!(stdout.read_line(&mut line).unwrap() > 0, "ended too early");
        good += usize::from(line.contains("is as it should be"));
    }
    (child, stdout)
}

#[test]
fn every_way_out_is_clean_and_says_how_it_ended() {
    on_a_node(|node| {
        let before = node.look();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            let (child, mut stdout) = everything_runs(node, false);
            let runs = node.look();
            for trace in [
                "link podling0",
                "rule table inet podling",
                "process sleep 1000",
                "cgroup ",
            ] {
                assert!(
                    runs.iter().any(|seen| seen.starts_with(trace)),
                    "the witness is blind for {trace}: {runs:#?}"
                );
            }
            kill(pid(&child), signal).unwrap();
            let mut rest = String::new();
            stdout.read_to_string(&mut rest).unwrap();
            assert!(rest.contains("ending"), "{rest}");
            assert_eq!(wait(child, signal.as_str()), Some(0), "{signal}");
            node.nothing_left(&before, signal.as_str());
        }
    });
}

/// Nobody can clean up then; but no member outlives it for long, and the next one takes back what is left.
#[test]
fn kill_9_ends_the_members_too_and_the_next_up_cleans_up() {
    on_a_node(|node| {
        let before = node.look();
        let (mut child, stdout) = everything_runs(node, false);
        child.kill().unwrap();
        child.wait().unwrap();
        drop(stdout);
        let deadline = Instant::now() + PATIENCE;
        while node.look().iter().any(|seen| seen.starts_with("process ")) {
            assert!(Instant::now() < deadline, "members live on");
            thread::sleep(Duration::from_millis(50));
        }
        crate::node::sh(&format!(
            "rm -r {}/podling-*",
            node.tmp.path().join("tmp").display()
        ));
        let hello = node.file("hello.json", include_str!("../../examples/hello.json"));
        assert!(
            node.up(false, &["--once", &hello])
                .output()
                .unwrap()
                .status
                .success()
        );
        node.nothing_left(&before, "kill -9");
    });
}

#[test]
fn a_second_ctrl_c_does_not_wait_for_anybody() {
    on_a_node(|node| {
        let before = node.look();
        let slow = HOSTED.replace("0.2", "600");
        let file = node.file("slow.json", &slow);
        let (child, mut stdout) = start(node, false, &[&file]);
        let mut line = String::new();
        while !line.contains("is as it should be") {
            line.clear();
            assert!(stdout.read_line(&mut line).unwrap() > 0);
        }
        kill(pid(&child), Signal::SIGINT).unwrap();
        while !line.contains("ending") {
            line.clear();
            assert!(stdout.read_line(&mut line).unwrap() > 0);
        }
        let begin = Instant::now();
        kill(pid(&child), Signal::SIGINT).unwrap();
        assert_eq!(wait(child, "hurried"), Some(0));
        assert!(
            begin.elapsed() < Duration::from_secs(4),
            "it waited for the agent's grace period"
        );
        node.nothing_left(&before, "hurried");
    });
}

#[test]
fn a_reader_that_goes_away_ends_it() {
    on_a_node(|node| {
        let before = node.look();
        let (child, stdout) = everything_runs(node, false);
        // Nobody writes a word from now on; that the pipe is closed is noticed all the same.
        drop(stdout);
        assert_eq!(wait(child, "closed"), Some(0));
        node.nothing_left(&before, "closed");

        // `podling up … 2>&1 | head -1`: there is nobody to complain to either.
        let file = node.file("hosted.json", HOSTED);
        let (reader, writer) = std::io::pipe().unwrap();
        let mut command = node.up(false, &[&file]);
        let child = command
            .stderr(writer.try_clone().unwrap())
            .stdout(writer)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        drop(command);
        let mut line = String::new();
        BufReader::new(reader).read_line(&mut line).unwrap();
        assert!(line.starts_with("pods API at"), "{line}");
        assert_eq!(wait(child, "head -1"), Some(0));
        node.nothing_left(&before, "head -1");
    });
}

#[test]
fn once_that_is_broken_off_has_not_finished() {
    on_a_node(|node| {
        let file = node.file("hosted.json", HOSTED);
        let (child, mut stdout) = start(node, false, &["--once", &file]);
        let mut line = String::new();
        while !line.contains("RUNNING") {
            line.clear();
            assert!(stdout.read_line(&mut line).unwrap() > 0);
        }
        kill(pid(&child), Signal::SIGINT).unwrap();
        assert_eq!(wait(child, "broken off"), Some(1));
    });
}

#[test]
fn a_terminal_that_is_hung_up_does_not_end_what_nohup_started() {
    on_a_node(|node| {
        let file = node.file("hosted.json", HOSTED);
        let command = node.up(false, &[&file]);
        let mut nohup = std::process::Command::new("nohup");
        // In place of `env`, which has hang-ups heard.
        nohup.args(command.get_args().skip(1)).env_clear();
        for (name, value) in command.get_envs() {
            nohup.env(name, value.unwrap());
        }
        let mut child = nohup.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("goes to") {
            line.clear();
            assert!(stdout.read_line(&mut line).unwrap() > 0);
        }
        kill(pid(&child), Signal::SIGHUP).unwrap();
        while !line.contains("is as it should be") {
            line.clear();
            assert!(stdout.read_line(&mut line).unwrap() > 0, "it ended");
        }
        kill(pid(&child), Signal::SIGTERM).unwrap();
        assert_eq!(wait(child, "nohup"), Some(0));
    });
}

#[test]
fn an_ordinary_user_runs_the_example_and_is_told_what_it_lacks() {
    on_a_node(|node| {
        let before = node.look();
        let hello = node.file("hello.json", include_str!("../../examples/hello.json"));
        let output = node.up(true, &["--once", &hello]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(text.contains("I heard 3 greetings"), "{text}");
        let lacks: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("not root: "))
            .collect();
        assert_eq!(lacks.len(), 1, "{text}");
        assert_eq!(owner(&node.home), USER);
        node.nothing_left(&before, "ordinary user");

        // What it cannot have is refused before anything starts.
        let file = node.file("networked.json", NETWORKED);
        let output = node.up(true, &["--once", &file]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains("networks: container networks need root"), "{text}");
    });
}
