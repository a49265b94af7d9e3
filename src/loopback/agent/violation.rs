//! What an executor may not do, and how that reads.

use std::fmt;

use crate::mesos::v1::TaskState;

/// What an executor did that it should not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    DoubleTerminal {
        task: String,
        first: TaskState,
        second: TaskState,
    },
    AfterTerminal {
        task: String,
        terminal: TaskState,
        state: TaskState,
    },
    /// RUNNING after KILLING, STARTING after RUNNING.
    Backwards {
        task: String,
        from: TaskState,
        to: TaskState,
    },
    /// The framework has not declared the capability that this state needs.
    NotCapable {
        task: String,
        state: TaskState,
    },
    UnknownTask {
        task: String,
        state: TaskState,
    },
    /// One uuid for two different updates.
    UuidReused {
        task: String,
        state: TaskState,
    },
    ForeignAgent {
        task: String,
        agent: String,
    },
    /// A call was answered with a status that only a programming error earns.
    Refused {
        status: u16,
        reason: String,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::DoubleTerminal { task, first, second } => {
                write!(
                    f,
                    "task {task} ended twice: {}, then {}",
                    name(*first),
                    name(*second)
                )
            }
            Violation::AfterTerminal {
                task,
                terminal,
                state,
            } => {
                write!(
                    f,
                    "task {task} was told to be {} after {}",
                    name(*state),
                    name(*terminal)
                )
            }
            Violation::Backwards { task, from, to } => {
                write!(f, "task {task} went back from {} to {}", name(*from), name(*to))
            }
            Violation::NotCapable { task, state } => {
                write!(
                    f,
                    "task {task} was told to be {}, which its framework has not asked for",
                    name(*state)
                )
            }
            Violation::UnknownTask { task, state } => {
                write!(
                    f,
                    "task {task}, told to be {}, was never given to this executor",
                    name(*state)
                )
            }
            Violation::UuidReused { task, state } => {
                write!(
                    f,
                    "task {task} told {} under the uuid of another update",
                    name(*state)
                )
            }
            Violation::ForeignAgent { task, agent } => {
                write!(
                    f,
                    "a status of task {task} names the agent {agent}, which is not this one"
                )
            }
            Violation::Refused { status, reason } => write!(f, "a call was answered {status}: {reason}"),
        }
    }
}

fn name(state: TaskState) -> &'static str {
    state.as_str_name()
}
