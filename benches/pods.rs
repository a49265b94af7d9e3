//! From POST to STABLE through the whole of `podling up`: REST, scheduler, store, master, agent, executor, member, and
//! back, with real HTTP on every hop.
//!
//! `cargo bench --bench pods`; `PODLING_BENCH_RUNS` changes the number of runs and `PODLING_BENCH_NOTE` is kept with the
//! results. A pod is stable when its deployment has ended, which a client sees by asking: every millisecond for one pod,
//! every five for many. Raw results go to `benches/results/pods.json`.

// A benchmark that cannot go on may end at once.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "common/figures.rs"]
mod figures;

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use self::figures::{Figures, Memory, micros};

const PAUSE: Duration = Duration::from_millis(150);
const MANY: usize = 100;
/// Clients that post at the same time.
const CLIENTS: usize = 8;

fn main() {
    let runs = env::var("PODLING_BENCH_RUNS")
        .ok()
        .and_then(|runs| runs.parse().ok())
        .unwrap_or(40);
    let mut bench = Bench {
        runs,
        up: Up::start(),
        figures: Figures::default(),
    };
    println!("{runs} runs of one pod, {} of {MANY}", bench.runs_of_many());
    bench.one();
    bench.many();
    bench.figures.save("pods.json", bench.runs);
    bench.up.stop();
}

struct Bench {
    runs: usize,
    up: Up,
    figures: Figures,
}

impl Bench {
    fn runs_of_many(&self) -> usize {
        self.runs.div_ceil(8)
    }

    fn one(&mut self) {
        let (mut posted, mut stable, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        let mut client = Client::connect(&self.up.address);
        for run in 0..self.runs {
            thread::sleep(PAUSE);
            let begin = Instant::now();
            let id = format!("/one-{run}");
            client.post(&pod(&id));
            posted.push(micros(begin.elapsed()));
            client.await_idle(Duration::from_millis(1));
            stable.push(micros(begin.elapsed()));
            let begin = Instant::now();
            client.delete(&id);
            client.await_idle(Duration::from_millis(1));
            gone.push(micros(begin.elapsed()));
        }
        self.figures.report("one pod, POST to answer", posted);
        self.figures.report("one pod, POST to STABLE", stable);
        self.figures.report("one pod, DELETE to gone", gone);
        self.memory("no pod");
    }

    fn many(&mut self) {
        let (mut each, mut all, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        for run in 0..self.runs_of_many() {
            thread::sleep(PAUSE);
            let begin = Instant::now();
            let ids: Vec<String> = (0..MANY).map(|number| format!("/many-{run}-{number}")).collect();
            let posted: Arc<Mutex<BTreeMap<String, Instant>>> = Arc::default();
            let posters: Vec<_> = ids
                .chunks(MANY.div_ceil(CLIENTS))
                .map(|ids| {
                    let (ids, posted) = (ids.to_vec(), posted.clone());
                    let mut client = Client::connect(&self.up.address);
                    thread::spawn(move || {
                        for id in ids {
                            posted.lock().unwrap().insert(id.clone(), Instant::now());
                            client.post(&pod(&id));
                        }
                    })
                })
                .collect();
            posters.into_iter().for_each(|poster| poster.join().unwrap());
            let mut client = Client::connect(&self.up.address);
            let mut left = posted.lock().unwrap().clone();
            while !left.is_empty() {
                let deploying = client.deploying();
                left.retain(|id, posted| {
                    let over = !deploying.contains(id);
                    if over {
                        each.push(micros(posted.elapsed()));
                    }
                    !over
                });
                thread::sleep(Duration::from_millis(5));
            }
            all.push(micros(begin.elapsed()));
            if run + 1 == self.runs_of_many() {
                self.memory("100 pods");
            }
            let begin = Instant::now();
            ids.iter().for_each(|id| client.delete(id));
            client.await_idle(Duration::from_millis(5));
            gone.push(micros(begin.elapsed()));
        }
        self.figures.report("100 pods, POST to STABLE of each", each);
        self.figures.report("100 pods, first POST to last STABLE", all);
        self.figures.report("100 pods, first DELETE to last gone", gone);
    }

    /// What `podling up` itself takes; executors have a benchmark of their own.
    fn memory(&mut self, when: &str) {
        let memory = Memory::of(self.up.child.id());
        println!("podling up with {when}: {memory}");
        self.figures
            .keep(format!("memory of podling up with {when}, kB"), memory.json());
    }
}

fn pod(id: &str) -> Value {
    json!({"id": id, "containers": [{"name": "c", "resources": {"cpus": 0.1, "mem": 16},
        "exec": {"command": {"shell": "exec sleep 1000"}}}]})
}

/// A running `podling up` with room for all.
struct Up {
    child: Child,
    address: String,
}

impl Up {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_podling"))
            .args(["up", "--listen", "127.0.0.1:0", "--agents", "8"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines
            .by_ref()
            .find_map(|line| {
                let line = line.unwrap();
                let rest = line.split_once("http://")?.1;
                Some(rest.split([' ', ',']).next()?.to_owned())
            })
            .unwrap();
        // It must not wait for us to read.
        thread::spawn(move || lines.for_each(drop));
        Up { child, address }
    }

    fn stop(&mut self) {
        kill(
            Pid::from_raw(i32::try_from(self.child.id()).unwrap()),
            Signal::SIGINT,
        )
        .unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

/// One connection that is kept.
struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(address: &str) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        Client(BufReader::new(socket))
    }

    fn call(&mut self, method: &str, path: &str, body: &str) -> (u16, Vec<u8>) {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: podling\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
        let (mut status, mut length) = (0, 0);
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            let line = line.trim_end();
            if line.is_empty() {
                break;
            } else if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
                status = rest.split(' ').next().unwrap().parse().unwrap();
            } else if let Some(rest) = line.strip_prefix("content-length: ") {
                length = rest.parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        (status, body)
    }

    fn post(&mut self, pod: &Value) {
        let (status, body) = self.call("POST", "/v2/pods", &pod.to_string());
        assert_eq!(status, 201, "{}", String::from_utf8_lossy(&body));
    }

    fn delete(&mut self, id: &str) {
        let (status, body) = self.call("DELETE", &format!("/v2/pods{id}"), "");
        assert_eq!(status, 202, "{}", String::from_utf8_lossy(&body));
    }

    /// The pods that deployments are under way for.
    fn deploying(&mut self) -> Vec<String> {
        let (status, body) = self.call("GET", "/v2/deployments", "");
        assert_eq!(status, 200);
        let list: Vec<Value> = serde_json::from_slice(&body).unwrap();
        list.iter()
            .map(|one| one["affectedPods"][0].as_str().unwrap().to_owned())
            .collect()
    }

    fn await_idle(&mut self, pace: Duration) {
        while !self.deploying().is_empty() {
            thread::sleep(pace);
        }
    }
}
