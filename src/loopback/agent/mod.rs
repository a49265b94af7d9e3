//! A Mesos agent for one executor, as far as an executor can tell.
//!
//! It serves the v1 executor API over TCP and a domain socket, starts any executor command in the environment and
//! sandbox of a real agent, keeps the same books, goes away and recovers, and misbehaves on request.
//!
//! ```text
//! Agent ── commands ──▶ agent's thread: server ─▶ http ─▶ core ─▶ book
//!   ▲                                                       │
//!   └────────────── journal: every event and call ◀─────────┘
//! ```
//!
//! The agent lives on a thread and runtime of its own, so that a test may block as it likes without holding up the
//! protocol. Methods of [`Agent`] return when the thread has done what they ask; what comes of it is waited for with
//! [`Agent::wait_for`].

mod book;
mod builder;
mod core;
mod hosted;
mod http;
mod journal;
mod line;
mod link;
mod mischief;
mod outcome;
mod process;
pub(in crate::loopback) mod rules;
mod sandboxes;
mod server;
mod station;
mod status;
mod token;
mod violation;
mod workdir;

use std::{
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::sys::signal::Signal;
use tokio::{sync::mpsc as queue, task::spawn_local};

pub(in crate::loopback) use self::hosted::{Hosted, News, Site};
pub use self::{
    book::{Stage, TaskRecord, Update, is_terminal},
    builder::{AgentBuilder, StartError, default_executor},
    core::UnknownTask,
    journal::{Entry, History, Journal, Killed, Phase, What},
    line::line,
    mischief::Chunks,
    outcome::{Outcome, TaskEnd},
    process::CommandLine,
    violation::Violation,
};
use self::{
    builder::{LaunchRequest, Plan},
    link::{Order, Use},
    station::{Command, Station},
};
use crate::mesos::v1::{ExecutorInfo, KillPolicy, TaskGroupInfo, TaskInfo, executor::Event};

/// How long a killed executor may take to be gone.
const REAPING: Duration = Duration::from_secs(10);

/// A running agent. Dropped, it kills its executor and takes its temporary directory with it.
#[derive(Debug)]
pub struct Agent {
    commands: Option<queue::UnboundedSender<Command>>,
    thread: Option<JoinHandle<()>>,
    journal: Arc<Journal>,
    facts: Facts,
    patience: Duration,
}

/// Who is who; fixed at the start.
#[derive(Debug, Clone)]
pub struct Facts {
    pub agent_id: String,
    pub framework_id: String,
    pub executor: ExecutorInfo,
    pub container_id: String,
    /// The executor's sandbox.
    pub sandbox: PathBuf,
    pub endpoint: SocketAddr,
    /// As in `MESOS_SLAVE_PID`.
    pub agent_pid: String,
    pub domain_socket: Option<PathBuf>,
    /// The executor's process, which leads a process group of its own.
    pub pid: u32,
}

/// Which of the executor's connections are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connections {
    /// The one that carries events.
    Stream,
    /// Those that carry calls.
    Calls,
    Both,
}

/// Something to be done at a given time.
#[derive(Debug, Clone)]
pub enum Action {
    Kill(String),
    Shutdown,
    /// Away, 404, 503, recovery: each of the first three for this long.
    Restart(Duration),
}

/// What was waited for did not come. Prints the whole history.
pub struct NotSeen {
    awaited: String,
    patience: Duration,
    pub history: History,
}

impl fmt::Display for NotSeen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NotSeen {
            awaited,
            patience,
            history,
        } = self;
        write!(
            f,
            "not seen within {patience:?}: {awaited}; what happened:\n{history}"
        )
    }
}

// Tests unwrap: the history has to be readable there too.
impl fmt::Debug for NotSeen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for NotSeen {}

/// Tells a running agent's watchers that its user wants an end of it.
#[derive(Debug, Clone)]
pub struct Interrupter(Arc<Journal>);

impl Interrupter {
    pub fn interrupt(&self) {
        self.0.record(What::Interrupted);
    }
}

impl Agent {
    pub fn builder() -> AgentBuilder {
        AgentBuilder::default()
    }

    fn start(plan: Plan, journal: Journal, patience: Duration) -> Result<Agent, StartError> {
        let journal = Arc::new(journal);
        let (commands, inbox) = queue::unbounded_channel();
        let (ready, started) = mpsc::sync_channel(1);
        let pen = journal.clone();
        let thread = thread::Builder::new()
            .name("loopback-agent".into())
            .spawn(move || station::run(plan, pen, inbox, ready))
            .map_err(StartError::Thread)?;
        let facts = started
            .recv()
            .unwrap_or_else(|_| Err(StartError::Thread(io::Error::other("it ended before it began"))))?;
        Ok(Agent {
            commands: Some(commands),
            thread: Some(thread),
            journal,
            facts,
            patience,
        })
    }

    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The executor's sandbox.
    pub fn sandbox(&self) -> &Path {
        &self.facts.sandbox
    }

    pub fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// A copy of everything that happened so far.
    pub fn history(&self) -> History {
        self.journal.history()
    }

    pub fn interrupter(&self) -> Interrupter {
        Interrupter(self.journal.clone())
    }

    // ---- what a scheduler would have the agent do

    /// Brings another group to the executor.
    pub fn launch(&self, group: TaskGroupInfo) {
        self.with(move |station| station.launch(LaunchRequest::Group(group)));
    }

    /// Brings a single task to the executor, by LAUNCH.
    pub fn launch_task(&self, task: TaskInfo) {
        self.with(move |station| station.launch(LaunchRequest::Task(Box::new(task))));
    }

    pub fn kill(&self, task: &str) -> Result<(), UnknownTask> {
        self.kill_with(task, None)
    }

    /// As an agent does: a task not yet delivered ends by the agent's word, an unknown one is an error.
    pub fn kill_with(&self, task: &str, policy: Option<KillPolicy>) -> Result<(), UnknownTask> {
        let name = task.to_owned();
        let done = self.with(move |station| station.core.borrow_mut().kill(station.seat, &name, policy));
        done.unwrap_or_else(|| Err(UnknownTask(task.to_owned())))
    }

    /// SHUTDOWN, and the end of the executor when its grace period is over.
    pub fn shutdown(&self) {
        self.with(|station| station.core.borrow_mut().shutdown(station.seat));
    }

    /// Opaque bytes from the scheduler.
    pub fn message(&self, data: &[u8]) {
        use crate::mesos::v1::executor::event;
        let message = event::Message { data: data.to_vec() };
        self.send(Event {
            r#type: Some(event::Type::Message as i32),
            message: Some(message),
            ..Default::default()
        });
    }

    /// Sends any event, past the agent's books: a KILL for an unknown task, a group that was sent before, an ERROR.
    pub fn send(&self, event: Event) {
        self.with(move |station| station.core.borrow_mut().send(station.seat, event));
    }

    /// Does something later; the time counts from now.
    pub fn schedule(&self, after: Duration, action: Action) {
        self.with(move |station| {
            let station = station.clone();
            spawn_local(async move {
                tokio::time::sleep(after).await;
                station.act(action).await;
            });
        });
    }

    // ---- what goes wrong

    /// Puts bytes on the event stream as they are: not a record, half a record, a record of nonsense.
    pub fn send_raw(&self, bytes: &[u8]) {
        self.raw(bytes, false);
    }

    /// Puts bytes on the event stream and closes the connection behind them.
    pub fn send_raw_and_cut(&self, bytes: &[u8]) {
        self.raw(bytes, true);
    }

    fn raw(&self, bytes: &[u8], cut: bool) {
        let bytes = bytes.to_vec();
        self.with(move |station| station.core.borrow_mut().send_raw(station.seat, &bytes, cut));
    }

    /// Closes connections; the agent itself stays. Says how many there were.
    pub fn cut(&self, which: Connections) -> usize {
        self.order(which, Order::Cut)
    }

    /// Stops reading from and writing to connections without closing them, as if the way there was lost.
    pub fn freeze(&self, which: Connections) -> usize {
        self.order(which, Order::Freeze)
    }

    fn order(&self, which: Connections, order: Order) -> usize {
        let chosen = move |used| match which {
            Connections::Stream => used == Use::Stream,
            Connections::Calls => used == Use::Calls,
            Connections::Both => used != Use::Unknown,
        };
        self.with(move |station| station.core.borrow().order(chosen, order))
            .unwrap_or(0)
    }

    /// Lets withheld acknowledgements go, and withholds no more.
    pub fn release_acks(&self) {
        self.with(|station| station.core.borrow_mut().release_acks(station.seat));
    }

    /// From now on keeps acknowledgements back.
    pub fn withhold_acks(&self) {
        self.with(|station| station.core.borrow_mut().mischief.withhold_acks = true);
    }

    /// Answers the next SUBSCRIBE calls with these status codes.
    pub fn answer_subscribe_with(&self, statuses: impl IntoIterator<Item = u16>) {
        let statuses: Vec<u16> = statuses.into_iter().collect();
        self.with(move |station| {
            station
                .core
                .borrow_mut()
                .mischief
                .subscribe_answers
                .extend(statuses)
        });
    }

    /// The agent goes: connections break, new ones are refused, timers stop. Its port stays its own.
    pub fn stop(&self) {
        self.with(|station| station.leave());
    }

    /// The agent is back, but only so far; [`Phase::Recovering`] goes on to [`Phase::Up`] by itself, when executors
    /// have had their time to come back.
    pub fn come_back(&self, phase: Phase) -> io::Result<()> {
        self.with(move |station| station.arrive(phase)).unwrap_or(Ok(()))
    }

    /// Goes and comes back at once, same port, same socket, same agent id.
    pub fn restart(&self) -> io::Result<()> {
        self.stop();
        self.come_back(Phase::Recovering)
    }

    /// Signals the executor itself.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let done = self.with(move |station| {
            let core = station.core.borrow();
            let process = core.seat(station.seat).and_then(|seat| seat.process());
            process.map_or(Ok(()), |process| process.signal(signal))
        });
        done.unwrap_or(Ok(()))
    }

    // ---- what came of it

    /// Waits until it is so.
    pub fn wait_for(&self, awaited: &str, mut is_so: impl FnMut(&History) -> bool) -> Result<(), NotSeen> {
        self.wait_for_some(awaited, |history| is_so(history).then_some(()))
    }

    /// Waits for an answer.
    pub fn wait_for_some<T>(
        &self,
        awaited: &str,
        question: impl FnMut(&History) -> Option<T>,
    ) -> Result<T, NotSeen> {
        self.journal
            .wait_for(self.patience, question)
            .ok_or_else(|| NotSeen {
                awaited: awaited.to_owned(),
                patience: self.patience,
                history: self.history(),
            })
    }

    /// Waits until the executor told this state of each of these tasks.
    pub fn wait_told(&self, tasks: &[&str], state: crate::mesos::v1::TaskState) -> Result<(), NotSeen> {
        let awaited = format!("{} of {}", state.as_str_name(), tasks.join(", "));
        self.wait_for(&awaited, |history| history.all_told(tasks, state))
    }

    /// The agent's books.
    pub fn tasks(&self) -> Vec<TaskRecord> {
        let tasks = self.with(|station| station.tasks());
        tasks.unwrap_or_default()
    }

    /// Waits for the executor to end, as long as patience lasts, then ends it.
    pub fn finish(self) -> Outcome {
        if self
            .journal
            .wait_for(self.patience, |history| history.is_settled().then_some(()))
            .is_none()
        {
            self.end();
        }
        Outcome::new(self.history(), &self.tasks())
    }

    /// Ends the executor now.
    pub fn abandon(self) -> Outcome {
        self.end();
        Outcome::new(self.history(), &self.tasks())
    }

    fn end(&self) {
        self.with(|station| station.core.borrow_mut().destroy_all());
        self.journal.wait_for(REAPING, |history| history.exit());
    }

    /// Has the agent's thread do something, and waits for it to be done. None if the thread is gone.
    fn with<R: Send + 'static>(&self, what: impl FnOnce(&Rc<Station>) -> R + Send + 'static) -> Option<R> {
        let (done, result) = mpsc::sync_channel(1);
        let command: Command = Box::new(move |station| {
            // The caller waits; were it gone, nobody would miss the result.
            let _ = done.send(what(station));
        });
        self.commands.as_ref()?.send(command).ok()?;
        result.recv().ok()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // The closed queue ends the thread, and that ends the rest.
        self.commands = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the loopback agent's thread panicked");
        }
    }
}
