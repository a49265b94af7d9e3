//! What can go wrong with a member, as sentences.

use std::{borrow::Cow, io};

use super::{cgroup::CgroupError, seccomp::SeccompError, users::UserError};

/// How the steps begin that are about a command itself: there is no such program, or nothing to run it with.
pub(super) const EXEC: [&str; 2] = ["exec", "find what runs"];

/// Why a runtime could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("{step}")]
pub struct SetupError {
    step: String,
    #[source]
    source: io::Error,
}

impl SetupError {
    pub(super) fn new(step: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self {
            step: step.into(),
            source: source.into(),
        }
    }
}

/// Why a member could not be made ready or started: names member, step and cause.
#[derive(Debug, thiserror::Error)]
#[error("member `{member}`: {problem}")]
pub struct LaunchError {
    member: String,
    #[source]
    problem: Problem,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error("{step}: {source}")]
    Step {
        step: Cow<'static, str>,
        source: io::Error,
    },
    #[error("{error}{}", source_of(.error))]
    User { error: UserError },
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Seccomp(SeccompError),
    #[error("{error}{}", source_of(.error))]
    Cgroup { error: CgroupError },
    #[error("{0}")]
    Ended(String),
}

fn source_of(error: &dyn std::error::Error) -> String {
    error
        .source()
        .map(|source| format!(": {source}"))
        .unwrap_or_default()
}

impl LaunchError {
    pub(super) fn new(member: &str, problem: Problem) -> Self {
        Self {
            member: member.to_owned(),
            problem,
        }
    }

    pub(super) fn step(
        member: &str,
        step: impl Into<Cow<'static, str>>,
        source: impl Into<io::Error>,
    ) -> Self {
        let (step, source) = (step.into(), source.into());
        Self::new(member, Problem::Step { step, source })
    }

    /// The command itself could not be executed; whatever else can go wrong is the way to it.
    pub fn is_of_exec(&self) -> bool {
        let of_exec = |step: &str| EXEC.iter().any(|begin| step.starts_with(&format!("{begin} `")));
        matches!(&self.problem, Problem::Step { step, .. } if of_exec(step))
    }

    /// What went wrong, without whose name.
    pub fn problem(&self) -> String {
        self.problem.to_string()
    }

    /// The definition is at fault, not this machine at this moment.
    pub fn invalid(&self) -> bool {
        matches!(
            self.problem,
            Problem::Invalid(_) | Problem::Seccomp(_) | Problem::User { .. }
        )
    }
}
