//! A `podling up` of the test's own, and what it leaves behind.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

/// For what happens at once on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn podling() -> Command {
    Command::new(env!("CARGO_BIN_EXE_podling"))
}

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/pods")
        .join(format!("{name}.json"))
}

pub fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// Runs a command to its end.
pub fn output(command: &mut Command) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap_or(-1), text(stdout), text(stderr))
}

/// A running `podling up`.
pub struct Up {
    child: Child,
    pub url: String,
    lines: mpsc::Receiver<String>,
    pub seen: Vec<String>,
}

impl Up {
    pub fn start(arguments: &[&str]) -> Self {
        let mut command = podling();
        command.args(["up", "--listen", "127.0.0.1:0"]).args(arguments);
        Up::of(command)
    }

    /// A `podling up` that somebody has put together.
    pub fn of(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            stdout
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        let mut up = Up {
            child,
            url: String::new(),
            lines,
            seen: Vec::new(),
        };
        let first = up.wait_for("pods API at ");
        up.url = first
            .split([' ', ','])
            .find(|word| word.starts_with("http://"))
            .unwrap()
            .to_owned();
        up
    }

    /// The first line from here on that contains this.
    pub fn wait_for(&mut self, words: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(words) {
                        return line;
                    }
                }
                Err(_) => panic!("never seen: {words}; seen:\n{}", self.seen.join("\n")),
            }
        }
    }

    pub fn pod(&self, arguments: &[&str]) -> (i32, String, String) {
        output(podling().env("PODLING_URL", &self.url).arg("pod").args(arguments))
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        let (code, stdout, stderr) = self.pod(&[arguments, &["-o", "json"]].concat());
        assert_eq!(code, 0, "{stderr}");
        serde_json::from_str(&stdout).unwrap()
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    /// Ctrl-C, and the wait for the end.
    pub fn stop(mut self) -> i32 {
        kill(self.pid(), Signal::SIGINT).unwrap();
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        self.seen.extend(self.lines.try_iter());
        code
    }
}

impl Up {
    /// The end that nothing can be done about.
    pub fn kill(mut self) {
        kill(self.pid(), Signal::SIGKILL).unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // Only if a test failed before its end: a second signal does not wait.
        if matches!(self.child.try_wait(), Ok(None)) {
            for _ in 0..2 {
                let _ = kill(self.pid(), Signal::SIGTERM);
            }
            let _ = self.child.wait();
        }
    }
}

/// Processes whose command line holds this text, by an independent look at /proc.
pub fn processes(text: &str) -> usize {
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| std::fs::read(entry.ok()?.path().join("cmdline")).ok())
        .filter(|line| String::from_utf8_lossy(line).contains(text))
        .count()
}

/// Waits until so many are there: a member runs when its shell does, and what that becomes takes a moment more.
pub fn await_processes(text: &str, count: usize) {
    let deadline = Instant::now() + PATIENCE;
    while processes(text) != count {
        assert!(
            Instant::now() < deadline,
            "{} processes of {text:?}, not {count}",
            processes(text)
        );
        thread::yield_now();
    }
}
