//! How a new configuration replaces an old one (mapping reference, section 19).

use super::machine::{DeploymentKind, PodState};
use crate::pod::model::Upgrade;

/// The instances of a pod, by configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Census {
    /// How many there should be.
    pub wanted: usize,
    /// Of an older configuration, and not yet told to go.
    pub old: usize,
    /// Of these, ready to serve.
    pub old_ready: usize,
    /// Older ones that still hold their place, told to go or not.
    pub old_alive: usize,
    /// Of the present configuration, in whatever state.
    pub new: usize,
    pub new_ready: usize,
}

/// What may happen now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Moves {
    pub kill_old: usize,
    pub start_new: usize,
}

/// Never fewer ready than the minimum through our own doing, never more alive than the maximum.
pub(super) fn plan(census: Census, upgrade: Upgrade) -> Moves {
    let wanted = census.wanted as f64;
    let minimum = (wanted * upgrade.minimum_health_capacity).ceil() as usize;
    let mut maximum = (wanted * (1.0 + upgrade.maximum_over_capacity)).floor() as usize;
    let ready = census.old_ready + census.new_ready;
    // No room to go up and none to go down: one instance more breaks the tie.
    if minimum == maximum && maximum <= ready {
        maximum += 1;
    }
    // Those that are not ready serve nobody: they may always go.
    let unready = census.old - census.old_ready.min(census.old);
    let spare = ready.saturating_sub(minimum).min(census.old_ready);
    let alive = census.old_alive + census.new;
    Moves {
        kill_old: (unready + spare).min(census.old),
        start_new: census
            .wanted
            .saturating_sub(census.new)
            .min(maximum.saturating_sub(alive)),
    }
}

/// How far the replacement of an older configuration has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Instances of the new configuration that are ready.
    pub done: usize,
    pub wanted: usize,
    /// Why it does not get further, if it does not.
    pub stuck: Option<String>,
}

impl PodState {
    /// None while nothing is replaced.
    pub fn progress(&self) -> Option<Progress> {
        let rolling = self
            .stored
            .deployment
            .is_some_and(|deployment| deployment.kind == DeploymentKind::Restart);
        rolling.then(|| Progress {
            done: self.fleet.current_ready(),
            wanted: self.stored.pod.scaling.instances as usize,
            stuck: self.stuck(),
        })
    }

    /// Why the running deployment makes no progress: what it launched has failed, or nothing that is offered fits.
    pub fn stuck(&self) -> Option<String> {
        self.stored.deployment?;
        let failed = self.last_failure.as_ref().filter(|failed| {
            // What failed before belongs to what this deployment is to replace.
            failed.config == self.stored.config && self.backoff.is_active()
        });
        if let Some(failed) = failed {
            let why = failed
                .words()
                .unwrap_or_else(|| format!("{:?}", failed.condition));
            return Some(why);
        }
        let waits = self.offers.fruitless && self.fleet.has_scheduled();
        let unfit = self.offers.latest.back().filter(|_| waits)?;
        Some(format!("no offer fits, {}: {}", unfit.host, unfit.why()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Plays a rollout to its end: every started instance becomes ready, every killed one goes, one at a time.
    fn play(wanted: usize, old: usize, upgrade: Upgrade) -> (usize, usize) {
        let (mut old_ready, mut dying, mut fresh, mut new_ready) = (old, 0, 0, 0);
        let (mut least, mut most) = (usize::MAX, 0);
        for _ in 0..10_000 {
            let census = Census {
                wanted,
                old: old_ready,
                old_ready,
                old_alive: old_ready + dying,
                new: fresh + new_ready,
                new_ready,
            };
            let moves = plan(census, upgrade);
            old_ready -= moves.kill_old;
            dying += moves.kill_old;
            fresh += moves.start_new;
            least = least.min(old_ready + new_ready);
            most = most.max(old_ready + dying + fresh + new_ready);
            if dying > 0 {
                dying -= 1;
            } else if fresh > 0 {
                fresh -= 1;
                new_ready += 1;
            } else if old_ready == 0 && new_ready == wanted {
                return (least, most);
            } else {
                panic!("stuck at {census:?} with {upgrade:?}");
            }
        }
        panic!("no end");
    }

    proptest! {
        #[test]
        fn r8_a_rollout_ends_and_keeps_both_bounds(
            wanted in 0usize..12, old in 0usize..12, minimum in 0.0..=1.0, over in 0.0..=1.0
        ) {
            let upgrade = Upgrade { minimum_health_capacity: minimum, maximum_over_capacity: over };
            let (least, most) = play(wanted, old, upgrade);
            let floor = (wanted as f64 * minimum).ceil() as usize;
            let ceiling = (wanted as f64 * (1.0 + over)).floor() as usize;
            prop_assert!(least >= floor.min(old));
            prop_assert!(most <= old.max(ceiling + 1));
        }
    }

    #[test]
    fn the_default_doubles_and_then_drops() {
        let upgrade = Upgrade {
            minimum_health_capacity: 1.0,
            maximum_over_capacity: 1.0,
        };
        let start = Census {
            wanted: 3,
            old: 3,
            old_ready: 3,
            old_alive: 3,
            new: 0,
            new_ready: 0,
        };
        assert_eq!(
            plan(start, upgrade),
            Moves {
                kill_old: 0,
                start_new: 3
            }
        );
        let ready = Census {
            new: 3,
            new_ready: 3,
            ..start
        };
        assert_eq!(
            plan(ready, upgrade),
            Moves {
                kill_old: 3,
                start_new: 0
            }
        );
    }

    #[test]
    fn without_room_either_way_one_more_is_started() {
        let upgrade = Upgrade {
            minimum_health_capacity: 1.0,
            maximum_over_capacity: 0.0,
        };
        let start = Census {
            wanted: 2,
            old: 2,
            old_ready: 2,
            old_alive: 2,
            new: 0,
            new_ready: 0,
        };
        assert_eq!(
            plan(start, upgrade),
            Moves {
                kill_old: 0,
                start_new: 1
            }
        );
    }
}
