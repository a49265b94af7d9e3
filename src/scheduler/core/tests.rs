//! The scheduler core against a small master that keeps its own books, loses messages and restarts us.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use proptest::prelude::*;
use serde_json::json;

use super::{
    machine::{Core, Saved, StoredPod},
    status::{InstanceState, Overall},
    *,
};
use crate::{
    mesos::v1::{self, TaskState},
    pod::{self, InstanceId, Pod, PodId, Profile, TaskName, Version, task_group},
};

/// What a store would hold.
#[derive(Debug, Default, Clone)]
struct Store {
    framework: Option<String>,
    pods: BTreeMap<PodId, StoredPod>,
    instances: BTreeMap<InstanceId, Instance>,
    versions: Vec<Arc<Pod>>,
}

impl Store {
    fn apply(&mut self, changes: &[Change]) {
        for change in changes.iter().cloned() {
            match change {
                Change::Framework(id) => self.framework = Some(id),
                Change::Pod(pod) => drop(self.pods.insert(pod.pod.id.clone(), pod)),
                Change::Version(pod) => self.versions.push(pod),
                Change::ForgetPod(id) => drop(self.pods.remove(&id)),
                Change::Instance(instance) => drop(self.instances.insert(instance.id.clone(), instance)),
                Change::ForgetInstance(id) => drop(self.instances.remove(&id)),
            }
        }
    }

    fn saved(&self) -> Saved {
        // Through JSON, as a real store would.
        let pods = serde_json::to_string(&self.pods.values().collect::<Vec<_>>()).unwrap();
        let instances = serde_json::to_string(&self.instances.values().collect::<Vec<_>>()).unwrap();
        Saved {
            framework: self.framework.clone(),
            pods: serde_json::from_str(&pods).unwrap(),
            instances: serde_json::from_str(&instances).unwrap(),
        }
    }
}

/// One agent's worth of cluster.
struct World {
    core: Core,
    store: Store,
    now: Duration,
    steps: u128,
    /// Tasks the master knows, by id, as they are.
    tasks: BTreeMap<String, TaskState>,
    ever_launched: BTreeMap<String, usize>,
    /// Executors that have not ended, by id.
    executors: BTreeSet<String>,
    updates: Vec<v1::TaskStatus>,
    kills: Vec<String>,
    shutdowns: Vec<String>,
    wants_offers: bool,
    /// The offer that is out.
    outstanding: Option<v1::OfferId>,
    offers_made: usize,
    connected: bool,
    slots: usize,
    /// Messages from the scheduler to the master vanish.
    deaf: bool,
    notices: Vec<Notice>,
    /// Dies before this effect of the step, if set.
    crash_at: Option<usize>,
    crashed: bool,
}

fn settings() -> Settings {
    Settings::new(task_group::Options {
        delivery: task_group::Delivery::AgentDefault,
        variable_prefix: String::new(),
        bridge_name: "b".to_owned(),
    })
}

const EPOCH: i64 = 1_700_000_000_000;

impl World {
    fn new() -> Self {
        World {
            core: Core::restore(settings(), Saved::default()),
            store: Store::default(),
            now: Duration::ZERO,
            steps: 0,
            tasks: BTreeMap::new(),
            ever_launched: BTreeMap::new(),
            executors: BTreeSet::new(),
            updates: Vec::new(),
            kills: Vec::new(),
            shutdowns: Vec::new(),
            wants_offers: true,
            outstanding: None,
            offers_made: 0,
            connected: false,
            slots: 100,
            deaf: false,
            notices: Vec::new(),
            crash_at: None,
            crashed: false,
        }
    }

    fn stamp(&mut self) -> Stamp {
        self.steps += 1;
        self.now += Duration::from_millis(1);
        let wall = Version::from_millis(EPOCH + self.now.as_millis() as i64).unwrap();
        Stamp {
            now: self.now,
            wall,
            entropy: self.steps.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
        }
    }

    fn step(&mut self, event: Event) {
        let stamp = self.stamp();
        let effects = self.core.step(stamp, event);
        self.carry_out(effects);
    }

    fn command(&mut self, command: Command) -> Result<Accepted, Refusal> {
        let stamp = self.stamp();
        let (answer, effects) = self.core.command(stamp, command);
        self.carry_out(effects);
        answer
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        let crash_at = self.crash_at.take();
        let mut sent = false;
        for (index, effect) in effects.into_iter().enumerate() {
            if crash_at == Some(index) {
                self.crashed = true;
                return;
            }
            match effect {
                Effect::Persist(changes) => {
                    assert!(!sent, "storing comes before sending");
                    self.store.apply(&changes);
                    continue;
                }
                Effect::Publish(notice) => {
                    self.notices.push(notice);
                    continue;
                }
                _ if !self.connected || self.deaf => continue,
                Effect::Accept { offer, operations } => {
                    let valid = self.outstanding.take_if(|out| *out == offer).is_some();
                    operations.into_iter().for_each(|op| self.launch(op, valid));
                }
                Effect::Kill { task, .. } => self.kills.push(task.value),
                Effect::Reconcile(tasks) => self.reconcile(tasks),
                Effect::Revive => self.wants_offers = true,
                Effect::Suppress => self.wants_offers = false,
                Effect::Shutdown { executor, .. } => self.shutdowns.push(executor.value),
                Effect::Decline { offers, .. } => drop(self.outstanding.take_if(|out| offers.contains(out))),
                Effect::Acknowledge { .. } => {}
            }
            sent = true;
        }
    }

    fn launch(&mut self, operation: v1::offer::Operation, valid: bool) {
        let group = operation.launch_group.unwrap();
        let executor = group.executor.executor_id.value;
        if !valid {
            let dropped = |task: v1::TaskInfo| status(&task.task_id.value, TaskState::TaskDropped);
            self.updates
                .extend(group.task_group.tasks.into_iter().map(dropped));
            return;
        }
        assert!(
            self.executors.insert(executor.clone()),
            "{executor} of the last run has not ended"
        );
        for task in group.task_group.tasks {
            let id = task.task_id.value;
            // What is sent was stored before.
            let name = TaskName::parse(&id).unwrap();
            let stored = &self.store.instances[&name.instance];
            assert_eq!(stored.incarnation, name.incarnation);
            *self.ever_launched.entry(id.clone()).or_insert(0) += 1;
            self.tasks.insert(id.clone(), TaskState::TaskStaging);
        }
    }

    fn reconcile(&mut self, tasks: Vec<(v1::TaskId, Option<v1::AgentId>)>) {
        let asked: Vec<String> = match tasks.is_empty() {
            true => self.tasks.keys().cloned().collect(),
            false => tasks.into_iter().map(|(task, _)| task.value).collect(),
        };
        for id in asked {
            let state = self.tasks.get(&id).copied().unwrap_or(TaskState::TaskUnknown);
            let mut status = status(&id, state);
            status.uuid = None;
            self.updates.push(status);
        }
    }

    fn is_live(state: TaskState) -> bool {
        !Condition::of(state).is_terminal()
    }

    /// A task changes its state, unless it has already ended; the executor sees to it that a group shares one fate.
    fn becomes(&mut self, id: &str, state: TaskState) {
        if !self.tasks.get(id).copied().is_some_and(World::is_live) {
            return;
        }
        self.tasks.insert(id.to_owned(), state);
        self.updates.push(status(id, state));
        if matches!(state, TaskState::TaskFailed | TaskState::TaskKilled) {
            let name = TaskName::parse(id).unwrap();
            for sibling in self.live() {
                let other = TaskName::parse(&sibling).unwrap();
                if (&other.instance, other.incarnation) == (&name.instance, name.incarnation) {
                    self.becomes(&sibling, TaskState::TaskKilled);
                }
            }
        }
    }

    fn live(&self) -> Vec<String> {
        self.tasks
            .iter()
            .filter(|(_, state)| World::is_live(**state))
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// Offers what the agent has free; names what it still has of ours.
    fn offer(&mut self, slots: usize) {
        let executor = |value: &String| v1::ExecutorId { value: value.clone() };
        let offer = v1::Offer {
            executor_ids: self.executors.iter().map(executor).collect(),
            ..offer(slots)
        };
        self.offer_exactly(offer);
    }

    fn offer_exactly(&mut self, offer: v1::Offer) {
        self.offers_made += 1;
        let id = v1::OfferId {
            value: format!("O{}", self.offers_made),
        };
        self.outstanding = Some(id.clone());
        self.step(Event::Offers(vec![v1::Offer { id, ..offer }]));
    }

    /// Executors end a while after their last task.
    fn executors_end(&mut self) {
        let owner = |task: String| TaskName::parse(&task).unwrap().instance.executor_id();
        let busy: BTreeSet<String> = self.live().into_iter().map(owner).collect();
        for id in self.executors.clone() {
            if !busy.contains(&id) {
                self.executors.remove(&id);
                if self.connected && !self.deaf {
                    self.step(Event::ExecutorEnded(v1::ExecutorId { value: id }));
                }
            }
        }
    }

    /// Instances with something alive at the master.
    fn alive(&self) -> usize {
        let instances = self
            .live()
            .into_iter()
            .map(|id| TaskName::parse(&id).unwrap().instance.to_string());
        instances.collect::<std::collections::BTreeSet<_>>().len()
    }

    fn connect(&mut self) {
        self.connected = true;
        self.wants_offers = true;
        self.outstanding = None;
        self.step(Event::Registered(v1::FrameworkId {
            value: "F".to_owned(),
        }));
    }

    /// One round of a well-behaved cluster.
    fn round(&mut self) {
        if self.deaf {
            // An answer may have been lost.
            self.outstanding = None;
        }
        let free = self.slots.saturating_sub(self.live().len());
        if self.connected && self.wants_offers && self.outstanding.is_none() && free > 0 {
            self.offer(free);
        }
        self.executors_end();
        for id in std::mem::take(&mut self.kills) {
            match self.tasks.contains_key(&id) {
                true => self.becomes(&id, TaskState::TaskKilled),
                // The master does not know it: it reconciles.
                false => self.updates.push(status(&id, TaskState::TaskLost)),
            }
        }
        for id in self.live() {
            if self.tasks[&id] == TaskState::TaskStaging {
                self.becomes(&id, TaskState::TaskRunning);
            }
        }
        if self.connected {
            for update in std::mem::take(&mut self.updates) {
                self.step(Event::Update(Box::new(update)));
            }
        }
        if self.core.deadline().is_some_and(|deadline| deadline <= self.now) {
            self.step(Event::Tick);
        }
    }

    /// Lets time pass until nothing is due for a while.
    fn settle(&mut self) {
        for _ in 0..60 {
            self.round();
            self.now += Duration::from_secs(20);
        }
    }

    fn restart(&mut self) {
        self.core = Core::restore(settings(), self.store.saved());
        self.crashed = false;
        self.connected = false;
        self.updates.clear();
        self.kills.clear();
    }

    fn state(&self, id: &str) -> Option<status::PodStatus> {
        let now = Version::from_millis(EPOCH).unwrap();
        self.core.status(&id.parse().unwrap(), now)
    }

    fn instances(&self, id: &str) -> Vec<String> {
        self.state(id)
            .unwrap()
            .instances
            .iter()
            .map(|instance| instance.id.clone())
            .collect()
    }
}

fn status(id: &str, state: TaskState) -> v1::TaskStatus {
    v1::TaskStatus {
        task_id: v1::TaskId { value: id.to_owned() },
        state: state as i32,
        agent_id: Some(v1::AgentId {
            value: "A".to_owned(),
        }),
        uuid: Some(vec![0; 16]),
        ..Default::default()
    }
}

/// An offer with room for so many instances of the test pods.
fn offer(slots: usize) -> v1::Offer {
    let resource = |name: &str, value: f64| v1::Resource {
        name: name.to_owned(),
        r#type: v1::value::Type::Scalar as i32,
        scalar: Some(v1::value::Scalar { value }),
        ..Default::default()
    };
    v1::Offer {
        id: v1::OfferId {
            value: "O".to_owned(),
        },
        agent_id: v1::AgentId {
            value: "A".to_owned(),
        },
        hostname: "h".to_owned(),
        resources: vec![
            resource("cpus", slots as f64),
            resource("mem", 1000.0 * slots as f64),
            resource("disk", 1000.0 * slots as f64),
        ],
        ..Default::default()
    }
}

fn definition(instances: usize, command: &str) -> Pod {
    let container = |name: &str| json!({"name": name, "exec": {"command": {"shell": command}}, "resources": {"cpus": 0.4, "mem": 32}});
    let definition = json!({"id": "/p", "containers": [container("a"), container("b")],
        "scaling": {"kind": "fixed", "instances": instances},
        "scheduling": {"backoff": {"backoff": 1, "backoffFactor": 1.15, "maxLaunchDelay": 60}}});
    pod::read(&definition, &Profile::default())
        .unwrap_or_else(|violations| panic!("{violations}"))
        .pod
}

fn update(instances: usize, command: &str) -> Command {
    Command::Update {
        pod: definition(instances, command),
        force: true,
    }
}

fn running(instances: usize) -> World {
    let mut world = World::new();
    world.connect();
    world
        .command(Command::Create(definition(instances, "x")))
        .unwrap();
    world.settle();
    assert_eq!(world.state("/p").unwrap().status, Overall::Stable);
    assert_eq!(world.alive(), instances);
    world
}

#[test]
fn a_pod_comes_up_and_its_deployment_ends() {
    let world = running(3);
    assert_eq!(world.core.deployments().count(), 0);
    assert!(
        world
            .notices
            .iter()
            .any(|notice| matches!(notice, Notice::DeploymentSuccess { .. }))
    );
    assert!(!world.wants_offers, "nothing waits: offers are suppressed");
}

#[test]
fn what_exists_is_not_created_twice_and_what_is_unknown_is_said_so() {
    let mut world = running(1);
    let id: PodId = "/p".parse().unwrap();
    assert_eq!(
        world.command(Command::Create(definition(1, "x"))).unwrap_err(),
        Refusal::Exists(id)
    );
    let other: PodId = "/q".parse().unwrap();
    let refused = world
        .command(Command::Remove {
            id: other.clone(),
            force: false,
        })
        .unwrap_err();
    assert_eq!(refused, Refusal::Unknown(other));
}

#[test]
fn a_running_deployment_locks_the_pod_unless_forced() {
    let mut world = World::new();
    world.connect();
    let first = world
        .command(Command::Create(definition(1, "x")))
        .unwrap()
        .deployment;
    let second = Command::Update {
        pod: definition(2, "x"),
        force: false,
    };
    assert_eq!(
        world.command(second).unwrap_err(),
        Refusal::Locked { deployment: first }
    );
    world.command(update(2, "x")).unwrap();
    world.settle();
    assert_eq!(world.alive(), 2);
}

#[test]
fn scaling_keeps_the_instances_that_stay() {
    let mut world = running(1);
    let first = world.instances("/p");
    world.command(update(3, "x")).unwrap();
    world.settle();
    let three = world.instances("/p");
    assert!(three.len() == 3 && first.iter().all(|id| three.contains(id)));
    world.command(update(1, "x")).unwrap();
    world.settle();
    let one = world.instances("/p");
    assert!(one.len() == 1 && three.contains(&one[0]));
    assert_eq!(one, first, "the youngest go first");
    assert_eq!(world.store.versions.len(), 3);
}

#[test]
fn an_update_to_the_same_definition_changes_nothing() {
    let mut world = running(2);
    let before = (world.store.versions.len(), world.instances("/p"));
    world.command(update(2, "x")).unwrap();
    world.settle();
    assert_eq!(before, (world.store.versions.len(), world.instances("/p")));
    assert_eq!(world.core.deployments().count(), 0);
}

#[test]
fn a_new_command_replaces_every_instance() {
    let mut world = running(2);
    let before = world.instances("/p");
    world.command(update(2, "y")).unwrap();
    world.settle();
    let after = world.instances("/p");
    assert!(after.len() == 2 && after.iter().all(|id| !before.contains(id)));
    assert_eq!(world.alive(), 2);
    assert_eq!(world.state("/p").unwrap().status, Overall::Stable);
}

#[test]
fn a_failed_task_takes_the_instance_with_it_and_the_same_instance_comes_back() {
    let mut world = running(1);
    let before = world.instances("/p");
    let tasks = world.live();
    world.becomes(&tasks[0], TaskState::TaskFailed);
    world.round();
    assert_eq!(world.alive(), 0, "backing off");
    assert_eq!(world.state("/p").unwrap().termination_history.len(), 1);
    world.settle();
    assert_eq!(world.instances("/p"), before);
    assert!(
        world.live().iter().all(|id| id.ends_with(".2")),
        "{:?}",
        world.live()
    );
}

#[test]
fn an_instance_does_not_meet_the_executor_of_its_last_run() {
    let mut world = running(1);
    let executor = world.executors.first().unwrap().clone();
    for task in world.live() {
        world.becomes(&task, TaskState::TaskKilled);
    }
    for update in std::mem::take(&mut world.updates) {
        world.step(Event::Update(Box::new(update)));
    }
    assert!(world.wants_offers);
    world.offer(9);
    assert_eq!(world.alive(), 0);
    let message = world.state("/p").unwrap().message.unwrap();
    assert!(message.contains("of the last run has not ended"), "{message}");
    assert!(world.shutdowns.is_empty(), "it is given time");

    // On another agent the same id is another executor.
    let elsewhere = offer(9);
    world.executors.clear();
    world.offer_exactly(elsewhere);
    assert_eq!(world.alive(), 1);
    assert!(world.executors.contains(&executor));
}

#[test]
fn the_end_of_the_old_executor_brings_new_offers_at_once() {
    let mut world = running(1);
    for task in world.live() {
        world.becomes(&task, TaskState::TaskKilled);
    }
    for update in std::mem::take(&mut world.updates) {
        world.step(Event::Update(Box::new(update)));
    }
    world.offer(9);
    world.now += Duration::from_secs(1);
    world.wants_offers = false;
    world.executors_end();
    assert!(world.wants_offers);
    world.round();
    assert!(world.live().iter().all(|task| task.ends_with(".2")));
    assert_eq!(world.alive(), 1);
}

#[test]
fn an_offer_that_nobody_needs_is_held_for_the_next_pod_and_then_given_back() {
    let mut world = World::new();
    world.connect();
    world.now += Duration::from_secs(10);
    world.offer(9);
    assert!(world.outstanding.is_some(), "held");
    world.wants_offers = false;
    world.command(Command::Create(definition(1, "x"))).unwrap();
    assert_eq!(world.alive(), 1, "no other offer was needed");

    world.offer(8);
    assert!(world.outstanding.is_some());
    world.now += settings().offer_linger;
    world.step(Event::Tick);
    assert!(world.outstanding.is_none() && !world.wants_offers);

    // What the master took back is not used.
    world.offer(8);
    let rescinded = world.outstanding.take().unwrap();
    world.step(Event::Rescinded(rescinded));
    world.command(update(2, "x")).unwrap();
    assert_eq!(world.alive(), 1);
    assert!(world.wants_offers);
}

#[test]
fn an_executor_that_does_not_end_is_told_to() {
    let mut world = running(1);
    let executor = world.executors.first().unwrap().clone();
    for task in world.live() {
        world.becomes(&task, TaskState::TaskKilled);
    }
    for update in std::mem::take(&mut world.updates) {
        world.step(Event::Update(Box::new(update)));
    }
    world.now += Duration::from_secs(100);
    world.offer(9);
    assert_eq!((world.alive(), &world.shutdowns), (0, &vec![executor]));
}

#[test]
fn one_finished_task_does_not_end_an_instance_and_all_finished_do() {
    let mut world = running(1);
    let tasks = world.live();
    world.becomes(&tasks[0], TaskState::TaskFinished);
    world.round();
    assert_eq!(
        world.state("/p").unwrap().instances[0].status,
        InstanceState::Stable
    );
    world.becomes(&tasks[1], TaskState::TaskFinished);
    world.settle();
    assert!(world.live().iter().all(|id| id.ends_with(".2")));
}

#[test]
fn a_killed_instance_comes_back_at_once_and_a_wiped_one_is_replaced() {
    for wipe in [false, true] {
        let mut world = running(2);
        let before = world.instances("/p");
        let victim: InstanceId = before[0].parse().unwrap();
        let command = Command::Kill {
            pod: "/p".parse().unwrap(),
            instances: vec![victim],
            wipe,
        };
        assert_eq!(world.command(command).unwrap().instances.len(), 1);
        world.settle();
        let after = world.instances("/p");
        assert_eq!((after.len(), after.contains(&before[0])), (2, !wipe));
        assert_eq!(world.alive(), 2);
    }
}

#[test]
fn a_removed_pod_goes_when_its_last_instance_has() {
    let mut world = running(2);
    world
        .command(Command::Remove {
            id: "/p".parse().unwrap(),
            force: false,
        })
        .unwrap();
    assert_eq!(world.state("/p").unwrap().status, Overall::Terminal);
    world.settle();
    assert!(world.state("/p").is_none());
    assert_eq!(world.alive(), 0);
    assert!(world.store.pods.is_empty() && world.store.instances.is_empty());
    assert_eq!(world.store.versions.len(), 1, "the history outlives the pod");
}

#[test]
fn what_cannot_be_placed_waits_and_says_why() {
    let mut world = World::new();
    world.slots = 1;
    world.connect();
    world.command(Command::Create(definition(3, "x"))).unwrap();
    world.settle();
    assert_eq!(world.alive(), 1);
    world.offer_exactly(offer(0));
    let state = world.state("/p").unwrap();
    assert_eq!(state.status, Overall::Degraded);
    assert!(state.message.unwrap().contains("InsufficientCpus"));
    let queue = world.core.queue(world.now);
    assert_eq!(queue[0].count, 2);
    assert_eq!(
        queue[0].reasons.keys().next(),
        Some(&matching::Reason::InsufficientCpus)
    );
}

#[test]
fn strangers_are_killed_when_they_run_and_told_when_they_ended() {
    let mut world = running(0);
    let id = "p.instance-6f1b2c3e-0b1a-11ee-8f7a-0242ac110002.a.1";
    world.step(Event::Update(Box::new(status(id, TaskState::TaskRunning))));
    assert_eq!(world.kills, [id]);
    world.step(Event::Update(Box::new(status("not-ours", TaskState::TaskFailed))));
    assert!(matches!(
        world.notices.last(),
        Some(Notice::UnknownInstanceTerminated { .. })
    ));
}

#[test]
fn a_scheduler_that_comes_back_finds_what_runs_and_starts_nothing_twice() {
    let mut world = running(3);
    let before = (world.instances("/p"), world.live());
    world.restart();
    world.connect();
    world.settle();
    assert_eq!(before, (world.instances("/p"), world.live()));
}

#[test]
fn unreachable_instances_are_replaced_after_their_time_and_taken_back_before() {
    let mut world = running(1);
    let pod = {
        let mut pod = definition(1, "x");
        pod.scheduling.unreachable_strategy = pod::model::UnreachableStrategy::Replace {
            inactive_after_seconds: 100,
            expunge_after_seconds: 200,
        };
        pod
    };
    world.command(Command::Update { pod, force: true }).unwrap();
    let first = world.instances("/p");
    let lose = |world: &mut World| {
        for id in world.live() {
            world.step(Event::Update(Box::new(status(&id, TaskState::TaskUnreachable))));
        }
    };
    lose(&mut world);
    assert_eq!(
        world.state("/p").unwrap().instances[0].status,
        InstanceState::Degraded
    );
    for id in world.live() {
        world.step(Event::Update(Box::new(status(&id, TaskState::TaskRunning))));
    }
    assert_eq!(world.state("/p").unwrap().status, Overall::Stable);
    lose(&mut world);
    world.now += Duration::from_secs(101);
    world.step(Event::Tick);
    assert_eq!(world.instances("/p").len(), 2);
    world.now += Duration::from_secs(100);
    world.step(Event::Tick);
    assert_eq!(world.instances("/p").len(), 1);
    assert_ne!(world.instances("/p"), first);
    // When they come back after all, they are strangers.
    let old = world
        .live()
        .into_iter()
        .find(|id| id.starts_with(&first[0]))
        .unwrap();
    world.step(Event::Update(Box::new(status(&old, TaskState::TaskRunning))));
    assert!(world.kills.contains(&old));
}

#[derive(Debug, Clone)]
enum Mishap {
    Scale(usize),
    Change(u8),
    Remove,
    Kill { wipe: bool },
    Fail(usize),
    Finish(usize),
    Disconnect,
    Deaf,
    Crash { at: usize, by: usize },
    Round,
    Wait(u64),
}

fn mishaps() -> impl Strategy<Value = Vec<Mishap>> {
    let people = prop_oneof![
        (0usize..5).prop_map(Mishap::Scale),
        (0u8..3).prop_map(Mishap::Change),
        Just(Mishap::Remove),
        any::<bool>().prop_map(|wipe| Mishap::Kill { wipe }),
    ];
    let faults = prop_oneof![
        (0usize..20).prop_map(Mishap::Fail),
        (0usize..20).prop_map(Mishap::Finish),
        Just(Mishap::Disconnect),
        Just(Mishap::Deaf),
        (0usize..6, 0usize..5).prop_map(|(at, by)| Mishap::Crash { at, by }),
    ];
    let one = prop_oneof![
        4 => people,
        5 => faults,
        4 => Just(Mishap::Round),
        2 => (0u64..40).prop_map(Mishap::Wait),
    ];
    prop::collection::vec(one, 0..40)
}

proptest! {
    /// R8, short form: whatever goes wrong, no task is launched twice, there are never more instances than the
    /// definition and its upgrade allow, and in the end exactly what is wanted runs.
    #[test]
    fn r8_every_story_ends_with_what_is_wanted(story in mishaps()) {
        let mut world = World::new();
        world.connect();
        world.command(Command::Create(definition(2, "0"))).unwrap();
        let (mut instances, mut command) = (2, 0u8);
        // Scaling and changing over each other may leave instances of several wishes alive at once.
        let mut most = 2 * 2 + 1;
        for mishap in story {
            let exists = world.state("/p").is_some();
            match mishap {
                Mishap::Scale(count) => {
                    instances = count;
                    world.command(update(instances, &command.to_string())).unwrap();
                }
                Mishap::Change(next) => {
                    command = next;
                    world.command(update(instances, &command.to_string())).unwrap();
                }
                Mishap::Remove if exists => {
                    world.command(Command::Remove { id: "/p".parse().unwrap(), force: true }).unwrap();
                }
                Mishap::Kill { wipe } if exists => {
                    let ids = world.instances("/p").iter().take(1).map(|id| id.parse().unwrap()).collect();
                    world.command(Command::Kill { pod: "/p".parse().unwrap(), instances: ids, wipe }).unwrap();
                }
                Mishap::Fail(index) | Mishap::Finish(index) => {
                    let state = if matches!(mishap, Mishap::Fail(_)) { TaskState::TaskFailed } else { TaskState::TaskFinished };
                    if let Some(id) = world.live().get(index) {
                        world.becomes(id, state);
                    }
                }
                Mishap::Disconnect => {
                    world.connected = false;
                    world.updates.clear();
                    world.step(Event::Disconnected);
                    world.connect();
                }
                Mishap::Deaf => world.deaf = !world.deaf,
                Mishap::Crash { at, by } => {
                    world.crash_at = Some(at);
                    match by {
                        0 => world.round(),
                        1 => world.step(Event::Tick),
                        2 => world.offer(3),
                        _ => drop(world.command(update(instances, &command.to_string()))),
                    }
                    world.restart();
                    world.connect();
                }
                Mishap::Round => world.round(),
                Mishap::Wait(seconds) => world.now += Duration::from_secs(seconds),
                Mishap::Remove | Mishap::Kill { .. } => {}
            }
            most = most.max(2 * instances + 1);
            prop_assert!(world.alive() <= 2 * most, "{} alive", world.alive());
        }
        world.deaf = false;
        world.connected = false;
        world.updates.clear();
        world.step(Event::Disconnected);
        world.connect();
        let wanted = world.core.status(&"/p".parse().unwrap(), Version::from_millis(EPOCH).unwrap());
        let wanted = wanted.filter(|status| status.status != Overall::Terminal).map(|status| status.spec.scaling.instances as usize);
        world.settle();
        world.settle();
        for (task, times) in &world.ever_launched {
            prop_assert_eq!(*times, 1, "{} launched twice", task);
        }
        prop_assert_eq!(world.alive(), wanted.unwrap_or(0));
        let status = world.state("/p");
        prop_assert_eq!(status.is_some(), wanted.is_some());
        if let Some(status) = status {
            prop_assert_eq!(status.status, Overall::Stable);
            prop_assert_eq!(world.core.deployments().count(), 0);
            let stored: Vec<String> = world.store.instances.keys().map(ToString::to_string).collect();
            prop_assert_eq!(stored, status.instances.iter().map(|i| i.id.clone()).collect::<Vec<_>>());
        }
    }
}
