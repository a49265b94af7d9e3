//! How a command ends, and what its user reads if that is not well.

use std::{error::Error, fmt, io::Write as _, process::ExitCode};

use super::text;

/// What a command's `run` gives back.
pub type Ended = Result<ExitCode, Failure>;

/// Says something to the user, who may have closed standard error.
pub(super) fn complain(sentence: impl fmt::Display) {
    let _ = writeln!(
        std::io::stderr(),
        "podling: {}",
        text::lines(&sentence.to_string())
    );
}

/// Prints an answer. A reader that has seen enough (`head`) is no failure.
pub(super) fn answer(words: &str) -> Ended {
    let mut out = std::io::stdout().lock();
    match out.write_all(words.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("cannot print: {error}")))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Why a command could not do what it was asked to; displayed as one sentence.
#[derive(Debug)]
pub enum Failure {
    /// What was typed, or a file it names, makes no sense. Nothing was done. Exit code 2.
    Usage(String),
    /// It was tried and failed. Exit code 1.
    Failed(Box<dyn Error + Send + Sync>),
}

impl Failure {
    pub fn usage(sentence: impl fmt::Display) -> Self {
        Failure::Usage(sentence.to_string())
    }

    pub fn failed(sentence: impl fmt::Display) -> Self {
        Failure::Failed(sentence.to_string().into())
    }

    pub fn exit_code(&self) -> ExitCode {
        match self {
            Failure::Usage(_) => ExitCode::from(2),
            Failure::Failed(_) => ExitCode::FAILURE,
        }
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure::Failed(error.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(sentence) => f.write_str(sentence),
            Failure::Failed(error) => with_causes(f, &**error),
        }
    }
}

/// An error and what caused it, in one sentence. Some errors repeat their cause in their own words; it is not said
/// twice.
fn with_causes(f: &mut fmt::Formatter<'_>, error: &dyn Error) -> fmt::Result {
    let mut said = error.to_string();
    f.write_str(&said)?;
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !said.ends_with(&text) {
            write!(f, ": {text}")?;
            said = text;
        }
        cause = error.source();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open the door")]
    struct Door(#[source] Key);

    #[derive(Debug, thiserror::Error)]
    #[error("no key: {0}")]
    struct Key(#[source] std::io::Error);

    #[test]
    fn causes_are_told_once() {
        let cause = std::io::Error::other("lost");
        let failure = Failure::from(Door(Key(cause)));
        assert_eq!(failure.to_string(), "cannot open the door: no key: lost");
    }
}
