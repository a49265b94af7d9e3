//! Who is at the other end of a connection, as the kernel tells it. The rule is in the head of the module above.

use std::{
    collections::BTreeSet,
    fmt, io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::OnceCell;

use super::{
    diagnosis::{Diagnosis, End, State},
    holders::{self, Holder, Namespaces},
};
use crate::sys::{netlink::Refused, peer as unix};

/// Executors that run: what they and their children ask for, others may have told them to.
#[derive(Debug, Clone, Default)]
pub struct Started(Arc<Mutex<BTreeSet<u32>>>);

impl Started {
    pub fn add(&self, pid: u32) {
        self.lock().insert(pid);
    }

    pub fn remove(&self, pid: u32) {
        self.lock().remove(&pid);
    }

    fn any_of(&self, kin: &BTreeSet<u32>) -> bool {
        self.lock().iter().any(|pid| kin.contains(pid))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        // Numbers are whole whatever a thread did that held them.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why somebody does not count as the owner.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub(super) enum Stranger {
    #[error("the connection does not come from this machine's own network")]
    Elsewhere,
    #[error("the connection is closing")]
    Closing,
    #[error("it comes from user {0}")]
    User(u32),
    #[error("no process that can be seen holds its other end")]
    Nobody,
    #[error("process {pid} at its other end lives in another {kind} namespace")]
    Namespace { pid: u32, kind: &'static str },
    #[error("process {0} at its other end belongs to an executor")]
    Executor(u32),
    #[error("process {0} at its other end lives in another cgroup than the one its socket was made in")]
    Cgroup(u32),
    #[error("who sent it cannot be found out: {0}")]
    Unknown(String),
}

impl From<io::Error> for Stranger {
    fn from(error: io::Error) -> Self {
        Stranger::Unknown(error.to_string())
    }
}

impl From<Refused> for Stranger {
    fn from(error: Refused) -> Self {
        Stranger::Unknown(error.to_string())
    }
}

/// What is to be known of us to tell our own from others.
#[derive(Debug)]
struct Own {
    pid: u32,
    uid: u32,
    namespaces: Namespaces,
}

/// Tells whether somebody is the owner: the same user, at home where we are.
#[derive(Debug, Clone)]
pub struct Peers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    diagnosis: Mutex<Diagnosis>,
    own: Own,
    started: Started,
    /// The executors' own API.
    executors_welcome: bool,
}

impl Peers {
    /// Of the calling thread's namespaces. `started`: those that are not let in. None where the kernel does not tell
    /// whose a socket is; then everybody has to show something.
    pub fn open(started: Started) -> Option<Self> {
        Peers::told(Peers::new(started, false))
    }

    /// As [`Peers::open`], for the API that executors are started to use.
    pub fn with_executors() -> Option<Self> {
        Peers::told(Peers::new(Started::default(), true))
    }

    fn told(peers: io::Result<Self>) -> Option<Self> {
        peers
            .inspect_err(|error| tracing::warn!("cannot tell the owner from others without a token: {error}"))
            .ok()
    }

    fn new(started: Started, executors_welcome: bool) -> io::Result<Self> {
        Ok(Peers(Arc::new(Inner {
            diagnosis: Mutex::new(Diagnosis::open()?),
            own: Own {
                pid: std::process::id(),
                uid: nix::unistd::geteuid().as_raw(),
                namespaces: Namespaces::own()?,
            },
            started,
            executors_welcome,
        })))
    }

    /// The user at the other end, whoever that is; one question to the kernel.
    pub(super) fn user(&self, caller: &Caller) -> Option<u32> {
        match &caller.way {
            Way::Tcp { peer, local, .. } => {
                let end = self.0.end(*peer, *local).ok()??;
                (end.inode != 0).then_some(end.uid)
            }
            Way::Unix(facts) => facts.as_ref().map(|facts| facts.uid),
        }
    }

    /// Whether this is the owner. Looks through `/proc`, and so is done beside the others' requests.
    pub(super) async fn is_owner(&self, caller: &Caller) -> Result<(), Stranger> {
        let decide = || async {
            let (inner, way) = (self.0.clone(), caller.way.clone());
            tokio::task::spawn_blocking(move || inner.judge(&way))
                .await
                .unwrap_or_else(|error| Err(Stranger::Unknown(error.to_string())))
        };
        // Once for a connection: to hand one on that has been let in is to let somebody in.
        caller.verdict.get_or_init(decide).await.clone()
    }
}

impl Inner {
    fn end(&self, from: SocketAddr, to: SocketAddr) -> Result<Option<End>, Refused> {
        self.diagnosis
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .end(from, to)
    }

    fn judge(&self, way: &Way) -> Result<(), Stranger> {
        match way {
            Way::Tcp { peer, local, inode } => self.judge_tcp(*peer, *local, *inode),
            Way::Unix(facts) => self.judge_unix(facts.as_deref()),
        }
    }

    fn judge_tcp(&self, peer: SocketAddr, local: SocketAddr, inode: u64) -> Result<(), Stranger> {
        let theirs = self.end(peer, local)?.ok_or(Stranger::Elsewhere)?;
        if !matches!(theirs.state, State::Established | State::Finishing) || theirs.inode == 0 {
            return Err(Stranger::Closing);
        }
        if theirs.uid != self.own.uid {
            return Err(Stranger::User(theirs.uid));
        }
        let mut seen = 0;
        for pid in holders::of_socket(theirs.inode, self.own.uid)? {
            let holder = match Holder::read(pid) {
                Ok(holder) => holder,
                // It has gone meanwhile, or is no longer who it was.
                Err(_) if !holders::still_holds(pid, theirs.inode) => continue,
                Err(error) => return Err(error.into()),
            };
            self.judge_process(&holder, theirs.cgroup)?;
            // Its number was its own all the time.
            seen += usize::from(holders::still_holds(pid, theirs.inode));
        }
        if seen == 0 {
            return Err(Stranger::Nobody);
        }
        // As long as our end is connected, theirs is the one that was asked about.
        let ours = self.end(local, peer)?;
        let connected =
            |end: &End| end.inode == inode && matches!(end.state, State::Established | State::CloseWait);
        match ours.as_ref().is_some_and(connected) {
            true => Ok(()),
            false => Err(Stranger::Closing),
        }
    }

    /// The process that connected, not the one that sends: a UNIX socket has no other name for its peer. Without a
    /// descriptor of it (kernels before 6.5) its number may be somebody else's by now.
    fn judge_unix(&self, facts: Option<&UnixFacts>) -> Result<(), Stranger> {
        let facts = facts.ok_or_else(|| Stranger::Unknown("the kernel does not say".to_owned()))?;
        if facts.uid != self.own.uid {
            return Err(Stranger::User(facts.uid));
        }
        let process = facts
            .process
            .as_ref()
            .ok_or_else(|| Stranger::Unknown("the kernel is older than 6.5; show the token".to_owned()))?;
        let holder = Holder::read(facts.pid)?;
        self.judge_process(&holder, None)?;
        match unix::is_alive(process.as_fd()) {
            true => Ok(()),
            false => Err(Stranger::Nobody),
        }
    }

    /// The decision about one process.
    fn judge_process(&self, holder: &Holder, made_in: Option<u64>) -> Result<(), Stranger> {
        let pid = holder.pid;
        if pid == self.own.pid {
            return Ok(());
        }
        if let Some(kind) = holder.namespaces.differs(&self.own.namespaces) {
            return Err(Stranger::Namespace { pid, kind });
        }
        if !self.executors_welcome && self.started.any_of(&holder.kin) {
            return Err(Stranger::Executor(pid));
        }
        match (made_in, holder.cgroup) {
            (Some(made), Some(lives)) if made != lives => Err(Stranger::Cgroup(pid)),
            _ => Ok(()),
        }
    }
}

/// How somebody came to us.
#[derive(Debug, Clone)]
enum Way {
    Tcp {
        peer: SocketAddr,
        local: SocketAddr,
        /// Of our own end.
        inode: u64,
    },
    Unix(Option<Arc<UnixFacts>>),
}

#[derive(Debug)]
struct UnixFacts {
    uid: u32,
    pid: u32,
    process: Option<OwnedFd>,
}

/// One connection's other end.
pub struct Caller {
    way: Way,
    verdict: OnceCell<Result<(), Stranger>>,
    /// It has shown a certificate that our authority signed.
    certified: std::sync::OnceLock<()>,
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Caller({:?})", self.way)
    }
}

impl Caller {
    fn new(way: Way) -> Arc<Self> {
        Arc::new(Caller {
            way,
            verdict: OnceCell::new(),
            certified: std::sync::OnceLock::new(),
        })
    }

    /// Of a connection that has just been accepted.
    pub fn tcp(socket: &tokio::net::TcpStream) -> io::Result<Arc<Self>> {
        Ok(Caller::new(Way::Tcp {
            peer: plain(socket.peer_addr()?),
            local: plain(socket.local_addr()?),
            inode: rustix::fs::fstat(socket)?.st_ino,
        }))
    }

    /// Of a connection that has just been accepted.
    pub fn unix(socket: &tokio::net::UnixStream) -> Arc<Self> {
        let facts = rustix::net::sockopt::socket_peercred(socket)
            .ok()
            .and_then(|found| {
                Some(Arc::new(UnixFacts {
                    uid: found.uid.as_raw(),
                    pid: u32::try_from(found.pid.as_raw_nonzero().get()).ok()?,
                    process: unix::process(socket.as_fd()).ok(),
                }))
            });
        Caller::new(Way::Unix(facts))
    }

    /// None on a UNIX socket, which no page can reach.
    pub fn reached(&self) -> Option<IpAddr> {
        match &self.way {
            Way::Tcp { local, .. } => Some(local.ip()),
            Way::Unix(_) => None,
        }
    }

    pub(super) fn address(&self) -> Option<IpAddr> {
        match &self.way {
            Way::Tcp { peer, .. } => Some(peer.ip()),
            Way::Unix(_) => None,
        }
    }

    pub fn certify(&self) {
        let _ = self.certified.set(());
    }

    pub(super) fn is_certified(&self) -> bool {
        self.certified.get().is_some()
    }
}

/// Listeners for both kinds of addresses show IPv4 peers as IPv6 ones.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, net::TcpStream};

    use super::*;

    fn inner(executors_welcome: bool) -> Arc<Inner> {
        Peers::new(Started::default(), executors_welcome).unwrap().0
    }

    /// A process beside us.
    fn neighbour(inner: &Inner) -> Holder {
        Holder {
            pid: 77,
            namespaces: inner.own.namespaces.clone(),
            kin: [77, 70, 7].into(),
            cgroup: Some(5),
        }
    }

    #[test]
    fn only_who_lives_where_we_do_and_is_no_executors_is_the_owner() {
        let inner = inner(false);
        let holder = neighbour(&inner);
        assert_eq!(inner.judge_process(&holder, Some(5)), Ok(()));
        // Made in another cgroup than it is held in: somebody has handed it on.
        assert_eq!(inner.judge_process(&holder, Some(6)), Err(Stranger::Cgroup(77)));
        assert_eq!(inner.judge_process(&holder, None), Ok(()));
        inner.started.add(70);
        assert_eq!(inner.judge_process(&holder, Some(5)), Err(Stranger::Executor(77)));
        inner.started.remove(70);
        assert_eq!(inner.judge_process(&holder, Some(5)), Ok(()));
        let elsewhere = Holder {
            namespaces: Namespaces::other(&holder.namespaces),
            ..holder
        };
        let refused = inner.judge_process(&elsewhere, Some(5));
        assert_eq!(refused, Err(Stranger::Namespace { pid: 77, kind: "pid" }));
    }

    #[test]
    fn executors_are_welcome_at_their_own_api() {
        let inner = inner(true);
        let holder = neighbour(&inner);
        inner.started.add(77);
        assert_eq!(inner.judge_process(&holder, Some(5)), Ok(()));
    }

    #[test]
    fn an_address_is_believed_only_as_long_as_its_connection_lives() {
        let inner = inner(false);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, peer) = listener.accept().unwrap();
        let local = server.local_addr().unwrap();
        let inode = rustix::fs::fstat(&server).unwrap().st_ino;
        assert_eq!(inner.judge_tcp(peer, local, inode), Ok(()));
        // Our end is another connection by now: the port has been used again.
        assert_eq!(inner.judge_tcp(peer, local, inode + 1), Err(Stranger::Closing));
        drop(client);
        assert!(inner.judge_tcp(peer, local, inode).is_err());
        drop(server);
        assert_eq!(
            inner.judge_tcp("192.0.2.1:9".parse().unwrap(), local, inode),
            Err(Stranger::Elsewhere)
        );
    }
}
