//! The place where the pods API listens.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::net::TcpListener;

use crate::{
    cli::{Failure, failure},
    network::{port, request::Protocol},
};

/// Where clients look when they are told nothing else.
pub(super) const USUAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// Tried when the usual port is taken, before any port that is free.
const NEARBY: std::ops::RangeInclusive<u16> = 8081..=8099;

/// Listens where it was typed, or else at the usual place; if somebody has that, beside it.
pub(super) async fn listen(typed: Option<SocketAddr>) -> Result<TcpListener, Failure> {
    listen_at(typed.unwrap_or(USUAL), typed.is_some()).await
}

async fn listen_at(address: SocketAddr, typed: bool) -> Result<TcpListener, Failure> {
    let error = match TcpListener::bind(address).await {
        Ok(listener) => return Ok(listener),
        Err(error) => error,
    };
    if error.kind() != std::io::ErrorKind::AddrInUse {
        return Err(Failure::failed(format!("cannot listen on {address}: {error}")));
    }
    let holder = match port::listener(address.ip(), Protocol::Tcp, address.port()) {
        Some(holder) => format!("{holder} listens there"),
        None => error.to_string(),
    };
    let free = beside(address).await;
    match free {
        Some(free) if !typed => {
            let instead = free.local_addr()?;
            failure::complain(format_args!(
                "port {} is taken ({holder}); the pods API listens on {instead} instead",
                address.port()
            ));
            Ok(free)
        }
        Some(free) => Err(Failure::failed(format!(
            "cannot listen on {address}: {holder}; {} is free",
            free.local_addr()?
        ))),
        None => Err(Failure::failed(format!("cannot listen on {address}: {holder}"))),
    }
}

async fn beside(address: SocketAddr) -> Option<TcpListener> {
    for port in NEARBY.chain([0]) {
        if let Ok(listener) = TcpListener::bind(SocketAddr::new(address.ip(), port)).await {
            return Some(listener);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_has_the_place_is_told_and_another_one_used_unless_it_was_asked_for() {
        let first = listen_at("127.0.0.1:0".parse().unwrap(), true).await.unwrap();
        let taken = first.local_addr().unwrap();
        let second = listen_at(taken, false).await.unwrap();
        assert_ne!(second.local_addr().unwrap(), taken);
        let refused = listen_at(taken, true).await.unwrap_err().to_string();
        let us = format!("cannot listen on {taken}: process {} (", std::process::id());
        assert!(refused.starts_with(&us), "{refused}");
        assert!(refused.ends_with(" is free"), "{refused}");
        // Nobody's, and nobody can have it.
        let nowhere = listen_at("192.0.2.1:80".parse().unwrap(), false)
            .await
            .unwrap_err();
        assert!(
            nowhere.to_string().starts_with("cannot listen on 192.0.2.1:80: "),
            "{nowhere}"
        );
    }
}
