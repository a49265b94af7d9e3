//! What each pod holds on this node, kept in files so that nothing is lost or given twice, whoever dies when.
//!
//! ```text
//! /run/podling/network/
//!   lock                        held while anything here is decided
//!   leases/<pod>                one journal per pod; its owner holds a lock on it for life
//!   addresses/<network>/<ip>    the same file under another name: whose address this is
//!   ports/<protocol>-<port>     the same again: whose published port
//!   cursors/<network>-<family>  where the search for a free address goes on
//!   bridges/<bridge>            whose bridge that is, from before it is made until it is removed
//!   cni/<pod>.<interface>.json  what DEL needs to know
//! ```
//!
//! * A journal says what is *about to* be made, one line for each step before the step. Undoing it undoes everything.
//! * Address and port belong to whoever's journal their name leads to: `link(2)` gives each name once.
//! * A journal without a lock on it has no living owner. The kernel drops the lock however the owner ends.

mod journal;

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io,
    net::IpAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};

pub use journal::{Entry, Lease};
pub(super) use journal::{read_entries, replace};

use self::journal::{Probe, owns, probe};

use super::{
    config::{Network, Stack},
    request::Protocol,
    ruleset::{Bridge, PublishedPort, Share},
};

const PARTS: [&str; 6] = ["addresses", "ports", "cursors", "bridges", "cni", "leases"];

#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    #[error("cannot {doing} {}: {cause}", path.display())]
    File {
        doing: &'static str,
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error(
        "network {network} has no free address left in {subnet}; use a larger subnet or fewer pods on this node"
    )]
    Full { network: String, subnet: String },
    #[error("port {port}/{protocol} of this node is already published by pod {holder}")]
    PortTaken {
        protocol: Protocol,
        port: u16,
        holder: String,
    },
    #[error("the network of pod {pod} is already set up by process {pid}")]
    PodTaken { pod: String, pid: u32 },
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LeaseError {
    let path = path.to_owned();
    move |cause| LeaseError::File { doing, path, cause }
}

/// What asking for something gives: it, or the remains of a dead owner that stand in the way.
#[derive(Debug)]
pub enum Claim<T> {
    Got(T),
    Stale(Lease),
}

/// The directory of a node.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
}

/// The directory, while nobody else decides anything in it.
#[derive(Debug)]
pub struct Locked<'a> {
    store: &'a Store,
    _lock: File,
}

impl Store {
    /// Touches nothing yet.
    pub fn new(dir: &Path) -> Store {
        Store { dir: dir.to_owned() }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Has anybody written here since the machine started, or since the last clean-up of all?
    pub fn exists(&self) -> bool {
        self.dir.join("leases").exists()
    }

    /// Waits for whoever decides something right now; that takes a fraction of a millisecond.
    pub fn lock(&self) -> Result<Locked<'_>, LeaseError> {
        let path = self.dir.join("lock");
        loop {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(false).mode(0o600);
            let file = match options.open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    fs::create_dir_all(&self.dir).map_err(failed("create", &self.dir))?;
                    continue;
                }
                other => other.map_err(failed("open", &path))?,
            };
            while let Err(errno) = flock(&file, FlockOperation::LockExclusive) {
                if errno != rustix::io::Errno::INTR {
                    return Err(failed("lock", &path)(errno.into()));
                }
            }
            // Whoever held it may have cleared the directory; then this is a lock on nothing.
            if !owns(&file, &path) {
                continue;
            }
            if !self.exists() {
                // That of the leases last: where it is, all are.
                for part in PARTS {
                    let path = self.dir.join(part);
                    fs::create_dir_all(&path).map_err(failed("create", &path))?;
                }
            }
            return Ok(Locked {
                store: self,
                _lock: file,
            });
        }
    }

    /// Where a CNI attachment keeps configuration and result.
    pub fn attachment_file(&self, pod: &str, interface: &str) -> PathBuf {
        self.dir
            .join("cni")
            .join(format!("{}.{interface}.json", plain_name(pod)))
    }
}

/// Pods have names of any form; files and CNI containers do not.
pub fn plain_name(pod: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let starts = pod
        .bytes()
        .next()
        .is_some_and(|first| first.is_ascii_alphanumeric());
    if starts && pod.len() <= 128 && pod.bytes().all(plain) {
        return pod.to_owned();
    }
    let digest = Sha256::digest(pod);
    let hash: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("pod-{hash}")
}

impl Locked<'_> {
    /// Opens the journal of a pod. `known_as`: what people call it.
    pub fn claim(&self, pod: &str, known_as: Option<&str>) -> Result<Claim<Lease>, LeaseError> {
        let path = self.store.dir.join("leases").join(plain_name(pod));
        let mut options = OpenOptions::new();
        options.read(true).append(true).create_new(true).mode(0o600);
        match options.open(&path) {
            Ok(file) => {
                let locked = flock(&file, FlockOperation::NonBlockingLockExclusive);
                locked.map_err(|errno| failed("lock", &path)(errno.into()))?;
                let mut lease = Lease {
                    file,
                    path,
                    pod: pod.to_owned(),
                    entries: Vec::new(),
                };
                lease.note(Entry::Pod {
                    pod: pod.to_owned(),
                    pid: std::process::id(),
                    known_as: known_as.map(str::to_owned),
                })?;
                Ok(Claim::Got(lease))
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match probe(&path)? {
                Probe::Gone => Err(failed("create", &path)(error)),
                Probe::Stale(lease) => Ok(Claim::Stale(lease)),
                Probe::Alive { pod, pid } => Err(LeaseError::PodTaken { pod, pid }),
            },
            Err(error) => Err(failed("create", &path)(error)),
        }
    }

    /// Takes the next free address of a network's subnet for `lease`.
    pub fn take_address(
        &self,
        lease: &mut Lease,
        network: &Network,
        stack: &Stack,
    ) -> Result<Claim<IpAddr>, LeaseError> {
        let dir = self.store.dir.join("addresses").join(&network.name);
        let cursor = self.store.dir.join("cursors").join(format!(
            "{}-{}",
            network.name,
            if stack.subnet.is_ipv4() { "ipv4" } else { "ipv6" }
        ));
        // Going on after the last one keeps an address out of use for as long as the pool allows: whoever still talks to
        // the pod that had it does not reach another one.
        let last = fs::read_to_string(&cursor)
            .ok()
            .and_then(|text| text.trim().parse::<IpAddr>().ok());
        let start = last
            .and_then(|last| stack.subnet.pool_index(last))
            .map_or(0, |index| index + 1);
        for step in 0..stack.subnet.pool_size() {
            let address = stack.subnet.pool_address(start + step);
            if address == stack.gateway {
                continue;
            }
            let path = dir.join(address.to_string());
            if path.exists() {
                match probe(&path)? {
                    Probe::Alive { .. } => continue,
                    Probe::Stale(stale) => return Ok(Claim::Stale(stale)),
                    Probe::Gone => {}
                }
            }
            lease.note(Entry::Address {
                network: network.name.clone(),
                address,
                leaving: network.masquerade,
            })?;
            lease.link_as(&path)?;
            fs::write(&cursor, address.to_string()).map_err(failed("write", &cursor))?;
            return Ok(Claim::Got(address));
        }
        Err(LeaseError::Full {
            network: network.name.clone(),
            subnet: stack.subnet.to_string(),
        })
    }

    /// Reserves a port of the node for `lease`; `to` is where the table of rules shall send it, if it shall.
    pub fn take_port(
        &self,
        lease: &mut Lease,
        protocol: Protocol,
        host_port: u16,
        to: Option<(IpAddr, u16)>,
    ) -> Result<Claim<()>, LeaseError> {
        let path = self.port_path(protocol, host_port);
        let ours = lease.owns(&path);
        if !ours && path.exists() {
            match probe(&path)? {
                Probe::Alive { pod, .. } => {
                    return Err(LeaseError::PortTaken {
                        protocol,
                        port: host_port,
                        holder: pod,
                    });
                }
                Probe::Stale(stale) => return Ok(Claim::Stale(stale)),
                Probe::Gone => {}
            }
        }
        lease.note(Entry::Port {
            protocol,
            host_port,
            to,
        })?;
        if !ours {
            lease.link_as(&path)?;
        }
        Ok(Claim::Got(()))
    }

    fn port_path(&self, protocol: Protocol, port: u16) -> PathBuf {
        self.store.dir.join("ports").join(format!("{protocol}-{port}"))
    }

    /// Notes a bridge that is there or about to be made.
    pub fn note_bridge(&self, network: &Network) -> Result<(), LeaseError> {
        let bridge = Bridge {
            name: network.bridge.clone(),
            network: network.name.clone(),
            isolated: network.isolated,
        };
        let path = self.store.dir.join("bridges").join(&bridge.name);
        let text = serde_json::to_vec(&bridge).map_err(|error| failed("write", &path)(error.into()))?;
        if fs::read(&path).is_ok_and(|present| present == text) {
            return Ok(());
        }
        replace(&path, &text).map_err(failed("write", &path))
    }

    pub fn forget_bridge(&self, name: &str) -> Result<(), LeaseError> {
        let path = self.store.dir.join("bridges").join(name);
        fs::remove_file(&path).map_err(failed("remove", &path))
    }

    /// The bridges noted here, by name.
    pub fn bridges(&self) -> Result<Vec<Bridge>, LeaseError> {
        let dir = self.store.dir.join("bridges");
        let entries = fs::read_dir(&dir).map_err(failed("read", &dir))?;
        let read = |entry: fs::DirEntry| -> Option<Bridge> {
            let bridge: Bridge = serde_json::from_slice(&fs::read(entry.path()).ok()?).ok()?;
            (entry.file_name() == bridge.name.as_str()).then_some(bridge)
        };
        let mut all: Vec<Bridge> = entries.flatten().filter_map(read).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// Removes the directory, unless something is still noted in it.
    pub fn clear(self) -> Result<(), LeaseError> {
        let dir = &self.store.dir;
        if !self.journals()?.is_empty() || !self.bridges()?.is_empty() {
            return Ok(());
        }
        for part in PARTS {
            let path = dir.join(part);
            fs::remove_dir_all(&path).map_err(failed("remove", &path))?;
        }
        let lock = dir.join("lock");
        fs::remove_file(&lock).map_err(failed("remove", &lock))?;
        // Somebody may have begun anew by now.
        let _ = fs::remove_dir(dir);
        Ok(())
    }

    /// What all pods, living or not yet cleaned up, have in the table of rules.
    pub fn published(&self) -> Result<Vec<Share>, LeaseError> {
        let mut shares = Vec::new();
        for path in self.journals()? {
            let Ok(mut file) = File::open(&path) else { continue };
            let entries = read_entries(&mut file).map_err(failed("read", &path))?;
            if entries.contains(&Entry::Published) && !entries.contains(&Entry::Withdrawn) {
                shares.push(self.share_of(&entries, &file));
            }
        }
        Ok(shares)
    }

    /// Journals whose owner is dead, each now locked by us.
    pub fn stale(&self) -> Result<VecDeque<Lease>, LeaseError> {
        let mut stale = VecDeque::new();
        for path in self.journals()? {
            if let Probe::Stale(lease) = probe(&path)? {
                stale.push_back(lease);
            }
        }
        Ok(stale)
    }

    /// How many pods are alive.
    pub fn alive(&self) -> Result<usize, LeaseError> {
        let mut alive = 0;
        for path in self.journals()? {
            alive += usize::from(matches!(probe(&path)?, Probe::Alive { .. }));
        }
        Ok(alive)
    }

    fn journals(&self) -> Result<Vec<PathBuf>, LeaseError> {
        let dir = self.store.dir.join("leases");
        let entries = fs::read_dir(&dir).map_err(failed("read", &dir))?;
        Ok(entries.flatten().map(|entry| entry.path()).collect())
    }

    /// What a lease has in the table of rules and may take out of it.
    pub fn share(&self, lease: &Lease) -> Share {
        self.share_of(&lease.entries, &lease.file)
    }

    fn share_of(&self, entries: &[Entry], file: &File) -> Share {
        let mut share = Share::default();
        for entry in entries {
            match entry {
                Entry::Address {
                    network,
                    address,
                    leaving,
                } if owns(file, &self.address_path(network, *address)) => {
                    share.addresses.push((*address, *leaving));
                }
                Entry::Port {
                    protocol,
                    host_port,
                    to: Some((address, container_port)),
                } if owns(file, &self.port_path(*protocol, *host_port)) => {
                    share.ports.push(PublishedPort {
                        protocol: *protocol,
                        host_port: *host_port,
                        address: *address,
                        container_port: *container_port,
                    });
                }
                _ => {}
            }
        }
        share
    }

    fn address_path(&self, network: &str, address: IpAddr) -> PathBuf {
        self.store
            .dir
            .join("addresses")
            .join(network)
            .join(address.to_string())
    }

    /// Gives everything back. What was made in the kernel must be gone by now. With `keep_attachments` the journal stays,
    /// without an owner, for what plug-ins still hold.
    pub fn release(&self, lease: Lease, keep_attachments: bool) -> Result<(), LeaseError> {
        let remove = |path: &Path| match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
            _ => Ok(()),
        };
        for entry in lease.entries.iter().rev() {
            let path = match entry {
                Entry::Address { network, address, .. } => self.address_path(network, *address),
                Entry::Port {
                    protocol, host_port, ..
                } => self.port_path(*protocol, *host_port),
                Entry::Attachment { .. } if keep_attachments => continue,
                Entry::Attachment { interface, .. } => {
                    remove(&self.store.attachment_file(&lease.pod, interface))?;
                    continue;
                }
                Entry::Pod { .. } | Entry::Link { .. } | Entry::Published | Entry::Withdrawn => continue,
            };
            if lease.owns(&path) {
                remove(&path)?;
            }
        }
        if keep_attachments {
            Ok(())
        } else {
            remove(&lease.path)
        }
    }

    /// The CNI attachments of all pods, dead and alive: network, pod, interface.
    pub fn attachments(&self) -> Result<Vec<(String, String, String)>, LeaseError> {
        let mut all = Vec::new();
        for path in self.journals()? {
            let Ok(mut file) = File::open(&path) else { continue };
            let entries = read_entries(&mut file).map_err(failed("read", &path))?;
            let Some(Entry::Pod { pod, .. }) = entries.first() else {
                continue;
            };
            all.extend(entries.iter().filter_map(|entry| match entry {
                Entry::Attachment { network, interface } => {
                    Some((network.clone(), pod.clone(), interface.clone()))
                }
                _ => None,
            }));
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests;
