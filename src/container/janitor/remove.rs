//! Removing what is written down, and nothing else.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Mode, openat, unlinkat},
    io::Errno,
    mount::{UnmountFlags, unmount},
};

use super::{
    Failed, Report,
    register::{Identity, Leftover},
};
use crate::{
    base::remove::{DIRECTORY, empty},
    container::cgroup::{self, Removed},
};

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

#[cfg(test)]
#[path = "remove_tests.rs"]
mod tests;
