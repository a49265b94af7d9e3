//! Terminals of members (Z-08): their other side arrives through a socket, and what they show goes to a log.

use std::{
    fs::File,
    io::{self, Write},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, recvmsg,
    socketpair,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    task::JoinHandle,
};

use crate::sys;

pub(super) fn socket() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    Ok(socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        flags,
        None,
    )?)
}

/// Takes the descriptor out that was announced.
pub(super) fn take(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0u8];
    recvmsg(
        socket,
        &mut [io::IoSliceMut::new(&mut byte)],
        &mut control,
        RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC,
    )?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut descriptors) = message
            && let Some(terminal) = descriptors.next()
        {
            return Ok(terminal);
        }
    }
    Err(io::Error::other("the message carries no descriptor"))
}

/// A terminal whose output is being copied.
#[derive(Debug)]
pub(super) struct Copied {
    copy: JoinHandle<()>,
}

impl Drop for Copied {
    fn drop(&mut self) {
        self.copy.abort();
    }
}

impl Copied {
    /// Waits until all that was shown is copied: for after the member's end.
    pub(super) async fn finish(mut self) {
        let _ = (&mut self.copy).await;
    }
}

/// Copies all that a terminal shows, until nobody has its inner side open any more.
pub(super) fn copy_to(terminal: OwnedFd, log: &Arc<OwnedFd>) -> io::Result<Copied> {
    rustix::io::ioctl_fionbio(&terminal, true)?;
    let terminal = sys::pidfd::watch(terminal).map_err(|(_, error)| error)?;
    let mut log = File::from(log.as_fd().try_clone_to_owned()?);
    let copy = tokio::spawn(async move {
        let mut buffer = vec![0u8; 4096];
        // EIO is how a terminal says that its inner side is closed.
        while let Ok(length) = read(&terminal, &mut buffer).await {
            let shown = buffer.get(..length).unwrap_or_default();
            if shown.is_empty() || log.write_all(shown).is_err() {
                break;
            }
        }
    });
    Ok(Copied { copy })
}

async fn read(terminal: &AsyncFd<OwnedFd>, buffer: &mut [u8]) -> io::Result<usize> {
    terminal
        .async_io(Interest::READABLE, |terminal| {
            Ok(rustix::io::read(terminal, &mut *buffer)?)
        })
        .await
}
