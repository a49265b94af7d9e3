//! The instances of a pod, counted.
//!
//! A pod may have ten thousand instances and hear of each of them many times. So nobody looks through them: they are
//! changed in one place only, [`Fleet::change`], which compares where the instance stood before with where it stands
//! after, and moves it between the counts and the small sets that the others ask.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
    time::Duration,
};

use super::{
    instance::{Condition, Goal, Instance},
    machine::StoredPod,
    rollout::Census,
};
use crate::pod::{InstanceId, Pod, Version, model::KillSelection};

#[derive(Debug)]
pub(super) struct Fleet {
    measure: Measure,
    instances: BTreeMap<InstanceId, Counted>,
    tally: Tally,
    /// Those that wait for an offer.
    scheduled: BTreeSet<InstanceId>,
    /// Those of which nothing runs any more, or for whose end nobody waits.
    over: BTreeSet<InstanceId>,
    /// Those that are to go and have not been told so.
    untold: BTreeSet<InstanceId>,
    /// Those out of reach, by the time since when.
    away: BTreeMap<Duration, BTreeSet<InstanceId>>,
    /// Those that are counted on, in the order in which they would have to go.
    current: BTreeSet<Place>,
    old: BTreeSet<Place>,
    versions: BTreeMap<Version, usize>,
    agents: BTreeMap<String, usize>,
}

/// The place of an instance in the order of killing: its rank, then its age as the pod's kill selection sees it.
type Place = (u8, u64, InstanceId);

#[derive(Debug)]
struct Counted {
    instance: Instance,
    /// As what it was counted last.
    standing: Standing,
}

/// All that is counted of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Standing {
    version: Version,
    scheduled: bool,
    over: bool,
    untold: bool,
    away: Option<Duration>,
    /// Away so long that another takes its place.
    inactive: bool,
    /// Not to go.
    kept: bool,
    /// Of the configuration that is wanted now.
    current: bool,
    ready: bool,
    rank: u8,
    age: u64,
}

impl Standing {
    fn is_counted_on(&self) -> bool {
        self.kept && !self.inactive
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Tally {
    inactive: usize,
    kept: usize,
    current_ready: usize,
    new_ready: usize,
    old_ready: usize,
    old_alive: usize,
}

impl Tally {
    /// Each count, and whether an instance that stands so is one of it.
    fn each(&mut self, at: &Standing) -> [(&mut usize, bool); 6] {
        let serves = at.ready && at.is_counted_on();
        [
            (&mut self.inactive, at.inactive),
            (&mut self.kept, at.kept),
            (&mut self.current_ready, at.current && at.ready),
            (&mut self.new_ready, at.current && serves),
            (&mut self.old_ready, !at.current && serves),
            (&mut self.old_alive, !at.current && !at.scheduled),
        ]
    }

    fn add(&mut self, at: &Standing) {
        for (count, applies) in self.each(at) {
            *count = count.saturating_add(usize::from(applies));
        }
    }

    fn subtract(&mut self, at: &Standing) {
        for (count, applies) in self.each(at) {
            *count = count.saturating_sub(usize::from(applies));
        }
    }
}

/// What instances are measured by. Whoever changes it counts again those that it concerns.
#[derive(Debug)]
struct Measure {
    pod: Arc<Pod>,
    version: Version,
    config: Version,
    /// Older definitions that instances still run.
    editions: BTreeMap<Version, Arc<Pod>>,
    /// Those that are away since then or before are inactive; `None`: nobody is.
    horizon: Option<Duration>,
}

impl Measure {
    fn edition_of(&self, instance: &Instance) -> &Arc<Pod> {
        let older = || self.editions.get(&instance.version);
        match instance.version == self.version {
            true => &self.pod,
            false => older().unwrap_or(&self.pod),
        }
    }

    /// By the checks it was launched with: a check that came later says nothing about it.
    fn is_ready(&self, instance: &Instance) -> bool {
        let edition = self.edition_of(instance);
        instance.is_ready(|container| edition.is_checked(container))
    }

    fn of(&self, instance: &Instance) -> Standing {
        let ready = self.is_ready(instance);
        let away = instance.timers.unreachable;
        let kept = instance.goal == Goal::Running;
        Standing {
            version: instance.version,
            scheduled: instance.is_scheduled(),
            over: instance.is_over() || instance.is_given_up(),
            untold: !kept && instance.timers.killed.is_none(),
            away,
            inactive: away.is_some_and(|since| Some(since) <= self.horizon),
            kept,
            current: instance.config == self.config,
            ready,
            // What serves nobody goes before what serves.
            rank: match instance.condition {
                Condition::Scheduled => 0,
                Condition::Provisioned => 1,
                Condition::Unreachable => 2,
                Condition::Staging => 3,
                Condition::Starting => 4,
                Condition::Running if ready => 6,
                _ => 5,
            },
            age: match self.pod.scheduling.kill_selection {
                KillSelection::YoungestFirst => u64::MAX - instance.order,
                KillSelection::OldestFirst => instance.order,
            },
        }
    }
}

fn shift<T: Ord>(set: &mut BTreeSet<T>, was: Option<T>, is: Option<T>) {
    if was == is {
        return;
    }
    if let Some(was) = was {
        set.remove(&was);
    }
    set.extend(is);
}

fn shift_count<K: Ord>(counts: &mut BTreeMap<K, usize>, was: Option<K>, is: Option<K>) {
    if was == is {
        return;
    }
    if let Some(was) = was
        && let Some(count) = counts.get_mut(&was)
    {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(&was);
        }
    }
    if let Some(is) = is {
        let count = counts.entry(is).or_default();
        *count = count.saturating_add(1);
    }
}

impl Fleet {
    pub fn new(stored: &StoredPod) -> Self {
        Fleet {
            measure: Measure {
                pod: stored.pod.clone(),
                version: stored.version,
                config: stored.config,
                editions: BTreeMap::new(),
                horizon: None,
            },
            instances: BTreeMap::new(),
            tally: Tally::default(),
            scheduled: BTreeSet::new(),
            over: BTreeSet::new(),
            untold: BTreeSet::new(),
            away: BTreeMap::new(),
            current: BTreeSet::new(),
            old: BTreeSet::new(),
            versions: BTreeMap::new(),
            agents: BTreeMap::new(),
        }
    }

    // ---- the only ways in, through and out

    pub fn admit(&mut self, instance: Instance) {
        let id = instance.id.clone();
        self.dismiss(&id);
        let standing = self.measure.of(&instance);
        let agent = agent(&instance);
        self.instances.insert(id.clone(), Counted { instance, standing });
        self.count(&id, None, Some(standing));
        shift_count(&mut self.agents, None, agent);
    }

    /// Whatever happens to an instance happens in here.
    pub fn change<T>(&mut self, id: &InstanceId, change: impl FnOnce(&mut Instance) -> T) -> Option<T> {
        let counted = self.instances.get_mut(id)?;
        let was_at = agent(&counted.instance);
        let answer = change(&mut counted.instance);
        let is_at = agent(&counted.instance);
        let is = self.measure.of(&counted.instance);
        let was = std::mem::replace(&mut counted.standing, is);
        if was != is {
            self.count(id, Some(was), Some(is));
        }
        shift_count(&mut self.agents, was_at, is_at);
        Some(answer)
    }

    pub fn change_all(&mut self, mut change: impl FnMut(&mut Instance)) {
        let all: Vec<InstanceId> = self.instances.keys().cloned().collect();
        for id in all {
            self.change(&id, &mut change);
        }
    }

    pub fn dismiss(&mut self, id: &InstanceId) {
        if let Some(Counted { instance, standing }) = self.instances.remove(id) {
            self.count(id, Some(standing), None);
            shift_count(&mut self.agents, agent(&instance), None);
        }
    }

    fn count(&mut self, id: &InstanceId, was: Option<Standing>, is: Option<Standing>) {
        if let Some(was) = &was {
            self.tally.subtract(was);
        }
        if let Some(is) = &is {
            self.tally.add(is);
        }
        type Question = fn(&Standing) -> bool;
        let member = |at: &Option<Standing>, of: Question| at.as_ref().is_some_and(of).then(|| id.clone());
        let sets: [(&mut BTreeSet<InstanceId>, Question); 3] = [
            (&mut self.scheduled, |at| at.scheduled),
            (&mut self.over, |at| at.over),
            (&mut self.untold, |at| at.untold),
        ];
        for (set, of) in sets {
            shift(set, member(&was, of), member(&is, of));
        }
        let place = |at: Option<Standing>, current: bool| {
            at.filter(|at| at.current == current && at.is_counted_on())
                .map(|at| (at.rank, at.age, id.clone()))
        };
        shift(&mut self.current, place(was, true), place(is, true));
        shift(&mut self.old, place(was, false), place(is, false));
        let version = |at: Option<Standing>| at.map(|at| at.version);
        shift_count(&mut self.versions, version(was), version(is));
        let away = |at: Option<Standing>| at.and_then(|at| at.away);
        self.shift_away(id, away(was), away(is));
    }

    fn shift_away(&mut self, id: &InstanceId, was: Option<Duration>, is: Option<Duration>) {
        if was == is {
            return;
        }
        if let Some(since) = was
            && let Some(ids) = self.away.get_mut(&since)
        {
            ids.remove(id);
            if ids.is_empty() {
                self.away.remove(&since);
            }
        }
        if let Some(since) = is {
            self.away.entry(since).or_default().insert(id.clone());
        }
    }

    // ---- what they are measured by

    /// What an instance was launched as, which may no longer be what the pod is.
    pub fn edition_of(&self, instance: &Instance) -> &Arc<Pod> {
        self.measure.edition_of(instance)
    }

    /// A definition that instances may still run although it is not the newest.
    pub fn keep_edition(&mut self, version: Version, pod: Arc<Pod>) {
        self.measure.editions.insert(version, pod);
    }

    /// Forgets the definitions that nothing runs any more.
    pub fn drop_editions(&mut self) {
        let (versions, newest) = (&self.versions, self.measure.version);
        self.measure
            .editions
            .retain(|version, _| *version != newest && versions.contains_key(version));
    }

    /// The pod is another one now. Only a new configuration and a new order of killing need a new count: a pod that is
    /// scaled keeps both.
    pub fn measure_by(&mut self, stored: &StoredPod) {
        let selection = |pod: &Pod| pod.scheduling.kill_selection;
        let same =
            self.measure.config == stored.config && selection(&self.measure.pod) == selection(&stored.pod);
        self.measure.pod = stored.pod.clone();
        self.measure.version = stored.version;
        self.measure.config = stored.config;
        if !same {
            self.change_all(|_| ());
        }
    }

    /// From now on those that are away since `horizon` or before are no longer counted on.
    pub fn look_back_to(&mut self, horizon: Option<Duration>) {
        let before = std::mem::replace(&mut self.measure.horizon, horizon);
        let (first, Some(last)) = (before.min(horizon), before.max(horizon)) else {
            return;
        };
        if first == Some(last) {
            return;
        }
        let between = (
            first.map_or(Bound::Unbounded, Bound::Excluded),
            Bound::Included(last),
        );
        let concerned = self.away.range(between).flat_map(|(_, ids)| ids);
        for id in concerned.cloned().collect::<Vec<_>>() {
            self.change(&id, |_| ());
        }
    }

    // ---- questions

    pub fn get(&self, id: &InstanceId) -> Option<&Instance> {
        self.instances.get(id).map(|counted| &counted.instance)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Instance> {
        self.instances.values().map(|counted| &counted.instance)
    }

    pub fn is_empty(&self) -> bool {
        self.instances.is_empty()
    }

    /// Those that wait for an offer.
    pub fn scheduled(&self) -> impl Iterator<Item = &Instance> {
        self.scheduled.iter().filter_map(|id| self.get(id))
    }

    pub fn has_scheduled(&self) -> bool {
        !self.scheduled.is_empty()
    }

    /// Who waits for an offer after this one, in the order of ids: for a walk on which they cease to wait.
    pub fn next_scheduled(&self, after: Option<&InstanceId>) -> Option<InstanceId> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.scheduled.range((after, Bound::Unbounded)).next().cloned()
    }

    /// Those of which nothing runs any more, or for whose end nobody waits.
    pub fn over(&self) -> Vec<InstanceId> {
        self.over.iter().cloned().collect()
    }

    /// Those that are to go and have not been told so.
    pub fn untold(&self) -> Vec<InstanceId> {
        self.untold.iter().cloned().collect()
    }

    /// All, when a pod that goes as a whole has still to decide on some; none, once it has.
    pub fn undecided(&self) -> Vec<InstanceId> {
        if self.tally.kept == 0 && self.scheduled.is_empty() && self.away.is_empty() {
            return Vec::new();
        }
        self.instances.keys().cloned().collect()
    }

    /// Those that are away since then or before, in the order of ids.
    pub fn away_since(&self, then: Duration) -> BTreeSet<InstanceId> {
        let long = self.away.range(..=then);
        long.flat_map(|(_, ids)| ids).cloned().collect()
    }

    /// Of those that went away after `then` the one that is away longest, and since when.
    pub fn first_away(&self, then: Option<Duration>) -> Option<(Duration, &InstanceId)> {
        let after = then.map_or(Bound::Unbounded, Bound::Excluded);
        let (since, ids) = self.away.range((after, Bound::Unbounded)).next()?;
        ids.first().map(|id| (*since, id))
    }

    pub fn on_agent(&self, agent: &str) -> usize {
        self.agents.get(agent).copied().unwrap_or(0)
    }

    pub fn census(&self, wanted: usize) -> Census {
        Census {
            wanted,
            old: self.old.len(),
            old_ready: self.tally.old_ready,
            old_alive: self.tally.old_alive,
            new: self.current.len(),
            new_ready: self.tally.new_ready,
        }
    }

    /// Instances of the present configuration that are ready, to go or not.
    pub fn current_ready(&self) -> usize {
        self.tally.current_ready
    }

    /// Just so many there are, and all serve as they should.
    pub fn is_settled(&self, wanted: usize) -> bool {
        let present = self.instances.len().saturating_sub(self.tally.inactive);
        present == wanted && present == self.tally.new_ready
    }

    /// Of the present configuration, those that go first.
    pub fn first_of_current(&self, count: usize) -> impl Iterator<Item = InstanceId> {
        self.current.iter().take(count).map(|(_, _, id)| id.clone())
    }

    /// Of older ones, those that go first.
    pub fn first_of_old(&self, count: usize) -> impl Iterator<Item = InstanceId> {
        self.old.iter().take(count).map(|(_, _, id)| id.clone())
    }
}

fn agent(instance: &Instance) -> Option<String> {
    instance.placed.as_ref().map(|placed| placed.agent.clone())
}

#[cfg(test)]
mod audit;
