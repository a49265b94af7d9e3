//! Published ports and the node's own processes: nobody's clients are taken away in silence.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use podling::mesos::v1::{TaskState::TaskFailed, task_status::Reason};
use serde_json::json;

use crate::{
    members::{agent, bridge, finish, group, peer, published},
    support::{manager, on_a_node, read},
    witness::Witness,
};

const ONE_NETWORK: &str = "default_network = 'a'\n[networks.a]\nsubnets = ['10.70.0.0/24']";
const BOTH_FAMILIES: &str = "default_network = 'a'\n[networks.a]\nsubnets = ['10.70.0.0/24', 'fd70:1::/64']";

fn us() -> String {
    format!("process {} (", std::process::id())
}

/// A process of the node that serves a port.
#[derive(Debug)]
enum Server {
    Tcp { _socket: TcpListener },
    Udp { _socket: UdpSocket },
}

impl Server {
    /// What another test starts may have the last one's socket up to its exec.
    fn bind(protocol: &str, address: SocketAddr) -> Self {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let bound = match protocol {
                "tcp" => TcpListener::bind(address).map(|socket| Server::Tcp { _socket: socket }),
                _ => UdpSocket::bind(address).map(|socket| Server::Udp { _socket: socket }),
            };
            match bound {
                Ok(server) => return server,
                Err(error) => assert!(Instant::now() < deadline, "{protocol} {address}: {error}"),
            }
            std::thread::yield_now();
        }
    }
}

/// What the task is told, and that whoever listens goes on being reached.
#[test]
fn w_1_a_port_on_which_a_process_of_the_node_listens_is_refused_to_a_pod_and_the_process_named() {
    on_a_node(|| async {
        let server = TcpListener::bind("127.0.0.1:31001").unwrap();
        let network = json!({"networks": [published("a", 31001)]});
        let agent = agent(&bridge("'10.70.0.0/24'"), network)
            .task_group(group([peer("a", "serve a 80")]))
            .start()
            .unwrap();
        agent.wait_told(&["a"], TaskFailed).unwrap();
        let history = agent.history();
        let failed = *history.updates("a").last().unwrap();
        let expected = format!("port 31001/tcp of this node is in use by {}", us());
        assert!(failed.message().contains(&expected), "{failed:?}");
        assert_eq!(failed.reason(), Reason::ContainerLaunchFailed);
        let mut client = TcpStream::connect("127.0.0.1:31001").unwrap();
        server.accept().unwrap().0.write_all(b"the node's own").unwrap();
        let mut heard = String::new();
        client.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "the node's own");
        drop(server);
        finish(agent);
    });
}

#[test]
fn any_socket_that_would_lose_its_clients_counts_whatever_it_is_bound_to() {
    on_a_node(|| async {
        let ask = |manager: &_, protocol: &str| {
            let ports = json!([{"hostPort": 31001, "containerPort": 80, "protocol": protocol}]);
            read(
                manager,
                json!({"networks": [{"name": "a", "portMappings": ports}]}),
            )
        };
        let four = manager(ONE_NETWORK);
        let both = manager(BOTH_FAMILIES);
        // A name of its own for each: a child of another test may hold the last one's journal up to its exec.
        let mut count = 0;
        let mut name = || {
            count += 1;
            format!("pod-{count}")
        };
        // Once, so that only what may remain is there.
        let first = both.set_up(&ask(&both, "tcp"), &name()).await.unwrap();
        first.tear_down().await.unwrap();
        let before = Witness::look();
        for (address, refused_by_four) in [
            ("0.0.0.0:31001", true),
            ("127.0.0.9:31001", true),
            ("[::]:31001", true),
            ("[::1]:31001", false),
        ] {
            let address: SocketAddr = address.parse().unwrap();
            for (protocol, other) in [("tcp", "udp"), ("udp", "tcp")] {
                let server = Server::bind(protocol, address);
                let refused = both.set_up(&ask(&both, protocol), &name()).await.unwrap_err();
                assert!(refused.to_string().contains(&us()), "{address}: {refused}");
                match four.set_up(&ask(&four, protocol), &name()).await {
                    Ok(pod) => {
                        assert!(!refused_by_four, "{address}");
                        pod.tear_down().await.unwrap();
                    }
                    Err(refused) => assert!(
                        refused_by_four && refused.to_string().contains(&us()),
                        "{address}: {refused}"
                    ),
                }
                // The other protocol is another port.
                let pod = four.set_up(&ask(&four, other), &name()).await.unwrap();
                pod.tear_down().await.unwrap();
                drop(server);
            }
        }
        before.assert_only_infrastructure_remains(&[]);
    });
}

/// No moment between the look and the rule: the kernel gives the port to one of two.
#[test]
fn a_published_port_is_nobody_elses_for_as_long_as_it_is_published() {
    on_a_node(|| async {
        let manager = manager(BOTH_FAMILIES).with_known_name("web.instance-7");
        let asked = read(&manager, json!({"networks": [published("a", 31001)]}));
        for round in 0..20 {
            let pod = manager.set_up(&asked, &format!("pod-{round}")).await.unwrap();
            for address in ["127.0.0.1:31001", "0.0.0.0:31001", "[::]:31001", "[::1]:31001"] {
                TcpListener::bind(address).unwrap_err();
                UdpSocket::bind(address).unwrap_err();
            }
            let error = manager
                .set_up(&asked, &format!("other-{round}"))
                .await
                .unwrap_err()
                .to_string();
            assert_eq!(
                error,
                "port 31001/tcp of this node is already published by pod web.instance-7"
            );
            pod.tear_down().await.unwrap();
            Server::bind("tcp", "0.0.0.0:31001".parse().unwrap());
        }
    });
}
