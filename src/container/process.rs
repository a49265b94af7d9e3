//! A child of ours by descriptor, with the cgroup of what it started: never left running, never left a zombie.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use tokio::io::unix::AsyncFd;

use super::cgroup::MemberCgroup;
use crate::sys::{
    pidfd::{self, Ended},
    spawn::Child,
};

#[derive(Debug)]
pub(super) struct Process {
    pub pid: i32,
    /// Taken away when somebody else is to wait for it.
    pidfd: Option<AsyncFd<OwnedFd>>,
    ended: Option<Ended>,
    /// Emptied after its end.
    cgroup: Option<Arc<MemberCgroup>>,
    clean: bool,
}

impl Process {
    pub(super) fn new(child: Child) -> io::Result<Self> {
        match pidfd::watch(child.pidfd) {
            Ok(pidfd) => Ok(Self {
                pid: child.pid,
                pidfd: Some(pidfd),
                ended: None,
                cgroup: None,
                clean: false,
            }),
            Err((pidfd, cause)) => {
                let _ = pidfd::signal(pidfd.as_fd(), libc::SIGKILL);
                let _ = pidfd::wait(pidfd.as_fd());
                Err(cause)
            }
        }
    }

    pub(super) fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(|pidfd| pidfd.get_ref().as_fd())
    }

    /// From here on this cgroup is what it leaves behind.
    pub(super) fn with_cgroup(mut self, cgroup: Option<Arc<MemberCgroup>>) -> Self {
        self.cgroup = cgroup;
        self
    }

    pub(super) fn cgroup(&self) -> Option<&Arc<MemberCgroup>> {
        self.cgroup.as_ref()
    }

    /// Ends it and all that it started, at once.
    pub(super) fn kill(&self) {
        self.signal(libc::SIGKILL);
        if let Some(cgroup) = &self.cgroup
            && let Err(error) = cgroup.kill()
        {
            // `gone` tries again until it is done.
            tracing::debug!("{error}");
        }
    }

    /// Resolves when it has ended and nothing is left in its cgroup.
    pub(super) async fn gone(&mut self) -> io::Result<Ended> {
        let ended = self.ended().await;
        if let Some(cgroup) = &self.cgroup {
            empty(cgroup).await;
        }
        self.clean = true;
        ended
    }

    /// A second descriptor for it.
    pub(super) fn share(&self) -> io::Result<OwnedFd> {
        let pidfd = self.pidfd().ok_or(io::ErrorKind::NotFound)?;
        pidfd.try_clone_to_owned()
    }

    pub(super) fn signal(&self, number: i32) {
        if let (Some(pidfd), None) = (self.pidfd(), self.ended) {
            // All that can be wrong is that it has ended.
            let _ = pidfd::signal(pidfd, number);
        }
    }

    /// Resolves when it has ended; may be given up and called again.
    pub(super) async fn ended(&mut self) -> io::Result<Ended> {
        if let Some(ended) = self.ended {
            return Ok(ended);
        }
        let Some(pidfd) = &self.pidfd else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let _ = pidfd.readable().await?;
        let ended = pidfd::wait(pidfd.get_ref().as_fd())?;
        self.ended = Some(ended);
        Ok(ended)
    }
}

/// A task that its init does not know by number: it came from another child of that.
#[derive(Debug)]
pub(super) struct Heir {
    pub pid: rustix::process::Pid,
    pidfd: OwnedFd,
}

impl Heir {
    /// `None` if there is no such child of the init any more. The number was told through a pipe that the task itself
    /// has at that time, so it is believed only if it is that of a child; then it is the task, or what handed over.
    pub(super) fn of(init: &Process, told: u32) -> Option<Self> {
        let pid = rustix::process::Pid::from_raw(i32::try_from(told).ok()?)?;
        let number = pid.as_raw_nonzero().get();
        let pidfd = pidfd::open(number).ok()?;
        // Opened first: whoever has this number now is whom the descriptor means, or that one has ended.
        let stat = std::fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
        let (_, fields) = stat.rsplit_once(") ")?;
        let parent = fields.split(' ').nth(1)?.parse();
        (parent == Ok(init.pid)).then_some(Self { pid, pidfd })
    }

    pub(super) fn signal(&self, number: i32) {
        // All that can be wrong is that it has ended.
        let _ = pidfd::signal(self.pidfd.as_fd(), number);
    }
}

async fn empty(cgroup: &MemberCgroup) {
    if let Err(error) = cgroup.destroy().await {
        tracing::warn!("{error}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.clean || self.ended.is_some() && self.cgroup.is_none() {
            return;
        }
        self.kill();
        let ended = self.ended;
        let cgroup = self.cgroup.take();
        let Some(pidfd) = self.pidfd.take() else { return };
        // Its death takes a moment, and a container's takes that of all its processes.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                runtime.spawn(async move {
                    if ended.is_none() {
                        let _ = pidfd.readable().await;
                        let _ = pidfd::wait(pidfd.get_ref().as_fd());
                    }
                    if let Some(cgroup) = cgroup {
                        empty(&cgroup).await;
                    }
                });
            }
            Err(_) if ended.is_some() => {}
            // The cgroup kills what is left when it is dropped.
            Err(_) => {
                let _ = pidfd::wait(pidfd.get_ref().as_fd());
            }
        }
    }
}
