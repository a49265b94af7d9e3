//! A small master that keeps its own books, loses messages and restarts the scheduler.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use serde_json::json;

use super::super::{
    machine::{Core, Saved, StoredPod},
    status::{self, Overall},
    *,
};
use crate::{
    mesos::v1::{self, TaskState},
    pod::{self, InstanceId, Pod, PodId, Profile, TaskName, Version, task_group},
};

/// What a store would hold.
#[derive(Debug, Default, Clone)]
pub(super) struct Store {
    pub(super) framework: Option<String>,
    pub(super) pods: BTreeMap<PodId, StoredPod>,
    pub(super) instances: BTreeMap<InstanceId, Instance>,
    pub(super) versions: Vec<Arc<Pod>>,
    pub(super) troubles: BTreeMap<PodId, Trouble>,
}

impl Store {
    pub(super) fn apply(&mut self, changes: &[Change]) {
        for change in changes.iter().cloned() {
            match change {
                Change::Framework(id) => self.framework = Some(id),
                Change::Pod(pod) => drop(self.pods.insert(pod.pod.id.clone(), pod)),
                Change::Version(pod) => self.versions.push(pod),
                Change::ForgetPod(id) => {
                    self.pods.remove(&id);
                    self.troubles.remove(&id);
                }
                Change::Trouble(id, trouble) => drop(self.troubles.insert(id, trouble)),
                Change::Instance(instance) => drop(self.instances.insert(instance.id.clone(), instance)),
                Change::ForgetInstance(id) => drop(self.instances.remove(&id)),
            }
        }
    }

    pub(super) fn saved(&self) -> Saved {
        // Through JSON, as a real store would.
        let pods = serde_json::to_string(&self.pods.values().collect::<Vec<_>>()).unwrap();
        let instances = serde_json::to_string(&self.instances.values().collect::<Vec<_>>()).unwrap();
        Saved {
            framework: self.framework.clone(),
            newest: self.versions.iter().filter_map(|pod| pod.version).max(),
            troubles: self.troubles.clone().into_iter().collect(),
            pods: serde_json::from_str(&pods).unwrap(),
            instances: serde_json::from_str(&instances).unwrap(),
            editions: self.versions.clone(),
        }
    }
}

/// One agent's worth of cluster.
pub(super) struct World {
    pub(super) core: Core,
    pub(super) store: Store,
    pub(super) now: Duration,
    pub(super) steps: u128,
    /// Tasks the master knows, by id, as they are.
    pub(super) tasks: BTreeMap<String, TaskState>,
    pub(super) ever_launched: BTreeMap<String, usize>,
    /// Executors that have not ended, by id.
    pub(super) executors: BTreeSet<String>,
    pub(super) updates: Vec<v1::TaskStatus>,
    pub(super) kills: Vec<String>,
    pub(super) shutdowns: Vec<String>,
    pub(super) wants_offers: bool,
    /// The offer that is out.
    pub(super) outstanding: Option<v1::OfferId>,
    pub(super) offers_made: usize,
    pub(super) connected: bool,
    pub(super) slots: usize,
    /// Messages from the scheduler to the master vanish.
    pub(super) deaf: bool,
    /// The master has an empty registry, and the agent has not come back to it.
    pub(super) away: bool,
    pub(super) notices: Vec<Notice>,
    /// Dies before this effect of the step, if set.
    pub(super) crash_at: Option<usize>,
    pub(super) crashed: bool,
    /// Milliseconds the wall clock is behind the time that has passed.
    pub(super) set_back: i64,
}

pub(super) fn settings() -> Settings {
    Settings::new(task_group::Options {
        delivery: task_group::Delivery::AgentDefault,
        variable_prefix: String::new(),
        bridge_name: "b".to_owned(),
    })
}

pub(super) const EPOCH: i64 = 1_700_000_000_000;

impl World {
    pub(super) fn new() -> Self {
        World {
            core: Core::restore(settings(), Saved::default(), Duration::ZERO),
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
            away: false,
            notices: Vec::new(),
            crash_at: None,
            crashed: false,
            set_back: 0,
        }
    }

    pub(super) fn stamp(&mut self) -> Stamp {
        self.steps += 1;
        self.now += Duration::from_millis(1);
        let wall = Version::from_millis(EPOCH + self.now.as_millis() as i64 - self.set_back).unwrap();
        Stamp {
            now: self.now,
            wall,
            entropy: self.steps.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
        }
    }

    pub(super) fn step(&mut self, event: Event) {
        let stamp = self.stamp();
        let effects = self.core.step(stamp, event);
        self.carry_out(effects);
    }

    pub(super) fn command(&mut self, command: Command) -> Result<Accepted, Refusal> {
        let stamp = self.stamp();
        let (answer, effects) = self.core.command(stamp, command);
        self.carry_out(effects);
        answer
    }

    pub(super) fn carry_out(&mut self, effects: Vec<Effect>) {
        // The dead do no more.
        if self.crashed {
            return;
        }
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

    pub(super) fn launch(&mut self, operation: v1::offer::Operation, valid: bool) {
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

    pub(super) fn reconcile(&mut self, tasks: Vec<(v1::TaskId, Option<v1::AgentId>)>) {
        let asked: Vec<String> = match tasks.is_empty() {
            true if self.away => return,
            true => self.tasks.keys().cloned().collect(),
            false => tasks.into_iter().map(|(task, _)| task.value).collect(),
        };
        for id in asked {
            // Of an agent it knows, a master knows all.
            let known = self.tasks.get(&id).copied().unwrap_or(TaskState::TaskGone);
            let state = match self.away {
                true => TaskState::TaskUnknown,
                false => known,
            };
            let mut status = status(&id, state);
            status.uuid = None;
            self.updates.push(status);
        }
    }

    pub(super) fn is_live(state: TaskState) -> bool {
        !Condition::of(state).is_terminal()
    }

    /// A task changes its state, unless it has already ended; the executor sees to it that a group shares one fate.
    pub(super) fn becomes(&mut self, id: &str, state: TaskState) {
        if !self.tasks.get(id).copied().is_some_and(World::is_live) {
            return;
        }
        self.tasks.insert(id.to_owned(), state);
        if !self.away {
            self.updates.push(status(id, state));
        }
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

    /// One task fails with these words.
    pub(super) fn fails(&mut self, id: &str, words: &str) {
        self.becomes(id, TaskState::TaskFailed);
        for update in self
            .updates
            .iter_mut()
            .filter(|update| update.task_id.value == id)
        {
            update.message = Some(words.to_owned());
        }
        for update in std::mem::take(&mut self.updates) {
            self.step(Event::Update(Box::new(update)));
        }
    }

    /// Whether this task was launched from the first definition of its pod.
    pub(super) fn is_of_first_version(&self, id: &str) -> bool {
        let name = TaskName::parse(id).unwrap();
        let first = self.store.versions.first().and_then(|pod| pod.version);
        self.core
            .instance(&name.instance)
            .map(|instance| instance.version)
            == first
    }

    pub(super) fn live(&self) -> Vec<String> {
        self.tasks
            .iter()
            .filter(|(_, state)| World::is_live(**state))
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// Offers what the agent has free; names what it still has of ours.
    pub(super) fn offer(&mut self, slots: usize) {
        let executor = |value: &String| v1::ExecutorId { value: value.clone() };
        let offer = v1::Offer {
            executor_ids: self.executors.iter().map(executor).collect(),
            ..offer(slots)
        };
        self.offer_exactly(offer);
    }

    pub(super) fn offer_exactly(&mut self, offer: v1::Offer) {
        self.offers_made += 1;
        let id = v1::OfferId {
            value: format!("O{}", self.offers_made),
        };
        self.outstanding = Some(id.clone());
        self.step(Event::Offers(vec![v1::Offer { id, ..offer }]));
    }

    /// Every task is killed, and the scheduler hears of it; the executors have not ended yet.
    pub(super) fn everything_ends(&mut self) {
        for task in self.live() {
            self.becomes(&task, TaskState::TaskKilled);
        }
        for update in std::mem::take(&mut self.updates) {
            self.step(Event::Update(Box::new(update)));
        }
    }

    /// Executors end a while after their last task.
    pub(super) fn executors_end(&mut self) {
        if self.away {
            return;
        }
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
    pub(super) fn alive(&self) -> usize {
        let instances = self
            .live()
            .into_iter()
            .map(|id| TaskName::parse(&id).unwrap().instance.to_string());
        instances.collect::<std::collections::BTreeSet<_>>().len()
    }

    /// Another master leads, and has never heard of the agent.
    pub(super) fn master_is_empty(&mut self) {
        self.connected = false;
        self.updates.clear();
        self.kills.clear();
        self.away = true;
        self.step(Event::Disconnected);
        self.connect();
    }

    pub(super) fn connect(&mut self) {
        self.connected = true;
        self.wants_offers = true;
        self.outstanding = None;
        self.step(Event::Registered(v1::FrameworkId {
            value: "F".to_owned(),
        }));
    }

    /// One round of a well-behaved cluster.
    pub(super) fn round(&mut self) {
        if self.deaf {
            // An answer may have been lost.
            self.outstanding = None;
        }
        let free = self.slots.saturating_sub(self.live().len());
        if self.connected && !self.away && self.wants_offers && self.outstanding.is_none() && free > 0 {
            self.offer(free);
        }
        self.executors_end();
        for id in std::mem::take(&mut self.kills) {
            match self.tasks.contains_key(&id) {
                _ if self.away => self.updates.push(status(&id, TaskState::TaskUnknown)),
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
    pub(super) fn settle(&mut self) {
        for _ in 0..60 {
            self.round();
            self.now += Duration::from_secs(20);
        }
    }

    pub(super) fn restart(&mut self) {
        self.core = Core::restore(settings(), self.store.saved(), self.now);
        // It may not have come to the point at which it was to die.
        (self.crashed, self.crash_at) = (false, None);
        self.connected = false;
        self.updates.clear();
        self.kills.clear();
    }

    pub(super) fn state(&self, id: &str) -> Option<status::PodStatus> {
        let now = Version::from_millis(EPOCH).unwrap();
        self.core.status(&id.parse().unwrap(), now)
    }

    /// Those of all pods, in the order they were given away.
    pub(super) fn versions(&self) -> Vec<Version> {
        self.store.versions.iter().filter_map(|pod| pod.version).collect()
    }

    pub(super) fn instances(&self, id: &str) -> Vec<String> {
        self.state(id)
            .unwrap()
            .instances
            .iter()
            .map(|instance| instance.id.clone())
            .collect()
    }
}

pub(super) fn status(id: &str, state: TaskState) -> v1::TaskStatus {
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
pub(super) fn offer(slots: usize) -> v1::Offer {
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

pub(super) fn definition(instances: usize, command: &str) -> Pod {
    let container = |name: &str| json!({"name": name, "exec": {"command": {"shell": command}}, "resources": {"cpus": 0.4, "mem": 32}});
    let definition = json!({"id": "/p", "containers": [container("a"), container("b")],
        "scaling": {"kind": "fixed", "instances": instances},
        "scheduling": {"backoff": {"backoff": 1, "backoffFactor": 1.15, "maxLaunchDelay": 60}}});
    pod::read(&definition, &Profile::default())
        .unwrap_or_else(|violations| panic!("{violations}"))
        .pod
}

pub(super) fn update(instances: usize, command: &str) -> Command {
    Command::Update {
        pod: definition(instances, command),
        force: true,
    }
}

pub(super) fn running(instances: usize) -> World {
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
