//! From a listening socket to somebody's requests.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hyper::{
    Request, Response,
    body::{Body, Incoming},
    server::conn::http1,
    service::Service,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
};

use super::{
    crowd::{Crowd, Entry, Who},
    peer::{Caller, Peers},
    tls::Tls,
};

/// After an error that will not have gone by itself in the next moment.
const PAUSE: Duration = Duration::from_millis(100);

/// Where somebody may come in.
#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    Tls(TcpListener, Tls),
    /// With its name, which goes with it.
    Unix(UnixListener, PathBuf),
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Listener::Unix(_, path) = self
            && let Err(error) = std::fs::remove_file(&*path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!("{} stays: {error}", path.display());
        }
    }
}

impl Listener {
    /// A UNIX socket for our user alone. What stands in its place is taken for an old one of ours.
    pub fn unix(path: &Path) -> io::Result<Self> {
        use rustix::{
            fs::{Mode, fchmod},
            net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with},
        };
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        // Before it has a name: there is no moment in which others could connect.
        fchmod(&socket, Mode::from_raw_mode(0o600))?;
        bind(&socket, &SocketAddrUnix::new(path)?)?;
        listen(&socket, 1024)?;
        Ok(Listener::Unix(
            UnixListener::from_std(socket.into())?,
            path.to_owned(),
        ))
    }

    async fn accept(&self) -> io::Result<Socket> {
        match self {
            Listener::Tcp(listener) => Ok(Socket::Tcp(listener.accept().await?.0, None)),
            Listener::Tls(listener, tls) => Ok(Socket::Tcp(listener.accept().await?.0, Some(tls.clone()))),
            Listener::Unix(listener, _) => Ok(Socket::Unix(listener.accept().await?.0)),
        }
    }
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream, Option<Tls>),
    Unix(UnixStream),
}

/// Whatever requests come over.
trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// Somebody who has come in, and what they are counted by.
#[derive(Debug)]
pub struct Guest {
    socket: Socket,
    pub caller: Arc<Caller>,
    pub entry: Arc<Entry>,
}

/// The next connection for which there is room.
pub async fn welcome(listener: &Listener, crowd: &Crowd, peers: Option<&Peers>) -> Guest {
    loop {
        let socket = match listener.accept().await {
            Ok(socket) => socket,
            Err(error) => {
                pause_after(&error).await;
                continue;
            }
        };
        if let Some(guest) = Guest::new(socket, crowd, peers) {
            return guest;
        }
    }
}

/// Without descriptors or memory the next attempt fails as this one did: whoever tries on and on burns a processor.
pub async fn pause_after(error: &io::Error) {
    let scarce = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
    if error
        .raw_os_error()
        .is_some_and(|number| scarce.contains(&number))
    {
        tracing::warn!("cannot accept a connection: {error}");
        tokio::time::sleep(PAUSE).await;
    } else {
        // A client that is gone already. Others have their turn in any case.
        tokio::task::yield_now().await;
    }
}

impl Crowd {
    /// A place for whoever is at the other end.
    pub fn seat(&self, caller: &Caller, peers: Option<&Peers>) -> Option<Entry> {
        let user = || peers?.user(caller).map(Who::User);
        let address = || caller.address().map(Who::address);
        self.enter(user().or_else(address)?)
    }
}

impl Guest {
    /// None if the connection is gone already, or there is no room; then it is closed.
    fn new(socket: Socket, crowd: &Crowd, peers: Option<&Peers>) -> Option<Self> {
        let caller = match &socket {
            Socket::Tcp(socket, _) => {
                // Every answer leaves at once.
                socket.set_nodelay(true).ok()?;
                Caller::tcp(socket).ok()?
            }
            Socket::Unix(socket) => Caller::unix(socket),
        };
        let entry = Arc::new(crowd.seat(&caller, peers)?);
        Some(Guest {
            socket,
            caller,
            entry,
        })
    }

    /// Answers requests until one side has enough.
    pub async fn serve<S, B>(self, idle: Option<Duration>, service: S)
    where
        S: Service<Request<Incoming>, Response = Response<B>>,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        B: Body + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (caller, socket) = (self.caller, self.socket);
        let connection = async {
            let Some(wire) = open(socket, &caller).await else {
                return;
            };
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(idle)
                .serve_connection(TokioIo::new(wire), service);
            // How a client breaks off is its own affair.
            let _ = connection.await;
        };
        tokio::select! {
            () = self.entry.unwelcome() => {}
            () = connection => {}
        }
    }
}

/// Past the handshake, if there is one. A stranger's time counts from before it.
async fn open(socket: Socket, caller: &Caller) -> Option<Box<dyn Wire>> {
    match socket {
        Socket::Tcp(socket, None) => Some(Box::new(socket)),
        Socket::Unix(socket) => Some(Box::new(socket)),
        Socket::Tcp(socket, Some(tls)) => match tls.acceptor().accept(socket).await {
            Ok(stream) => {
                // Verified, or the handshake would have failed.
                if stream
                    .get_ref()
                    .1
                    .peer_certificates()
                    .is_some_and(|chain| !chain.is_empty())
                {
                    caller.certify();
                }
                Some(Box::new(stream))
            }
            Err(error) => {
                tracing::debug!("a client gave up on TLS, or we on it: {error}");
                None
            }
        },
    }
}
