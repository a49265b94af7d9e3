//! Published ports and the node's own processes: nobody's clients are taken away in silence.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
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
        // Once, so that only what may remain is there.
        both.set_up(&ask(&both, "tcp"), "first")
            .await
            .unwrap()
            .tear_down()
            .await
            .unwrap();
        let before = Witness::look();
        let (tcp, udp) = (ask(&four, "tcp"), ask(&four, "udp"));
        for (address, refused_by_four) in [
            ("0.0.0.0:31001", true),
            ("127.0.0.9:31001", true),
            ("[::]:31001", true),
            ("[::1]:31001", false),
        ] {
            let address: SocketAddr = address.parse().unwrap();
            let server = TcpListener::bind(address).unwrap();
            let error = both
                .set_up(&ask(&both, "tcp"), "pod")
                .await
                .unwrap_err()
                .to_string();
            assert!(error.contains(&us()), "{address}: {error}");
            match four.set_up(&tcp, "pod").await {
                Ok(pod) => {
                    assert!(!refused_by_four, "{address}");
                    pod.tear_down().await.unwrap();
                }
                Err(error) => assert!(refused_by_four, "{address}: {error}"),
            }
            // The other protocol is another port.
            four.set_up(&udp, "pod").await.unwrap().tear_down().await.unwrap();
            drop(server);
            let server = UdpSocket::bind(address).unwrap();
            assert_eq!(
                four.set_up(&udp, "pod").await.is_err(),
                refused_by_four,
                "{address}"
            );
            four.set_up(&tcp, "pod").await.unwrap().tear_down().await.unwrap();
            drop(server);
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
        for _ in 0..20 {
            let pod = manager.set_up(&asked, "pod").await.unwrap();
            for address in ["127.0.0.1:31001", "0.0.0.0:31001", "[::]:31001", "[::1]:31001"] {
                TcpListener::bind(address).unwrap_err();
                UdpSocket::bind(address).unwrap_err();
            }
            let error = manager.set_up(&asked, "other").await.unwrap_err().to_string();
            assert_eq!(
                error,
                "port 31001/tcp of this node is already published by pod web.instance-7"
            );
            pod.tear_down().await.unwrap();
            TcpListener::bind("0.0.0.0:31001").unwrap();
        }
    });
}
