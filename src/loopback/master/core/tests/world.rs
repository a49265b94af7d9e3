//! A master, its agents, and what it has said.

use std::{sync::Arc, time::Duration};

pub(super) use super::super::{
    super::amounts::{self, Amounts},
    *,
};
pub(super) use crate::mesos::v1::{
    CommandInfo, ExecutorId, ExecutorInfo, Filters, FrameworkInfo, OfferId, Resource, TaskId, TaskInfo,
    TaskState, TaskStatus, executor_info,
    framework_info::{Capability, capability},
    offer::{Operation, operation},
    scheduler::call::Type,
    task_status::Reason,
};

pub(super) fn resources(text: &str) -> Vec<Resource> {
    amounts::parse(text).unwrap()
}

pub(super) fn total() -> Amounts {
    Amounts::of(&resources("cpus:4;mem:1024;disk:1000;ports:[1-10]"))
}

pub(super) fn agent_id(index: usize) -> v1::AgentId {
    v1::AgentId {
        value: format!("S{index}"),
    }
}

pub(super) fn executor(id: &str, own: &str) -> ExecutorInfo {
    ExecutorInfo {
        r#type: Some(executor_info::Type::Default as i32),
        executor_id: ExecutorId { value: id.into() },
        resources: resources(own),
        ..Default::default()
    }
}

pub(super) fn task(id: &str, agent: usize, own: &str) -> TaskInfo {
    TaskInfo {
        name: id.into(),
        task_id: TaskId { value: id.into() },
        agent_id: agent_id(agent),
        resources: resources(own),
        command: Some(CommandInfo {
            value: Some("true".into()),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub(super) const EXECUTOR: &str = "cpus:0.1;mem:32;disk:10";

pub(super) fn group(executor: ExecutorInfo, tasks: Vec<TaskInfo>) -> Operation {
    Operation {
        r#type: Some(operation::Type::LaunchGroup as i32),
        launch_group: Some(operation::LaunchGroup {
            executor,
            task_group: v1::TaskGroupInfo { tasks },
        }),
        ..Default::default()
    }
}

pub(super) fn singles(task_infos: Vec<TaskInfo>) -> Operation {
    Operation {
        r#type: Some(operation::Type::Launch as i32),
        launch: Some(operation::Launch { task_infos }),
        ..Default::default()
    }
}

pub(super) fn blank_call(kind: Type) -> Call {
    Call {
        r#type: Some(kind as i32),
        ..Default::default()
    }
}

pub(super) fn refusing(seconds: f64) -> Option<Filters> {
    Some(Filters {
        refuse_seconds: Some(seconds),
    })
}

/// A master, its agents, and what it has said.
pub(super) struct World {
    pub(super) core: Core,
    pub(super) now: Duration,
    pub(super) events: Vec<(String, Event)>,
    pub(super) down: Vec<Down>,
    pub(super) closed: Vec<String>,
    pub(super) streams: usize,
}

impl World {
    pub(super) fn new(agents: usize) -> Self {
        let agent = |index| {
            let own = resources("cpus:4;mem:1024;disk:1000;ports:[1-10]");
            (agent_id(index), format!("host{index}"), own)
        };
        let info = v1::MasterInfo {
            id: "M".into(),
            ..Default::default()
        };
        World {
            core: Core::new(info, (0..agents).map(agent)),
            now: Duration::ZERO,
            events: Vec::new(),
            down: Vec::new(),
            closed: Vec::new(),
            streams: 0,
        }
    }

    pub(super) fn step<T>(&mut self, decide: impl FnOnce(&mut Core, &mut Out) -> T) -> T {
        let mut out = Out::default();
        let result = decide(self.core.at(self.now, 1.0), &mut out);
        self.events.extend(out.events);
        self.down.extend(out.down);
        self.closed.extend(out.close);
        self.audit();
        result
    }

    /// Nothing is ever lost, and nothing is ever given away twice.
    pub(super) fn audit(&self) {
        for (index, agent) in self.core.agents.iter().enumerate() {
            let offered = self.core.offers.values().filter(|offer| offer.agent == index);
            let mut parts: Vec<&Amounts> = vec![&agent.free];
            parts.extend(offered.map(|offer| &offer.amounts));
            for framework in self.core.frameworks.values() {
                let own = framework.executors.iter().filter(|((at, _), _)| *at == index);
                parts.extend(own.map(|(_, executor)| &executor.resources));
                let live = |task: &&tasks::Task| task.agent == index && !tasks::is_terminal(task.state);
                parts.extend(framework.tasks.values().filter(live).map(|task| &task.resources));
            }
            let mut sum = Amounts::default();
            let ports: u64 = parts.iter().map(|part| part.count("ports")).sum();
            parts.into_iter().for_each(|part| sum.add(part));
            assert!(
                sum.hold(&total()) && total().hold(&sum),
                "agent {index} has {sum}"
            );
            assert_eq!(ports, 10, "no port is in two places");
        }
    }

    pub(super) fn subscribe_as(
        &mut self,
        id: Option<&str>,
        capabilities: &[capability::Type],
        failover: f64,
    ) -> String {
        self.streams += 1;
        let stream = format!("stream{}", self.streams);
        let capability = |kind: &capability::Type| Capability {
            r#type: Some(*kind as i32),
        };
        let subscribe = call::Subscribe {
            framework_info: FrameworkInfo {
                id: id.map(|id| v1::FrameworkId { value: id.into() }),
                capabilities: capabilities.iter().map(capability).collect(),
                failover_timeout: Some(failover),
                ..Default::default()
            },
            ..Default::default()
        };
        let id = self
            .step(|core, out| core.subscribe(&subscribe, &stream, out))
            .unwrap();
        self.step(|core, out| core.welcome(&id, out));
        id
    }

    pub(super) fn subscribe(&mut self) -> String {
        self.subscribe_as(None, &[capability::Type::PartitionAware], 1000.0)
    }

    pub(super) fn call(&mut self, id: &str, call: Call) {
        self.step(|core, out| core.call(id, &call, out)).unwrap();
    }

    pub(super) fn accept(
        &mut self,
        id: &str,
        offers: &[OfferId],
        operations: Vec<Operation>,
        filters: Option<Filters>,
    ) {
        let accept = Some(call::Accept {
            offer_ids: offers.to_vec(),
            operations,
            filters,
        });
        self.call(
            id,
            Call {
                accept,
                ..blank_call(Type::Accept)
            },
        );
    }

    pub(super) fn decline(&mut self, id: &str, offers: &[OfferId], filters: Option<Filters>) {
        let decline = Some(call::Decline {
            offer_ids: offers.to_vec(),
            filters,
        });
        self.call(
            id,
            Call {
                decline,
                ..blank_call(Type::Decline)
            },
        );
    }

    pub(super) fn acknowledge(&mut self, id: &str, task: &str, uuid: u8) {
        let acknowledge = Some(call::Acknowledge {
            agent_id: agent_id(0),
            task_id: TaskId { value: task.into() },
            uuid: vec![uuid; 16],
        });
        self.call(
            id,
            Call {
                acknowledge,
                ..blank_call(Type::Acknowledge)
            },
        );
    }

    pub(super) fn reconcile(&mut self, id: &str, tasks: &[(&str, Option<usize>)]) -> Vec<TaskStatus> {
        let task = |(task, agent): &(&str, Option<usize>)| call::reconcile::Task {
            task_id: TaskId {
                value: task.to_string(),
            },
            agent_id: agent.map(agent_id),
        };
        let reconcile = Some(call::Reconcile {
            tasks: tasks.iter().map(task).collect(),
        });
        self.call(
            id,
            Call {
                reconcile,
                ..blank_call(Type::Reconcile)
            },
        );
        self.updates()
    }

    pub(super) fn tells(&mut self, id: &str, task: &str, state: TaskState, uuid: u8) {
        let status = TaskStatus {
            task_id: TaskId { value: task.into() },
            state: state as i32,
            uuid: Some(vec![uuid; 16]),
            ..Default::default()
        };
        self.step(|core, out| core.forwarded(id, Arc::new(status), out));
    }

    pub(super) fn wait(&mut self, seconds: f64) {
        self.now += Duration::from_secs_f64(seconds);
        self.step(|core, out| core.tick(out));
    }

    /// Offers since the last look, with the framework each is for.
    pub(super) fn offers(&mut self) -> Vec<v1::Offer> {
        let events = std::mem::take(&mut self.events);
        let (offers, rest) = events.into_iter().partition(|(_, event)| event.offers.is_some());
        self.events = rest;
        offers
            .into_iter()
            .flat_map(|(_, event): (String, Event)| event.offers.unwrap().offers)
            .collect()
    }

    /// The one offer that is out since the last look.
    pub(super) fn offer(&mut self) -> v1::Offer {
        let mut offers = self.offers();
        assert_eq!(offers.len(), 1);
        offers.remove(0)
    }

    pub(super) fn updates(&mut self) -> Vec<TaskStatus> {
        let events = std::mem::take(&mut self.events);
        let (updates, rest) = events.into_iter().partition(|(_, event)| event.update.is_some());
        self.events = rest;
        updates
            .into_iter()
            .map(|(_, event): (String, Event)| event.update.unwrap().status)
            .collect()
    }

    /// A framework with one task `t` on agent 0, under executor `e`.
    pub(super) fn with_task() -> (Self, String) {
        let mut world = World::new(1);
        let id = world.subscribe();
        let offer = world.offer();
        let operation = group(executor("e", EXECUTOR), vec![task("t", 0, "cpus:1;mem:100")]);
        world.accept(&id, &[offer.id], vec![operation], None);
        assert!(matches!(world.down[..], [Down::Launch { .. }]));
        world.offers();
        (world, id)
    }
}

pub(super) fn states(statuses: &[TaskStatus]) -> Vec<(&str, TaskState)> {
    statuses
        .iter()
        .map(|status| (status.task_id.value.as_str(), status.state()))
        .collect()
}

pub(super) fn has(offer: &v1::Offer) -> String {
    Amounts::of(&offer.resources).to_string()
}
