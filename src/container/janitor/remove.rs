//! Removing what is written down, and nothing else.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStringExt, fs::MetadataExt},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, statat, unlinkat},
    io::Errno,
    mount::{UnmountFlags, unmount},
};

use super::{
    Failed, Report,
    register::{Identity, Leftover},
};
use crate::container::cgroup::{self, Removed};

/// Cgroups first: processes hold everything else.
pub(super) fn everything(leftovers: &[Leftover], report: &mut Report) {
    let cgroups: Vec<(PathBuf, Option<u64>)> = leftovers
        .iter()
        .filter_map(|leftover| match leftover {
            Leftover::Cgroup { path, inode } => Some((path.clone(), *inode)),
            _ => None,
        })
        .collect();
    for (path, result) in cgroup::remove_stale(&cgroups) {
        match result {
            Ok(Removed::Gone) => {}
            Ok(Removed::Now) => report.removed.push(path),
            Ok(Removed::Foreign) => report.foreign.push(path),
            Err(error) => fail(report, &path, &error),
        }
    }
    for leftover in leftovers.iter().rev() {
        let result = match leftover {
            Leftover::Cgroup { .. } => continue,
            Leftover::Mount { target, device } => mount(target, device.as_deref()),
            Leftover::Directory { path, identity } => directory(path, *identity),
            Leftover::File { path, identity } => file(path, *identity),
        };
        let path = leftover.path();
        match result {
            Ok(Removed::Gone) => {}
            Ok(Removed::Now) => report.removed.push(path.into()),
            Ok(Removed::Foreign) => report.foreign.push(path.into()),
            Err(error) => fail(report, path, &error),
        }
    }
}

fn fail(report: &mut Report, path: &Path, error: &dyn std::error::Error) {
    let mut reason = error.to_string();
    if let Some(source) = error.source() {
        reason.push_str(": ");
        reason.push_str(&source.to_string());
    }
    report.failed.push(Failed {
        path: path.into(),
        reason,
    });
}

/// Takes off the topmost mount at `target`, if it is the file system written down.
fn mount(target: &Path, device: Option<&str>) -> io::Result<Removed> {
    let mounted: Vec<Mounted> = mounts()?
        .into_iter()
        .filter(|mounted| mounted.target == target)
        .collect();
    let Some(top) = mounted.last() else {
        return Ok(Removed::Gone);
    };
    if device != Some(&top.device) {
        return Ok(Removed::Foreign);
    }
    unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
    Ok(Removed::Now)
}

struct Mounted {
    device: String,
    target: PathBuf,
}

fn mounts() -> io::Result<Vec<Mounted>> {
    let text = fs::read("/proc/self/mountinfo")?;
    let mounted = text.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ');
        let device = String::from_utf8_lossy(fields.nth(2)?).into_owned();
        let target = cgroup::unescape(fields.nth(1)?);
        Some(Mounted { device, target })
    });
    Ok(mounted.collect())
}

fn file(path: &Path, identity: Option<Identity>) -> io::Result<Removed> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Removed::Gone),
        Err(error) => return Err(error),
    };
    let same = identity.is_some_and(|known| known.device == found.dev() && known.inode == found.ino());
    if !same || found.is_dir() {
        return Ok(Removed::Foreign);
    }
    fs::remove_file(path)?;
    Ok(Removed::Now)
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

fn directory(path: &Path, identity: Option<Identity>) -> io::Result<Removed> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(Removed::Foreign);
    };
    let parent = match rustix::fs::open(parent, DIRECTORY, Mode::empty()) {
        Ok(parent) => parent,
        Err(Errno::NOENT) => return Ok(Removed::Gone),
        Err(errno) => return Err(errno.into()),
    };
    let Some(identity) = identity else {
        // Announced, never confirmed: nothing of ours is in it.
        return match unlinkat(&parent, name, AtFlags::REMOVEDIR) {
            Ok(()) => Ok(Removed::Now),
            Err(Errno::NOENT) => Ok(Removed::Gone),
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR | Errno::BUSY) => Ok(Removed::Foreign),
            Err(errno) => Err(errno.into()),
        };
    };
    let top = match openat(&parent, name, DIRECTORY, Mode::empty()) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(Removed::Gone),
        Err(Errno::LOOP | Errno::NOTDIR) => return Ok(Removed::Foreign),
        Err(errno) => return Err(errno.into()),
    };
    let found = rustix::fs::fstat(&top)?;
    if (found.st_dev, found.st_ino) != (identity.device, identity.inode) {
        return Ok(Removed::Foreign);
    }
    // The last mounted first.
    for mounted in mounts()?.iter().rev() {
        if mounted.target != path && mounted.target.starts_with(path) {
            unmount(&mounted.target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
        }
    }
    empty(&top)?;
    drop(top);
    unlinkat(&parent, name, AtFlags::REMOVEDIR)?;
    Ok(Removed::Now)
}

/// Empties a directory however deep it is: a directory that is not empty moves up to the top and waits for its turn,
/// so that we never hold more than two open. Neither links nor mounts are followed: entering a mounted directory
/// would show another device, and moving one fails.
fn empty(top: &OwnedFd) -> io::Result<()> {
    let device = rustix::fs::fstat(top)?.st_dev;
    let mut graves = 0u64;
    let mut waiting: VecDeque<OsString> = VecDeque::new();
    clear(top, top, &mut graves, &mut waiting, true)?;
    while let Some(name) = waiting.pop_front() {
        let inner = openat(top, &name, DIRECTORY, Mode::empty())?;
        if rustix::fs::fstat(&inner)?.st_dev != device {
            return Err(io::Error::other("another file system is mounted inside"));
        }
        clear(top, &inner, &mut graves, &mut waiting, false)?;
        drop(inner);
        unlinkat(top, &name, AtFlags::REMOVEDIR)?;
    }
    Ok(())
}

/// Removes the files of one directory; its directories go to, or stay at, the top.
fn clear(
    top: &OwnedFd,
    directory: &OwnedFd,
    graves: &mut u64,
    waiting: &mut VecDeque<OsString>,
    is_top: bool,
) -> io::Result<()> {
    let names: Vec<(OsString, FileType)> = Dir::read_from(directory)?
        .map(|entry| {
            let entry = entry?;
            let name = OsString::from_vec(entry.file_name().to_bytes().to_vec());
            Ok((name, entry.file_type()))
        })
        .collect::<io::Result<_>>()?;
    for (name, kind) in names {
        if name == "." || name == ".." {
            continue;
        }
        if !is_directory(directory, &name, kind)? {
            unlinkat(directory, &name, AtFlags::empty())?;
            continue;
        }
        match unlinkat(directory, &name, AtFlags::REMOVEDIR) {
            Ok(()) => {}
            Err(Errno::NOTEMPTY | Errno::EXIST) if is_top => waiting.push_back(name),
            Err(Errno::NOTEMPTY | Errno::EXIST) => waiting.push_back(bury(top, directory, &name, graves)?),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn is_directory(parent: &OwnedFd, name: &OsStr, kind: FileType) -> io::Result<bool> {
    Ok(match kind {
        FileType::Unknown => {
            let stat = statat(parent.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW)?;
            FileType::from_raw_mode(stat.st_mode) == FileType::Directory
        }
        kind => kind == FileType::Directory,
    })
}

/// Moves a directory to the top under a name that is free.
fn bury(top: &OwnedFd, from: &OwnedFd, name: &OsStr, graves: &mut u64) -> io::Result<OsString> {
    loop {
        let grave = OsString::from(format!(".podling-{graves}"));
        *graves += 1;
        match rustix::fs::renameat_with(from, name, top, &grave, rustix::fs::RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(grave),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
#[path = "remove_tests.rs"]
mod tests;
