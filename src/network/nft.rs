//! nf_tables spoken over netlink: tables, chains, sets, rules and the expressions we use.
//!
//! A [`Transaction`] is carried out whole or not at all.

use std::net::Ipv6Addr;

use crate::sys::netlink::{Answer, Attributes, Batch, Reader, Refused, Socket, flag};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;

const NEW_TABLE: u16 = 0;
const DEL_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
const NEW_RULE: u16 = 6;
const GET_RULE: u16 = 7;
const NEW_SET: u16 = 9;
const NEW_ELEMENTS: u16 = 12;
const DEL_ELEMENTS: u16 = 14;

const FAMILY_INET: u8 = 1;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;

/// One attribute holds at most 64 KiB; elements go in portions far below it.
const ELEMENTS_PER_MESSAGE: usize = 256;

fn header(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

fn kind(message: u16) -> u16 {
    SUBSYSTEM << 8 | message
}

/// Data types as `nft` knows them, so that it can print our sets; a concatenation is the types in base 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Ipv4,
    Ipv6,
    Protocol,
    Port,
    Interface,
}

impl Type {
    fn number(self) -> u32 {
        match self {
            Type::Ipv4 => 7,
            Type::Ipv6 => 8,
            Type::Protocol => 12,
            Type::Port => 13,
            Type::Interface => 41,
        }
    }

    /// In a register, padded to whole words.
    fn width(self) -> u32 {
        match self {
            Type::Ipv4 | Type::Protocol | Type::Port => 4,
            Type::Ipv6 | Type::Interface => 16,
        }
    }

    /// The length of a value that stands alone.
    fn bare(self) -> u32 {
        match self {
            Type::Protocol => 1,
            Type::Port => 2,
            wide => wide.width(),
        }
    }
}

fn type_of(parts: &[Type]) -> (u32, u32) {
    let number = parts.iter().fold(0, |all, part| all << 6 | part.number());
    let width = match parts {
        [one] => one.bare(),
        many => many.iter().map(|part| part.width()).sum(),
    };
    (number, width)
}

/// A set or, with `data`, a map.
#[derive(Debug, Clone, Copy)]
pub struct SetSpec {
    pub name: &'static str,
    pub key: &'static [Type],
    pub data: Option<&'static [Type]>,
}

/// A chain at a hook.
#[derive(Debug, Clone, Copy)]
pub struct ChainSpec {
    pub name: &'static str,
    pub kind: &'static str,
    pub hook: Hook,
    pub priority: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    Prerouting = 0,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// An element: key and, in a map, data, both already padded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    pub key: Vec<u8>,
    pub data: Option<Vec<u8>>,
}

/// Changes to the ruleset that happen together or not at all.
#[derive(Debug)]
pub struct Transaction {
    batch: Batch,
    table: String,
}

impl Transaction {
    pub fn new(table: &str) -> Transaction {
        let mut batch = Batch::new();
        batch.add(BATCH_BEGIN, 0, &header(0, SUBSYSTEM), |_| {});
        Transaction {
            batch,
            table: table.to_owned(),
        }
    }

    fn add(&mut self, message: u16, flags: u16, body: impl FnOnce(&mut Attributes<'_>)) {
        self.batch
            .add(kind(message), flags | flag::ACK, &header(FAMILY_INET, 0), body);
    }

    /// Takes effect even if the table is there already.
    pub fn add_table(&mut self) {
        let table = self.table.clone();
        self.add(NEW_TABLE, flag::CREATE, |m| {
            m.text(1, &table);
            m.be32(2, 0);
        });
    }

    /// With everything in it.
    pub fn delete_table(&mut self) {
        let table = self.table.clone();
        self.add(DEL_TABLE, 0, |m| m.text(1, &table));
    }

    pub fn add_set(&mut self, spec: &SetSpec, id: u32) {
        const MAP: u32 = 8;
        let table = self.table.clone();
        self.add(NEW_SET, flag::CREATE, |m| {
            let (key_type, key_length) = type_of(spec.key);
            m.text(1, &table);
            m.text(2, spec.name);
            m.be32(3, if spec.data.is_some() { MAP } else { 0 });
            m.be32(4, key_type);
            m.be32(5, key_length);
            if let Some(data) = spec.data {
                let (data_type, data_length) = type_of(data);
                m.be32(6, data_type);
                m.be32(7, data_length);
            }
            m.be32(10, id);
            // For `nft list`: interface names are in the machine's order, all else in the network's.
            let order = |of: &[Type]| if of == [Type::Interface] { 1 } else { 2 };
            let data = order(spec.data.unwrap_or_default());
            m.bytes(13, &[0, 4, order(spec.key), 0, 0, 0, 1, 4, data, 0, 0, 0]);
        });
    }

    pub fn add_chain(&mut self, spec: &ChainSpec) {
        const ACCEPT: u32 = 1;
        let table = self.table.clone();
        self.add(NEW_CHAIN, flag::CREATE, |m| {
            m.text(1, &table);
            m.text(3, spec.name);
            m.nest(4, |m| {
                m.be32(1, spec.hook as u32);
                m.be32(2, spec.priority as u32);
            });
            m.be32(5, ACCEPT);
            m.text(7, spec.kind);
        });
    }

    /// Appends a rule. The comment is what operators see in `nft list ruleset`, and what tells us later that it is there.
    pub fn add_rule(&mut self, chain: &str, comment: &str, body: impl FnOnce(&mut Expressions<'_, '_>)) {
        let table = self.table.clone();
        self.add(NEW_RULE, flag::CREATE | flag::APPEND, |m| {
            m.text(1, &table);
            m.text(2, chain);
            m.nest(4, |m| body(&mut Expressions { list: m }));
            m.bytes(7, &comment_data(comment));
        });
    }

    pub fn add_elements(&mut self, set: &str, elements: &[Element]) {
        self.elements(NEW_ELEMENTS, flag::CREATE, set, elements);
    }

    pub fn delete_elements(&mut self, set: &str, elements: &[Element]) {
        self.elements(DEL_ELEMENTS, 0, set, elements);
    }

    fn elements(&mut self, message: u16, flags: u16, set: &str, elements: &[Element]) {
        let table = self.table.clone();
        for portion in elements.chunks(ELEMENTS_PER_MESSAGE) {
            self.add(message, flags, |m| {
                m.text(1, &table);
                m.text(2, set);
                m.nest(3, |m| {
                    for element in portion {
                        m.nest(1, |m| {
                            m.nest(1, |m| m.bytes(1, &element.key));
                            if let Some(data) = &element.data {
                                m.nest(2, |m| m.bytes(1, data));
                            }
                        });
                    }
                });
            });
        }
    }

    pub fn commit(mut self, socket: &mut Socket) -> Result<(), Refused> {
        self.batch.add(BATCH_END, 0, &header(0, SUBSYSTEM), |_| {});
        socket.transact(&self.batch)
    }
}

/// `nft` keeps a comment as type 0, length, text and a zero byte.
fn comment_data(comment: &str) -> Vec<u8> {
    let text: Vec<u8> = comment.bytes().filter(|byte| *byte != 0).take(120).collect();
    let mut data = vec![0, text.len() as u8 + 1];
    data.extend(text);
    data.push(0);
    data
}

/// The comments of all rules of a table as (chain, comment), in order; empty when there is no such table.
pub fn rules(socket: &mut Socket, table: &str) -> Result<Vec<(String, String)>, Refused> {
    let mut batch = Batch::new();
    batch.add(kind(GET_RULE), flag::DUMP, &header(FAMILY_INET, 0), |m| {
        m.text(1, table)
    });
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
    let answers = match socket.request(&batch) {
        Ok(answers) => answers,
        Err(refused) if refused.is(libc::ENOENT) => Vec::new(),
        Err(refused) => return Err(refused),
    };
    let ours = answers.iter().filter(|answer| {
        // Kernels that do not filter a dump by table give all tables of the family.
        answer.kind == kind(NEW_RULE) && answer.attributes(4).find(1).map(text).as_deref() == Some(table)
    });
    Ok(ours
        .map(|answer| {
            let attributes = answer.attributes(4);
            let comment = attributes.find(7).and_then(|data| data.get(2..)).map(text);
            (
                attributes.find(2).map(text).unwrap_or_default(),
                comment.unwrap_or_default(),
            )
        })
        .collect())
}

/// A chain that every forwarded packet passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardChain {
    /// `ip`, `ip6`, `inet` or `bridge`.
    pub family: &'static str,
    pub table: String,
    pub name: String,
    /// What no rule of it concerns is dropped.
    pub drops: bool,
}

/// The chains of all tables of the node at the hook for forwarded packets.
pub fn forward_chains(socket: &mut Socket) -> Result<Vec<ForwardChain>, Refused> {
    let mut batch = Batch::new();
    batch.add(kind(GET_CHAIN), flag::DUMP, &header(0, 0), |_| {});
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
    let number = |bytes: &[u8]| Some(u32::from_be_bytes(bytes.try_into().ok()?));
    let read = |answer: &Answer| {
        let family = match *answer.body.first()? {
            FAMILY_INET => "inet",
            NFPROTO_IPV4 => "ip",
            NFPROTO_IPV6 => "ip6",
            7 => "bridge",
            _ => return None,
        };
        let attributes = answer.attributes(4);
        let hook = Reader::new(attributes.find(4)?).find(1).and_then(number)?;
        (hook == Hook::Forward as u32).then_some(())?;
        Some(ForwardChain {
            family,
            table: attributes.find(1).map(text)?,
            name: attributes.find(3).map(text)?,
            drops: attributes.find(5).and_then(number) == Some(Verdict::Drop as u32),
        })
    };
    Ok(socket.request(&batch)?.iter().filter_map(read).collect())
}

/// Registers of four bytes; the kernel has sixteen of them. Wider values take the next ones too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Register(pub u32);

impl Register {
    /// Numbered from 8 on in the kernel's interface.
    fn number(self) -> u32 {
        8 + self.0
    }
}

/// Which addresses a rule concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IpFamily {
    V4,
    V6,
}

impl IpFamily {
    fn number(self) -> u8 {
        match self {
            IpFamily::V4 => NFPROTO_IPV4,
            IpFamily::V6 => NFPROTO_IPV6,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Drop = 0,
    Accept = 1,
}

/// Writes the expressions of one rule, in the order in which a packet meets them.
#[derive(Debug)]
pub struct Expressions<'a, 'b> {
    list: &'a mut Attributes<'b>,
}

const R0: Register = Register(0);

impl Expressions<'_, '_> {
    fn add(&mut self, name: &str, body: impl FnOnce(&mut Attributes<'_>)) {
        self.list.nest(1, |m| {
            m.text(1, name);
            m.nest(2, body);
        });
    }

    fn compare(&mut self, equal: bool, value: &[u8]) {
        self.add("cmp", |m| {
            m.be32(1, R0.number());
            m.be32(2, u32::from(!equal));
            m.nest(3, |m| m.bytes(1, value));
        });
    }

    fn meta(&mut self, key: u32, to: Register) {
        self.add("meta", |m| {
            m.be32(2, key);
            m.be32(1, to.number());
        });
    }

    fn payload(&mut self, base: u32, offset: u32, length: u32, to: Register) {
        self.add("payload", |m| {
            m.be32(1, to.number());
            m.be32(2, base);
            m.be32(3, offset);
            m.be32(4, length);
        });
    }

    /// Only packets of this family.
    pub fn family(&mut self, family: IpFamily) {
        const NFPROTO: u32 = 15;
        self.meta(NFPROTO, R0);
        self.compare(true, &[family.number()]);
    }

    /// Loads the source address.
    pub fn source(&mut self, family: IpFamily) {
        match family {
            IpFamily::V4 => self.payload(1, 12, 4, R0),
            IpFamily::V6 => self.payload(1, 8, 16, R0),
        }
    }

    /// Loads the destination address.
    pub fn destination(&mut self, family: IpFamily) {
        match family {
            IpFamily::V4 => self.payload(1, 16, 4, R0),
            IpFamily::V6 => self.payload(1, 24, 16, R0),
        }
    }

    /// Source in 127.0.0.0/8.
    pub fn source_is_loopback4(&mut self) {
        self.payload(1, 12, 1, R0);
        self.compare(true, &[127]);
    }

    /// The destination is not `::1`.
    pub fn destination_is_not_loopback6(&mut self) {
        self.destination(IpFamily::V6);
        self.compare(false, &Ipv6Addr::LOCALHOST.octets());
    }

    /// Destination in 127.0.0.0/8.
    pub fn destination_is_loopback4(&mut self) {
        self.payload(1, 16, 1, R0);
        self.compare(true, &[127]);
    }

    /// The destination is one of this node's own addresses.
    pub fn destination_is_this_node(&mut self) {
        const ADDRESS_TYPE: u32 = 3;
        const BY_DESTINATION: u32 = 2;
        const LOCAL: u32 = 2;
        self.add("fib", |m| {
            m.be32(1, R0.number());
            m.be32(2, ADDRESS_TYPE);
            m.be32(3, BY_DESTINATION);
        });
        self.compare(true, &LOCAL.to_ne_bytes());
    }

    /// Loads protocol and destination port, the key of the maps of published ports.
    pub fn protocol_and_port(&mut self) {
        const L4PROTO: u32 = 16;
        self.meta(L4PROTO, R0);
        self.payload(2, 2, 2, Register(1));
    }

    pub fn in_interface(&mut self) {
        self.meta(6, R0);
    }

    pub fn out_interface(&mut self) {
        self.meta(7, R0);
    }

    pub fn both_interfaces(&mut self) {
        self.meta(6, R0);
        self.meta(7, Register(4));
    }

    /// What is loaded is in the set, or is not.
    pub fn lookup(&mut self, set: &str, found: bool) {
        const INVERSE: u32 = 1;
        self.add("lookup", |m| {
            m.text(1, set);
            m.be32(2, R0.number());
            m.be32(5, if found { 0 } else { INVERSE });
        });
    }

    /// Replaces what is loaded by the map's data for it.
    pub fn map(&mut self, map: &str) {
        self.add("lookup", |m| {
            m.text(1, map);
            m.be32(2, R0.number());
            m.be32(3, R0.number());
        });
    }

    /// The connection's state has one of these bits.
    fn connection(&mut self, key: u32, bits: u32) {
        self.add("ct", |m| {
            m.be32(2, key);
            m.be32(1, R0.number());
        });
        self.add("bitwise", |m| {
            m.be32(1, R0.number());
            m.be32(2, R0.number());
            m.be32(3, 4);
            m.be32(6, 0); // NFT_BITWISE_MASK_XOR
            m.nest(4, |m| m.bytes(1, &bits.to_ne_bytes()));
            m.nest(5, |m| m.bytes(1, &[0; 4]));
        });
        self.compare(false, &[0; 4]);
    }

    pub fn established_or_related(&mut self) {
        self.connection(0, 2 | 4);
    }

    /// Its destination was changed by us or another: it came for a published port.
    pub fn was_redirected(&mut self) {
        const DST_NAT: u32 = 1 << 5;
        self.connection(2, DST_NAT);
    }

    /// To the address and port that [`Self::map`] loaded.
    pub fn dnat(&mut self, family: IpFamily) {
        const DNAT: u32 = 1;
        let port = match family {
            IpFamily::V4 => Register(1),
            IpFamily::V6 => Register(4),
        };
        self.add("nat", |m| {
            m.be32(1, DNAT);
            m.be32(2, u32::from(family.number()));
            m.be32(3, R0.number());
            m.be32(4, R0.number());
            m.be32(5, port.number());
            m.be32(6, port.number());
        });
    }

    pub fn masquerade(&mut self) {
        self.add("masq", |_| {});
    }

    pub fn verdict(&mut self, verdict: Verdict) {
        self.add("immediate", |m| {
            m.be32(1, 0);
            m.nest(2, |m| m.nest(2, |m| m.be32(1, verdict as u32)));
        });
    }
}
