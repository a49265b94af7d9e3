//! The agent's doors: a TCP port, which stays its own while it is away, and a domain socket.

use std::{
    cell::RefCell,
    fs::{self, Permissions},
    future::poll_fn,
    io,
    net::{IpAddr, SocketAddr},
    os::{fd::AsFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, UnixListener},
    task::{AbortHandle, spawn_local},
};

use crate::door::{self, Caller, Crowd, Entry, Guard, Keeper, Limits, Peers};

use super::{
    core::Core,
    http,
    link::{Order, Tap},
};

/// Longest path that fits into a socket address, its closing NUL included.
const SUN_PATH: usize = 108;

/// Holds an address without listening on it: connecting to it is refused, and nobody else gets it.
#[derive(Debug)]
pub(super) struct Port {
    _guard: TcpSocket,
    address: SocketAddr,
}

impl Port {
    pub(super) fn reserve(ip: IpAddr) -> io::Result<Self> {
        let guard = shared_socket(SocketAddr::new(ip, 0))?;
        let address = guard.local_addr()?;
        Ok(Port {
            _guard: guard,
            address,
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    fn listen(&self) -> io::Result<TcpListener> {
        shared_socket(self.address)?.listen(1024)
    }
}

/// The guard and the listener share the port; Linux hands connections to listeners only.
fn shared_socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Where the domain socket goes: into the work directory, as in a real agent.
pub(super) fn socket_path(work_dir: &Path) -> io::Result<PathBuf> {
    let path = work_dir.join("agent.sock");
    if path.as_os_str().len() < SUN_PATH {
        return Ok(path);
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!(
            "{} is too long for a domain socket; take a shorter work directory",
            path.display()
        ),
    ))
}

/// What is behind the doors, and who may come in.
#[derive(Clone)]
struct House {
    core: Rc<RefCell<Core>>,
    crowd: Crowd,
    keeper: Keeper,
}

/// One connection's owner, as far as we know it.
pub(super) struct Visit {
    pub caller: Arc<Caller>,
    pub entry: Entry,
    pub keeper: Keeper,
}

/// A listening socket that can be taken away from the task that accepts on it, at once: a client that comes after
/// that is refused, and does not end in the backlog of a socket about to close.
#[derive(Debug)]
struct Door<L: AsFd> {
    listener: Rc<RefCell<Option<L>>>,
    welcome: AbortHandle,
}

impl<L: AsFd + 'static> Door<L> {
    fn new<F, S>(listener: L, house: &House, domain: bool, poll_accept: F) -> Self
    where
        F: Fn(&L, &mut Context<'_>) -> Poll<io::Result<(S, Arc<Caller>)>> + 'static,
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let listener = Rc::new(RefCell::new(Some(listener)));
        let (house, open) = (house.clone(), listener.clone());
        let welcome = spawn_local(async move {
            loop {
                let accepted = poll_fn(|cx| match &*open.borrow() {
                    Some(listener) => poll_accept(listener, cx),
                    None => Poll::Pending,
                });
                match accepted.await {
                    Ok((socket, caller)) => {
                        // Closed at once where there is no room.
                        if let Some(entry) = house.crowd.seat(&caller, house.keeper.peers()) {
                            let guest = Visit {
                                caller,
                                entry,
                                keeper: house.keeper.clone(),
                            };
                            drop(spawn_local(serve(house.core.clone(), socket, domain, guest)));
                        }
                    }
                    Err(error) => door::pause_after(&error).await,
                }
            }
        });
        Door {
            listener,
            welcome: welcome.abort_handle(),
        }
    }
}

impl<L: AsFd> Drop for Door<L> {
    fn drop(&mut self) {
        if let Some(listener) = self.listener.take() {
            // A process that is just being started holds a copy of the descriptor until its exec; closing ours alone
            // would leave the door open for as long. Fails for a socket that never listened.
            let _ = rustix::net::shutdown(&listener, rustix::net::Shutdown::Both);
        }
        self.welcome.abort();
    }
}

/// The open doors. Dropping them closes them; connections that came in live on.
#[derive(Debug)]
pub(super) struct Doors {
    _tcp: Door<TcpListener>,
    _domain: Option<Door<UnixListener>>,
}

impl Doors {
    pub(super) fn open(
        core: &Rc<RefCell<Core>>,
        port: &Port,
        domain_socket: Option<&Path>,
    ) -> io::Result<Self> {
        let house = House {
            core: core.clone(),
            // Executors leave their second connection idle for as long as they like.
            crowd: Crowd::new(Limits::part(4).with_patient_friends()),
            keeper: Keeper::new(Guard {
                peers: Peers::with_executors(),
                ..Guard::default()
            }),
        };
        let tcp = Door::new(port.listen()?, &house, false, |listener: &TcpListener, cx| {
            listener.poll_accept(cx).map(|accepted| {
                let (socket, _) = accepted?;
                // Every record leaves at once.
                socket.set_nodelay(true)?;
                let caller = Caller::tcp(&socket)?;
                Ok((socket, caller))
            })
        });
        let domain = match domain_socket {
            Some(path) => {
                let listener = bind(path)?;
                Some(Door::new(
                    listener,
                    &house,
                    true,
                    |listener: &UnixListener, cx| {
                        listener.poll_accept(cx).map_ok(|(socket, _)| {
                            let caller = Caller::unix(&socket);
                            (socket, caller)
                        })
                    },
                ))
            }
            None => None,
        };
        Ok(Doors {
            _tcp: tcp,
            _domain: domain,
        })
    }
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// One connection, from its first byte to its end or the order that ends it.
async fn serve<S>(core: Rc<RefCell<Core>>, socket: S, domain: bool, visit: Visit)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (link, segment) = {
        let mut core = core.borrow_mut();
        let Some(link) = core.connected(domain) else {
            return;
        };
        (link, core.mischief.segment)
    };
    {
        let tap = Tap {
            socket,
            link: link.clone(),
            segment,
        };
        let service = service_fn(|request| http::handle(core.clone(), link.clone(), &visit, request));
        let connection = http1::Builder::new()
            .header_read_timeout(None)
            .pipeline_flush(true)
            .serve_connection(TokioIo::new(tap), service);
        let mut connection = pin!(connection);
        tokio::select! {
            // An order comes before anything the peer may still send.
            biased;
            order = link.next_order() => if order == Order::Freeze {
                while link.next_order().await != Order::Cut {}
            },
            () = visit.entry.unwelcome() => {}
            // How a client breaks off is its own affair.
            _ = connection.as_mut() => {}
        }
    }
    core.borrow_mut().disconnected(&link);
}
