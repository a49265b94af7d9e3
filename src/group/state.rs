//! The life of one member, as a table.
//!
//! ```text
//! Preparing ──▶ Gated ──▶ Releasing ──▶ Held ──▶ Running ──▶ Stopping ──▶ Killing
//!     │           │           │          │                                  │
//!     └───────────┴───────────┴──────────┴─▶ Discarding                     │
//!                                                │                          │
//!     any of them ───────────────────────────────┴─────────▶ Ended ◀────────┘
//! ```
//!
//! The table knows nothing of groups: who opens gates and who falls with whom is decided by
//! `launch` and `kill`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    event::{Exit, Failure},
    verdict::{Cause, Fate, Verdict},
};

/// Where a member stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum State {
    /// STARTING was told and the shell makes the member ready: image, volumes, network, cgroup, process.
    Preparing,
    /// The member's process waits for the others of its group; nothing of its command has run.
    Gated,
    /// Every member was ready and the gate was opened; whether the exec succeeded is not known yet.
    Releasing,
    /// Its exec has succeeded. It waits before its first instruction for those of the others.
    Held,
    /// The command runs, and may do so until `expires`, its max_completion_time (X-01).
    Running {
        since: Duration,
        expires: Option<Duration>,
    },
    /// Given up before it ran; the shell takes it apart.
    Discarding { cause: Cause },
    /// Was asked to end and has until `deadline` to do so.
    Stopping {
        cause: Cause,
        since: Duration,
        deadline: Duration,
    },
    /// Its grace is used up and the whole container was killed; the end is a matter of the kernel.
    Killing { cause: Cause, since: Duration },
    /// Nothing of it is left and its terminal state was told.
    Ended(Fate),
}

/// What concerns one member.
#[derive(Debug, Clone)]
pub enum Input {
    Prepared,
    PrepareFailed(Failure),
    /// All members of the group are ready.
    Open,
    Held,
    /// All members of the group are held.
    Begin {
        expires: Option<Duration>,
    },
    StartFailed(Failure),
    /// It shall end, by `deadline` at the latest.
    Kill {
        cause: Cause,
        deadline: Duration,
    },
    /// Time has passed.
    Due,
    Discarded,
    Exited(Exit),
}

/// What follows from an [`Input`].
#[derive(Debug, Clone)]
pub enum Turn {
    /// Nothing; expected to happen.
    Stay,
    /// Nothing; the shell broke its contract.
    Odd,
    /// The same state, but do this (again).
    Act(&'static [Act]),
    Go(State, &'static [Act]),
    /// → [`State::Ended`].
    End(Verdict),
}

/// What the shell is asked to do to one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    Release,
    Begin,
    Discard,
    Stop,
    Kill,
}

impl State {
    /// One word, for people.
    pub fn name(&self) -> &'static str {
        match self {
            State::Preparing => "preparing",
            State::Gated => "gated",
            State::Releasing => "releasing",
            State::Held => "held",
            State::Running { .. } => "running",
            State::Discarding { .. } => "discarding",
            State::Stopping { .. } => "stopping",
            State::Killing { .. } => "killing",
            State::Ended(_) => "ended",
        }
    }

    pub fn has_ended(&self) -> bool {
        matches!(self, State::Ended(_))
    }

    pub fn is_running(&self) -> bool {
        matches!(self, State::Running { .. })
    }

    /// On its way to running, and not given up.
    pub fn is_launching(&self) -> bool {
        matches!(
            self,
            State::Preparing | State::Gated | State::Releasing | State::Held
        )
    }

    /// When [`Input::Due`] will change something.
    pub fn deadline(&self) -> Option<Duration> {
        match self {
            State::Running { expires, .. } => *expires,
            State::Stopping { deadline, .. } => Some(*deadline),
            State::Preparing
            | State::Gated
            | State::Releasing
            | State::Held
            | State::Discarding { .. }
            | State::Killing { .. }
            | State::Ended(_) => None,
        }
    }

    /// The table. Every pair of state and input has its cell.
    pub fn turn(&self, input: Input, now: Duration) -> Turn {
        use Turn::{Act as Again, End, Go, Odd, Stay};
        match self {
            // → Gated, Discarding, Ended
            State::Preparing => match input {
                Input::Prepared => Go(State::Gated, &[]),
                Input::PrepareFailed(failure) => End(Verdict::launch_failed(failure)),
                Input::Kill { cause, .. } => Go(State::Discarding { cause }, &[Act::Discard]),
                Input::Discarded => End(Verdict::lost("its preparation was given up")),
                Input::Exited(exit) => End(Verdict::died_early("while it was prepared", &exit)),
                Input::Due => Stay,
                Input::Open | Input::Held | Input::Begin { .. } | Input::StartFailed(_) => Odd,
            },

            // → Releasing, Discarding, Ended
            State::Gated => match input {
                Input::Open => Go(State::Releasing, &[Act::Release]),
                Input::PrepareFailed(failure) => End(Verdict::launch_failed(failure)),
                Input::Kill { cause, .. } => Go(State::Discarding { cause }, &[Act::Discard]),
                Input::Discarded => End(Verdict::lost("it was given up at its gate")),
                Input::Exited(exit) => End(Verdict::died_early("at its gate", &exit)),
                Input::Due => Stay,
                Input::Prepared | Input::Held | Input::Begin { .. } | Input::StartFailed(_) => Odd,
            },

            // → Held, Discarding, Ended
            State::Releasing => match input {
                Input::Held => Go(State::Held, &[]),
                Input::StartFailed(failure) => End(Verdict::launch_failed(failure)),
                Input::Kill { cause, .. } => Go(State::Discarding { cause }, &[Act::Discard]),
                Input::Discarded => End(Verdict::lost("it was given up at its gate")),
                Input::Exited(exit) => End(Verdict::died_early("as its gate opened", &exit)),
                Input::Due => Stay,
                Input::Prepared | Input::PrepareFailed(_) | Input::Open | Input::Begin { .. } => Odd,
            },

            // → Running, Discarding, Ended
            State::Held => match input {
                Input::Begin { expires } => Go(State::Running { since: now, expires }, &[Act::Begin]),
                Input::StartFailed(failure) => End(Verdict::launch_failed(failure)),
                Input::Kill { cause, .. } => Go(State::Discarding { cause }, &[Act::Discard]),
                Input::Discarded => End(Verdict::lost("it was given up before its first instruction")),
                Input::Exited(exit) => End(Verdict::died_early("before its first instruction", &exit)),
                Input::Due => Stay,
                Input::Prepared | Input::PrepareFailed(_) | Input::Open | Input::Held => Odd,
            },

            // → Stopping, Killing, Ended
            State::Running { since, expires } => match input {
                Input::Exited(exit) => End(Verdict::of_exit(&exit)),
                Input::Kill { cause, deadline } => stopping(cause, now, deadline, now),
                // X-02: no grace.
                Input::Due => match expires {
                    Some(expires) if *expires <= now => {
                        let limit = expires.saturating_sub(*since);
                        stopping(Cause::Expired { limit }, now, now, now)
                    }
                    _ => Stay,
                },
                Input::Discarded => End(Verdict::lost("it is gone and nobody saw how")),
                Input::Prepared
                | Input::PrepareFailed(_)
                | Input::Open
                | Input::Held
                | Input::Begin { .. }
                | Input::StartFailed(_) => Odd,
            },

            // → Ended
            State::Discarding { cause } => match input {
                Input::Discarded | Input::PrepareFailed(_) | Input::StartFailed(_) | Input::Exited(_) => {
                    End(Verdict::given_up(cause))
                }
                // A step on its way to running was faster than our wish; nothing of its own has run.
                Input::Prepared | Input::Held => Stay,
                // The first cause stands.
                Input::Kill { .. } | Input::Due => Stay,
                Input::Open | Input::Begin { .. } => Odd,
            },

            // → Stopping, Killing, Ended
            State::Stopping {
                cause,
                since,
                deadline,
            } => match input {
                Input::Exited(exit) => End(Verdict::stopped(cause, Some(&exit))),
                Input::Discarded => End(Verdict::stopped(cause, None)),
                // K-05: shortened, never extended; the first cause stands.
                Input::Kill { deadline: sooner, .. } if sooner < *deadline => {
                    if sooner <= now {
                        let (cause, since) = (cause.clone(), *since);
                        Go(State::Killing { cause, since }, &[Act::Kill])
                    } else {
                        let (cause, since, deadline) = (cause.clone(), *since, sooner);
                        Go(
                            State::Stopping {
                                cause,
                                since,
                                deadline,
                            },
                            &[],
                        )
                    }
                }
                Input::Due if *deadline <= now => {
                    let (cause, since) = (cause.clone(), *since);
                    Go(State::Killing { cause, since }, &[Act::Kill])
                }
                Input::Kill { .. } | Input::Due => Stay,
                Input::Prepared
                | Input::PrepareFailed(_)
                | Input::Open
                | Input::Held
                | Input::Begin { .. }
                | Input::StartFailed(_) => Odd,
            },

            // → Ended
            State::Killing { cause, .. } => match input {
                Input::Exited(exit) => End(Verdict::stopped(cause, Some(&exit))),
                Input::Discarded => End(Verdict::stopped(cause, None)),
                // A kill that got stuck can be tried again.
                Input::Kill { .. } => Again(&[Act::Kill]),
                Input::Due => Stay,
                Input::Prepared
                | Input::PrepareFailed(_)
                | Input::Open
                | Input::Held
                | Input::Begin { .. }
                | Input::StartFailed(_) => Odd,
            },

            // Answers that were under way when the end was decided may still come in. Nothing follows from them.
            State::Ended(_) => match input {
                Input::Prepared
                | Input::PrepareFailed(_)
                | Input::Open
                | Input::Held
                | Input::Begin { .. }
                | Input::StartFailed(_)
                | Input::Kill { .. }
                | Input::Due
                | Input::Discarded
                | Input::Exited(_) => Stay,
            },
        }
    }
}

/// A running command is to end. The stop signal comes even when there is no grace (K-03).
fn stopping(cause: Cause, since: Duration, deadline: Duration, now: Duration) -> Turn {
    if deadline <= now {
        Turn::Go(State::Killing { cause, since }, &[Act::Stop, Act::Kill])
    } else {
        Turn::Go(
            State::Stopping {
                cause,
                since,
                deadline,
            },
            &[Act::Stop],
        )
    }
}
