//! Waiting until a cgroup is empty.
//!
//! Version 2 says so on `cgroup.events`. Version 1 says nothing useful, so we look, less and less often; but a
//! member's end is known from its init, and what else is inside is then being killed, so few looks are needed.

use std::{io, os::fd::OwnedFd, time::Duration};

use rustix::fs::OFlags;
use tokio::io::{Interest, unix::AsyncFd};

use super::{CgroupError, branches::Cgroup, tree::Node};
use crate::sys::ready;

/// Even with a notice we look again now and then: a lost one must not be for ever.
const SECOND_LOOK: Duration = Duration::from_secs(5);
const FIRST_LOOK: Duration = Duration::from_micros(500);
const LAST_LOOK: Duration = Duration::from_millis(100);

pub(super) async fn empty(cgroup: &Cgroup) -> Result<(), CgroupError> {
    // By the time anybody asks it is mostly over.
    if !populated(cgroup)? {
        return Ok(());
    }
    match cgroup.v2() {
        Some(v2) => {
            let mut notice = Notice::on(v2, "cgroup.events")?;
            // The kernel holds a notice back for 10 ms after the one before, which for a short-lived member was its
            // birth: look ourselves meanwhile.
            let mut patience = FIRST_LOOK;
            while populated(cgroup)? {
                let _ = tokio::time::timeout(patience, notice.changed()).await;
                patience = (patience * 2).min(SECOND_LOOK);
            }
        }
        None => {
            let mut pause = FIRST_LOOK;
            while populated(cgroup)? {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LAST_LOOK);
            }
        }
    }
    Ok(())
}

fn populated(cgroup: &Cgroup) -> Result<bool, CgroupError> {
    match cgroup.populated() {
        // Removed by somebody else: as empty as can be.
        Err(error) if error.is_gone() => Ok(false),
        other => other,
    }
}

/// Tells when a file of a cgroup file system has changed.
#[derive(Debug)]
pub(super) struct Notice {
    fd: AsyncFd<OwnedFd>,
}

impl Notice {
    pub(super) fn on(node: &Node, file: &str) -> Result<Notice, CgroupError> {
        let fd = node.open_file(file, OFlags::RDONLY)?;
        let failed = |source: io::Error| CgroupError::Open {
            path: node.path().join(file),
            source,
        };
        // A change is one that comes after a first read.
        let mut first = [0u8; 16];
        rustix::io::read(&fd, &mut first).map_err(|errno| failed(errno.into()))?;
        let fd = ready::watch(fd, Interest::PRIORITY | Interest::ERROR).map_err(failed)?;
        Ok(Notice { fd })
    }

    /// Resolves at the next change, or at once if there was one since the last time.
    pub(super) async fn changed(&mut self) -> io::Result<()> {
        let mut ready = self.fd.ready(Interest::PRIORITY | Interest::ERROR).await?;
        ready.clear_ready();
        // Reading is what makes the kernel count this change as seen.
        let mut seen = [0u8; 16];
        rustix::io::pread(self.fd.get_ref(), &mut seen, 0)?;
        Ok(())
    }
}
