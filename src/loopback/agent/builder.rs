//! Says what agent is wanted, and starts it.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    time::Duration,
};

use super::{
    Agent,
    core::{Flags, Identity},
    journal::Journal,
    mischief::{AckFault, AckRule, Chunks, Mischief},
    process::CommandLine,
    server::{self, Port},
    token::Secret,
    workdir::WorkDir,
};
use crate::door::Started;
use crate::mesos::{
    codec::Encoding,
    v1::{
        AgentId, AgentInfo, ExecutorId, ExecutorInfo, FrameworkId, FrameworkInfo, Resource, TaskGroupInfo,
        TaskInfo, TaskState, executor_info,
        framework_info::{Capability, capability},
        resource::AllocationInfo,
        value::{self, Range, Ranges, Scalar},
    },
};

/// Why an agent could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("no executor to run: neither a command line nor an ExecutorInfo with a command was given")]
    NoExecutor,
    #[error(
        "the executor's command has URIs to fetch, first of all {0}, and the loopback agent fetches nothing"
    )]
    Uris(String),
    #[error("cannot make the work directory {path}")]
    WorkDir { path: PathBuf, source: io::Error },
    #[error("cannot listen on {address}")]
    Listen { address: String, source: io::Error },
    #[error("cannot start the executor {command}")]
    Executor { command: String, source: io::Error },
    #[error("cannot start the agent's own thread")]
    Thread(#[source] io::Error),
}

/// An agent to be. The default is an honest agent that checkpoints nothing, on 127.0.0.1 and any free port.
///
/// ```no_run
/// # use podling::loopback::agent::Agent;
/// # use podling::mesos::v1::{TaskGroupInfo, TaskState};
/// # fn f(group: TaskGroupInfo) -> Result<(), Box<dyn std::error::Error>> {
/// let agent = Agent::builder().executor("podling-executor").task_group(group).start()?;
/// agent.wait_for("a runs", |h| h.all_told(&["a"], TaskState::TaskRunning))?;
/// agent.kill("a")?;
/// assert!(agent.finish().is_good());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use]
pub struct AgentBuilder {
    command: Option<CommandLine>,
    executor_info: ExecutorInfo,
    framework_info: FrameworkInfo,
    launches: Vec<LaunchRequest>,
    name: String,
    address: IpAddr,
    domain_socket: bool,
    authentication: bool,
    work_dir: Option<PathBuf>,
    flags: Flags,
    mischief: Mischief,
    patience: Duration,
}

/// What the scheduler wants launched, before the master has completed it.
#[derive(Debug)]
pub(super) enum LaunchRequest {
    Task(Box<TaskInfo>),
    Group(TaskGroupInfo),
}

/// All that the agent's thread needs.
#[derive(Debug)]
pub(super) struct Plan {
    pub command: CommandLine,
    pub executor: ExecutorInfo,
    pub framework: FrameworkInfo,
    pub launches: Vec<LaunchRequest>,
    pub name: String,
    pub address: IpAddr,
    pub domain_socket: bool,
    pub authentication: bool,
    pub work_dir: WorkDir,
    pub flags: Flags,
    pub mischief: Mischief,
}

impl Default for AgentBuilder {
    fn default() -> Self {
        AgentBuilder {
            command: None,
            executor_info: default_executor(),
            framework_info: default_framework(),
            launches: Vec::new(),
            name: "slave(1)".into(),
            address: Ipv4Addr::LOCALHOST.into(),
            domain_socket: false,
            authentication: false,
            work_dir: None,
            flags: AgentBuilder::default_flags(),
            mischief: Mischief::default(),
            patience: Duration::from_secs(30),
        }
    }
}

impl AgentBuilder {
    /// A real agent's defaults.
    pub(super) fn default_flags() -> Flags {
        Flags {
            executor_registration_timeout: Duration::from_secs(60),
            executor_reregistration_timeout: Duration::from_secs(2),
            executor_shutdown_grace_period: Duration::from_secs(5),
            recovery_timeout: Duration::from_secs(15 * 60),
            heartbeat_interval: Duration::from_secs(30 * 60),
            executor_environment: BTreeMap::new(),
            max_body: 64 << 20,
            max_connections: 256,
        }
    }

    // ---- what runs

    /// The executor's command line; given to the shell if it is more than words.
    pub fn executor(mut self, command: &str) -> Self {
        self.command = Some(CommandLine::typed(command));
        self
    }

    /// The executor's program and arguments, as they are.
    pub fn executor_argv<S: Into<String>>(mut self, argv: impl IntoIterator<Item = S>) -> Self {
        self.command = Some(CommandLine::Argv(argv.into_iter().map(Into::into).collect()));
        self
    }

    /// Replaces the ExecutorInfo. Its command is run unless a command line is given too.
    pub fn executor_info(mut self, info: ExecutorInfo) -> Self {
        self.executor_info = info;
        self
    }

    /// Changes the ExecutorInfo in place.
    pub fn with_executor_info(mut self, change: impl FnOnce(&mut ExecutorInfo)) -> Self {
        change(&mut self.executor_info);
        self
    }

    /// Changes the FrameworkInfo in place.
    pub fn with_framework_info(mut self, change: impl FnOnce(&mut FrameworkInfo)) -> Self {
        change(&mut self.framework_info);
        self
    }

    /// Exactly these framework capabilities.
    pub fn capabilities(mut self, capabilities: &[capability::Type]) -> Self {
        self.framework_info.capabilities = capabilities.iter().map(|c| as_capability(*c)).collect();
        self
    }

    /// Queues a group for the executor's arrival; call it again for more groups.
    pub fn task_group(mut self, group: TaskGroupInfo) -> Self {
        self.launches.push(LaunchRequest::Group(group));
        self
    }

    /// Queues a single task, to come by LAUNCH.
    pub fn task(mut self, task: TaskInfo) -> Self {
        self.launches.push(LaunchRequest::Task(Box::new(task)));
        self
    }

    /// A variable of the agent's flag `executor_environment_variables`.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.flags.executor_environment.insert(name.into(), value.into());
        self
    }

    /// Tells executors that listen to `PODLING_ENCODING` which encoding to use. Others use what they like.
    pub fn encoding(self, encoding: Encoding) -> Self {
        let name = match encoding {
            Encoding::Protobuf => "protobuf",
            Encoding::Json => "json",
        };
        self.env("PODLING_ENCODING", name)
    }

    // ---- how the agent is set up

    /// The framework checkpoints: its executors outlive a restart of the agent.
    pub fn checkpoint(self) -> Self {
        self.with_framework_info(|framework| framework.checkpoint = Some(true))
    }

    /// Serves the domain socket too and tells executors to use it.
    pub fn domain_socket(mut self) -> Self {
        self.domain_socket = true;
        self
    }

    /// Demands a token with every request. Executors get one in any case; without this the owner needs none.
    pub fn authentication(mut self) -> Self {
        self.authentication = true;
        self
    }

    /// The agent's process name; `slave(1)` unless told.
    pub fn name(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// The address to listen on; 127.0.0.1 unless told.
    pub fn address(mut self, address: IpAddr) -> Self {
        self.address = address;
        self
    }

    /// Listens on `[::1]`.
    pub fn ipv6(self) -> Self {
        self.address(Ipv6Addr::LOCALHOST.into())
    }

    /// Keeps everything below this directory, also afterwards. Unless told, a directory in the temporary one that
    /// goes with the agent.
    pub fn work_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.work_dir = Some(path.into());
        self
    }

    pub fn registration_timeout(mut self, timeout: Duration) -> Self {
        self.flags.executor_registration_timeout = timeout;
        self
    }

    pub fn reregistration_timeout(mut self, timeout: Duration) -> Self {
        self.flags.executor_reregistration_timeout = timeout;
        self
    }

    pub fn shutdown_grace(mut self, period: Duration) -> Self {
        self.flags.executor_shutdown_grace_period = period;
        self
    }

    pub fn recovery_timeout(mut self, timeout: Duration) -> Self {
        self.flags.recovery_timeout = timeout;
        self
    }

    /// Time between HEARTBEAT events; 30 minutes unless told.
    pub fn heartbeat_every(mut self, interval: Duration) -> Self {
        self.flags.heartbeat_interval = interval;
        self
    }

    /// The longest request body that is taken in.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.flags.max_body = bytes;
        self
    }

    /// How long [`Agent::wait_for`] and [`Agent::finish`] wait; 30 seconds unless told.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    // ---- how the agent misbehaves (wire file, section 18; the number of the trap in brackets)

    /// Answers the first SUBSCRIBE calls with these status codes, one each (1).
    pub fn answer_subscribe_with(mut self, statuses: impl IntoIterator<Item = u16>) -> Self {
        self.mischief.subscribe_answers.extend(statuses);
        self
    }

    /// Cuts the stream into HTTP chunks of this many bytes, across records (2).
    pub fn chunk_every(mut self, bytes: usize) -> Self {
        self.mischief.chunks = Chunks::Every(bytes);
        self
    }

    /// Puts all records that are ready into one chunk (2).
    pub fn coalesce_records(mut self) -> Self {
        self.mischief.chunks = Chunks::Coalesced;
        self
    }

    /// Writes to sockets in portions of this many bytes, across everything HTTP (2).
    pub fn segment_every(mut self, bytes: usize) -> Self {
        self.mischief.segment = Some(bytes);
        self
    }

    /// Cuts the connection for calls instead of answering the n-th call on it, which is processed; once (3).
    pub fn drop_call_connection_after(mut self, calls: u32) -> Self {
        self.mischief.cut_calls_after = Some(calls);
        self
    }

    /// Never acknowledges this state of this task (5, 13).
    pub fn never_ack(self, task: &str, state: TaskState) -> Self {
        self.ack_rule(Some(task), vec![state], AckFault::Never)
    }

    /// Never acknowledges any terminal state (13).
    pub fn never_ack_terminal(self) -> Self {
        let terminal =
            (0..=TaskState::TaskUnknown as i32).filter_map(|state| TaskState::try_from(state).ok());
        let terminal = terminal
            .filter(|state| super::book::is_terminal(*state))
            .collect();
        self.ack_rule(None, terminal, AckFault::Never)
    }

    /// Acknowledges this update only when it comes again, after a re-subscription (5).
    pub fn lose_first_ack(self, task: &str, state: TaskState) -> Self {
        self.ack_rule(Some(task), vec![state], AckFault::LoseFirst)
    }

    fn ack_rule(mut self, task: Option<&str>, states: Vec<TaskState>, fault: AckFault) -> Self {
        self.mischief.acks.push(AckRule {
            task: task.map(str::to_owned),
            states,
            fault,
        });
        self
    }

    /// Keeps all acknowledgements back until [`Agent::release_acks`] (5).
    pub fn withhold_acks(mut self) -> Self {
        self.mischief.withhold_acks = true;
        self
    }

    /// Sends each acknowledgement twice (5).
    pub fn ack_twice(mut self) -> Self {
        self.mischief.ack_twice = true;
        self
    }

    /// Leaves defaults out of JSON, as the documentation's examples do. Real agents print them, and so does this one
    /// unless told (6).
    pub fn bare_json(mut self) -> Self {
        self.mischief.bare_json = true;
        self
    }

    /// Adds fields to events that no client knows (6).
    pub fn unknown_fields(mut self) -> Self {
        self.mischief.unknown_fields = true;
        self
    }

    /// Adds a framework capability to SUBSCRIBED that no client knows (6).
    pub fn unknown_enum(mut self) -> Self {
        self.mischief.unknown_enum = true;
        self
    }

    /// Sends an event of unknown type before each other one (6).
    pub fn unknown_events(mut self) -> Self {
        self.mischief.unknown_events = true;
        self
    }

    // ---- the start

    /// Starts the agent and its executor.
    pub fn start(self) -> Result<Agent, StartError> {
        let command = self.command.or_else(|| CommandLine::of(&self.executor_info));
        let uris = self
            .executor_info
            .command
            .iter()
            .flat_map(|command| &command.uris);
        if let Some(uri) = uris.into_iter().next() {
            return Err(StartError::Uris(uri.value.clone()));
        }
        let plan = Plan {
            command: command.ok_or(StartError::NoExecutor)?,
            executor: self.executor_info,
            framework: self.framework_info,
            launches: self.launches,
            name: self.name,
            address: self.address,
            domain_socket: self.domain_socket,
            authentication: self.authentication,
            work_dir: match self.work_dir {
                Some(path) => WorkDir::kept(&path).map_err(|source| StartError::WorkDir { path, source })?,
                None => WorkDir::temporary().map_err(|source| StartError::WorkDir {
                    path: std::env::temp_dir(),
                    source,
                })?,
            },
            flags: self.flags,
            mischief: self.mischief,
        };
        Agent::start(plan, Journal::new(), self.patience)
    }
}

impl Plan {
    pub(super) fn identity(&self, port: &Port) -> Result<Identity, StartError> {
        let id = format!("{}-S0", uuid::Uuid::new_v4());
        let address = port.address();
        let domain_socket = match self.domain_socket {
            true => Some(
                server::socket_path(self.work_dir.path()).map_err(|source| StartError::Listen {
                    address: "the domain socket".into(),
                    source,
                })?,
            ),
            false => None,
        };
        Ok(Identity {
            info: AgentInfo {
                hostname: "localhost".into(),
                port: Some(i32::from(address.port())),
                resources: agent_resources(),
                id: Some(AgentId { value: id.clone() }),
                ..Default::default()
            },
            id,
            process: self.name.clone(),
            address,
            domain_socket,
            work_dir: self.work_dir.path().to_owned(),
            secret: Secret::random(),
            token_needed: self.authentication,
            started: Started::default(),
        })
    }
}

/// What the master adds to a task on its way to the agent.
pub(super) fn complete_task(mut task: TaskInfo, agent: &str, executor: &ExecutorInfo) -> TaskInfo {
    task.agent_id = AgentId {
        value: agent.to_owned(),
    };
    task.executor.get_or_insert_with(|| executor.clone());
    task.resources.iter_mut().for_each(allocate);
    task
}

/// Every resource of a launched task is allocated to a role.
pub(super) fn allocate(resource: &mut Resource) {
    resource.allocation_info.get_or_insert_with(|| AllocationInfo {
        role: Some("*".into()),
    });
}

/// Stands in for the group's executor where nothing was said of it.
pub fn default_executor() -> ExecutorInfo {
    ExecutorInfo {
        r#type: Some(executor_info::Type::Default as i32),
        executor_id: ExecutorId {
            value: format!("executor-{}", uuid::Uuid::new_v4()),
        },
        resources: vec![scalar("cpus", 0.1), scalar("mem", 32.0), scalar("disk", 16.0)],
        ..Default::default()
    }
}

fn default_framework() -> FrameworkInfo {
    use capability::Type::{MultiRole, PartitionAware, TaskKillingState};
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
    FrameworkInfo {
        user: user.map_or_else(|| nix::unistd::geteuid().to_string(), |user| user.name),
        name: "loopback".into(),
        id: Some(FrameworkId {
            value: format!("{}-0000", uuid::Uuid::new_v4()),
        }),
        roles: vec!["*".into()],
        capabilities: [MultiRole, PartitionAware, TaskKillingState]
            .map(as_capability)
            .into(),
        ..Default::default()
    }
}

fn as_capability(kind: capability::Type) -> Capability {
    Capability {
        r#type: Some(kind as i32),
    }
}

fn agent_resources() -> Vec<Resource> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let ports = Resource {
        name: "ports".into(),
        r#type: value::Type::Ranges as i32,
        ranges: Some(Ranges {
            range: vec![Range {
                begin: 31000,
                end: 32000,
            }],
        }),
        ..Default::default()
    };
    vec![
        scalar("cpus", cpus as f64),
        scalar("mem", 8192.0),
        scalar("disk", 20_000.0),
        ports,
    ]
}

fn scalar(name: &str, value: f64) -> Resource {
    Resource {
        name: name.into(),
        r#type: value::Type::Scalar as i32,
        scalar: Some(Scalar { value }),
        ..Default::default()
    }
}
