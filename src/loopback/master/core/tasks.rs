//! The states of tasks, on their way up from agents and in answer to questions.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::{
    super::{LiveTask, amounts::Amounts},
    Core, Down, Out, blank,
};
pub(super) use crate::loopback::agent::is_terminal;
use crate::mesos::v1::{
    self, TaskState,
    scheduler::{Event, call, event},
    task_status::{Reason, Source},
};

/// An unacknowledged update is sent again after this, then after twice as long, up to the limit.
pub(super) const UPDATE_RETRY: Duration = Duration::from_secs(10);
const UPDATE_RETRY_LIMIT: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub(super) struct Task {
    pub agent: usize,
    pub executor: String,
    pub resources: Amounts,
    pub state: TaskState,
    healthy: Option<bool>,
    check: Option<v1::CheckStatusInfo>,
    /// Statuses the framework has not acknowledged, the one in flight first.
    pending: VecDeque<Arc<v1::TaskStatus>>,
    retry: Option<(Duration, Duration)>,
}

/// A status by the master's own word.
#[derive(Debug, Clone, Copy)]
pub(super) struct Made<'m> {
    pub state: TaskState,
    pub reason: Reason,
    pub message: &'m str,
    pub agent: Option<usize>,
}

impl Task {
    pub fn new(agent: usize, executor: String, resources: Amounts) -> Self {
        Task {
            agent,
            executor,
            resources,
            state: TaskState::TaskStaging,
            healthy: None,
            check: None,
            pending: VecDeque::new(),
            retry: None,
        }
    }

    pub fn retry(&self) -> Option<Duration> {
        self.retry.map(|(at, _)| at)
    }

    /// Its end has been told, and heard.
    fn is_over(&self) -> bool {
        is_terminal(self.state) && self.pending.is_empty()
    }

    /// Sends the status in flight, for the first time or again.
    pub fn transmit(&mut self, framework: &str, now: Duration, pause: Duration, out: &mut Out) {
        let Some(status) = self.pending.front() else {
            return;
        };
        out.event(framework, update((**status).clone()));
        self.retry = Some((now.saturating_add(pause), pause));
        // What wants no acknowledgement gets none.
        if status.uuid.is_none() {
            self.pending.pop_front();
            self.retry = None;
        }
    }

    pub fn repeat(&mut self, framework: &str, now: Duration, out: &mut Out) {
        if let Some((at, pause)) = self.retry
            && at <= now
        {
            let pause = pause.saturating_mul(2).min(UPDATE_RETRY_LIMIT);
            self.transmit(framework, now, pause, out);
        }
    }
}

fn update(status: v1::TaskStatus) -> Event {
    Event {
        update: Some(event::Update { status }),
        ..blank(event::Type::Update)
    }
}

impl Core {
    pub(super) fn kill(&mut self, id: &str, kill: &call::Kill, out: &mut Out) {
        let task = &kill.task_id.value;
        let known = self
            .frameworks
            .get(id)
            .and_then(|framework| framework.tasks.get(task))
            .filter(|task| !self.is_away(task.agent));
        match known {
            Some(known) if !is_terminal(known.state) => out.down.push(Down::Kill {
                agent: known.agent,
                framework: id.to_owned(),
                executor: known.executor.clone(),
                task: task.clone(),
                policy: kill.kill_policy,
            }),
            // A master that has no such task says so.
            _ => self.answer(id, task, kill.agent_id.as_ref(), out),
        }
    }

    pub(super) fn acknowledge(&mut self, id: &str, acknowledge: &call::Acknowledge, out: &mut Out) {
        let now = self.now;
        let name = &acknowledge.task_id.value;
        let Some(framework) = self.frameworks.get_mut(id) else {
            return;
        };
        let Some(task) = framework.tasks.get_mut(name) else {
            return;
        };
        let in_flight = task
            .pending
            .front()
            .is_some_and(|status| status.uuid() == acknowledge.uuid);
        if !in_flight {
            return;
        }
        task.pending.pop_front();
        task.retry = None;
        task.transmit(id, now, UPDATE_RETRY, out);
        if task.is_over() {
            framework.tasks.remove(name);
        }
    }

    pub(super) fn reconcile(&self, id: &str, reconcile: &call::Reconcile, out: &mut Out) {
        if reconcile.tasks.is_empty() {
            let known = self
                .frameworks
                .get(id)
                .into_iter()
                .flat_map(|framework| &framework.tasks)
                .filter(|(_, task)| !self.is_away(task.agent));
            known.for_each(|(task, _)| self.answer(id, task, None, out));
        }
        for task in &reconcile.tasks {
            self.answer(id, &task.task_id.value, task.agent_id.as_ref(), out);
        }
    }

    pub fn live_tasks(&self) -> Vec<LiveTask> {
        let all = self
            .frameworks
            .iter()
            .flat_map(|(framework, known)| known.tasks.iter().map(move |(id, task)| (framework, id, task)));
        let mut live: Vec<LiveTask> = all
            .filter(|(_, _, task)| !is_terminal(task.state))
            .map(|(framework, id, task)| LiveTask {
                id: id.clone(),
                framework: framework.clone(),
                executor: task.executor.clone(),
                agent: task.agent,
            })
            .collect();
        live.sort();
        live
    }

    /// The state of a task, as reconciliation tells it. `agent`: where the framework thinks it is.
    fn answer(&self, id: &str, task: &str, agent: Option<&v1::AgentId>, out: &mut Out) {
        let known = self
            .frameworks
            .get(id)
            .and_then(|framework| framework.tasks.get(task))
            .filter(|task| !self.is_away(task.agent));
        let partition_aware = self.dropped(id) == TaskState::TaskDropped;
        let agent = agent.and_then(|agent| self.agent(agent));
        let (state, agent, message) = match (known, agent) {
            (Some(known), _) => (
                known.state,
                Some(known.agent),
                "Reconciliation: Latest task state",
            ),
            (None, Some(agent)) => (
                TaskState::TaskGone,
                Some(agent),
                "Reconciliation: Task is unknown to the agent",
            ),
            (None, None) => (
                TaskState::TaskUnknown,
                None,
                "Reconciliation: Task is unknown to the master",
            ),
        };
        let state = match known {
            None if !partition_aware => TaskState::TaskLost,
            _ => state,
        };
        let made = Made {
            state,
            reason: Reason::Reconciliation,
            message,
            agent,
        };
        let mut status = self.status(task, made);
        status.healthy = known.and_then(|known| known.healthy);
        status.check_status = known.and_then(|known| known.check);
        out.event(id, update(status));
    }

    /// It wants no acknowledgement: there is nothing it would be for.
    fn status(&self, task: &str, made: Made<'_>) -> v1::TaskStatus {
        v1::TaskStatus {
            task_id: v1::TaskId {
                value: task.to_owned(),
            },
            state: made.state as i32,
            message: Some(made.message.to_owned()),
            source: Some(Source::Master as i32),
            reason: Some(made.reason as i32),
            agent_id: made
                .agent
                .and_then(|agent| self.agents.get(agent))
                .map(|agent| agent.id.clone()),
            timestamp: Some(self.wall),
            ..Default::default()
        }
    }

    pub(super) fn tell(&self, id: &str, task: &str, made: Made<'_>, out: &mut Out) {
        out.event(id, update(self.status(task, made)));
    }

    // ---- agents

    /// An agent forwards a status.
    pub fn forwarded(&mut self, id: &str, status: Arc<v1::TaskStatus>, out: &mut Out) {
        let now = self.now;
        let name = status.task_id.value.clone();
        let known = self.frameworks.get(id).and_then(|known| known.tasks.get(&name));
        let away = known.is_some_and(|task| self.is_away(task.agent));
        let Some(framework) = self.frameworks.get_mut(id) else {
            return;
        };
        let Some(task) = framework.tasks.get_mut(&name) else {
            return;
        };
        let was_live = !is_terminal(task.state);
        // An end is final, whatever an agent may still say.
        if was_live {
            task.state = status.state();
            task.healthy = status.healthy.or(task.healthy);
            task.check = status.check_status.or(task.check);
        }
        task.pending.push_back(status);
        if task.pending.len() == 1 && framework.stream.is_some() && !away {
            task.transmit(id, now, UPDATE_RETRY, out);
        }
        let freed = (was_live && is_terminal(task.state)).then(|| (task.agent, task.resources.clone()));
        if task.is_over() {
            framework.tasks.remove(&name);
        }
        if let Some((agent, resources)) = freed {
            self.release(agent, &resources);
            self.allocate(out);
        }
    }

    /// An executor has a message for its scheduler; it is lost if nobody listens, as in Mesos.
    pub fn said(&self, agent: usize, id: &str, executor: &str, data: Vec<u8>, out: &mut Out) {
        if let Some(host) = self.agents.get(agent).filter(|_| self.is_subscribed(id)) {
            let message = event::Message {
                agent_id: host.id.clone(),
                executor_id: v1::ExecutorId {
                    value: executor.to_owned(),
                },
                data,
            };
            out.event(
                id,
                Event {
                    message: Some(message),
                    ..blank(event::Type::Message)
                },
            );
        }
    }

    /// An executor has ended, and its agent has told of all its tasks.
    pub fn ended(&mut self, agent: usize, id: &str, executor: &str, status: i32, out: &mut Out) {
        let Some(framework) = self.frameworks.get_mut(id) else {
            return;
        };
        let Some(gone) = framework.executors.remove(&(agent, executor.to_owned())) else {
            return;
        };
        let connected = framework.stream.is_some();
        self.release(agent, &gone.resources);
        if let Some(host) = self.agents.get(agent).filter(|_| connected) {
            let failure = event::Failure {
                agent_id: Some(host.id.clone()),
                executor_id: Some(v1::ExecutorId {
                    value: executor.to_owned(),
                }),
                status: Some(status),
            };
            out.event(
                id,
                Event {
                    failure: Some(failure),
                    ..blank(event::Type::Failure)
                },
            );
        }
        self.allocate(out);
    }
}
