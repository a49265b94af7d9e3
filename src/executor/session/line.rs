//! One connection to the agent: TCP, TLS over it, or a Unix socket.

use std::{
    io,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use rustix::{
    fs::{Mode, OFlags},
    net::sockopt,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::client::TlsStream;

use super::tls::{TlsError, Trust};
use crate::executor::environment::{Agent, Environment, Route};

/// An agent that does not take a connection in this time is not there; it sits on this very host.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The kernel notices a peer that has vanished after 30 + 3 × 10 seconds of silence.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_COUNT: u32 = 3;
/// The length of `sun_path`, with its end.
const SUN_PATH: usize = 108;

#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("cannot connect to the agent at {place}: {source}")]
    Connect { place: String, source: io::Error },
    #[error("the agent at {place} did not take the connection within {} s", CONNECT_TIMEOUT.as_secs())]
    Slow { place: String },
    #[error("cannot agree on TLS with the agent at {place}: {source}")]
    Tls { place: String, source: io::Error },
}

/// Makes connections to one agent.
#[derive(Debug)]
pub struct Dialer {
    agent: Agent,
    trust: Option<Trust>,
}

impl Dialer {
    /// Reads certificates if the agent speaks https.
    pub fn new(
        environment: &Environment,
        ca_file: Option<&Path>,
        agent_name: Option<&str>,
    ) -> Result<Self, TlsError> {
        let agent = environment.agent.clone();
        let trust = match (&environment.tls, &agent.route) {
            (Some(tls), Route::Tcp(address)) => Some(Trust::new(tls, ca_file, address.ip(), agent_name)?),
            _ => None,
        };
        Ok(Dialer { agent, trust })
    }

    /// Where it dials to, for messages.
    pub fn place(&self) -> String {
        match &self.agent.route {
            Route::Tcp(address) => address.to_string(),
            Route::Unix(path) => path.display().to_string(),
        }
    }

    pub async fn dial(&self) -> Result<Line, DialError> {
        match tokio::time::timeout(CONNECT_TIMEOUT, self.connect()).await {
            Ok(result) => result,
            Err(_) => Err(DialError::Slow { place: self.place() }),
        }
    }

    async fn connect(&self) -> Result<Line, DialError> {
        let failed = |source| DialError::Connect {
            place: self.place(),
            source,
        };
        let stream = match &self.agent.route {
            Route::Unix(path) => return Ok(Line::Unix(connect_unix(path).await.map_err(failed)?)),
            Route::Tcp(address) => TcpStream::connect(address).await.map_err(failed)?,
        };
        prepare(&stream).map_err(failed)?;
        match &self.trust {
            None => Ok(Line::Tcp(stream)),
            Some(trust) => {
                let stream = trust.connect(stream).await.map_err(|source| DialError::Tls {
                    place: self.place(),
                    source,
                })?;
                Ok(Line::Tls(Box::new(stream)))
            }
        }
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_COUNT)?;
    Ok(())
}

/// Sandbox-like depths make paths that do not fit into a socket address; those are reached through their directory.
async fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    if path.as_os_str().len() < SUN_PATH {
        return UnixStream::connect(path).await;
    }
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let directory = rustix::fs::open(
        directory,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
    UnixStream::connect(short).await
}

#[derive(Debug)]
pub enum Line {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

impl AsyncRead for Line {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Line::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Line::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buffer),
            Line::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Line {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Line::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Line::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
            Line::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Line::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Line::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, slices),
            Line::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Line::Tcp(stream) => stream.is_write_vectored(),
            Line::Tls(stream) => stream.is_write_vectored(),
            Line::Unix(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Line::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Line::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
            Line::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Line::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Line::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
            Line::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
