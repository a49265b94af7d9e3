//! What becomes of offers: used, held for a moment, or declined; and when to ask for more.
//!
//! What is not needed now may be needed in the next instant: people post pods one after the other, and a scheduler that
//! sends every offer back at once has to ask for it again each time. So offers that nobody waits for are held for a
//! short while before they are declined and the master is told to be quiet.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    sync::Arc,
    time::Duration,
};

use super::{
    effect::{Change, Effect},
    event::Settings,
    instance::{Instance, InstanceTask, Placed},
    machine::{Core, Out, PodState, StoredPod, Timer, changed},
    matching::{Chance, Offered, Pool, Refused, Shape},
};
use crate::{
    mesos::v1,
    pod::{
        Pod, Version,
        task_group::{Allocation, Launch, Target},
    },
};

/// How we stand with the master's offers.
#[derive(Debug, Default)]
pub(super) struct OfferStance {
    suppressed: bool,
    /// Something new waits that earlier refusals must not keep offers from.
    pub revive: bool,
    last_revive: Option<Duration>,
    last_use: Option<Duration>,
    /// Offers nobody waits for yet, the oldest first.
    held: VecDeque<Table>,
}

impl OfferStance {
    /// A new subscription starts with the master's default: offers for every role. Those of the old one are void.
    pub fn fresh(revive: bool) -> Self {
        OfferStance {
            revive,
            ..OfferStance::default()
        }
    }

    /// An offer that the master took back.
    pub fn rescinded(&mut self, offer: &v1::OfferId) {
        self.held.retain(|held| held.pool.offer != *offer);
    }
}

/// What became of the latest offers, to explain why a pod does not run.
#[derive(Debug, Default)]
pub(super) struct OfferLog {
    pub processed: u64,
    pub unused: u64,
    pub latest: VecDeque<Arc<UnusedOffer>>,
    /// Every offer since the last launch or change was of no use.
    pub fruitless: bool,
}

#[derive(Debug, Clone)]
pub struct UnusedOffer {
    pub offer: String,
    pub agent: String,
    pub host: String,
    pub resources: Vec<Offered>,
    pub attributes: Arc<[v1::Attribute]>,
    pub refused: Vec<Refused>,
    pub at: Version,
}

impl UnusedOffer {
    fn new(pool: &Pool, refused: Vec<Refused>, at: Version) -> Arc<Self> {
        Arc::new(UnusedOffer {
            offer: pool.offer.value.clone(),
            agent: pool.agent.value.clone(),
            host: pool.hostname.clone(),
            resources: pool.offered(),
            attributes: pool.attributes().clone(),
            refused,
            at,
        })
    }

    /// All that was wrong with it, in one sentence.
    pub fn why(&self) -> String {
        let details: Vec<&str> = self
            .refused
            .iter()
            .map(|refused| refused.detail.as_str())
            .collect();
        details.join("; ")
    }
}

/// Offers remembered for each pod, one for each agent.
const REMEMBERED: usize = 20;

impl OfferLog {
    fn refused(&mut self, unused: Arc<UnusedOffer>) {
        self.processed = self.processed.saturating_add(1);
        self.unused = self.unused.saturating_add(1);
        self.latest.retain(|earlier| earlier.agent != unused.agent);
        if self.latest.len() == REMEMBERED {
            self.latest.pop_front();
        }
        self.latest.push_back(unused);
    }

    /// The pod is another one now: what was wrong with offers says nothing any more.
    pub fn forget(&mut self) {
        self.latest.clear();
        self.fruitless = false;
    }
}

/// An offer at hand, and what it is used for.
#[derive(Debug)]
struct Table {
    /// When it came.
    since: Duration,
    pool: Pool,
    operations: Vec<v1::offer::Operation>,
    /// The shapes that do not fit into what is left of it, by number: whoever has one of them need not be tried.
    refused: BTreeMap<usize, Arc<UnusedOffer>>,
}

impl Table {
    fn new(offer: &v1::Offer, since: Duration) -> Self {
        Table {
            since,
            pool: Pool::new(offer),
            operations: Vec::new(),
            refused: BTreeMap::new(),
        }
    }

    /// What an instance needs, or why it is not here.
    fn take(
        &mut self,
        pod: &Pod,
        shape: usize,
        chance: &mut Chance,
        at: Version,
    ) -> Result<Allocation, Arc<UnusedOffer>> {
        if let Some(unused) = self.refused.get(&shape) {
            return Err(unused.clone());
        }
        match self.pool.take(pod, chance) {
            Ok(allocation) => {
                // There is less now, and they would be told other figures.
                self.refused.clear();
                Ok(allocation)
            }
            Err(refused) => {
                let unused = UnusedOffer::new(&self.pool, refused, at);
                self.refused.insert(shape, unused.clone());
                Err(unused)
            }
        }
    }
}

/// Where an instance of a pod goes first: to the agent that has the fewest of it, then to the one with most room; ties
/// go to the offer that came first. The greatest is taken first.
type Preference = (Reverse<usize>, (i64, i64), Reverse<usize>);

impl Core {
    pub(super) fn offered(&mut self, offers: Vec<v1::Offer>, out: &mut Out) {
        let now = out.stamp.now;
        self.offers
            .held
            .extend(offers.iter().map(|offer| Table::new(offer, now)));
        if !self.waiting.is_empty() {
            self.place_on_held(out);
        }
        if let Some(Table { since, .. }) = self.offers.held.front() {
            let linger = self
                .settings
                .offer_linger
                .saturating_sub(now.saturating_sub(*since));
            out.wake(linger, Timer::Offers);
        }
    }

    /// Gives what waits a place on the offers at hand, and declines those that are of no use to it.
    fn place_on_held(&mut self, out: &mut Out) {
        let Some(framework) = self.framework.clone() else {
            return;
        };
        let now = out.stamp.now;
        let tables = self.offers.held.make_contiguous();
        // Shapes are numbered anew each round: what is left of an offer is refused with the time of the round.
        let mut shapes: BTreeMap<Shape, usize> = BTreeMap::new();
        tables.iter_mut().for_each(|table| table.refused.clear());
        let pods = &mut self.pods;
        self.waiting.retain(|key| {
            let Some(state) = pods.get_mut(key) else {
                return true;
            };
            if state.backoff.until().is_some_and(|until| until > now) {
                return true;
            }
            let number = shapes.len();
            let shape = *shapes.entry(Shape::of(&state.stored.pod)).or_insert(number);
            place(&self.settings, &framework, state, shape, tables, out);
            state.fleet.has_scheduled()
        });
        let mut useless = Vec::new();
        let (waits, last_use) = (!self.waiting.is_empty(), &mut self.offers.last_use);
        self.offers.held.retain_mut(|table| {
            if !table.operations.is_empty() {
                *last_use = Some(now);
                out.send(Effect::Accept {
                    offer: table.pool.offer.clone(),
                    operations: std::mem::take(&mut table.operations),
                });
                return false;
            }
            if waits {
                useless.push(table.pool.offer.clone());
            }
            !waits
        });
        if !useless.is_empty() {
            let refuse = self.settings.decline_waiting;
            out.send(Effect::Decline {
                offers: useless,
                refuse,
            });
        }
    }

    /// Offers that nobody came to wait for in their time go back.
    pub(super) fn release_held(&mut self, out: &mut Out) {
        let now = out.stamp.now;
        let mut declined = Vec::new();
        while let Some(table) = self.offers.held.pop_front() {
            let until = table.since.saturating_add(self.settings.offer_linger);
            if until > now {
                out.wake(until - now, Timer::Offers);
                self.offers.held.push_front(table);
                break;
            }
            declined.push(table.pool.offer);
        }
        if !declined.is_empty() {
            let refuse = self.settings.decline_idle;
            out.send(Effect::Decline {
                offers: declined,
                refuse,
            });
        }
    }

    /// Puts a pod that changed back among those that wait, or takes it out.
    pub(super) fn note_waiting(&mut self, key: &str, fresh: bool, out: &mut Out) {
        let state = self.pods.get(key).filter(|state| state.fleet.has_scheduled());
        let Some(state) = state else {
            self.waiting.remove(key);
            return;
        };
        let newly = self.waiting.insert(key.to_owned());
        match state.backoff.until().filter(|until| *until > out.stamp.now) {
            Some(until) => out.wake(until - out.stamp.now, Timer::Pod(key.to_owned())),
            None => self.offers.revive |= newly || fresh,
        }
    }

    /// What waits takes what is at hand; then REVIVE when something new still waits, SUPPRESS when nothing does.
    pub(super) fn settle_offers(&mut self, out: &mut Out) {
        if !self.waiting.is_empty() && !self.offers.held.is_empty() {
            self.place_on_held(out);
        }
        let now = out.stamp.now;
        if self.waiting.is_empty() {
            self.offers.revive = false;
            let linger = self.settings.offer_linger;
            let quiet = self.offers.last_use.map(|last| last.saturating_add(linger));
            match quiet.filter(|quiet| *quiet > now) {
                // What is left of an offer that was used just now is on its way, and the next pod may be, too.
                Some(quiet) => out.wake(quiet - now, Timer::Offers),
                None if !self.offers.suppressed && self.offers.held.is_empty() => {
                    self.offers.suppressed = true;
                    out.send(Effect::Suppress);
                }
                None => {}
            }
            return;
        }
        if !self.offers.revive && !self.offers.suppressed {
            return;
        }
        match self
            .offers
            .last_revive
            .map(|last| last.saturating_add(self.settings.revive_interval))
        {
            Some(due) if due > now => out.wake(due - now, Timer::Offers),
            _ => {
                self.offers.suppressed = false;
                self.offers.revive = false;
                self.offers.last_revive = Some(now);
                out.send(Effect::Revive);
            }
        }
    }
}

/// Places as many waiting instances of a pod as the offers can hold, spread over their agents.
fn place(
    settings: &Settings,
    framework: &v1::FrameworkId,
    state: &mut PodState,
    shape: usize,
    tables: &mut [Table],
    out: &mut Out,
) {
    let StoredPod {
        pod, version, config, ..
    } = state.stored.clone();
    let preference = |count: usize, pool: &Pool, index: usize| -> Preference {
        (Reverse(count), pool.room(), Reverse(index))
    };
    let mut preferences: BinaryHeap<Preference> = tables
        .iter()
        .enumerate()
        .map(|(index, table)| {
            let count = state.fleet.on_agent(&table.pool.agent.value);
            preference(count, &table.pool, index)
        })
        .collect();
    let mut next = state.fleet.next_scheduled(None);
    while let Some(id) = next {
        // Where the executor of its last run still is; the others may go there.
        let mut passed_over = Vec::new();
        while let Some(first) = preferences.pop() {
            let (Reverse(count), _, Reverse(index)) = first;
            let Some(table) = tables.get_mut(index) else {
                continue;
            };
            if let Some(refused) = table.pool.still_has(&id) {
                let unused = UnusedOffer::new(&table.pool, vec![refused], out.stamp.wall);
                state.offers.refused(unused);
                let waits = state.fleet.get(&id).map(|instance| instance.timers.waiting);
                if waits
                    .is_some_and(|since| out.stamp.now.saturating_sub(since) >= settings.executor_patience)
                {
                    out.send(Effect::Shutdown {
                        executor: v1::ExecutorId {
                            value: id.executor_id(),
                        },
                        agent: table.pool.agent.clone(),
                    });
                }
                passed_over.push(first);
                continue;
            }
            match table.take(&pod, shape, &mut out.chance, out.stamp.wall) {
                Ok(allocation) => {
                    state.offers.processed = state.offers.processed.saturating_add(1);
                    state.offers.fruitless = false;
                    let pool = &table.pool;
                    let launched = state.fleet.change(&id, |instance| {
                        (instance.version, instance.config) = (version, config);
                        launch(settings, framework, &pod, instance, pool, allocation, out)
                    });
                    preferences.push(preference(count + 1, pool, index));
                    table.operations.extend(launched);
                    break;
                }
                // No other instance of this pod fits either.
                Err(unused) => {
                    state.offers.fruitless = true;
                    state.offers.refused(unused);
                }
            }
        }
        preferences.extend(passed_over);
        if preferences.is_empty() {
            return;
        }
        next = state.fleet.next_scheduled(Some(&id));
    }
}

fn launch(
    settings: &Settings,
    framework: &v1::FrameworkId,
    pod: &Pod,
    instance: &mut Instance,
    pool: &Pool,
    allocation: Allocation,
    out: &mut Out,
) -> v1::offer::Operation {
    let wall = out.stamp.wall;
    instance.placed = Some(Placed {
        agent: pool.agent.value.clone(),
        host: pool.hostname.clone(),
        host_ports: allocation.host_ports.clone(),
    });
    instance.tasks = pod
        .containers
        .iter()
        .map(|container| (container.name.clone(), InstanceTask::sent(wall)))
        .collect();
    instance.settle(wall);
    instance.timers.sent = Some(out.stamp.now);
    out.wake(settings.launch_timeout, Timer::Instance(instance.id.clone()));
    out.store(Change::Instance(instance.clone()));
    out.tell(changed(instance));
    let target = Target {
        framework: framework.clone(),
        agent: pool.agent.clone(),
        hostname: pool.hostname.clone(),
        allocation,
    };
    let launch = Launch {
        pod,
        version: instance.version,
        instance: &instance.id,
        incarnation: instance.incarnation,
        target: &target,
        options: &settings.launch,
    };
    v1::offer::Operation {
        r#type: Some(v1::offer::operation::Type::LaunchGroup as i32),
        launch_group: Some(launch.operation()),
        ..Default::default()
    }
}
