//! What a master knows and decides: frameworks, offers, tasks.
//!
//! Nothing here waits or does I/O. Calls of schedulers and news from agents come in with the time; events for
//! schedulers and orders for agents come out.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use super::amounts::Amounts;
use crate::{
    group::validate,
    mesos::v1::{
        self, TaskState,
        scheduler::{Call, Event, call, event},
        task_status::{Reason, Source},
    },
};

/// The real master's interval.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(15);
/// An unacknowledged update is sent again after this, then after twice as long, up to the limit.
const UPDATE_RETRY: Duration = Duration::from_secs(10);
const UPDATE_RETRY_LIMIT: Duration = Duration::from_secs(600);
/// Ended tasks remembered for reconciliation.
const REMEMBERED: usize = 1000;

/// An order to an agent.
#[derive(Debug)]
pub(super) enum Down {
    Launch {
        agent: usize,
        framework: Box<v1::FrameworkInfo>,
        executor: Box<v1::ExecutorInfo>,
        tasks: Vec<v1::TaskInfo>,
        /// By LAUNCH, one task at a time, rather than as a group.
        singly: bool,
    },
    Kill {
        agent: usize,
        framework: String,
        executor: String,
        task: String,
        policy: Option<v1::KillPolicy>,
    },
    Shutdown {
        agent: usize,
        framework: String,
        executor: String,
    },
    Message {
        agent: usize,
        framework: String,
        executor: String,
        data: Vec<u8>,
    },
}

/// What a step has to say.
#[derive(Debug, Default)]
pub(super) struct Out {
    /// Events, each for a framework that is connected.
    pub events: Vec<(String, Event)>,
    pub down: Vec<Down>,
    /// Frameworks whose stream ends, behind their last event.
    pub close: Vec<String>,
}

/// A call that is turned away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub status: u16,
    pub reason: String,
}

fn refuse<T>(status: u16, reason: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal {
        status,
        reason: reason.into(),
    })
}

#[derive(Debug)]
struct Agent {
    id: v1::AgentId,
    hostname: String,
    free: Amounts,
}

#[derive(Debug)]
struct Framework {
    info: v1::FrameworkInfo,
    /// The stream's id while there is one.
    stream: Option<String>,
    suppressed: bool,
    /// Agents it does not want to hear of, until when.
    filters: BTreeMap<usize, Duration>,
    /// When it is given up for lost.
    failover: Option<Duration>,
    tasks: BTreeMap<String, Task>,
    ended: VecDeque<String>,
    executors: BTreeMap<(usize, String), Executor>,
}

#[derive(Debug)]
struct Executor {
    info: v1::ExecutorInfo,
    resources: Amounts,
}

#[derive(Debug)]
struct Task {
    agent: usize,
    executor: String,
    resources: Amounts,
    state: TaskState,
    /// Statuses the framework has not acknowledged, the one in flight first.
    pending: VecDeque<Arc<v1::TaskStatus>>,
    retry: Option<(Duration, Duration)>,
}

#[derive(Debug)]
struct Offer {
    framework: String,
    agent: usize,
    amounts: Amounts,
}

#[derive(Debug)]
pub(super) struct Core {
    pub info: v1::MasterInfo,
    agents: Vec<Agent>,
    frameworks: BTreeMap<String, Framework>,
    offers: BTreeMap<String, Offer>,
    made: u64,
    now: Duration,
    wall: f64,
}

fn is_terminal(state: TaskState) -> bool {
    crate::loopback::agent::is_terminal(state)
}

fn blank(kind: event::Type) -> Event {
    Event {
        r#type: Some(kind as i32),
        ..Default::default()
    }
}

impl Core {
    pub fn new(
        info: v1::MasterInfo,
        agents: impl IntoIterator<Item = (v1::AgentId, String, Vec<v1::Resource>)>,
    ) -> Self {
        let agent = |(id, hostname, resources): (v1::AgentId, String, Vec<v1::Resource>)| Agent {
            id,
            hostname,
            free: Amounts::of(&resources),
        };
        Core {
            info,
            agents: agents.into_iter().map(agent).collect(),
            frameworks: BTreeMap::new(),
            offers: BTreeMap::new(),
            made: 0,
            now: Duration::ZERO,
            wall: 0.0,
        }
    }

    /// The time of everything that follows.
    pub fn at(&mut self, now: Duration, wall: f64) -> &mut Self {
        self.now = now;
        self.wall = wall;
        self
    }

    fn fresh(&mut self, what: &str) -> String {
        self.made += 1;
        format!("{}-{what}{:04}", self.info.id, self.made)
    }

    // ---- frameworks

    /// A scheduler came, or came back: its framework's id. The id of the stream is the caller's to make.
    pub fn subscribe(
        &mut self,
        subscribe: &call::Subscribe,
        stream: &str,
        out: &mut Out,
    ) -> Result<String, Refusal> {
        let mut info = subscribe.framework_info.clone();
        let id = match info.id.clone().filter(|id| !id.value.is_empty()) {
            Some(id) => id.value,
            None => self.fresh("F"),
        };
        info.id = Some(v1::FrameworkId { value: id.clone() });
        if let Some(known) = self.frameworks.get(&id)
            && known.stream.is_some()
        {
            // The newer one wins.
            let message = "Framework failed over".to_owned();
            out.events.push((
                id.clone(),
                Event {
                    error: Some(event::Error { message }),
                    ..blank(event::Type::Error)
                },
            ));
            out.close.push(id.clone());
        }
        self.withdraw(&id);
        let framework = self.frameworks.entry(id.clone()).or_insert_with(|| Framework {
            info: info.clone(),
            stream: None,
            suppressed: false,
            filters: BTreeMap::new(),
            failover: None,
            tasks: BTreeMap::new(),
            ended: VecDeque::new(),
            executors: BTreeMap::new(),
        });
        framework.info = info;
        framework.stream = Some(stream.to_owned());
        framework.suppressed = !subscribe.suppressed_roles.is_empty();
        framework.filters.clear();
        framework.failover = None;
        Ok(id)
    }

    /// What a new stream begins with.
    pub fn welcome(&mut self, id: &str, out: &mut Out) {
        let subscribed = event::Subscribed {
            framework_id: v1::FrameworkId { value: id.to_owned() },
            heartbeat_interval_seconds: Some(HEARTBEAT.as_secs_f64()),
            master_info: Some(self.info.clone()),
        };
        out.events.push((
            id.to_owned(),
            Event {
                subscribed: Some(subscribed),
                ..blank(event::Type::Subscribed)
            },
        ));
        let now = self.now;
        if let Some(framework) = self.frameworks.get_mut(id) {
            for task in framework.tasks.values_mut() {
                task.transmit(id, now, UPDATE_RETRY, out);
            }
        }
        self.allocate(out);
    }

    pub fn is_known(&self, framework: &str) -> bool {
        self.frameworks.contains_key(framework)
    }

    pub fn is_stream(&self, framework: &str, stream: &str) -> bool {
        self.frameworks
            .get(framework)
            .is_some_and(|known| known.stream.as_deref() == Some(stream))
    }

    /// The stream with this id has ended. An older one's end means nothing.
    pub fn disconnected(&mut self, id: &str, stream: &str, out: &mut Out) {
        if !self.is_stream(id, stream) {
            return;
        }
        self.withdraw(id);
        let now = self.now;
        if let Some(framework) = self.frameworks.get_mut(id) {
            framework.stream = None;
            let patience =
                Duration::try_from_secs_f64(framework.info.failover_timeout()).unwrap_or(Duration::MAX);
            framework.failover = Some(now.saturating_add(patience));
        }
        self.tick(out);
        self.allocate(out);
    }

    /// Takes a framework's offers back.
    fn withdraw(&mut self, id: &str) {
        let taken: Vec<String> = self
            .offers
            .iter()
            .filter(|(_, offer)| offer.framework == id)
            .map(|(id, _)| id.clone())
            .collect();
        for offer in taken {
            self.recover(&offer);
        }
    }

    fn recover(&mut self, offer: &str) -> Option<Offer> {
        let offer = self.offers.remove(offer)?;
        self.agents.get_mut(offer.agent)?.free.add(&offer.amounts);
        Some(offer)
    }

    /// The framework and all that is its.
    fn remove(&mut self, id: &str, out: &mut Out) {
        self.withdraw(id);
        let Some(framework) = self.frameworks.remove(id) else {
            return;
        };
        for ((agent, executor), info) in framework.executors {
            out.down.push(Down::Shutdown {
                agent,
                framework: id.to_owned(),
                executor,
            });
            if let Some(agent) = self.agents.get_mut(agent) {
                agent.free.add(&info.resources);
            }
        }
        for task in framework.tasks.values().filter(|task| !is_terminal(task.state)) {
            if let Some(agent) = self.agents.get_mut(task.agent) {
                agent.free.add(&task.resources);
            }
        }
        if framework.stream.is_some() {
            out.close.push(id.to_owned());
        }
    }

    // ---- time

    pub fn deadline(&self) -> Option<Duration> {
        let framework = |framework: &Framework| {
            let retries = framework
                .tasks
                .values()
                .filter_map(|task| task.retry.map(|(at, _)| at));
            let connected = framework.stream.is_some();
            let retries = retries.filter(move |_| connected).min();
            framework
                .filters
                .values()
                .min()
                .copied()
                .into_iter()
                .chain(retries)
                .chain(framework.failover)
                .min()
        };
        self.frameworks.values().filter_map(framework).min()
    }

    pub fn tick(&mut self, out: &mut Out) {
        let now = self.now;
        let lost: Vec<String> = self
            .frameworks
            .iter()
            .filter(|(_, framework)| framework.failover.is_some_and(|at| at <= now))
            .map(|(id, _)| id.clone())
            .collect();
        for id in lost {
            self.remove(&id, out);
        }
        for (id, framework) in &mut self.frameworks {
            framework.filters.retain(|_, until| *until > now);
            if framework.stream.is_none() {
                continue;
            }
            for task in framework.tasks.values_mut() {
                if let Some((at, pause)) = task.retry
                    && at <= now
                {
                    task.transmit(id, now, pause.saturating_mul(2).min(UPDATE_RETRY_LIMIT), out);
                }
            }
        }
        self.allocate(out);
    }

    pub fn beat(&self, id: &str, out: &mut Out) {
        out.events.push((id.to_owned(), blank(event::Type::Heartbeat)));
    }

    /// Offers everything that is free to the first framework that wants it.
    fn allocate(&mut self, out: &mut Out) {
        for index in 0..self.agents.len() {
            let wants = |framework: &Framework| {
                framework.stream.is_some() && !framework.suppressed && !framework.filters.contains_key(&index)
            };
            let Some((id, role)) = self
                .frameworks
                .iter()
                .find(|(_, framework)| wants(framework))
                .map(|(id, framework)| {
                    (
                        id.clone(),
                        framework
                            .info
                            .roles
                            .first()
                            .cloned()
                            .unwrap_or_else(|| "*".to_owned()),
                    )
                })
            else {
                continue;
            };
            let offer_id = self.fresh("O");
            let Some(agent) = self.agents.get_mut(index).filter(|agent| !agent.free.is_empty()) else {
                continue;
            };
            let amounts = std::mem::take(&mut agent.free);
            let running = self
                .frameworks
                .get(&id)
                .into_iter()
                .flat_map(|framework| framework.executors.keys());
            let executor_ids = running
                .filter(|(agent, _)| *agent == index)
                .map(|(_, id)| v1::ExecutorId { value: id.clone() })
                .collect();
            let offer = v1::Offer {
                id: v1::OfferId {
                    value: offer_id.clone(),
                },
                framework_id: v1::FrameworkId { value: id.clone() },
                agent_id: agent.id.clone(),
                hostname: agent.hostname.clone(),
                resources: amounts.resources(&role),
                allocation_info: Some(v1::resource::AllocationInfo { role: Some(role) }),
                executor_ids,
                ..Default::default()
            };
            self.offers.insert(
                offer_id,
                Offer {
                    framework: id.clone(),
                    agent: index,
                    amounts,
                },
            );
            let offers = event::Offers { offers: vec![offer] };
            out.events.push((
                id,
                Event {
                    offers: Some(offers),
                    ..blank(event::Type::Offers)
                },
            ));
        }
    }

    // ---- calls

    /// A call of a subscribed framework.
    pub fn call(&mut self, id: &str, call: &Call, out: &mut Out) -> Result<(), Refusal> {
        use call::Type;
        match call.r#type() {
            Type::Accept => {
                let Some(accept) = &call.accept else {
                    return refuse(400, "Expecting 'accept' to be present");
                };
                self.accept(id, accept, out);
            }
            Type::Decline => {
                let Some(decline) = &call.decline else {
                    return refuse(400, "Expecting 'decline' to be present");
                };
                for offer in &decline.offer_ids {
                    self.give_back(id, &offer.value, decline.filters.as_ref());
                }
            }
            Type::Revive => {
                if let Some(framework) = self.frameworks.get_mut(id) {
                    framework.suppressed = false;
                    framework.filters.clear();
                }
            }
            Type::Suppress => {
                if let Some(framework) = self.frameworks.get_mut(id) {
                    framework.suppressed = true;
                }
            }
            Type::Kill => {
                let Some(kill) = &call.kill else {
                    return refuse(400, "Expecting 'kill' to be present");
                };
                self.kill(id, kill, out);
            }
            Type::Acknowledge => {
                let Some(ack) = &call.acknowledge else {
                    return refuse(400, "Expecting 'acknowledge' to be present");
                };
                if ack.uuid.len() != 16 {
                    return refuse(400, format!("Not a valid UUID: {} bytes", ack.uuid.len()));
                }
                self.acknowledge(id, ack, out);
            }
            Type::Reconcile => {
                let Some(reconcile) = &call.reconcile else {
                    return refuse(400, "Expecting 'reconcile' to be present");
                };
                self.reconcile(id, reconcile, out);
            }
            Type::Teardown => self.remove(id, out),
            Type::Shutdown => {
                let Some(shutdown) = &call.shutdown else {
                    return refuse(400, "Expecting 'shutdown' to be present");
                };
                if let Some(agent) = self.agent(&shutdown.agent_id) {
                    let executor = shutdown.executor_id.value.clone();
                    out.down.push(Down::Shutdown {
                        agent,
                        framework: id.to_owned(),
                        executor,
                    });
                }
            }
            Type::Message => {
                let Some(message) = &call.message else {
                    return refuse(400, "Expecting 'message' to be present");
                };
                if let Some(agent) = self.agent(&message.agent_id) {
                    let executor = message.executor_id.value.clone();
                    out.down.push(Down::Message {
                        agent,
                        framework: id.to_owned(),
                        executor,
                        data: message.data.clone(),
                    });
                }
            }
            Type::Request => {}
            Type::Subscribe => return refuse(400, "Already subscribed on this stream"),
            other => {
                return refuse(
                    501,
                    format!("The loopback master does not know {}", other.as_str_name()),
                );
            }
        }
        self.allocate(out);
        Ok(())
    }

    fn agent(&self, id: &v1::AgentId) -> Option<usize> {
        self.agents.iter().position(|agent| agent.id == *id)
    }

    /// An offer that comes back unused, wholly or in part.
    fn give_back(&mut self, framework: &str, offer: &str, filters: Option<&v1::Filters>) {
        if self
            .offers
            .get(offer)
            .is_none_or(|offer| offer.framework != framework)
        {
            return;
        }
        let Some(offer) = self.recover(offer) else { return };
        let refuse = filters.map_or(5.0, |filters| filters.refuse_seconds());
        let refuse = Duration::try_from_secs_f64(refuse).unwrap_or(Duration::ZERO);
        let until = self
            .now
            .saturating_add(refuse.min(Duration::from_secs(365 * 24 * 3600)));
        if let Some(framework) = self.frameworks.get_mut(framework)
            && !refuse.is_zero()
        {
            framework.filters.insert(offer.agent, until);
        }
    }

    fn accept(&mut self, id: &str, accept: &call::Accept, out: &mut Out) {
        let valid = self.joint(id, &accept.offer_ids);
        let mut agent = None;
        for offer in &accept.offer_ids {
            agent = self
                .offers
                .get(&offer.value)
                .filter(|o| o.framework == id)
                .map(|o| o.agent)
                .or(agent);
            // What is not used goes back under the filter; what is used is taken from there.
            self.give_back(id, &offer.value, accept.filters.as_ref());
        }
        for operation in &accept.operations {
            let (executor, tasks, singly) = match (&operation.launch_group, &operation.launch) {
                (Some(group), _) => (Some(&group.executor), group.task_group.tasks.as_slice(), false),
                (None, Some(launch)) => (None, launch.task_infos.as_slice(), true),
                (None, None) => continue,
            };
            let result = match (&valid, agent) {
                (Ok(()), Some(agent)) => self.launch(id, agent, executor, tasks, singly, out),
                (Err(problem), _) => Err((self.dropped(id), Reason::InvalidOffers, problem.clone())),
                (Ok(()), None) => Err((
                    self.dropped(id),
                    Reason::InvalidOffers,
                    "No offer was named".to_owned(),
                )),
            };
            if let Err((state, reason, message)) = result {
                for task in tasks {
                    self.made_up(id, &task.task_id.value, state, reason, &message, agent, out);
                }
            }
        }
    }

    /// Whether these offers are all of this framework and one agent.
    fn joint(&self, id: &str, offers: &[v1::OfferId]) -> Result<(), String> {
        let mut agent = None;
        for offer_id in offers {
            let offer = self
                .offers
                .get(&offer_id.value)
                .filter(|offer| offer.framework == id);
            let offer = offer.ok_or_else(|| format!("Offer {} is no longer valid", offer_id.value))?;
            if *agent.get_or_insert(offer.agent) != offer.agent {
                return Err("The offers are of different agents".to_owned());
            }
        }
        Ok(())
    }

    fn dropped(&self, id: &str) -> TaskState {
        use v1::framework_info::capability::Type;
        let aware = self.frameworks.get(id).is_some_and(|framework| {
            framework
                .info
                .capabilities
                .iter()
                .any(|capability| capability.r#type() == Type::PartitionAware)
        });
        if aware {
            TaskState::TaskDropped
        } else {
            TaskState::TaskLost
        }
    }

    fn launch(
        &mut self,
        id: &str,
        agent: usize,
        executor: Option<&v1::ExecutorInfo>,
        tasks: &[v1::TaskInfo],
        singly: bool,
        out: &mut Out,
    ) -> Result<(), (TaskState, Reason, String)> {
        let invalid = |message: String| {
            let reason = if singly {
                Reason::TaskInvalid
            } else {
                Reason::TaskGroupInvalid
            };
            (TaskState::TaskError, reason, message)
        };
        let executor = executor.or_else(|| tasks.first().and_then(|task| task.executor.as_ref()));
        let mut executor = executor
            .cloned()
            .ok_or_else(|| invalid("A task needs an executor".to_owned()))?;
        executor.framework_id = Some(v1::FrameworkId { value: id.to_owned() });
        let mut faults = validate::group(tasks, &executor);
        faults.extend(validate::disagreements(tasks));
        if !faults.is_empty() {
            let all: Vec<String> = faults.iter().map(ToString::to_string).collect();
            return Err(invalid(all.join("; ")));
        }
        let framework = self
            .frameworks
            .get_mut(id)
            .ok_or_else(|| invalid("Unknown framework".to_owned()))?;
        if let Some(twice) = tasks
            .iter()
            .find(|task| framework.tasks.contains_key(&task.task_id.value))
        {
            return Err(invalid(format!(
                "Task {} was launched before",
                twice.task_id.value
            )));
        }
        let key = (agent, executor.executor_id.value.clone());
        let running = framework.executors.get(&key);
        if running.is_some_and(|running| running.info != executor) {
            return Err(invalid(format!(
                "Executor {} runs with another ExecutorInfo",
                key.1
            )));
        }
        let own = Amounts::of(&executor.resources);
        let mut needed = if running.is_some() {
            Amounts::default()
        } else {
            own.clone()
        };
        let pieces: Vec<Amounts> = tasks.iter().map(|task| Amounts::of(&task.resources)).collect();
        pieces.iter().for_each(|piece| needed.add(piece));
        let host = self
            .agents
            .get_mut(agent)
            .ok_or_else(|| invalid("Unknown agent".to_owned()))?;
        if !host.free.hold(&needed) {
            return Err(invalid(
                "The tasks and their executor use more than was offered".to_owned(),
            ));
        }
        host.free.take(&needed);
        if running.is_none() {
            framework.executors.insert(
                key.clone(),
                Executor {
                    info: executor.clone(),
                    resources: own,
                },
            );
        }
        for (task, resources) in tasks.iter().zip(pieces) {
            let (state, pending) = (TaskState::TaskStaging, VecDeque::new());
            let task_ = Task {
                agent,
                executor: key.1.clone(),
                resources,
                state,
                pending,
                retry: None,
            };
            framework.tasks.insert(task.task_id.value.clone(), task_);
        }
        out.down.push(Down::Launch {
            agent,
            framework: Box::new(framework.info.clone()),
            executor: Box::new(executor),
            tasks: tasks.to_vec(),
            singly,
        });
        Ok(())
    }

    fn kill(&mut self, id: &str, kill: &call::Kill, out: &mut Out) {
        let task = &kill.task_id.value;
        match self
            .frameworks
            .get(id)
            .and_then(|framework| framework.tasks.get(task))
        {
            Some(known) if !is_terminal(known.state) => out.down.push(Down::Kill {
                agent: known.agent,
                framework: id.to_owned(),
                executor: known.executor.clone(),
                task: task.clone(),
                policy: kill.kill_policy,
            }),
            // A master that does not know a task says so.
            _ => self.answer(id, task, out),
        }
    }

    fn acknowledge(&mut self, id: &str, ack: &call::Acknowledge, out: &mut Out) {
        let now = self.now;
        let Some(framework) = self.frameworks.get_mut(id) else {
            return;
        };
        let Some(task) = framework.tasks.get_mut(&ack.task_id.value) else {
            return;
        };
        if task
            .pending
            .front()
            .is_none_or(|status| status.uuid() != ack.uuid)
        {
            return;
        }
        task.pending.pop_front();
        task.retry = None;
        task.transmit(id, now, UPDATE_RETRY, out);
    }

    fn reconcile(&self, id: &str, reconcile: &call::Reconcile, out: &mut Out) {
        if reconcile.tasks.is_empty() {
            let known = self
                .frameworks
                .get(id)
                .into_iter()
                .flat_map(|framework| framework.tasks.iter());
            for (task, _) in known.filter(|(_, task)| !is_terminal(task.state)) {
                self.answer(id, task, out);
            }
        }
        for task in &reconcile.tasks {
            self.answer(id, &task.task_id.value, out);
        }
    }

    /// The state of a task, as reconciliation tells it.
    fn answer(&self, id: &str, task: &str, out: &mut Out) {
        let known = self
            .frameworks
            .get(id)
            .and_then(|framework| framework.tasks.get(task));
        let (state, agent, healthy) = match known {
            Some(known) => (
                known.state,
                Some(known.agent),
                known.pending.back().and_then(|status| status.healthy),
            ),
            None if self.dropped(id) == TaskState::TaskDropped => (TaskState::TaskUnknown, None, None),
            None => (TaskState::TaskLost, None, None),
        };
        let message = match known {
            Some(_) => "Reconciliation: Latest task state",
            None => "Reconciliation: Task is unknown to the master",
        };
        let mut status = self.status(task, state, Reason::Reconciliation, message, agent);
        status.healthy = healthy;
        self.push(id, status, out);
    }

    /// A status by the master's own word; it wants no acknowledgement.
    fn status(
        &self,
        task: &str,
        state: TaskState,
        reason: Reason,
        message: &str,
        agent: Option<usize>,
    ) -> v1::TaskStatus {
        v1::TaskStatus {
            task_id: v1::TaskId {
                value: task.to_owned(),
            },
            state: state as i32,
            message: Some(message.to_owned()),
            source: Some(Source::Master as i32),
            reason: Some(reason as i32),
            agent_id: agent
                .and_then(|agent| self.agents.get(agent))
                .map(|agent| agent.id.clone()),
            timestamp: Some(self.wall),
            ..Default::default()
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "every part of a status is said once, here"
    )]
    fn made_up(
        &self,
        id: &str,
        task: &str,
        state: TaskState,
        reason: Reason,
        message: &str,
        agent: Option<usize>,
        out: &mut Out,
    ) {
        let status = self.status(task, state, reason, message, agent);
        self.push(id, status, out);
    }

    fn push(&self, id: &str, status: v1::TaskStatus, out: &mut Out) {
        let update = event::Update { status };
        out.events.push((
            id.to_owned(),
            Event {
                update: Some(update),
                ..blank(event::Type::Update)
            },
        ));
    }

    // ---- agents

    /// An agent forwards a status.
    pub fn forwarded(&mut self, id: &str, status: Arc<v1::TaskStatus>, out: &mut Out) {
        let now = self.now;
        let Some(framework) = self.frameworks.get_mut(id) else {
            return;
        };
        let name = status.task_id.value.clone();
        let Some(task) = framework.tasks.get_mut(&name) else {
            return;
        };
        let was_live = !is_terminal(task.state);
        task.state = status.state();
        if was_live && is_terminal(task.state) {
            if let Some(agent) = self.agents.get_mut(task.agent) {
                agent.free.add(&task.resources);
            }
            framework.ended.push_back(name);
        }
        task.pending.push_back(status);
        let connected = framework.stream.is_some();
        if task.pending.len() == 1 && connected {
            task.transmit(id, now, UPDATE_RETRY, out);
        }
        // Ended tasks whose updates are all acknowledged make room.
        while framework.ended.len() > REMEMBERED
            && let Some(oldest) = framework.ended.pop_front()
        {
            framework.tasks.remove(&oldest);
        }
        self.allocate(out);
    }

    /// An executor has ended, and its agent has told of all its tasks.
    pub fn ended(&mut self, agent: usize, id: &str, executor: &str, status: i32, out: &mut Out) {
        let Some(framework) = self.frameworks.get_mut(id) else {
            return;
        };
        let Some(gone) = framework.executors.remove(&(agent, executor.to_owned())) else {
            return;
        };
        let Some(host) = self.agents.get_mut(agent) else {
            return;
        };
        host.free.add(&gone.resources);
        if framework.stream.is_some() {
            let failure = event::Failure {
                agent_id: Some(host.id.clone()),
                executor_id: Some(v1::ExecutorId {
                    value: executor.to_owned(),
                }),
                status: Some(status),
            };
            out.events.push((
                id.to_owned(),
                Event {
                    failure: Some(failure),
                    ..blank(event::Type::Failure)
                },
            ));
        }
        self.allocate(out);
    }
}

impl Task {
    /// Sends the status in flight, for the first time or again.
    fn transmit(&mut self, framework: &str, now: Duration, pause: Duration, out: &mut Out) {
        let Some(status) = self.pending.front() else {
            return;
        };
        let update = event::Update {
            status: (**status).clone(),
        };
        out.events.push((
            framework.to_owned(),
            Event {
                update: Some(update),
                ..blank(event::Type::Update)
            },
        ));
        self.retry = Some((now.saturating_add(pause), pause));
        // What wants no acknowledgement gets none.
        if status.uuid.is_none() {
            self.pending.pop_front();
            self.retry = None;
        }
    }
}
