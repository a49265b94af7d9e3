//! Paths below a directory that we hold, walked so that nothing leads out of it, whoever renames what meanwhile.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::OpenTreeFlags;

use super::mapped::MappedUsers;
use crate::sys;

/// Whom something new belongs to, and with which mode.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ownership {
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
}

/// A descriptor that only names a place. Links are followed: for places the operator or the agent named.
pub(super) fn open(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(
        CWD,
        path,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// The same of a path that has no links any more.
pub(super) fn open_real(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat2(
        CWD,
        path,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )?)
}

fn open_below(base: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat2(
        base,
        path,
        flags | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )?)
}

/// Opens a directory below `base`, making what is missing of it. No component may be a link.
pub(super) fn make_directory(base: BorrowedFd<'_>, path: &Path, new: Ownership) -> io::Result<OwnedFd> {
    let mut at: Option<OwnedFd> = None;
    for component in path.components() {
        let name = match component {
            Component::Normal(name) => Path::new(name),
            Component::CurDir => continue,
            _ => return Err(io::Error::from_raw_os_error(libc::EXDEV)),
        };
        let parent = at.as_ref().map_or(base, AsFd::as_fd);
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let found = match open_below(parent, name, flags) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
                    Ok(()) => {
                        let made = open_below(parent, name, flags)?;
                        own(made.as_fd(), new)?;
                        Ok(made)
                    }
                    // Somebody else was quicker.
                    Err(rustix::io::Errno::EXIST) => open_below(parent, name, flags),
                    Err(errno) => Err(errno.into()),
                }
            }
            other => other,
        };
        at = Some(found?);
    }
    match at {
        Some(fd) => Ok(fd),
        None => Ok(base.try_clone_to_owned()?),
    }
}

/// Gives a place its owner and mode.
pub(super) fn own(place: BorrowedFd<'_>, ownership: Ownership) -> io::Result<()> {
    let (uid, gid) = (
        rustix::fs::Uid::from_raw(ownership.uid),
        rustix::fs::Gid::from_raw(ownership.gid),
    );
    rustix::fs::chownat(place, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
    // Descriptors that only name a place cannot be given to fchmod; opening it for real can.
    let real = rustix::fs::openat(
        place,
        ".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    Ok(rustix::fs::fchmod(real, Mode::from_raw_mode(ownership.mode))?)
}

/// Opens a file below `base` for appending, making it if it is missing. Only a regular file will do: a FIFO would
/// wait for its other end, and a link would lead elsewhere.
pub(super) fn append(base: BorrowedFd<'_>, path: &Path, uid: u32, gid: u32) -> io::Result<OwnedFd> {
    let open = |more: OFlags| {
        rustix::fs::openat2(
            base,
            path,
            OFlags::WRONLY | OFlags::APPEND | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC | more,
            match more.is_empty() {
                true => Mode::empty(),
                false => Mode::from_raw_mode(0o600),
            },
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
        )
    };
    let file = match open(OFlags::CREATE | OFlags::EXCL) {
        Ok(file) => {
            // Whatever our umask is.
            rustix::fs::fchmod(&file, Mode::from_raw_mode(0o644))?;
            file
        }
        Err(rustix::io::Errno::EXIST) => open(OFlags::empty())?,
        Err(errno) => return Err(errno.into()),
    };
    let stat = rustix::fs::fstat(&file)?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile {
        return Err(io::Error::other("not a regular file"));
    }
    let flags = rustix::fs::fcntl_getfl(&file)?;
    rustix::fs::fcntl_setfl(&file, flags.difference(OFlags::NONBLOCK))?;
    rustix::fs::fchown(
        &file,
        Some(rustix::fs::Uid::from_raw(uid)),
        Some(rustix::fs::Gid::from_raw(gid)),
    )?;
    Ok(file)
}

/// The same file, opened once more for reading.
pub(super) fn readable(file: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let itself = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, itself, flags, Mode::empty())?)
}

/// What has this name, links not followed.
pub(super) fn kind(base: BorrowedFd<'_>, name: &str) -> io::Result<rustix::fs::FileType> {
    let stat = rustix::fs::statat(base, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(rustix::fs::FileType::from_raw_mode(stat.st_mode))
}

/// Device and inode of what has this name, if it is no link.
pub(super) fn identity(base: BorrowedFd<'_>, name: &Path) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(open_below(base, name, OFlags::PATH)?)?;
    Ok((stat.st_dev, stat.st_ino))
}

pub(super) fn is_directory(place: BorrowedFd<'_>) -> io::Result<bool> {
    let stat = rustix::fs::fstat(place)?;
    Ok(rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory)
}

/// A copy of the mounts at a place, belonging to nothing yet: they vanish with the descriptor. What is mounted on
/// the host later shows up in it (V-10), never the other way round.
pub(super) fn detached(place: BorrowedFd<'_>, read_only: bool) -> io::Result<OwnedFd> {
    let mounts = rustix::mount::open_tree(
        place,
        "",
        OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH
            | OpenTreeFlags::AT_RECURSIVE,
    )?;
    let set = if read_only { sys::mount::READ_ONLY } else { 0 };
    sys::mount::set_attributes(mounts.as_fd(), set, libc::MS_SLAVE, true)?;
    Ok(mounts)
}

/// Mounts that a member is given.
#[derive(Debug)]
pub(super) enum Tree {
    /// Held by descriptor: what is mounted is what was looked at.
    Detached(Arc<OwnedFd>),
    /// Only the member's own init may mount it: without privileges nothing can be mounted but in a user namespace, and
    /// nothing can be taken there from outside. No component of the path may be a link by then.
    Place { path: PathBuf, read_only: bool },
}

impl Tree {
    /// Of the place, with everything that is mounted below it.
    pub(super) fn of(place: BorrowedFd<'_>, read_only: bool, rootless: bool) -> io::Result<Self> {
        match rootless {
            false => Ok(Self::Detached(Arc::new(detached(place, read_only)?))),
            true => Ok(Self::Place {
                path: std::fs::read_link(format!("/proc/self/fd/{}", place.as_raw_fd()))?,
                read_only,
            }),
        }
    }

    /// Of a cgroup, to be looked at only.
    pub(super) fn cgroup(place: BorrowedFd<'_>, rootless: bool) -> io::Result<Self> {
        let tree = Self::of(place, true, rootless)?;
        if let Self::Detached(mounts) = &tree {
            let flags = sys::mount::NO_SUID | sys::mount::NO_DEV | sys::mount::NO_EXEC;
            sys::mount::set_attributes(mounts.as_fd(), flags, 0, false)?;
        }
        Ok(tree)
    }

    /// The same, with owners as those users see them.
    pub(super) fn mapped(self, users: Option<&MappedUsers>) -> io::Result<Self> {
        if let (Self::Detached(mounts), Some(users)) = (&self, users) {
            sys::mount::map_owners(mounts.as_fd(), users.namespace.as_fd()).map_err(|error| {
                let text = format!("its file system cannot show mapped owners: {error}");
                io::Error::new(error.kind(), text)
            })?;
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn mine() -> Ownership {
        Ownership {
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            mode: 0o755,
        }
    }

    #[test]
    fn s2_links_in_the_way_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let base = open(dir.path()).unwrap();
        symlink("/tmp", dir.path().join("out")).unwrap();
        assert!(make_directory(base.as_fd(), Path::new("out/x"), mine()).is_err());
        assert!(make_directory(base.as_fd(), Path::new("../x"), mine()).is_err());
        assert!(make_directory(base.as_fd(), Path::new("/x"), mine()).is_err());
        make_directory(base.as_fd(), Path::new("a/./b"), mine()).unwrap();
        assert!(dir.path().join("a/b").is_dir());
        symlink("/etc/hostname", dir.path().join("log")).unwrap();
        assert!(append(base.as_fd(), Path::new("log"), mine().uid, mine().gid).is_err());
    }

    #[test]
    fn s3_a_fifo_for_a_log_file_is_refused_without_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let base = open(dir.path()).unwrap();
        let fifo = dir.path().join("stdout");
        rustix::fs::mknodat(
            CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        assert!(append(base.as_fd(), Path::new("stdout"), mine().uid, mine().gid).is_err());
    }

    #[test]
    fn s2_renames_by_somebody_else_lead_nowhere() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) = (dir.path().join("inside"), dir.path().join("outside"));
        std::fs::create_dir_all(inside.join("real")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        symlink(&outside, inside.join("link")).unwrap();
        let base = open(&inside).unwrap();
        let stop = AtomicBool::new(false);
        let (mut made, mut refused) = (0, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                while !stop.load(Ordering::Relaxed) {
                    rustix::fs::renameat_with(&base, "real", &base, "link", flags).unwrap();
                }
            });
            let begin = std::time::Instant::now();
            while (made < 50 || refused < 50) && begin.elapsed().as_secs() < 20 {
                match make_directory(base.as_fd(), Path::new("real/a/b"), mine()) {
                    Ok(_) => made += 1,
                    Err(_) => refused += 1,
                }
                for name in ["real/a/b", "link/a/b", "real/a", "link/a"] {
                    let _ = rustix::fs::unlinkat(&base, name, AtFlags::REMOVEDIR);
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        // (The clearing above goes through the link, too; so look at what it cannot remove: its time.)
        assert!(made > 0 && refused > 0, "{made} made, {refused} refused");
        let changed = outside.metadata().unwrap().modified().unwrap();
        assert!(
            changed <= dir.path().metadata().unwrap().modified().unwrap(),
            "something was made outside"
        );
    }
}
