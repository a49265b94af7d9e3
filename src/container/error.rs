//! What can go wrong with a member, as sentences.

use std::{borrow::Cow, io};

use super::{cgroup::CgroupError, seccomp::SeccompError, users::UserError};

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

    /// The definition is at fault, not this machine at this moment.
    pub fn invalid(&self) -> bool {
        matches!(
            self.problem,
            Problem::Invalid(_) | Problem::Seccomp(_) | Problem::User { .. }
        )
    }
}
