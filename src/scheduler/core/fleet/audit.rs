//! The counts of a fleet, checked after every step of every test against what one finds who looks at each instance.

use super::*;

impl Fleet {
    pub fn audit(&self, stored: &StoredPod) {
        let measure = &self.measure;
        assert_eq!(
            (&measure.pod, measure.version, measure.config),
            (&stored.pod, stored.version, stored.config)
        );
        self.audit_sets();
        self.audit_census();
        self.audit_order();
    }

    fn those(&self, which: impl Fn(&Instance) -> bool) -> BTreeSet<InstanceId> {
        let those = self.iter().filter(|instance| which(instance));
        those.map(|instance| instance.id.clone()).collect()
    }

    fn is_inactive(&self, instance: &Instance) -> bool {
        let (since, horizon) = (instance.timers.unreachable, self.measure.horizon);
        since
            .zip(horizon)
            .is_some_and(|(since, horizon)| since <= horizon)
    }

    fn is_current(&self, instance: &Instance) -> bool {
        instance.config == self.measure.config
    }

    fn counts(&self, instance: &Instance) -> bool {
        instance.goal == Goal::Running && !self.is_inactive(instance)
    }

    fn audit_sets(&self) {
        assert_eq!(self.scheduled, self.those(Instance::is_scheduled));
        assert_eq!(self.over, self.those(|i| i.is_over() || i.is_given_up()));
        let untold = |i: &Instance| i.goal == Goal::Decommissioned && i.timers.killed.is_none();
        assert_eq!(self.untold, self.those(untold));
        let away: BTreeSet<InstanceId> = self.away.values().flatten().cloned().collect();
        assert_eq!(away, self.those(|i| i.condition == Condition::Unreachable));
        for (since, ids) in &self.away {
            assert!(!ids.is_empty());
            for id in ids {
                assert_eq!(self.get(id).unwrap().timers.unreachable, Some(*since));
            }
        }
        let (mut versions, mut agents) = (BTreeMap::new(), BTreeMap::new());
        for instance in self.iter() {
            *versions.entry(instance.version).or_insert(0) += 1;
            if let Some(placed) = &instance.placed {
                *agents.entry(placed.agent.clone()).or_insert(0) += 1;
            }
        }
        assert_eq!((&self.versions, &self.agents), (&versions, &agents));
    }

    fn audit_census(&self) {
        let ready = |i: &Instance| self.measure.is_ready(i);
        let number = |which: &dyn Fn(&Instance) -> bool| self.iter().filter(|i| which(i)).count();
        let expected = Census {
            wanted: 3,
            old: number(&|i| self.counts(i) && !self.is_current(i)),
            old_ready: number(&|i| self.counts(i) && !self.is_current(i) && ready(i)),
            old_alive: number(&|i| !self.is_current(i) && !i.is_scheduled()),
            new: number(&|i| self.counts(i) && self.is_current(i)),
            new_ready: number(&|i| self.counts(i) && self.is_current(i) && ready(i)),
        };
        assert_eq!(self.census(3), expected);
        assert_eq!(self.current_ready(), number(&|i| self.is_current(i) && ready(i)));
        assert_eq!(self.tally.kept, number(&|i| i.goal == Goal::Running));
        let present: Vec<&Instance> = self.iter().filter(|i| !self.is_inactive(i)).collect();
        let serves = |i: &&Instance| self.is_current(i) && i.goal == Goal::Running && ready(i);
        for wanted in [0, 1, 2, 3, present.len()] {
            let settled = present.iter().all(serves) && present.len() == wanted;
            assert_eq!(self.is_settled(wanted), settled);
        }
    }

    fn audit_order(&self) {
        let in_order = |current: bool| -> Vec<InstanceId> {
            let counts = |i: &&Instance| self.counts(i) && self.is_current(i) == current;
            let mut all: Vec<&Instance> = self.iter().filter(counts).collect();
            all.sort_by_key(|instance| {
                let at = self.measure.of(instance);
                (at.rank, at.age, instance.id.clone())
            });
            all.into_iter().map(|instance| instance.id.clone()).collect()
        };
        assert_eq!(
            self.first_of_current(usize::MAX).collect::<Vec<_>>(),
            in_order(true)
        );
        assert_eq!(self.first_of_old(usize::MAX).collect::<Vec<_>>(), in_order(false));
    }
}
