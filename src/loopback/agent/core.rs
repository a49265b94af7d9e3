//! The agent itself: its executors and what it does for, with and to them (wire file, sections 10 to 14).
//!
//! Everything here runs on the agent's one thread and never waits: connections, timers and the driving test call in,
//! one after the other.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    io,
    net::SocketAddr,
    path::PathBuf,
    process::ExitStatus,
    rc::{Rc, Weak},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{sync::mpsc::UnboundedSender, task::AbortHandle};

use super::{
    book::{Book, KillVerdict, Launch, TaskRecord, Violation},
    journal::{Journal, Killed, Phase, What},
    link::{Events, Item, Link, Order, Use},
    mischief::Mischief,
    process::{self, CommandLine, Executor, Surroundings},
    rules::Refusal,
    status::{self, Known},
    token::{Claims, Secret},
};
use crate::mesos::{
    codec::Encoding,
    recordio,
    v1::{
        AgentInfo, ContainerId, ExecutorInfo, FrameworkInfo, KillPolicy, TaskId, TaskInfo, TaskState,
        TaskStatus,
        executor::{Call, Event, call, event},
        task_status::Reason,
    },
};

/// The agent's flags, with their real names and defaults where a real agent has them.
#[derive(Debug)]
pub(super) struct Flags {
    pub executor_registration_timeout: Duration,
    pub executor_reregistration_timeout: Duration,
    pub executor_shutdown_grace_period: Duration,
    pub recovery_timeout: Duration,
    pub heartbeat_interval: Duration,
    pub executor_environment: BTreeMap<String, String>,
    /// Longest request body.
    pub max_body: usize,
    pub max_connections: usize,
}

/// Who and where the agent is.
#[derive(Debug)]
pub(super) struct Identity {
    pub info: AgentInfo,
    pub id: String,
    /// The process name, `slave(1)`.
    pub process: String,
    pub address: SocketAddr,
    pub domain_socket: Option<PathBuf>,
    pub work_dir: PathBuf,
    /// Set if executors have to show a token.
    pub secret: Option<Secret>,
}

impl Identity {
    /// As in `MESOS_SLAVE_PID`.
    pub(super) fn pid(&self) -> String {
        format!("{}@{}", self.process, self.address)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Started, not subscribed; also after a restart of the agent until it comes back.
    Registering,
    Running,
    /// Told to shut down.
    Terminating,
    /// Gone, and its tasks accounted for.
    Terminated,
}

#[derive(Debug)]
struct Stream {
    connection: u64,
    encoding: Encoding,
    items: UnboundedSender<Item>,
}

/// Aborts its task when dropped or replaced.
#[derive(Debug)]
struct Timer(AbortHandle);

impl Drop for Timer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One executor and everything the agent holds for it.
#[derive(Debug)]
pub(super) struct Seat {
    pub framework: Arc<FrameworkInfo>,
    pub executor: Arc<ExecutorInfo>,
    pub container: ContainerId,
    pub sandbox: PathBuf,
    state: State,
    book: Book,
    stream: Option<Stream>,
    process: Option<Executor>,
    /// Registration, re-registration or shutdown grace: there is never more than one at a time.
    deadline: Option<Timer>,
    heartbeat: Option<Timer>,
    withheld: Vec<(String, Vec<u8>)>,
    killed: Option<Killed>,
    /// Its end while the agent was away; looked at on return.
    unseen_exit: Option<ExitStatus>,
    /// A restarted agent knows nothing of executors that were not checkpointed.
    forgotten: bool,
}

impl Seat {
    pub(super) fn tasks(&self) -> &[TaskRecord] {
        self.book.tasks()
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Executor::pid)
    }

    pub(super) fn process(&self) -> Option<&Executor> {
        self.process.as_ref()
    }

    fn checkpoints(&self) -> bool {
        self.framework.checkpoint()
    }
}

/// Names an executor of this agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SeatId(usize);

pub(super) struct Core {
    me: Weak<RefCell<Core>>,
    pub journal: Arc<Journal>,
    pub flags: Flags,
    pub identity: Identity,
    pub mischief: Mischief,
    phase: Phase,
    seats: Vec<Seat>,
    links: HashMap<u64, Rc<Link>>,
    next_link: u64,
    recovery: Option<Timer>,
}

impl Core {
    pub(super) fn new(
        journal: Arc<Journal>,
        flags: Flags,
        identity: Identity,
        mischief: Mischief,
    ) -> Rc<RefCell<Self>> {
        Rc::new_cyclic(|me| {
            RefCell::new(Core {
                me: me.clone(),
                journal,
                flags,
                identity,
                mischief,
                phase: Phase::Up,
                seats: Vec::new(),
                links: HashMap::new(),
                next_link: 0,
                recovery: None,
            })
        })
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    pub(super) fn seat(&self, SeatId(at): SeatId) -> Option<&Seat> {
        self.seats.get(at)
    }

    // ---- connections

    /// Enters a new connection; none if there are too many.
    pub(super) fn connected(&mut self, domain: bool) -> Option<Rc<Link>> {
        if self.links.len() >= self.flags.max_connections {
            return None;
        }
        self.next_link += 1;
        let link = Link::new(self.next_link, domain);
        self.links.insert(link.id, link.clone());
        self.journal.record(What::Connected(link.id));
        Some(link)
    }

    pub(super) fn disconnected(&mut self, link: &Link) {
        self.links.remove(&link.id);
        self.journal.record(What::Disconnected(link.id));
    }

    /// Orders all connections of this use about; says how many there were.
    pub(super) fn order(&self, used: impl Fn(Use) -> bool, order: Order) -> usize {
        let chosen = self.links.values().filter(|link| used(link.used.get()));
        chosen.inspect(|link| link.order(order)).count()
    }

    fn stream_closed(&mut self, connection: u64) {
        self.journal.record(What::StreamClosed(connection));
        for seat in &mut self.seats {
            if seat
                .stream
                .as_ref()
                .is_some_and(|stream| stream.connection == connection)
            {
                seat.stream = None;
                seat.heartbeat = None;
            }
        }
    }

    // ---- executors

    /// Starts an executor.
    pub(super) fn run_executor(
        &mut self,
        framework: FrameworkInfo,
        executor: ExecutorInfo,
        command: &CommandLine,
    ) -> io::Result<SeatId> {
        let framework_id = framework.id.clone().unwrap_or_default().value;
        let container = ContainerId {
            value: uuid::Uuid::new_v4().to_string(),
            parent: None,
        };
        let sandbox = process::make_sandbox(
            &self.identity.work_dir,
            &self.identity.id,
            &framework_id,
            &executor.executor_id.value,
            &container.value,
        )?;
        let claims = || Claims {
            framework: framework_id.clone(),
            executor: executor.executor_id.value.clone(),
            container: container.value.clone(),
        };
        let recovery = (
            self.flags.recovery_timeout,
            self.flags.executor_reregistration_timeout,
        );
        let environment = process::environment(&Surroundings {
            framework: &framework_id,
            executor: &executor,
            agent: &self.identity.id,
            agent_pid: &self.identity.pid(),
            endpoint: self.identity.address,
            sandbox: &sandbox,
            domain_socket: self.identity.domain_socket.as_deref(),
            token: self.identity.secret.as_ref().map(|secret| secret.sign(&claims())),
            shutdown_grace: self.grace(&executor),
            recovery: framework.checkpoint().then_some(recovery),
            operator: &self.flags.executor_environment,
        });

        self.journal.record(What::Starting);
        let process = Executor::spawn(command, &environment, &sandbox)?;
        let end = process.end()?;
        self.journal.record(What::Started { pid: process.pid() });

        let id = SeatId(self.seats.len());
        let capabilities = framework.capabilities.iter().filter_map(|c| c.r#type).collect();
        self.seats.push(Seat {
            framework: Arc::new(framework),
            executor: Arc::new(executor),
            container,
            sandbox,
            state: State::Registering,
            book: Book::new(self.identity.id.clone(), capabilities),
            stream: None,
            process: Some(process),
            deadline: None,
            heartbeat: None,
            withheld: Vec::new(),
            killed: None,
            unseen_exit: None,
            forgotten: false,
        });
        let me = self.me.clone();
        tokio::task::spawn_local(async move {
            let ended = end.await.is_ok();
            if let Some(core) = me.upgrade().filter(|_| ended) {
                core.borrow_mut().executor_ended(id);
            }
        });
        let timeout = self.flags.executor_registration_timeout;
        self.arm(id, timeout, move |core| {
            core.destroy(id, Killed::RegistrationTimeout)
        });
        Ok(id)
    }

    fn grace(&self, executor: &ExecutorInfo) -> Duration {
        let own = executor.shutdown_grace_period.as_ref();
        own.map_or(self.flags.executor_shutdown_grace_period, |period| {
            Duration::from_nanos(u64::try_from(period.nanoseconds).unwrap_or(0))
        })
    }

    fn arm(&mut self, id: SeatId, after: Duration, then: impl FnOnce(&mut Core) + 'static) {
        let timer = self.after(after, then);
        if let Some(seat) = self.seats.get_mut(id.0) {
            seat.deadline = Some(timer);
        }
    }

    fn after(&self, after: Duration, then: impl FnOnce(&mut Core) + 'static) -> Timer {
        let me = self.me.clone();
        let task = tokio::task::spawn_local(async move {
            tokio::time::sleep(after).await;
            if let Some(core) = me.upgrade() {
                then(&mut core.borrow_mut());
            }
        });
        Timer(task.abort_handle())
    }

    /// Brings tasks to an executor as soon as it is subscribed.
    pub(super) fn launch(&mut self, id: SeatId, launch: Launch) {
        let Some(seat) = self.seats.get_mut(id.0) else {
            return;
        };
        seat.book.enqueue(launch);
        match seat.state {
            State::Registering => {}
            State::Running => self.deliver(id),
            State::Terminating | State::Terminated => {
                let withdrawn = seat.book.withdraw_queue();
                let message = "The executor is terminating or has terminated";
                self.end_tasks(
                    id,
                    &withdrawn,
                    self.dropped(id),
                    Reason::ExecutorTerminated,
                    message,
                );
            }
        }
    }

    /// DROPPED, or its name for frameworks that do not know it.
    fn dropped(&self, id: SeatId) -> TaskState {
        match self.seat(id).is_some_and(|seat| seat.book.is_partition_aware()) {
            true => TaskState::TaskDropped,
            false => TaskState::TaskLost,
        }
    }

    fn deliver(&mut self, id: SeatId) {
        while let Some(launch) = self.seats.get_mut(id.0).and_then(|seat| seat.book.deliver()) {
            let owned = |task: Arc<TaskInfo>| Arc::unwrap_or_clone(task);
            let event = match launch {
                Launch::Task(task) => Event {
                    r#type: Some(event::Type::Launch as i32),
                    launch: Some(event::Launch { task: owned(task) }),
                    ..Default::default()
                },
                Launch::Group(tasks) => Event {
                    r#type: Some(event::Type::LaunchGroup as i32),
                    launch_group: Some(event::LaunchGroup {
                        task_group: crate::mesos::v1::TaskGroupInfo {
                            tasks: tasks.into_iter().map(owned).collect(),
                        },
                    }),
                    ..Default::default()
                },
            };
            self.send(id, event);
        }
    }

    pub(super) fn kill(
        &mut self,
        id: SeatId,
        task: &str,
        policy: Option<KillPolicy>,
    ) -> Result<(), UnknownTask> {
        let Some(seat) = self.seats.get_mut(id.0) else {
            return Err(UnknownTask(task.to_owned()));
        };
        match seat.book.kill(task) {
            KillVerdict::Unknown => return Err(UnknownTask(task.to_owned())),
            KillVerdict::Withdrawn(tasks) => {
                let message = "Killed before delivery to the executor";
                self.end_tasks(
                    id,
                    &tasks,
                    TaskState::TaskKilled,
                    Reason::TaskKilledDuringLaunch,
                    message,
                );
            }
            KillVerdict::Deliver if seat.state == State::Terminated => {}
            KillVerdict::Deliver => {
                let kill = event::Kill {
                    task_id: TaskId {
                        value: task.to_owned(),
                    },
                    kill_policy: policy,
                };
                let event = Event {
                    r#type: Some(event::Type::Kill as i32),
                    kill: Some(kill),
                    ..Default::default()
                };
                self.send(id, event);
            }
        }
        Ok(())
    }

    /// Sends SHUTDOWN and gives the executor its grace period.
    pub(super) fn shutdown(&mut self, id: SeatId) {
        let Some(seat) = self.seats.get_mut(id.0) else {
            return;
        };
        if matches!(seat.state, State::Terminating | State::Terminated) {
            return;
        }
        seat.state = State::Terminating;
        let executor = seat.executor.clone();
        self.send(id, shutdown_event());
        self.arm(id, self.grace(&executor), move |core| {
            core.destroy(id, Killed::ShutdownGrace)
        });
    }

    /// Kills an executor and all that is left of it; what follows from that comes with its exit.
    pub(super) fn destroy(&mut self, id: SeatId, why: Killed) {
        let Some(seat) = self.seats.get_mut(id.0) else {
            return;
        };
        if let Some(process) = &seat.process {
            seat.killed.get_or_insert(why);
            process.destroy();
        }
    }

    pub(super) fn destroy_all(&mut self) {
        (0..self.seats.len()).for_each(|at| self.destroy(SeatId(at), Killed::Harness));
    }

    /// The end of the agent itself: kills and reaps every executor.
    pub(super) fn dissolve(&mut self) {
        self.seats.clear();
    }

    /// Sends any event, past the bookkeeping. Without a stream it is lost, as with a real agent.
    pub(super) fn send(&mut self, id: SeatId, event: Event) {
        let event = Arc::new(event);
        let Some(seat) = self.seats.get(id.0) else { return };
        let Some(stream) = seat.stream.as_ref().filter(|stream| !stream.items.is_closed()) else {
            return self.journal.record(What::Lost(event));
        };
        let record = recordio::frame(&self.mischief.payload(&event, stream.encoding));
        if self.mischief.unknown_events {
            let unknown = recordio::frame(&Mischief::unknown_event(stream.encoding));
            let _ = stream.items.send(Item::Bytes(unknown));
        }
        // Stamped before it is handed on: what the executor answers must come later.
        self.journal.record(What::Event(event));
        let _ = stream.items.send(Item::Bytes(record));
    }

    /// Puts bytes on the stream as they are; with `cut`, closes the connection behind them.
    pub(super) fn send_raw(&mut self, id: SeatId, bytes: &[u8], cut: bool) {
        let Some(stream) = self.seats.get(id.0).and_then(|seat| seat.stream.as_ref()) else {
            return;
        };
        let _ = stream.items.send(Item::Bytes(bytes.to_vec().into()));
        if cut {
            let _ = stream.items.send(Item::Cut);
        }
    }

    // ---- calls

    /// Finds the executor that a call names.
    pub(super) fn find(&self, call: &Call) -> Result<SeatId, Refusal> {
        let known = |seat: &&Seat| !seat.forgotten;
        let of_framework = |seat: &&Seat| seat.framework.id.as_ref() == Some(&call.framework_id);
        if !self.seats.iter().filter(known).any(|seat| of_framework(&seat)) {
            return Err(Refusal::new(400, "Framework cannot be found"));
        }
        let found = self.seats.iter().rposition(|seat| {
            known(&seat) && of_framework(&seat) && seat.executor.executor_id == call.executor_id
        });
        found
            .map(SeatId)
            .ok_or_else(|| Refusal::new(400, "Executor cannot be found"))
    }

    pub(super) fn is_registering(&self, id: SeatId) -> bool {
        self.seat(id).is_some_and(|seat| seat.state == State::Registering)
    }

    /// Installs a new stream in the place of an older one and brings both sides up to date.
    pub(super) fn subscribe(
        &mut self,
        id: SeatId,
        subscribe: &call::Subscribe,
        link: &Rc<Link>,
        encoding: Encoding,
    ) -> Option<Events> {
        let me = self.me.clone();
        let on_close = Box::new(move |connection| {
            // A stream dies with its connection's task, never while the core is at work; were it so, the next
            // event would find the stream closed.
            if let Some(core) = me.upgrade()
                && let Ok(mut core) = core.try_borrow_mut()
            {
                core.stream_closed(connection);
            }
        });
        let (items, events) = Events::new(link.clone(), self.mischief.chunks, on_close);
        self.journal.record(What::StreamOpened(link.id, encoding));
        let seat = self.seats.get_mut(id.0)?;
        seat.stream = Some(Stream {
            connection: link.id,
            encoding,
            items,
        });

        if matches!(seat.state, State::Terminating | State::Terminated) || seat.book.is_pointless() {
            self.send(id, shutdown_event());
            if seat_state(self, id) == Some(State::Registering) {
                self.shutdown_pointless(id);
            }
            self.seats.get_mut(id.0)?.stream = None;
            return Some(events);
        }

        seat.state = State::Running;
        seat.deadline = None;
        let subscribed = Event {
            r#type: Some(event::Type::Subscribed as i32),
            subscribed: Some(event::Subscribed {
                executor_info: (*seat.executor).clone(),
                framework_info: (*seat.framework).clone(),
                agent_info: self.identity.info.clone(),
                container_id: Some(seat.container.clone()),
            }),
            ..Default::default()
        };
        self.send(id, subscribed);
        self.beat(id);
        for update in &subscribe.unacknowledged_updates {
            self.update(id, &update.status);
        }
        let missing = self.seat(id)?.book.missing(subscribe.unacknowledged_tasks.iter());
        let message = "The task was not known to the executor that re-subscribed";
        self.end_tasks(id, &missing, self.dropped(id), Reason::AgentRestarted, message);
        self.deliver(id);
        Some(events)
    }

    /// The executor was never given a task and will not be (MESOS-8411): it was just told so.
    fn shutdown_pointless(&mut self, id: SeatId) {
        let Some(seat) = self.seats.get_mut(id.0) else {
            return;
        };
        seat.state = State::Terminating;
        let executor = seat.executor.clone();
        self.arm(id, self.grace(&executor), move |core| {
            core.destroy(id, Killed::ShutdownGrace)
        });
    }

    fn beat(&mut self, id: SeatId) {
        let timer = self.after(self.flags.heartbeat_interval, move |core| {
            let heartbeat = Event {
                r#type: Some(event::Type::Heartbeat as i32),
                ..Default::default()
            };
            core.send(id, heartbeat);
            core.beat(id);
        });
        if let Some(seat) = self.seats.get_mut(id.0) {
            seat.heartbeat = Some(timer);
        }
    }

    /// Takes charge of a status: forwards and acknowledges it, unless it is one of those that are not.
    pub(super) fn update(&mut self, id: SeatId, status: &TaskStatus) {
        let Some(seat) = self.seats.get_mut(id.0) else {
            return;
        };
        let status = Arc::new(status.clone());
        let verdict = seat.book.update(&status);
        let received = seat.book.record(&status.task_id.value).and_then(|record| {
            let update = record
                .updates
                .iter()
                .find(|update| update.status.uuid == status.uuid);
            update.map(|update| update.received)
        });
        if let Some(violation) = verdict.violation {
            self.journal.record(What::Violation(violation));
        }
        if verdict.forward {
            let completed = self
                .known(id)
                .map(|known| status::complete((*status).clone(), &known, wall()));
            self.journal
                .record(What::Forwarded(Arc::new(completed.unwrap_or_default())));
        }
        let task = &status.task_id.value;
        if !verdict.acknowledge
            || self
                .mischief
                .swallows_ack(task, status.state(), received.unwrap_or(1))
        {
            return;
        }
        let uuid = status.uuid().to_vec();
        if self.mischief.withhold_acks {
            if let Some(seat) = self.seats.get_mut(id.0) {
                seat.withheld.push((task.clone(), uuid));
            }
            return;
        }
        self.acknowledge(id, task, uuid);
    }

    fn acknowledge(&mut self, id: SeatId, task: &str, uuid: Vec<u8>) {
        if let Some(seat) = self.seats.get_mut(id.0) {
            seat.book.acknowledged(task, &uuid);
        }
        let acknowledged = event::Acknowledged {
            task_id: TaskId {
                value: task.to_owned(),
            },
            uuid,
        };
        let event = Event {
            r#type: Some(event::Type::Acknowledged as i32),
            acknowledged: Some(acknowledged),
            ..Default::default()
        };
        if self.mischief.ack_twice {
            self.send(id, event.clone());
        }
        self.send(id, event);
    }

    /// Lets all acknowledgements go that were held back, and holds back no more.
    pub(super) fn release_acks(&mut self, id: SeatId) {
        self.mischief.withhold_acks = false;
        let held = self
            .seats
            .get_mut(id.0)
            .map(|seat| std::mem::take(&mut seat.withheld));
        for (task, uuid) in held.into_iter().flatten() {
            self.acknowledge(id, &task, uuid);
        }
    }

    fn known(&self, id: SeatId) -> Option<Known<'_>> {
        let seat = self.seat(id)?;
        let networks = seat
            .executor
            .container
            .as_ref()
            .map_or(&[][..], |c| &c.network_infos);
        Some(Known {
            agent: &self.identity.id,
            executor: &seat.executor.executor_id.value,
            address: self.identity.address.ip(),
            container: &seat.container,
            pid: seat.pid(),
            network_infos: networks,
        })
    }

    /// Gives tasks a terminal state by the agent's own word.
    fn end_tasks(&mut self, id: SeatId, tasks: &[String], state: TaskState, reason: Reason, message: &str) {
        for task in tasks {
            let Some(known) = self.known(id) else { return };
            let made = status::made_by_agent(task, state, reason, message.to_owned(), &known, wall());
            let made = Arc::new(made);
            if let Some(seat) = self.seats.get_mut(id.0) {
                seat.book.end(made.clone());
            }
            self.journal.record(What::Forwarded(made));
        }
    }

    pub(super) fn refused(&self, refusal: &Refusal, call: Option<Arc<Call>>) {
        self.journal.record(What::Refused {
            status: refusal.status,
            reason: refusal.reason.clone(),
            call,
        });
        if refusal.is_clients_fault() {
            self.journal.record(What::Violation(Violation::Refused {
                status: refusal.status,
                reason: refusal.reason.clone(),
            }));
        }
    }

    // ---- the end of an executor

    fn executor_ended(&mut self, id: SeatId) {
        let away = self.phase == Phase::Away;
        let Some(seat) = self.seats.get_mut(id.0) else {
            return;
        };
        let Some(mut process) = seat.process.take() else {
            return;
        };
        match process.reap() {
            Ok(status) => {
                let killed = seat.killed;
                self.journal.record(What::Exited { status, killed });
                if away && !seat.forgotten {
                    seat.unseen_exit = Some(status);
                } else {
                    self.settle(id, status);
                }
            }
            Err(error) => tracing::error!("cannot wait for the executor: {error}"),
        }
    }

    /// Draws the conclusions from an exit: terminal states for what had none.
    fn settle(&mut self, id: SeatId, status: ExitStatus) {
        let Some(seat) = self.seats.get_mut(id.0) else {
            return;
        };
        seat.state = State::Terminated;
        seat.stream = None;
        seat.deadline = None;
        seat.heartbeat = None;
        let (live, killed) = (seat.book.live(), seat.killed);
        if !seat.forgotten {
            let reason = match killed {
                Some(Killed::RegistrationTimeout) => Reason::ExecutorRegistrationTimeout,
                Some(Killed::ReregistrationTimeout) => Reason::ExecutorReregistrationTimeout,
                _ => Reason::ExecutorTerminated,
            };
            let message = match killed {
                Some(Killed::RegistrationTimeout) => "The executor did not register in time".to_owned(),
                Some(Killed::ReregistrationTimeout) => "The executor did not re-register in time".to_owned(),
                _ => format!("The executor terminated: {status}"),
            };
            self.end_tasks(id, &live, TaskState::TaskFailed, reason, &message);
        }
        self.journal.record(What::Settled);
    }

    // ---- the agent goes and comes back

    /// What the agent loses when it goes: every connection, every timer, and whatever is not checkpointed.
    pub(super) fn go_away(&mut self) {
        self.set_phase(Phase::Away);
        self.recovery = None;
        self.order(|_| true, Order::Cut);
        for seat in &mut self.seats {
            seat.stream = None;
            seat.deadline = None;
            seat.heartbeat = None;
            seat.withheld.clear();
            seat.forgotten |= !seat.checkpoints() && seat.state != State::Terminated;
            if seat.state == State::Running {
                seat.state = State::Registering;
            }
        }
    }

    /// A step on the way back, up to the one before recovery.
    pub(super) fn set_phase(&mut self, phase: Phase) {
        if self.phase != phase {
            self.phase = phase;
            self.journal.record(What::Agent(phase));
        }
    }

    /// Opens the door for executors to come back, and counts who has not when time is up.
    pub(super) fn recover(&mut self) {
        if self.phase == Phase::Up {
            return;
        }
        self.set_phase(Phase::Recovering);
        for at in 0..self.seats.len() {
            let id = SeatId(at);
            let lost = self.seats.get_mut(at).filter(|seat| !seat.forgotten);
            let lost = lost.map(|seat| seat.book.withdraw_queue()).unwrap_or_default();
            let message = "The task is unknown to the agent, which was restarted before delivery";
            self.end_tasks(id, &lost, self.dropped(id), Reason::Reconciliation, message);
            let unseen = self.seats.get_mut(at).and_then(|seat| seat.unseen_exit.take());
            if let Some(status) = unseen {
                self.settle(id, status);
            }
        }
        let timer = self.after(self.flags.executor_reregistration_timeout, Core::recovered);
        self.recovery = Some(timer);
    }

    fn recovered(&mut self) {
        for at in 0..self.seats.len() {
            let late = self.seats.get(at).is_some_and(|seat| {
                !seat.forgotten && matches!(seat.state, State::Registering | State::Terminating)
            });
            if late {
                self.destroy(SeatId(at), Killed::ReregistrationTimeout);
            }
        }
        self.set_phase(Phase::Up);
    }
}

fn seat_state(core: &Core, id: SeatId) -> Option<State> {
    core.seat(id).map(|seat| seat.state)
}

fn shutdown_event() -> Event {
    Event {
        r#type: Some(event::Type::Shutdown as i32),
        ..Default::default()
    }
}

fn wall() -> f64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}

/// A KILL for a task that this executor was never given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no task {0} was launched on this executor; an agent sends no KILL for it")]
pub struct UnknownTask(pub String);
