//! What a master knows and decides: frameworks, offers, tasks.
//!
//! Nothing here waits or does I/O. Calls of schedulers and news from agents come in with the time; events for
//! schedulers and orders for agents come out.
//!
//! * `frameworks`: who is subscribed, and what becomes of those who leave
//! * `offers`: who is offered what, until it is used, declined or taken back
//! * `launches`: what is used of offers, and what is wrong with that
//! * `tasks`: their states, on the way up and in answers to questions

mod demands;
mod frameworks;
mod launches;
mod offers;
mod tasks;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use self::{
    frameworks::{Completed, Framework},
    offers::Offer,
};
use super::amounts::Amounts;
use crate::mesos::v1::{
    self,
    scheduler::{Call, Event, call, event},
};

/// The real master's interval.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(15);

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

impl Out {
    fn event(&mut self, framework: &str, event: Event) {
        self.events.push((framework.to_owned(), event));
    }
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
    /// Neither offered nor used.
    free: Amounts,
    /// It has not come back to a master that lost its registry, which knows nothing of it.
    away: bool,
}

#[derive(Debug)]
pub(super) struct Core {
    pub info: v1::MasterInfo,
    agents: Vec<Agent>,
    frameworks: BTreeMap<String, Framework>,
    completed: Completed,
    offers: BTreeMap<String, Offer>,
    made: u64,
    now: Duration,
    wall: f64,
}

fn blank(kind: event::Type) -> Event {
    Event {
        r#type: Some(kind as i32),
        ..Default::default()
    }
}

/// The part of a call that its type promises.
fn body<'c, T>(part: &'c Option<T>, name: &str) -> Result<&'c T, Refusal> {
    match part {
        Some(part) => Ok(part),
        None => refuse(400, format!("Expecting '{name}' to be present")),
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
            away: false,
        };
        Core {
            info,
            agents: agents.into_iter().map(agent).collect(),
            frameworks: BTreeMap::new(),
            completed: VecDeque::new(),
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

    fn agent(&self, id: &v1::AgentId) -> Option<usize> {
        self.agents
            .iter()
            .position(|agent| agent.id == *id && !agent.away)
    }

    /// Another master leads, one with an empty registry: every subscription ends, and until its agents have come back
    /// it knows of none of them and of nothing on them. What runs goes on running.
    pub fn fail_over(&mut self, out: &mut Out) {
        let subscribed: Vec<String> = self
            .frameworks
            .keys()
            .filter(|id| self.is_subscribed(id))
            .cloned()
            .collect();
        for id in subscribed {
            self.leave(&id);
            out.close.push(id);
        }
        self.agents.iter_mut().for_each(|agent| agent.away = true);
    }

    /// The agents have registered with the new master, and told it what runs on them.
    pub fn agents_return(&mut self, out: &mut Out) {
        self.agents.iter_mut().for_each(|agent| agent.away = false);
        let now = self.now;
        for (id, framework) in &mut self.frameworks {
            framework.hear(id, &[], now, out);
        }
        self.allocate(out);
    }

    fn is_away(&self, agent: usize) -> bool {
        self.agents.get(agent).is_some_and(|agent| agent.away)
    }

    /// Resources of an agent that are nobody's any more.
    fn release(&mut self, agent: usize, amounts: &Amounts) {
        if let Some(agent) = self.agents.get_mut(agent) {
            agent.free.add(amounts);
        }
    }

    // ---- time

    pub fn deadline(&self) -> Option<Duration> {
        self.frameworks.values().filter_map(Framework::deadline).min()
    }

    pub fn tick(&mut self, out: &mut Out) {
        let now = self.now;
        let lost: Vec<String> = self
            .frameworks
            .iter()
            .filter(|(_, framework)| framework.is_lost(now))
            .map(|(id, _)| id.clone())
            .collect();
        for id in lost {
            self.remove(&id, out);
        }
        for (id, framework) in &mut self.frameworks {
            framework.tick(id, now, out);
        }
        self.allocate(out);
    }

    pub fn beat(&self, id: &str, out: &mut Out) {
        out.event(id, blank(event::Type::Heartbeat));
    }

    // ---- calls

    /// A call of a subscribed framework.
    pub fn call(&mut self, id: &str, call: &Call, out: &mut Out) -> Result<(), Refusal> {
        use call::Type;
        match call.r#type() {
            Type::Accept => self.accept(id, body(&call.accept, "accept")?, out),
            Type::Decline => self.decline(id, body(&call.decline, "decline")?),
            Type::Revive => self.revive(id),
            Type::Suppress => self.suppress(id),
            Type::Kill => self.kill(id, body(&call.kill, "kill")?, out),
            Type::Acknowledge => {
                let acknowledge = body(&call.acknowledge, "acknowledge")?;
                if acknowledge.uuid.len() != 16 {
                    return refuse(400, format!("Not a valid UUID: {} bytes", acknowledge.uuid.len()));
                }
                self.acknowledge(id, acknowledge, out);
            }
            Type::Reconcile => self.reconcile(id, body(&call.reconcile, "reconcile")?, out),
            Type::Teardown => self.remove(id, out),
            Type::Shutdown => self.shutdown(id, body(&call.shutdown, "shutdown")?, out),
            Type::Message => self.message(id, body(&call.message, "message")?, out),
            // Asking for resources never meant anything to the real allocator either.
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

    fn shutdown(&self, id: &str, shutdown: &call::Shutdown, out: &mut Out) {
        if let Some(agent) = self.agent(&shutdown.agent_id) {
            out.down.push(Down::Shutdown {
                agent,
                framework: id.to_owned(),
                executor: shutdown.executor_id.value.clone(),
            });
        }
    }

    fn message(&self, id: &str, message: &call::Message, out: &mut Out) {
        if let Some(agent) = self.agent(&message.agent_id) {
            out.down.push(Down::Message {
                agent,
                framework: id.to_owned(),
                executor: message.executor_id.value.clone(),
                data: message.data.clone(),
            });
        }
    }
}

#[cfg(test)]
mod tests;
