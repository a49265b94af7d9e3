//! Links, addresses, routes and neighbours as netlink messages.
//!
//! Functions that start with `add_` or `set_` write messages into a batch; the others ask the kernel right away.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::subnet::Subnet;
use crate::sys::netlink::{Answer, Attributes, Batch, Reader, Refused, Socket, flag};

const UP: u32 = libc::IFF_UP as u32;

/// `struct ifinfomsg`.
fn link_header(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}

fn octets(m: &mut Attributes<'_>, kind: u16, address: IpAddr) {
    match address {
        IpAddr::V4(address) => m.bytes(kind, &address.octets()),
        IpAddr::V6(address) => m.bytes(kind, &address.octets()),
    }
}

/// A link as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// `bridge`, `veth`, …; physical devices have none.
    pub kind: Option<String>,
    pub mac: Option<[u8; 6]>,
    /// The bridge it is a port of.
    pub master: Option<u32>,
    pub up: bool,
}

fn read_link(answer: &Answer) -> Option<Link> {
    const LINKINFO: u16 = 18;
    const INFO_KIND: u16 = 1;
    const ADDRESS: u16 = 1;
    const NAME: u16 = 3;
    const MASTER: u16 = 10;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
    let attributes = answer.attributes(16);
    Some(Link {
        index: u32::from_ne_bytes(answer.body.get(4..8)?.try_into().ok()?),
        up: u32::from_ne_bytes(answer.body.get(8..12)?.try_into().ok()?) & UP != 0,
        name: attributes.find(NAME).map(text)?,
        kind: attributes
            .find(LINKINFO)
            .and_then(|info| Reader::new(info).find(INFO_KIND))
            .map(text),
        mac: attributes.find(ADDRESS).and_then(|mac| mac.try_into().ok()),
        master: attributes
            .find(MASTER)
            .and_then(|index| Some(u32::from_ne_bytes(index.try_into().ok()?))),
    })
}

/// The link of this name, if there is one.
pub fn find(socket: &mut Socket, name: &str) -> Result<Option<Link>, Refused> {
    let mut batch = Batch::new();
    batch.add(libc::RTM_GETLINK, flag::ACK, &link_header(0, 0, 0), |m| {
        m.text(libc::IFLA_IFNAME, name)
    });
    match socket.request(&batch) {
        Ok(answers) => Ok(answers.first().and_then(read_link)),
        Err(refused) if refused.is(libc::ENODEV) => Ok(None),
        Err(refused) => Err(refused),
    }
}

/// All links of the namespace.
pub fn all(socket: &mut Socket) -> Result<Vec<Link>, Refused> {
    let mut batch = Batch::new();
    batch.add(libc::RTM_GETLINK, flag::DUMP, &link_header(0, 0, 0), |_| {});
    Ok(socket.request(&batch)?.iter().filter_map(read_link).collect())
}

/// An address on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assigned {
    pub link: u32,
    pub address: IpAddr,
    pub prefix: u8,
    /// Not only valid on the link or the machine itself.
    pub global: bool,
}

fn read_address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(four).into());
    }
    <[u8; 16]>::try_from(bytes)
        .ok()
        .map(|six| Ipv6Addr::from(six).into())
}

/// All addresses of a link, or with 0 of the namespace.
pub fn addresses(socket: &mut Socket, index: u32) -> Result<Vec<Assigned>, Refused> {
    const ADDRESS: u16 = 1;
    const LOCAL: u16 = 2;
    let mut batch = Batch::new();
    let mut header = [0; 8];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    batch.add(libc::RTM_GETADDR, flag::DUMP, &header, |_| {});
    let read = |answer: &Answer| {
        let attributes = answer.attributes(8);
        Some(Assigned {
            link: u32::from_ne_bytes(answer.body.get(4..8)?.try_into().ok()?),
            prefix: *answer.body.get(1)?,
            global: *answer.body.get(3)? == libc::RT_SCOPE_UNIVERSE,
            address: attributes
                .find(LOCAL)
                .or(attributes.find(ADDRESS))
                .and_then(read_address)?,
        })
    };
    let all = socket.request(&batch)?;
    // Old kernels do not filter a dump by link.
    let concerns = |assigned: &Assigned| index == 0 || assigned.link == index;
    Ok(all.iter().filter_map(read).filter(concerns).collect())
}

/// A way to somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    pub to: Subnet,
    /// 0 when it goes over several.
    pub link: u32,
}

/// The routes of the main table that lead somewhere in particular.
pub fn routes(socket: &mut Socket) -> Result<Vec<Route>, Refused> {
    const DESTINATION: u16 = 1;
    const LINK: u16 = 4;
    const MAIN: u8 = 254;
    const UNICAST: u8 = 1;
    let mut batch = Batch::new();
    batch.add(libc::RTM_GETROUTE, flag::DUMP, &[0; 12], |_| {});
    let read = |answer: &Answer| {
        let (prefix, table, kind) = (answer.body.get(1)?, answer.body.get(4)?, answer.body.get(7)?);
        if (*table, *kind) != (MAIN, UNICAST) {
            return None;
        }
        let attributes = answer.attributes(12);
        let link = attributes
            .find(LINK)
            .and_then(|link| Some(u32::from_ne_bytes(link.try_into().ok()?)));
        Some(Route {
            to: Subnet::around(attributes.find(DESTINATION).and_then(read_address)?, *prefix),
            link: link.unwrap_or(0),
        })
    };
    Ok(socket.request(&batch)?.iter().filter_map(read).collect())
}

/// A bridge that is up, with an address of its own that does not change with its ports.
pub fn add_bridge(batch: &mut Batch, name: &str, mac: [u8; 6], mtu: Option<u32>) {
    batch.add(
        libc::RTM_NEWLINK,
        flag::ACK | flag::CREATE | flag::EXCL,
        &link_header(0, UP, UP),
        |m| {
            m.text(libc::IFLA_IFNAME, name);
            m.bytes(libc::IFLA_ADDRESS, &mac);
            if let Some(mtu) = mtu {
                m.u32(libc::IFLA_MTU, mtu);
            }
            m.nest(libc::IFLA_LINKINFO, |m| m.text(libc::IFLA_INFO_KIND, "bridge"));
        },
    );
}

/// A pair of interfaces: `name` here, in the bridge, and its peer, born in another namespace. Both still down.
#[derive(Debug, Clone, Copy)]
pub struct Pair<'a> {
    pub name: &'a str,
    pub mac: [u8; 6],
    pub bridge: u32,
    pub mtu: Option<u32>,
    pub peer: &'a str,
    pub peer_mac: [u8; 6],
    /// A descriptor of the peer's namespace in the calling process.
    pub peer_namespace: i32,
}

pub fn add_pair(batch: &mut Batch, pair: &Pair<'_>) {
    const VETH_INFO_PEER: u16 = 1;
    batch.add(
        libc::RTM_NEWLINK,
        flag::ACK | flag::CREATE | flag::EXCL,
        &link_header(0, 0, 0),
        |m| {
            m.text(libc::IFLA_IFNAME, pair.name);
            m.bytes(libc::IFLA_ADDRESS, &pair.mac);
            m.u32(libc::IFLA_MASTER, pair.bridge);
            if let Some(mtu) = pair.mtu {
                m.u32(libc::IFLA_MTU, mtu);
            }
            m.nest(libc::IFLA_LINKINFO, |m| {
                m.text(libc::IFLA_INFO_KIND, "veth");
                m.nest(libc::IFLA_INFO_DATA, |m| {
                    m.nest_with(VETH_INFO_PEER, &link_header(0, 0, 0), |m| {
                        m.text(libc::IFLA_IFNAME, pair.peer);
                        m.bytes(libc::IFLA_ADDRESS, &pair.peer_mac);
                        m.u32(libc::IFLA_NET_NS_FD, pair.peer_namespace as u32);
                        if let Some(mtu) = pair.mtu {
                            m.u32(libc::IFLA_MTU, mtu);
                        }
                    });
                });
            });
        },
    );
}

/// Words for whoever looks at `ip link`.
///
/// The kernel takes them only for a link that exists, and a batch goes on after a refusal: in one batch with the message
/// that makes the link, this could mark a link of others.
pub fn set_alias(batch: &mut Batch, name: &str, alias: &str) {
    batch.add(libc::RTM_NEWLINK, flag::ACK, &link_header(0, 0, 0), |m| {
        m.text(libc::IFLA_IFNAME, name);
        m.text(libc::IFLA_IFALIAS, alias);
    });
}

/// Readies the node's end of a pair that was just made, and raises it.
pub fn set_port(batch: &mut Batch, name: &str, alias: &str) {
    const INET6_ADDR_GEN_MODE: u16 = 8;
    const NO_ADDRESS: u8 = 1;
    const INFO_SLAVE_KIND: u16 = 4;
    const INFO_SLAVE_DATA: u16 = 5;
    const HAIRPIN: u16 = 4;
    batch.add(libc::RTM_NEWLINK, flag::ACK, &link_header(0, 0, 0), |m| {
        m.text(libc::IFLA_IFNAME, name);
        m.text(libc::IFLA_IFALIAS, alias);
        m.nest(libc::IFLA_AF_SPEC, |m| {
            m.nest(libc::AF_INET6 as u16, |m| m.u8(INET6_ADDR_GEN_MODE, NO_ADDRESS));
        });
    });
    // Where br_netfilter is on, a packet of a pod for its own published port turns round inside the bridge.
    batch.add(libc::RTM_NEWLINK, flag::ACK, &link_header(0, UP, UP), |m| {
        m.text(libc::IFLA_IFNAME, name);
        m.nest(libc::IFLA_LINKINFO, |m| {
            m.text(INFO_SLAVE_KIND, "bridge");
            m.nest(INFO_SLAVE_DATA, |m| m.u8(HAIRPIN, 1));
        });
    });
}

pub fn delete(socket: &mut Socket, index: u32) -> Result<(), Refused> {
    let mut batch = Batch::new();
    batch.add(libc::RTM_DELLINK, flag::ACK, &link_header(index, 0, 0), |_| {});
    match socket.transact(&batch) {
        Err(refused) if refused.is(libc::ENODEV) => Ok(()),
        other => other,
    }
}

pub fn set_up(batch: &mut Batch, index: u32) {
    batch.add(libc::RTM_NEWLINK, flag::ACK, &link_header(index, UP, UP), |_| {});
}

/// No address of its own making on this link; before it goes up.
pub fn set_no_ipv6(batch: &mut Batch, index: u32) {
    const INET6_ADDR_GEN_MODE: u16 = 8;
    const NONE: u8 = 1;
    batch.add(libc::RTM_NEWLINK, flag::ACK, &link_header(index, 0, 0), |m| {
        m.nest(libc::IFLA_AF_SPEC, |m| {
            m.nest(libc::AF_INET6 as u16, |m| m.u8(INET6_ADDR_GEN_MODE, NONE));
        });
    });
}

/// An address usable at once: we know that nobody else has it, so nothing waits for duplicates to be detected.
pub fn add_address(batch: &mut Batch, index: u32, address: IpAddr, subnet: Subnet) {
    const FLAGS: u16 = 8;
    const NODAD: u32 = 2;
    let mut header = [
        family(address),
        subnet.prefix(),
        NODAD as u8,
        libc::RT_SCOPE_UNIVERSE,
        0,
        0,
        0,
        0,
    ];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    batch.add(
        libc::RTM_NEWADDR,
        flag::ACK | flag::CREATE | flag::REPLACE,
        &header,
        |m| {
            octets(m, libc::IFA_LOCAL, address);
            octets(m, libc::IFA_ADDRESS, address);
            if address.is_ipv4() {
                octets(m, libc::IFA_BROADCAST, subnet.last());
            } else {
                m.u32(FLAGS, NODAD);
            }
        },
    );
}

pub fn add_default_route(batch: &mut Batch, index: u32, gateway: IpAddr) {
    const MAIN: u8 = 254;
    const BOOT: u8 = 3;
    const UNICAST: u8 = 1;
    let mut header = [0; 12];
    header[0] = family(gateway);
    header[4] = MAIN;
    header[5] = BOOT;
    header[6] = libc::RT_SCOPE_UNIVERSE;
    header[7] = UNICAST;
    batch.add(
        libc::RTM_NEWROUTE,
        flag::ACK | flag::CREATE | flag::EXCL,
        &header,
        |m| {
            octets(m, libc::RTA_GATEWAY, gateway);
            m.u32(libc::RTA_OIF, index);
        },
    );
}

/// A neighbour known for good, so that the first packet need not ask for it.
pub fn add_neighbour(batch: &mut Batch, index: u32, address: IpAddr, mac: [u8; 6]) {
    const PERMANENT: u16 = 0x80;
    const DST: u16 = 1;
    const LLADDR: u16 = 2;
    let mut header = [0; 12];
    header[0] = family(address);
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..10].copy_from_slice(&PERMANENT.to_ne_bytes());
    batch.add(
        libc::RTM_NEWNEIGH,
        flag::ACK | flag::CREATE | flag::REPLACE,
        &header,
        |m| {
            octets(m, DST, address);
            m.bytes(LLADDR, &mac);
        },
    );
}
