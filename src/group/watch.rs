//! The checks of one member: which there are, when each is due, and what follows from what it saw.
//!
//! Pure like the rest. Whoever probes keeps a [`Watch`] from the start of the member to the first sign of its end:
//!
//! ```text
//! wait until first(n) ─▶ probe(n), at most timeout(n) ─▶ seen(n) ─▶ events ─▶ wait until next(n) ─▶ …
//! ```

use std::{sync::Arc, time::Duration};

use super::{
    Event, MemberId,
    extra_checks::{ExtraCheck, Kind},
    member::no_result,
    probe::{Outcome, Probe, Seen, Sight},
    window::{Health, Pace},
};
use crate::mesos::v1::{CheckStatusInfo, TaskInfo, check_info, check_status_info};

#[derive(Debug, Clone)]
pub struct Watch {
    member: MemberId,
    started: Duration,
    checks: Vec<Check>,
    /// Checks of kind startup that have not succeeded yet; until then the others wait.
    starting: usize,
}

#[derive(Debug, Clone)]
struct Check {
    probe: Arc<Probe>,
    pace: Pace,
    /// Prefix of its sentences.
    name: String,
    meaning: Meaning,
}

/// What results are for.
#[derive(Debug, Clone)]
enum Meaning {
    /// Too many failures end the member.
    Health {
        grace: f64,
        too_many: u32,
        health: Health,
    },
    /// Told, and nothing else (C-01). With the last result that was told.
    General(Box<CheckStatusInfo>),
    /// Told as readiness; `status` is the result for Mesos' own field, if that is free.
    Readiness {
        health: Health,
        told: Option<bool>,
        status: Option<Box<CheckStatusInfo>>,
    },
    /// Until it succeeds nobody else looks.
    Startup { health: Health, passed: bool },
}

impl Watch {
    /// What a task asks for, and what its scheduler asks for beyond that; `None` if that is nothing.
    pub fn of(member: MemberId, task: &TaskInfo, extra: &[ExtraCheck], started: Duration) -> Option<Watch> {
        let health = task.health_check.as_ref().and_then(|check| {
            Some(Check {
                probe: Arc::new(Probe::of_health_check(check)?),
                pace: Pace::of_health_check(check),
                name: String::new(),
                meaning: Meaning::health(
                    check.grace_period_seconds(),
                    check.consecutive_failures(),
                    started,
                ),
            })
        });
        let general = task.check.as_ref().and_then(|check| {
            Some(Check {
                probe: Arc::new(Probe::of_check(check)?),
                pace: Pace::of_check(check),
                name: String::new(),
                meaning: Meaning::General(Box::new(no_result(check))),
            })
        });
        let mut field_is_free = task.check.is_none();
        let extra = extra.iter().filter_map(|check| {
            let probe = check.probe()?;
            let status = match check.kind {
                Kind::Readiness if std::mem::take(&mut field_is_free) => Some(Box::new(typed(&probe))),
                _ => None,
            };
            Some(Check {
                probe: Arc::new(probe),
                pace: Pace::new(check.delay_seconds, check.interval_seconds, check.timeout_seconds),
                name: check.title(),
                meaning: Meaning::of(check, status, started),
            })
        });
        let checks: Vec<Check> = health.into_iter().chain(general).chain(extra).collect();
        let startup = |check: &&Check| matches!(check.meaning, Meaning::Startup { .. });
        (!checks.is_empty()).then(|| Watch {
            member,
            started,
            starting: checks.iter().filter(startup).count(),
            checks,
        })
    }

    /// How many checks there are; they go by their numbers from zero.
    pub fn count(&self) -> usize {
        self.checks.len()
    }

    pub fn probe(&self, number: usize) -> Option<Arc<Probe>> {
        self.checks.get(number).map(|check| check.probe.clone())
    }

    pub fn timeout(&self, number: usize) -> Option<Duration> {
        self.checks.get(number).and_then(|check| check.pace.timeout())
    }

    /// When the first look is due; not known as long as a check of kind startup has not succeeded. `place`: how many
    /// checks of others there are already.
    pub fn first(&self, number: usize, place: usize) -> Option<Duration> {
        let check = self.checks.get(number)?;
        let waits = self.starting > 0 && !matches!(check.meaning, Meaning::Startup { .. });
        (!waits).then(|| check.pace.first(self.started, place))
    }

    /// When the next look is due after one that has ended; never after a start that has succeeded.
    pub fn next(&self, number: usize, finished: Duration) -> Option<Duration> {
        let check = self.checks.get(number)?;
        let over = matches!(check.meaning, Meaning::Startup { passed: true, .. });
        (!over).then(|| check.pace.after(finished))
    }

    /// What follows from a look, in this order.
    pub fn seen(&mut self, number: usize, now: Duration, seen: &Seen) -> Vec<Event> {
        let member = self.member;
        let Some(check) = self.checks.get_mut(number) else {
            return Vec::new();
        };
        let outcome = check.probe.judge(&seen.sight);
        let sentence = || format!("{}{}", check.name, check.probe.sentence(seen));
        match &mut check.meaning {
            Meaning::Health { health, .. } => {
                let Some(news) = health.judge(now, outcome, &sentence()) else {
                    return Vec::new();
                };
                // Well is who is well in every way.
                if news.healthy && !self.all_well() {
                    return Vec::new();
                }
                let mut events = vec![Event::Health {
                    member,
                    healthy: news.healthy,
                    message: Some(news.message.clone()),
                }];
                if news.too_many {
                    let message = news.message;
                    events.push(Event::Unhealthy { member, message });
                }
                events
            }
            Meaning::General(last) => match result(last, outcome, seen) {
                Some(status) if status != **last => {
                    let message = Some(sentence());
                    **last = status;
                    vec![Event::Check {
                        member,
                        status,
                        message,
                    }]
                }
                _ => Vec::new(),
            },
            Meaning::Readiness { health, told, status } => {
                let ready = match health.judge(now, outcome, &sentence()) {
                    Some(news) if news.healthy => (true, news.message),
                    // Once it was never ready, one failure says so; later only too many do.
                    Some(news) if news.too_many || told.is_none() => (false, news.message),
                    _ => return Vec::new(),
                };
                if told.replace(ready.0) == Some(ready.0) {
                    return Vec::new();
                }
                let status = status.as_mut().and_then(|last| {
                    **last = result(last, outcome, seen)?;
                    Some(**last)
                });
                vec![Event::Ready {
                    member,
                    ready: ready.0,
                    status,
                    message: Some(ready.1),
                }]
            }
            Meaning::Startup { health, passed } => {
                let news = health.judge(now, outcome, &sentence());
                if health.is_good() && !std::mem::replace(passed, true) {
                    self.started(now);
                }
                match news {
                    Some(news) if news.too_many => vec![Event::Unhealthy {
                        member,
                        message: news.message,
                    }],
                    _ => Vec::new(),
                }
            }
        }
    }

    /// One start has succeeded; after the last, the time of all others begins.
    fn started(&mut self, now: Duration) {
        self.starting = self.starting.saturating_sub(1);
        if self.starting == 0 {
            self.started = now;
            for check in &mut self.checks {
                if let Meaning::Health {
                    grace,
                    too_many,
                    health,
                } = &mut check.meaning
                {
                    *health = Health::new(*grace, *too_many, now);
                }
            }
        }
    }

    fn all_well(&self) -> bool {
        self.checks.iter().all(|check| match &check.meaning {
            Meaning::Health { health, .. } => health.is_good(),
            _ => true,
        })
    }
}

impl Meaning {
    fn health(grace: f64, too_many: u32, started: Duration) -> Meaning {
        Meaning::Health {
            grace,
            too_many,
            health: Health::new(grace, too_many, started),
        }
    }

    fn of(check: &ExtraCheck, status: Option<Box<CheckStatusInfo>>, started: Duration) -> Meaning {
        let (grace, too_many) = (check.grace_period_seconds, check.consecutive_failures());
        match check.kind {
            Kind::Health => Meaning::health(grace, too_many, started),
            Kind::Readiness => Meaning::Readiness {
                health: Health::new(grace, too_many, started),
                told: None,
                status,
            },
            Kind::Startup => Meaning::Startup {
                health: Health::new(grace, too_many, started),
                passed: false,
            },
        }
    }
}

/// An empty result of the type that a probe gives.
fn typed(probe: &Probe) -> CheckStatusInfo {
    let mut status = CheckStatusInfo::default();
    let kind = match probe {
        Probe::Http(_) => {
            status.http = Some(check_status_info::Http::default());
            check_info::Type::Http
        }
        Probe::Tcp(_) => {
            status.tcp = Some(check_status_info::Tcp::default());
            check_info::Type::Tcp
        }
        Probe::Exec(_) => {
            status.command = Some(check_status_info::Command::default());
            check_info::Type::Command
        }
    };
    status.r#type = Some(kind.into());
    status
}

/// The result of a general check (C-03): its type, and what there is to say, which is nothing if it came to nothing
/// (C-04). `None` if we could not try.
fn result(last: &CheckStatusInfo, outcome: Outcome, seen: &Seen) -> Option<CheckStatusInfo> {
    if outcome == Outcome::Unknown {
        return None;
    }
    let mut status = *last;
    if let Some(http) = &mut status.http {
        http.status_code = match seen.sight {
            Sight::Status(code) | Sight::OddBody(code) => Some(code.into()),
            _ => None,
        };
    }
    if let Some(command) = &mut status.command {
        command.exit_code = match seen.sight {
            Sight::Exited(super::ExitStatus::Code(code)) => Some(code),
            _ => None,
        };
    }
    if let Some(tcp) = &mut status.tcp {
        tcp.succeeded = match seen.sight {
            Sight::Connected => Some(true),
            Sight::Failed(_) => Some(false),
            _ => None,
        };
    }
    Some(status)
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
