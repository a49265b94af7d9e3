//! (under construction: the signatures the executor relies on)

use std::{os::fd::BorrowedFd, path::PathBuf, time::Duration};

use super::plan::Plan;
use crate::group::Exit;

/// What a runtime needs to know of its executor.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Names our cgroups: the executor's container id, or the executor id.
    pub name: String,
    pub sandbox: PathBuf,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SetupError(String);

/// Why a member could not be made ready or started: names step and cause.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LaunchError(String);

/// One per executor: cgroups of the group, the sealed init program, what the host offers.
#[derive(Debug)]
pub struct Runtime {}

impl Runtime {
    pub fn open(_setup: Setup) -> Result<Runtime, SetupError> {
        Ok(Runtime {})
    }

    /// Does everything but the last exec. Dropping the future undoes what was done.
    pub async fn prepare(&self, _plan: Plan) -> Result<Gated, LaunchError> {
        Err(LaunchError("under construction".into()))
    }
}

/// A member whose process exists and waits. Dropping it ends the process.
#[derive(Debug)]
pub struct Gated {}

impl Gated {
    /// Opens the gate; `Ok` once the exec itself has succeeded.
    pub async fn release(self) -> Result<Running, LaunchError> {
        Err(LaunchError("under construction".into()))
    }
}

/// A member that runs. Dropping it kills the whole container.
#[derive(Debug)]
pub struct Running {}

impl Running {
    /// Process id of the member's init, in our namespace.
    pub fn pid(&self) -> i32 {
        0
    }

    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Asks the member to end: its stop signal, to its init.
    pub fn stop(&self) {}

    /// Ends the whole container.
    pub fn kill(&self) {}

    /// Resolves when the member has ended and its cgroup is empty.
    pub async fn wait(&mut self) -> Exit {
        tokio::time::sleep(Duration::MAX).await;
        Exit {
            status: crate::group::ExitStatus::Code(0),
            limit: None,
        }
    }
}
