//! Cleaning up after executors that died.
//!
//! An executor writes down what it is about to make that would outlive it, before it makes it, and what it has made,
//! by identity. The file is locked for as long as the executor lives; the kernel drops the lock however it ends, at
//! the latest when a child it was just starting has made its exec. So who finds a file without a lock knows that its
//! owner is dead, and removes exactly what is written there:
//!
//! * a cgroup, if it is the very directory that was made (inode); processes inside are killed;
//! * a directory tree, if device and inode are those written down, with what is mounted inside it;
//! * a mount, if the file system mounted there is the one written down;
//! * a file or socket, by device and inode.
//!
//! What was only announced, and never confirmed, is removed if it is empty and left otherwise: its owner died before
//! it put anything in. So nothing foreign is ever touched, whatever its name (N3).

mod register;
mod remove;

use std::{
    io,
    path::{Path, PathBuf},
};

pub use register::{Claim, ClaimedGroupError, Leftover, Register};

#[derive(Debug, thiserror::Error)]
pub enum JanitorError {
    #[error("cannot {step} {}", path.display())]
    Register {
        step: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("the register of executors {} belongs to somebody else, or others can write to it", path.display())]
    Open { path: PathBuf },
    #[error("an executor called {name:?} runs here already (process {pid})")]
    Alive { name: String, pid: u32 },
}

/// What a sweep has done.
#[derive(Debug, Default, serde::Serialize)]
pub struct Report {
    /// Executors that are alive; nothing of theirs was looked at.
    pub alive: usize,
    /// Dead ones of which nothing is left now.
    pub cleaned: Vec<String>,
    /// What was removed.
    pub removed: Vec<PathBuf>,
    /// What could not be, and why; it is tried again by the next sweep.
    pub failed: Vec<Failed>,
    /// Pod networks taken back. Not by [`sweep`] itself: they have a register of their own.
    pub networks: usize,
    /// Found at a place written down, but not what was written down: left alone.
    pub foreign: Vec<PathBuf>,
}

#[derive(Debug, serde::Serialize)]
pub struct Failed {
    pub path: PathBuf,
    pub reason: String,
}

/// Removes what dead executors have left, as written down below `run` (`/run/podling`). Blocks: up to some seconds if
/// processes have to be killed.
pub fn sweep(run: &Path) -> Result<Report, JanitorError> {
    let register = Register::open(run)?;
    let mut report = Report::default();
    for name in register.names()? {
        match register.take(&name)? {
            register::Taken::Gone => {}
            register::Taken::Alive { .. } => report.alive += 1,
            register::Taken::Dead(dead) => {
                let failures = report.failed.len();
                remove::everything(dead.leftovers(), &mut report);
                if report.failed.len() == failures {
                    dead.forget()?;
                    report.cleaned.push(name.to_string_lossy().into_owned());
                }
            }
        }
    }
    Ok(report)
}
