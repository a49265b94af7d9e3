//! How it all ended.

use std::{fmt, process::ExitStatus};

use super::{
    book::{Stage, TaskRecord},
    journal::{History, Killed, What},
    violation::Violation,
};
use crate::mesos::v1::TaskState;

/// The end of a task, as the agent has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskEnd {
    pub task: String,
    /// The last state, terminal or not.
    pub state: TaskState,
    /// The terminal states that the executor told, each under a uuid of its own.
    pub told: Vec<TaskState>,
    /// The agent had to find a terminal state itself.
    pub made_by_agent: bool,
    /// It never came to the executor: killed, or lost with the agent, before delivery.
    pub withdrawn: bool,
}

/// The end of an executor and its tasks.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// None if it could not be made to end.
    pub exit: Option<ExitStatus>,
    /// Set if the agent, or impatience, killed the executor.
    pub killed: Option<Killed>,
    /// In the order of their launch.
    pub tasks: Vec<TaskEnd>,
    pub violations: Vec<Violation>,
    pub history: History,
}

impl Outcome {
    pub(super) fn new(history: History, tasks: &[TaskRecord]) -> Self {
        let killed = history.entries().iter().find_map(|entry| match entry.what {
            What::Exited { killed, .. } => killed,
            _ => None,
        });
        let end = |record: &TaskRecord| TaskEnd {
            task: record.id().to_owned(),
            state: record.state,
            told: record.told.clone(),
            made_by_agent: record.made.is_some(),
            withdrawn: record.stage == Stage::Withdrawn,
        };
        Outcome {
            exit: history.exit(),
            killed,
            tasks: tasks.iter().map(end).collect(),
            violations: history.violations().into_iter().cloned().collect(),
            history,
        }
    }

    /// The state in which a task ended.
    pub fn state(&self, task: &str) -> Option<TaskState> {
        self.tasks
            .iter()
            .rev()
            .find(|end| end.task == task)
            .map(|end| end.state)
    }

    /// What kept the executor from a good end: it ended by itself with 0, and every task got exactly one terminal
    /// state, from the executor if it was ever given the task. Empty if it was so.
    pub fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        match (self.killed, self.exit) {
            (Some(Killed::RegistrationTimeout), _) => {
                complaints.push("the executor did not subscribe in time and was killed".to_owned());
            }
            (Some(Killed::ReregistrationTimeout), _) => {
                complaints.push(
                    "the executor did not come back to the restarted agent in time and was killed".to_owned(),
                );
            }
            (Some(Killed::ShutdownGrace), _) => {
                complaints
                    .push("the executor outlived its grace period after SHUTDOWN and was killed".to_owned());
            }
            (Some(Killed::Harness), _) => complaints.push("the executor had to be killed".to_owned()),
            (None, None) => complaints.push("the executor did not end".to_owned()),
            (None, Some(status)) if !status.success() => {
                complaints.push(format!("the executor ended with {status}"));
            }
            (None, Some(_)) => {}
        }
        complaints.extend(self.tasks.iter().filter_map(TaskEnd::complaint));
        complaints
    }

    /// Whether there is nothing to complain of.
    pub fn is_good(&self) -> bool {
        self.complaints().is_empty()
    }
}

impl TaskEnd {
    fn complaint(&self) -> Option<String> {
        let TaskEnd { task, .. } = self;
        match self.told.as_slice() {
            [_] if !self.made_by_agent => None,
            [] if self.made_by_agent && self.withdrawn => None,
            [] if self.made_by_agent => Some(format!(
                "the executor left task {task} without a terminal state; the agent made it {}",
                self.state.as_str_name()
            )),
            [] => Some(format!(
                "task {task} has no terminal state, only {}",
                self.state.as_str_name()
            )),
            told => {
                let made = self.made_by_agent.then(|| self.state.as_str_name());
                let states = told.iter().map(TaskState::as_str_name).chain(made);
                Some(format!(
                    "task {task} has more than one terminal state: {}",
                    states.collect::<Vec<_>>().join(", ")
                ))
            }
        }
    }
}

/// Complaints and violations, one a line.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for complaint in self.complaints() {
            writeln!(f, "{complaint}")?;
        }
        for violation in &self.violations {
            writeln!(f, "{violation}")?;
        }
        Ok(())
    }
}
