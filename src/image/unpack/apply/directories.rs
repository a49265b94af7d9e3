//! Directories of a layer, found and made without ever leaving it.

use std::{
    ffi::CStr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{self as kernel, AtFlags, FileType, Mode, OFlags, ResolveFlags, XattrFlags},
    io::Errno,
};

use super::Privilege;

/// Opens a directory as a container whose root is `root` would see it.
pub(super) fn resolve(root: BorrowedFd<'_>, path: impl rustix::path::Arg + Copy) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    loop {
        match kernel::openat2(root, path, flags, Mode::empty(), resolve) {
            // A rename anywhere on the machine makes the kernel give up on "..".
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

pub(super) fn open_directory(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    kernel::openat(parent, name, flags, Mode::empty())
}

/// Makes or opens a directory. Where a whiteout stood, the directory hides what the whiteout hid.
pub(super) fn make_directory(
    parent: BorrowedFd<'_>,
    name: &CStr,
    privilege: Privilege,
) -> Result<OwnedFd, Errno> {
    match kernel::mkdirat(parent, name, Mode::RWXU) {
        Ok(()) => open_directory(parent, name),
        Err(Errno::EXIST) => {
            let stat = kernel::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice || stat.st_rdev != 0 {
                return open_directory(parent, name);
            }
            kernel::unlinkat(parent, name, AtFlags::empty())?;
            kernel::mkdirat(parent, name, Mode::RWXU)?;
            let directory = open_directory(parent, name)?;
            make_opaque(directory.as_fd(), privilege)?;
            Ok(directory)
        }
        Err(error) => Err(error),
    }
}

pub(super) fn make_opaque(directory: BorrowedFd<'_>, privilege: Privilege) -> Result<(), Errno> {
    kernel::fsetxattr(directory, privilege.opaque_attribute(), b"y", XattrFlags::empty())
}
