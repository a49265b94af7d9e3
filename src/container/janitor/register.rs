//! The register: one locked file of JSON lines for each executor.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::{
    fs::{CWD, FlockOperation, OFlags, RenameFlags, flock, renameat_with},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use super::JanitorError;
use crate::container::cgroup::{CgroupError, GroupCgroup, Layout, Limits, directory_name};

/// Far more than any executor writes; a longer file is not ours.
const MAX_BYTES: u64 = 8 << 20;
/// Files that are being made have such names.
const UNBORN: &str = ".new-";

/// Something that outlives the executor that made it. Without its identity it is only announced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "holds", rename_all = "snake_case")]
pub enum Leftover {
    Cgroup {
        path: PathBuf,
        inode: Option<u64>,
    },
    /// With everything in it.
    Directory {
        path: PathBuf,
        #[serde(flatten)]
        identity: Option<Identity>,
    },
    File {
        path: PathBuf,
        #[serde(flatten)]
        identity: Option<Identity>,
    },
    Mount {
        target: PathBuf,
        /// `major:minor` of the mounted file system, as in mountinfo.
        device: Option<String>,
    },
}

/// Which file or directory it is, whatever is found under its name later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub device: u64,
    pub inode: u64,
}

impl Leftover {
    pub(super) fn path(&self) -> &Path {
        match self {
            Leftover::Cgroup { path, .. }
            | Leftover::Directory { path, .. }
            | Leftover::File { path, .. } => path,
            Leftover::Mount { target, .. } => target,
        }
    }

    /// A directory that exists, by its present identity.
    pub fn directory(path: &Path) -> io::Result<Leftover> {
        Ok(Leftover::Directory {
            path: path.into(),
            identity: Some(identity(path)?),
        })
    }

    /// A directory that is held, by device and inode.
    pub fn held(path: &Path, (device, inode): (u64, u64)) -> Leftover {
        Leftover::Directory {
            path: path.into(),
            identity: Some(Identity { device, inode }),
        }
    }

    /// A file or socket that exists, by its present identity.
    pub fn file(path: &Path) -> io::Result<Leftover> {
        Ok(Leftover::File {
            path: path.into(),
            identity: Some(identity(path)?),
        })
    }
}

fn identity(path: &Path) -> io::Result<Identity> {
    let metadata = fs::symlink_metadata(path)?;
    Ok(Identity {
        device: metadata.dev(),
        inode: metadata.ino(),
    })
}

/// One line of a file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    /// Always first. After a restart of the machine there are no cgroups and mounts to remove.
    Head {
        podling: u32,
        executor: String,
        pid: u32,
        boot: String,
    },
    Leftover(Leftover),
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JanitorError {
    let path = path.to_path_buf();
    move |source| JanitorError::Register { step, path, source }
}

fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// The directory of all executors of this node.
#[derive(Debug)]
pub struct Register {
    directory: PathBuf,
}

impl Register {
    /// Below `run`, made if it is not there.
    pub fn open(run: &Path) -> Result<Register, JanitorError> {
        let directory = run.join("executors");
        let mut private = DirBuilder::new();
        private.recursive(true).mode(0o700);
        private.create(&directory).map_err(failed("create", &directory))?;
        // We remove what is written there.
        let found = fs::symlink_metadata(&directory).map_err(failed("open", &directory))?;
        let ours = found.is_dir() && found.uid() == rustix::process::geteuid().as_raw();
        if !ours || found.mode() & 0o022 != 0 {
            return Err(JanitorError::Open { path: directory });
        }
        Ok(Register { directory })
    }

    /// Enters an executor. Cleans up first after a dead one of the same name.
    pub fn claim(&self, name: &str) -> Result<Claim, JanitorError> {
        let path = self.directory.join(directory_name("executor", name));
        let head = Line::Head {
            podling: 1,
            executor: name.into(),
            pid: std::process::id(),
            boot: boot_id(),
        };
        for _ in 0..10 {
            let (unborn, mut file) = self.unborn()?;
            // Nobody may see it unlocked: lock it under another name, then give it its own.
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
                continue;
            }
            write_line(&mut file, &head).map_err(failed("write", &unborn))?;
            match renameat_with(CWD, &unborn, CWD, &path, RenameFlags::NOREPLACE) {
                Ok(()) => return Ok(Claim { file, path }),
                Err(Errno::EXIST) => {}
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(failed("enter", &path)(errno.into())),
            }
            let _ = fs::remove_file(&unborn);
            match self.take(path.file_name().unwrap_or_default())? {
                Taken::Alive { pid } => {
                    return Err(JanitorError::Alive {
                        name: name.into(),
                        pid,
                    });
                }
                Taken::Gone => {}
                Taken::Dead(dead) => {
                    let mut report = super::Report::default();
                    super::remove::everything(dead.leftovers(), &mut report);
                    match report.failed.first() {
                        None => dead.forget()?,
                        Some(first) => {
                            let reason =
                                io::Error::other(format!("{}: {}", first.path.display(), first.reason));
                            return Err(failed("clean up after the dead executor in", &path)(reason));
                        }
                    }
                }
            }
        }
        Err(failed("enter", &path)(io::ErrorKind::ResourceBusy.into()))
    }

    fn unborn(&self) -> Result<(PathBuf, File), JanitorError> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = self
            .directory
            .join(format!("{UNBORN}{}-{number}", std::process::id()));
        // One left by an earlier process with our number.
        let _ = fs::remove_file(&path);
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed("create", &path))?;
        Ok((path, file))
    }

    /// All executors, the living and the dead.
    pub(super) fn names(&self) -> Result<Vec<OsString>, JanitorError> {
        let list = fs::read_dir(&self.directory).map_err(failed("list", &self.directory))?;
        let mut names: Vec<OsString> = list
            .filter_map(Result::ok)
            .map(|entry| entry.file_name())
            .collect();
        names.sort();
        Ok(names)
    }

    /// Finds out whether an executor lives. If not, its file is ours, locked.
    pub(super) fn take(&self, name: &OsStr) -> Result<Taken, JanitorError> {
        let path = self.directory.join(name);
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
            .open(&path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Taken::Gone),
            // A link: nothing that we made.
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Ok(Taken::Gone),
            Err(error) => return Err(failed("open", &path)(error)),
        };
        let metadata = file.metadata().map_err(failed("open", &path))?;
        if !metadata.is_file() || metadata.uid() != rustix::process::geteuid().as_raw() {
            return Ok(Taken::Gone);
        }
        let read = |file: &File| {
            let mut text = String::new();
            let read = file.take(MAX_BYTES).read_to_string(&mut text);
            read.map(|_| text).map_err(failed("read", &path))
        };
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let pid = match read(&file)?
                .lines()
                .next()
                .and_then(|line| serde_json::from_str(line).ok())
            {
                Some(Line::Head { pid, .. }) => pid,
                _ => 0,
            };
            return Ok(Taken::Alive { pid });
        }
        // Another janitor may have finished with it between our two calls.
        match identity(&path) {
            Ok(now) if now.device == metadata.dev() && now.inode == metadata.ino() => {}
            _ => return Ok(Taken::Gone),
        }
        let text = read(&file)?;
        Ok(Taken::Dead(Dead {
            _lock: file,
            path,
            leftovers: leftovers(&text),
        }))
    }
}

/// What is written in a file, each thing once, as it was last spoken of.
fn leftovers(text: &str) -> Vec<Leftover> {
    let mut out: Vec<Leftover> = Vec::new();
    let mut same_boot = false;
    for line in text.lines() {
        // The last line may be torn, if its writer died in the middle. What it announced was not made.
        match serde_json::from_str(line) {
            Ok(Line::Head { podling: 1, boot, .. }) => same_boot = boot == boot_id(),
            Ok(Line::Leftover(leftover)) => {
                out.retain(|other| {
                    other.path() != leftover.path()
                        || std::mem::discriminant(other) != std::mem::discriminant(&leftover)
                });
                out.push(leftover);
            }
            Ok(Line::Head { .. }) | Err(_) => {}
        }
    }
    if !same_boot {
        out.retain(|leftover| !matches!(leftover, Leftover::Cgroup { .. } | Leftover::Mount { .. }));
    }
    out
}

fn write_line(file: &mut File, line: &Line) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    // In one write, so that a line is there or not.
    file.write_all(&text)
}

pub(super) enum Taken {
    /// No file of ours, or not any more.
    Gone,
    Alive {
        pid: u32,
    },
    Dead(Dead),
}

/// The file of a dead executor. Locked, so that two janitors do not meet.
pub(super) struct Dead {
    _lock: File,
    path: PathBuf,
    leftovers: Vec<Leftover>,
}

impl Dead {
    pub(super) fn leftovers(&self) -> &[Leftover] {
        &self.leftovers
    }

    pub(super) fn forget(self) -> Result<(), JanitorError> {
        fs::remove_file(&self.path).map_err(failed("remove", &self.path))
    }
}

/// An executor's own entry. As long as this is open, the executor counts as alive.
#[derive(Debug)]
pub struct Claim {
    file: File,
    path: PathBuf,
}

impl Claim {
    /// Writes down something that is about to be made, or that now has an identity.
    pub fn note(&self, leftover: Leftover) -> Result<(), JanitorError> {
        let mut file = &self.file;
        let mut text = serde_json::to_vec(&Line::Leftover(leftover)).unwrap_or_default();
        text.push(b'\n');
        file.write_all(&text).map_err(failed("write", &self.path))
    }

    /// Makes a group's cgroups, written down before and after.
    pub fn group(
        &self,
        layout: &Layout,
        name: &str,
        limits: &Limits,
    ) -> Result<GroupCgroup, ClaimedGroupError> {
        for path in layout.paths(name) {
            self.note(Leftover::Cgroup { path, inode: None })?;
        }
        let group = layout.group(name, limits)?;
        for (path, inode) in group.identities()? {
            self.note(Leftover::Cgroup {
                path,
                inode: Some(inode),
            })?;
        }
        Ok(group)
    }

    /// The executor ends in an orderly way. If nothing it wrote down exists any more its entry goes; else the next
    /// sweep has work.
    pub fn release(self) -> Result<(), JanitorError> {
        let text = fs::read_to_string(&self.path).map_err(failed("read", &self.path))?;
        if leftovers(&text)
            .iter()
            .any(|leftover| fs::symlink_metadata(leftover.path()).is_ok())
        {
            return Ok(());
        }
        fs::remove_file(&self.path).map_err(failed("remove", &self.path))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ClaimedGroupError {
    #[error(transparent)]
    Register(#[from] JanitorError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
}

#[cfg(test)]
#[path = "register_tests.rs"]
mod tests;
