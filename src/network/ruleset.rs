//! Our table: laid once per node, then only its sets and maps change.
//!
//! ```text
//! table inet podling
//!   sets   bridges           our bridges                                    ifname
//!          links             which bridges may talk directly                ifname . ifname
//!          pods4/6           addresses of pods                              address
//!          leaving4/6        those that leave the node under its address    address
//!   maps   ports4/6          published ports                                protocol . port → address . port
//!   chains guard             nobody reaches the node's loopback through a bridge
//!          prerouting,output a published port is sent to its pod
//!          forward           to a pod only answers, its own network, published ports
//!          postrouting       masquerade: hairpin, the node's loopback, the way out
//! ```
//!
//! A rule's comment names the layout; when one is missing or of another layout the table is laid anew, in one
//! transaction together with what the living pods have in it. Packets that no rule of ours concerns pass untouched:
//! every policy is accept.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    nft::{ChainSpec, Element, Expressions, Hook, IpFamily, SetSpec, Transaction, Type, Verdict, rules},
    request::Protocol,
};
use crate::sys::netlink::{Refused, Socket};

/// Raised with every change of sets, chains or rules below.
const LAYOUT: u32 = 1;

const SETS: [SetSpec; 8] = [
    SetSpec {
        name: "bridges",
        key: &[Type::Interface],
        data: None,
    },
    SetSpec {
        name: "links",
        key: &[Type::Interface, Type::Interface],
        data: None,
    },
    SetSpec {
        name: "pods4",
        key: &[Type::Ipv4],
        data: None,
    },
    SetSpec {
        name: "pods6",
        key: &[Type::Ipv6],
        data: None,
    },
    SetSpec {
        name: "leaving4",
        key: &[Type::Ipv4],
        data: None,
    },
    SetSpec {
        name: "leaving6",
        key: &[Type::Ipv6],
        data: None,
    },
    SetSpec {
        name: "ports4",
        key: &[Type::Protocol, Type::Port],
        data: Some(&[Type::Ipv4, Type::Port]),
    },
    SetSpec {
        name: "ports6",
        key: &[Type::Protocol, Type::Port],
        data: Some(&[Type::Ipv6, Type::Port]),
    },
];

const RAW: i32 = -300;
const DSTNAT: i32 = -100;
const FILTER: i32 = 0;
const SRCNAT: i32 = 100;

const CHAINS: [ChainSpec; 5] = [
    ChainSpec {
        name: "guard",
        kind: "filter",
        hook: Hook::Prerouting,
        priority: RAW,
    },
    ChainSpec {
        name: "prerouting",
        kind: "nat",
        hook: Hook::Prerouting,
        priority: DSTNAT,
    },
    ChainSpec {
        name: "output",
        kind: "nat",
        hook: Hook::Output,
        priority: DSTNAT,
    },
    ChainSpec {
        name: "forward",
        kind: "filter",
        hook: Hook::Forward,
        priority: FILTER,
    },
    ChainSpec {
        name: "postrouting",
        kind: "nat",
        hook: Hook::Postrouting,
        priority: SRCNAT,
    },
];

type Body = fn(&mut Expressions<'_, '_>);

/// (chain, what it is for, expressions), in order.
const RULES: [(&str, &str, Body); 14] = [
    // `route_localnet` on our bridges lets answers to the node's own 127.0.0.1 back in; without this rule it would also
    // let a pod address services that listen there only (the class of CVE-2020-8558).
    ("guard", "no way to the loopback", |e| {
        e.in_interface();
        e.lookup("bridges", true);
        e.family(IpFamily::V4);
        e.destination_is_loopback4();
        e.verdict(Verdict::Drop);
    }),
    ("prerouting", "published ports", |e| publish(e, IpFamily::V4)),
    ("prerouting", "published ports", |e| publish(e, IpFamily::V6)),
    ("output", "published ports", |e| publish(e, IpFamily::V4)),
    // Not for ::1: IPv6 knows no `route_localnet`, the answer would be dropped. Left alone such a connection is refused
    // at once, and whoever asked for `localhost` goes on to 127.0.0.1.
    ("output", "published ports", |e| {
        e.family(IpFamily::V6);
        e.destination_is_not_loopback6();
        publish(e, IpFamily::V6);
    }),
    ("forward", "answers", |e| {
        e.established_or_related();
        e.verdict(Verdict::Accept);
    }),
    ("forward", "networks that may talk", |e| {
        e.both_interfaces();
        e.lookup("links", true);
        e.verdict(Verdict::Accept);
    }),
    ("forward", "published ports", |e| {
        e.out_interface();
        e.lookup("bridges", true);
        e.was_redirected();
        e.verdict(Verdict::Accept);
    }),
    ("forward", "nothing else to a pod", |e| {
        e.out_interface();
        e.lookup("bridges", true);
        e.verdict(Verdict::Drop);
    }),
    ("postrouting", "from the node's loopback", |e| {
        e.family(IpFamily::V4);
        e.source_is_loopback4();
        e.out_interface();
        e.lookup("bridges", true);
        e.masquerade();
    }),
    // Else the answer would go straight from pod to pod, from an address the asker never spoke to.
    ("postrouting", "pod to published port", |e| {
        hairpin(e, IpFamily::V4)
    }),
    ("postrouting", "pod to published port", |e| {
        hairpin(e, IpFamily::V6)
    }),
    ("postrouting", "the way out", |e| leave(e, IpFamily::V4)),
    ("postrouting", "the way out", |e| leave(e, IpFamily::V6)),
];

fn set_for(family: IpFamily, four: &'static str, six: &'static str) -> &'static str {
    match family {
        IpFamily::V4 => four,
        IpFamily::V6 => six,
    }
}

fn publish(e: &mut Expressions<'_, '_>, family: IpFamily) {
    e.family(family);
    e.destination_is_this_node();
    e.protocol_and_port();
    e.map(set_for(family, "ports4", "ports6"));
    e.dnat(family);
}

fn hairpin(e: &mut Expressions<'_, '_>, family: IpFamily) {
    let pods = set_for(family, "pods4", "pods6");
    e.family(family);
    e.source(family);
    e.lookup(pods, true);
    e.destination(family);
    e.lookup(pods, true);
    e.was_redirected();
    e.masquerade();
}

fn leave(e: &mut Expressions<'_, '_>, family: IpFamily) {
    e.family(family);
    e.source(family);
    e.lookup(set_for(family, "leaving4", "leaving6"), true);
    e.destination(family);
    e.lookup(set_for(family, "pods4", "pods6"), false);
    e.masquerade();
}

/// What one pod has in the table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Share {
    /// Address, and whether it leaves the node under the node's own.
    pub addresses: Vec<(IpAddr, bool)>,
    pub ports: Vec<PublishedPort>,
}

impl Share {
    pub fn has_udp(&self) -> bool {
        self.ports.iter().any(|port| port.protocol == Protocol::Udp)
    }
}

/// One published port of one address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublishedPort {
    pub protocol: Protocol,
    pub host_port: u16,
    pub address: IpAddr,
    pub container_port: u16,
}

/// Elements by the set they belong to.
type Elements = Vec<(&'static str, Vec<Element>)>;

fn push(all: &mut Elements, set: &'static str, element: Element) {
    match all.iter_mut().find(|(name, _)| *name == set) {
        Some((_, elements)) => elements.push(element),
        None => all.push((set, vec![element])),
    }
}

fn key(key: Vec<u8>) -> Element {
    Element { key, data: None }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn interface(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

impl PublishedPort {
    /// Would the table have one place for both?
    pub fn is_instead_of(&self, other: &PublishedPort) -> bool {
        (self.set(), self.protocol, self.host_port) == (other.set(), other.protocol, other.host_port)
    }

    fn set(&self) -> &'static str {
        if self.address.is_ipv4() {
            "ports4"
        } else {
            "ports6"
        }
    }

    /// Each part padded to a register of its own.
    fn key(&self) -> Vec<u8> {
        let [high, low] = self.host_port.to_be_bytes();
        vec![self.protocol.number(), 0, 0, 0, high, low, 0, 0]
    }

    fn element(&self) -> Element {
        let mut data = octets(self.address);
        let [high, low] = self.container_port.to_be_bytes();
        data.extend_from_slice(&[high, low, 0, 0]);
        Element {
            key: self.key(),
            data: Some(data),
        }
    }
}

fn shares(shares: &[Share]) -> Elements {
    let mut all = Elements::new();
    for share in shares {
        for (address, leaving) in &share.addresses {
            let four = address.is_ipv4();
            push(
                &mut all,
                if four { "pods4" } else { "pods6" },
                key(octets(*address)),
            );
            if *leaving {
                push(
                    &mut all,
                    if four { "leaving4" } else { "leaving6" },
                    key(octets(*address)),
                );
            }
        }
        for port in &share.ports {
            push(&mut all, port.set(), port.element());
        }
    }
    all
}

/// A bridge of ours on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridge {
    pub name: String,
    pub network: String,
    pub isolated: bool,
}

/// What the bridges have in the table.
fn bridges(bridges: &[Bridge]) -> Elements {
    let mut all = Elements::new();
    for one in bridges {
        push(&mut all, "bridges", key(interface(&one.name)));
        for other in bridges {
            if one.name == other.name || !(one.isolated || other.isolated) {
                let mut pair = interface(&one.name);
                pair.extend(interface(&other.name));
                push(&mut all, "links", key(pair));
            }
        }
    }
    all
}

/// Ours among the tables of the node.
#[derive(Debug, Clone)]
pub struct Ruleset {
    table: String,
    /// Layout and what the bridges put into it.
    mark: String,
    bridges: Elements,
}

/// How the table was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    Whole,
    /// Rules are missing, were added, or are those of another layout or configuration.
    Changed,
    Missing,
}

impl Ruleset {
    /// `given` in an order of their own, so that everybody makes the same of them.
    pub fn new(table: &str, given: &[Bridge]) -> Ruleset {
        let bridges = bridges(given);
        let digest = Sha256::digest(format!("{bridges:?}"));
        let mark = digest
            .iter()
            .take(4)
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>();
        Ruleset {
            table: table.to_owned(),
            mark: format!("podling {LAYOUT}.{mark}"),
            bridges,
        }
    }

    fn comment(&self, what: &str) -> String {
        format!("{}: {what}", self.mark)
    }

    pub fn find(&self, socket: &mut Socket) -> Result<Found, Refused> {
        let found = rules(socket, &self.table)?;
        if found.is_empty() {
            return Ok(Found::Missing);
        }
        // The kernel lists chain by chain, in the order in which they were made.
        let wanted = RULES.iter().map(|(chain, what, _)| (*chain, self.comment(what)));
        let same = found
            .iter()
            .map(|(chain, comment)| (chain.as_str(), comment.clone()))
            .eq(wanted);
        Ok(if same { Found::Whole } else { Found::Changed })
    }

    /// Lays the table anew, whatever is there, with what `pods` have in it.
    pub fn lay(&self, socket: &mut Socket, pods: &[Share]) -> Result<(), Refused> {
        let mut change = Transaction::new(&self.table);
        // Adding first makes deleting legal where there is none.
        change.add_table();
        change.delete_table();
        change.add_table();
        for (set, id) in SETS.iter().zip(1..) {
            change.add_set(set, id);
        }
        for chain in &CHAINS {
            change.add_chain(chain);
        }
        for (chain, what, body) in &RULES {
            change.add_rule(chain, &self.comment(what), body);
        }
        for (set, elements) in self.bridges.iter().chain(&shares(pods)) {
            change.add_elements(set, elements);
        }
        change.commit(socket)
    }

    /// Adds what one pod has. What is left there from others under the same keys is replaced: whoever holds the lease
    /// owns them.
    pub fn add(&self, socket: &mut Socket, share: &Share) -> Result<(), Refused> {
        let mut change = Transaction::new(&self.table);
        let elements = shares(std::slice::from_ref(share));
        for (set, elements) in &elements {
            change.add_elements(set, elements);
        }
        match change.commit(socket) {
            Err(refused) if refused.is(libc::EBUSY) || refused.is(libc::EEXIST) => {}
            other => return other,
        }
        let mut change = Transaction::new(&self.table);
        for (set, elements) in &elements {
            let bare: Vec<Element> = elements.iter().map(|element| key(element.key.clone())).collect();
            change.add_elements(set, elements);
            change.delete_elements(set, &bare);
            change.add_elements(set, elements);
        }
        change.commit(socket)
    }

    /// Takes out what one pod has. What is gone already is no error.
    pub fn remove(&self, socket: &mut Socket, share: &Share) -> Result<(), Refused> {
        let bare = |elements: &[Element]| -> Vec<Element> {
            elements.iter().map(|element| key(element.key.clone())).collect()
        };
        let elements = shares(std::slice::from_ref(share));
        if elements.is_empty() {
            return Ok(());
        }
        let mut change = Transaction::new(&self.table);
        for (set, elements) in &elements {
            change.delete_elements(set, &bare(elements));
        }
        match change.commit(socket) {
            Err(refused) if refused.is(libc::ENOENT) => {}
            other => return other,
        }
        for (set, elements) in &elements {
            for element in elements {
                let mut change = Transaction::new(&self.table);
                change.delete_elements(set, &bare(std::slice::from_ref(element)));
                match change.commit(socket) {
                    Err(refused) if refused.is(libc::ENOENT) => {}
                    other => other?,
                }
            }
        }
        Ok(())
    }

    /// Removes the whole table.
    pub fn delete(&self, socket: &mut Socket) -> Result<(), Refused> {
        let mut change = Transaction::new(&self.table);
        change.add_table();
        change.delete_table();
        change.commit(socket)
    }
}
