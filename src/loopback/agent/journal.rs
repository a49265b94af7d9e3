//! Everything that passed between the agent and its executor, in order and with times; and waiting for it without
//! looking at the clock.

use std::{
    process::ExitStatus,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::violation::Violation;
use crate::mesos::{
    codec::Encoding,
    v1::{
        TaskState, TaskStatus,
        executor::{Call, Event, call, event},
    },
};

/// Something that happened, and when: monotonic, since the agent was started.
#[derive(Debug, Clone)]
pub struct Entry {
    pub at: Duration,
    pub what: What,
}

#[derive(Debug, Clone)]
pub enum What {
    /// Written to the executor's stream.
    Event(Arc<Event>),
    /// An event for which there was no stream; nobody will ever see it.
    Lost(Arc<Event>),
    /// A call that was taken in. Stamped when its last byte was here.
    Call(Arc<Call>),
    /// A request that was turned away; with the call, if it could be read.
    Refused {
        status: u16,
        reason: String,
        call: Option<Arc<Call>>,
    },
    /// A status as the master gets it: completed by the agent, or of the agent's own making.
    Forwarded(Arc<TaskStatus>),
    /// The executor is about to be started.
    Starting,
    Started {
        pid: u32,
    },
    /// The process is gone and reaped.
    Exited {
        status: ExitStatus,
        /// Set if the agent killed it.
        killed: Option<Killed>,
    },
    /// The agent has drawn its conclusions from the exit: nothing more will happen to this executor.
    Settled,
    Connected(u64),
    Disconnected(u64),
    /// A SUBSCRIBE got its stream, on this connection and in this encoding.
    StreamOpened(u64, Encoding),
    StreamClosed(u64),
    /// The agent went away, or has come this far on its way back.
    Agent(Phase),
    Violation(Violation),
    /// The operator wants an end of it.
    Interrupted,
}

/// Why the agent destroyed an executor's container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Killed {
    /// It did not subscribe in time.
    RegistrationTimeout,
    /// It did not come back in time after a restart of the agent.
    ReregistrationTimeout,
    /// It was still there when the grace period after SHUTDOWN was over.
    ShutdownGrace,
    /// The harness or its user wanted an end.
    Harness,
}

/// How far the agent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nobody listens.
    Away,
    /// Listens, but the executor API is not there yet: 404.
    Absent,
    /// Reads its checkpoints: 503 to everything.
    Starting,
    /// Waits for executors to come back: 503 to everything but SUBSCRIBE.
    Recovering,
    Up,
}

/// A read-only view of all entries so far.
#[derive(Debug, Default, Clone)]
pub struct History(Vec<Entry>);

impl History {
    pub fn entries(&self) -> &[Entry] {
        &self.0
    }

    /// Events that were written to the stream.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.0.iter().filter_map(|entry| match &entry.what {
            What::Event(event) => Some(&**event),
            _ => None,
        })
    }

    /// Calls that were taken in.
    pub fn calls(&self) -> impl Iterator<Item = &Call> {
        self.0.iter().filter_map(|entry| match &entry.what {
            What::Call(call) => Some(&**call),
            _ => None,
        })
    }

    pub fn count_events(&self, kind: event::Type) -> usize {
        self.events().filter(|event| event.r#type() == kind).count()
    }

    /// The SUBSCRIBE calls that were answered with a stream, oldest first.
    pub fn subscribes(&self) -> Vec<&call::Subscribe> {
        self.calls().filter_map(|call| call.subscribe.as_ref()).collect()
    }

    /// The statuses the executor sent of a task, by UPDATE or at re-subscription, re-sent ones once.
    pub fn updates(&self, task: &str) -> Vec<&TaskStatus> {
        let mut seen: Vec<&TaskStatus> = Vec::new();
        for status in self.calls().flat_map(statuses) {
            let again = seen
                .iter()
                .any(|s| s.uuid == status.uuid && s.state == status.state);
            if status.task_id.value == task && !again {
                seen.push(status);
            }
        }
        seen
    }

    /// The states the executor told of a task, in order.
    pub fn states(&self, task: &str) -> Vec<TaskState> {
        self.updates(task).iter().map(|status| status.state()).collect()
    }

    /// The last state the executor told of a task.
    pub fn state(&self, task: &str) -> Option<TaskState> {
        self.updates(task).last().map(|status| status.state())
    }

    /// Whether the executor told this state of each of these tasks.
    pub fn all_told(&self, tasks: &[&str], state: TaskState) -> bool {
        tasks.iter().all(|task| self.states(task).contains(&state))
    }

    /// The statuses that went on to the master, of the executor's and of the agent's making.
    pub fn forwarded(&self, task: &str) -> Vec<&TaskStatus> {
        let of_task = |entry: &'_ Entry| matches!(&entry.what, What::Forwarded(s) if s.task_id.value == task);
        let entries = self.0.iter().filter(|entry| of_task(entry));
        entries
            .filter_map(|entry| match &entry.what {
                What::Forwarded(status) => Some(&**status),
                _ => None,
            })
            .collect()
    }

    pub fn violations(&self) -> Vec<&Violation> {
        let violations = self.0.iter().filter_map(|entry| match &entry.what {
            What::Violation(violation) => Some(violation),
            _ => None,
        });
        violations.collect()
    }

    /// When an entry like this was first made.
    pub fn when(&self, mut like: impl FnMut(&What) -> bool) -> Option<Duration> {
        self.0
            .iter()
            .find(|entry| like(&entry.what))
            .map(|entry| entry.at)
    }

    /// When the executor first told this state of the task.
    pub fn when_told(&self, task: &str, state: TaskState) -> Option<Duration> {
        let tells = |status: &TaskStatus| status.task_id.value == task && status.state() == state;
        self.when(|what| matches!(what, What::Call(call) if statuses(call).any(tells)))
    }

    /// When an event of this kind was first written.
    pub fn when_sent(&self, kind: event::Type) -> Option<Duration> {
        self.when(|what| matches!(what, What::Event(event) if event.r#type() == kind))
    }

    /// How the executor's process ended.
    pub fn exit(&self) -> Option<ExitStatus> {
        self.0.iter().find_map(|entry| match entry.what {
            What::Exited { status, .. } => Some(status),
            _ => None,
        })
    }

    pub fn is_settled(&self) -> bool {
        self.0.iter().any(|entry| matches!(entry.what, What::Settled))
    }
}

/// The statuses in a call: of an UPDATE, or those a SUBSCRIBE brings again.
fn statuses(call: &Call) -> impl Iterator<Item = &TaskStatus> {
    let again = call
        .subscribe
        .iter()
        .flat_map(|subscribe| &subscribe.unacknowledged_updates);
    again.chain(&call.update).map(|update| &update.status)
}

/// The history as it grows. The agent's thread writes; others read and wait.
#[derive(Debug)]
pub struct Journal {
    start: Instant,
    history: Mutex<History>,
    /// Told after each entry.
    grew: Condvar,
    /// The history goes on from here when nobody will read it from its beginning.
    limit: usize,
}

impl Journal {
    pub(super) fn new() -> Self {
        Journal {
            start: Instant::now(),
            history: Mutex::default(),
            grew: Condvar::new(),
            limit: usize::MAX,
        }
    }

    /// A journal of an agent that runs for as long as it likes: it remembers only the latest entries.
    pub(super) fn forgetful(limit: usize) -> Self {
        Journal {
            limit,
            ..Journal::new()
        }
    }

    /// The time that an entry would have that is made now.
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    pub(super) fn record(&self, what: What) {
        self.record_at(self.now(), what);
    }

    pub(super) fn record_at(&self, at: Duration, what: What) {
        let mut history = self.lock();
        // Half of it at once, so that forgetting costs next to nothing.
        if history.0.len() >= self.limit {
            history.0.drain(..self.limit.div_ceil(2));
        }
        history.0.push(Entry { at, what });
        drop(history);
        self.grew.notify_all();
    }

    /// A copy of everything so far; entries are cheap to copy.
    pub fn history(&self) -> History {
        self.lock().clone()
    }

    /// Waits until the question has an answer; none if `patience` ends first.
    pub fn wait_for<T>(
        &self,
        patience: Duration,
        mut question: impl FnMut(&History) -> Option<T>,
    ) -> Option<T> {
        let deadline = Instant::now() + patience;
        let mut history = self.lock();
        loop {
            if let Some(answer) = question(&history) {
                return Some(answer);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            let woken = self.grew.wait_timeout(history, left);
            history = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, History> {
        // A question that panics leaves the entries whole.
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
