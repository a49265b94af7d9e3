//! A `podling scheduler` that can be killed at any instant, and what it says over its API.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;

pub struct Scheduler {
    child: Child,
    address: String,
    /// What it says after it listens; to be had when it has ended.
    rest: Option<std::thread::JoinHandle<String>>,
}

/// No answer: it was killed first.
#[derive(Debug)]
pub struct Broken;

impl Scheduler {
    /// Returns as soon as it listens.
    pub fn start(master: SocketAddr, store: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_podling"))
            .args(["scheduler", "--listen", "127.0.0.1:0", "--master"])
            .arg(format!("http://{master}"))
            .arg("--store")
            .arg(store)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        let address = loop {
            let mut line = String::new();
            assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "it ended: {said}");
            if let Some((_, rest)) = line.split_once("pods API at http://") {
                break rest.split(',').next().unwrap().to_owned();
            }
            said += &line;
        };
        // What it may say later must find a reader.
        let rest = std::thread::spawn(move || {
            let mut said = String::new();
            let _ = stderr.read_to_string(&mut said);
            said
        });
        Scheduler {
            child,
            address,
            rest: Some(rest),
        }
    }

    /// Waits for it to end by itself: its exit code, and what it said.
    pub fn ended(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().unwrap();
        let said = self.rest.take().map(|rest| rest.join().unwrap());
        (status.code(), said.unwrap_or_default())
    }

    pub fn address(&self) -> String {
        self.address.clone()
    }

    /// At once, wherever it is.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        call(&self.address, method, path, body).unwrap_or_else(|Broken| panic!("{method} {path}: no answer"))
    }

    pub fn get(&self, path: &str) -> Value {
        let (status, body) = self.call("GET", path, None);
        assert_eq!(status, 200, "{path}: {body}");
        body
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One request on a connection of its own.
pub fn call(address: &str, method: &str, path: &str, body: Option<&Value>) -> Result<(u16, Value), Broken> {
    let body = body.map(Value::to_string).unwrap_or_default();
    let mut socket = TcpStream::connect(address).map_err(|_| Broken)?;
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(request.as_bytes()).map_err(|_| Broken)?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).map_err(|_| Broken)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(Broken)?;
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Ok((status, serde_json::from_str(body).unwrap_or(Value::Null)))
}

/// The command lines of all processes, by an independent look at /proc.
pub fn processes(text: &str) -> usize {
    let lines = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| std::fs::read(entry.ok()?.path().join("cmdline")).ok());
    lines
        .filter(|line| String::from_utf8_lossy(line).contains(text))
        .count()
}

/// Runs of executors so far, as the agents' directories show them: instance by instance, with how often.
pub fn runs(work_dir: &Path) -> Vec<(String, usize)> {
    let below = |path: PathBuf| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(path).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    let mut found = Vec::new();
    for framework in below(work_dir.join("slaves"))
        .into_iter()
        .flat_map(|agent| below(agent.join("frameworks")))
    {
        for executor in below(framework.join("executors")) {
            let count = below(executor.join("runs")).len() - 1; // `latest`
            found.push((
                executor.file_name().unwrap().to_string_lossy().into_owned(),
                count,
            ));
        }
    }
    found
}
