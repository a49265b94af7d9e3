//! Which processes hold a socket, and where they live, as `/proc` shows it.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// Deeper than any chain of processes that somebody would have started by hand.
const DEEPEST: usize = 128;

/// Where a process lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Namespaces {
    pid: PathBuf,
    mount: PathBuf,
    user: PathBuf,
}

impl Namespaces {
    fn read(process: &Path) -> io::Result<Self> {
        let link = |name: &str| fs::read_link(process.join("ns").join(name));
        Ok(Namespaces {
            pid: link("pid")?,
            mount: link("mnt")?,
            user: link("user")?,
        })
    }

    /// Of the calling thread.
    pub fn own() -> io::Result<Self> {
        Namespaces::read(Path::new("/proc/thread-self"))
    }

    /// Of nobody.
    #[cfg(test)]
    pub fn other(than: &Namespaces) -> Self {
        Namespaces {
            pid: "pid:[1]".into(),
            ..than.clone()
        }
    }

    /// The kind of the first that is not the same.
    pub fn differs(&self, other: &Namespaces) -> Option<&'static str> {
        [
            ("pid", self.pid == other.pid),
            ("mount", self.mount == other.mount),
            ("user", self.user == other.user),
        ]
        .into_iter()
        .find_map(|(kind, same)| (!same).then_some(kind))
    }
}

/// What counts of a process that holds the other end.
#[derive(Debug, Clone)]
pub(super) struct Holder {
    pub pid: u32,
    pub namespaces: Namespaces,
    /// Itself, its parents, and the leader of its process group.
    pub kin: BTreeSet<u32>,
    /// The cgroup2 it lives in; none where there is no such hierarchy.
    pub cgroup: Option<u64>,
}

impl Holder {
    pub fn read(pid: u32) -> io::Result<Self> {
        let process = PathBuf::from(format!("/proc/{pid}"));
        Ok(Holder {
            pid,
            namespaces: Namespaces::read(&process)?,
            kin: kin(pid)?,
            cgroup: cgroup(&process)?,
        })
    }
}

/// Processes of this user that hold the socket. Those that we may not look into are not among them.
pub(super) fn of_socket(inode: u64, uid: u32) -> io::Result<Vec<u32>> {
    let wanted = PathBuf::from(format!("socket:[{inode}]"));
    let mut found = Vec::new();
    for process in fs::read_dir("/proc")? {
        let process = process?;
        let Some(pid) = process
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        // Processes come and go while we look.
        if process.metadata().is_ok_and(|facts| facts.uid() == uid) && holds(pid, &wanted) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// Whether it is (still) this process that holds the socket.
pub(super) fn still_holds(pid: u32, inode: u64) -> bool {
    holds(pid, Path::new(&format!("socket:[{inode}]")))
}

fn holds(pid: u32, wanted: &Path) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    descriptors
        .flatten()
        .any(|descriptor| fs::read_link(descriptor.path()).is_ok_and(|link| link == wanted))
}

fn kin(pid: u32) -> io::Result<BTreeSet<u32>> {
    let mut kin = BTreeSet::new();
    let mut next = pid;
    for _ in 0..DEEPEST {
        kin.insert(next);
        let (parent, group) = parent_and_group(next)?;
        if next == pid {
            kin.insert(group);
        }
        if parent <= 1 {
            return Ok(kin);
        }
        next = parent;
    }
    Err(io::Error::other(format!("process {pid} has too many ancestors")))
}

fn parent_and_group(pid: u32) -> io::Result<(u32, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name before may hold anything, parentheses too.
    let numbers = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut numbers = numbers.split_whitespace().skip(1).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(parent)), Some(Ok(group))) => Ok((parent, group)),
        _ => Err(io::Error::other(format!("/proc/{pid}/stat cannot be read"))),
    }
}

/// By number, as the kernel tells it of sockets.
fn cgroup(process: &Path) -> io::Result<Option<u64>> {
    static MOUNT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let Some(mount) = MOUNT.get_or_init(|| {
        let table = fs::read_to_string("/proc/self/mountinfo").ok()?;
        table.lines().find_map(|line| {
            let (place, system) = line.split_once(" - ")?;
            // Of the whole hierarchy, or paths mean nothing there.
            let mut place = place.split(' ').skip(3);
            let (root, point) = (place.next()?, place.next()?);
            (root == "/" && system.starts_with("cgroup2 ")).then(|| PathBuf::from(point))
        })
    }) else {
        return Ok(None);
    };
    let memberships = fs::read_to_string(process.join("cgroup"))?;
    let Some(path) = memberships.lines().find_map(|line| line.strip_prefix("0::/")) else {
        return Ok(None);
    };
    Ok(Some(fs::metadata(mount.join(path))?.ino()))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn we_are_found_by_a_socket_of_ours_with_our_kin() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let inode = rustix::fs::fstat(&client).unwrap().st_ino;
        let uid = nix::unistd::geteuid().as_raw();
        let me = std::process::id();
        assert_eq!(of_socket(inode, uid).unwrap(), [me]);
        assert!(of_socket(inode, uid + 1).unwrap().is_empty());
        assert!(still_holds(me, inode));
        drop(client);
        assert!(!still_holds(me, inode));
        let holder = Holder::read(me).unwrap();
        assert_eq!(holder.namespaces.differs(&Namespaces::own().unwrap()), None);
        assert!(holder.kin.contains(&std::os::unix::process::parent_id()));
        assert!(Holder::read(u32::MAX).is_err());
    }

    #[test]
    fn what_differs_is_named() {
        let here = Namespaces::own().unwrap();
        let there = Namespaces {
            mount: "mnt:[1]".into(),
            ..here.clone()
        };
        assert_eq!(there.differs(&here), Some("mount"));
    }
}
