//! What the agent knows of an executor's tasks, and what it makes of the statuses it is sent (wire file, sections
//! 10 and 12). Pure: no clock, no sockets.

use std::{collections::VecDeque, sync::Arc};

use super::violation::Violation;
use crate::mesos::v1::{TaskInfo, TaskState, TaskStatus, framework_info::capability};

/// Something to be brought to the executor as one record.
#[derive(Debug, Clone)]
pub(super) enum Launch {
    Task(Arc<TaskInfo>),
    Group(Vec<Arc<TaskInfo>>),
}

impl Launch {
    fn tasks(&self) -> &[Arc<TaskInfo>] {
        match self {
            Launch::Task(task) => std::slice::from_ref(task),
            Launch::Group(tasks) => tasks,
        }
    }
}

/// Where a task is on its way, beside the state its executor tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Waits for the executor to subscribe.
    Queued,
    /// Written to the executor's stream, or dropped with it.
    Delivered,
    /// Given up before delivery.
    Withdrawn,
}

/// One status of a task, under its uuid.
#[derive(Debug, Clone)]
pub struct Update {
    pub status: Arc<TaskStatus>,
    /// How often the executor sent it.
    pub received: u32,
    /// How often it was acknowledged.
    pub acknowledged: u32,
    /// Whether the agent took it over; false for what came after the terminal state.
    pub accepted: bool,
}

/// One task, from its launch to its terminal state. A task id that comes back gets a new record.
#[derive(Debug, Clone)]
pub struct TaskRecord {
    pub info: Arc<TaskInfo>,
    pub stage: Stage,
    /// As the agent has it; STAGING until the first status.
    pub state: TaskState,
    /// In the order of their first arrival.
    pub updates: Vec<Update>,
    /// Terminal states the executor told, each under its own uuid. More than one is a violation.
    pub told: Vec<TaskState>,
    /// The terminal state the agent made itself, for want of one from the executor.
    pub made: Option<Arc<TaskStatus>>,
}

impl TaskRecord {
    pub fn id(&self) -> &str {
        &self.info.task_id.value
    }

    pub fn is_terminal(&self) -> bool {
        is_terminal(self.state)
    }
}

/// What becomes of a status.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub acknowledge: bool,
    pub forward: bool,
    pub violation: Option<Violation>,
}

/// What becomes of a KILL.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum KillVerdict {
    Deliver,
    /// It had not been delivered: its whole group is withdrawn, and these end KILLED by the agent's word.
    Withdrawn(Vec<String>),
    Unknown,
}

/// The tasks of one executor.
#[derive(Debug)]
pub(super) struct Book {
    agent: String,
    capabilities: Vec<i32>,
    tasks: Vec<TaskRecord>,
    queue: VecDeque<Launch>,
}

impl Book {
    pub(super) fn new(agent: String, capabilities: Vec<i32>) -> Self {
        Book {
            agent,
            capabilities,
            tasks: Vec::new(),
            queue: VecDeque::new(),
        }
    }

    pub(super) fn tasks(&self) -> &[TaskRecord] {
        &self.tasks
    }

    pub(super) fn record(&self, task: &str) -> Option<&TaskRecord> {
        self.tasks.iter().rev().find(|record| record.id() == task)
    }

    fn record_mut(&mut self, task: &str) -> Option<&mut TaskRecord> {
        self.tasks.iter_mut().rev().find(|record| record.id() == task)
    }

    /// Puts a launch behind those that wait.
    pub(super) fn enqueue(&mut self, launch: Launch) {
        self.tasks.extend(launch.tasks().iter().map(|info| TaskRecord {
            info: info.clone(),
            stage: Stage::Queued,
            state: TaskState::TaskStaging,
            updates: Vec::new(),
            told: Vec::new(),
            made: None,
        }));
        self.queue.push_back(launch);
    }

    /// Takes the oldest launch that waits; from now on its tasks count as delivered.
    pub(super) fn deliver(&mut self) -> Option<Launch> {
        let launch = self.queue.pop_front()?;
        for info in launch.tasks() {
            if let Some(record) = self.record_mut(&info.task_id.value) {
                record.stage = Stage::Delivered;
            }
        }
        Some(launch)
    }

    /// The executor was never given anything and nothing waits for it any more (MESOS-8411).
    pub(super) fn is_pointless(&self) -> bool {
        self.queue.is_empty()
            && !self.tasks.is_empty()
            && self.tasks.iter().all(|record| record.stage == Stage::Withdrawn)
    }

    pub(super) fn kill(&mut self, task: &str) -> KillVerdict {
        let waits = |launch: &Launch| launch.tasks().iter().any(|info| info.task_id.value == task);
        if let Some(launch) = self
            .queue
            .iter()
            .position(waits)
            .and_then(|at| self.queue.remove(at))
        {
            return KillVerdict::Withdrawn(self.withdraw(&launch));
        }
        match self.record(task) {
            Some(_) => KillVerdict::Deliver,
            None => KillVerdict::Unknown,
        }
    }

    /// Forgets what waits, as an agent does that restarts: queued launches are not checkpointed.
    pub(super) fn withdraw_queue(&mut self) -> Vec<String> {
        let queue = std::mem::take(&mut self.queue);
        queue.iter().flat_map(|launch| self.withdraw(launch)).collect()
    }

    fn withdraw(&mut self, launch: &Launch) -> Vec<String> {
        let ids = launch.tasks().iter().map(|info| info.task_id.value.clone());
        ids.inspect(|id| {
            if let Some(record) = self.record_mut(id) {
                record.stage = Stage::Withdrawn;
            }
        })
        .collect()
    }

    /// Takes in a status from the executor. A uuid already known is acknowledged again and goes no further; so does
    /// whatever comes after the terminal state.
    pub(super) fn update(&mut self, status: &Arc<TaskStatus>) -> Verdict {
        let task = status.task_id.value.clone();
        let state = status.state();
        let verdict = |forward, violation| Verdict {
            acknowledge: true,
            forward,
            violation,
        };

        if let Some(agent) = status.agent_id.as_ref().filter(|agent| agent.value != self.agent) {
            return Verdict {
                acknowledge: false,
                forward: false,
                violation: Some(Violation::ForeignAgent {
                    task,
                    agent: agent.value.clone(),
                }),
            };
        }
        let capable = self.is_capable_of(state);
        let Some(record) = self
            .record_mut(&task)
            .filter(|record| record.stage != Stage::Queued)
        else {
            return verdict(false, Some(Violation::UnknownTask { task, state }));
        };
        let twin = record
            .updates
            .iter_mut()
            .find(|update| update.status.uuid == status.uuid);
        if let Some(update) = twin {
            update.received += 1;
            let reused = update.status.state != status.state;
            return verdict(false, reused.then_some(Violation::UuidReused { task, state }));
        }

        let before = record.state;
        let accepted = !is_terminal(before);
        record.updates.push(Update {
            status: status.clone(),
            received: 1,
            acknowledged: 0,
            accepted,
        });
        if is_terminal(state) {
            record.told.push(state);
        }
        if !accepted {
            let violation = if is_terminal(state) {
                Violation::DoubleTerminal {
                    task,
                    first: before,
                    second: state,
                }
            } else {
                Violation::AfterTerminal {
                    task,
                    terminal: before,
                    state,
                }
            };
            return verdict(false, Some(violation));
        }
        record.state = state;
        let violation = if rank(state) < rank(before) {
            Some(Violation::Backwards {
                task,
                from: before,
                to: state,
            })
        } else if !capable {
            Some(Violation::NotCapable { task, state })
        } else {
            None
        };
        verdict(true, violation)
    }

    /// Counts an acknowledgement that is on its way.
    pub(super) fn acknowledged(&mut self, task: &str, uuid: &[u8]) -> u32 {
        let Some(record) = self.record_mut(task) else {
            return 0;
        };
        let update = record
            .updates
            .iter_mut()
            .find(|update| update.status.uuid() == uuid);
        update.map_or(0, |update| {
            update.acknowledged += 1;
            update.acknowledged
        })
    }

    /// Tasks that were delivered, of which nothing was ever heard, and which the executor that re-subscribes does not
    /// list: their launch got lost on the way.
    pub(super) fn missing<'l>(&self, listed: impl Iterator<Item = &'l TaskInfo>) -> Vec<String> {
        let listed: Vec<&str> = listed.map(|info| info.task_id.value.as_str()).collect();
        let lost = |record: &&TaskRecord| {
            record.stage == Stage::Delivered
                && record.state == TaskState::TaskStaging
                && !listed.contains(&record.id())
        };
        self.tasks
            .iter()
            .filter(lost)
            .map(|record| record.id().to_owned())
            .collect()
    }

    /// Tasks without a terminal state.
    pub(super) fn live(&self) -> Vec<String> {
        let live = self.tasks.iter().filter(|record| !record.is_terminal());
        live.map(|record| record.id().to_owned()).collect()
    }

    /// Enters a terminal state that the agent itself decided on.
    pub(super) fn end(&mut self, status: Arc<TaskStatus>) {
        let state = status.state();
        if let Some(record) = self.record_mut(&status.task_id.value) {
            record.state = state;
            record.made = Some(status);
        }
    }

    pub(super) fn is_partition_aware(&self) -> bool {
        self.has(capability::Type::PartitionAware)
    }

    fn is_capable_of(&self, state: TaskState) -> bool {
        match state {
            TaskState::TaskKilling => self.has(capability::Type::TaskKillingState),
            TaskState::TaskDropped
            | TaskState::TaskGone
            | TaskState::TaskGoneByOperator
            | TaskState::TaskUnreachable
            | TaskState::TaskUnknown => self.is_partition_aware(),
            _ => true,
        }
    }

    fn has(&self, capability: capability::Type) -> bool {
        self.capabilities.contains(&(capability as i32))
    }
}

/// Whether nothing may follow this state.
pub fn is_terminal(state: TaskState) -> bool {
    match state {
        TaskState::TaskFinished
        | TaskState::TaskFailed
        | TaskState::TaskKilled
        | TaskState::TaskError
        | TaskState::TaskLost
        | TaskState::TaskDropped
        | TaskState::TaskGone
        | TaskState::TaskGoneByOperator => true,
        TaskState::TaskStaging
        | TaskState::TaskStarting
        | TaskState::TaskRunning
        | TaskState::TaskKilling
        | TaskState::TaskUnreachable
        | TaskState::TaskUnknown => false,
    }
}

/// The order in which states may follow each other (U-04, U-06).
fn rank(state: TaskState) -> u8 {
    match state {
        TaskState::TaskStaging => 0,
        TaskState::TaskStarting => 1,
        TaskState::TaskRunning | TaskState::TaskUnreachable | TaskState::TaskUnknown => 2,
        TaskState::TaskKilling => 3,
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesos::v1::{AgentId, TaskId};

    const AGENT: &str = "agent-1";

    fn task(id: &str) -> Arc<TaskInfo> {
        Arc::new(TaskInfo {
            name: id.into(),
            task_id: TaskId { value: id.into() },
            ..Default::default()
        })
    }

    fn status(task: &str, state: TaskState, uuid: u8) -> Arc<TaskStatus> {
        Arc::new(TaskStatus {
            task_id: TaskId { value: task.into() },
            state: state as i32,
            uuid: Some(vec![uuid; 16]),
            ..Default::default()
        })
    }

    fn book() -> Book {
        let capabilities = [
            capability::Type::PartitionAware,
            capability::Type::TaskKillingState,
        ];
        Book::new(AGENT.into(), capabilities.map(|c| c as i32).to_vec())
    }

    fn delivered(ids: &[&str]) -> Book {
        let mut book = book();
        book.enqueue(Launch::Group(ids.iter().map(|id| task(id)).collect()));
        assert!(book.deliver().is_some());
        book
    }

    fn taken() -> Verdict {
        Verdict {
            acknowledge: true,
            forward: true,
            violation: None,
        }
    }

    #[test]
    fn a_life_in_order_is_forwarded_and_acknowledged() {
        use TaskState::*;
        let mut book = delivered(&["a"]);
        for (n, state) in [TaskStarting, TaskRunning, TaskRunning, TaskKilling, TaskKilled]
            .into_iter()
            .enumerate()
        {
            assert_eq!(book.update(&status("a", state, n as u8)), taken());
        }
        assert_eq!(book.record("a").unwrap().told, [TaskKilled]);
        assert!(book.live().is_empty());
    }

    #[test]
    fn a_uuid_that_comes_again_is_acknowledged_but_not_forwarded() {
        let mut book = delivered(&["a"]);
        let running = status("a", TaskState::TaskRunning, 1);
        assert_eq!(book.update(&running), taken());
        let again = book.update(&running);
        assert!(again.acknowledge && !again.forward && again.violation.is_none());
        assert_eq!(book.record("a").unwrap().updates[0].received, 2);

        let other = book.update(&status("a", TaskState::TaskFinished, 1));
        assert!(matches!(other.violation, Some(Violation::UuidReused { .. })));
        assert_eq!(book.record("a").unwrap().state, TaskState::TaskRunning);
    }

    #[test]
    fn what_follows_a_terminal_state_is_acknowledged_dropped_and_noted() {
        let mut book = delivered(&["a"]);
        book.update(&status("a", TaskState::TaskFailed, 1));
        let second = book.update(&status("a", TaskState::TaskKilled, 2));
        assert!(second.acknowledge && !second.forward);
        assert!(matches!(second.violation, Some(Violation::DoubleTerminal { .. })));
        let later = book.update(&status("a", TaskState::TaskRunning, 3));
        assert!(matches!(later.violation, Some(Violation::AfterTerminal { .. })));
        assert_eq!(book.record("a").unwrap().state, TaskState::TaskFailed);
        assert_eq!(book.record("a").unwrap().told.len(), 2);
    }

    #[test]
    fn order_capabilities_and_names_are_watched() {
        let mut book = delivered(&["a"]);
        book.update(&status("a", TaskState::TaskKilling, 1));
        let back = book.update(&status("a", TaskState::TaskRunning, 2));
        assert!(matches!(back.violation, Some(Violation::Backwards { .. })));

        let stranger = book.update(&status("z", TaskState::TaskRunning, 3));
        assert!(stranger.acknowledge && !stranger.forward);

        let mut foreign = (*status("a", TaskState::TaskRunning, 4)).clone();
        foreign.agent_id = Some(AgentId {
            value: "other".into(),
        });
        let verdict = book.update(&Arc::new(foreign));
        assert!(!verdict.acknowledge && !verdict.forward);

        let mut plain = Book::new(AGENT.into(), vec![]);
        plain.enqueue(Launch::Task(task("a")));
        plain.deliver();
        let killing = plain.update(&status("a", TaskState::TaskKilling, 1));
        assert!(matches!(killing.violation, Some(Violation::NotCapable { .. })));
    }

    #[test]
    fn l_13_a_kill_before_delivery_withdraws_the_whole_group() {
        let mut book = book();
        book.enqueue(Launch::Group(vec![task("a"), task("b")]));
        book.enqueue(Launch::Task(task("c")));
        assert_eq!(
            book.kill("b"),
            KillVerdict::Withdrawn(vec!["a".into(), "b".into()])
        );
        assert!(!book.is_pointless(), "c still waits");
        assert!(matches!(book.deliver(), Some(Launch::Task(_))));
        assert!(book.deliver().is_none());
        assert_eq!(book.kill("c"), KillVerdict::Deliver);
        assert_eq!(book.kill("nobody"), KillVerdict::Unknown);
    }

    #[test]
    fn s_09_a_staging_task_that_is_not_listed_is_missing() {
        let mut book = delivered(&["listed", "heard-of", "forgotten"]);
        book.enqueue(Launch::Task(task("waiting")));
        book.update(&status("heard-of", TaskState::TaskStarting, 1));
        assert_eq!(book.missing([&*task("listed")].into_iter()), ["forgotten"]);
    }

    #[test]
    fn a_task_id_that_comes_back_is_a_new_task() {
        let mut book = delivered(&["a"]);
        book.update(&status("a", TaskState::TaskFinished, 1));
        book.enqueue(Launch::Task(task("a")));
        book.deliver();
        assert_eq!(book.update(&status("a", TaskState::TaskRunning, 2)), taken());
        assert_eq!(book.tasks().len(), 2);
        assert_eq!(book.live(), ["a"]);
    }
}
