//! The parts of the descriptor-based mount interface that no crate has.

#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use rustix::mount::OpenTreeFlags;

/// Attributes for [`set_attributes`] and `fsmount`.
pub const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY;
pub const NO_SUID: u64 = libc::MOUNT_ATTR_NOSUID;
pub const NO_DEV: u64 = libc::MOUNT_ATTR_NODEV;
pub const NO_EXEC: u64 = libc::MOUNT_ATTR_NOEXEC;

/// Shows the owners of files in a mount that is in no tree yet as the users of that namespace see them, also in all
/// mounts below it.
pub fn map_owners(mount: BorrowedFd<'_>, users: BorrowedFd<'_>) -> io::Result<()> {
    change(
        mount,
        libc::mount_attr {
            attr_set: libc::MOUNT_ATTR_IDMAP,
            attr_clr: 0,
            propagation: 0,
            userns_fd: users.as_raw_fd() as u64,
        },
        true,
    )
}

/// A mount of a directory, in no tree, in which files belong to the users of that namespace.
pub fn mapped(directory: BorrowedFd<'_>, users: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let mount = rustix::mount::open_tree(directory, c"", flags)?;
    map_owners(mount.as_fd(), users)?;
    Ok(mount)
}

/// Sets attributes (and, unless 0, the propagation) of a mount, and of all below it when recursive.
pub fn set_attributes(mount: BorrowedFd<'_>, set: u64, propagation: u64, recursive: bool) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: set,
        attr_clr: 0,
        propagation,
        userns_fd: 0,
    };
    change(mount, attributes, recursive)
}

fn change(mount: BorrowedFd<'_>, attributes: libc::mount_attr, recursive: bool) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: an open descriptor, an empty path and a structure of the size given; all live until the call returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A second mount of the same as one that is in no tree; that one may be another one afterwards.
pub fn another(mount: &mut OwnedFd) -> io::Result<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    match rustix::mount::open_tree(&*mount, c"", flags) {
        Ok(copy) => Ok(copy),
        Err(rustix::io::Errno::INVAL) => another_in_a_thread(mount),
        Err(errno) => Err(errno.into()),
    }
}

/// Before Linux 6.15 a mount had to be in the tree of whoever copies it. So it is put into that of a thread, which
/// makes two of it there and ends.
fn another_in_a_thread(mount: &mut OwnedFd) -> io::Result<OwnedFd> {
    use rustix::mount::{MountPropagationFlags, MoveMountFlags, mount_change, move_mount, open_tree};

    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let held = mount.as_fd();
    let copies = std::thread::scope(|scope| {
        let copies = scope.spawn(|| -> io::Result<(OwnedFd, OwnedFd)> {
            separate_thread()?;
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
            move_mount(
                held,
                c"",
                rustix::fs::CWD,
                c"/",
                MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
            )?;
            Ok((open_tree(held, c"", flags)?, open_tree(held, c"", flags)?))
        });
        copies
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the mounting thread was lost")))
    });
    let (kept, copy) = copies?;
    *mount = kept;
    Ok(copy)
}

/// Gives the calling thread a mount tree, root and working directory of its own.
pub fn separate_thread() -> io::Result<()> {
    // SAFETY: takes flags only. The descriptor table stays shared, so that no descriptor changes its owner.
    match unsafe { libc::unshare(libc::CLONE_FS | libc::CLONE_NEWNS) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

    use super::*;

    #[test]
    fn a_mount_in_no_tree_can_be_had_again_and_again_on_every_kernel() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        fsconfig_create(&context).unwrap();
        let mut mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap();
        rustix::fs::mkdirat(&mount, "mark", rustix::fs::Mode::RWXU).unwrap();
        for copy in [another, another_in_a_thread, another_in_a_thread, another] {
            let copy = copy(&mut mount).unwrap();
            for each in [&copy, &mount] {
                rustix::fs::statat(each, "mark", rustix::fs::AtFlags::empty()).unwrap();
            }
        }
    }
}
