//! The address that members without a network of their own are told to have (E-03).

use std::net::{IpAddr, SocketAddr, UdpSocket};

use super::environment::Environment;

/// The address of the network we are in: the agent's on the host's network, our own in a container network.
pub fn own(environment: &Environment) -> Option<IpAddr> {
    environment
        .bind_ip
        .or_else(|| environment.agent.address.and_then(toward))
}

/// Our end of the way to a peer. Connecting a datagram socket sends nothing, it only asks the routes.
fn toward(peer: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = match peer {
        SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(peer).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e_03_our_end_of_the_way_to_the_agent_is_our_address() {
        let loopback: IpAddr = "127.0.0.1".parse().expect("address");
        assert_eq!(toward(SocketAddr::new(loopback, 5051)), Some(loopback));
    }
}
