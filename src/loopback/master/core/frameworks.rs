//! Who is subscribed, and what becomes of those who leave.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::{
    super::amounts::Amounts,
    Core, Down, Out, Refusal, blank,
    offers::Filter,
    tasks::{Task, UPDATE_RETRY, is_terminal},
};
use crate::mesos::v1::{
    self,
    framework_info::capability,
    scheduler::{Event, call, event},
};

/// Frameworks that are gone for good, the latest last; they may not come back under their old id.
pub(super) type Completed = VecDeque<String>;

/// As many as a real master remembers.
const MAX_COMPLETED: usize = 50;

#[derive(Debug)]
pub(super) struct Framework {
    pub info: v1::FrameworkInfo,
    /// The stream's id while there is one.
    pub stream: Option<String>,
    pub suppressed: bool,
    /// What it does not want to hear of for a while, by agent.
    pub filters: BTreeMap<usize, Vec<Filter>>,
    /// When it is given up for lost.
    pub failover: Option<Duration>,
    /// Those whose end has not been acknowledged, too.
    pub tasks: BTreeMap<String, Task>,
    pub executors: BTreeMap<(usize, String), Executor>,
}

#[derive(Debug)]
pub(super) struct Executor {
    pub info: v1::ExecutorInfo,
    pub resources: Amounts,
}

impl Framework {
    pub fn deadline(&self) -> Option<Duration> {
        let retries = self
            .tasks
            .values()
            .filter(|_| self.stream.is_some())
            .filter_map(Task::retry);
        let filters = self.filters.values().flatten().map(|filter| filter.until);
        retries.chain(filters).chain(self.failover).min()
    }

    pub fn is_lost(&self, now: Duration) -> bool {
        self.failover.is_some_and(|at| at <= now)
    }

    pub fn tick(&mut self, id: &str, now: Duration, out: &mut Out) {
        self.filters.retain(|_, filters| {
            filters.retain(|filter| filter.until > now);
            !filters.is_empty()
        });
        if self.stream.is_some() {
            for task in self.tasks.values_mut() {
                task.repeat(id, now, out);
            }
        }
    }

    /// Is sent what it has not acknowledged, of all agents that are there.
    pub fn hear(&mut self, id: &str, away: &[bool], now: Duration, out: &mut Out) {
        let there = |task: &&mut Task| away.get(task.agent) != Some(&true);
        if self.stream.is_some() {
            for task in self.tasks.values_mut().filter(there) {
                task.transmit(id, now, UPDATE_RETRY, out);
            }
        }
    }

    pub fn is_capable_of(&self, kind: capability::Type) -> bool {
        self.info
            .capabilities
            .iter()
            .any(|capability| capability.r#type() == kind)
    }

    /// The role it is offered resources for. A second one has no place in a cluster without reservations.
    #[expect(deprecated, reason = "some schedulers never heard of its successor")]
    pub fn role(&self) -> String {
        let role = match self.is_capable_of(capability::Type::MultiRole) {
            true => self.info.roles.first(),
            // The field of old, for those who do not know that there can be several.
            false => self.info.role.as_ref(),
        };
        role.cloned().unwrap_or_else(|| "*".to_owned())
    }
}

fn error(message: &str) -> Event {
    Event {
        error: Some(event::Error {
            message: message.to_owned(),
        }),
        ..blank(event::Type::Error)
    }
}

impl Core {
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
        if self.is_subscribed(&id) {
            // The newer one wins.
            out.event(&id, error("Framework failed over"));
            out.close.push(id.clone());
        }
        self.withdraw(&id);
        if self.completed.contains(&id) {
            return Ok(id);
        }
        let framework = self.frameworks.entry(id.clone()).or_insert_with(|| Framework {
            info: info.clone(),
            stream: None,
            suppressed: false,
            filters: BTreeMap::new(),
            failover: None,
            tasks: BTreeMap::new(),
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
        if self.completed.iter().any(|completed| completed == id) {
            out.event(id, error("Framework has been removed"));
            out.close.push(id.to_owned());
            return;
        }
        let subscribed = event::Subscribed {
            framework_id: v1::FrameworkId { value: id.to_owned() },
            heartbeat_interval_seconds: Some(super::HEARTBEAT.as_secs_f64()),
            master_info: Some(self.info.clone()),
        };
        out.event(
            id,
            Event {
                subscribed: Some(subscribed),
                ..blank(event::Type::Subscribed)
            },
        );
        let now = self.now;
        let away: Vec<bool> = self.agents.iter().map(|agent| agent.away).collect();
        if let Some(framework) = self.frameworks.get_mut(id) {
            framework.hear(id, &away, now, out);
        }
        self.allocate(out);
    }

    pub fn is_known(&self, framework: &str) -> bool {
        self.frameworks.contains_key(framework)
    }

    pub fn is_subscribed(&self, framework: &str) -> bool {
        self.frameworks
            .get(framework)
            .is_some_and(|known| known.stream.is_some())
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
        self.leave(id);
        self.tick(out);
    }

    /// A framework whose stream is over has its time to come back.
    pub(super) fn leave(&mut self, id: &str) {
        self.withdraw(id);
        let now = self.now;
        if let Some(framework) = self.frameworks.get_mut(id) {
            framework.stream = None;
            let patience =
                Duration::try_from_secs_f64(framework.info.failover_timeout()).unwrap_or(Duration::MAX);
            framework.failover = Some(now.saturating_add(patience));
        }
    }

    /// The framework and all that is its.
    pub(super) fn remove(&mut self, id: &str, out: &mut Out) {
        self.withdraw(id);
        let Some(framework) = self.frameworks.remove(id) else {
            return;
        };
        for ((agent, executor), known) in framework.executors {
            self.release(agent, &known.resources);
            out.down.push(Down::Shutdown {
                agent,
                framework: id.to_owned(),
                executor,
            });
        }
        for task in framework.tasks.values().filter(|task| !is_terminal(task.state)) {
            self.release(task.agent, &task.resources);
        }
        if framework.stream.is_some() {
            out.close.push(id.to_owned());
        }
        if self.completed.len() == MAX_COMPLETED {
            self.completed.pop_front();
        }
        self.completed.push_back(id.to_owned());
    }
}
