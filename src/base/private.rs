//! Files and directories that are ours alone.
//!
//! What lies at a place that others may write to need not be what we put there: a link leads elsewhere, a planted
//! database runs what its author likes. So a file of ours is opened without following a link, and has to be a regular
//! file, of ours, known by one name, in a directory that nobody else may write to.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

#[derive(Debug, thiserror::Error)]
pub enum PrivateError {
    #[error("{} belongs to somebody else (user {owner}); use a place of your own", path.display())]
    Foreign { path: PathBuf, owner: u32 },
    #[error("others may write to {}; take that right away (chmod go-w) or use another place", path.display())]
    Open { path: PathBuf },
    #[error("{} is not a plain file with one name: somebody may have put it there; remove it", path.display())]
    Planted { path: PathBuf },
    #[error("cannot use {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> PrivateError {
    let path = path.to_owned();
    move |source| PrivateError::Io { path, source }
}

/// A directory in which only we (and root) write: made for us alone if it is not there, and looked at if it is.
/// Returns its path without links.
pub fn directory(path: &Path) -> Result<PathBuf, PrivateError> {
    let path = match path.as_os_str().is_empty() {
        true => Path::new("."),
        false => path,
    };
    let ours = |owner: u32| owner == 0 || owner == rustix::process::geteuid().as_raw();
    // Somebody's link in a directory for all would lead us where they like.
    if let Ok(link) = fs::symlink_metadata(path)
        && link.is_symlink()
        && !ours(link.uid())
    {
        return Err(PrivateError::Foreign {
            path: path.to_owned(),
            owner: link.uid(),
        });
    }
    DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(path)
        .map_err(failed(path))?;
    let path = path.canonicalize().map_err(failed(path))?;
    let found = fs::symlink_metadata(&path).map_err(failed(&path))?;
    let owner = found.uid();
    if !ours(owner) {
        return Err(PrivateError::Foreign { path, owner });
    }
    if found.mode() & 0o022 != 0 {
        return Err(PrivateError::Open { path });
    }
    Ok(path)
}

/// Opens a file of ours in such a directory for writing, or makes it; nobody else may even read it, whatever the
/// umask.
pub fn file(path: &Path) -> Result<File, PrivateError> {
    open(path, true)
}

/// The same, of one that is there already.
pub fn existing(path: &Path) -> Result<File, PrivateError> {
    open(path, false)
}

fn open(path: &Path, create: bool) -> Result<File, PrivateError> {
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(create)
        .truncate(false)
        .mode(0o600)
        // Of a FIFO nobody waits for the other end.
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(path);
    let file = match opened {
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            return Err(PrivateError::Planted {
                path: path.to_owned(),
            });
        }
        other => other.map_err(failed(path))?,
    };
    let found = file.metadata().map_err(failed(path))?;
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err(PrivateError::Foreign {
            path: path.to_owned(),
            owner: found.uid(),
        });
    }
    if !found.is_file() || found.nlink() != 1 {
        return Err(PrivateError::Planted {
            path: path.to_owned(),
        });
    }
    if found.mode() & 0o777 != 0o600 {
        file.set_permissions(fs::Permissions::from_mode(0o600))
            .map_err(failed(path))?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn s6_what_others_may_have_planted_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        fs::write(at("real"), "x").unwrap();
        symlink(at("real"), at("link")).unwrap();
        symlink(at("nowhere"), at("dangling")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at("fifo"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        for planted in ["link", "dangling", "fifo"] {
            let error = file(&at(planted)).unwrap_err();
            assert!(matches!(error, PrivateError::Planted { .. }), "{error}");
        }
        assert!(!at("nowhere").exists());
        file(&at("real")).unwrap();
        assert_eq!(fs::metadata(at("real")).unwrap().mode() & 0o777, 0o600);
        fs::hard_link(at("real"), at("second")).unwrap();
        let error = file(&at("second")).unwrap_err();
        assert!(matches!(error, PrivateError::Planted { .. }), "{error}");
        if rustix::process::geteuid().is_root() {
            fs::write(at("foreign"), "x").unwrap();
            std::os::unix::fs::chown(at("foreign"), Some(65534), None).unwrap();
            let error = file(&at("foreign")).unwrap_err();
            assert!(
                matches!(error, PrivateError::Foreign { owner: 65534, .. }),
                "{error}"
            );
        }
    }

    #[test]
    fn s6_a_directory_that_others_write_to_is_refused_and_a_new_one_is_closed() {
        let home = tempfile::tempdir().unwrap();
        let made = directory(&home.path().join("a/b")).unwrap();
        assert_eq!(fs::metadata(&made).unwrap().mode() & 0o777, 0o700);
        for mode in [0o777, 0o1777, 0o770] {
            fs::set_permissions(&made, fs::Permissions::from_mode(mode)).unwrap();
            let error = directory(&made).unwrap_err();
            assert!(matches!(error, PrivateError::Open { .. }), "{error}");
        }
        fs::set_permissions(&made, fs::Permissions::from_mode(0o755)).unwrap();
        directory(&made).unwrap();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&made, Some(65534), None).unwrap();
            let error = directory(&made).unwrap_err();
            assert!(matches!(error, PrivateError::Foreign { .. }), "{error}");
        }
    }
}
