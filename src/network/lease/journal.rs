//! A journal: what one pod holds, line by line, and whether its owner lives.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    net::IpAddr,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::{LeaseError, failed, plain_name};
use crate::network::request::Protocol;

/// Far above what the largest request writes; a longer journal is not ours.
const JOURNAL_LIMIT: u64 = 4 << 20;

/// One line of a journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "holds", rename_all = "snake_case")]
pub enum Entry {
    /// Always first.
    Pod {
        pod: String,
        pid: u32,
        /// What people know it by, if that is something else.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        known_as: Option<String>,
    },
    Address {
        network: String,
        address: IpAddr,
        leaving: bool,
    },
    Port {
        protocol: Protocol,
        host_port: u16,
        /// Where the table of rules sends it; absent when a plug-in sees to that.
        to: Option<(IpAddr, u16)>,
    },
    /// An interface on the node's side.
    Link { name: String },
    /// Addresses and ports are in the table of rules.
    Published,
    /// They have been, or are about to be, taken out again.
    Withdrawn,
    /// A CNI attachment; configuration and result are cached beside.
    Attachment { network: String, interface: String },
}

/// A journal that we hold the lock of: our own, or a dead owner's that we clean up.
#[derive(Debug)]
pub struct Lease {
    pub(super) file: File,
    pub(super) path: PathBuf,
    pub(super) pod: String,
    pub(super) entries: Vec<Entry>,
}

impl Lease {
    pub fn pod(&self) -> &str {
        &self.pod
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Whoever else holds this keeps the lease from being taken for a dead owner's.
    pub fn lock(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    pub fn is_published(&self) -> bool {
        self.entries.contains(&Entry::Published)
    }

    /// Writes down what is about to be made.
    pub fn note(&mut self, entry: Entry) -> Result<(), LeaseError> {
        let mut line =
            serde_json::to_vec(&entry).map_err(|error| failed("write", &self.path)(error.into()))?;
        line.push(b'\n');
        // One write: whoever is killed in it has either noted the step or not begun it.
        self.file.write_all(&line).map_err(failed("write", &self.path))?;
        self.entries.push(entry);
        Ok(())
    }

    pub(super) fn link_as(&self, path: &Path) -> Result<(), LeaseError> {
        match fs::hard_link(&self.path, path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Some(dir) = path.parent() {
                    fs::create_dir_all(dir).map_err(failed("create", dir))?;
                }
                fs::hard_link(&self.path, path).map_err(failed("create", path))
            }
            other => other.map_err(failed("create", path)),
        }
    }

    pub(super) fn owns(&self, path: &Path) -> bool {
        owns(&self.file, path)
    }
}

/// Whole or not at all: beside, then renamed.
pub fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    fs::write(&beside, text)?;
    fs::rename(&beside, path)
}

pub(super) fn owns(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(ours), Ok(theirs)) => (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()),
        _ => false,
    }
}

pub(super) enum Probe {
    Gone,
    Stale(Lease),
    /// `pod` as people know it.
    Alive {
        pod: String,
        pid: u32,
    },
}

/// Whose journal this name leads to, and whether its owner lives.
pub(super) fn probe(path: &Path) -> Result<Probe, LeaseError> {
    let mut file = match OpenOptions::new().read(true).append(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Probe::Gone),
        Err(error) => return Err(failed("open", path)(error)),
    };
    let alive = match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => false,
        Err(rustix::io::Errno::WOULDBLOCK) => true,
        Err(errno) => return Err(failed("lock", path)(errno.into())),
    };
    let entries = read_entries(&mut file).map_err(failed("read", path))?;
    let owner = entries.first().and_then(|entry| match entry {
        Entry::Pod { pod, pid, known_as } => Some((pod.clone(), *pid, known_as.clone())),
        _ => None,
    });
    if alive {
        let (pod, pid) = owner.map_or_else(
            || ("of another process".to_owned(), 0),
            |(pod, pid, known_as)| (known_as.unwrap_or(pod), pid),
        );
        return Ok(Probe::Alive { pod, pid });
    }
    // Reached by the name of an address or a port, the journal itself must go too. Without a first line it died before
    // it held anything.
    let last = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let pod = owner.map_or(last, |(pod, ..)| pod);
    let journal = match path.ancestors().find(|dir| dir.join("leases").is_dir()) {
        Some(dir) => dir.join("leases").join(plain_name(&pod)),
        None => path.to_owned(),
    };
    let path = if owns(&file, &journal) {
        journal
    } else {
        path.to_owned()
    };
    Ok(Probe::Stale(Lease {
        file,
        path,
        pod,
        entries,
    }))
}

/// Lines that are whole and known; the rest of a journal that was cut short announces nothing that was done.
pub(in crate::network) fn read_entries(file: &mut File) -> io::Result<Vec<Entry>> {
    let mut text = Vec::new();
    file.take(JOURNAL_LIMIT).read_to_end(&mut text)?;
    let whole = text
        .split_inclusive(|byte| *byte == b'\n')
        .filter(|line| line.ends_with(b"\n"));
    Ok(whole
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect())
}
