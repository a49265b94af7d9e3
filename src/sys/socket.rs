//! Sockets that leave nothing behind.

#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, sockopt};

/// A TCP socket, not connected yet, that does not block. It belongs to the network of the calling thread.
pub fn tcp(family: AddressFamily) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    forget_after_close(&socket)?;
    Ok(socket)
}

/// When this side closes first, the kernel forgets the connection as soon as the other side has the news, instead of
/// keeping its port for a minute. The other side sees an ordinary end.
fn forget_after_close(socket: &impl AsFd) -> io::Result<()> {
    let value: libc::c_int = -1;
    // SAFETY: the option takes an integer, which lives until the call returns.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_LINGER2,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// To be called before the close: when the other side has closed already, a reset, which nobody sees any more, spares
/// it the minute.
pub fn part(socket: &impl AsFd) {
    let mut byte = [0u8; 1];
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    if let Ok((_, 0)) = rustix::net::recv(socket, &mut byte[..], flags) {
        // Without success it is closed as usual.
        let _ = sockopt::set_socket_linger(socket, Some(std::time::Duration::ZERO));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    };

    use super::*;

    /// What the kernel keeps of connections to or from this port, but for the listener, in its own letters.
    fn kept(port: u16) -> Vec<String> {
        let needle = format!(":{port:04X}");
        let all = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let columns = all
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>());
        columns
            .filter(|c| c.len() > 3 && (c[1].ends_with(&needle) || c[2].ends_with(&needle)) && c[3] != "0A")
            .map(|c| c[3].to_owned())
            .collect()
    }

    fn connect(to: SocketAddr) -> TcpStream {
        let socket = tcp(AddressFamily::INET).unwrap();
        rustix::io::ioctl_fionbio(&socket, false).unwrap();
        rustix::net::connect(&socket, &to).unwrap();
        TcpStream::from(socket)
    }

    #[test]
    fn nothing_is_kept_whoever_closes_first_and_the_other_side_sees_an_ordinary_end() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // We close first.
        let ours = connect(address);
        let (mut theirs, _) = listener.accept().unwrap();
        part(&ours);
        drop(ours);
        assert_eq!(theirs.read(&mut [0; 1]).unwrap(), 0, "an end, not a reset");
        drop(theirs);
        // They do.
        let mut ours = connect(address);
        let (mut theirs, _) = listener.accept().unwrap();
        theirs.write_all(b"x").unwrap();
        theirs.shutdown(Shutdown::Write).unwrap();
        assert_eq!(ours.read(&mut [0; 2]).unwrap(), 1);
        drop(theirs);
        part(&ours);
        drop(ours);
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !kept(address.port()).is_empty() {
            assert!(std::time::Instant::now() < end, "{:?}", kept(address.port()));
            std::thread::yield_now();
        }
    }
}
