//! Putting a system call filter in place.
#![allow(unsafe_code)]

use libc::{c_int, c_long, sock_filter, sock_fprog};

const SET_MODE_FILTER: c_long = 1;
const FLAG_LOG: c_long = 2;

/// Installs a filter for the calling thread, for good. The thread needs `no_new_privs` or CAP_SYS_ADMIN.
///
/// Neither allocates nor locks, so it may be called between `clone` and `execve`. The error is an errno.
pub fn install(filter: &[sock_filter], log: bool) -> Result<(), c_int> {
    let program = sock_fprog {
        len: u16::try_from(filter.len()).map_err(|_| libc::EINVAL)?,
        filter: filter.as_ptr().cast_mut(),
    };
    let flags = if log { FLAG_LOG } else { 0 };
    // SAFETY: the kernel copies the program before the call returns, and writes nothing through the pointers.
    let done = unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags, &raw const program) };
    match done {
        0 => Ok(()),
        // SAFETY: errno is this thread's own; reading it has no other effect.
        _ => Err(unsafe { *libc::__errno_location() }),
    }
}
