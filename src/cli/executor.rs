//! `podling` as an executor: one file is enough to run pods.
//!
//! Agents get the small `podling-executor`, and so does `podling up` where it lies beside this program. Where it does
//! not, as after a plain `cargo run` or when somebody copied one file, this program does the same job.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

use super::Failure;
use crate::{executor::NAMES, mesos::v1::CommandInfo};

/// Not shown by `--help`: nobody types it.
const COMMAND: &str = "executor";

/// Whether we were started to be an executor, by the name of the program or by the first word.
pub(super) fn is_asked_for(arguments: &[OsString]) -> bool {
    let name = arguments
        .first()
        .and_then(|program| Path::new(program).file_name());
    name.is_some_and(|name| NAMES.iter().any(|known| name == *known))
        || arguments.get(1).is_some_and(|word| word == COMMAND)
}

/// How executors of ours are started on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OwnExecutor {
    program: PathBuf,
    /// Beyond the program's name.
    arguments: Vec<String>,
}

impl OwnExecutor {
    /// `podling-executor` if it lies beside this program, else this program.
    pub fn find() -> Result<Self, Failure> {
        let own = env::current_exe()
            .map_err(|error| Failure::failed(format!("cannot tell which program this is: {error}")))?;
        Ok(Self::beside(&own))
    }

    fn beside(own: &Path) -> Self {
        let small = own.with_file_name("podling-executor");
        match small.is_file() {
            true => OwnExecutor {
                program: small,
                arguments: Vec::new(),
            },
            false => OwnExecutor {
                program: own.to_owned(),
                arguments: vec![COMMAND.to_owned()],
            },
        }
    }

    /// Program and arguments, as they are.
    pub fn argv(&self) -> Vec<String> {
        let program = self.program.display().to_string();
        std::iter::once(program).chain(self.arguments.clone()).collect()
    }

    /// The same for an agent: without a shell, the program's name first among the arguments.
    pub fn command(&self) -> CommandInfo {
        CommandInfo {
            shell: Some(false),
            value: Some(self.program.display().to_string()),
            arguments: self.argv(),
            ..Default::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_executor_is_asked_for_by_name_or_by_the_first_word() {
        let asked =
            |arguments: &[&str]| is_asked_for(&arguments.iter().map(OsString::from).collect::<Vec<_>>());
        assert!(asked(&[
            "/opt/libexec/mesos-default-executor",
            "--launcher_dir=/opt"
        ]));
        assert!(asked(&["podling-executor"]));
        assert!(asked(&["/usr/bin/podling", "executor", "--launcher_dir=/opt"]));
        assert!(!asked(&["podling", "up", "executor"]));
        assert!(!asked(&["/opt/podling-executor/podling"]));
        assert!(!asked(&["podling"]));
        assert!(!asked(&[]));
    }

    #[test]
    fn the_small_executor_is_preferred_and_not_needed() {
        let place = tempfile::tempdir().unwrap();
        let own = place.path().join("podling");
        let lone = OwnExecutor::beside(&own);
        assert_eq!(lone.argv(), [own.to_str().unwrap(), "executor"]);
        let command = lone.command();
        assert_eq!(command.value.as_deref(), own.to_str());
        assert_eq!(command.arguments, lone.argv());
        assert_eq!(command.shell, Some(false));
        let small = place.path().join("podling-executor");
        std::fs::write(&small, "").unwrap();
        assert_eq!(OwnExecutor::beside(&own).argv(), [small.to_str().unwrap()]);
    }
}
