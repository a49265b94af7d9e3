//! Who reaches whom (W1, W3).

use std::io;

use serde_json::json;

use crate::members::patiently;
use crate::support::{
    Caller, Server, address, ask, ask_tcp, error, in_pod, manager, netns_of, no_answer, node, node_address,
    on_a_node, outside, outside_address, read, sh,
};

const FOUR: &str = "'10.70.0.0/24'";
const SIX: &str = "'fd70:1::/64'";

/// The whole suite for one choice of address families.
async fn two_pods_and_the_world(subnets: &'static str, families: &[bool]) {
    let manager = manager(&format!(
        "default_network = 'a'\n[networks.a]\nsubnets = [{subnets}]"
    ));
    let publish = |host_port: u16| {
        let ports = json!([
            {"hostPort": host_port, "containerPort": 80},
            {"hostPort": host_port, "containerPort": 80, "protocol": "udp"},
        ]);
        read(
            &manager,
            json!({"networks": [{"name": "a", "portMappings": ports}]}),
        )
    };
    // The same container port twice, on two ports of the node.
    let one = manager.set_up(&publish(31001), "one").await.unwrap();
    let two = manager.set_up(&publish(31002), "two").await.unwrap();
    let _server_one = Server::start(one.netns().unwrap(), "one", 80);
    let _server_two = Server::start(two.netns().unwrap(), "two", 80);
    let client = outside(9, &["10.70.0.0/24", "fd70:1::/64"]);
    let _server_outside = Server::start(&client, "outside", 80);
    assert_eq!(one.addresses().count(), families.len());

    for &ipv6 in families {
        let (in_one, in_two) = (netns_of(&one), netns_of(&two));
        let (one_at, two_at) = (address(&one, ipv6), address(&two, ipv6));
        let (node_at, outside_at) = (node_address(9, ipv6), outside_address(9, ipv6));
        let loopback = if ipv6 { "::1" } else { "127.0.0.1" }.parse().unwrap();
        assert_ne!(one_at, two_at);

        // Members on localhost, and by their own address.
        assert_eq!(ask(&in_one, loopback, 80), format!("one to {loopback}"));
        assert_eq!(ask(&in_one, one_at, 80), format!("one to {one_at}"));
        // Pods by address, under their own addresses.
        assert_eq!(ask(&in_one, two_at, 80), format!("two to {one_at}"));
        assert_eq!(ask(&in_two, one_at, 80), format!("one to {two_at}"));
        // The outside by published port; the pod sees who asks.
        assert_eq!(ask(&client, node_at, 31001), format!("one to {outside_at}"));
        assert_eq!(ask(&client, node_at, 31002), format!("two to {outside_at}"));
        // The node by address and by published port, also from its loopback.
        assert!(ask(node(), one_at, 80).starts_with("one to "));
        assert_eq!(ask(node(), node_at, 31001), format!("one to {node_at}"));
        if ipv6 {
            assert_eq!(error(node(), loopback, 31001), io::ErrorKind::ConnectionRefused);
        } else {
            assert!(ask(node(), loopback, 31001).starts_with("one to "));
        }
        // Hairpin: a pod by its own published port, and by a neighbour's.
        assert!(ask(&in_one, node_at, 31001).starts_with("one to "));
        assert!(ask(&in_one, node_at, 31002).starts_with("two to "));
        // The way out is under the node's address.
        assert_eq!(ask(&in_one, outside_at, 80), format!("outside to {node_at}"));
        // What is not published is not reached, even by whoever knows the way.
        no_answer(&client, one_at, 80);
        no_answer(&client, node_at, 80);
    }
    one.tear_down().await.unwrap();
    no_answer(&client, node_address(9, families[0]), 31001);
    assert!(ask(&client, node_address(9, families[0]), 31002).starts_with("two"));
    two.tear_down().await.unwrap();
}

#[test]
fn w_1_pods_share_nothing_but_what_is_published_ipv4() {
    on_a_node(|| two_pods_and_the_world(FOUR, &[false]));
}

#[test]
fn w_3_the_same_over_ipv6() {
    on_a_node(|| two_pods_and_the_world(SIX, &[true]));
}

#[test]
fn w_3_the_same_over_both() {
    on_a_node(|| two_pods_and_the_world("'10.70.0.0/24', 'fd70:1::/64'", &[false, true]));
}

/// `route_localnet` on our bridges opens the node's loopback to whoever sends to it through them (the class of
/// CVE-2020-8558); a rule of ours closes it again.
#[test]
fn w_1_a_pod_does_not_reach_what_listens_on_the_nodes_loopback() {
    on_a_node(|| async {
        let manager = manager("default_network = 'a'\n[networks.a]\nsubnets = ['10.70.0.0/24']");
        let pod = manager
            .set_up(&read(&manager, json!({"mode": "bridge"})), "pod")
            .await
            .unwrap();
        let loopback = "127.0.0.1".parse().unwrap();
        let _server = Server::start(node(), "node", 7070);
        // What a pod with NET_ADMIN and NET_RAW could do: send packets for 127.0.0.1 over the wire.
        in_pod(
            &pod,
            "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet
             ip addr del 127.0.0.1/8 dev lo
             ip route add 127.0.0.1 via 10.70.0.1",
        );
        no_answer(pod.netns().unwrap(), loopback, 7070);
        // The attack is real: it is our rule that stops it.
        sh("nft flush chain inet podling guard");
        assert!(
            ask_tcp(pod.netns().unwrap(), loopback, 7070)
                .unwrap()
                .starts_with("node")
        );
        pod.tear_down().await.unwrap();
    });
}

/// A client that never stops sending from the same port is led to whoever has the port now: to the pod even if it was
/// early, and to the next pod when that one has gone. Soon, that is: no launch waits for the kernel to forget.
#[test]
fn w_1_a_udp_flow_follows_its_port() {
    for (ipv6, more) in [(false, false), (false, true), (true, false), (true, true)] {
        on_a_node(move || async move {
            let subnets = "'10.70.0.0/24', 'fd70:1::/64'";
            let manager = manager(&format!(
                "default_network = 'a'\n[networks.a]\nsubnets = [{subnets}]"
            ));
            let mut ports = json!([{"hostPort": 31001, "containerPort": 80, "protocol": "udp"}]);
            if more {
                let another = json!({"hostPort": 31002, "containerPort": 80, "protocol": "udp"});
                ports.as_array_mut().unwrap().push(another);
            }
            let request = read(
                &manager,
                json!({"networks": [{"name": "a", "portMappings": ports}]}),
            );
            // So that the node tracks flows from the beginning.
            manager
                .set_up(&request, "warm-up")
                .await
                .unwrap()
                .tear_down()
                .await
                .unwrap();
            let client = Caller::new(outside(9, &[]), node_address(9, ipv6), 31001);
            assert_eq!(client.ask().unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
            for name in ["one", "two"] {
                let pod = manager.set_up(&request, name).await.unwrap();
                let server = Server::start(pod.netns().unwrap(), name, 80);
                let led_here = || client.ask().ok().filter(|answer| answer.starts_with(name));
                patiently(led_here);
                drop(server);
                pod.tear_down().await.unwrap();
            }
            assert_eq!(client.ask().unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        });
    }
}
