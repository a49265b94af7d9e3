//! Removes trees made by strangers: any depth, any names, never following a link, with few descriptors.

use std::{
    ffi::{CStr, CString},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::{
    fs::{self as kernel, AtFlags, Mode, OFlags},
    io::Errno,
};

/// Deeper than this a subtree is moved up first: the depth of a tree is not bounded by the length of a path.
const MAX_OPEN: usize = 32;
const MAX_ATTEMPTS: u32 = 16;

/// Removes `name` in `parent`, whatever it is. `attic` is a directory on the same file system whose names may be used
/// for a moment; it outlives the removal.
pub fn remove_entry(parent: BorrowedFd<'_>, name: &CStr, attic: BorrowedFd<'_>) -> Result<(), Errno> {
    match kernel::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error),
    }
    // Subtrees moved to the attic because they were too deep to hold open.
    let mut moved = Vec::new();
    remove_directory(parent, name, attic, &mut moved)?;
    while let Some(name) = moved.pop() {
        remove_directory(attic, &name, attic, &mut moved)?;
    }
    Ok(())
}

fn remove_directory(
    parent: BorrowedFd<'_>,
    name: &CStr,
    attic: BorrowedFd<'_>,
    moved: &mut Vec<CString>,
) -> Result<(), Errno> {
    let mut stack = vec![Level::open(parent, name)?];
    loop {
        let depth = stack.len();
        let Some(level) = stack.last_mut() else { break };
        let Some(child) = level.next()? else {
            let Some(done) = stack.pop() else { break };
            let above = stack.last().map_or(parent, |level| level.fd.as_fd());
            match kernel::unlinkat(above, &*done.name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                // Some file systems skip names when others are removed while listing: list again.
                Err(Errno::NOTEMPTY) if done.attempts < MAX_ATTEMPTS => {
                    let again = Level {
                        attempts: done.attempts + 1,
                        ..Level::open(above, &done.name)?
                    };
                    stack.push(again);
                }
                Err(error) => return Err(error),
            }
            continue;
        };
        match kernel::unlinkat(&level.fd, &*child, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR | Errno::PERM) => {
                let fd = level.fd.as_fd();
                if depth < MAX_OPEN {
                    let below = Level::open(fd, &child)?;
                    stack.push(below);
                } else {
                    moved.push(move_up(fd, &child, attic)?);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn move_up(from: BorrowedFd<'_>, name: &CStr, attic: BorrowedFd<'_>) -> Result<CString, Errno> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let moved = format!(".podling-removed-{}-{number}", std::process::id());
        let moved = CString::new(moved).map_err(|_| Errno::INVAL)?;
        match kernel::renameat_with(from, name, attic, &*moved, kernel::RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(moved),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
    }
}

/// A directory on the way down.
struct Level {
    attempts: u32,
    name: CString,
    fd: OwnedFd,
    entries: kernel::Dir,
}

impl Level {
    fn open(parent: BorrowedFd<'_>, name: &CStr) -> Result<Level, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match kernel::openat(parent, name, flags, Mode::empty()) {
            // A directory its owner may not read: ours to change.
            Err(Errno::ACCESS) => {
                kernel::chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
                kernel::openat(parent, name, flags, Mode::empty())?
            }
            other => other?,
        };
        Ok(Level {
            attempts: 0,
            name: name.to_owned(),
            entries: kernel::Dir::read_from(&fd)?,
            fd,
        })
    }

    fn next(&mut self) -> Result<Option<CString>, Errno> {
        for entry in self.entries.by_ref() {
            let entry = entry?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                return Ok(Some(entry.file_name().to_owned()));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn a_tree_of_any_depth_goes_and_links_are_not_followed() {
        let base = tempfile::tempdir().unwrap();
        let outside = base.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), "kept").unwrap();
        let attic = fs::File::open(base.path()).unwrap();
        let make = |parent: BorrowedFd<'_>| {
            kernel::mkdirat(parent, c"d", Mode::RWXU).unwrap();
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            kernel::openat(parent, c"d", flags, Mode::empty()).unwrap()
        };
        // Far deeper than a path can say.
        let mut level = make(attic.as_fd());
        for _ in 0..5000 {
            kernel::symlinkat(outside.as_path(), &level, c"link").unwrap();
            level = make(level.as_fd());
        }
        symlink(&outside, base.path().join("d/top")).unwrap();
        remove_entry(attic.as_fd(), c"d", attic.as_fd()).unwrap();
        remove_entry(attic.as_fd(), c"d", attic.as_fd()).unwrap();
        let left: Vec<_> = fs::read_dir(base.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(left, ["outside"]);
        assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "kept");
    }
}
