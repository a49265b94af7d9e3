//! Netlink: messages written into one buffer, sent with one call, every one of them answered.
//!
//! Serves the families we speak: `NETLINK_ROUTE` (links, addresses, routes), `NETLINK_NETFILTER` (nf_tables) and
//! `NETLINK_SOCK_DIAG` (whose a socket is).
//! A [`Batch`] collects messages; [`Socket::transact`] sends them together and waits for all the acknowledgements.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, netlink, recv, send, socket_with,
    sockopt,
};

/// What a message asks for beside its kind; `NLM_F_REQUEST` is always added.
pub mod flag {
    pub const ACK: u16 = libc::NLM_F_ACK as u16;
    pub const CREATE: u16 = libc::NLM_F_CREATE as u16;
    pub const EXCL: u16 = libc::NLM_F_EXCL as u16;
    pub const REPLACE: u16 = libc::NLM_F_REPLACE as u16;
    pub const APPEND: u16 = libc::NLM_F_APPEND as u16;
    pub const DUMP: u16 = libc::NLM_F_DUMP as u16;
}

const HEADER: usize = 16;
const NESTED: u16 = 1 << 15;
const TYPE_MASK: u16 = 0x3fff;
/// Larger batches ask for a larger send buffer first; below this the kernel's default is enough.
const PLAIN_SEND: usize = 128 << 10;
/// Nobody waits for the kernel longer than this; the route lock may be held by others for seconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// More than any answer we ask for; a dump beyond it is refused rather than collected.
const DUMP_LIMIT: usize = 16 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Route,
    Netfilter,
    SocketDiagnosis,
}

/// Messages in the order in which the kernel shall carry them out.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Where each message starts.
    starts: Vec<usize>,
    /// How many messages asked for an acknowledgement.
    acks: usize,
}

impl Batch {
    pub fn new() -> Batch {
        Batch::default()
    }

    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Appends a message: its fixed header, then the attributes that `body` writes.
    pub fn add(&mut self, kind: u16, flags: u16, header: &[u8], body: impl FnOnce(&mut Attributes<'_>)) {
        let start = self.bytes.len();
        let flags = flags | libc::NLM_F_REQUEST as u16;
        self.acks += usize::from(flags & flag::ACK != 0);
        self.starts.push(start);
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes
            .extend_from_slice(&(self.starts.len() as u32).to_ne_bytes());
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(header);
        pad(&mut self.bytes);
        body(&mut Attributes {
            bytes: &mut self.bytes,
        });
        let length = (self.bytes.len() - start) as u32;
        if let Some(place) = self.bytes.get_mut(start..start + 4) {
            place.copy_from_slice(&length.to_ne_bytes());
        }
    }

    /// The bytes as they go to the kernel; for tests and comparisons.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Writes attributes into the message under construction.
#[derive(Debug)]
pub struct Attributes<'a> {
    bytes: &'a mut Vec<u8>,
}

impl Attributes<'_> {
    pub fn bytes(&mut self, kind: u16, value: &[u8]) {
        let length = (4 + value.len()) as u16;
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        pad(self.bytes);
    }

    pub fn u8(&mut self, kind: u16, value: u8) {
        self.bytes(kind, &[value]);
    }

    pub fn u32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    /// In network order, as nf_tables wants its numbers.
    pub fn be32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// With the final zero byte.
    pub fn text(&mut self, kind: u16, value: &str) {
        let length = (4 + value.len() + 1) as u16;
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        pad(self.bytes);
    }

    /// An attribute that holds attributes.
    pub fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Attributes<'_>)) {
        self.raw_nest(kind | NESTED, &[], body);
    }

    /// As [`Self::nest`], with a fixed header before the inner attributes and without the nested mark.
    pub fn nest_with(&mut self, kind: u16, header: &[u8], body: impl FnOnce(&mut Attributes<'_>)) {
        self.raw_nest(kind, header, body);
    }

    fn raw_nest(&mut self, kind: u16, header: &[u8], body: impl FnOnce(&mut Attributes<'_>)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&0u16.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(header);
        pad(self.bytes);
        body(&mut Attributes { bytes: self.bytes });
        let length = (self.bytes.len() - start) as u16;
        if let Some(place) = self.bytes.get_mut(start..start + 2) {
            place.copy_from_slice(&length.to_ne_bytes());
        }
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// The kernel's no to one message of a batch.
#[derive(Debug, thiserror::Error)]
#[error("{}{}", .cause, .hint.as_deref().map(|hint| format!(" ({hint})")).unwrap_or_default())]
pub struct Refused {
    /// Which message, counted from 0; `None` when the whole batch was refused or the socket failed.
    pub message: Option<usize>,
    #[source]
    pub cause: io::Error,
    /// The kernel's own words, when it had some.
    pub hint: Option<String>,
}

impl Refused {
    pub fn is(&self, errno: i32) -> bool {
        self.cause.raw_os_error() == Some(errno)
    }
}

impl From<io::Error> for Refused {
    fn from(cause: io::Error) -> Self {
        Refused {
            message: None,
            cause,
            hint: None,
        }
    }
}

/// One answer to a request: kind, fixed header and attributes.
#[derive(Debug, Clone)]
pub struct Answer {
    pub kind: u16,
    pub body: Vec<u8>,
}

impl Answer {
    /// The attributes after a fixed header of `skip` bytes.
    pub fn attributes(&self, skip: usize) -> Reader<'_> {
        Reader {
            rest: self.body.get(skip..).unwrap_or_default(),
        }
    }
}

/// Walks attributes; stops at the first that does not fit.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// The first attribute of this kind.
    pub fn find(&self, kind: u16) -> Option<&'a [u8]> {
        self.clone()
            .find_map(|(found, value)| (found == kind).then_some(value))
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16::from_ne_bytes(self.rest.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(self.rest.get(2..4)?.try_into().ok()?) & TYPE_MASK;
        let value = self.rest.get(4..length)?;
        self.rest = self.rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// A netlink socket. It stays in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    /// Added to a batch's own numbers, so that a late answer is never taken for one of the present batch.
    epoch: u32,
    buffer: Vec<u8>,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Socket {
    /// In the calling thread's network namespace.
    pub fn open(family: Family) -> io::Result<Socket> {
        let protocol = match family {
            Family::Route => None, // NETLINK_ROUTE is number 0
            Family::Netfilter => Some(netlink::NETFILTER),
            Family::SocketDiagnosis => Some(netlink::SOCK_DIAG),
        };
        let fd = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )?;
        bind(&fd, &netlink::SocketAddrNetlink::new(0, 0))?;
        sockopt::set_socket_timeout(&fd, sockopt::Timeout::Recv, Some(PATIENCE))?;
        // Old kernels know neither; their errors are then shorter, nothing else.
        set_option(&fd, libc::NETLINK_EXT_ACK, 1).ok();
        set_option(&fd, libc::NETLINK_CAP_ACK, 1).ok();
        if family == Family::Route {
            // Lets the kernel filter dumps by what the request's header says.
            set_option(&fd, libc::NETLINK_GET_STRICT_CHK, 1).ok();
        }
        Ok(Socket {
            fd,
            epoch: 0,
            buffer: vec![0; 32 << 10],
        })
    }

    /// Sends all and waits until each acknowledged message is answered; the first refusal is returned.
    ///
    /// The kernel goes on after a refused route message; an nf_tables transaction is all or nothing.
    pub fn transact(&mut self, batch: &Batch) -> Result<(), Refused> {
        let base = self.send(batch)?;
        let count = batch.starts.len() as u32;
        let mut refused: Option<Refused> = None;
        let mut open = batch.acks;
        while open > 0 {
            let read = self.receive()?;
            let buffer = self.buffer.get(..read).unwrap_or_default();
            for (header, body) in messages(buffer) {
                let ours = header.sequence > base && header.sequence <= base + count;
                if i32::from(header.kind) != libc::NLMSG_ERROR || !ours {
                    continue;
                }
                let index = (header.sequence - base - 1) as usize;
                let asked = is_acked(batch, index);
                open -= usize::from(asked);
                if let Some(found) = refusal(body, index) {
                    // An error for a message that asked for nothing is about the transaction it opens or closes.
                    if !asked {
                        open = 0;
                    }
                    refused.get_or_insert(found);
                }
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// Sends one request and collects all it is answered with: a dump, or a single object.
    ///
    /// A dump in whose course others changed something is not a picture of any moment; it is asked for again.
    pub fn request(&mut self, batch: &Batch) -> Result<Vec<Answer>, Refused> {
        const ATTEMPTS: usize = 10;
        for _ in 0..ATTEMPTS {
            if let Some(answers) = self.ask(batch)? {
                return Ok(answers);
            }
        }
        Err(io::Error::from_raw_os_error(libc::EINTR).into())
    }

    /// `None`: the answer is inconsistent.
    fn ask(&mut self, batch: &Batch) -> Result<Option<Vec<Answer>>, Refused> {
        let base = self.send(batch)?;
        let mut answers = Vec::new();
        let (mut size, mut consistent) = (0, true);
        loop {
            let read = self.receive()?;
            let buffer = self.buffer.get(..read).unwrap_or_default();
            for (header, body) in messages(buffer) {
                if header.sequence != base + 1 {
                    continue;
                }
                consistent &= header.flags & libc::NLM_F_DUMP_INTR as u16 == 0;
                match i32::from(header.kind) {
                    // Both begin with an error number, 0 for none.
                    libc::NLMSG_DONE | libc::NLMSG_ERROR => {
                        return match refusal(body, 0) {
                            Some(refused) => Err(refused),
                            None => Ok(consistent.then_some(answers)),
                        };
                    }
                    kind => {
                        size += body.len();
                        if size > DUMP_LIMIT {
                            return Err(io::Error::from_raw_os_error(libc::EMSGSIZE).into());
                        }
                        answers.push(Answer {
                            kind: kind as u16,
                            body: body.to_vec(),
                        });
                    }
                }
            }
        }
    }

    /// Answers the number that the batch's own counting starts from.
    fn send(&mut self, batch: &Batch) -> io::Result<u32> {
        let count = batch.starts.len() as u32;
        // Starts anew after four thousand million messages; a late answer that old does not exist.
        let base = if self.epoch.checked_add(count).is_some() {
            self.epoch
        } else {
            0
        };
        self.epoch = base + count;
        let mut bytes = batch.bytes.clone();
        for (index, start) in batch.starts.iter().enumerate() {
            if let Some(place) = bytes.get_mut(start + 8..start + 12) {
                place.copy_from_slice(&(base + index as u32 + 1).to_ne_bytes());
            }
        }
        if bytes.len() > PLAIN_SEND {
            let wanted =
                i32::try_from(bytes.len() * 2).map_err(|_| io::Error::from_raw_os_error(libc::EMSGSIZE))?;
            set_socket_option(&self.fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, wanted)?;
        }
        let sent = send(&self.fd, &bytes, SendFlags::empty())?;
        if sent != bytes.len() {
            return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
        }
        Ok(base)
    }

    fn receive(&mut self) -> io::Result<usize> {
        loop {
            let (_, length) = match recv(&self.fd, &mut self.buffer[..], RecvFlags::TRUNC) {
                Ok(read) => read,
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::AGAIN) => return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT)),
                Err(errno) => return Err(errno.into()),
            };
            if length > self.buffer.len() {
                return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
            }
            return Ok(length);
        }
    }
}

fn is_acked(batch: &Batch, index: usize) -> bool {
    let flags = batch
        .starts
        .get(index)
        .and_then(|start| batch.bytes.get(start + 6..start + 8))
        .and_then(|bytes| bytes.try_into().ok());
    flags.is_some_and(|bytes| u16::from_ne_bytes(bytes) & flag::ACK != 0)
}

/// The fixed start of every message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    kind: u16,
    flags: u16,
    sequence: u32,
}

/// Splits what one `recv` gave into messages; stops at the first that does not fit.
fn messages(mut rest: &[u8]) -> impl Iterator<Item = (Header, &[u8])> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(rest.get(..4)?.try_into().ok()?) as usize;
        let header = Header {
            kind: u16::from_ne_bytes(rest.get(4..6)?.try_into().ok()?),
            flags: u16::from_ne_bytes(rest.get(6..8)?.try_into().ok()?),
            sequence: u32::from_ne_bytes(rest.get(8..12)?.try_into().ok()?),
        };
        let body = rest.get(HEADER..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((header, body))
    })
}

/// The refusal in an `NLMSG_ERROR` body; an acknowledgement has none.
fn refusal(body: &[u8], index: usize) -> Option<Refused> {
    const WORDS: u16 = 1; // NLMSGERR_ATTR_MSG
    let code = i32::from_ne_bytes(body.get(..4)?.try_into().ok()?);
    if code == 0 {
        return None;
    }
    // The echoed header follows, and with NETLINK_CAP_ACK only that; then attributes.
    let hint = Reader::new(body.get(4 + HEADER..).unwrap_or_default())
        .find(WORDS)
        .map(|words| String::from_utf8_lossy(words).trim_end_matches('\0').to_owned());
    Some(Refused {
        message: Some(index),
        cause: io::Error::from_raw_os_error(code.wrapping_neg()),
        hint,
    })
}

fn set_option(fd: &OwnedFd, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    set_socket_option(fd, libc::SOL_NETLINK, option, value)
}

fn set_socket_option(
    fd: &OwnedFd,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: `value` lives through the call, its size is the one given, and the descriptor is owned by `fd`.
    let answer = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if answer < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut batch = Batch::new();
        batch.add(7, flag::ACK, &[1, 2, 3, 4], |m| {
            m.text(3, "eth0");
            m.nest(18, |m| {
                m.u32(1, 0xdead_beef);
                m.u8(2, 9);
            });
        });
        let (header, body) = messages(batch.as_bytes()).next().unwrap();
        assert_eq!((header.kind, header.sequence), (7, 1));
        let outer = Reader::new(&body[4..]);
        assert_eq!(outer.find(3), Some(&b"eth0\0"[..]));
        let inner = Reader::new(outer.find(18).unwrap());
        assert_eq!(inner.find(1), Some(&0xdead_beef_u32.to_ne_bytes()[..]));
        assert_eq!(inner.find(2), Some(&[9][..]));
        assert_eq!(batch.as_bytes().len() % 4, 0);
    }

    #[test]
    fn cut_answers_end_the_walk() {
        let mut batch = Batch::new();
        batch.add(7, 0, &[], |m| m.text(1, "eleven byte"));
        let whole = batch.as_bytes();
        for cut in 0..whole.len() {
            assert_eq!(messages(&whole[..cut]).count(), 0);
            let attributes = whole.get(HEADER..cut).unwrap_or_default();
            assert_eq!(Reader::new(attributes).count(), 0);
        }
    }

    #[test]
    fn a_refusal_says_which_message_and_why() {
        let mut body = (-libc::EEXIST).to_ne_bytes().to_vec();
        body.extend_from_slice(&[0; HEADER]);
        Attributes { bytes: &mut body }.text(1, "already there");
        let refused = refusal(&body, 3).unwrap();
        assert_eq!(refused.message, Some(3));
        assert!(refused.is(libc::EEXIST));
        assert!(refused.to_string().ends_with("(already there)"), "{refused}");
        assert!(refusal(&[0; 20], 0).is_none());
    }

    #[test]
    fn the_kernel_answers_every_message() {
        // Reading needs no privilege and changes nothing: the loopback link of wherever we are.
        let mut socket = Socket::open(Family::Route).unwrap();
        let mut batch = Batch::new();
        batch.add(libc::RTM_GETLINK, flag::ACK, &[0; 16], |m| {
            m.text(libc::IFLA_IFNAME, "lo")
        });
        let answers = socket.request(&batch).unwrap();
        assert_eq!(
            answers[0].attributes(16).find(libc::IFLA_IFNAME),
            Some(&b"lo\0"[..])
        );

        let mut missing = Batch::new();
        missing.add(libc::RTM_GETLINK, flag::ACK, &[0; 16], |m| {
            m.text(libc::IFLA_IFNAME, "not there")
        });
        assert!(socket.request(&missing).unwrap_err().is(libc::ENODEV));
    }
}
