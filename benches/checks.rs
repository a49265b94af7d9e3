//! Checks in numbers: ten thousand a second over HTTP in one executor, checks by command, and what ten of them take in
//! memory; beside it, what a `curl` for each costs.
//!
//! `cargo bench --bench checks`; `PODLING_EXECUTOR` measures another binary, such as the static one that is shipped, and
//! `PODLING_BENCH_NOTE` is kept with the results. The servers are threads of this process, so that the executor's
//! processor time is its own. How late a look is: the time between two arrivals at the server, less the interval. Raw
//! results go to `benches/results/checks.json`.

// A benchmark that cannot go on may end at once.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "common/figures.rs"]
mod figures;

use std::{
    env, fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use podling::{
    loopback::agent::{Agent, default_executor},
    mesos::v1::{
        CommandInfo, HealthCheck, Resource, TaskGroupInfo, TaskId, TaskInfo, TaskState, health_check,
        value::{self, Scalar},
    },
};
use serde_json::json;

use self::figures::{Figures, Memory, micros};

const MEMBERS: usize = 100;
/// For each member; together they come to ten thousand a second.
const CHECKS: usize = 10;
const INTERVAL: Duration = Duration::from_millis(98);
const WARM_UP: Duration = Duration::from_secs(3);
const MEASURED: Duration = Duration::from_secs(10);

fn main() {
    let executor =
        env::var("PODLING_EXECUTOR").unwrap_or_else(|_| env!("CARGO_BIN_EXE_podling-executor").to_owned());
    println!("{executor}");
    let mut bench = Bench {
        executor,
        figures: Figures::default(),
    };
    bench.http();
    bench.commands();
    bench.curl();
    bench.memory();
    bench.figures.save("checks.json", 1);
}

struct Bench {
    executor: String,
    figures: Figures,
}

/// When each check of a member has come, by its number.
type Arrivals = Arc<Mutex<Vec<Vec<Instant>>>>;

struct Server {
    port: u16,
    arrivals: Arrivals,
}

impl Server {
    fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let arrivals: Arrivals = Arc::new(Mutex::new(vec![Vec::new(); CHECKS]));
        let noted = arrivals.clone();
        thread::spawn(move || {
            let mut request = [0; 1024];
            for mut stream in listener.incoming().flatten() {
                let now = Instant::now();
                let Ok(length) = stream.read(&mut request) else {
                    continue;
                };
                // `GET /7 HTTP/1.1`
                if let Some(digit) = request[..length].get(5) {
                    noted.lock().unwrap()[usize::from(digit - b'0') % CHECKS].push(now);
                }
                let _ =
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            }
        });
        Server { port, arrivals }
    }
}

impl Bench {
    fn start(&self, tasks: Vec<TaskInfo>, data: Option<String>) -> Agent {
        let mut info = default_executor();
        info.data = data.map(Bytes::from);
        let names: Vec<String> = tasks.iter().map(|task| task.name.clone()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let agent = Agent::builder()
            .executor_argv([self.executor.as_str()])
            .env("PODLING_LOG", "error")
            .patience(Duration::from_secs(60))
            .executor_info(info)
            .task_group(TaskGroupInfo { tasks })
            .start()
            .unwrap();
        agent.wait_told(&names, TaskState::TaskRunning).unwrap();
        agent
    }

    fn http(&mut self) {
        let servers: Vec<Server> = (0..MEMBERS).map(|_| Server::start()).collect();
        let mut checks = serde_json::Map::new();
        for (number, server) in servers.iter().enumerate() {
            let check = |check: usize| {
                json!({"kind": "health", "http": {"port": server.port, "path": format!("/{check}")},
                    "intervalSeconds": INTERVAL.as_secs_f64(), "timeoutSeconds": 1})
            };
            checks.insert(format!("m{number}"), (0..CHECKS).map(check).collect());
        }
        let data = json!({"podling": 1, "checks": checks}).to_string();
        let tasks = (0..MEMBERS)
            .map(|number| task(&format!("m{number}"), None))
            .collect();
        let agent = self.start(tasks, Some(data));
        let pid = agent.facts().pid;
        thread::sleep(WARM_UP);
        let (begin, cpu) = (Instant::now(), cpu(pid));
        thread::sleep(MEASURED);
        let (took, cpu) = (begin.elapsed(), self::cpu(pid) - cpu);
        let memory = Memory::of(pid);
        let mut late = Vec::new();
        let mut count = 0;
        for server in &servers {
            for arrivals in server.arrivals.lock().unwrap().iter() {
                let measured: Vec<Instant> = arrivals
                    .iter()
                    .copied()
                    .filter(|at| *at >= begin && *at < begin + took)
                    .collect();
                count += measured.len();
                late.extend(
                    measured
                        .windows(2)
                        .map(|pair| micros((pair[1] - pair[0]).saturating_sub(INTERVAL))),
                );
            }
        }
        let rate = count as f64 / took.as_secs_f64();
        let share = cpu.as_secs_f64() / took.as_secs_f64();
        println!("HTTP: {rate:.0} checks/s over {MEMBERS} members, {share:.2} of a core, {memory}");
        println!("sockets: {}", sockets());
        self.figures.keep("http checks/s", json!(rate.round()));
        self.figures
            .keep("http, share of a core", json!((share * 1000.0).round() / 1000.0));
        self.figures
            .keep("http, sockets of the machine", json!(sockets()));
        self.figures.keep("http, memory, kB", memory.json());
        self.figures.report("HTTP: lateness", late);
        let unhealthy = agent
            .history()
            .updates("m0")
            .iter()
            .any(|status| status.healthy == Some(false));
        assert!(!unhealthy, "a false failure");
        let _ = agent.abandon();
    }

    /// As many as there can be, one after the other in each of ten members.
    fn commands(&mut self) {
        let check = HealthCheck {
            r#type: Some(health_check::Type::Command.into()),
            command: Some(CommandInfo {
                shell: Some(false),
                value: Some("/bin/true".into()),
                ..Default::default()
            }),
            ..quick()
        };
        let before = forks();
        let tasks = (0..10)
            .map(|number| task(&format!("m{number}"), Some(check.clone())))
            .collect();
        let agent = self.start(tasks, None);
        let pid = agent.facts().pid;
        thread::sleep(WARM_UP);
        let (begin, cpu, first) = (Instant::now(), cpu(pid), forks());
        thread::sleep(MEASURED);
        let (took, cpu) = (begin.elapsed(), self::cpu(pid) - cpu);
        // Two processes each: the command and what waits for it.
        let rate = (forks() - first) as f64 / 2.0 / took.as_secs_f64();
        let each = cpu.as_secs_f64() / (rate * took.as_secs_f64());
        println!(
            "commands: {rate:.0} checks/s, {:.2} ms of the executor's processor time each",
            each * 1e3
        );
        self.figures.keep("command checks/s", json!(rate.round()));
        self.figures.keep(
            "command, executor's processor time each, us",
            json!((each * 1e6).round()),
        );
        assert!(before < first);
        let _ = agent.abandon();
    }

    /// What Mesos does for each HTTP check.
    fn curl(&mut self) {
        let server = Server::start();
        let address = format!("http://127.0.0.1:{}/0", server.port);
        let mut took = Vec::new();
        let before = children_cpu();
        const RUNS: u32 = 100;
        for _ in 0..RUNS {
            let begin = Instant::now();
            let status = Command::new("curl")
                .args([
                    "-s",
                    "-S",
                    "-L",
                    "-k",
                    "-w",
                    "%{http_code}",
                    "-o",
                    "/dev/null",
                    "-g",
                    &address,
                ])
                .stdout(Stdio::null())
                .status();
            let Ok(status) = status else {
                return println!("no curl here");
            };
            assert!(status.success());
            took.push(micros(begin.elapsed()));
        }
        let each = (children_cpu() - before) / RUNS;
        println!("curl: {:.2} ms of processor time each", each.as_secs_f64() * 1e3);
        self.figures
            .keep("curl, processor time each, us", json!(micros(each)));
        self.figures.report("curl: each", took);
    }

    fn memory(&mut self) {
        let servers: Vec<Server> = (0..10).map(|_| Server::start()).collect();
        let check = |server: &Server| HealthCheck {
            r#type: Some(health_check::Type::Http.into()),
            http: Some(health_check::HttpCheckInfo {
                port: server.port.into(),
                path: Some("/0".into()),
                ..Default::default()
            }),
            interval_seconds: Some(1.0),
            ..quick()
        };
        let tasks = servers.iter().enumerate();
        let tasks = tasks
            .map(|(number, server)| task(&format!("m{number}"), Some(check(server))))
            .collect();
        let agent = self.start(tasks, None);
        thread::sleep(Duration::from_secs(8));
        let memory = Memory::of(agent.facts().pid);
        println!("10 members with a check a second each: {memory}");
        self.figures.keep("10 members, 10 checks, kB", memory.json());
        let _ = agent.abandon();
    }
}

fn quick() -> HealthCheck {
    HealthCheck {
        delay_seconds: Some(0.0),
        interval_seconds: Some(0.0),
        timeout_seconds: Some(10.0),
        ..Default::default()
    }
}

fn task(name: &str, health_check: Option<HealthCheck>) -> TaskInfo {
    let scalar = |name: &str, value: f64| Resource {
        name: name.to_owned(),
        r#type: value::Type::Scalar.into(),
        scalar: Some(Scalar { value }),
        ..Default::default()
    };
    TaskInfo {
        name: name.to_owned(),
        task_id: TaskId {
            value: name.to_owned(),
        },
        resources: vec![scalar("cpus", 0.1), scalar("mem", 32.0)],
        command: Some(CommandInfo {
            shell: Some(false),
            value: Some("sleep".into()),
            arguments: vec!["sleep".into(), "1000".into()],
            ..Default::default()
        }),
        health_check,
        ..Default::default()
    }
}

fn ticks(fields: &[&str], which: &[usize]) -> Duration {
    let ticks: u64 = which.iter().map(|at| fields[*at].parse::<u64>().unwrap()).sum();
    // A hundred a second, as everywhere on Linux.
    Duration::from_millis(ticks * 10)
}

/// Processor time of a process, without its children.
fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    ticks(&fields, &[11, 12])
}

fn children_cpu() -> Duration {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN).unwrap();
    let of = |time: nix::sys::time::TimeVal| {
        Duration::new(
            u64::try_from(time.tv_sec()).unwrap(),
            u32::try_from(time.tv_usec()).unwrap() * 1000,
        )
    };
    of(usage.user_time()) + of(usage.system_time())
}

/// Processes made since the machine was started.
fn forks() -> u64 {
    let stat = fs::read_to_string("/proc/stat").unwrap();
    let line = stat
        .lines()
        .find_map(|line| line.strip_prefix("processes "))
        .unwrap();
    line.trim().parse().unwrap()
}

/// `TCP: inuse 4 orphan 0 tw 0 …`
fn sockets() -> String {
    let stat = fs::read_to_string("/proc/net/sockstat").unwrap();
    stat.lines()
        .find(|line| line.starts_with("TCP:"))
        .unwrap()
        .to_owned()
}
