//! Directories of cgroup file systems, held by descriptors: making, reading, writing and removing them.
//!
//! Once a hierarchy's mount is open and known to be a cgroup file system, everything below it is reached from that
//! descriptor and by single names, without following links.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};

use super::{CgroupError, layout::Version, stale::Removed};

const CGROUP1_MAGIC: u64 = 0x0027_e0eb;
const CGROUP2_MAGIC: u64 = 0x6367_7270;
/// `cgroup.procs` of a full fork bomb is the largest file we read.
const MAX_READ: u64 = 4 << 20;
/// Members that can write to a cgroup file system may nest; nobody sane goes deeper.
const MAX_DEPTH: usize = 32;

/// An open directory of a cgroup file system. The path is for messages only.
#[derive(Debug)]
pub(super) struct Node {
    fd: OwnedFd,
    path: PathBuf,
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOFOLLOW);

impl Node {
    /// Opens where a hierarchy is mounted, and makes sure that it is one.
    pub(super) fn open_mount(path: &Path, version: &Version) -> Result<Node, CgroupError> {
        let failed = |source: Errno| CgroupError::Open {
            path: path.into(),
            source: source.into(),
        };
        let fd = rustix::fs::open(path, DIRECTORY, Mode::empty()).map_err(failed)?;
        let magic = rustix::fs::fstatfs(&fd).map_err(failed)?.f_type as u64;
        let expected = match version {
            Version::V1(_) => CGROUP1_MAGIC,
            Version::V2 => CGROUP2_MAGIC,
        };
        if magic != expected {
            return Err(CgroupError::NotCgroup { path: path.into() });
        }
        Ok(Node {
            fd,
            path: path.into(),
        })
    }

    /// Opens a directory if it is in a cgroup file system of either version.
    pub(super) fn open_any(path: &Path) -> Result<Option<Node>, CgroupError> {
        let any = [Version::V2, Version::V1(Vec::new())];
        for version in any {
            match Node::open_mount(path, &version) {
                Ok(node) => return Ok(Some(node)),
                Err(CgroupError::NotCgroup { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Opens a directory below.
    pub(super) fn open_below(&self, relative: &Path) -> Result<Node, CgroupError> {
        let path = self.path.join(relative);
        let relative = match relative.as_os_str().is_empty() {
            true => Path::new("."),
            false => relative,
        };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let opened = match rustix::fs::openat2(&self.fd, relative, DIRECTORY, Mode::empty(), resolve) {
            // Kernels before 5.6, and filters that do not know the call. Cgroup file systems hold no links.
            Err(Errno::NOSYS | Errno::PERM) => {
                rustix::fs::openat(&self.fd, relative, DIRECTORY, Mode::empty())
            }
            other => other,
        };
        match opened {
            Ok(fd) => Ok(Node { fd, path }),
            Err(errno) => Err(CgroupError::Open {
                path,
                source: errno.into(),
            }),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Makes a cgroup below this one. Never takes over one that exists.
    pub(super) fn create(&self, name: &str) -> Result<Node, CgroupError> {
        let path = self.path.join(name);
        match rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => self
                .open_below(Path::new(name))
                .and_then(|node| {
                    // Members look up their limits, whoever they are and whatever our umask is.
                    let readable =
                        rustix::fs::chmodat(&self.fd, name, Mode::from_raw_mode(0o755), AtFlags::empty());
                    readable.map_err(|errno| CgroupError::Create {
                        path: path.clone(),
                        source: errno.into(),
                    })?;
                    Ok(node)
                })
                .inspect_err(|_| {
                    // Ours and new: nobody else is in it.
                    let _ = rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR);
                }),
            Err(Errno::EXIST) => Err(CgroupError::Exists { path }),
            Err(errno) => Err(CgroupError::Create {
                path,
                source: errno.into(),
            }),
        }
    }

    pub(super) fn has(&self, file: &str) -> bool {
        rustix::fs::accessat(&self.fd, file, rustix::fs::Access::EXISTS, AtFlags::empty()).is_ok()
    }

    /// Whether we may make cgroups here.
    pub(super) fn is_writable(&self) -> bool {
        rustix::fs::accessat(&self.fd, ".", rustix::fs::Access::WRITE_OK, AtFlags::EACCESS).is_ok()
    }

    pub(super) fn open_file(&self, file: &str, flags: OFlags) -> Result<OwnedFd, CgroupError> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::openat(&self.fd, file, flags, Mode::empty()).map_err(|errno| CgroupError::Open {
            path: self.path.join(file),
            source: errno.into(),
        })
    }

    pub(super) fn read(&self, file: &str) -> Result<String, CgroupError> {
        let mut text = String::new();
        File::from(self.open_file(file, OFlags::RDONLY)?)
            .take(MAX_READ)
            .read_to_string(&mut text)
            .map_err(|source| CgroupError::Read {
                path: self.path.join(file),
                source,
            })?;
        Ok(text)
    }

    /// A file that may not exist here.
    pub(super) fn read_opt(&self, file: &str) -> Option<String> {
        self.read(file).ok()
    }

    pub(super) fn write(&self, file: &str, value: &str) -> Result<(), CgroupError> {
        self.write_each(file, [value])
    }

    /// One write for each: the kernel takes it as a whole value.
    pub(super) fn write_each<T: AsRef<str>>(
        &self,
        file: &str,
        values: impl IntoIterator<Item = T>,
    ) -> Result<(), CgroupError> {
        let mut open = File::from(self.open_file(file, OFlags::WRONLY)?);
        values.into_iter().try_for_each(|value| {
            let value = value.as_ref();
            open.write_all(value.as_bytes())
                .map_err(|source| CgroupError::Write {
                    path: self.path.join(file),
                    value: value.into(),
                    source,
                })
        })
    }

    /// Process ids in this cgroup alone. Processes outside our pid namespace show as 0 and are left out.
    pub(super) fn procs_here(&self) -> Result<Vec<i32>, CgroupError> {
        let text = self.read("cgroup.procs")?;
        let pids = text.lines().filter_map(|line| line.parse::<i32>().ok());
        Ok(pids.filter(|pid| *pid > 0).collect())
    }

    /// Process ids in this cgroup and those below it.
    pub(super) fn procs(&self) -> Result<Vec<i32>, CgroupError> {
        let mut out = Vec::new();
        self.walk(0, &mut |node| {
            match node.procs_here() {
                Ok(pids) => out.extend(pids),
                Err(error) if error.is_gone() => {}
                Err(error) => return Err(error),
            }
            Ok(())
        })?;
        Ok(out)
    }

    /// Visits this directory and those below it.
    fn walk(
        &self,
        depth: usize,
        visit: &mut dyn FnMut(&Node) -> Result<(), CgroupError>,
    ) -> Result<(), CgroupError> {
        visit(self)?;
        if depth >= MAX_DEPTH {
            return Ok(());
        }
        for name in self.children() {
            match self.open_below(Path::new(&name)) {
                Ok(child) => child.walk(depth + 1, visit)?,
                Err(error) if error.is_gone() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Names of the cgroups directly below.
    pub(super) fn children(&self) -> Vec<OsString> {
        let Ok(dir) = Dir::read_from(&self.fd) else {
            return Vec::new();
        };
        dir.filter_map(Result::ok)
            .filter(|entry| entry.file_type() == FileType::Directory)
            .map(|entry| OsStr::from_bytes(entry.file_name().to_bytes()).to_owned())
            .filter(|name| name != "." && name != "..")
            .collect()
    }

    /// Removes the cgroup `name` below this one, with all below it. `Ok(false)`: it still holds processes.
    pub(super) fn remove(&self, name: &OsStr) -> Result<bool, CgroupError> {
        self.remove_below(name, 0)
    }

    fn remove_below(&self, name: &OsStr, depth: usize) -> Result<bool, CgroupError> {
        let unlink = || match rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(Errno::BUSY | Errno::NOTEMPTY) => Ok(false),
            Err(errno) => Err(CgroupError::Remove {
                path: self.path.join(name),
                source: errno.into(),
            }),
        };
        if unlink()? {
            return Ok(true);
        }
        if depth >= MAX_DEPTH {
            return Ok(false);
        }
        let inner = match self.open_below(Path::new(name)) {
            Ok(inner) => inner,
            Err(error) if error.is_gone() => return Ok(true),
            Err(error) => return Err(error),
        };
        for child in inner.children() {
            inner.remove_below(&child, depth + 1)?;
        }
        unlink()
    }

    /// Removes the cgroup `name` below this one if nothing at all is inside.
    pub(super) fn remove_one(&self, name: &OsStr) -> Result<Removed, CgroupError> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR) {
            Ok(()) => Ok(Removed::Now),
            Err(Errno::NOENT) => Ok(Removed::Gone),
            Err(Errno::BUSY | Errno::NOTEMPTY | Errno::NOTDIR) => Ok(Removed::Foreign),
            Err(errno) => Err(CgroupError::Remove {
                path: self.path.join(name),
                source: errno.into(),
            }),
        }
    }

    /// [`Node::remove`], with patience for processes that are just leaving.
    pub(super) fn remove_patiently(&self, name: &OsStr) -> Result<bool, CgroupError> {
        for pause in [0, 1, 2, 4, 8] {
            if pause > 0 {
                std::thread::sleep(Duration::from_millis(pause));
            }
            if self.remove(name)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Identifies the directory for as long as it exists; a later one of the same name has another.
    pub(super) fn inode(&self) -> Result<u64, CgroupError> {
        rustix::fs::fstat(&self.fd)
            .map(|stat| stat.st_ino)
            .map_err(|errno| CgroupError::Open {
                path: self.path.clone(),
                source: errno.into(),
            })
    }
}

impl CgroupError {
    /// The cgroup vanished under our hands.
    pub(super) fn is_gone(&self) -> bool {
        match self {
            CgroupError::Open { source, .. } | CgroupError::Read { source, .. } => {
                source.raw_os_error() == Some(Errno::NODEV.raw_os_error())
                    || source.kind() == io::ErrorKind::NotFound
            }
            _ => false,
        }
    }
}
