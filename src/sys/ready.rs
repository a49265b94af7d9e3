//! Descriptors on the runtime's event loop.
#![allow(unsafe_code)]

use std::{io, os::fd::OwnedFd};

use tokio::io::{Interest, unix::AsyncFd};

/// Lets the event loop of the current runtime watch a descriptor.
pub fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the loop needs the descriptor to stay open until it is deregistered. It moves into the `AsyncFd`, which
    // deregisters before it drops it, and an `OwnedFd` cannot be closed through a shared reference.
    let registered = unsafe { AsyncFd::register_with_interest(fd, interest) };
    registered.map_err(io::Error::from)
}
