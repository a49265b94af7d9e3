//! `podling loopback`: stand-ins for a cluster.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    str::FromStr,
    thread,
    time::{Duration, Instant},
};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::{Ended, Failure, executor::OwnExecutor};
use crate::{
    group::validate::id_problem,
    loopback::agent::{self, Action, Agent, History, Interrupter, What},
    mesos::{
        codec::{self, Encoding, Message},
        v1::{ExecutorInfo, TaskGroupInfo},
    },
};

/// How long the agent that restarts is away, and then answers 404, and then 503.
const RESTART_PAUSE: Duration = Duration::from_millis(100);

/// How long lines are gathered before they are printed.
const BUNCH: Duration = Duration::from_millis(20);

pub(super) const EXAMPLES: &str = "\
Examples:
  podling loopback agent --task-group group.json     one task group, every event and call as a line of JSON
  podling loopback master --agents 3                 a cluster for any scheduler that speaks the v1 API";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run an executor against one task group, as a Mesos agent would
    Agent(AgentCommand),
    /// Run a master and agents that any scheduler can use
    Master(super::master::MasterCommand),
}

impl Command {
    pub(super) fn run(self) -> Ended {
        match self {
            Command::Agent(command) => command.run(),
            Command::Master(command) => command.run(),
        }
    }
}

/// Prints one JSON object a line for every event sent and call received. Exit code 0: the executor ended by itself
/// with 0 and every task got exactly one terminal state; 1: not so; 2: wrong use.
#[derive(Debug, Args)]
pub(super) struct AgentCommand {
    /// TaskGroupInfo in Mesos JSON: {"tasks": [...]}; agent ids may be missing
    #[arg(long, value_name = "FILE.json")]
    task_group: PathBuf,

    /// Command line of the executor [default: podling-executor beside this program, else this program]
    #[arg(long, value_name = "CMD")]
    executor: Option<String>,

    /// ExecutorInfo in Mesos JSON; its command is run unless --executor is given
    #[arg(long, value_name = "FILE.json")]
    executor_info: Option<PathBuf>,

    /// Keep the sandboxes below this directory [default: a temporary one, removed at the end]
    #[arg(long, value_name = "DIR")]
    work_dir: Option<PathBuf>,

    /// Encoding the executor is told to use, by the variable PODLING_ENCODING
    #[arg(long, value_enum, default_value_t = EncodingName::Protobuf)]
    encoding: EncodingName,

    /// Serve the executor API on a domain socket too, and tell the executor
    #[arg(long)]
    domain_socket: bool,

    /// The framework checkpoints: the executor outlives a restart of the agent
    #[arg(long)]
    checkpoint: bool,

    /// Kill a task that many seconds after the group was delivered; may be given more than once
    #[arg(long, value_name = "TASK@SECONDS")]
    kill: Vec<TimedKill>,

    /// Send SHUTDOWN that many seconds after the group was delivered
    #[arg(long, value_name = "SECONDS")]
    shutdown: Option<Seconds>,

    /// Restart the agent that many seconds after the group was delivered
    #[arg(long, value_name = "SECONDS")]
    restart_agent: Option<Seconds>,

    /// Kill the executor if it has not ended after that many seconds
    #[arg(long, value_name = "SECONDS", default_value = "60")]
    timeout: Seconds,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum EncodingName {
    Protobuf,
    Json,
}

/// A time in seconds, with fractions.
#[derive(Debug, Clone, Copy)]
struct Seconds(Duration);

impl FromStr for Seconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let seconds: f64 = text
            .parse()
            .map_err(|_| format!("{text:?} is not a number of seconds"))?;
        let duration = Duration::try_from_secs_f64(seconds);
        let duration = duration
            .ok()
            .filter(|d| *d <= Duration::from_secs(365 * 24 * 3600));
        duration
            .map(Seconds)
            .ok_or_else(|| format!("{text} seconds is not a time one can wait"))
    }
}

#[derive(Debug, Clone)]
struct TimedKill {
    task: String,
    at: Seconds,
}

impl FromStr for TimedKill {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Task ids may have an @ of their own; seconds never do.
        let (task, at) = text
            .rsplit_once('@')
            .ok_or("expected TASK@SECONDS, as in web@1.5")?;
        Ok(TimedKill {
            task: task.to_owned(),
            at: at.parse()?,
        })
    }
}

impl AgentCommand {
    fn run(self) -> Ended {
        let group = self.task_group()?;
        let info = self.executor_info()?;

        let mut builder = Agent::builder().encoding(match self.encoding {
            EncodingName::Protobuf => Encoding::Protobuf,
            EncodingName::Json => Encoding::Json,
        });
        builder = match (&self.executor, &info) {
            (Some(command), _) => builder.executor(command),
            (None, Some(info)) if has_command(info) => builder,
            _ => builder.executor_argv(OwnExecutor::find()?.argv()),
        };
        if let Some(info) = info {
            builder = builder.executor_info(info);
        }
        if let Some(dir) = self.work_dir {
            builder = builder.work_dir(dir);
        }
        if self.domain_socket {
            builder = builder.domain_socket();
        }
        if self.checkpoint {
            builder = builder.checkpoint();
        }
        let deadline = Instant::now() + self.timeout.0;
        let agent = builder.task_group(group).start()?;
        let kills = self
            .kill
            .into_iter()
            .map(|kill| (kill.at, Action::Kill(kill.task)));
        let shutdown = self.shutdown.map(|at| (at, Action::Shutdown));
        let restart = self.restart_agent.map(|at| (at, Action::Restart(RESTART_PAUSE)));
        let script = kills.chain(shutdown).chain(restart).collect();
        interrupt_on_signal(agent.interrupter())?;
        watch(agent, script, deadline, self.timeout.0)
    }

    fn task_group(&self) -> Result<TaskGroupInfo, Failure> {
        let path = &self.task_group;
        let group = read_task_group(path)?;
        let ids: Vec<&str> = group
            .tasks
            .iter()
            .map(|task| task.task_id.value.as_str())
            .collect();
        if ids.is_empty() {
            return Err(Failure::usage(format!(
                "{}: a task group needs at least one task",
                path.display()
            )));
        }
        for (at, id) in ids.iter().enumerate() {
            if let Some(why) = id_problem(id) {
                return Err(Failure::usage(format!(
                    "{}: tasks[{at}].task_id: {why}",
                    path.display()
                )));
            }
            if ids.iter().take(at).any(|earlier| earlier == id) {
                return Err(Failure::usage(format!(
                    "{}: tasks[{at}].task_id: {id} is there twice",
                    path.display()
                )));
            }
        }
        for kill in &self.kill {
            if !ids.contains(&kill.task.as_str()) {
                let path = path.display();
                return Err(Failure::usage(format!(
                    "--kill: {path} has no task {}",
                    kill.task
                )));
            }
        }
        Ok(group)
    }

    fn executor_info(&self) -> Result<Option<ExecutorInfo>, Failure> {
        let Some(path) = &self.executor_info else {
            return Ok(None);
        };
        let mut value = read_json(path)?;
        if let Some(info) = value.as_object_mut() {
            let id = agent::default_executor().executor_id.value;
            info.entry("executor_id").or_insert_with(|| json!({"value": id}));
        }
        let info: ExecutorInfo = message(path, &value)?;
        if let Some(why) = id_problem(&info.executor_id.value) {
            return Err(Failure::usage(format!("{}: executor_id: {why}", path.display())));
        }
        Ok(Some(info))
    }
}

/// A TaskGroupInfo in Mesos JSON, as far as its form goes; agent ids may be missing.
pub(super) fn read_task_group(path: &Path) -> Result<TaskGroupInfo, Failure> {
    let mut value = read_json(path)?;
    let tasks = value.get_mut("tasks").and_then(Value::as_array_mut);
    for task in tasks.into_iter().flatten() {
        if let Some(task) = task.as_object_mut() {
            task.entry("agent_id")
                .or_insert_with(|| json!({"value": "this agent"}));
        }
    }
    message(path, &value)
}

fn has_command(info: &ExecutorInfo) -> bool {
    info.command
        .as_ref()
        .is_some_and(|command| command.value.is_some())
}

fn read_json(path: &Path) -> Result<Value, Failure> {
    let text = fs::read(path).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    serde_json::from_slice(&text).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}

fn message<M: Message>(path: &Path, value: &Value) -> Result<M, Failure> {
    codec::decode(value.to_string().as_bytes(), Encoding::Json)
        .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}

/// Turns SIGINT and SIGTERM into an orderly end.
fn interrupt_on_signal(interrupter: Interrupter) -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // The thread ends with the process.
    thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            let (Ok(mut int), Ok(mut term)) =
                (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
            else {
                return;
            };
            tokio::select! {
                _ = int.recv() => {}
                _ = term.recv() => {}
            }
            interrupter.interrupt();
        });
    })?;
    Ok(())
}

/// Prints what happens until it has all happened, and has the script begin with the delivery of the group.
///
/// The agent has its own thread: a slow reader of these lines holds nothing up. Nor does the printing itself compete
/// with what is being measured: lines are made in bunches, a moment after the fact.
fn watch(agent: Agent, script: Vec<(Seconds, Action)>, deadline: Instant, timeout: Duration) -> Ended {
    let journal = agent.journal().clone();
    let mut printer = Printer::default();
    let mut script = Some(script);
    let (over, why) = loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let seen = printer.seen;
        let unseen = |history: &History| {
            let new = history.entries().get(seen..).filter(|new| !new.is_empty())?;
            Some(new.to_vec())
        };
        let Some(new) = journal.wait_for(left, unseen) else {
            break (false, format!("the executor had not ended after {timeout:?}"));
        };
        begin(&agent, &mut script, &new);
        thread::sleep(BUNCH);
        let new = journal.wait_for(Duration::ZERO, unseen).unwrap_or_default();
        begin(&agent, &mut script, &new);
        printer.print(&new);
        if new.iter().any(|entry| matches!(entry.what, What::Settled)) {
            break (true, String::new());
        }
        if new.iter().any(|entry| matches!(entry.what, What::Interrupted)) {
            break (false, "interrupted".to_owned());
        }
    };
    let outcome = if over { agent.finish() } else { agent.abandon() };
    printer.print(outcome.history.entries().get(printer.seen..).unwrap_or_default());
    if !over {
        eprintln!("podling: {why}");
    }
    eprint!("{outcome}");
    Ok(if over && outcome.is_good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Begins with the script once the group has been delivered; its times count from then.
fn begin(agent: &Agent, script: &mut Option<Vec<(Seconds, Action)>>, new: &[agent::Entry]) {
    let is_launch = |entry: &&agent::Entry| matches!(&entry.what, What::Event(e) if e.launch_group.is_some());
    let Some(launch) = new.iter().find(is_launch) else {
        return;
    };
    let since = agent.journal().now().saturating_sub(launch.at);
    for (Seconds(after), action) in script.take().into_iter().flatten() {
        agent.schedule(after.saturating_sub(since), action);
    }
}

/// Writes lines, and counts the entries it has seen.
#[derive(Debug, Default)]
struct Printer {
    seen: usize,
    /// Nobody reads any more.
    deaf: bool,
}

impl Printer {
    fn print(&mut self, entries: &[agent::Entry]) {
        self.seen += entries.len();
        let mut text = String::new();
        for line in entries.iter().filter_map(agent::line) {
            text.push_str(&line);
            text.push('\n');
        }
        if text.is_empty() || self.deaf {
            return;
        }
        let mut out = io::stdout().lock();
        self.deaf = out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_times_one_can_wait() {
        assert_eq!("0.5".parse::<Seconds>().unwrap().0, Duration::from_millis(500));
        for wrong in ["", "x", "-1", "NaN", "inf", "1e300", "1s"] {
            assert!(wrong.parse::<Seconds>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn kills_name_task_and_time() {
        let kill: TimedKill = "a@b@1.5".parse().unwrap();
        assert_eq!(
            (kill.task.as_str(), kill.at.0),
            ("a@b", Duration::from_millis(1500))
        );
        assert!("a".parse::<TimedKill>().is_err());
        assert!("a@".parse::<TimedKill>().is_err());
    }
}
