//! The agent's doors: a TCP port, which stays its own while it is away, and a domain socket.

use std::{
    cell::RefCell,
    fs::{self, Permissions},
    io,
    net::{IpAddr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    pin::pin,
    rc::Rc,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, UnixListener},
    task::{AbortHandle, spawn_local},
};

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

/// The open doors. Dropping them closes them; connections that came in live on.
#[derive(Debug)]
pub(super) struct Doors(Vec<AbortHandle>);

impl Doors {
    pub(super) fn open(
        core: &Rc<RefCell<Core>>,
        port: &Port,
        domain_socket: Option<&Path>,
    ) -> io::Result<Self> {
        let listener = port.listen()?;
        let mut doors = Doors(Vec::new());
        let welcome = core.clone();
        doors.0.push(
            spawn_local(async move {
                loop {
                    let Ok((socket, _)) = accepted(listener.accept().await).await else {
                        continue;
                    };
                    // Every record leaves at once.
                    if socket.set_nodelay(true).is_ok() {
                        spawn_local(serve(welcome.clone(), socket, false));
                    }
                }
            })
            .abort_handle(),
        );
        if let Some(path) = domain_socket {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = UnixListener::bind(path)?;
            fs::set_permissions(path, Permissions::from_mode(0o666))?;
            let welcome = core.clone();
            doors.0.push(
                spawn_local(async move {
                    loop {
                        let Ok((socket, _)) = accepted(listener.accept().await).await else {
                            continue;
                        };
                        spawn_local(serve(welcome.clone(), socket, true));
                    }
                })
                .abort_handle(),
            );
        }
        Ok(doors)
    }
}

/// Lets an error of accept (no descriptors, a client already gone) pass without spinning on it.
async fn accepted<T>(result: io::Result<T>) -> io::Result<T> {
    if result.is_err() {
        tokio::task::yield_now().await;
    }
    result
}

impl Drop for Doors {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

/// One connection, from its first byte to its end or the order that ends it.
async fn serve<S>(core: Rc<RefCell<Core>>, socket: S, domain: bool)
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
        let service = service_fn(|request| http::handle(core.clone(), link.clone(), request));
        let connection = http1::Builder::new()
            // Executors leave their second connection idle for as long as they like.
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
            // How a client breaks off is its own affair.
            _ = connection.as_mut() => {}
        }
    }
    core.borrow_mut().disconnected(&link);
}
