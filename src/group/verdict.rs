//! Why members end, and what is told of it (appendix B of the behaviour list).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::event::{Exit, ExitStatus, Failure, Limit};
use crate::mesos::v1::{TaskState, task_status::Reason};

/// Why the machine ends a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// A KILL named it.
    Requested,
    /// Its group falls; `why` is a clause about the member that fell first.
    Sibling { why: String },
    /// SHUTDOWN, or an operator's SIGTERM.
    Shutdown,
    /// No agent without checkpointing, or none within the recovery time (S-05, S-06).
    AgentLost,
    /// Its health check failed too often.
    Unhealthy { message: String },
    /// Its max_completion_time is over.
    Expired { limit: Duration },
    /// It was not running when the time for the launch of its group was over (L-15).
    NotReady { limit: Duration },
}

/// How a member ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Fate {
    Finished,
    Failed,
    Killed,
    /// Never tried.
    Dropped,
}

/// The terminal update of a member, but for what is the same in every update.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    pub fate: Fate,
    pub reason: Option<Reason>,
    pub message: String,
    /// The memory limit in bytes that ended it.
    pub memory_limit: Option<u64>,
}

impl Fate {
    /// `aware`: the framework has capability PARTITION_AWARE.
    pub fn task_state(self, aware: bool) -> TaskState {
        match self {
            Fate::Finished => TaskState::TaskFinished,
            Fate::Failed => TaskState::TaskFailed,
            Fate::Killed => TaskState::TaskKilled,
            Fate::Dropped if aware => TaskState::TaskDropped,
            Fate::Dropped => TaskState::TaskLost,
        }
    }
}

impl Cause {
    /// Completes "killed …".
    fn because(&self) -> String {
        match self {
            Cause::Requested => "on request".into(),
            Cause::Sibling { why } => format!("because {why}"),
            Cause::Shutdown => "because the executor was told to shut down".into(),
            Cause::AgentLost => "because the agent was lost".into(),
            Cause::Unhealthy { message } => format!("because it was unhealthy: {message}"),
            Cause::Expired { limit } => format!("because its max_completion_time of {limit:?} was over"),
            Cause::NotReady { limit } => {
                format!("because it was not running {limit:?} after its group arrived (launch deadline)")
            }
        }
    }

    /// Completes "member `x` of its group …".
    pub fn as_predicate(&self) -> String {
        match self {
            Cause::NotReady { limit } => format!("was not running within the launch deadline of {limit:?}"),
            _ => format!("is being killed {}", self.because()),
        }
    }

    /// Whether KILLING announces it (U-05).
    pub fn is_announced(&self) -> bool {
        !matches!(self, Cause::Expired { .. })
    }

    /// The sentence for a KILLING update.
    pub fn announcement(&self) -> String {
        format!("being killed {}", self.because())
    }
}

impl Verdict {
    fn plain(fate: Fate, reason: Option<Reason>, message: String) -> Verdict {
        Verdict {
            fate,
            reason,
            message,
            memory_limit: None,
        }
    }

    /// It ended by itself (G-01, G-02), or a limit ended it (G-08).
    pub fn of_exit(exit: &Exit) -> Verdict {
        match (&exit.limit, exit.status) {
            (Some(Limit::Memory { limit_bytes, message }), _) => Verdict {
                fate: Fate::Failed,
                reason: Some(Reason::ContainerLimitationMemory),
                message: message.clone(),
                memory_limit: Some(*limit_bytes),
            },
            (None, ExitStatus::Code(0)) => Verdict::plain(Fate::Finished, None, sentence(exit.status)),
            (None, _) => {
                let mut message = sentence(exit.status);
                if let Some(words) = &exit.words {
                    message.push_str("; its last words: ");
                    message.push_str(words);
                }
                Verdict::plain(Fate::Failed, None, message)
            }
        }
    }

    /// It ran, was asked to end, and did; even a good exit is no success then (K-08).
    pub fn stopped(cause: &Cause, exit: Option<&Exit>) -> Verdict {
        let message = match exit {
            Some(exit) if exit.limit.is_some() => return Verdict::of_exit(exit),
            Some(exit) => format!("killed {}; {}", cause.because(), sentence(exit.status)),
            None => format!("killed {}", cause.because()),
        };
        match cause {
            Cause::Expired { .. } => {
                Verdict::plain(Fate::Failed, Some(Reason::MaxCompletionTimeReached), message)
            }
            _ => Verdict::plain(Fate::Killed, None, message),
        }
    }

    /// It was given up before it ran.
    pub fn given_up(cause: &Cause) -> Verdict {
        match cause {
            Cause::NotReady { .. } => Verdict::plain(
                Fate::Failed,
                Some(Reason::ContainerLaunchFailed),
                format!("given up {}", cause.because()),
            ),
            Cause::Expired { .. } => Verdict::plain(
                Fate::Failed,
                Some(Reason::MaxCompletionTimeReached),
                format!("killed {}", cause.because()),
            ),
            _ => Verdict::plain(
                Fate::Killed,
                Some(Reason::TaskKilledDuringLaunch),
                format!("killed before it started, {}", cause.because()),
            ),
        }
    }

    /// It could not be made ready or started (L-05, L-06).
    pub fn launch_failed(failure: Failure) -> Verdict {
        let reason = match failure.invalid {
            true => Reason::TaskInvalid,
            false => Reason::ContainerLaunchFailed,
        };
        Verdict::plain(Fate::Failed, Some(reason), failure.message)
    }

    /// Its process ended before its command could run.
    pub fn died_early(when: &str, exit: &Exit) -> Verdict {
        match &exit.limit {
            Some(_) => Verdict::of_exit(exit),
            None => Verdict::plain(
                Fate::Failed,
                Some(Reason::ContainerLaunchFailed),
                format!("ended {when}: {}", sentence(exit.status)),
            ),
        }
    }

    /// The shell says that nothing is left of it, unasked. Not legal, but a member that is gone must not be
    /// waited for.
    pub fn lost(how: &str) -> Verdict {
        let message = format!("lost: {how}");
        Verdict::plain(Fate::Failed, Some(Reason::ContainerLaunchFailed), message)
    }

    /// Its definition, or that of its group, cannot be run.
    pub fn invalid(message: String) -> Verdict {
        Verdict::plain(Fate::Failed, Some(Reason::TaskInvalid), message)
    }

    /// Never tried.
    pub fn dropped(message: String) -> Verdict {
        Verdict::plain(Fate::Dropped, None, message)
    }

    /// Completes "member `x` of its group …".
    pub fn as_predicate(&self) -> String {
        match self.fate {
            Fate::Finished => "finished, which ends the group (onFinish: kill)".into(),
            Fate::Failed => format!("failed: {}", self.message),
            Fate::Killed => format!("was {}", self.message),
            Fate::Dropped => format!("was dropped: {}", self.message),
        }
    }
}

/// As Mesos words it (U-08).
fn sentence(status: ExitStatus) -> String {
    match status {
        ExitStatus::Code(code) => format!("Command exited with status {code}"),
        ExitStatus::Signal(signal) => format!("Command terminated with signal {}", signal_name(signal)),
    }
}

pub fn signal_name(signal: i32) -> String {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
        "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
        "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    match usize::try_from(signal)
        .ok()
        .and_then(|n| NAMES.get(n.wrapping_sub(1)))
    {
        Some(name) => format!("SIG{name}"),
        None => format!("{signal}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn u_08_exits_and_signals_are_worded_as_mesos_does() {
        assert_eq!(sentence(ExitStatus::Code(3)), "Command exited with status 3");
        assert_eq!(
            sentence(ExitStatus::Signal(15)),
            "Command terminated with signal SIGTERM"
        );
        let exit = |status, words: Option<&str>| Exit {
            status,
            limit: None,
            words: words.map(str::to_owned),
        };
        let failed = exit(ExitStatus::Code(1), Some("KeyError: 'DB'"));
        assert_eq!(
            Verdict::of_exit(&failed).message,
            "Command exited with status 1; its last words: KeyError: 'DB'"
        );
        let finished = exit(ExitStatus::Code(0), Some("done"));
        assert_eq!(
            Verdict::of_exit(&finished).message,
            "Command exited with status 0"
        );
        assert_eq!(signal_name(31), "SIGSYS");
        for odd in [0, -1, 32, 64, i32::MIN, i32::MAX] {
            assert_eq!(signal_name(odd), odd.to_string());
        }
    }
}
