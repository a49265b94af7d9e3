//! A private node for each test, and peers to talk to.

use std::{
    future::Future,
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use podling::{
    network::{Config, Manager, PodNetwork, Request},
    sys::netns,
};
use serde_json::Value;

use super::own_node::on_own_node;
pub use super::own_node::sh;

/// Long enough for a loaded machine, when an answer is expected.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long silence is listened to, when none is.
const SILENCE: Duration = Duration::from_millis(400);

/// Runs a test as a node of its own.
pub fn on_a_node<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    on_own_node(move || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(test());
    });
}

/// A shell command in a pod's network.
pub fn in_pod(pod: &PodNetwork, script: &str) -> String {
    let namespace = pod.netns().unwrap().as_raw_fd();
    sh(&format!(
        "nsenter --net=/proc/{}/fd/{namespace} sh -ec '{script}'",
        std::process::id()
    ))
}

pub fn config(toml: &str) -> Config {
    let mut config: Config = toml::from_str(toml).unwrap();
    config.state_dir = Some("/run/podling/network".into());
    config
}

pub fn manager(toml: &str) -> Manager {
    Manager::open(config(toml)).unwrap()
}

pub fn read(manager: &Manager, extras: Value) -> Request {
    manager.read(None, Some(&extras)).unwrap()
}

/// Takes back what dead executors hold: so much. Tests run side by side in one process, and what another one of them
/// starts has our leases too, up to its exec.
pub async fn reclaim(manager: &Manager, expected: usize) {
    let start = Instant::now();
    let mut taken = manager.reclaim().await.unwrap();
    while taken < expected && start.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(10)).await;
        taken += manager.reclaim().await.unwrap();
    }
    assert_eq!(taken, expected);
}

pub fn netns_of(pod: &PodNetwork) -> OwnedFd {
    pod.netns().unwrap().try_clone_to_owned().unwrap()
}

/// The pod's address of this family.
pub fn address(pod: &PodNetwork, ipv6: bool) -> IpAddr {
    pod.addresses().find(|address| address.is_ipv6() == ipv6).unwrap()
}

/// A machine outside, on a wire of its own to the node; it also routes the given ranges to the node, as an attacker
/// on the same wire could.
pub fn outside(index: u8, ranges: &[&str]) -> OwnedFd {
    let (namespace, ()) = netns::create(|| Ok(())).unwrap();
    let path = format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd());
    let routes: String = ranges
        .iter()
        .map(|range| {
            let via = if range.contains(':') {
                format!("fd51:{index}::1")
            } else {
                format!("198.51.{index}.1")
            };
            format!("nsenter --net={path} ip route add {range} via {via}\n")
        })
        .collect();
    sh(&format!(
        "ip link add wire{index} type veth peer name wire
         ip link set wire netns {path}
         ip addr add 198.51.{index}.1/24 dev wire{index}
         ip addr add fd51:{index}::1/64 dev wire{index} nodad
         ip link set wire{index} up
         nsenter --net={path} ip link set lo up
         nsenter --net={path} ip addr add 198.51.{index}.2/24 dev wire
         nsenter --net={path} ip addr add fd51:{index}::2/64 dev wire nodad
         nsenter --net={path} ip link set wire up
         {routes}"
    ));
    namespace
}

/// The node's address on that wire.
pub fn node_address(index: u8, ipv6: bool) -> IpAddr {
    if ipv6 {
        format!("fd51:{index}::1")
    } else {
        format!("198.51.{index}.1")
    }
    .parse()
    .unwrap()
}

/// The outside machine's address.
pub fn outside_address(index: u8, ipv6: bool) -> IpAddr {
    if ipv6 {
        format!("fd51:{index}::2")
    } else {
        format!("198.51.{index}.2")
    }
    .parse()
    .unwrap()
}

/// Answers every TCP connection and every UDP packet on a port with its name and who asked.
#[derive(Debug)]
pub struct Server {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    pub fn start(namespace: impl AsFd, name: &str, port: u16) -> Server {
        let sockets = netns::enter(namespace, move || Server::bind(port)).unwrap();
        Server::on(sockets, name)
    }

    /// In the caller's own namespace, which needs no privilege.
    pub fn here(name: &str, port: u16) -> Server {
        Server::on(Server::bind(port).unwrap(), name)
    }

    fn bind(port: u16) -> io::Result<(TcpListener, UdpSocket)> {
        let any: SocketAddr = format!("[::]:{port}").parse().unwrap();
        Ok((TcpListener::bind(any)?, UdpSocket::bind(any)?))
    }

    fn on((tcp, udp): (TcpListener, UdpSocket), name: &str) -> Server {
        let stop = Arc::new(AtomicBool::new(false));
        let greeting = |name: &str, peer: SocketAddr| format!("{name} to {}", peer.ip().to_canonical());
        tcp.set_nonblocking(true).unwrap();
        udp.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        let by_tcp = {
            let (stop, name) = (stop.clone(), name.to_owned());
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    match tcp.accept() {
                        Ok((mut stream, peer)) => drop(stream.write_all(greeting(&name, peer).as_bytes())),
                        Err(_) => thread::park_timeout(Duration::from_millis(2)),
                    }
                }
            })
        };
        let by_udp = {
            let (stop, name) = (stop.clone(), name.to_owned());
            thread::spawn(move || {
                let mut buffer = [0; 64];
                while !stop.load(Ordering::Relaxed) {
                    if let Ok((_, peer)) = udp.recv_from(&mut buffer) {
                        let _ = udp.send_to(greeting(&name, peer).as_bytes(), peer);
                    }
                }
            })
        };
        Server {
            stop,
            threads: vec![by_tcp, by_udp],
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

fn tcp(to: SocketAddr, patience: Duration) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, patience)?;
    stream.set_read_timeout(Some(patience))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn udp(to: SocketAddr, patience: Duration) -> io::Result<String> {
    let any = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(patience))?;
    socket.connect(to)?;
    socket.send(b"who is there?")?;
    let mut buffer = [0; 256];
    let read = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..read]).into_owned())
}

/// Keeps asking over UDP from one and the same port.
pub struct Caller(UdpSocket);

impl Caller {
    pub fn new(namespace: impl AsFd, to: IpAddr, port: u16) -> Caller {
        let any = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
        let socket = netns::enter(namespace, move || UdpSocket::bind(any)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect((to, port)).unwrap();
        Caller(socket)
    }

    pub fn ask(&self) -> io::Result<String> {
        self.0.send(b"who is there?")?;
        let mut buffer = [0; 256];
        let read = self.0.recv(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..read]).into_owned())
    }
}

/// What the server there answers to somebody in `namespace`, over TCP and UDP alike.
#[track_caller]
pub fn ask(namespace: impl AsFd, to: IpAddr, port: u16) -> String {
    netns::enter(namespace, move || ask_here(to, port)).unwrap()
}

/// From the caller's own namespace.
pub fn ask_here(to: IpAddr, port: u16) -> io::Result<String> {
    let to = SocketAddr::new(to, port);
    let by_tcp = tcp(to, PATIENCE).map_err(|error| io::Error::other(format!("tcp {to}: {error}")))?;
    let by_udp = udp(to, PATIENCE).map_err(|error| io::Error::other(format!("udp {to}: {error}")))?;
    assert_eq!(by_tcp, by_udp);
    Ok(by_tcp)
}

/// Over TCP alone.
pub fn ask_tcp(namespace: impl AsFd, to: IpAddr, port: u16) -> io::Result<String> {
    netns::enter(namespace, move || tcp(SocketAddr::new(to, port), PATIENCE))
}

/// How a connection there fails.
#[track_caller]
pub fn error(namespace: impl AsFd, to: IpAddr, port: u16) -> io::ErrorKind {
    ask_tcp(namespace, to, port).unwrap_err().kind()
}

/// Nobody answers there to somebody in `namespace`.
#[track_caller]
pub fn no_answer(namespace: impl AsFd, to: IpAddr, port: u16) {
    let to = SocketAddr::new(to, port);
    let answers = netns::enter(namespace, move || {
        Ok((tcp(to, SILENCE).ok(), udp(to, SILENCE).ok()))
    })
    .unwrap();
    assert_eq!(answers, (None, None), "{to}");
}

/// The node itself.
pub fn node() -> OwnedFd {
    netns::current().unwrap()
}
