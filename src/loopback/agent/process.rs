//! The executor as a process: its environment, its sandbox, its life and end.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, DirBuilder, File},
    io,
    net::SocketAddr,
    os::{
        fd::OwnedFd,
        unix::{
            fs::{DirBuilderExt as _, symlink},
            process::CommandExt,
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use rustix::process::{Resource, prlimit};
use tokio::io::unix::AsyncFd;

use crate::{
    door::{Started, descriptors_before},
    mesos::{duration, v1::ExecutorInfo},
    sys::pidfd,
};

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandLine {
    Argv(Vec<String>),
    Shell(String),
}

impl CommandLine {
    /// As typed: a path and plain words are run as they are, so that the executor is our direct child; all else is
    /// the shell's, whose own commands have no path. The path is meant from where it was typed, not from the sandbox
    /// in which it will run.
    pub fn typed(text: &str) -> Self {
        let plain = |c: char| c.is_alphanumeric() || " /._-+=:,@%".contains(c);
        let here = |program: &str| match std::path::absolute(program) {
            Ok(path) => path.to_string_lossy().into_owned(),
            // Only without a working directory, and then no relative path means anything.
            Err(_) => program.to_owned(),
        };
        let mut words = text.split_whitespace();
        if Path::new(text).is_file() {
            CommandLine::Argv(vec![here(text)])
        } else if text.chars().all(plain)
            && let Some(program) = words.next().filter(|program| program.contains('/'))
        {
            CommandLine::Argv(
                std::iter::once(here(program))
                    .chain(words.map(str::to_owned))
                    .collect(),
            )
        } else {
            CommandLine::Shell(text.to_owned())
        }
    }

    /// Of an ExecutorInfo; none if it has no command.
    pub(super) fn of(info: &ExecutorInfo) -> Option<Self> {
        let command = info.command.as_ref()?;
        let value = command.value.clone()?;
        if command.shell() {
            return Some(CommandLine::Shell(value));
        }
        // As execve: arguments start with the name the program is to see.
        let mut argv = vec![value];
        argv.extend(command.arguments.iter().skip(1).cloned());
        Some(CommandLine::Argv(argv))
    }

    fn command(&self) -> Command {
        match self {
            CommandLine::Argv(argv) => {
                let mut words = argv.iter();
                let mut command = Command::new(words.next().map_or("", String::as_str));
                command.args(words);
                command
            }
            CommandLine::Shell(text) => {
                let mut command = Command::new("/bin/sh");
                command.args(["-c", text]);
                command
            }
        }
    }
}

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommandLine::Argv(argv) => f.write_str(&argv.join(" ")),
            CommandLine::Shell(text) => f.write_str(text),
        }
    }
}

/// What the environment of an executor is made from.
#[derive(Debug)]
pub(super) struct Surroundings<'s> {
    pub framework: &'s str,
    pub executor: &'s ExecutorInfo,
    pub agent: &'s str,
    /// `slave(1)@10.0.0.5:5051`
    pub agent_pid: &'s str,
    pub endpoint: SocketAddr,
    pub sandbox: &'s Path,
    pub domain_socket: Option<&'s Path>,
    pub token: Option<String>,
    pub shutdown_grace: Duration,
    /// With checkpointing: for how long to wait for the agent, and how long at most between two attempts.
    pub recovery: Option<(Duration, Duration)>,
    /// The agent's flag `executor_environment_variables`.
    pub operator: &'s BTreeMap<String, String>,
}

/// Exactly what a real agent gives (wire file, section 7). Nothing is inherited.
pub(super) fn environment(s: &Surroundings<'_>) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    let mut set = |name: &str, value: String| {
        env.insert(name.to_owned(), value);
    };
    let sandbox = s.sandbox.display().to_string();
    set("MESOS_FRAMEWORK_ID", s.framework.to_owned());
    set("MESOS_EXECUTOR_ID", s.executor.executor_id.value.clone());
    set("MESOS_DIRECTORY", sandbox.clone());
    set("MESOS_SANDBOX", sandbox);
    set("MESOS_SLAVE_ID", s.agent.to_owned());
    set("MESOS_SLAVE_PID", s.agent_pid.to_owned());
    set("MESOS_AGENT_ENDPOINT", s.endpoint.to_string());
    set(
        "MESOS_CHECKPOINT",
        if s.recovery.is_some() { "1" } else { "0" }.to_owned(),
    );
    set("MESOS_HTTP_COMMAND_EXECUTOR", "0".to_owned());
    set(
        "MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD",
        duration::format(s.shutdown_grace),
    );
    if let Some((timeout, backoff)) = s.recovery {
        set("MESOS_RECOVERY_TIMEOUT", duration::format(timeout));
        set("MESOS_SUBSCRIPTION_BACKOFF_MAX", duration::format(backoff));
    }
    if let Some(socket) = s.domain_socket {
        set("MESOS_DOMAIN_SOCKET", socket.display().to_string());
    }
    if let Some(token) = &s.token {
        set("MESOS_EXECUTOR_AUTHENTICATION_TOKEN", token.clone());
    }
    set("LIBPROCESS_IP", s.endpoint.ip().to_string());
    set("LIBPROCESS_PORT", "0".to_owned());
    set("PATH", DEFAULT_PATH.to_owned());
    env.extend(s.operator.clone());
    let own = s
        .executor
        .command
        .as_ref()
        .and_then(|command| command.environment.as_ref());
    for variable in own.iter().flat_map(|environment| &environment.variables) {
        env.insert(variable.name.clone(), variable.value().to_owned());
    }
    env
}

/// Makes `…/runs/<container>` below the work directory, and `latest` beside it.
pub(super) fn make_sandbox(
    work_dir: &Path,
    agent: &str,
    framework: &str,
    executor: &str,
    container: &str,
) -> io::Result<PathBuf> {
    let executors = work_dir
        .join("slaves")
        .join(agent)
        .join("frameworks")
        .join(framework)
        .join("executors");
    let runs = executors.join(executor).join("runs");
    let sandbox = runs.join(container);
    // As agents do: a file that a member made to run with its owner's rights is out of others' reach.
    DirBuilder::new().recursive(true).mode(0o750).create(&sandbox)?;
    let latest = runs.join("latest");
    match fs::remove_file(&latest) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => symlink(container, latest)?,
    }
    Ok(sandbox)
}

/// A running executor, leader of a process group of its own. Whoever drops it kills that group and waits for the
/// executor itself.
#[derive(Debug)]
pub(super) struct Executor {
    child: Child,
    group: Pid,
    /// Turned to true by the reaping; from then on the number may be somebody else's.
    reaped: bool,
    started: Started,
}

impl Executor {
    pub(super) fn spawn(
        command: &CommandLine,
        environment: &BTreeMap<String, String>,
        sandbox: &Path,
        started: Started,
    ) -> io::Result<Self> {
        let log = |name: &str| File::options().create(true).append(true).open(sandbox.join(name));
        let child = command
            .command()
            .env_clear()
            .envs(environment)
            .current_dir(sandbox)
            .stdin(Stdio::null())
            .stdout(log("stdout")?)
            .stderr(log("stderr")?)
            .process_group(0)
            .spawn()?;
        started.add(child.id());
        let group = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
        keep_descriptors_few(group);
        Ok(Executor {
            child,
            group,
            reaped: false,
            started,
        })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Readable as soon as the process has ended. It stays a zombie until [`Executor::reap`], so its numbers stay its
    /// own.
    pub(super) fn watch(&self) -> io::Result<AsyncFd<OwnedFd>> {
        let pidfd = pidfd::open(self.group.as_raw())?;
        pidfd::watch(pidfd).map_err(|(_, error)| error)
    }

    /// Signals the executor alone.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        if self.reaped {
            return Ok(());
        }
        Ok(nix::sys::signal::kill(self.group, signal)?)
    }

    /// Kills the executor and everything left in its process group.
    pub(super) fn destroy(&self) {
        if self.reaped {
            return;
        }
        match killpg(self.group, Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => tracing::warn!("cannot kill process group {}: {error}", self.group),
        }
    }

    /// Takes the exit status of the ended process, after destroying what it left behind, as an agent destroys the
    /// container of an executor that has ended.
    pub(super) fn reap(&mut self) -> io::Result<ExitStatus> {
        self.destroy();
        let status = self.child.wait()?;
        self.reaped = true;
        self.started.remove(self.pid());
        Ok(status)
    }
}

/// The limit that we have raised for ourselves is not for executors: they and their members get what we were given.
fn keep_descriptors_few(executor: Pid) {
    let before = descriptors_before();
    let executor = rustix::process::Pid::from_raw(executor.as_raw());
    if let (Some(before), Some(executor)) = (before, executor)
        && let Err(error) = prlimit(Some(executor), Resource::Nofile, before)
    {
        tracing::warn!("the executor keeps our limit of open files: {error}");
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        if !self.reaped {
            // SIGKILL was sent: the wait is short, and nobody is left to tell of an error.
            let _ = self.reap();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesos::v1::{CommandInfo, Environment, ExecutorId, environment::Variable};

    fn words(words: &[&str]) -> CommandLine {
        CommandLine::Argv(words.iter().map(|w| w.to_string()).collect())
    }

    #[test]
    fn typed_commands_go_to_the_shell_only_if_they_need_it() {
        assert_eq!(
            CommandLine::typed("/bin/cat -n a=b"),
            words(&["/bin/cat", "-n", "a=b"])
        );
        let here = std::env::current_dir().unwrap();
        let tool = here.join("tools/x").to_str().unwrap().to_owned();
        assert_eq!(CommandLine::typed("tools/x a/b"), words(&[&tool, "a/b"]));
        assert_eq!(CommandLine::typed("./tools/x"), words(&[&tool]));
        let manifest = here.join("Cargo.toml").to_str().unwrap().to_owned();
        assert_eq!(CommandLine::typed("Cargo.toml"), words(&[&manifest]));
        for needy in [
            "exit 0",
            "",
            "cat /x",
            "echo $HOME",
            "a; b",
            "cat 'x y'",
            "x > y",
            "a && b",
            "~/x",
            "*",
        ] {
            assert_eq!(CommandLine::typed(needy), CommandLine::Shell(needy.into()));
        }
    }

    #[test]
    fn commands_of_executor_infos_follow_the_shell_flag() {
        let info = |shell, value: &str, arguments: &[&str]| ExecutorInfo {
            command: Some(CommandInfo {
                shell,
                value: Some(value.into()),
                arguments: arguments.iter().map(|a| a.to_string()).collect(),
                ..Default::default()
            }),
            ..Default::default()
        };
        assert_eq!(
            CommandLine::of(&info(None, "a b", &[])),
            Some(CommandLine::Shell("a b".into()))
        );
        let argv = info(Some(false), "/bin/x", &["x", "-v"]);
        assert_eq!(CommandLine::of(&argv), Some(words(&["/bin/x", "-v"])));
        assert_eq!(CommandLine::of(&ExecutorInfo::default()), None);
    }

    fn surroundings<'s>(
        executor: &'s ExecutorInfo,
        operator: &'s BTreeMap<String, String>,
    ) -> Surroundings<'s> {
        Surroundings {
            framework: "F",
            executor,
            agent: "A",
            agent_pid: "slave(3)@127.0.0.1:5051",
            endpoint: ([127, 0, 0, 1], 5051).into(),
            sandbox: Path::new("/w/s"),
            domain_socket: None,
            token: None,
            shutdown_grace: Duration::from_secs(5),
            recovery: None,
            operator,
        }
    }

    #[test]
    fn the_environment_is_that_of_a_real_agent() {
        let executor = ExecutorInfo {
            executor_id: ExecutorId { value: "E".into() },
            ..Default::default()
        };
        let operator = BTreeMap::new();
        let env = environment(&surroundings(&executor, &operator));
        let text: Vec<String> = env
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(
            text,
            [
                "LIBPROCESS_IP=127.0.0.1",
                "LIBPROCESS_PORT=0",
                "MESOS_AGENT_ENDPOINT=127.0.0.1:5051",
                "MESOS_CHECKPOINT=0",
                "MESOS_DIRECTORY=/w/s",
                "MESOS_EXECUTOR_ID=E",
                "MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD=5secs",
                "MESOS_FRAMEWORK_ID=F",
                "MESOS_HTTP_COMMAND_EXECUTOR=0",
                "MESOS_SANDBOX=/w/s",
                "MESOS_SLAVE_ID=A",
                "MESOS_SLAVE_PID=slave(3)@127.0.0.1:5051",
                &format!("PATH={DEFAULT_PATH}"),
            ]
        );
    }

    #[test]
    fn what_is_only_sometimes_there_and_who_wins() {
        let variable = |name: &str, value: &str| Variable {
            name: name.into(),
            value: Some(value.into()),
            ..Default::default()
        };
        let executor = ExecutorInfo {
            command: Some(CommandInfo {
                environment: Some(Environment {
                    variables: vec![variable("PATH", "/mine"), variable("X", "framework")],
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let operator = BTreeMap::from([("X".to_owned(), "operator".to_owned()), ("Y".into(), "y".into())]);
        let mut s = surroundings(&executor, &operator);
        s.recovery = Some((Duration::from_secs(900), Duration::from_secs(2)));
        s.domain_socket = Some(Path::new("/w/agent.sock"));
        s.token = Some("secret".into());
        let env = environment(&s);
        for (name, value) in [
            ("MESOS_CHECKPOINT", "1"),
            ("MESOS_RECOVERY_TIMEOUT", "15mins"),
            ("MESOS_SUBSCRIPTION_BACKOFF_MAX", "2secs"),
            ("MESOS_DOMAIN_SOCKET", "/w/agent.sock"),
            ("MESOS_EXECUTOR_AUTHENTICATION_TOKEN", "secret"),
            ("PATH", "/mine"),
            ("X", "framework"),
            ("Y", "y"),
        ] {
            assert_eq!(env.get(name).map(String::as_str), Some(value), "{name}");
        }
    }
}
