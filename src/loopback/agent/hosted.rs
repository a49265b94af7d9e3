//! An agent under a master: the same agent as in the tests of executors, with as many executors as it is told to run.

use std::{
    collections::HashMap, io, net::IpAddr, path::PathBuf, process::ExitStatus, rc::Rc, sync::Arc,
    time::Duration,
};

use tokio::{
    sync::mpsc::{UnboundedSender, unbounded_channel},
    task::{AbortHandle, spawn_local},
};

use super::{
    book::Launch,
    builder::{AgentBuilder, complete_task},
    core::{Core, Identity, SeatId, Up},
    journal::{Journal, Killed},
    mischief::Mischief,
    process::CommandLine,
    sandboxes::Sandboxes,
    server::{Doors, Port},
    token::Secret,
};
use crate::door::Started;
use crate::mesos::v1::{
    AgentId, AgentInfo, ExecutorInfo, FrameworkInfo, KillPolicy, Resource, TaskInfo, TaskState, TaskStatus,
    executor::{Event, event},
};

/// Entries an agent's journal keeps for whoever looks after an accident.
const REMEMBERED: usize = 10_000;

/// How long executors outlive a cluster that was killed.
const RECOVERY: Duration = Duration::from_secs(3);

const MAX_CONNECTIONS: usize = 1 << 16;

/// Who and where an agent is to be.
#[derive(Debug, Clone)]
pub(in crate::loopback) struct Site {
    pub id: AgentId,
    pub hostname: String,
    /// The process name, `slave(1)`.
    pub process: String,
    pub address: IpAddr,
    pub work_dir: PathBuf,
    pub resources: Vec<Resource>,
    /// What runs executors of type DEFAULT.
    pub default_executor: CommandLine,
    pub environment: Vec<(String, String)>,
    /// Its executors are entered here.
    pub started: Started,
}

/// What a master hears of its agents.
#[derive(Debug)]
pub(in crate::loopback) enum News {
    Status {
        framework: String,
        status: Arc<TaskStatus>,
    },
    Message {
        framework: String,
        executor: String,
        data: Vec<u8>,
    },
    Ended {
        framework: String,
        executor: String,
        status: ExitStatus,
    },
}

/// Lives on a `LocalSet`. Dropped, it kills and reaps its executors.
pub(in crate::loopback) struct Hosted {
    core: Rc<std::cell::RefCell<Core>>,
    default_executor: CommandLine,
    seats: HashMap<(String, String), SeatId>,
    /// Statuses of tasks that never reached an executor go this way too.
    news: UnboundedSender<News>,
    relay: AbortHandle,
    _doors: Doors,
    _port: Port,
}

impl Hosted {
    pub fn open(site: Site, news: UnboundedSender<News>) -> io::Result<Self> {
        let port = Port::reserve(site.address)?;
        let address = port.address();
        let identity = Identity {
            info: AgentInfo {
                hostname: site.hostname,
                port: Some(i32::from(address.port())),
                resources: site.resources,
                id: Some(site.id.clone()),
                ..Default::default()
            },
            id: site.id.value,
            process: site.process,
            address,
            domain_socket: None,
            work_dir: site.work_dir,
            secret: Secret::random(),
            token_needed: false,
            started: site.started,
        };
        let mut flags = AgentBuilder::default_flags();
        flags.executor_environment.extend(site.environment);
        // These agents never come back without their executors: who loses them has lost the whole cluster.
        flags.recovery_timeout = RECOVERY;
        // Two for each executor, and an agent may run thousands.
        flags.max_connections = MAX_CONNECTIONS;
        let journal = Arc::new(Journal::forgetful(REMEMBERED));
        let core = Core::new(journal, flags, identity, Mischief::default());
        let doors = Doors::open(&core, &port, None)?;
        let (upward, mut inbox) = unbounded_channel();
        core.borrow_mut().report_to(upward);
        let (station, master) = (core.clone(), news.clone());
        let relay = spawn_local(async move {
            let mut sandboxes = Sandboxes::default();
            while let Some((seat, up)) = inbox.recv().await {
                if let Some(told) = translate(&mut station.borrow_mut(), seat, up, &mut sandboxes) {
                    // A master that is gone misses nothing.
                    let _ = master.send(told);
                }
            }
        });
        Ok(Hosted {
            core,
            default_executor: site.default_executor,
            seats: HashMap::new(),
            news,
            relay: relay.abort_handle(),
            _doors: doors,
            _port: port,
        })
    }

    /// Brings tasks to an executor. True if it had to be started; then its end will be told.
    pub fn launch(
        &mut self,
        framework: FrameworkInfo,
        executor: ExecutorInfo,
        tasks: Vec<TaskInfo>,
        singly: bool,
    ) -> bool {
        let name = framework.id.clone().unwrap_or_default().value;
        let key = (name.clone(), executor.executor_id.value.clone());
        let agent = self.core.borrow().identity.id.clone();
        // One that is on its way out turns the tasks away itself, as a real agent does.
        let known = self.seats.get(&key).copied();
        let seat = match known {
            Some(seat) => seat,
            None => {
                let own = CommandLine::of(&executor);
                let command = own.as_ref().unwrap_or(&self.default_executor);
                match self
                    .core
                    .borrow_mut()
                    .run_executor(framework, executor.clone(), command)
                {
                    Ok(seat) => {
                        self.seats.insert(key, seat);
                        seat
                    }
                    Err(error) => {
                        let message = format!("The agent cannot start {command}: {error}");
                        self.fail(&name, &executor, &agent, &tasks, &message);
                        return true;
                    }
                }
            }
        };
        let complete = |task| Arc::new(complete_task(task, &agent, &executor));
        let tasks: Vec<Arc<TaskInfo>> = tasks.into_iter().map(complete).collect();
        let mut core = self.core.borrow_mut();
        match singly {
            true => tasks
                .into_iter()
                .for_each(|task| core.launch(seat, Launch::Task(task))),
            false => core.launch(seat, Launch::Group(tasks)),
        }
        known.is_none()
    }

    /// An executor that cannot even be started fails all its tasks.
    fn fail(&self, framework: &str, executor: &ExecutorInfo, agent: &str, tasks: &[TaskInfo], message: &str) {
        use crate::mesos::v1::task_status::{Reason, Source};
        for task in tasks {
            let status = Arc::new(TaskStatus {
                task_id: task.task_id.clone(),
                state: TaskState::TaskFailed as i32,
                message: Some(message.to_owned()),
                source: Some(Source::Agent as i32),
                reason: Some(Reason::ContainerLaunchFailed as i32),
                agent_id: Some(AgentId {
                    value: agent.to_owned(),
                }),
                uuid: Some(uuid::Uuid::new_v4().as_bytes().to_vec()),
                ..Default::default()
            });
            let _ = self.news.send(News::Status {
                framework: framework.to_owned(),
                status,
            });
        }
        let ended = News::Ended {
            framework: framework.to_owned(),
            executor: executor.executor_id.value.clone(),
            status: ExitStatus::default(),
        };
        let _ = self.news.send(ended);
    }

    fn seat(&self, framework: &str, executor: &str) -> Option<SeatId> {
        self.seats
            .get(&(framework.to_owned(), executor.to_owned()))
            .copied()
    }

    pub fn kill(&mut self, framework: &str, executor: &str, task: &str, policy: Option<KillPolicy>) {
        if let Some(seat) = self.seat(framework, executor)
            && let Err(error) = self.core.borrow_mut().kill(seat, task, policy)
        {
            tracing::debug!("{error}");
        }
    }

    pub fn shutdown(&mut self, framework: &str, executor: &str) {
        if let Some(seat) = self.seat(framework, executor) {
            self.core.borrow_mut().shutdown(seat);
        }
    }

    pub fn message(&mut self, framework: &str, executor: &str, data: Vec<u8>) {
        if let Some(seat) = self.seat(framework, executor) {
            let message = Some(event::Message { data });
            let kind = Some(event::Type::Message as i32);
            self.core.borrow_mut().send(
                seat,
                Event {
                    r#type: kind,
                    message,
                    ..Default::default()
                },
            );
        }
    }

    /// Sends SUBSCRIBED executors home; what does not go in its grace period is killed.
    pub fn shutdown_all(&mut self) {
        for seat in self.seats.values() {
            self.core.borrow_mut().shutdown(*seat);
        }
    }

    /// Kills every executor at once.
    pub fn destroy_all(&mut self) {
        for seat in self.seats.values() {
            self.core.borrow_mut().destroy(*seat, Killed::Harness);
        }
    }

    /// Drops what is remembered of an executor that has ended.
    pub fn forget(&mut self, framework: &str, executor: &str) {
        let key = (framework.to_owned(), executor.to_owned());
        if self
            .seats
            .get(&key)
            .is_some_and(|seat| !self.core.borrow().is_open(*seat))
        {
            self.seats.remove(&key);
        }
    }
}

impl Drop for Hosted {
    fn drop(&mut self) {
        self.relay.abort();
        self.core.borrow_mut().dissolve();
    }
}

fn translate(core: &mut Core, id: SeatId, up: Up, sandboxes: &mut Sandboxes) -> Option<News> {
    let seat = core.seat(id)?;
    let framework = seat.framework.id.clone().unwrap_or_default().value;
    let executor = seat.executor.executor_id.value.clone();
    Some(match up {
        Up::Status(status) => News::Status { framework, status },
        Up::Message(data) => News::Message {
            framework,
            executor,
            data,
        },
        Up::Ended(status) => {
            if let Some(sandbox) = core.forget(id) {
                sandboxes.ended(sandbox);
            }
            News::Ended {
                framework,
                executor,
                status,
            }
        }
    })
}
