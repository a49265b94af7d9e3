#![allow(unsafe_code)]

//! Descriptors that go on to a program we start.

use std::{
    io,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::Command,
};

use rustix::io::{FdFlags, fcntl_setfd};

/// Has the program keep `descriptor` open, and nobody else who is started at the same time.
pub fn keep(command: &mut Command, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let kept: OwnedFd = descriptor.try_clone_to_owned()?;
    let keep = move || Ok(fcntl_setfd(&kept, FdFlags::empty())?);
    // SAFETY: between fork and exec the closure makes one system call on a descriptor that it owns; it takes no lock
    // and no memory.
    unsafe { command.pre_exec(keep) };
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, os::fd::AsFd};

    use super::*;

    #[test]
    fn only_the_program_that_is_meant_has_it() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut command = Command::new("sleep");
        command.arg("1000");
        keep(&mut command, writer.as_fd()).unwrap();
        let mut meant = command.spawn().unwrap();
        let mut other = Command::new("sleep").arg("1000").spawn().unwrap();
        drop((command, writer));
        meant.kill().unwrap();
        meant.wait().unwrap();
        // The end of the pipe is closed now; the other one would keep it open.
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
