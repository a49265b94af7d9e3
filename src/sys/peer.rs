//! Who has connected to a UNIX socket: the process itself, not just its number.

#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

/// The process that connected, by descriptor; an error from kernels before 6.5.
pub fn process(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const SO_PEERPIDFD: libc::c_int = 77;
    let mut descriptor: libc::c_int = -1;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the two pointers are to variables of the sizes that the call is told of, and they outlive it.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            (&raw mut descriptor).cast(),
            &raw mut length,
        )
    };
    if answer < 0 || descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Whether the process has not ended: as long as it has not, its number is its own.
pub fn is_alive(process: BorrowedFd<'_>) -> bool {
    let mut watched = [rustix::event::PollFd::from_borrowed_fd(
        process,
        rustix::event::PollFlags::IN,
    )];
    let now = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    rustix::event::poll(&mut watched, Some(&now)).is_ok_and(|ended| ended == 0)
}

#[cfg(test)]
mod tests {
    use std::os::{fd::AsFd as _, unix::net::UnixStream};

    use super::*;

    #[test]
    fn the_one_who_connected_is_known() {
        let (one, _other) = UnixStream::pair().unwrap();
        match process(one.as_fd()) {
            Ok(me) => assert!(is_alive(me.as_fd())),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ENOPROTOOPT)),
        }
    }
}
