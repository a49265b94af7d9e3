//! One executor, as the agent has it.

use std::{path::PathBuf, process::ExitStatus, sync::Arc};

use tokio::{sync::mpsc::UnboundedSender, task::AbortHandle};

use super::super::{
    book::{Book, TaskRecord},
    journal::Killed,
    link::Item,
    process::Executor,
};
use crate::mesos::{
    codec::Encoding,
    v1::{ContainerId, ExecutorInfo, FrameworkInfo},
};

/// Names an executor of this agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SeatId(pub(super) usize);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Started, not subscribed; also after a restart of the agent until it comes back.
    Registering,
    Running,
    /// Told to shut down.
    Terminating,
    /// Gone, and its tasks accounted for.
    Terminated,
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) connection: u64,
    pub(super) encoding: Encoding,
    pub(super) items: UnboundedSender<Item>,
}

/// Aborts its task when dropped or replaced.
#[derive(Debug)]
pub struct Timer(pub(super) AbortHandle);

impl Drop for Timer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One executor and everything the agent holds for it.
#[derive(Debug)]
pub struct Seat {
    pub framework: Arc<FrameworkInfo>,
    pub executor: Arc<ExecutorInfo>,
    pub container: ContainerId,
    pub sandbox: PathBuf,
    pub(super) state: State,
    pub(super) book: Book,
    pub(super) stream: Option<Stream>,
    pub(super) process: Option<Executor>,
    /// Registration, re-registration or shutdown grace: there is never more than one at a time.
    pub(super) deadline: Option<Timer>,
    pub(super) heartbeat: Option<Timer>,
    pub(super) withheld: Vec<(String, Vec<u8>)>,
    pub(super) killed: Option<Killed>,
    /// Its end while the agent was away; looked at on return.
    pub(super) unseen_exit: Option<ExitStatus>,
    /// A restarted agent knows nothing of executors that were not checkpointed.
    pub(super) forgotten: bool,
}

impl Seat {
    pub fn tasks(&self) -> &[TaskRecord] {
        self.book.tasks()
    }

    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Executor::pid)
    }

    pub fn process(&self) -> Option<&Executor> {
        self.process.as_ref()
    }

    pub(super) fn checkpoints(&self) -> bool {
        self.framework.checkpoint()
    }
}
