//! The kernel's memory of UDP flows, made to forget those that a pod's coming or going has overtaken.
//!
//! A flow is sent where its first packet was sent, for as long as its client goes on sending. A client that is not told
//! (UDP has no way to) would talk to a dead pod's address for ever, or to the node itself if it was early.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{request::Protocol, ruleset::PublishedPort};
use crate::sys::netlink::{Answer, Batch, Reader, Refused, Socket, flag};

const SUBSYSTEM: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;

const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
const FILTER: u16 = 25;

const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const PROTO_NUMBER: u16 = 1;
const PROTO_DESTINATION: u16 = 3;

/// A flow that began with a packet to one of our ports.
struct Flow<'a> {
    /// Where its first packet went.
    destination: IpAddr,
    port: u16,
    protocol: u8,
    /// Who answers it.
    answerer: IpAddr,
    /// As the kernel wants it back: the original tuple, the flow's id and its zone.
    original: &'a [u8],
    id: Option<&'a [u8]>,
    zone: Option<&'a [u8]>,
}

/// Flows to a newly published port of this node that others answer.
pub(super) fn forget_others(
    socket: &mut Socket,
    ports: &[PublishedPort],
    node: &[IpAddr],
) -> Result<usize, Refused> {
    forget(socket, ports, |flow, port| {
        flow.answerer != port.address && node.contains(&flow.destination)
    })
}

/// Flows that a pod which goes has answered.
pub(super) fn forget_own(socket: &mut Socket, ports: &[PublishedPort]) -> Result<usize, Refused> {
    forget(socket, ports, |flow, port| flow.answerer == port.address)
}

fn forget(
    socket: &mut Socket,
    ports: &[PublishedPort],
    overtaken: impl Fn(&Flow<'_>, &PublishedPort) -> bool,
) -> Result<usize, Refused> {
    let mut count = 0;
    for ipv6 in [false, true] {
        let udp = |port: &&PublishedPort| port.protocol == Protocol::Udp && port.address.is_ipv6() == ipv6;
        let ports: Vec<&PublishedPort> = ports.iter().filter(udp).collect();
        let Some(first) = ports.first() else { continue };
        // Each question is a walk through the memory of all flows: one port is asked for by number, several together.
        let only = (ports.len() == 1).then_some(first.host_port);
        let flows = match flows(socket, first.address, Some(only)) {
            // Kernels before 5.8 know no filter.
            Err(refused) if refused.is(libc::EINVAL) || refused.is(libc::EOPNOTSUPP) => {
                flows(socket, first.address, None)
            }
            other => other,
        }?;
        for answer in &flows {
            let Some(flow) = read(answer) else { continue };
            let led_here = |port: &&&PublishedPort| {
                (flow.protocol, flow.port) == (port.protocol.number(), port.host_port)
            };
            if !ports
                .iter()
                .find(led_here)
                .is_some_and(|port| overtaken(&flow, port))
            {
                continue;
            }
            match delete(socket, &flow) {
                // It has ended by itself.
                Err(refused) if refused.is(libc::ENOENT) => {}
                other => other.map(|()| count += 1)?,
            }
        }
    }
    Ok(count)
}

fn header(address: IpAddr) -> [u8; 4] {
    let family = if address.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    [family as u8, 0, 0, 0]
}

/// Flows of this address's family; `filter`: those of UDP only, and perhaps of one port.
fn flows(socket: &mut Socket, family: IpAddr, filter: Option<Option<u16>>) -> Result<Vec<Answer>, Refused> {
    /// Of the original tuple.
    const BY_PROTOCOL: u32 = 1 << 3;
    const BY_PORT: u32 = 1 << 5;
    let mut batch = Batch::new();
    batch.add(SUBSYSTEM << 8 | GET, flag::DUMP, &header(family), |m| {
        let Some(port) = filter else { return };
        m.nest(TUPLE_ORIGINAL, |m| {
            m.nest(TUPLE_PROTO, |m| {
                m.u8(PROTO_NUMBER, Protocol::Udp.number());
                if let Some(port) = port {
                    m.bytes(PROTO_DESTINATION, &port.to_be_bytes());
                }
            });
        });
        let by = BY_PROTOCOL | if port.is_some() { BY_PORT } else { 0 };
        m.nest(FILTER, |m| m.u32(1, by));
    });
    socket.request(&batch)
}

fn read(answer: &Answer) -> Option<Flow<'_>> {
    let attributes = answer.attributes(4);
    let original = attributes.find(TUPLE_ORIGINAL)?;
    let inner = |tuple: &'_ [u8], kind| Reader::new(tuple).find(kind).map(<[u8]>::to_vec);
    let ip = |tuple, source: bool| {
        let ip = inner(tuple, TUPLE_IP)?;
        let ip = Reader::new(&ip);
        let (four, six) = if source { (1, 3) } else { (2, 4) };
        if let Some(four) = ip.find(four) {
            return Some(IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(four).ok()?)));
        }
        Some(IpAddr::from(Ipv6Addr::from(
            <[u8; 16]>::try_from(ip.find(six)?).ok()?,
        )))
    };
    let proto = inner(original, TUPLE_PROTO)?;
    let proto = Reader::new(&proto);
    Some(Flow {
        destination: ip(original, false)?,
        port: u16::from_be_bytes(proto.find(PROTO_DESTINATION)?.try_into().ok()?),
        protocol: *proto.find(PROTO_NUMBER)?.first()?,
        answerer: ip(attributes.find(TUPLE_REPLY)?, true)?,
        original,
        id: attributes.find(ID),
        zone: attributes.find(ZONE),
    })
}

fn delete(socket: &mut Socket, flow: &Flow<'_>) -> Result<(), Refused> {
    const NESTED: u16 = 1 << 15;
    let mut batch = Batch::new();
    batch.add(
        SUBSYSTEM << 8 | DELETE,
        flag::ACK,
        &header(flow.destination),
        |m| {
            m.bytes(TUPLE_ORIGINAL | NESTED, flow.original);
            if let Some(id) = flow.id {
                m.bytes(ID, id);
            }
            if let Some(zone) = flow.zone {
                m.bytes(ZONE, zone);
            }
        },
    );
    socket.transact(&batch)
}
