//! Where `podling up` keeps its pods and sandboxes.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use crate::cli::{Failure, failure};

/// A directory that goes with us, unless somebody named it.
#[derive(Debug)]
pub(in crate::cli) struct WorkDir {
    path: PathBuf,
    temporary: bool,
    /// Nobody else works in here as long as we do.
    _lock: File,
}

impl WorkDir {
    pub fn open(named: Option<&Path>) -> Result<Self, Failure> {
        let (path, temporary) = match named {
            Some(path) => (path.to_owned(), false),
            None => (new_name(), true),
        };
        let cannot = |error: &io::Error| Failure::failed(format!("cannot use {}: {error}", path.display()));
        // Members of other users pass through it to their sandboxes; nobody else looks around in it.
        let made = DirBuilder::new()
            .mode(0o711)
            .recursive(named.is_some())
            .create(&path);
        let path = made
            .and_then(|()| path.canonicalize())
            .map_err(|error| cannot(&error))?;
        let lock = private_file(&path.join("lock")).map_err(|error| cannot(&error))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(Failure::failed(format!(
                "{} is in use by another podling",
                path.display()
            )));
        }
        Ok(WorkDir {
            path,
            temporary,
            _lock: lock,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file that only we read: what pods are told may be secret.
    pub fn private(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.path.join(name);
        private_file(&path)?;
        Ok(path)
    }
}

fn new_name() -> PathBuf {
    let unique = uuid::Uuid::new_v4().simple().to_string();
    std::env::temp_dir().join(format!("podling-{}", unique.get(..12).unwrap_or(&unique)))
}

fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if self.temporary
            && let Err(error) = remove(&self.path)
        {
            failure::complain(format_args!("{} stays: {error}", self.path.display()));
        }
    }
}

/// Removes a tree in which members could do what they liked.
fn remove(path: &Path) -> io::Result<()> {
    // To remove what is mounted below would be to remove what is in the volume.
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let mut points = table.lines().filter_map(|line| line.split(' ').nth(4));
    if let Some(mounted) = points.find(|point| Path::new(point).starts_with(path)) {
        return Err(io::Error::other(format!("{mounted} is mounted")));
    }
    match fs::remove_dir_all(path) {
        // A member of an ordinary user may have closed a directory to its own user.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_directories(path)?;
            fs::remove_dir_all(path)
        }
        other => other,
    }
}

fn open_directories(path: &Path) -> io::Result<()> {
    let mut waiting = vec![path.to_owned()];
    while let Some(directory) = waiting.pop() {
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            // Of the entry itself: no link is followed out of the tree.
            if entry.file_type()?.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_directory_goes_whatever_members_did_to_it_and_a_named_one_stays() {
        let temporary = WorkDir::open(None).unwrap();
        let path = temporary.path().to_owned();
        fs::create_dir_all(path.join("shut/inner")).unwrap();
        fs::write(path.join("shut/inner/file"), "x").unwrap();
        fs::set_permissions(path.join("shut"), fs::Permissions::from_mode(0o0)).unwrap();
        std::os::unix::fs::symlink("/", path.join("root")).unwrap();
        let named = path.join("named");
        drop(WorkDir::open(Some(&named)).unwrap());
        assert!(named.is_dir());
        drop(temporary);
        assert!(!path.exists());
    }

    #[test]
    fn directories_closed_to_their_own_user_are_opened() {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir_all(place.path().join("a/b")).unwrap();
        fs::set_permissions(place.path().join("a/b"), fs::Permissions::from_mode(0o0)).unwrap();
        open_directories(place.path()).unwrap();
        let mode = fs::metadata(place.path().join("a/b"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn two_do_not_share_a_directory() {
        let place = tempfile::tempdir().unwrap();
        let first = WorkDir::open(Some(place.path())).unwrap();
        let second = WorkDir::open(Some(place.path())).unwrap_err();
        assert!(
            second.to_string().ends_with("is in use by another podling"),
            "{second}"
        );
        let file = first.private("state.db").unwrap();
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        drop(first);
        WorkDir::open(Some(place.path())).unwrap();
    }
}
