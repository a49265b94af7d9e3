//! When to check a member, and what a result means: delay, interval, time-out, grace and the count of failures.
//!
//! A [`Pace`] says when, a [`Health`] what the results come to. [`watch`](super::watch) keeps one of each for every
//! check.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::probe::Outcome;
use crate::mesos::v1::{CheckInfo, HealthCheck};

/// An interval of zero means back to back, but never a spinning loop (H-24).
const LEAST_INTERVAL: Duration = Duration::from_millis(10);

/// Between the first probes of two checks that begin together.
const SPREAD: Duration = Duration::from_micros(500);
const MOST_SPREAD: Duration = Duration::from_secs(1);

/// When probes begin and end. The same for both kinds of check (H-02, H-03, C-01).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Pace {
    delay: Duration,
    interval: Duration,
    timeout: Option<Duration>,
}

impl Pace {
    pub fn of_check(check: &CheckInfo) -> Pace {
        Pace::new(
            check.delay_seconds(),
            check.interval_seconds(),
            check.timeout_seconds(),
        )
    }

    pub fn of_health_check(check: &HealthCheck) -> Pace {
        Pace::new(
            check.delay_seconds(),
            check.interval_seconds(),
            check.timeout_seconds(),
        )
    }

    pub fn new(delay: f64, interval: f64, timeout: f64) -> Pace {
        Pace {
            delay: seconds(delay),
            interval: seconds(interval).max(LEAST_INTERVAL),
            timeout: Some(seconds(timeout)).filter(|t| !t.is_zero()),
        }
    }

    /// When the first probe begins. Checks that begin together are spread: each waits a little longer than the one
    /// before it, but never more than a tenth of its interval. `place`: how many checks there are already.
    pub fn first(&self, started: Duration, place: usize) -> Duration {
        let room = (self.interval / 10).min(MOST_SPREAD).as_micros().max(1);
        let spread = (place as u128 * SPREAD.as_micros()) % room;
        let spread = Duration::from_micros(u64::try_from(spread).unwrap_or(0));
        started.saturating_add(self.delay).saturating_add(spread)
    }

    /// When the next probe begins: the interval counts from the end of the last one, so slow probes never overlap.
    pub fn after(&self, finished: Duration) -> Duration {
        finished.saturating_add(self.interval)
    }

    /// How long a probe may take; `None` means as long as it likes.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout
    }
}

/// The judgement of one health check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// Failures up to here do not count until the first success (H-04).
    grace_until: Option<Duration>,
    /// This many failures in a row are too many; zero means the first is (H-06).
    too_many: u32,
    failures: u32,
    succeeded: bool,
}

/// What is to be told of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    pub healthy: bool,
    /// The sentence about the result, and which failure of how many it is.
    pub message: String,
    pub too_many: bool,
}

impl Health {
    pub fn new(grace: f64, too_many: u32, started: Duration) -> Health {
        // The grace contains the delay; none means none, even for a failure at this very moment.
        let grace = Some(seconds(grace)).filter(|g| !g.is_zero());
        Health {
            grace_until: grace.map(|grace| started.saturating_add(grace)),
            too_many,
            failures: 0,
            succeeded: false,
        }
    }

    /// Its last result was good.
    pub fn is_good(&self) -> bool {
        self.succeeded && self.failures == 0
    }

    /// What is to be told of a result, if anything. `sentence` says what was seen.
    pub fn judge(&mut self, now: Duration, outcome: Outcome, sentence: &str) -> Option<News> {
        match outcome {
            Outcome::Good => {
                let news = !self.is_good();
                self.succeeded = true;
                self.failures = 0;
                news.then(|| News {
                    healthy: true,
                    message: sentence.to_owned(),
                    too_many: false,
                })
            }
            Outcome::Bad if !self.succeeded && self.grace_until.is_some_and(|until| now <= until) => None,
            Outcome::Bad => {
                self.failures = self.failures.saturating_add(1);
                let (nth, many) = (ordinal(self.failures), self.too_many.max(1));
                let failures = if many == 1 { "failure" } else { "failures" };
                Some(News {
                    healthy: false,
                    message: format!("{sentence}, {nth} of {many} {failures}"),
                    too_many: self.failures >= self.too_many,
                })
            }
            Outcome::Unknown => None,
        }
    }
}

fn ordinal(number: u32) -> String {
    let ending = match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

/// Validation has refused what is negative or not finite; here it just does no harm.
fn seconds(seconds: f64) -> Duration {
    match seconds {
        s if s <= 0.0 || s.is_nan() => Duration::ZERO,
        s => Duration::try_from_secs_f64(s).unwrap_or(Duration::MAX),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// For results at one second each: `+` told healthy, `-` told unhealthy, `!` too many, `.` nothing.
    fn told(health: &mut Health, from: u64, results: &str) -> String {
        let mut words = Vec::new();
        for (n, result) in (from..).zip(results.chars()) {
            words.push(match health.judge(at(n), outcome(result), "x") {
                None => ".",
                Some(News { healthy: true, .. }) => "+",
                Some(News { too_many: true, .. }) => "-!",
                Some(_) => "-",
            });
        }
        words.join(" ")
    }

    fn outcome(letter: char) -> Outcome {
        match letter {
            'g' => Outcome::Good,
            'b' => Outcome::Bad,
            _ => Outcome::Unknown,
        }
    }

    #[test]
    fn h_01_defaults() {
        let check = HealthCheck::default();
        let pace = Pace::of_health_check(&check);
        assert_eq!(pace.first(at(100), 0), at(115));
        assert_eq!(pace.after(at(100)), at(110));
        assert_eq!(pace.timeout(), Some(at(20)));
        let health = Health::new(
            check.grace_period_seconds(),
            check.consecutive_failures(),
            at(100),
        );
        assert_eq!((health.grace_until, health.too_many), (Some(at(110)), 3));
    }

    #[test]
    fn c_01_defaults() {
        let pace = Pace::of_check(&CheckInfo::default());
        assert_eq!((pace.first(at(0), 0), pace.after(at(0))), (at(15), at(10)));
        assert_eq!(pace.timeout(), Some(at(20)));
    }

    #[test]
    fn h_03_a_timeout_of_zero_means_none() {
        assert_eq!(Pace::new(0.0, 1.0, 0.0).timeout(), None);
    }

    #[test]
    fn h_24_fractions_and_zero_work() {
        let pace = Pace::new(0.25, 0.0, 0.001);
        assert_eq!(pace.first(at(1), 0), Duration::from_millis(1250));
        assert_eq!(pace.after(at(1)), at(1) + LEAST_INTERVAL);
        assert_eq!(pace.timeout(), Some(Duration::from_millis(1)));
        for odd in [
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            -1.0,
            1e300,
            f64::MIN_POSITIVE,
        ] {
            let pace = Pace::new(odd, odd, odd);
            assert!(pace.after(at(1)) > at(1) && pace.first(at(1), usize::MAX) >= at(1));
        }
    }

    #[test]
    fn ten_thousand_checks_that_begin_together_do_not_fire_together() {
        let pace = Pace::new(0.0, 10.0, 1.0);
        let mut each_ms = std::collections::BTreeMap::new();
        for place in 0..10_000 {
            let first = pace.first(at(0), place);
            assert!(first < at(1), "never more than a tenth of the interval");
            *each_ms.entry(first.as_millis()).or_insert(0) += 1;
        }
        assert!(each_ms.values().all(|count| *count <= 10), "{each_ms:?}");
        let quick = Pace::new(0.0, 0.05, 1.0);
        assert!((0..1000).all(|place| quick.first(at(0), place) < Duration::from_millis(5)));
    }

    #[test]
    fn h_04_failures_inside_the_grace_do_not_count() {
        // Grace until second 10, that one included.
        let mut health = Health::new(10.0, 2, at(0));
        assert_eq!(told(&mut health, 8, "bbbbb"), ". . . - -!");
    }

    #[test]
    fn h_04_after_the_first_success_they_do() {
        let mut health = Health::new(10.0, 2, at(0));
        assert_eq!(told(&mut health, 1, "bgbb"), ". + - -!");
    }

    #[test]
    fn h_04_no_grace_means_none() {
        let mut health = Health::new(0.0, 2, at(5));
        assert_eq!(told(&mut health, 5, "b"), "-");
    }

    #[test]
    fn h_05_h_07_every_failure_and_every_change_for_the_better() {
        let mut health = Health::new(0.0, 3, at(0));
        assert_eq!(told(&mut health, 0, "ggbbggbg"), "+ . - - + . - +");
    }

    #[test]
    fn h_06_too_many_is_the_number_asked_for() {
        for (too_many, expected) in [(0, "-!"), (1, "-!"), (2, "- -!"), (3, "- - -!")] {
            let mut health = Health::new(0.0, too_many, at(0));
            assert_eq!(
                told(&mut health, 0, &"b".repeat(too_many.max(1) as usize)),
                expected
            );
        }
    }

    #[test]
    fn h_18_what_we_could_not_try_does_not_count() {
        let mut health = Health::new(0.0, 2, at(0));
        assert_eq!(told(&mut health, 0, "b??b"), "- . . -!");
    }

    #[test]
    fn g_06_the_message_names_check_count_and_what_was_seen() {
        let mut health = Health::new(0.0, 2, at(0));
        let seen = "GET /up on port 80 → 503 after 3 ms";
        health.judge(at(0), Outcome::Bad, seen);
        let news = health.judge(at(1), Outcome::Bad, seen).unwrap();
        assert!(news.too_many);
        assert_eq!(
            news.message,
            "GET /up on port 80 → 503 after 3 ms, 2nd of 2 failures"
        );
        let news = Health::new(0.0, 0, at(0))
            .judge(at(0), Outcome::Bad, "x")
            .unwrap();
        assert_eq!(news.message, "x, 1st of 1 failure");
        for (number, word) in [(3, "3rd"), (4, "4th"), (11, "11th"), (22, "22nd"), (113, "113th")] {
            assert_eq!(ordinal(number), word);
        }
    }

    proptest! {
        /// Against an oracle that only looks back: too many comes with the n-th failure in a row that counts.
        #[test]
        fn l6_verdicts_follow_the_window(grace in 0u32..20, too_many in 0u32..5, results in "[gb?]{0,40}") {
            let mut health = Health::new(grace.into(), too_many, at(0));
            let results: Vec<char> = results.chars().collect();
            for (n, result) in results.iter().enumerate() {
                let news = health.judge(at(n as u64), outcome(*result), "x");
                let good_before = |i: usize| results[..i].contains(&'g');
                let counts = |i: usize| results[i] == 'b' && (good_before(i) || grace == 0 || i as u32 > grace);
                let row = |end: usize| {
                    let streak = (0..end).rev().take_while(|i| results[*i] != 'g');
                    streak.filter(|i| counts(*i)).count() as u32
                };
                let fatal = news.as_ref().is_some_and(|news| news.too_many);
                prop_assert_eq!(fatal, counts(n) && row(n + 1) >= too_many.max(1));
                prop_assert_eq!(news.as_ref().is_some_and(|news| !news.healthy), counts(n));
                let better = news.is_some_and(|news| news.healthy);
                prop_assert_eq!(better, *result == 'g' && (!good_before(n) || row(n) > 0));
            }
        }
    }
}
