//! Tasks, an agent with our executor, and ways to look at what is left.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use podling::{
    loopback::agent::{Agent, AgentBuilder, Outcome},
    mesos::v1::{
        CommandInfo, DurationInfo, KillPolicy, Resource, TaskGroupInfo, TaskId, TaskInfo, TaskState,
        TaskStatus,
        value::{self, Scalar},
    },
};

pub const EXECUTOR: &str = env!("CARGO_BIN_EXE_podling-executor");

/// Far longer than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// An agent that will run our executor.
pub fn agent() -> AgentBuilder {
    Agent::builder().executor_argv([EXECUTOR]).patience(PATIENCE)
}

/// A task that runs a shell command.
pub fn task(id: &str, command: &str) -> TaskInfo {
    TaskInfo {
        name: id.to_owned(),
        task_id: TaskId { value: id.to_owned() },
        resources: vec![scalar("cpus", 0.1), scalar("mem", 32.0)],
        command: Some(CommandInfo {
            shell: Some(true),
            value: Some(command.to_owned()),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub fn scalar(name: &str, amount: f64) -> Resource {
    Resource {
        name: name.to_owned(),
        r#type: value::Type::Scalar.into(),
        scalar: Some(Scalar { value: amount }),
        ..Default::default()
    }
}

pub fn group(tasks: impl IntoIterator<Item = TaskInfo>) -> TaskGroupInfo {
    TaskGroupInfo {
        tasks: tasks.into_iter().collect(),
    }
}

pub fn grace(period: Duration) -> KillPolicy {
    KillPolicy {
        grace_period: Some(DurationInfo {
            nanoseconds: i64::try_from(period.as_nanos()).unwrap(),
        }),
    }
}

/// A command that goes on until it is ended, and that no other process on this machine has.
#[derive(Debug, Clone)]
pub struct Sleeper(String);

impl Sleeper {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Sleeper(format!("sleep 1000.{}{number:04}", std::process::id()))
    }

    pub fn command(&self) -> &str {
        &self.0
    }

    pub fn task(&self, id: &str) -> TaskInfo {
        task(id, &self.0)
    }

    /// Processes that run it, whoever their parent is.
    pub fn processes(&self) -> usize {
        let argument = self.0.trim_start_matches("sleep ");
        let of = |entry: fs::DirEntry| fs::read(entry.path().join("cmdline")).ok();
        let commands = fs::read_dir("/proc").unwrap().flatten().filter_map(of);
        commands
            .filter(|command| String::from_utf8_lossy(command).contains(argument))
            .count()
    }

    /// It is gone, now or in a moment: the kernel takes a namespace apart after its init has ended.
    pub fn is_gone(&self) -> bool {
        within(|| self.processes() == 0)
    }
}

/// It becomes so.
pub fn within(mut is_so: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

/// The executor ended by itself, with exactly one terminal state for each task, and kept all rules.
#[track_caller]
pub fn good(outcome: &Outcome) {
    assert!(
        outcome.is_good() && outcome.violations.is_empty(),
        "{outcome}\n{}",
        outcome.history
    );
}

/// The states a task was told to be in.
#[track_caller]
pub fn assert_states(outcome: &Outcome, task: &str, states: &[TaskState]) {
    assert_eq!(
        outcome.history.states(task),
        states,
        "task {task}\n{}",
        outcome.history
    );
}

/// The last thing told of a task.
pub fn last<'a>(outcome: &'a Outcome, task: &str) -> &'a TaskStatus {
    outcome.history.updates(task).last().unwrap()
}

pub fn container_of(status: &TaskStatus) -> String {
    status
        .container_status
        .as_ref()
        .unwrap()
        .container_id
        .as_ref()
        .unwrap()
        .value
        .clone()
}

/// A directory that stays as long as the test, outside of any sandbox.
pub struct Place(tempfile::TempDir);

impl Place {
    pub fn new() -> Self {
        let place = tempfile::Builder::new()
            .prefix("podling-executor-")
            .tempdir()
            .unwrap();
        // Members of other users must get through.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(place.path(), open).unwrap();
        Place(place)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// What a task wrote to its standard output.
pub fn stdout(sandbox: &Path, task: &str) -> String {
    fs::read_to_string(sandbox.join("tasks").join(task).join("stdout")).unwrap()
}
