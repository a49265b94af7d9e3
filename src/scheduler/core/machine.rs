//! The state of the scheduler and its transitions.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    backoff::Backoff,
    effect::{Change, Effect, Notice},
    event::{Accepted, Command, Event, Refusal, Settings, Stamp},
    fleet::Fleet,
    instance::{Condition, Instance},
    matching::Chance,
    offers::{OfferLog, OfferStance},
    reconcile::Questions,
};
use crate::{
    mesos::v1::{self, TaskState},
    pod::{InstanceId, Pod, PodId, TaskName, Version},
};

/// Everything the scheduler knows. Made anew from the store at each start.
#[derive(Debug)]
pub struct Core {
    pub(super) settings: Settings,
    pub(super) framework: Option<v1::FrameworkId>,
    connected: bool,
    /// By safe path, which is what task ids carry.
    pub(super) pods: BTreeMap<String, PodState>,
    /// Pods with an instance that waits for an offer.
    pub(super) waiting: BTreeSet<String>,
    /// What is due when; an entry may be stale, so whoever is woken looks again.
    timers: BTreeSet<(Duration, Timer)>,
    pub(super) offers: OfferStance,
    pub(super) versions: Versions,
    pub(super) questions: Questions,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Offers,
    Reconcile,
    Pod(String),
    Instance(InstanceId),
}

/// Where versions of definitions come from.
#[derive(Debug)]
pub(super) struct Versions {
    /// The last one given away, of whatever pod.
    newest: Version,
}

impl Versions {
    /// The time of day, unless one as late was given away already: two changes in one millisecond make two versions,
    /// and a clock that is set back makes none that is older than an old one.
    pub fn next(&mut self, wall: Version) -> Version {
        self.newest = wall.max(self.newest.next());
        self.newest
    }
}

/// One pod, with all that is known of it.
#[derive(Debug)]
pub(super) struct PodState {
    pub stored: StoredPod,
    pub fleet: Fleet,
    pub backoff: Backoff,
    pub offers: OfferLog,
    pub last_failure: Option<Instance>,
    /// The last place given away in the order of killing.
    pub order: u64,
}

impl PodState {
    pub fn new(stored: StoredPod) -> Self {
        PodState {
            fleet: Fleet::new(&stored),
            stored,
            backoff: Backoff::default(),
            offers: OfferLog::default(),
            last_failure: None,
            order: 0,
        }
    }

    /// What is stored beside the pod, so that a scheduler that starts again does not begin at once with what failed.
    pub fn trouble(&self) -> Change {
        let trouble = Trouble {
            delay: self.backoff.delay(),
            last_failure: self.last_failure.clone(),
        };
        Change::Trouble(self.stored.pod.id.clone(), trouble)
    }

    /// The next place in the order of killing.
    pub fn next_order(&mut self) -> u64 {
        self.order = self.order.saturating_add(1);
        self.order
    }

    /// Instances that an older version stored have no order; the times they know are the best there is.
    fn put_in_order(&mut self) {
        self.order = self.fleet.iter().map(|i| i.order).max().unwrap_or(0);
        let mut unordered: Vec<(Version, InstanceId)> = self
            .fleet
            .iter()
            .filter(|instance| instance.order == 0)
            .map(|instance| {
                (
                    instance.active_since.unwrap_or(instance.since),
                    instance.id.clone(),
                )
            })
            .collect();
        unordered.sort();
        for (_, id) in unordered {
            let order = self.next_order();
            self.fleet.change(&id, |instance| instance.order = order);
        }
    }

    /// What an instance was launched as, which may no longer be what the pod is.
    pub fn edition_of(&self, instance: &Instance) -> &Arc<Pod> {
        self.fleet.edition_of(instance)
    }
}

/// What is stored of a pod.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredPod {
    pub pod: Arc<Pod>,
    pub version: Version,
    /// The version of the last change that was more than scaling.
    pub config: Version,
    pub removing: bool,
    pub deployment: Option<Deployment>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    pub id: Uuid,
    pub kind: DeploymentKind,
    pub since: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeploymentKind {
    Create,
    Scale,
    Restart,
    Remove,
}

/// What went wrong with a pod of late.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Trouble {
    /// How long the next launch has to wait; after a restart of the scheduler the whole of it, as no clock tells for
    /// sure how much is left.
    pub delay: Option<Duration>,
    pub last_failure: Option<Instance>,
}

/// What the store held.
#[derive(Debug, Clone, Default)]
pub struct Saved {
    pub framework: Option<String>,
    /// The newest version ever given away.
    pub newest: Option<Version>,
    pub pods: Vec<StoredPod>,
    pub instances: Vec<Instance>,
    pub troubles: Vec<(PodId, Trouble)>,
    /// Versions other than the newest that instances run.
    pub editions: Vec<Arc<Pod>>,
}

/// What one step has to say, sorted so that storing comes first.
#[derive(Debug)]
pub(super) struct Out {
    pub stamp: Stamp,
    pub chance: Chance,
    changes: Vec<Change>,
    sends: Vec<Effect>,
    notices: Vec<Notice>,
    timers: Vec<(Duration, Timer)>,
}

impl Out {
    fn new(stamp: Stamp) -> Self {
        Out {
            stamp,
            chance: Chance::new(stamp.entropy),
            changes: Vec::new(),
            sends: Vec::new(),
            notices: Vec::new(),
            timers: Vec::new(),
        }
    }

    pub fn store(&mut self, change: Change) {
        self.changes.push(change);
    }

    pub fn send(&mut self, effect: Effect) {
        self.sends.push(effect);
    }

    pub fn tell(&mut self, notice: Notice) {
        self.notices.push(notice);
    }

    pub fn wake(&mut self, after: Duration, timer: Timer) {
        self.timers.push((self.stamp.now.saturating_add(after), timer));
    }

    fn effects(self) -> Vec<Effect> {
        let persist = (!self.changes.is_empty()).then_some(Effect::Persist(self.changes));
        persist
            .into_iter()
            .chain(self.sends)
            .chain(self.notices.into_iter().map(Effect::Publish))
            .collect()
    }
}

impl Core {
    /// Takes up where the store says the last scheduler stopped. No time survives: what waits for something waits its
    /// whole time again, from `now`.
    pub fn restore(settings: Settings, saved: Saved, now: Duration) -> Self {
        let mut pods: BTreeMap<String, PodState> = BTreeMap::new();
        for stored in saved.pods {
            pods.insert(stored.pod.id.safe(), PodState::new(stored));
        }
        for edition in saved.editions {
            if let (Some(state), Some(version)) = (pods.get_mut(&edition.id.safe()), edition.version) {
                state.fleet.keep_edition(version, edition);
            }
        }
        let mut timers = BTreeSet::new();
        for mut instance in saved.instances {
            if let Some(state) = pods.get_mut(&instance.pod.safe()) {
                instance.timers.waiting = now;
                if let Some(due) = instance.resume(now, &settings) {
                    timers.insert((due, Timer::Instance(instance.id.clone())));
                }
                state.fleet.admit(instance);
            }
        }
        for (pod, trouble) in saved.troubles {
            if let Some(state) = pods.get_mut(&pod.safe()) {
                state.backoff = Backoff::restore(trouble.delay, now);
                state.last_failure = trouble.last_failure;
            }
        }
        for state in pods.values_mut() {
            state.fleet.drop_editions();
            state.put_in_order();
        }
        let newest = pods.values().map(|state| state.stored.version);
        let newest = newest.chain(saved.newest).max().unwrap_or(Version::EPOCH);
        let waiting = pods
            .iter()
            .filter(|(_, state)| state.fleet.has_scheduled())
            .map(|(key, _)| key.clone())
            .collect();
        Core {
            settings,
            framework: saved.framework.map(|value| v1::FrameworkId { value }),
            connected: false,
            pods,
            waiting,
            timers,
            offers: OfferStance::default(),
            versions: Versions { newest },
            questions: Questions::default(),
        }
    }

    /// The id to subscribe with, once the master has given one.
    pub fn framework(&self) -> Option<&v1::FrameworkId> {
        self.framework.as_ref()
    }

    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// When the next [`Event::Tick`] is due.
    pub fn deadline(&self) -> Option<Duration> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Every event is legal in every state.
    pub fn step(&mut self, stamp: Stamp, event: Event) -> Vec<Effect> {
        let mut out = Out::new(stamp);
        match event {
            Event::Registered(framework) => self.registered(framework, &mut out),
            Event::Disconnected => {
                self.connected = false;
                out.tell(Notice::Disconnected);
            }
            Event::Offers(offers) => self.offered(offers, &mut out),
            Event::Rescinded(offer) => self.offers.rescinded(&offer),
            Event::Update(status) => self.updated(&status, &mut out),
            Event::ExecutorEnded(executor) => self.executor_ended(&executor, &mut out),
            Event::Tick => self.tick(&mut out),
        }
        self.finish(out)
    }

    /// Takes on what somebody asked for, or says why not. A refused command changes nothing.
    pub fn command(&mut self, stamp: Stamp, command: Command) -> (Result<Accepted, Refusal>, Vec<Effect>) {
        let mut out = Out::new(stamp);
        let answer = match command {
            Command::Create(pod) => self.create(pod, &mut out),
            Command::Update { pod, force } => self.update(pod, force, &mut out),
            Command::Remove { id, force } => self.remove(&id, force, &mut out),
            Command::Kill { pod, instances, wipe } => self.kill(&pod, &instances, wipe, &mut out),
            Command::ResetDelay(id) => self.reset_delay(&id, &mut out),
        };
        (answer, self.finish(out))
    }

    // ---- the master

    fn registered(&mut self, framework: v1::FrameworkId, out: &mut Out) {
        let same = self.framework.as_ref() == Some(&framework);
        if !same {
            out.store(Change::Framework(framework.value.clone()));
        }
        self.questions.begin(same, &self.settings, out.stamp.now);
        out.tell(Notice::Registered {
            framework: framework.value.clone(),
        });
        self.framework = Some(framework);
        self.connected = true;
        self.offers = OfferStance::fresh(!self.waiting.is_empty());
        self.reconcile(out);
        let keys: Vec<String> = self.pods.keys().cloned().collect();
        for key in keys {
            // What was asked of the last master may never have arrived.
            if let Some(state) = self.pods.get_mut(&key) {
                state.fleet.change_all(|instance| instance.timers.killed = None);
            }
            self.converge(&key, out);
        }
    }

    fn updated(&mut self, status: &v1::TaskStatus, out: &mut Out) {
        if self.is_only_away(status, out.stamp.now) {
            let away = v1::TaskStatus {
                state: TaskState::TaskUnreachable as i32,
                ..status.clone()
            };
            self.take_status(&away, out);
            return;
        }
        self.questions.answered(&status.task_id.value);
        self.take_status(status, out);
        // Only what carries a uuid wants an answer, and only after it is stored.
        if let (Some(uuid), Some(agent)) = (&status.uuid, &status.agent_id) {
            let task = status.task_id.clone();
            out.send(Effect::Acknowledge {
                task,
                agent: agent.clone(),
                uuid: uuid.clone(),
            });
        }
    }

    fn take_status(&mut self, status: &v1::TaskStatus, out: &mut Out) {
        let name = TaskName::parse(&status.task_id.value);
        let known = name.as_ref().and_then(|name| {
            let state = self.pods.get_mut(name.instance.safe_path())?;
            let instance = state.fleet.get(&name.instance)?;
            let ours =
                instance.incarnation == name.incarnation && instance.tasks.contains_key(&name.container);
            ours.then_some((name, state))
        });
        let Some((name, state)) = known else {
            return stranger(status, out);
        };
        let PodState { fleet, order, .. } = state;
        let heard = fleet.change(&name.instance, |instance| {
            instance.hear(&name.container, status, order, out)
        });
        if heard != Some(true) {
            return;
        }
        if !Condition::of(status.state()).is_terminal() {
            state.backoff.progressed(out.stamp.now);
        }
        self.converge(name.instance.safe_path(), out);
    }

    /// Whoever waits for its own predecessor to leave an agent need not wait for the next round of offers.
    fn executor_ended(&mut self, executor: &v1::ExecutorId, out: &mut Out) {
        let Some(id) = InstanceId::of_executor(&executor.value) else {
            return;
        };
        let state = self.pods.get(id.safe_path());
        if state
            .and_then(|state| state.fleet.get(&id))
            .is_some_and(Instance::is_scheduled)
        {
            self.note_waiting(id.safe_path(), true, out);
        }
    }

    // ---- time

    fn tick(&mut self, out: &mut Out) {
        let now = out.stamp.now;
        while self.timers.first().is_some_and(|(at, _)| *at <= now)
            && let Some((at, timer)) = self.timers.pop_first()
        {
            match timer {
                Timer::Offers if self.connected => self.release_held(out),
                Timer::Offers => {}
                // Each subscription begins a round of its own; the timer of an earlier one means nothing.
                Timer::Reconcile if !self.connected || !self.questions.are_due(at) => {}
                Timer::Reconcile => self.ask_again(out),
                Timer::Pod(key) => {
                    self.offers.revive |= self.waiting.contains(&key);
                    self.converge(&key, out);
                }
                Timer::Instance(id) => {
                    let key = id.safe_path().to_owned();
                    self.overdue(&key, &id, out);
                    self.converge(&key, out);
                }
            }
        }
    }

    /// Repeats a KILL that nobody answered, and gives up a launch that nobody confirmed.
    fn overdue(&mut self, key: &str, id: &InstanceId, out: &mut Out) {
        let now = out.stamp.now;
        let due = |since: Option<Duration>, after: Duration| {
            since.is_some_and(|since| since.saturating_add(after) <= now)
        };
        let Some(state) = self.pods.get_mut(key) else {
            return;
        };
        state.fleet.change(id, |instance| {
            // From STARTING on the executor keeps its own deadline; a big image may take its time.
            let unconfirmed = matches!(instance.condition, Condition::Provisioned | Condition::Staging);
            if due(instance.timers.killed, self.settings.kill_retry)
                || (unconfirmed && due(instance.timers.sent, self.settings.launch_timeout))
            {
                self.settings.end(instance, out);
            }
        });
    }

    // ---- the end of every step

    fn finish(&mut self, mut out: Out) -> Vec<Effect> {
        if self.connected {
            self.settle_offers(&mut out);
        }
        self.timers.extend(std::mem::take(&mut out.timers));
        #[cfg(test)]
        self.pods
            .values()
            .for_each(|state| state.fleet.audit(&state.stored));
        out.effects()
    }
}

/// Somebody speaks for a task that nobody knows.
fn stranger(status: &v1::TaskStatus, out: &mut Out) {
    if Condition::of(status.state()).is_terminal() {
        out.tell(Notice::UnknownInstanceTerminated {
            task: status.task_id.value.clone(),
        });
    } else {
        // Something runs that nobody wants any more: an instance that was given up, or an earlier incarnation.
        out.send(Effect::Kill {
            task: status.task_id.clone(),
            agent: status.agent_id.clone(),
        });
    }
}

impl Instance {
    /// Takes over what is said of one of its tasks; true when that is news. `order` is the last place that the pod has
    /// given away in the order of killing.
    fn hear(&mut self, container: &str, status: &v1::TaskStatus, order: &mut u64, out: &mut Out) -> bool {
        let wall = out.stamp.wall;
        let Some(task) = self.tasks.get_mut(container) else {
            return false;
        };
        if task.condition.is_terminal() || !task.take(status, wall) {
            return false;
        }
        let placed = self.placed.as_ref();
        out.tell(Notice::StatusUpdate {
            pod: self.pod.clone(),
            version: self.version,
            host: placed.map(|placed| placed.host.clone()).unwrap_or_default(),
            status: Box::new(status.clone()),
        });
        let ran = self.active_since.is_some();
        if self.settle(wall) {
            if !ran && self.active_since.is_some() {
                *order = order.saturating_add(1);
                self.order = *order;
            }
            out.tell(changed(self));
            self.timers.unreachable = (self.condition == Condition::Unreachable).then_some(out.stamp.now);
            if self.condition == Condition::Unreachable {
                out.wake(Duration::ZERO, Timer::Instance(self.id.clone()));
            }
        }
        out.store(Change::Instance(self.clone()));
        true
    }
}

pub(super) fn changed(instance: &Instance) -> Notice {
    Notice::InstanceChanged {
        pod: instance.pod.clone(),
        instance: instance.id.clone(),
        version: instance.version,
        condition: instance.condition,
        agent: instance.placed.as_ref().map(|placed| placed.agent.clone()),
        host: instance.placed.as_ref().map(|placed| placed.host.clone()),
    }
}

impl Settings {
    /// Tells every live task of an instance to go. One would do, as the group shares one fate; all are sure.
    pub(super) fn end(&self, instance: &mut Instance, out: &mut Out) {
        let agent = instance.agent();
        for task in instance.live_tasks() {
            out.send(Effect::Kill {
                task: v1::TaskId { value: task },
                agent: agent.clone(),
            });
        }
        if !instance.is_scheduled() {
            instance.timers.killed = Some(out.stamp.now);
            out.wake(self.kill_retry, Timer::Instance(instance.id.clone()));
        }
    }
}
