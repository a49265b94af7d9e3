//! When to check a member, and what a result means: delay, interval, time-out, grace and the count of failures.
//!
//! A [`Pace`] says when; a [`Health`] turns results into the [`Event`]s that the machine understands. Whoever probes
//! keeps one of each per check, from the start of the member to the moment it is told to end:
//!
//! ```text
//! wait until pace.first(started) ─▶ probe, at most pace.timeout() ─▶ judge ─▶ wait until pace.after(finished) ─▶ …
//! ```

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Event, MemberId};
use crate::mesos::v1::{CheckInfo, HealthCheck, health_check};

/// An interval of zero means back to back, but never a spinning loop (H-24).
const LEAST_INTERVAL: Duration = Duration::from_millis(10);

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

    fn new(delay: f64, interval: f64, timeout: f64) -> Pace {
        Pace {
            delay: seconds(delay),
            interval: seconds(interval).max(LEAST_INTERVAL),
            timeout: Some(seconds(timeout)).filter(|t| !t.is_zero()),
        }
    }

    /// When the first probe begins.
    pub fn first(&self, started: Duration) -> Duration {
        started.saturating_add(self.delay)
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

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Good,
    /// It failed, or took too long; says how.
    Bad(String),
    /// We could not even try. Not the member's fault, so it does not count (H-18).
    Unknown,
}

/// The judgement of one health check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// Names the check to people.
    what: String,
    /// Failures up to here do not count until the first success (H-04).
    grace_until: Option<Duration>,
    /// This many failures in a row are too many; zero means the first is (H-06).
    too_many: u32,
    failures: u32,
    succeeded: bool,
}

impl Health {
    pub fn new(check: &HealthCheck, started: Duration) -> Health {
        // The grace contains the delay; none means none, even for a failure at this very moment.
        let grace = Some(seconds(check.grace_period_seconds())).filter(|g| !g.is_zero());
        Health {
            what: describe(check),
            grace_until: grace.map(|grace| started.saturating_add(grace)),
            too_many: check.consecutive_failures(),
            failures: 0,
            succeeded: false,
        }
    }

    /// What the machine has to know of a result, in this order.
    pub fn judge(&mut self, member: MemberId, now: Duration, outcome: Outcome) -> Vec<Event> {
        match outcome {
            Outcome::Good => {
                let news = !self.succeeded || self.failures > 0;
                self.succeeded = true;
                self.failures = 0;
                let healthy = Event::Health {
                    member,
                    healthy: true,
                    message: Some(format!("{} succeeded", self.what)),
                };
                news.then_some(healthy).into_iter().collect()
            }
            Outcome::Bad(_) if !self.succeeded && self.grace_until.is_some_and(|until| now <= until) => {
                Vec::new()
            }
            Outcome::Bad(how) => {
                self.failures = self.failures.saturating_add(1);
                let times = match self.failures {
                    1 => "once".into(),
                    n => format!("{n} times in a row"),
                };
                let message = format!("{} failed {times}, last: {how}", self.what);
                let mut events = vec![Event::Health {
                    member,
                    healthy: false,
                    message: Some(message.clone()),
                }];
                if self.failures >= self.too_many {
                    events.push(Event::Unhealthy { member, message });
                }
                events
            }
            Outcome::Unknown => Vec::new(),
        }
    }
}

/// Validation has refused what is negative or not finite; here it just does no harm.
fn seconds(seconds: f64) -> Duration {
    match seconds {
        s if s <= 0.0 || s.is_nan() => Duration::ZERO,
        s => Duration::try_from_secs_f64(s).unwrap_or(Duration::MAX),
    }
}

fn describe(check: &HealthCheck) -> String {
    let http = check.http.as_ref();
    match check.r#type() {
        health_check::Type::Command => "command health check".into(),
        health_check::Type::Http => {
            let scheme = http.and_then(|h| h.scheme.as_deref()).unwrap_or("http");
            let port = http.map_or(0, |h| h.port);
            let path = http.and_then(|h| h.path.as_deref()).unwrap_or("/");
            format!("health check {scheme}://:{port}{path}")
        }
        health_check::Type::Tcp => format!("health check of TCP port {}", check.tcp.map_or(0, |t| t.port)),
        health_check::Type::Unknown => "health check".into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MEMBER: MemberId = MemberId(4);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn check(grace: f64, too_many: u32) -> HealthCheck {
        HealthCheck {
            r#type: Some(health_check::Type::Http.into()),
            http: Some(health_check::HttpCheckInfo {
                port: 8080,
                path: Some("/up".into()),
                ..Default::default()
            }),
            grace_period_seconds: Some(grace),
            consecutive_failures: Some(too_many),
            ..Default::default()
        }
    }

    /// For results at one second each: `+` told healthy, `-` told unhealthy, `!` too many, `.` nothing.
    fn told(health: &mut Health, from: u64, results: &str) -> String {
        let mut words = Vec::new();
        for (n, result) in (from..).zip(results.chars()) {
            let outcome = match result {
                'g' => Outcome::Good,
                'b' => Outcome::Bad("refused".into()),
                _ => Outcome::Unknown,
            };
            let events = health.judge(MEMBER, at(n), outcome);
            let letters = events.iter().map(|event| match event {
                Event::Health { healthy: true, .. } => '+',
                Event::Health { .. } => '-',
                _ => '!',
            });
            let word: String = letters.collect();
            words.push(if word.is_empty() { ".".into() } else { word });
        }
        words.join(" ")
    }

    #[test]
    fn h_01_defaults() {
        let check = HealthCheck::default();
        let pace = Pace::of_health_check(&check);
        assert_eq!(pace.first(at(100)), at(115));
        assert_eq!(pace.after(at(100)), at(110));
        assert_eq!(pace.timeout(), Some(at(20)));
        let health = Health::new(&check, at(100));
        assert_eq!((health.grace_until, health.too_many), (Some(at(110)), 3));
    }

    #[test]
    fn c_01_defaults() {
        let pace = Pace::of_check(&CheckInfo::default());
        assert_eq!((pace.first(at(0)), pace.after(at(0))), (at(15), at(10)));
        assert_eq!(pace.timeout(), Some(at(20)));
    }

    #[test]
    fn h_03_a_timeout_of_zero_means_none() {
        assert_eq!(Pace::new(0.0, 1.0, 0.0).timeout(), None);
    }

    #[test]
    fn h_24_fractions_and_zero_work() {
        let pace = Pace::new(0.25, 0.0, 0.001);
        assert_eq!(pace.first(at(1)), Duration::from_millis(1250));
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
            assert!(pace.after(at(1)) > at(1) && pace.first(at(1)) >= at(1));
        }
    }

    #[test]
    fn h_04_failures_inside_the_grace_do_not_count() {
        // Grace until second 10, that one included.
        let mut health = Health::new(&check(10.0, 2), at(0));
        assert_eq!(told(&mut health, 8, "bbbbb"), ". . . - -!");
    }

    #[test]
    fn h_04_after_the_first_success_they_do() {
        let mut health = Health::new(&check(10.0, 2), at(0));
        assert_eq!(told(&mut health, 1, "bgbb"), ". + - -!");
    }

    #[test]
    fn h_04_no_grace_means_none() {
        let mut health = Health::new(&check(0.0, 2), at(5));
        assert_eq!(told(&mut health, 5, "b"), "-");
    }

    #[test]
    fn h_05_h_07_every_failure_and_every_change_for_the_better() {
        let mut health = Health::new(&check(0.0, 3), at(0));
        assert_eq!(told(&mut health, 0, "ggbbggbg"), "+ . - - + . - +");
    }

    #[test]
    fn h_06_too_many_is_the_number_asked_for() {
        for (too_many, expected) in [(0, "-!"), (1, "-!"), (2, "- -!"), (3, "- - -!")] {
            let mut health = Health::new(&check(0.0, too_many), at(0));
            assert_eq!(
                told(&mut health, 0, &"b".repeat(too_many.max(1) as usize)),
                expected
            );
        }
    }

    #[test]
    fn h_18_what_we_could_not_try_does_not_count() {
        let mut health = Health::new(&check(0.0, 2), at(0));
        assert_eq!(told(&mut health, 0, "b??b"), "- . . -!");
    }

    #[test]
    fn g_06_the_message_names_check_count_and_last_error() {
        let mut health = Health::new(&check(0.0, 2), at(0));
        health.judge(MEMBER, at(0), Outcome::Bad("503".into()));
        let events = health.judge(MEMBER, at(1), Outcome::Bad("connection refused".into()));
        let Some(Event::Unhealthy { member, message }) = events.last() else {
            panic!("{events:?}")
        };
        assert_eq!(*member, MEMBER);
        assert_eq!(
            message,
            "health check http://:8080/up failed 2 times in a row, last: connection refused"
        );
    }

    proptest! {
        /// Against an oracle that only looks back: too many comes with the n-th failure in a row that counts.
        #[test]
        fn l6_verdicts_follow_the_window(grace in 0u32..20, too_many in 0u32..5, results in "[gb?]{0,40}") {
            let mut health = Health::new(&check(grace.into(), too_many), at(0));
            let results: Vec<char> = results.chars().collect();
            for (n, result) in results.iter().enumerate() {
                let outcome = match result {
                    'g' => Outcome::Good,
                    'b' => Outcome::Bad(String::new()),
                    _ => Outcome::Unknown,
                };
                let events = health.judge(MEMBER, at(n as u64), outcome);
                let good_before = |i: usize| results[..i].contains(&'g');
                let counts = |i: usize| results[i] == 'b' && (good_before(i) || grace == 0 || i as u32 > grace);
                let row = |end: usize| {
                    let streak = (0..end).rev().take_while(|i| results[*i] != 'g');
                    streak.filter(|i| counts(*i)).count() as u32
                };
                let any = |wanted: fn(&Event) -> bool| events.iter().any(wanted);
                let fatal = any(|e| matches!(e, Event::Unhealthy { .. }));
                prop_assert_eq!(fatal, counts(n) && row(n + 1) >= too_many.max(1));
                let worse = any(|e| matches!(e, Event::Health { healthy: false, .. }));
                prop_assert_eq!(worse, counts(n));
                let better = any(|e| matches!(e, Event::Health { healthy: true, .. }));
                prop_assert_eq!(better, *result == 'g' && (!good_before(n) || row(n) > 0));
            }
        }
    }
}
