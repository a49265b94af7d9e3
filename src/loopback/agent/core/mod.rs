//! The agent itself: its executors and what it does for, with and to them (wire file, sections 10 to 14).
//!
//! Everything here runs on the agent's one thread and never waits: connections, timers and the driving test call in,
//! one after the other.

mod calls;
mod life;
mod recovery;
mod seat;

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    path::PathBuf,
    process::ExitStatus,
    rc::{Rc, Weak},
    sync::Arc,
    time::{Duration, SystemTime},
};

pub use self::life::UnknownTask;
pub(super) use self::seat::{Seat, SeatId};
use self::seat::{State, Timer};
use tokio::sync::mpsc::UnboundedSender;

use super::{
    journal::{Journal, Phase, What},
    link::{Item, Link, Order, Use},
    mischief::Mischief,
    status::{self, Known},
    token::Secret,
};
use crate::door::Started;
use crate::mesos::{
    recordio,
    v1::{AgentInfo, TaskState, TaskStatus, executor::Event, task_status::Reason},
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
    /// What executors' tokens are made with.
    pub secret: Secret,
    /// Nobody is let in without one, not even the owner.
    pub token_needed: bool,
    /// Executors that run.
    pub started: Started,
}

impl Identity {
    /// As in `MESOS_SLAVE_PID`.
    pub(super) fn pid(&self) -> String {
        format!("{}@{}", self.process, self.address)
    }
}

pub(super) struct Core {
    me: Weak<RefCell<Core>>,
    pub journal: Arc<Journal>,
    pub flags: Flags,
    pub identity: Identity,
    pub mischief: Mischief,
    phase: Phase,
    /// Every executor, until a master has heard of its end; in the order of their starts.
    seats: BTreeMap<usize, Seat>,
    next_seat: usize,
    links: HashMap<u64, Rc<Link>>,
    next_link: u64,
    recovery: Option<Timer>,
    /// To the master above, if there is one.
    upward: Option<UnboundedSender<(SeatId, Up)>>,
}

/// What a master hears of an executor.
#[derive(Debug)]
pub(super) enum Up {
    Status(Arc<TaskStatus>),
    /// A message to its scheduler.
    Message(Vec<u8>),
    /// It has ended, and all its tasks have been told of.
    Ended(ExitStatus),
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
                seats: BTreeMap::new(),
                next_seat: 0,
                links: HashMap::new(),
                next_link: 0,
                recovery: None,
                upward: None,
            })
        })
    }

    pub(super) fn report_to(&mut self, master: UnboundedSender<(SeatId, Up)>) {
        self.upward = Some(master);
    }

    fn report(&self, id: SeatId, up: Up) {
        if let Some(master) = &self.upward {
            // A master that is gone misses nothing.
            let _ = master.send((id, up));
        }
    }

    /// A status goes on its way to the master.
    fn forward(&self, id: SeatId, status: Arc<TaskStatus>) {
        self.journal.record(What::Forwarded(status.clone()));
        self.report(id, Up::Status(status));
    }

    /// An executor has something to say to its scheduler. It is carried, not understood.
    pub(super) fn said(&self, id: SeatId, data: Vec<u8>) {
        self.report(id, Up::Message(data));
    }

    /// Drops all that is known of an executor that has ended; gives its sandbox.
    pub(super) fn forget(&mut self, id: SeatId) -> Option<PathBuf> {
        let ended = |seat: &&Seat| seat.state == State::Terminated;
        self.seats.get(&id.0).filter(ended)?;
        Some(self.seats.remove(&id.0)?.sandbox)
    }

    /// Whether tasks can still be brought to it.
    pub(super) fn is_open(&self, id: SeatId) -> bool {
        let open = |seat: &Seat| matches!(seat.state, State::Registering | State::Running);
        self.seat(id).is_some_and(open)
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    pub(super) fn seat(&self, SeatId(id): SeatId) -> Option<&Seat> {
        self.seats.get(&id)
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
        for seat in self.seats.values_mut() {
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

    /// Sends any event, past the bookkeeping. Without a stream it is lost, as with a real agent.
    pub(super) fn send(&mut self, id: SeatId, event: Event) {
        let event = Arc::new(event);
        let Some(seat) = self.seats.get(&id.0) else { return };
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
        let Some(stream) = self.seats.get(&id.0).and_then(|seat| seat.stream.as_ref()) else {
            return;
        };
        let _ = stream.items.send(Item::Bytes(bytes.to_vec().into()));
        if cut {
            let _ = stream.items.send(Item::Cut);
        }
    }

    pub(super) fn arm(&mut self, id: SeatId, after: Duration, then: impl FnOnce(&mut Core) + 'static) {
        let timer = self.after(after, then);
        if let Some(seat) = self.seats.get_mut(&id.0) {
            seat.deadline = Some(timer);
        }
    }

    pub(super) fn after(&self, after: Duration, then: impl FnOnce(&mut Core) + 'static) -> Timer {
        let me = self.me.clone();
        let task = tokio::task::spawn_local(async move {
            tokio::time::sleep(after).await;
            if let Some(core) = me.upgrade() {
                then(&mut core.borrow_mut());
            }
        });
        Timer(task.abort_handle())
    }

    /// DROPPED, or its name for frameworks that do not know it.
    pub(super) fn dropped(&self, id: SeatId) -> TaskState {
        match self.seat(id).is_some_and(|seat| seat.book.is_partition_aware()) {
            true => TaskState::TaskDropped,
            false => TaskState::TaskLost,
        }
    }

    pub(super) fn known(&self, id: SeatId) -> Option<Known<'_>> {
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
    pub(super) fn end_tasks(
        &mut self,
        id: SeatId,
        tasks: &[String],
        state: TaskState,
        reason: Reason,
        message: &str,
    ) {
        for task in tasks {
            let Some(known) = self.known(id) else { return };
            let made = status::made_by_agent(task, state, reason, message.to_owned(), &known, wall());
            let made = Arc::new(made);
            if let Some(seat) = self.seats.get_mut(&id.0) {
                seat.book.end(made.clone());
            }
            self.forward(id, made);
        }
    }
}

/// Seconds since the epoch, for statuses.
fn wall() -> f64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}
