//! What the kernel knows of a TCP connection's ends, by their addresses (`sock_diag`).

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use crate::sys::netlink::{Batch, Family, Refused, Socket, flag};

/// `SOCK_DIAG_BY_FAMILY`
const BY_FAMILY: u16 = 20;
/// `INET_DIAG_CGROUP_ID`
const CGROUP: u16 = 21;
/// Of `struct inet_diag_msg`.
const HEADER: usize = 72;

/// One end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    pub state: State,
    pub uid: u32,
    /// 0: no process has it any more.
    pub inode: u64,
    /// The cgroup2 in which it was made; none from kernels before 5.9.
    pub cgroup: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Established,
    /// It has said its last word and may still listen.
    Finishing,
    /// The other end has said its last word.
    CloseWait,
    Other,
}

/// Asks about sockets of the network namespace in which it was opened.
#[derive(Debug)]
pub(super) struct Diagnosis(Socket);

impl Diagnosis {
    pub fn open() -> io::Result<Self> {
        Ok(Diagnosis(Socket::open(Family::SocketDiagnosis)?))
    }

    /// The socket bound to `from` and connected to `to`; none if there is none here.
    pub fn end(&mut self, from: SocketAddr, to: SocketAddr) -> Result<Option<End>, Refused> {
        let mut batch = Batch::new();
        batch.add(BY_FAMILY, flag::ACK, &question(from, to), |_| {});
        match self.0.request(&batch) {
            Ok(answers) => Ok(answers
                .iter()
                .find(|answer| answer.kind == BY_FAMILY)
                .and_then(|answer| read(&answer.body))),
            Err(refused) if refused.is(libc::ENOENT) => Ok(None),
            Err(refused) => Err(refused),
        }
    }
}

/// `struct inet_diag_req_v2`
fn question(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    const ANY_COOKIE: [u8; 8] = [0xff; 8];
    let family = if from.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    let mut bytes = vec![family as u8, libc::IPPROTO_TCP as u8, 0, 0];
    bytes.extend_from_slice(&u32::MAX.to_ne_bytes());
    bytes.extend_from_slice(&from.port().to_be_bytes());
    bytes.extend_from_slice(&to.port().to_be_bytes());
    for ip in [from.ip(), to.ip()] {
        let mut place = [0; 16];
        match ip {
            IpAddr::V4(ip) => place[..4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => place.copy_from_slice(&ip.octets()),
        }
        bytes.extend_from_slice(&place);
    }
    let scope = match from {
        SocketAddr::V6(six) => six.scope_id(),
        SocketAddr::V4(_) => 0,
    };
    bytes.extend_from_slice(&scope.to_ne_bytes());
    bytes.extend_from_slice(&ANY_COOKIE);
    bytes
}

fn read(body: &[u8]) -> Option<End> {
    let number = |at: usize| Some(u32::from_ne_bytes(body.get(at..at + 4)?.try_into().ok()?));
    let cgroup = crate::sys::netlink::Reader::new(body.get(HEADER..)?)
        .find(CGROUP)
        .and_then(|id| Some(u64::from_ne_bytes(id.try_into().ok()?)));
    Some(End {
        state: match body.get(1)? {
            1 => State::Established,
            4 | 5 => State::Finishing,
            8 => State::CloseWait,
            _ => State::Other,
        },
        uid: number(64)?,
        inode: u64::from(number(68)?),
        cgroup,
    })
}

#[cfg(test)]
mod tests {
    use std::net::{Shutdown, TcpListener, TcpStream};

    use super::*;

    fn inode(socket: &impl std::os::fd::AsRawFd) -> u64 {
        let link = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
        let link = link.to_str().unwrap().to_owned();
        link.trim_start_matches("socket:[")
            .trim_end_matches(']')
            .parse()
            .unwrap()
    }

    #[test]
    fn each_end_is_known_with_its_owner_until_it_is_closed() {
        let mut diagnosis = Diagnosis::open().unwrap();
        for place in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(place).unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, peer) = listener.accept().unwrap();
            let local = server.local_addr().unwrap();
            let end = diagnosis.end(peer, local).unwrap().unwrap();
            assert_eq!(
                (end.state, end.inode),
                (State::Established, inode(&client)),
                "{place}"
            );
            assert_eq!(end.uid, nix::unistd::geteuid().as_raw());
            let ours = diagnosis.end(local, peer).unwrap().unwrap();
            assert_eq!(ours.inode, inode(&server));
            client.shutdown(Shutdown::Write).unwrap();
            let end = diagnosis.end(peer, local).unwrap().unwrap();
            assert_eq!((end.state, end.inode), (State::Finishing, inode(&client)));
            assert_eq!(
                diagnosis.end(local, peer).unwrap().unwrap().state,
                State::CloseWait
            );
            // A closed socket is nobody's, whoever the kernel says it belongs to.
            drop(client);
            assert!(
                diagnosis
                    .end(peer, local)
                    .unwrap()
                    .is_none_or(|end| end.inode == 0)
            );
        }
    }

    #[test]
    fn what_is_cut_short_is_nothing() {
        for length in 0..HEADER {
            assert_eq!(read(&vec![0; length]), None);
        }
        assert!(read(&[0; HEADER]).is_some());
    }
}
