//! Locks between the processes of a node. The kernel drops them when their holder dies, whatever the way.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::{fs::FlockOperation, io::Errno};

/// A held lock file.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    path: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Shared,
    Exclusive,
}

impl Lock {
    /// Takes the lock if nobody else has it.
    pub(super) fn try_take(path: &Path, mode: Mode) -> io::Result<Option<Lock>> {
        let operation = match mode {
            Mode::Shared => FlockOperation::NonBlockingLockShared,
            Mode::Exclusive => FlockOperation::NonBlockingLockExclusive,
        };
        loop {
            let file = open(path)?;
            match rustix::fs::flock(&file, operation) {
                Ok(()) if still_there(&file, path) => {
                    return Ok(Some(Lock {
                        file,
                        path: path.to_owned(),
                    }));
                }
                // The file was removed while we waited for it; a lock on it keeps nobody out.
                Ok(()) | Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits for the lock. Only for locks that are held for moments.
    pub(super) fn take(path: &Path, mode: Mode) -> io::Result<Lock> {
        let operation = match mode {
            Mode::Shared => FlockOperation::LockShared,
            Mode::Exclusive => FlockOperation::LockExclusive,
        };
        loop {
            let file = open(path)?;
            match rustix::fs::flock(&file, operation) {
                Ok(()) if still_there(&file, path) => {
                    return Ok(Lock {
                        file,
                        path: path.to_owned(),
                    });
                }
                Ok(()) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The locked file, which may hold something.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Gives the lock up and removes its file.
    pub(super) fn remove(self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

fn still_there(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(mine), Ok(there)) => (mine.dev(), mine.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time_also_when_the_file_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let try_take = |mode| Lock::try_take(&path, mode).unwrap();
        let first = try_take(Mode::Exclusive).unwrap();
        assert!(try_take(Mode::Exclusive).is_none());
        assert!(try_take(Mode::Shared).is_none());
        first.remove().unwrap();
        let (one, two) = (try_take(Mode::Shared), try_take(Mode::Shared));
        assert!(one.is_some() && two.is_some());
        assert!(try_take(Mode::Exclusive).is_none());
        drop((one, two));
        assert!(try_take(Mode::Exclusive).is_some());
    }
}
