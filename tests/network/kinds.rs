//! The kinds of network a pod can have, and what is told to members about each.

use podling::mesos::v1;
use serde_json::json;

use crate::support::{Server, ask_tcp, in_pod, manager, node, on_a_node, read, sh};

const TOML: &str = "default_network = 'a'
    [networks.a]
    subnets = ['10.70.0.0/24']
    mtu = 1400
    dns = { nameservers = ['10.70.0.1'], search = ['example.org'] }
    [networks.b]
    subnets = ['10.71.0.0/24', 'fd71::/64']";

#[test]
fn a_pods_namespace_is_as_containers_expect() {
    on_a_node(|| async {
        let manager = manager(TOML);
        manager.warm();
        let pod = manager
            .set_up(&read(&manager, json!({"mode": "bridge"})), "4b1f")
            .await
            .unwrap();
        // N-06, and any user may ping and listen on any port.
        assert!(in_pod(&pod, "ip -o link show lo").contains("LOOPBACK,UP"));
        assert_eq!(
            in_pod(&pod, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start"),
            "0\n"
        );
        assert_eq!(
            in_pod(&pod, "cat /proc/sys/net/ipv4/ping_group_range"),
            "0\t2147483647\n"
        );
        assert_eq!(in_pod(&pod, "cat /proc/sys/net/ipv6/conf/eth0/accept_ra"), "0\n");
        // The gateway is known from the start, and nothing speaks IPv6 where there is none.
        assert!(in_pod(&pod, "ip route").starts_with("default via 10.70.0.1 dev eth0"));
        assert!(in_pod(&pod, "ip neigh").contains("PERMANENT"));
        assert_eq!(in_pod(&pod, "ip -6 -o addr show dev eth0"), "");
        assert!(in_pod(&pod, "ip -o link show eth0").contains("mtu 1400"));
        assert_eq!(in_pod(&pod, "ip -o link | wc -l").trim(), "2");
        // No pod makes itself the router of the node.
        let bridge = manager.report().await.unwrap().bridges[0].1.clone();
        assert_eq!(
            sh(&format!("cat /proc/sys/net/ipv6/conf/{bridge}/accept_ra")),
            "0\n"
        );
        assert_eq!(sh(&format!("ip -6 -o addr show dev {bridge}")), "");
        pod.tear_down().await.unwrap();
    });
}

#[test]
fn n_04_n_05_n_09_what_is_told_about_a_pod() {
    on_a_node(|| async {
        let manager = manager(TOML);
        let container = v1::ContainerInfo {
            hostname: Some("web".into()),
            ..Default::default()
        };
        let extras = json!({"networks": [
            {"name": "b", "labels": {"tier": "2"}, "portMappings": [{"hostPort": 31001, "containerPort": 80, "protocol": "https"}]},
            {"name": "a"},
        ]});
        let request = manager.read(Some(&container), Some(&extras)).unwrap();
        let pod = manager.set_up(&request, "4b1f").await.unwrap();
        let files = pod.files().unwrap();
        assert_eq!((pod.hostname(), files.hostname.as_str()), (Some("web"), "web\n"));
        assert_eq!(
            files.hosts,
            "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n\
             10.71.0.2 web\nfd71::2 web\n10.70.0.2 web\n"
        );
        assert_eq!(files.resolv_conf, "search example.org\nnameserver 10.70.0.1\n");
        let infos = pod.network_infos();
        let addresses: Vec<Vec<&str>> = infos
            .iter()
            .map(|info| {
                info.ip_addresses
                    .iter()
                    .map(|address| address.ip_address())
                    .collect()
            })
            .collect();
        assert_eq!(addresses, [vec!["10.71.0.2", "fd71::2"], vec!["10.70.0.2"]]);
        assert_eq!(
            infos[0].ip_addresses[1].protocol(),
            v1::network_info::Protocol::IPv6
        );
        assert_eq!(infos[0].port_mappings[0].protocol(), "tcp");
        assert_eq!(infos[0].labels.as_ref().unwrap().labels[0].value(), "2");
        assert_eq!(pod.container_ip(), Some("10.71.0.2".parse().unwrap()));
        pod.tear_down().await.unwrap();
    });
}

#[test]
fn n_01_members_share_what_the_agent_made() {
    on_a_node(|| async {
        // This node is what a Mesos agent has put its executor into.
        sh(
            "ip link add eth0 type veth peer name far; ip addr add 10.80.0.5/24 dev eth0; ip link set eth0 up
            ip addr add fd80::5/64 dev eth0 nodad",
        );
        let manager = manager(TOML);
        let container = v1::ContainerInfo {
            network_infos: vec![v1::NetworkInfo {
                name: Some("calico".into()),
                ..Default::default()
            }],
            ..Default::default()
        };
        let before = sh("ip -o addr; nft list ruleset");
        let request = manager.read(Some(&container), None).unwrap();
        let pod = manager.set_up(&request, "4b1f").await.unwrap();
        assert!(pod.netns().is_none() && pod.files().is_none());
        let info = &pod.network_infos()[0];
        assert_eq!(info.name(), "calico");
        let addresses: Vec<&str> = info
            .ip_addresses
            .iter()
            .map(|address| address.ip_address())
            .collect();
        assert_eq!(addresses, ["10.80.0.5", "fd80::5"]);
        assert_eq!(pod.container_ip(), Some("10.80.0.5".parse().unwrap()));
        pod.tear_down().await.unwrap();
        assert_eq!(sh("ip -o addr; nft list ruleset"), before);
        assert_eq!(sh("ls /run"), "");
    });
}

#[test]
fn host_mode_touches_nothing_and_tells_the_agents_address() {
    on_a_node(|| async {
        let manager = manager(TOML).with_agent_address(Some("192.0.2.7".parse().unwrap()));
        let pod = manager
            .set_up(&manager.read(None, None).unwrap(), "4b1f")
            .await
            .unwrap();
        assert!(pod.netns().is_none());
        assert_eq!(pod.network_infos()[0].ip_addresses[0].ip_address(), "192.0.2.7");
        assert_eq!(sh("ip -o link | wc -l; ls /run").trim(), "1");
        pod.tear_down().await.unwrap();
    });
}

/// One mapping on two networks, as an endpoint without `networkNames` gives it: the first network with an address of
/// the asker's family answers.
#[test]
fn one_port_on_two_networks_of_different_families() {
    on_a_node(|| async {
        let manager = manager(TOML);
        let ports = json!([{"hostPort": 31001, "containerPort": 80}]);
        let extras =
            json!({"networks": [{"name": "a", "portMappings": ports}, {"name": "b", "portMappings": ports}]});
        let pod = manager.set_up(&read(&manager, extras), "pod").await.unwrap();
        let _server = Server::start(pod.netns().unwrap(), "pod", 80);
        let elements = sh("nft list map inet podling ports4; nft list map inet podling ports6");
        assert!(elements.contains("tcp . 31001 : 10.70.0.2 . 80"), "{elements}");
        assert!(elements.contains("tcp . 31001 : fd71::2 . 80"), "{elements}");
        for gateway in ["10.70.0.1", "10.71.0.1", "fd71::1"] {
            assert!(
                ask_tcp(node(), gateway.parse().unwrap(), 31001).is_ok(),
                "{gateway}"
            );
        }
        pod.tear_down().await.unwrap();
    });
}
