//! Owners, modes, times and extended attributes.

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use rustix::{
    fs::{self as kernel, AtFlags, Mode, Timespec, Timestamps, XattrFlags},
    io::Errno,
};

use super::{Privilege, directories::resolve};
use crate::image::unpack::{
    archive::{Entry, Kind, Timestamp},
    spill::DirectoryRecord,
};

pub(super) fn node_attributes(
    entry: &Entry,
    parent: BorrowedFd<'_>,
    name: &CStr,
    privilege: Privilege,
) -> Result<(), Errno> {
    let nofollow = AtFlags::SYMLINK_NOFOLLOW;
    if privilege == Privilege::Root && (entry.uid, entry.gid) != own_ids() {
        kernel::chownat(parent, name, owner(entry.uid), group(entry.gid), nofollow)?;
    }
    // A link has no mode; for the rest nobody can put a link here between making the node and this.
    if entry.kind != Kind::Symlink {
        kernel::chmodat(parent, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
    }
    for (attribute, value) in kept_xattrs(&entry.xattrs, privilege) {
        let mut path = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
        path.extend_from_slice(name.to_bytes());
        let set = kernel::lsetxattr(path, &*attribute, value, XattrFlags::empty());
        // The kernel keeps user attributes on files and directories only.
        match set {
            Err(Errno::PERM) if attribute.to_bytes().starts_with(b"user.") => {}
            other => ignore_unsupported(other, privilege)?,
        }
    }
    kernel::utimensat(parent, name, &times(entry.mtime), nofollow)
}

pub(super) fn finish_directory(
    root: BorrowedFd<'_>,
    privilege: Privilege,
    record: &DirectoryRecord,
) -> io::Result<()> {
    let path = if record.path.is_empty() {
        b"."
    } else {
        record.path.as_slice()
    };
    let Ok(directory) = resolve(root, path) else {
        return Ok(());
    };
    if kernel::fstat(&directory)?.st_ino != record.inode {
        return Ok(());
    }
    if privilege == Privilege::Root && (record.uid, record.gid) != own_ids() {
        kernel::fchown(&directory, owner(record.uid), group(record.gid))?;
    }
    kernel::fchmod(&directory, Mode::from_raw_mode(record.mode))?;
    for (name, value) in kept_xattrs(&record.xattrs, privilege) {
        ignore_unsupported(
            kernel::fsetxattr(&directory, &*name, value, XattrFlags::empty()),
            privilege,
        )?;
    }
    kernel::futimens(&directory, &times(record.mtime))?;
    Ok(())
}

/// Attributes a layer may bring: those of users, capabilities and access lists. Everything else means something to
/// the host: overlayfs's own marks, security labels, signatures.
pub(super) fn may_keep(name: &[u8], privilege: Privilege) -> bool {
    let user = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
    let root = matches!(
        name,
        b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default"
    );
    user || (root && privilege == Privilege::Root)
}

pub(super) fn kept_xattrs(
    xattrs: &[(Vec<u8>, Vec<u8>)],
    privilege: Privilege,
) -> impl Iterator<Item = (CString, &[u8])> {
    xattrs.iter().filter_map(move |(name, value)| {
        let name = CString::new(name.as_slice()).ok()?;
        may_keep(name.to_bytes(), privilege).then_some((name, value.as_slice()))
    })
}

/// The attributes a directory shares with one that takes its place in a stack.
pub(in crate::image) fn copied_xattrs(
    from: BorrowedFd<'_>,
    privilege: Privilege,
) -> Result<Vec<(CString, Vec<u8>)>, Errno> {
    let mut list = vec![0; 64 << 10];
    let length = match kernel::flistxattr(from, &mut list[..]) {
        Err(Errno::OPNOTSUPP) => 0,
        other => other?,
    };
    let mut copied = Vec::new();
    for name in list.get(..length).unwrap_or_default().split(|byte| *byte == 0) {
        if may_keep(name, privilege) {
            let name = CString::new(name).map_err(|_| Errno::INVAL)?;
            let mut value = vec![0; 64 << 10];
            let length = kernel::fgetxattr(from, &*name, &mut value[..])?;
            value.truncate(length);
            copied.push((name, value));
        }
    }
    Ok(copied)
}

/// A file system without an attribute's support still holds the image, as Docker has it; a value the kernel finds
/// malformed is the layer's fault.
pub(super) fn ignore_unsupported(result: Result<(), Errno>, privilege: Privilege) -> Result<(), Errno> {
    match result {
        Err(Errno::OPNOTSUPP) => Ok(()),
        Err(Errno::PERM | Errno::ACCESS) if privilege == Privilege::User => Ok(()),
        other => other,
    }
}

pub(super) fn times(mtime: Timestamp) -> Timestamps {
    let time = Timespec {
        tv_sec: mtime.seconds,
        tv_nsec: mtime.nanoseconds.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

pub(super) fn own_ids() -> (u32, u32) {
    (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    )
}

pub(super) fn owner(uid: u32) -> Option<kernel::Uid> {
    Some(kernel::Uid::from_raw(uid))
}

pub(super) fn group(gid: u32) -> Option<kernel::Gid> {
    Some(kernel::Gid::from_raw(gid))
}
