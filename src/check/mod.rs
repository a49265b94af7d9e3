//! Looking at members: HTTP, TCP, and commands inside them.
//!
//! What to look at is decided in [`group::probe`](crate::group::probe), what follows in
//! [`group::watch`](crate::group::watch). HTTP and TCP take no process: their sockets are made inside the member's
//! network and used from here. Everything a server may do to us is bounded: time, bytes, redirects.

mod exec;
mod http;
mod patience;
mod redirect;
mod sockets;
mod tls;

use std::{
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use self::sockets::Sockets;
use crate::{
    container::Entrance,
    group::probe::{Probe, Seen, Sight},
};

/// Looks at one member.
#[derive(Debug)]
pub struct Prober {
    sockets: Sockets,
    entrance: Entrance,
}

/// What was seen, and something to add to it.
type Sighting = (Sight, Option<String>);

impl Prober {
    /// `network` is the member's, if that is not ours.
    pub fn new(entrance: Entrance, network: Option<Arc<OwnedFd>>) -> Self {
        Prober {
            sockets: Sockets::new(network),
            entrance,
        }
    }

    /// How sentences call the member.
    pub fn member(&self) -> &str {
        self.entrance.member()
    }

    /// One look. Dropping the future ends whatever was begun for it.
    pub async fn look(&self, probe: &Probe, timeout: Option<Duration>) -> Seen {
        let begun = Instant::now();
        let (sight, words) = match timeout {
            None => self.unhurried(probe).await,
            // H-03
            Some(timeout) => patience::within(timeout, self.unhurried(probe))
                .await
                .unwrap_or((Sight::TooLate, None)),
        };
        Seen {
            sight,
            took: begun.elapsed(),
            words,
        }
    }

    async fn unhurried(&self, probe: &Probe) -> Sighting {
        match probe {
            Probe::Http(probe) => http::look(probe, &self.sockets).await,
            Probe::Tcp(address) => match self.sockets.connect(*address).await {
                Ok(_) => (Sight::Connected, None),
                Err(sight) => (sight, None),
            },
            Probe::Exec(command) => exec::look(command, &self.entrance).await,
        }
    }
}
