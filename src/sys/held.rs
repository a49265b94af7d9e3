//! A directory that we hold: what is below it is found from its descriptor, one name after the other, and no link is
//! followed. So it does not matter who renames what above or below it meanwhile.

use std::{
    fs::File,
    io::{self, Write as _},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{self, AtFlags, Mode, OFlags},
    io::Errno,
};

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

#[derive(Debug, Clone)]
pub struct Held {
    directory: Arc<OwnedFd>,
    /// Where it was found. For sentences, and for whoever cleans up after us.
    path: PathBuf,
}

impl Held {
    /// Where somebody whom we trust says that it is: links on the way are followed.
    pub fn open(path: &Path) -> io::Result<Held> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Held {
            directory: Arc::new(fs::open(path, flags, Mode::empty())?),
            path: path.to_owned(),
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Device and inode: which directory it is, whatever it is called.
    pub fn identity(&self) -> io::Result<(u64, u64)> {
        let stat = fs::fstat(&self.directory)?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// A directory in it that is ours and that nobody else can enter, made if it is missing. One that somebody else
    /// has put there is refused.
    pub fn private(&self, name: &str) -> io::Result<Held> {
        match fs::mkdirat(&self.directory, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        let held = self.enter(name)?;
        let stat = fs::fstat(&held.directory)?;
        if stat.st_uid != rustix::process::geteuid().as_raw() {
            let text = format!("it belongs to user {}, and is to be ours", stat.st_uid);
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        if Mode::from_raw_mode(stat.st_mode) != Mode::RWXU {
            fs::fchmod(&held.directory, Mode::RWXU)?;
        }
        Ok(held)
    }

    /// A directory in it that was not there.
    pub fn fresh(&self, name: &str) -> io::Result<Held> {
        fs::mkdirat(&self.directory, name, Mode::RWXU)?;
        self.enter(name)
    }

    /// A file in it with these bytes, in the place of whatever has that name.
    pub fn write(&self, name: &str, mode: Mode, bytes: &[u8]) -> io::Result<OwnedFd> {
        match fs::unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(fs::openat(&self.directory, name, flags, mode)?);
        // Whatever our umask is.
        fs::fchmod(&file, mode)?;
        file.write_all(bytes)?;
        Ok(file.into())
    }

    /// Removes a directory in it, if that is empty.
    pub fn remove_empty(&self, name: &str) -> io::Result<()> {
        Ok(fs::unlinkat(&self.directory, name, AtFlags::REMOVEDIR)?)
    }

    fn enter(&self, name: &str) -> io::Result<Held> {
        Ok(Held {
            directory: Arc::new(fs::openat(&self.directory, name, DIRECTORY, Mode::empty())?),
            path: self.path.join(name),
        })
    }
}

impl AsFd for Held {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn s_2_what_is_held_stays_that_and_links_are_refused() {
        let place = tempfile::tempdir().unwrap();
        let (inside, outside) = (place.path().join("inside"), place.path().join("outside"));
        for path in [&inside, &outside] {
            std::fs::create_dir(path).unwrap();
        }
        let held = Held::open(&inside).unwrap();
        let own = held.private("own").unwrap();
        // Its name now means something else.
        std::fs::rename(inside.join("own"), inside.join("moved")).unwrap();
        symlink(&outside, inside.join("own")).unwrap();
        own.write("file", Mode::RUSR, b"text").unwrap();
        own.fresh("new").unwrap();
        own.fresh("new").unwrap_err();
        assert!(held.private("own").is_err() && held.fresh("own").is_err());
        // The link itself gives way to a file, not what it leads to.
        symlink(outside.join("file"), inside.join("moved/link")).unwrap();
        own.write("link", Mode::RUSR, b"text").unwrap();
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
        assert!(inside.join("moved/link").metadata().unwrap().is_file());
    }

    #[test]
    fn s_2_a_private_directory_is_nobody_elses() {
        let place = tempfile::tempdir().unwrap();
        let held = Held::open(place.path()).unwrap();
        std::fs::create_dir(place.path().join("open")).unwrap();
        std::fs::set_permissions(place.path().join("open"), PermissionsExt::from_mode(0o777)).unwrap();
        held.private("open").unwrap();
        let mode = place.path().join("open").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        if rustix::process::geteuid().is_root() {
            std::fs::create_dir(place.path().join("theirs")).unwrap();
            std::os::unix::fs::chown(place.path().join("theirs"), Some(65534), None).unwrap();
            let error = held.private("theirs").unwrap_err().to_string();
            assert!(error.contains("belongs to user 65534"), "{error}");
        }
    }
}
