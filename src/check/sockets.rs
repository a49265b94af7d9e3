//! Connections into a member's network, made without a process.

use std::{
    cell::{Cell, RefCell},
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use rustix::net::AddressFamily;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpSocket, TcpStream},
};

use crate::{
    group::probe::Sight,
    sys::{netns, socket},
};

/// A socket is made by a thread that has entered the network, which costs more than all the rest of a check. Whoever
/// needs many gets so many at once.
const BATCH: usize = 16;
/// Needing another so soon after the last counts as needing many.
const SOON: Duration = Duration::from_millis(500);

/// Sockets of one network, made ahead where they are used up quickly.
#[derive(Debug)]
pub(super) struct Sockets {
    /// None: our own.
    network: Option<Arc<OwnedFd>>,
    four: Stock,
    six: Stock,
}

#[derive(Debug, Default)]
struct Stock {
    ready: RefCell<Vec<OwnedFd>>,
    made: Cell<Option<Instant>>,
}

impl Sockets {
    pub fn new(network: Option<Arc<OwnedFd>>) -> Self {
        Sockets {
            network,
            four: Stock::default(),
            six: Stock::default(),
        }
    }

    /// A connection, or what its failure means.
    pub async fn connect(&self, to: SocketAddr) -> Result<Connection, Sight> {
        let socket = self.take(to.is_ipv6()).await.map_err(|error| match error {
            error if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
                Sight::Failed("this machine has no IPv6".into())
            }
            error => Sight::Untried(format!("no socket: {error}")),
        })?;
        let connected = TcpSocket::from_std_stream(std::net::TcpStream::from(socket)).connect(to);
        match connected.await {
            Ok(stream) => {
                // A request is one small piece: it is not to wait for more.
                let _ = stream.set_nodelay(true);
                Ok(Connection(stream))
            }
            // Every port that connections may come from is in use.
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable && to.is_ipv4() => {
                Err(Sight::Untried(format!("cannot connect: {error}")))
            }
            Err(error) => Err(Sight::Failed(describe(&error))),
        }
    }

    async fn take(&self, six: bool) -> io::Result<OwnedFd> {
        let (family, stock) = match six {
            true => (AddressFamily::INET6, &self.six),
            false => (AddressFamily::INET, &self.four),
        };
        let Some(network) = &self.network else {
            return socket::tcp(family);
        };
        if let Some(socket) = stock.ready.borrow_mut().pop() {
            return Ok(socket);
        }
        let now = Instant::now();
        let often = stock
            .made
            .replace(Some(now))
            .is_some_and(|last| now - last < SOON);
        let count = if often { BATCH } else { 1 };
        let mut made = netns::visit(network, move || {
            let mut made = vec![socket::tcp(family)?];
            // Those in advance are a comfort.
            made.extend((1..count).map_while(|_| socket::tcp(family).ok()));
            Ok(made)
        })
        .await?;
        let socket = made.pop().ok_or(io::ErrorKind::NotFound)?;
        stock.ready.borrow_mut().append(&mut made);
        Ok(socket)
    }
}

/// What went wrong, as people say it.
pub(super) fn describe(error: &io::Error) -> String {
    use io::ErrorKind as Kind;
    let words = match error.kind() {
        Kind::ConnectionRefused => "connection refused",
        Kind::ConnectionReset => "connection reset",
        Kind::ConnectionAborted => "connection aborted",
        Kind::BrokenPipe => "connection closed",
        Kind::UnexpectedEof => "connection closed too early",
        Kind::TimedOut => "connection timed out",
        Kind::HostUnreachable => "host unreachable",
        Kind::NetworkUnreachable => "network unreachable",
        Kind::AddrNotAvailable => "no such address",
        _ => return error.to_string(),
    };
    words.to_owned()
}

/// A connection that leaves nothing behind in the kernel, on either side.
#[derive(Debug)]
pub(super) struct Connection(TcpStream);

impl Drop for Connection {
    fn drop(&mut self) {
        socket::part(&self.0);
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}
