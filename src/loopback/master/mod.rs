//! A Mesos cluster on one machine: a master that any scheduler can subscribe to, and agents that run real executors.
//!
//! ```text
//!  scheduler ◀─HTTP─▶ server ─▶ core ──orders──▶ agents ◀─HTTP─▶ executors
//!                                 ▲────news───────┘
//! ```
//!
//! The cluster lives on a thread and runtime of its own; [`Cluster`] is its handle.

mod amounts;
mod core;
mod server;

use std::{
    cell::RefCell,
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::ExitStatus,
    rc::Rc,
    sync::mpsc,
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    net::TcpListener,
    runtime,
    sync::{
        Notify,
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    },
    task::{LocalSet, spawn_local},
};

pub use self::amounts::BadResources;
use self::{
    core::{Core, Down, Out},
    server::Streams,
};
use super::agent::{CommandLine, Hosted, News, Site};
use crate::{
    door::{Guard, Keeper, Listener, Peers, Started, Token},
    mesos::v1,
};

/// What a cluster is to be like.
#[derive(Debug, Clone)]
pub struct Options {
    pub listen: SocketAddr,
    pub agents: usize,
    /// Of each agent, in Mesos' text form.
    pub resources: String,
    /// What runs executors of type DEFAULT.
    pub default_executor: CommandLine,
    /// Sandboxes go below; it has to exist.
    pub work_dir: PathBuf,
    /// Added to every executor's environment.
    pub executor_environment: Vec<(String, String)>,
    pub access: Access,
}

/// Who may use the master's API: the owner, and whoever shows the token.
#[derive(Debug, Clone, Default)]
pub struct Access {
    pub token: Option<Token>,
    /// Everybody may, whoever they are.
    pub insecure: bool,
    /// The executors of this cluster are entered here.
    pub started: Started,
}

impl Access {
    /// To be made on the thread that listens.
    fn keeper(&self) -> Keeper {
        match self.insecure {
            true => Keeper::insecure(),
            false => Keeper::new(Guard {
                token: self.token.clone(),
                peers: Peers::open(self.started.clone()),
                ..Guard::default()
            }),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Resources(#[from] BadResources),
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("cannot start an agent: {0}")]
    Agent(io::Error),
    #[error("cannot start the cluster's thread: {0}")]
    Thread(io::Error),
}

/// A running cluster. Dropped, it kills every executor at once.
#[derive(Debug)]
pub struct Cluster {
    address: SocketAddr,
    commands: Option<UnboundedSender<Command>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Command {
    /// Sends all executors home, and answers when the last has gone.
    Drain(tokio::sync::oneshot::Sender<()>),
    DestroyAll,
    FailOver,
    AgentsReturn,
    Look(mpsc::SyncSender<Vec<LiveTask>>),
}

/// A task that has not ended, in the master's books.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LiveTask {
    pub id: String,
    pub framework: String,
    pub executor: String,
    /// The index of its agent.
    pub agent: usize,
}

impl Cluster {
    pub fn start(options: Options) -> Result<Self, StartError> {
        let (commands, inbox) = unbounded_channel();
        let (ready, started) = mpsc::sync_channel(1);
        let thread = thread::Builder::new()
            .name("loopback-master".to_owned())
            .spawn(move || run(options, inbox, &ready))
            .map_err(StartError::Thread)?;
        let ended = || StartError::Thread(io::Error::other("it ended before it began"));
        let address = started.recv().unwrap_or_else(|_| Err(ended()))?;
        Ok(Cluster {
            address,
            commands: Some(commands),
            thread: Some(thread),
        })
    }

    /// Where schedulers find the master.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends every executor home, with its grace period, and waits for the last to be gone.
    pub async fn drain(&self) {
        let (done, gone) = tokio::sync::oneshot::channel();
        if let Some(commands) = &self.commands
            && commands.send(Command::Drain(done)).is_ok()
        {
            let _ = gone.await;
        }
    }

    /// Every task that has not ended, of every framework, by id.
    pub fn live_tasks(&self) -> Vec<LiveTask> {
        let (answer, looked) = mpsc::sync_channel(1);
        if let Some(commands) = &self.commands {
            let _ = commands.send(Command::Look(answer));
        }
        looked.recv().unwrap_or_default()
    }

    /// Puts a master with an empty registry in the place of this one; see [`Cluster::agents_return`].
    pub fn fail_over(&self) {
        if let Some(commands) = &self.commands {
            let _ = commands.send(Command::FailOver);
        }
    }

    /// Lets the agents register with the master they have not found since [`Cluster::fail_over`].
    pub fn agents_return(&self) {
        if let Some(commands) = &self.commands {
            let _ = commands.send(Command::AgentsReturn);
        }
    }

    /// Kills every executor now.
    pub fn destroy_all(&self) {
        if let Some(commands) = &self.commands {
            let _ = commands.send(Command::DestroyAll);
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The closed queue ends the thread, and that ends the rest.
        self.commands = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the loopback master's thread panicked");
        }
    }
}

/// What the cluster's thread holds.
struct Station {
    core: Core,
    agents: Vec<Hosted>,
    streams: Streams,
    begin: Instant,
    /// Rung by every step.
    changed: Rc<Notify>,
    /// Executors that run, to know when the last has gone.
    executors: usize,
    draining: Vec<tokio::sync::oneshot::Sender<()>>,
}

impl Station {
    /// Lets the core decide something, and does what follows.
    fn step<T>(&mut self, decide: impl FnOnce(&mut Core, &mut Out) -> T) -> T {
        let wall = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs_f64();
        let mut out = Out::default();
        let result = decide(self.core.at(self.begin.elapsed(), wall), &mut out);
        for (framework, event) in out.events {
            self.streams.send(&framework, &event);
        }
        for framework in out.close {
            self.streams.close(&framework);
        }
        for down in out.down {
            self.obey(down);
        }
        self.changed.notify_one();
        result
    }

    fn obey(&mut self, down: Down) {
        let index = match &down {
            Down::Launch { agent, .. }
            | Down::Kill { agent, .. }
            | Down::Shutdown { agent, .. }
            | Down::Message { agent, .. } => *agent,
        };
        let Some(agent) = self.agents.get_mut(index) else {
            return;
        };
        match down {
            Down::Launch {
                framework,
                executor,
                tasks,
                singly,
                ..
            } => {
                let name = (
                    framework.id.clone().unwrap_or_default().value,
                    executor.executor_id.value.clone(),
                );
                self.executors += usize::from(agent.launch(*framework, *executor, tasks, singly));
                if !self.draining.is_empty() {
                    // It was on its way when all were sent home.
                    agent.shutdown(&name.0, &name.1);
                }
            }
            Down::Kill {
                framework,
                executor,
                task,
                policy,
                ..
            } => agent.kill(&framework, &executor, &task, policy),
            Down::Shutdown {
                framework, executor, ..
            } => agent.shutdown(&framework, &executor),
            Down::Message {
                framework,
                executor,
                data,
                ..
            } => agent.message(&framework, &executor, data),
        }
    }

    fn heard(&mut self, agent: usize, news: News) {
        match news {
            News::Status { framework, status } => {
                self.step(|core, out| core.forwarded(&framework, status, out))
            }
            News::Message {
                framework,
                executor,
                data,
            } => self.step(|core, out| core.said(agent, &framework, &executor, data, out)),
            News::Ended {
                framework,
                executor,
                status,
            } => {
                if let Some(host) = self.agents.get_mut(agent) {
                    host.forget(&framework, &executor);
                }
                self.executors = self.executors.saturating_sub(1);
                let status = wait_status(status);
                self.step(|core, out| core.ended(agent, &framework, &executor, status, out));
                self.tell_when_empty();
            }
        }
    }

    fn tell_when_empty(&mut self) {
        if self.executors == 0 {
            for done in self.draining.drain(..) {
                let _ = done.send(());
            }
        }
    }
}

/// As Mesos reports it: the raw wait status.
fn wait_status(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.into_raw()
}

fn run(
    options: Options,
    mut inbox: UnboundedReceiver<Command>,
    ready: &mpsc::SyncSender<Result<SocketAddr, StartError>>,
) {
    let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = ready.send(Err(StartError::Thread(error)));
            return;
        }
    };
    let tasks = LocalSet::new();
    tasks.block_on(&runtime, async move {
        let (station, address) = match set_up(&options).await {
            Ok(set_up) => set_up,
            Err(error) => {
                let _ = ready.send(Err(error));
                return;
            }
        };
        let _ = ready.send(Ok(address));
        while let Some(command) = inbox.recv().await {
            let mut station = station.borrow_mut();
            match command {
                Command::Drain(done) => {
                    station.draining.push(done);
                    station.agents.iter_mut().for_each(Hosted::shutdown_all);
                    station.tell_when_empty();
                }
                Command::Look(answer) => {
                    let _ = answer.send(station.core.live_tasks());
                }
                Command::FailOver => station.step(|core, out| core.fail_over(out)),
                Command::AgentsReturn => station.step(|core, out| core.agents_return(out)),
                Command::DestroyAll => station.agents.iter_mut().for_each(Hosted::destroy_all),
            }
        }
        // Executors are killed and reaped with their agents.
        station.borrow_mut().agents.clear();
    });
}

async fn set_up(options: &Options) -> Result<(Rc<RefCell<Station>>, SocketAddr), StartError> {
    let resources = amounts::parse(&options.resources)?;
    let address = options.listen;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| StartError::Listen { address, source })?;
    let address = listener
        .local_addr()
        .map_err(|source| StartError::Listen { address, source })?;
    let id = uuid::Uuid::new_v4().to_string();
    let (news, mut heard) = unbounded_channel();
    let mut agents = Vec::new();
    let mut known = Vec::new();
    for index in 0..options.agents {
        let agent = v1::AgentId {
            value: format!("{id}-S{index}"),
        };
        let hostname = format!("agent{}.loopback", index + 1);
        known.push((agent.clone(), hostname.clone(), resources.clone()));
        let site = Site {
            id: agent,
            hostname,
            process: format!("slave({})", index + 1),
            address: IpAddr::from([127, 0, 0, 1]),
            work_dir: options.work_dir.clone(),
            resources: resources.clone(),
            default_executor: options.default_executor.clone(),
            environment: options.executor_environment.clone(),
            started: options.access.started.clone(),
        };
        let (tell, mut told): (UnboundedSender<News>, _) = unbounded_channel();
        agents.push(Hosted::open(site, tell).map_err(StartError::Agent)?);
        let news = news.clone();
        spawn_local(async move {
            while let Some(one) = told.recv().await {
                let _ = news.send((index, one));
            }
        });
    }
    let info = v1::MasterInfo {
        id,
        port: u32::from(address.port()),
        ip: match address.ip() {
            IpAddr::V4(ip) => u32::from_ne_bytes(ip.octets()),
            IpAddr::V6(_) => 0,
        },
        hostname: Some("localhost".to_owned()),
        ..Default::default()
    };
    let station = Rc::new(RefCell::new(Station {
        core: Core::new(info, known),
        agents,
        streams: Streams::default(),
        begin: Instant::now(),
        changed: Rc::default(),
        executors: 0,
        draining: Vec::new(),
    }));
    spawn_local(server::serve(
        station.clone(),
        Listener::Tcp(listener),
        options.access.keeper(),
    ));
    let listener = station.clone();
    spawn_local(async move {
        while let Some((agent, news)) = heard.recv().await {
            listener.borrow_mut().heard(agent, news);
        }
    });
    spawn_local(keep_time(station.clone()));
    Ok((station, address))
}

/// Heartbeats, and whatever else is due.
async fn keep_time(station: Rc<RefCell<Station>>) {
    // Deadlines come and go with every step. They are looked at this long after one, and not for each of many; a
    // cluster where nothing happens sleeps.
    const PACE: Duration = Duration::from_millis(100);
    let (begin, changed) = {
        let station = station.borrow();
        (station.begin, station.changed.clone())
    };
    let mut next_beat = core::HEARTBEAT;
    loop {
        let due = station.borrow().core.deadline();
        let due = begin + due.map_or(next_beat, |due| due.min(next_beat));
        tokio::select! {
            () = tokio::time::sleep_until(due.into()) => {}
            () = changed.notified() => tokio::time::sleep(PACE).await,
        }
        let mut station = station.borrow_mut();
        let now = begin.elapsed();
        if station.core.deadline().is_some_and(|deadline| deadline <= now) {
            station.step(|core, out| core.tick(out));
        }
        if now >= next_beat {
            next_beat = now + core::HEARTBEAT;
            let frameworks = station.streams.open();
            station.step(|core, out| frameworks.iter().for_each(|framework| core.beat(framework, out)));
        }
    }
}
