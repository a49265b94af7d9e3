//! A child of ours by descriptor: never left running and never left a zombie.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use tokio::io::unix::AsyncFd;

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
}

impl Process {
    pub(super) fn new(child: Child) -> io::Result<Self> {
        match pidfd::watch(child.pidfd) {
            Ok(pidfd) => Ok(Self {
                pid: child.pid,
                pidfd: Some(pidfd),
                ended: None,
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

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended.is_some() {
            return;
        }
        self.signal(libc::SIGKILL);
        let Some(pidfd) = self.pidfd.take() else { return };
        // Its death takes a moment, and a container's takes that of all its processes.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                runtime.spawn(async move {
                    let _ = pidfd.readable().await;
                    let _ = pidfd::wait(pidfd.get_ref().as_fd());
                });
            }
            Err(_) => {
                let _ = pidfd::wait(pidfd.get_ref().as_fd());
            }
        }
    }
}
