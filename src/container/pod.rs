//! Processes that members of a pod share (Z-01): a process namespace, held by its first process.
//!
//! Members see that process and, if they may trace, into it. So it is the smallest there is: see `setup::pod`.

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::OnceCell;

use super::{
    error::LaunchError,
    launch::{Birth, Launched, ended_early, launch},
    setup::{self, Confinement, Processes},
    terminal,
};
use crate::sys;

/// Made by its first member, while others wait; if that one is given up meanwhile, by the next.
#[derive(Debug, Default)]
pub(super) struct Pod(OnceCell<Keeper>);

#[derive(Debug)]
struct Keeper {
    #[expect(dead_code, reason = "its end is the namespace's")]
    launched: Launched,
    pidfd: Arc<OwnedFd>,
    proc: Mutex<OwnedFd>,
}

impl Pod {
    /// The first process, if it was made.
    pub(super) fn init(&self) -> Option<Arc<OwnedFd>> {
        self.0.get().map(|keeper| Arc::clone(&keeper.pidfd))
    }

    /// For one more member.
    pub(super) async fn processes(
        &self,
        program: &OwnedFd,
        confinement: &Confinement,
    ) -> Result<Processes, LaunchError> {
        let made = self.0.get_or_try_init(|| make(program, confinement));
        let keeper = made.await?;
        let mut proc = keeper.proc.lock().unwrap_or_else(PoisonError::into_inner);
        let proc = sys::mount::another(&mut proc)
            .map_err(|error| LaunchError::step(&confinement.plan.member, "copy the pod's /proc", error))?;
        Ok(Processes {
            init: Arc::clone(&keeper.pidfd),
            proc,
        })
    }
}

async fn make(program: &OwnedFd, confinement: &Confinement) -> Result<Keeper, LaunchError> {
    let member = &confinement.plan.member;
    let failed = |step: &'static str| move |error: std::io::Error| LaunchError::step(member, step, error);
    let (ours, theirs) = terminal::socket().map_err(failed("make a socket"))?;
    let script = setup::pod(confinement, theirs.as_fd()).map_err(failed("write the script"))?;
    let birth = Birth {
        namespaces: libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC,
        also_keep: &[std::os::fd::AsRawFd::as_raw_fd(&theirs)],
        ..Birth::of(program)
    };
    let mut launched = launch(member, script, &birth)?;
    drop(theirs);
    // Nobody joins it before there is nothing to be found.
    match launched.report.next().await? {
        Some(reached) if reached.what == setup::CONFINED => {}
        _ => return Err(ended_early(member, &mut launched.process).await),
    }
    let proc = terminal::take(ours.as_fd()).map_err(failed("take the pod's /proc"))?;
    let pidfd = launched.process.share().map_err(failed("share the pod"))?;
    Ok(Keeper {
        launched,
        pidfd: Arc::new(pidfd),
        proc: Mutex::new(proc),
    })
}
