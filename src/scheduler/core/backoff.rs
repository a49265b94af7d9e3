//! How long a pod that keeps failing has to wait.

use std::time::Duration;

use crate::pod::model;

/// One delay for all instances of a configuration (mapping reference, section 17).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Backoff {
    /// `None`: nothing has failed lately.
    current: Option<Current>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Current {
    delay: Duration,
    since: Duration,
    /// When it became so long.
    grown: Duration,
}

fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or(Duration::MAX)
}

impl Backoff {
    /// An instance failed: the first time the delay is the plain one, then it grows, once for each round of launches.
    /// What fails while the delay runs was launched before it began: a node that goes down takes fifty instances with
    /// it and is one failure.
    pub fn failed(&mut self, now: Duration, policy: &model::Backoff) {
        let most = seconds(policy.max_launch_delay);
        let delay = match self.current {
            None => seconds(policy.backoff),
            Some(current) if now < current.grown.saturating_add(current.delay) => return,
            Some(current) => seconds(current.delay.as_secs_f64() * policy.backoff_factor),
        };
        self.current = Some(Current {
            delay: delay.min(most),
            since: now,
            grown: now,
        });
    }

    /// Something has failed lately.
    pub fn is_active(&self) -> bool {
        self.current.is_some()
    }

    /// An instance came a step further: the delay keeps its size and starts anew.
    pub fn progressed(&mut self, now: Duration) {
        if let Some(current) = &mut self.current {
            current.since = now;
        }
    }

    /// As it was stored, from `now`.
    pub fn restore(delay: Option<Duration>, now: Duration) -> Self {
        Backoff {
            current: delay.map(|delay| Current {
                delay,
                since: now,
                grown: now,
            }),
        }
    }

    /// What is stored of it.
    pub fn delay(&self) -> Option<Duration> {
        self.current.map(|current| current.delay)
    }

    pub fn reset(&mut self) {
        self.current = None;
    }

    /// Forgets a delay that is long over; true if there was one.
    pub fn expire(&mut self, now: Duration, policy: &model::Backoff) -> bool {
        let most = seconds(policy.max_launch_delay);
        let over = self
            .current
            .is_some_and(|current| current.since.saturating_add(most) <= now);
        if over {
            self.current = None;
        }
        over
    }

    /// The time before which nothing is launched.
    pub fn until(&self) -> Option<Duration> {
        self.current
            .map(|current| current.since.saturating_add(current.delay))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: model::Backoff = model::Backoff {
        backoff: 1.0,
        backoff_factor: 2.0,
        max_launch_delay: 5.0,
    };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_delay_grows_up_to_its_bound_and_is_forgotten_after_it() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.until(), None);
        for (now, until) in [(0, 1), (10, 12), (20, 24), (30, 35), (40, 45)] {
            backoff.failed(at(now), &POLICY);
            assert_eq!(backoff.until(), Some(at(until)));
        }
        backoff.progressed(at(42));
        assert_eq!(backoff.until(), Some(at(47)));
        backoff.expire(at(46), &POLICY);
        assert!(backoff.until().is_some());
        backoff.expire(at(47), &POLICY);
        assert_eq!(backoff.until(), None);
    }

    #[test]
    fn instances_that_fail_together_are_one_failure() {
        let mut backoff = Backoff::default();
        for _ in 0..50 {
            backoff.failed(at(100), &POLICY);
        }
        assert_eq!(backoff.until(), Some(at(101)));
        // Told late, but launched before the delay began.
        backoff.failed(at(100) + Duration::from_millis(999), &POLICY);
        assert_eq!(backoff.until(), Some(at(101)));
        // The next round, on its way up when it fails.
        backoff.progressed(at(101));
        backoff.failed(at(101), &POLICY);
        assert_eq!(backoff.until(), Some(at(103)));
    }

    #[test]
    fn absurd_policies_do_not_overflow() {
        let policy = model::Backoff {
            backoff: 1e9,
            backoff_factor: 1e9,
            max_launch_delay: 1e9,
        };
        let mut backoff = Backoff::default();
        for _ in 0..100 {
            backoff.failed(Duration::MAX, &policy);
        }
        assert_eq!(backoff.until(), Some(Duration::MAX));
    }
}
