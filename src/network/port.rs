//! Ports of the node, as its own processes use them.
//!
//! The table of rules has a packet before any socket of the node sees it: a port published over a process that listens
//! on it would take that process's clients away, and nobody would be told. So each published port is also bound by us,
//! for as long as it is published, and never listened on. The kernel gives it to one of two who ask at the same time,
//! refuses it to us while somebody has it on any address, and to others while we do.

use std::{
    collections::HashSet,
    fmt, fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
    thread,
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt},
};

use super::{error::NetworkError, request::Protocol};

/// Somebody who has just died may take a moment to let go of a port.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(5);

/// A port of the node that nobody else gets.
#[derive(Debug)]
pub(super) struct Claimed {
    _socket: OwnedFd,
}

/// Takes a port of one family on all addresses of the node. None if it cannot be had but nobody listens on it: then
/// there is nobody to take clients from.
pub(super) fn claim(protocol: Protocol, port: u16, ipv6: bool) -> Result<Option<Claimed>, NetworkError> {
    let taken = |holder: String| NetworkError::PortInUse {
        protocol,
        port,
        holder,
    };
    for _ in 0..ATTEMPTS {
        let errno = match bound(protocol, port, ipv6) {
            Ok(socket) => return Ok(Some(Claimed { _socket: socket })),
            Err(errno) => errno,
        };
        if errno != Errno::ADDRINUSE {
            // Such as a low port without the right to it, or a node without IPv6.
            tracing::debug!(%errno, "port {port}/{protocol} of the node is published but not reserved");
            return Ok(None);
        }
        let sockets = sockets(protocol, port, ipv6);
        if let Some(socket) = sockets.iter().find(|socket| socket.serves) {
            return Err(taken(socket.holder().to_string()));
        }
        if !sockets.is_empty() {
            // Connections to somewhere else, or the rest of ended ones. They stay what they are.
            tracing::debug!("port {port}/{protocol} of the node is published beside connections from it");
            return Ok(None);
        }
        thread::sleep(PAUSE);
    }
    Err(taken("a process that has bound it without listening".to_owned()))
}

fn bound(protocol: Protocol, port: u16, ipv6: bool) -> Result<OwnedFd, Errno> {
    let family = if ipv6 {
        AddressFamily::INET6
    } else {
        AddressFamily::INET
    };
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    // Without SO_REUSEADDR, so that nobody who sets it gets the port as long as we have it.
    let address: IpAddr = if ipv6 {
        sockopt::set_ipv6_v6only(&socket, true)?;
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    };
    bind(&socket, &SocketAddr::new(address, port))?;
    Ok(socket)
}

/// Who listens on a port of this network namespace at an address that clients of `address` reach.
pub fn listener(address: IpAddr, protocol: Protocol, port: u16) -> Option<Holder> {
    let sockets = sockets(protocol, port, address.is_ipv6());
    let reached = |socket: &&Socket| {
        socket.serves
            && (address.is_unspecified()
                || socket.address.is_unspecified()
                || socket.address.to_canonical() == address.to_canonical())
    };
    sockets.iter().find(reached).map(Socket::holder)
}

/// Whose a socket is, as far as it can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    Process {
        pid: i32,
        name: String,
    },
    /// Processes of others cannot be looked into.
    User(u32),
    /// Such as the kernel's own.
    Unknown,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Process { pid, name } => write!(f, "process {pid} ({name})"),
            Holder::User(uid) => write!(f, "a process of user {uid}"),
            Holder::Unknown => f.write_str("the kernel, or a process that we cannot see"),
        }
    }
}

/// A line of `/proc/net/tcp` and its like.
#[derive(Debug, PartialEq, Eq)]
struct Socket {
    address: IpAddr,
    port: u16,
    /// Takes what comes from anybody: it listens, or is a datagram socket without a peer.
    serves: bool,
    uid: u32,
    inode: u64,
}

impl Socket {
    /// `protocol` of the table it is from.
    fn read(line: &str, protocol: Protocol) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace();
        let local = fields.nth(1)?;
        let state = fields.nth(1)?;
        let uid = fields.nth(3)?.parse().ok()?;
        let inode = fields.nth(1)?.parse().ok()?;
        let (address, port) = local.split_once(':')?;
        let serving = match protocol {
            Protocol::Tcp => "0A",
            Protocol::Udp => "07",
        };
        Some(Socket {
            address: hex_address(address)?,
            port: u16::from_str_radix(port, 16).ok()?,
            serves: state == serving,
            uid,
            inode,
        })
    }

    fn holder(&self) -> Holder {
        match process_with(self.inode) {
            Some((pid, name)) => Holder::Process { pid, name },
            None if self.inode != 0 && !rustix::process::geteuid().is_root() => Holder::User(self.uid),
            None => Holder::Unknown,
        }
    }
}

/// Words of four bytes, each in the machine's own order.
fn hex_address(text: &str) -> Option<IpAddr> {
    let words = text.as_bytes().chunks(8).map(|word| {
        let word = std::str::from_utf8(word).ok()?;
        Some(u32::from_str_radix(word, 16).ok()?.to_ne_bytes())
    });
    match words.collect::<Option<Vec<[u8; 4]>>>()?.as_slice() {
        [word] => Some(IpAddr::from(*word)),
        words @ [_, _, _, _] => {
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            Some(IpAddr::from(bytes))
        }
        _ => None,
    }
}

/// The sockets of this network namespace with that local port. One of IPv6 may serve IPv4 too.
fn sockets(protocol: Protocol, port: u16, ipv6: bool) -> Vec<Socket> {
    let mut all = Vec::new();
    for table in ["", "6"] {
        let path = format!("/proc/thread-self/net/{protocol}{table}");
        // Only without /proc, or without IPv6.
        let Ok(text) = fs::read_to_string(path) else {
            continue;
        };
        let read = text
            .lines()
            .skip(1)
            .filter_map(|line| Socket::read(line, protocol));
        all.extend(read.filter(|socket| socket.port == port));
    }
    all.retain(|socket| match (socket.address, ipv6) {
        (IpAddr::V4(_), ipv6) => !ipv6,
        (IpAddr::V6(_), true) => true,
        (IpAddr::V6(address), false) => address.is_unspecified() || address.to_ipv4_mapped().is_some(),
    });
    all
}

fn process_with(inode: u64) -> Option<(i32, String)> {
    if inode == 0 {
        return None;
    }
    let wanted = format!("socket:[{inode}]");
    let numbers = fs::read_dir("/proc").ok()?.flatten();
    let pids: HashSet<i32> = numbers
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    // The oldest of those that share it is the one that people know.
    let mut pids: Vec<i32> = pids.into_iter().collect();
    pids.sort_unstable();
    let holds = |pid: &&i32| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten();
        let mut links = descriptors
            .flatten()
            .filter_map(|entry| fs::read_link(entry.path()).ok());
        links.any(|link| link.as_os_str() == wanted.as_str())
    };
    let pid = *pids.iter().find(holds)?;
    let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    // A process chooses its name itself.
    let name = String::from_utf8_lossy(&name)
        .trim_end()
        .escape_debug()
        .to_string();
    Some((pid, name))
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        net::{TcpListener, TcpStream, UdpSocket},
    };

    use super::*;

    fn ourselves() -> i32 {
        i32::try_from(std::process::id()).unwrap()
    }

    fn refused(protocol: Protocol, port: u16, ipv6: bool) -> String {
        claim(protocol, port, ipv6).unwrap_err().to_string()
    }

    #[test]
    fn whoever_listens_on_any_address_keeps_the_port_and_is_named() {
        let us = format!("in use by process {} (", ourselves());
        for address in ["127.0.0.1", "0.0.0.0", "[::]"] {
            let server = TcpListener::bind(format!("{address}:0")).unwrap();
            let port = server.local_addr().unwrap().port();
            let why = refused(Protocol::Tcp, port, false);
            assert!(why.contains(&us) && why.contains(&format!("{port}/tcp")), "{why}");
        }
        for address in ["[::1]", "[::]"] {
            let server = TcpListener::bind(format!("{address}:0")).unwrap();
            let why = refused(Protocol::Tcp, server.local_addr().unwrap().port(), true);
            assert!(why.contains(&us), "{why}");
        }
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let why = refused(Protocol::Udp, server.local_addr().unwrap().port(), false);
        assert!(why.contains(&us), "{why}");
    }

    #[test]
    fn other_families_protocols_and_connections_are_not_in_the_way() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        claim(Protocol::Tcp, port, true).unwrap();
        claim(Protocol::Udp, port, false).unwrap();
        let connection = TcpStream::connect(server.local_addr().unwrap()).unwrap();
        let from = connection.local_addr().unwrap().port();
        assert!(claim(Protocol::Tcp, from, false).unwrap().is_none());
        let asking = UdpSocket::bind("127.0.0.1:0").unwrap();
        asking.connect(server.local_addr().unwrap()).unwrap();
        let from = asking.local_addr().unwrap().port();
        assert!(claim(Protocol::Udp, from, false).unwrap().is_none());
    }

    #[test]
    fn what_we_have_nobody_else_gets_and_nobody_connects_to() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        drop(server);
        let ours = claim(Protocol::Tcp, address.port(), false).unwrap().unwrap();
        // The standard library's listeners reuse addresses.
        let error = TcpListener::bind(address).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(
            TcpStream::connect(address).unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
        let why = refused(Protocol::Tcp, address.port(), false);
        assert!(why.contains("has bound it without listening"), "{why}");
        drop(ours);
        TcpListener::bind(address).unwrap();
    }

    #[test]
    fn lines_of_the_kernels_tables_are_read() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0";
        let socket = Socket::read(line, Protocol::Tcp).unwrap();
        assert_eq!(socket.port, 8080);
        assert_eq!((socket.serves, socket.uid, socket.inode), (true, 1000, 4711));
        if cfg!(target_endian = "little") {
            assert_eq!(socket.address, IpAddr::from(Ipv4Addr::LOCALHOST));
            let six = hex_address("00000000000000000000000001000000").unwrap();
            assert_eq!(six, IpAddr::from(Ipv6Addr::LOCALHOST));
        }
        for odd in [
            "",
            "sl  local_address rem_address   st",
            "0: zz:1F90 0:0 0A 0 0 0 0 0 0",
        ] {
            assert_eq!(Socket::read(odd, Protocol::Tcp), None);
        }
    }

    #[test]
    fn the_listener_of_an_address_is_found() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let found = listener(address.ip(), Protocol::Tcp, address.port());
        assert!(matches!(found, Some(Holder::Process { pid, .. }) if pid == ourselves()));
        let elsewhere = "127.0.0.2".parse().unwrap();
        assert_eq!(listener(elsewhere, Protocol::Tcp, address.port()), None);
    }
}
