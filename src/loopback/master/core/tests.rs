//! The master's decisions, call by call and in random stories.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use proptest::prelude::*;

use super::{super::amounts, *};
use crate::mesos::v1::{
    CommandInfo, ExecutorId, ExecutorInfo, Filters, FrameworkInfo, OfferId, Resource, TaskId, TaskInfo,
    TaskState, TaskStatus, executor_info,
    framework_info::{Capability, capability},
    offer::{Operation, operation},
    scheduler::call::Type,
    task_status::Reason,
};

fn resources(text: &str) -> Vec<Resource> {
    amounts::parse(text).unwrap()
}

fn total() -> Amounts {
    Amounts::of(&resources("cpus:4;mem:1024;disk:1000;ports:[1-10]"))
}

fn agent_id(index: usize) -> v1::AgentId {
    v1::AgentId {
        value: format!("S{index}"),
    }
}

fn executor(id: &str, own: &str) -> ExecutorInfo {
    ExecutorInfo {
        r#type: Some(executor_info::Type::Default as i32),
        executor_id: ExecutorId { value: id.into() },
        resources: resources(own),
        ..Default::default()
    }
}

fn task(id: &str, agent: usize, own: &str) -> TaskInfo {
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

const EXECUTOR: &str = "cpus:0.1;mem:32;disk:10";

fn group(executor: ExecutorInfo, tasks: Vec<TaskInfo>) -> Operation {
    Operation {
        r#type: Some(operation::Type::LaunchGroup as i32),
        launch_group: Some(operation::LaunchGroup {
            executor,
            task_group: v1::TaskGroupInfo { tasks },
        }),
        ..Default::default()
    }
}

fn singles(task_infos: Vec<TaskInfo>) -> Operation {
    Operation {
        r#type: Some(operation::Type::Launch as i32),
        launch: Some(operation::Launch { task_infos }),
        ..Default::default()
    }
}

fn blank_call(kind: Type) -> Call {
    Call {
        r#type: Some(kind as i32),
        ..Default::default()
    }
}

fn refusing(seconds: f64) -> Option<Filters> {
    Some(Filters {
        refuse_seconds: Some(seconds),
    })
}

/// A master, its agents, and what it has said.
struct World {
    core: Core,
    now: Duration,
    events: Vec<(String, Event)>,
    down: Vec<Down>,
    closed: Vec<String>,
    streams: usize,
}

impl World {
    fn new(agents: usize) -> Self {
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

    fn step<T>(&mut self, decide: impl FnOnce(&mut Core, &mut Out) -> T) -> T {
        let mut out = Out::default();
        let result = decide(self.core.at(self.now, 1.0), &mut out);
        self.events.extend(out.events);
        self.down.extend(out.down);
        self.closed.extend(out.close);
        self.audit();
        result
    }

    /// Nothing is ever lost, and nothing is ever given away twice.
    fn audit(&self) {
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

    fn subscribe_as(&mut self, id: Option<&str>, capabilities: &[capability::Type], failover: f64) -> String {
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

    fn subscribe(&mut self) -> String {
        self.subscribe_as(None, &[capability::Type::PartitionAware], 1000.0)
    }

    fn call(&mut self, id: &str, call: Call) {
        self.step(|core, out| core.call(id, &call, out)).unwrap();
    }

    fn accept(&mut self, id: &str, offers: &[OfferId], operations: Vec<Operation>, filters: Option<Filters>) {
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

    fn decline(&mut self, id: &str, offers: &[OfferId], filters: Option<Filters>) {
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

    fn acknowledge(&mut self, id: &str, task: &str, uuid: u8) {
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

    fn reconcile(&mut self, id: &str, tasks: &[(&str, Option<usize>)]) -> Vec<TaskStatus> {
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

    fn tells(&mut self, id: &str, task: &str, state: TaskState, uuid: u8) {
        let status = TaskStatus {
            task_id: TaskId { value: task.into() },
            state: state as i32,
            uuid: Some(vec![uuid; 16]),
            ..Default::default()
        };
        self.step(|core, out| core.forwarded(id, Arc::new(status), out));
    }

    fn wait(&mut self, seconds: f64) {
        self.now += Duration::from_secs_f64(seconds);
        self.step(|core, out| core.tick(out));
    }

    /// Offers since the last look, with the framework each is for.
    fn offers(&mut self) -> Vec<v1::Offer> {
        let events = std::mem::take(&mut self.events);
        let (offers, rest) = events.into_iter().partition(|(_, event)| event.offers.is_some());
        self.events = rest;
        offers
            .into_iter()
            .flat_map(|(_, event): (String, Event)| event.offers.unwrap().offers)
            .collect()
    }

    /// The one offer that is out since the last look.
    fn offer(&mut self) -> v1::Offer {
        let mut offers = self.offers();
        assert_eq!(offers.len(), 1);
        offers.remove(0)
    }

    fn updates(&mut self) -> Vec<TaskStatus> {
        let events = std::mem::take(&mut self.events);
        let (updates, rest) = events.into_iter().partition(|(_, event)| event.update.is_some());
        self.events = rest;
        updates
            .into_iter()
            .map(|(_, event): (String, Event)| event.update.unwrap().status)
            .collect()
    }

    /// A framework with one task `t` on agent 0, under executor `e`.
    fn with_task() -> (Self, String) {
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

fn states(statuses: &[TaskStatus]) -> Vec<(&str, TaskState)> {
    statuses
        .iter()
        .map(|status| (status.task_id.value.as_str(), status.state()))
        .collect()
}

fn has(offer: &v1::Offer) -> String {
    Amounts::of(&offer.resources).to_string()
}

// ---- offers

#[test]
fn every_agent_is_offered_whole_and_all_in_one_event() {
    let mut world = World::new(3);
    let id = world.subscribe();
    let events: Vec<_> = world
        .events
        .iter()
        .filter(|(_, event)| event.offers.is_some())
        .collect();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].0, id);
    let offers = world.offers();
    let hosts: Vec<&str> = offers.iter().map(|offer| offer.hostname.as_str()).collect();
    assert_eq!(hosts, ["host0", "host1", "host2"]);
    assert!(offers.iter().all(|offer| has(offer) == total().to_string()));
    let role = |resource: &Resource| resource.allocation_info.as_ref().unwrap().role.clone();
    assert!(
        offers[0]
            .resources
            .iter()
            .all(|resource| role(resource).as_deref() == Some("*"))
    );
}

#[test]
fn what_a_launch_leaves_is_offered_again_and_names_the_executor() {
    let mut world = World::new(1);
    let id = world.subscribe();
    let offer = world.offer();
    assert!(offer.executor_ids.is_empty());
    let tasks = vec![task("a", 0, "cpus:1;ports:[3-4]"), task("b", 0, "mem:100")];
    let launch = group(executor("e", EXECUTOR), tasks);
    world.accept(&id, &[offer.id], vec![launch], refusing(0.0));
    let offer = world.offer();
    assert_eq!(has(&offer), "cpus:2.9;disk:990;mem:892;ports:[1-2,5-10]");
    assert_eq!(offer.executor_ids, [ExecutorId { value: "e".into() }]);

    // A second group under the same executor pays for its tasks alone.
    let more = group(executor("e", EXECUTOR), vec![task("c", 0, "cpus:1")]);
    world.accept(&id, &[offer.id], vec![more], refusing(0.0));
    assert_eq!(has(&world.offer()), "cpus:1.9;disk:990;mem:892;ports:[1-2,5-10]");
}

#[test]
fn what_is_declined_comes_back_when_its_time_is_over_or_when_there_is_more() {
    let (mut world, id) = World::with_task();
    world.wait(6.0);
    let offer = world.offer();
    world.decline(&id, &[offer.id], None);
    assert_eq!(world.offers(), []);
    world.wait(4.9);
    assert_eq!(world.offers(), [], "five seconds when nothing is said");
    world.wait(0.2);
    let offer = world.offer();
    let less = has(&offer);
    world.decline(&id, &[offer.id], refusing(100.0));
    world.tells(&id, "t", TaskState::TaskFinished, 1);
    let offer = world.offer();
    assert_ne!(has(&offer), less, "the task's resources are news");
    world.decline(&id, &[offer.id], refusing(0.0));
    let offer = world.offer();
    world.decline(&id, &[offer.id], refusing(1e300));
    world.wait(1e6);
    assert_eq!(world.offers(), []);
    world.call(&id, blank_call(Type::Revive));
    assert_eq!(world.offers().len(), 1);
}

#[test]
fn nothing_is_offered_while_suppressed() {
    let mut world = World::new(2);
    let id = world.subscribe();
    let offers: Vec<OfferId> = world.offers().into_iter().map(|offer| offer.id).collect();
    world.call(&id, blank_call(Type::Suppress));
    world.decline(&id, &offers, refusing(0.0));
    world.wait(100.0);
    assert_eq!(world.offers(), []);
    world.call(&id, blank_call(Type::Revive));
    assert_eq!(world.offers().len(), 2);
}

#[test]
fn two_frameworks_share_the_agents() {
    let mut world = World::new(4);
    let first = world.subscribe();
    let all: Vec<OfferId> = world.offers().into_iter().map(|offer| offer.id).collect();
    let second = world.subscribe();
    assert_eq!(world.offers(), [], "everything is offered to the first");
    world.decline(&first, &all, refusing(0.0));
    let of = |framework: &str, offers: &[v1::Offer]| {
        offers
            .iter()
            .filter(|offer| offer.framework_id.value == framework)
            .count()
    };
    let offers = world.offers();
    assert_eq!((of(&first, &offers), of(&second, &offers)), (2, 2));
}

#[test]
fn offers_of_others_and_of_the_past_are_worth_nothing() {
    for (capabilities, state) in [
        (&[capability::Type::PartitionAware][..], TaskState::TaskDropped),
        (&[], TaskState::TaskLost),
    ] {
        let mut world = World::new(2);
        let id = world.subscribe_as(None, capabilities, 0.0);
        let offers = world.offers();
        let ids = |indices: &[usize]| -> Vec<OfferId> {
            indices.iter().map(|index| offers[*index].id.clone()).collect()
        };
        let never = OfferId {
            value: "never".into(),
        };
        let launch = || {
            vec![group(
                executor("e", EXECUTOR),
                vec![task("a", 0, "cpus:1"), task("b", 0, "cpus:1")],
            )]
        };
        for (named, why) in [
            (vec![never], "Offer never is no longer valid"),
            (ids(&[0, 1]), "one single agent"),
            (vec![], "No offers specified"),
        ] {
            world.accept(&id, &named, launch(), refusing(0.0));
            let updates = world.updates();
            assert_eq!(states(&updates), [("a", state), ("b", state)]);
            assert!(
                updates.iter().all(|status| status.message().contains(why)),
                "{updates:?}"
            );
            assert_eq!(updates[0].reason(), Reason::InvalidOffers);
            assert!(updates[0].uuid.is_none(), "there is nothing to acknowledge");
        }
        // What was named in vain is over, and offered anew.
        assert_eq!(world.offers().len(), 2);
        let twice = vec![singles(vec![task("c", 0, "cpus:1")])];
        world.accept(&id, &ids(&[0]), twice, None);
        assert_eq!(states(&world.updates()), [("c", state)]);
        assert!(world.down.is_empty());
    }
}

#[test]
fn one_offer_is_not_named_twice() {
    let mut world = World::new(1);
    let id = world.subscribe();
    let offer = world.offer().id;
    let launch = group(executor("e", EXECUTOR), vec![task("a", 0, "cpus:8")]);
    world.accept(&id, &[offer.clone(), offer], vec![launch], None);
    assert_eq!(states(&world.updates()), [("a", TaskState::TaskDropped)]);
}

// ---- launches

#[test]
fn a_group_that_asks_for_more_than_was_offered_ends_whole() {
    let mut world = World::new(1);
    let id = world.subscribe();
    for (first, second) in [
        ("cpus:3", "cpus:1"),
        ("mem:993", "cpus:1"),
        ("ports:[10-11]", "cpus:1"),
        ("ports:[1-2]", "ports:[11-11]"),
        ("gold:1", "cpus:1"),
    ] {
        let offer = world.offer();
        let tasks = vec![task("a", 0, first), task("b", 0, second)];
        world.accept(
            &id,
            &[offer.id],
            vec![group(executor("e", EXECUTOR), tasks)],
            refusing(0.0),
        );
        let updates = world.updates();
        assert_eq!(
            states(&updates),
            [("a", TaskState::TaskError), ("b", TaskState::TaskError)]
        );
        assert_eq!(updates[0].reason(), Reason::TaskGroupInvalid);
        assert!(
            updates[0].message().contains("more than available"),
            "{updates:?}"
        );
        assert!(world.down.is_empty());
    }
    assert_eq!(world.offers().len(), 1);
}

#[test]
fn what_was_freed_since_is_not_part_of_an_offer() {
    let (mut world, id) = World::with_task();
    world.call(&id, blank_call(Type::Revive));
    let before = world.offer();
    world.tells(&id, "t", TaskState::TaskFinished, 1);
    let greedy = group(executor("f", EXECUTOR), vec![task("a", 0, "cpus:3.5")]);
    world.accept(&id, &[before.id], vec![greedy], None);
    assert_eq!(
        states(&world.updates()).last(),
        Some(&("a", TaskState::TaskError))
    );
}

#[test]
fn each_demand_of_a_master_is_made() {
    type Spoil = fn(&mut ExecutorInfo, &mut Vec<TaskInfo>);
    let spoils: [(&str, Spoil); 17] = [
        ("'ExecutorInfo.type' must be set", |e, _| e.r#type = None),
        ("must not be set for 'DEFAULT'", |e, _| {
            e.command = Some(CommandInfo::default())
        }),
        ("must be set for 'CUSTOM'", |e, _| {
            e.r#type = Some(executor_info::Type::Custom as i32)
        }),
        ("invalid framework id", |e, _| {
            e.framework_id = Some(v1::FrameworkId {
                value: "other".into(),
            })
        }),
        ("less cpus than", |e, _| {
            e.resources = resources("cpus:0.001;mem:32;disk:1")
        }),
        ("less mem than", |e, _| {
            e.resources = resources("cpus:1;mem:31;disk:1")
        }),
        ("less disk than", |e, _| e.resources = resources("cpus:1;mem:32")),
        ("cannot have", |e, _| {
            e.resources[0].scalar = Some(v1::value::Scalar { value: f64::INFINITY })
        }),
        ("cannot have", |_, t| {
            t[0].resources[0].scalar = Some(v1::value::Scalar { value: f64::NAN })
        }),
        ("task_id", |_, t| t[0].task_id.value = "../up".into()),
        ("executor_id", |e, _| e.executor_id.value = "..".into()),
        ("used twice", |_, t| t[1].task_id.value = "a".into()),
        ("uses invalid agent", |_, t| t[1].agent_id.value = "S1".into()),
        ("uses no resources", |_, t| t[1].resources.clear()),
        ("no tasks", |_, t| t.clear()),
        ("another ExecutorInfo", |_, t| {
            t[0].executor = Some(ExecutorInfo {
                name: Some("x".into()),
                ..executor("e", EXECUTOR)
            })
        }),
        ("multiple roles", |_, t| {
            let role = |role: &str| {
                Some(v1::resource::AllocationInfo {
                    role: Some(role.into()),
                })
            };
            t[0].resources = resources("cpus:1;mem:1");
            t[0].resources[0].allocation_info = role("a");
            t[0].resources[1].allocation_info = role("b");
        }),
    ];
    let mut world = World::new(1);
    let id = world.subscribe();
    for (words, spoil) in spoils {
        let offer = world.offer();
        let (mut executor, mut tasks) = (
            executor("e", EXECUTOR),
            vec![task("a", 0, "cpus:1"), task("b", 0, "cpus:1")],
        );
        spoil(&mut executor, &mut tasks);
        let count = tasks.len();
        world.accept(&id, &[offer.id], vec![group(executor, tasks)], refusing(0.0));
        let updates = world.updates();
        assert_eq!(updates.len(), count, "{words}");
        for status in updates {
            assert_eq!(
                (status.state(), status.reason()),
                (TaskState::TaskError, Reason::TaskGroupInvalid)
            );
            assert!(status.message().contains(words), "{words}: {}", status.message());
        }
        assert!(world.down.is_empty(), "{words}");
    }
}

#[test]
fn a_live_executor_is_joined_only_under_its_own_description() {
    let (mut world, id) = World::with_task();
    world.call(&id, blank_call(Type::Revive));
    let offer = world.offer();
    let other = group(
        executor("e", "cpus:0.2;mem:32;disk:10"),
        vec![task("a", 0, "cpus:1")],
    );
    let twice = group(executor("f", EXECUTOR), vec![task("t", 0, "cpus:1")]);
    world.accept(&id, &[offer.id], vec![other, twice], None);
    let updates = world.updates();
    assert_eq!(
        states(&updates),
        [("a", TaskState::TaskError), ("t", TaskState::TaskError)]
    );
    assert!(
        updates[0]
            .message()
            .contains("not compatible with the existing executor e")
    );
    assert!(updates[1].message().contains("duplicate ID"));
}

#[test]
fn single_tasks_stand_each_for_itself_and_a_command_gets_an_executor_of_its_own() {
    let mut world = World::new(1);
    let id = world.subscribe();
    let offer = world.offer();
    let mut both = task("both", 0, "cpus:1");
    both.executor = Some(executor("x", ""));
    let mut own = task("own", 0, "cpus:1");
    (own.executor, own.command) = (Some(executor("mine", EXECUTOR)), None);
    let tasks = vec![task("a", 0, "cpus:1"), both, task("huge", 0, "cpus:9"), own];
    world.accept(&id, &[offer.id], vec![singles(tasks)], None);
    let updates = world.updates();
    assert_eq!(
        states(&updates),
        [("both", TaskState::TaskError), ("huge", TaskState::TaskError)]
    );
    assert_eq!(updates[0].reason(), Reason::TaskInvalid);
    let executors: Vec<String> = world
        .down
        .iter()
        .map(|down| match down {
            Down::Launch {
                executor,
                singly: true,
                ..
            } => executor.executor_id.value.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(executors, ["a", "mine"]);
}

// ---- tasks

#[test]
fn r3_updates_go_one_by_one_and_again_until_they_are_acknowledged() {
    let (mut world, id) = World::with_task();
    for (number, state) in [
        TaskState::TaskStarting,
        TaskState::TaskRunning,
        TaskState::TaskFinished,
    ]
    .into_iter()
    .enumerate()
    {
        world.tells(&id, "t", state, number as u8);
    }
    let first = [("t", TaskState::TaskStarting)];
    assert_eq!(states(&world.updates()), first);
    world.wait(9.9);
    assert_eq!(world.updates(), []);
    world.wait(0.2);
    assert_eq!(states(&world.updates()), first);
    world.wait(19.0);
    assert_eq!(world.updates(), [], "the pause doubles");
    world.wait(1.1);
    assert_eq!(states(&world.updates()), first);
    world.acknowledge(&id, "t", 9);
    assert_eq!(world.updates(), [], "that was another's uuid");
    world.acknowledge(&id, "t", 0);
    assert_eq!(states(&world.updates()), [("t", TaskState::TaskRunning)]);

    // A scheduler that comes back hears it again.
    let id = world.subscribe_as(Some(&id), &[], 1000.0);
    assert_eq!(states(&world.updates()), [("t", TaskState::TaskRunning)]);
    world.acknowledge(&id, "t", 1);
    assert_eq!(states(&world.updates()), [("t", TaskState::TaskFinished)]);
    assert_eq!(
        states(&world.reconcile(&id, &[])),
        [("t", TaskState::TaskFinished)]
    );
    world.acknowledge(&id, "t", 2);
    world.wait(10_000.0);
    assert_eq!(world.updates(), []);
    assert_eq!(
        world.reconcile(&id, &[]),
        [],
        "what was heard to its end is forgotten"
    );
}

#[test]
fn reconciliation_tells_what_is_known_and_what_is_not() {
    let (mut world, id) = World::with_task();
    world.tells(&id, "t", TaskState::TaskRunning, 1);
    world.updates();
    let implicit = world.reconcile(&id, &[]);
    assert_eq!(states(&implicit), [("t", TaskState::TaskRunning)]);
    assert_eq!(implicit[0].reason(), Reason::Reconciliation);
    assert!(implicit[0].uuid.is_none());
    let explicit = world.reconcile(&id, &[("t", None), ("u", Some(0)), ("v", None), ("w", Some(7))]);
    assert_eq!(
        states(&explicit),
        [
            ("t", TaskState::TaskRunning),
            ("u", TaskState::TaskGone),
            ("v", TaskState::TaskUnknown),
            ("w", TaskState::TaskUnknown)
        ]
    );
    let id = world.subscribe_as(Some(&id), &[], 0.0);
    world.updates();
    let plain = world.reconcile(&id, &[("u", Some(0))]);
    assert_eq!(
        states(&plain),
        [("u", TaskState::TaskLost)],
        "one that knows no partitions"
    );
}

#[test]
fn a_kill_goes_to_the_agent_or_is_answered() {
    let (mut world, id) = World::with_task();
    let kill = |task: &str| Call {
        kill: Some(call::Kill {
            task_id: TaskId { value: task.into() },
            agent_id: None,
            kill_policy: None,
        }),
        ..blank_call(Type::Kill)
    };
    world.down.clear();
    world.call(&id, kill("t"));
    assert!(matches!(&world.down[..], [Down::Kill { task, executor, .. }] if task == "t" && executor == "e"));
    world.call(&id, kill("never"));
    assert_eq!(states(&world.updates()), [("never", TaskState::TaskUnknown)]);
}

#[test]
fn the_end_of_an_executor_is_told_and_gives_back_what_was_its() {
    let (mut world, id) = World::with_task();
    world.tells(&id, "t", TaskState::TaskFailed, 1);
    world.wait(6.0);
    let offer = world.offer();
    assert_eq!(offer.executor_ids.len(), 1, "its tasks have ended, it has not");
    world.decline(&id, &[offer.id], refusing(1000.0));
    world.step(|core, out| core.ended(0, &id, "e", 7, out));
    let failure = world
        .events
        .iter()
        .find_map(|(_, event)| event.failure.as_ref())
        .unwrap();
    assert_eq!(
        (
            failure.executor_id.as_ref().unwrap().value.as_str(),
            failure.status
        ),
        ("e", Some(7))
    );
    let offer = world.offer();
    assert!(offer.executor_ids.is_empty() && has(&offer) == total().to_string());
}

// ---- frameworks

#[test]
fn a_second_scheduler_takes_over_and_the_first_is_told() {
    let (mut world, id) = World::with_task();
    world.call(&id, blank_call(Type::Revive));
    let old = world.offer();
    world.events.clear();
    let same = world.subscribe_as(Some(&id), &[capability::Type::PartitionAware], 1000.0);
    assert_eq!(same, id);
    assert_eq!(
        world.events[0].1.error.as_ref().unwrap().message,
        "Framework failed over"
    );
    assert_eq!(world.closed, std::slice::from_ref(&id));
    assert!(world.events[1].1.subscribed.is_some());
    assert!(!world.core.is_stream(&id, "stream1") && world.core.is_stream(&id, "stream2"));
    // The end of the old stream changes nothing now.
    world.step(|core, out| core.disconnected(&id, "stream1", out));
    assert!(world.core.is_subscribed(&id));
    let new = world.offer();
    assert_ne!(new.id, old.id);
    world.accept(&id, &[old.id], vec![singles(vec![task("a", 0, "cpus:1")])], None);
    assert_eq!(states(&world.updates()), [("a", TaskState::TaskDropped)]);
    assert_eq!(
        states(&world.reconcile(&id, &[])),
        [("t", TaskState::TaskStaging)]
    );
}

#[test]
fn a_framework_that_stays_away_loses_everything_and_may_not_come_back() {
    let (mut world, id) = World::with_task();
    world.down.clear();
    world.step(|core, out| core.disconnected(&id, "stream1", out));
    world.wait(999.0);
    assert!(world.core.is_known(&id) && world.down.is_empty());
    world.tells(&id, "t", TaskState::TaskRunning, 1);
    assert_eq!(world.updates(), [], "nobody listens");
    world.wait(2.0);
    assert!(!world.core.is_known(&id));
    assert!(matches!(&world.down[..], [Down::Shutdown { executor, .. }] if executor == "e"));
    world.events.clear();
    world.subscribe_as(Some(&id), &[], 1000.0);
    assert_eq!(
        world.events[0].1.error.as_ref().unwrap().message,
        "Framework has been removed"
    );
    assert_eq!(world.closed.last(), Some(&id));
}

#[test]
fn teardown_ends_it_at_once() {
    let (mut world, id) = World::with_task();
    world.down.clear();
    world.call(&id, blank_call(Type::Teardown));
    assert!(matches!(world.down[..], [Down::Shutdown { .. }]));
    assert_eq!(world.closed, std::slice::from_ref(&id));
    assert!(!world.core.is_known(&id));
    // What its executor still says is nobody's any more.
    world.tells(&id, "t", TaskState::TaskKilled, 1);
    world.step(|core, out| core.ended(0, &id, "e", 0, out));
}

#[test]
fn without_a_failover_timeout_the_end_of_the_stream_is_the_end() {
    let mut world = World::new(1);
    let id = world.subscribe_as(None, &[], 0.0);
    world.step(|core, out| core.disconnected(&id, "stream1", out));
    assert!(!world.core.is_known(&id));
}

#[test]
fn a_call_without_its_body_or_with_a_bad_uuid_is_refused() {
    let mut world = World::new(1);
    let id = world.subscribe();
    for kind in [
        Type::Accept,
        Type::Decline,
        Type::Kill,
        Type::Acknowledge,
        Type::Reconcile,
        Type::Shutdown,
        Type::Message,
        Type::Subscribe,
    ] {
        let refusal = world
            .step(|core, out| core.call(&id, &blank_call(kind), out))
            .unwrap_err();
        assert_eq!(refusal.status, 400, "{kind:?}");
    }
    let acknowledge = Some(call::Acknowledge {
        uuid: vec![1; 15],
        ..Default::default()
    });
    let call = Call {
        acknowledge,
        ..blank_call(Type::Acknowledge)
    };
    let refusal = world.step(|core, out| core.call(&id, &call, out)).unwrap_err();
    assert!(refusal.reason.contains("UUID"), "{}", refusal.reason);
    let unknown = blank_call(Type::AcceptInverseOffers);
    assert_eq!(
        world
            .step(|core, out| core.call(&id, &unknown, out))
            .unwrap_err()
            .status,
        501
    );
}

// ---- stories

#[derive(Debug, Clone)]
enum Act {
    Subscribe(usize),
    Leave(usize),
    Accept {
        by: usize,
        offers: Vec<usize>,
        cpus: u8,
        port: u8,
        executor: u8,
        again: bool,
    },
    Decline {
        by: usize,
        offer: usize,
        seconds: u8,
    },
    Say {
        by: usize,
        task: usize,
        state: u8,
    },
    Acknowledge {
        by: usize,
        task: usize,
    },
    EndExecutor {
        by: usize,
        at: usize,
    },
    Revive(usize),
    Suppress(usize),
    Teardown(usize),
    Wait(u16),
}

fn act() -> impl Strategy<Value = Act> {
    let who = 0usize..3;
    prop_oneof![
        2 => who.clone().prop_map(Act::Subscribe),
        1 => who.clone().prop_map(Act::Leave),
        6 => (who.clone(), prop::collection::vec(0usize..4, 0..3), 0u8..30, 0u8..13, 0u8..4, any::<bool>())
            .prop_map(|(by, offers, cpus, port, executor, again)| Act::Accept { by, offers, cpus, port, executor, again }),
        2 => (who.clone(), 0usize..4, 0u8..10).prop_map(|(by, offer, seconds)| Act::Decline { by, offer, seconds }),
        4 => (who.clone(), 0usize..8, 0u8..4).prop_map(|(by, task, state)| Act::Say { by, task, state }),
        2 => (who.clone(), 0usize..8).prop_map(|(by, task)| Act::Acknowledge { by, task }),
        2 => (who.clone(), 0usize..4).prop_map(|(by, at)| Act::EndExecutor { by, at }),
        2 => who.clone().prop_map(Act::Revive),
        1 => who.clone().prop_map(Act::Suppress),
        1 => who.prop_map(Act::Teardown),
        2 => (0u16..30).prop_map(Act::Wait),
    ]
}

proptest! {
    /// The audit after every step is the property: on each agent, what is free, offered and used is always exactly
    /// what it has. And no agent is ever sent a launch for more than that.
    #[test]
    fn it_never_gives_away_more_than_there_is(story in prop::collection::vec(act(), 0..60)) {
        let mut world = World::new(2);
        let mut ids: [Option<String>; 3] = Default::default();
        let mut launched = BTreeSet::new();
        let mut made = 0;
        for act in story {
            let subscribed = |world: &World, by: usize| {
                ids[by].clone().filter(|id| world.core.is_subscribed(id))
            };
            match act {
                Act::Subscribe(by) => {
                    let known = ids[by].clone().filter(|id| world.core.is_known(id));
                    ids[by] = Some(world.subscribe_as(known.as_deref(), &[], 10.0));
                }
                Act::Leave(by) => if let Some(id) = subscribed(&world, by) {
                    let stream = world.core.frameworks[&id].stream.clone().unwrap();
                    world.step(|core, out| core.disconnected(&id, &stream, out));
                },
                Act::Accept { by, offers, cpus, port, executor: number, again } => if let Some(id) = subscribed(&world, by) {
                    // Its own and others', present and past.
                    let all: Vec<String> = world.core.offers.keys().cloned().collect();
                    let named: Vec<OfferId> = offers.iter().filter_map(|at| all.get(*at))
                        .map(|id| OfferId { value: id.clone() }).collect();
                    let agent = named.first().and_then(|id| world.core.offers.get(&id.value)).map_or(0, |offer| offer.agent);
                    made += usize::from(!again);
                    let text = format!("cpus:{};ports:[{}-{}]", f64::from(cpus) / 10.0, port, port + 1);
                    let operation = group(executor(&format!("e{number}"), EXECUTOR), vec![task(&format!("t{made}"), agent, &text)]);
                    let before = world.down.len();
                    world.accept(&id, &named, vec![operation.clone(), operation], refusing(f64::from(cpus)));
                    for down in &world.down[before..] {
                        if let Down::Launch { tasks, .. } = down {
                            prop_assert!(launched.insert((id.clone(), tasks[0].task_id.value.clone())) || again);
                        }
                    }
                },
                Act::Decline { by, offer, seconds } => if let Some(id) = subscribed(&world, by) {
                    let offer = world.core.offers.keys().nth(offer).cloned().unwrap_or_default();
                    world.decline(&id, &[OfferId { value: offer }], refusing(f64::from(seconds)));
                },
                Act::Say { by, task, state } => if let Some(id) = ids[by].clone() {
                    let name = world.core.frameworks.get(&id).and_then(|known| known.tasks.keys().nth(task).cloned());
                    let state = [TaskState::TaskRunning, TaskState::TaskFailed, TaskState::TaskFinished, TaskState::TaskStarting][usize::from(state)];
                    world.tells(&id, &name.unwrap_or_default(), state, 1);
                },
                Act::Acknowledge { by, task } => if let Some(id) = subscribed(&world, by) {
                    let name = world.core.frameworks[&id].tasks.keys().nth(task).cloned().unwrap_or_default();
                    world.acknowledge(&id, &name, 1);
                },
                Act::EndExecutor { by, at } => if let Some(id) = ids[by].clone() {
                    let found = world.core.frameworks.get(&id).and_then(|known| known.executors.keys().nth(at).cloned());
                    if let Some((agent, executor)) = found {
                        // Its agent has told of its tasks by then.
                        let of = |task: &tasks::Task| (task.agent, &task.executor) == (agent, &executor);
                        let tasks: Vec<String> = world.core.frameworks[&id].tasks.iter()
                            .filter(|(_, task)| of(task)).map(|(name, _)| name.clone()).collect();
                        tasks.iter().for_each(|task| world.tells(&id, task, TaskState::TaskFailed, 2));
                        world.step(|core, out| core.ended(agent, &id, &executor, 0, out));
                    }
                },
                Act::Revive(by) => if let Some(id) = subscribed(&world, by) { world.call(&id, blank_call(Type::Revive)) },
                Act::Suppress(by) => if let Some(id) = subscribed(&world, by) { world.call(&id, blank_call(Type::Suppress)) },
                Act::Teardown(by) => if let Some(id) = subscribed(&world, by) { world.call(&id, blank_call(Type::Teardown)) },
                Act::Wait(seconds) => world.wait(f64::from(seconds)),
            }
            for (_, event) in world.events.drain(..) {
                for offer in event.offers.into_iter().flat_map(|offers| offers.offers) {
                    prop_assert!(!offer.resources.is_empty());
                }
            }
        }
    }
}
