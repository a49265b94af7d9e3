//! The address that members are told to have (E-03) and that updates carry (U-09).

use std::net::{IpAddr, SocketAddr, UdpSocket};

use super::environment::Environment;
use crate::mesos::v1;

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

/// What updates say about the network of members that have none of their own: the names under which the agent put
/// us there, with our address.
pub fn network_infos(executor: &v1::ExecutorInfo, ip: Option<IpAddr>) -> Vec<v1::NetworkInfo> {
    use v1::network_info::{IpAddress, Protocol};

    let Some(ip) = ip else { return Vec::new() };
    let protocol = if ip.is_ipv4() {
        Protocol::IPv4
    } else {
        Protocol::IPv6
    };
    let named = executor
        .container
        .iter()
        .flat_map(|container| &container.network_infos);
    let mut infos: Vec<v1::NetworkInfo> = named
        .filter(|info| info.name.is_some())
        .map(|info| v1::NetworkInfo {
            ip_addresses: vec![],
            ..info.clone()
        })
        .collect();
    if infos.is_empty() {
        infos.push(v1::NetworkInfo::default());
    }
    // Which of several networks the address belongs to we cannot tell; the first is the one with the default route.
    if let Some(first) = infos.first_mut() {
        first.ip_addresses.push(IpAddress {
            protocol: Some(protocol.into()),
            ip_address: Some(ip.to_string()),
        });
    }
    infos
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e_03_our_end_of_the_way_to_the_agent_is_our_address() {
        let loopback: IpAddr = "127.0.0.1".parse().expect("address");
        assert_eq!(toward(SocketAddr::new(loopback, 5051)), Some(loopback));
    }

    #[test]
    fn u_09_updates_name_the_networks_the_agent_chose() {
        let ip = Some("10.1.2.3".parse().expect("address"));
        let mut executor = v1::ExecutorInfo::default();
        let infos = network_infos(&executor, ip);
        assert_eq!(infos.len(), 1);
        assert_eq!(infos[0].ip_addresses[0].ip_address.as_deref(), Some("10.1.2.3"));
        let named = v1::NetworkInfo {
            name: Some("blue".into()),
            ..Default::default()
        };
        executor.container = Some(v1::ContainerInfo {
            network_infos: vec![named],
            ..Default::default()
        });
        let infos = network_infos(&executor, ip);
        assert_eq!(infos.len(), 1);
        assert_eq!(infos[0].name.as_deref(), Some("blue"));
        assert_eq!(infos[0].ip_addresses.len(), 1);
        assert!(network_infos(&executor, None).is_empty());
    }
}
