//! Where `podling up` keeps its pods and sandboxes.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use crate::{
    base::{
        private::{self, PrivateError},
        remove,
    },
    cli::{Failure, failure},
};

/// What a directory of ours begins with, below the place for temporary files.
const PREFIX: &str = "podling-";

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
        let path = match named {
            Some(path) => path.to_owned(),
            None => new_name(),
        };
        let refused = |error: PrivateError| Failure::failed(error);
        let path = private::directory(&path).map_err(refused)?;
        let lock = private::file(&path.join("lock")).map_err(refused)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(Failure::failed(format!(
                "{} is in use by another podling",
                path.display()
            )));
        }
        Ok(WorkDir {
            path,
            temporary: named.is_none(),
            _lock: lock,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where sandboxes go: closed to others, who could use what members put there.
    pub fn sandboxes(&self) -> Result<PathBuf, PrivateError> {
        private::directory(&self.path.join("work"))
    }
}

fn new_name() -> PathBuf {
    let unique = uuid::Uuid::new_v4().simple().to_string();
    let name = format!("{PREFIX}{}", unique.get(..12).unwrap_or(&unique));
    std::env::temp_dir().join(name)
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if self.temporary
            && let Err(error) = remove::tree(&self.path)
        {
            failure::complain(format_args!("{} stays: {error}", self.path.display()));
        }
    }
}

/// Removes what a `podling up` that was killed has left among the temporary files: what is ours by name and owner, and
/// whose lock nobody holds. Answers what went, and what could not.
pub(in crate::cli) fn sweep(temporary: &Path) -> (Vec<PathBuf>, Vec<(PathBuf, std::io::Error)>) {
    let (mut gone, mut stays) = (Vec::new(), Vec::new());
    // Without such a place nothing of ours is there.
    let entries = fs::read_dir(temporary).into_iter().flatten();
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let Some(_lock) = abandoned(&path) else {
            continue;
        };
        match remove::tree(&path) {
            Ok(()) => gone.push(path),
            Err(error) => stays.push((path, error)),
        }
    }
    (gone, stays)
}

/// The lock of a directory that nobody works in any more.
fn abandoned(path: &Path) -> Option<File> {
    let unique = path.file_name()?.to_str()?.strip_prefix(PREFIX)?;
    let hexadecimal = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if unique.len() != 12 || !unique.bytes().all(hexadecimal) {
        return None;
    }
    let found = fs::symlink_metadata(path).ok()?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() || found.mode() & 0o022 != 0 {
        return None;
    }
    // One without a lock is being made, or removed, this very moment.
    let name = path.join("lock");
    let lock = private::existing(&name).ok()?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive).ok()?;
    // Its holder may have removed it between the two.
    let (held, there) = (lock.metadata().ok()?, fs::symlink_metadata(&name).ok()?);
    (held.dev() == there.dev() && held.ino() == there.ino()).then_some(lock)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

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
    fn two_do_not_share_a_directory_and_nobody_else_looks_into_it() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("state");
        let first = WorkDir::open(Some(&path)).unwrap();
        let second = WorkDir::open(Some(&path)).unwrap_err();
        assert!(
            second.to_string().ends_with("is in use by another podling"),
            "{second}"
        );
        for (name, mode) in [("", 0o700), ("lock", 0o600)] {
            assert_eq!(
                fs::metadata(path.join(name)).unwrap().mode() & 0o777,
                mode,
                "{name}"
            );
        }
        assert_eq!(
            fs::metadata(first.sandboxes().unwrap()).unwrap().mode() & 0o777,
            0o700
        );
        drop(first);
        WorkDir::open(Some(&path)).unwrap();
    }

    #[test]
    fn s6_a_planted_lock_is_not_followed() {
        let place = tempfile::tempdir().unwrap();
        let victim = place.path().join("victim");
        let state = place.path().join("state");
        fs::create_dir(&state).unwrap();
        std::os::unix::fs::symlink(&victim, state.join("lock")).unwrap();
        let error = WorkDir::open(Some(&state)).unwrap_err();
        assert!(error.to_string().contains("lock is not a plain file"), "{error}");
        assert!(!victim.exists());
    }

    #[test]
    fn n3_what_a_killed_one_left_is_removed_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        let left = |name: &str| {
            private::directory(&at(name)).unwrap();
            private::file(&at(name).join("lock")).unwrap()
        };
        drop(left("podling-0123456789ab"));
        fs::create_dir_all(at("podling-0123456789ab/work/deep")).unwrap();
        let held = left("podling-0123456789ac");
        flock(&held, FlockOperation::NonBlockingLockExclusive).unwrap();
        drop(left("podling-0123456789AB"));
        drop(left("podling-agent-012345"));
        fs::create_dir(at("podling-0123456789ad")).unwrap();
        std::os::unix::fs::symlink(at("podling-agent-012345"), at("podling-0123456789ae")).unwrap();
        let open = left("podling-0123456789af");
        fs::set_permissions(at("podling-0123456789af"), fs::Permissions::from_mode(0o777)).unwrap();
        drop(open);
        let (gone, stays) = sweep(place.path());
        assert_eq!(gone, [at("podling-0123456789ab")]);
        assert!(stays.is_empty() && !at("podling-0123456789ab").exists());
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 6);
        drop(held);
        assert_eq!(sweep(place.path()).0, [at("podling-0123456789ac")]);
    }
}
