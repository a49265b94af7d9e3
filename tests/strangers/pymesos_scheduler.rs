//! pymesos' MesosSchedulerDriver under the loopback master: JSON both ways, `Connection: close` on the request that opens
//! the stream, `Connection: keep-alive` for the calls.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use podling::loopback::{
    agent::CommandLine,
    master::{Access, Cluster, Options},
};
use serde_json::{Value, json};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn cluster(work_dir: &Path, default_executor: &str) -> Cluster {
    Cluster::start(Options {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        agents: 1,
        resources: "cpus:4;mem:1024;disk:1024;ports:[31000-31100]".to_owned(),
        default_executor: CommandLine::typed(default_executor),
        work_dir: work_dir.to_owned(),
        executor_environment: Vec::new(),
        access: Access::default(),
    })
    .unwrap()
}

struct Stranger {
    child: Child,
    stdin: ChildStdin,
    lines: mpsc::Receiver<Value>,
    seen: Vec<Value>,
}

impl Stranger {
    fn start(master: SocketAddr) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/strangers/pymesos_scheduler.py");
        let mut child = Command::new(crate::python())
            .arg(script)
            .arg(master.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            stdout
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(serde_json::from_str(&line).unwrap()))
        });
        let stdin = child.stdin.take().unwrap();
        Stranger {
            child,
            stdin,
            lines,
            seen: Vec::new(),
        }
    }

    fn tell(&mut self, words: &[&str]) {
        writeln!(self.stdin, "{}", words.join("\t")).unwrap();
    }

    /// The next thing of this kind that it was told, and of which this is true.
    fn hears(&mut self, kind: &str, of: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(event) = self.lines.recv_timeout(left) else {
                panic!("never heard: {kind}; heard:\n{:#?}", self.seen);
            };
            self.seen.push(event.clone());
            assert_ne!(event["event"], "error", "{event}");
            if event["event"] == kind && of(&event) {
                return event;
            }
        }
    }

    fn hears_update(&mut self, task: &str, state: &str) -> Value {
        self.hears("update", |event| event["task"] == task && event["state"] == state)
    }

    /// The same for several tasks, in whatever order.
    fn hears_updates(&mut self, tasks: &[&str], state: &str) -> Vec<Value> {
        let mut left: BTreeSet<&str> = tasks.iter().copied().collect();
        let mut found = Vec::new();
        while !left.is_empty() {
            let of = |event: &Value| {
                event["state"] == state && left.contains(event["task"].as_str().unwrap_or_default())
            };
            let update = self.hears("update", of);
            left.remove(update["task"].as_str().unwrap());
            found.push(update);
        }
        found
    }

    fn stop(mut self) {
        self.tell(&["stop"]);
        self.hears("stopped", |_| true);
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn scalars(cpus: f64, mem: f64) -> Value {
    let scalar = |name: &str, value: f64| json!({"name": name, "type": "SCALAR", "scalar": {"value": value}});
    json!([scalar("cpus", cpus), scalar("mem", mem), scalar("disk", 1.0)])
}

fn executor(id: &str) -> String {
    json!({"type": "DEFAULT", "executor_id": {"value": id}, "resources": scalars(0.1, 32.0)}).to_string()
}

fn tasks(ids: &[&str], command: &str) -> String {
    let task = |id: &&str| {
        json!({"name": id, "task_id": {"value": id}, "resources": scalars(0.1, 32.0),
            "command": {"shell": true, "value": command}})
    };
    Value::from_iter(ids.iter().map(task)).to_string()
}

#[test]
fn it_runs_kills_and_reconciles_a_group_of_our_executor() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = cluster(directory.path(), env!("CARGO_BIN_EXE_podling-executor"));
    let mut stranger = Stranger::start(cluster.address());
    let registered = stranger.hears("registered", |_| true);
    assert_eq!(registered["version"], "1.11.0");
    stranger.hears("offers", |_| true);
    stranger.tell(&["decline"]);
    stranger.hears("offers", |_| true);

    stranger.tell(&["launch", &executor("e"), &tasks(&["a", "b"], "exec sleep 1000")]);
    for update in stranger.hears_updates(&["a", "b"], "TASK_RUNNING") {
        assert_eq!(update["acknowledged"], true);
    }
    stranger.tell(&["reconcile"]);
    for update in stranger.hears_updates(&["a", "b"], "TASK_RUNNING") {
        assert_eq!(
            (&update["reason"], &update["acknowledged"]),
            (&json!("REASON_RECONCILIATION"), &json!(false))
        );
    }
    stranger.tell(&["reconcile", "never"]);
    stranger.hears_update("never", "TASK_UNKNOWN");

    // What runs is the same after the connection was lost.
    stranger.tell(&["drop"]);
    stranger.hears("reregistered", |_| true);
    stranger.tell(&["reconcile", "a"]);
    stranger.hears_update("a", "TASK_RUNNING");

    stranger.tell(&["kill", "a"]);
    stranger.hears_updates(&["a", "b"], "TASK_KILLED");
    let lost = stranger.hears("executor lost", |_| true);
    assert_eq!((&lost["executor"], &lost["status"]), (&json!("e"), &json!(0)));

    // The same id once more, for the executor has gone.
    stranger.tell(&["launch", &executor("e"), &tasks(&["c"], "exit 0")]);
    stranger.hears_update("c", "TASK_FINISHED");
    stranger.stop();
}

#[test]
fn it_runs_a_command_and_is_told_what_is_wrong_with_another() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = cluster(directory.path(), env!("CARGO_BIN_EXE_podling-executor"));
    let mut stranger = Stranger::start(cluster.address());
    stranger.hears("offers", |_| true);
    stranger.tell(&["launch-command", &tasks(&["a"], "exit 3")]);
    stranger.hears_update("a", "TASK_FAILED");
    stranger.tell(&["launch", &executor(".."), &tasks(&["b"], "true")]);
    let update = stranger.hears_update("b", "TASK_ERROR");
    assert_eq!(update["reason"], "REASON_TASK_GROUP_INVALID");
    stranger.stop();
}

/// Both ends are pymesos, all between them is ours.
#[test]
fn its_executor_and_its_scheduler_exchange_messages() {
    let directory = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/strangers/pymesos_executor.py");
    let command = format!("'{}' '{}'", crate::python().display(), script.display());
    let cluster = cluster(directory.path(), &command);
    let mut stranger = Stranger::start(cluster.address());
    stranger.hears("offers", |_| true);
    stranger.tell(&["launch", &executor("e"), &tasks(&["waits"], "true")]);
    stranger.hears_update("waits", "TASK_RUNNING");
    stranger.tell(&["message", "e", "hello"]);
    assert_eq!(stranger.hears("message", |_| true)["text"], "hello");
    stranger.tell(&["kill", "waits"]);
    stranger.hears_update("waits", "TASK_KILLED");
    stranger.hears("executor lost", |_| true);
    stranger.stop();
}
