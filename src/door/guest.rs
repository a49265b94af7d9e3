//! From a listening socket to somebody's requests.

use std::{io, sync::Arc, time::Duration};

use hyper::{
    Request, Response,
    body::{Body, Incoming},
    server::conn::http1,
    service::Service,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use super::{
    crowd::{Crowd, Entry, Who},
    peer::{Caller, Peers},
};

/// After an error that will not have gone by itself in the next moment.
const PAUSE: Duration = Duration::from_millis(100);

/// Somebody who has come in, and what they are counted by.
#[derive(Debug)]
pub struct Guest {
    socket: TcpStream,
    pub caller: Arc<Caller>,
    pub entry: Arc<Entry>,
}

/// The next connection for which there is room.
pub async fn welcome(listener: &TcpListener, crowd: &Crowd, peers: Option<&Peers>) -> Guest {
    loop {
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
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
    fn new(socket: TcpStream, crowd: &Crowd, peers: Option<&Peers>) -> Option<Self> {
        // Every answer leaves at once.
        socket.set_nodelay(true).ok()?;
        let caller = Caller::tcp(&socket).ok()?;
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
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(idle)
            .serve_connection(TokioIo::new(self.socket), service);
        tokio::select! {
            () = self.entry.unwelcome() => {}
            // How a client breaks off is its own affair.
            _ = connection => {}
        }
    }
}
