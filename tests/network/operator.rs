//! What an operator sees and can do: `podling node check`, `podling node gc`, and what is left on the node (N3).

use std::{fs, path::Path, process::Command};

use podling::network::{Config, Manager, PodNetwork, ruleset::Found};
use serde_json::{Value, json};

use crate::support::{Server, ask_tcp, config, in_pod, node_address, on_a_node, outside, read, sh};

const PODLING: &str = env!("CARGO_BIN_EXE_podling");

/// Runs `podling node …` here and answers its exit code and what it printed as JSON.
fn podling(arguments: &[&str]) -> (i32, Value) {
    let output = Command::new(PODLING)
        .arg("node")
        .args(arguments)
        .args(["-o", "json"])
        .output()
        .unwrap();
    let value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), value)
}

/// Grade and words of a finding of `podling node check`.
fn finding(name: &str) -> Option<(String, String)> {
    let (_, report) = podling(&["check"]);
    let mut findings = report["findings"].as_array().unwrap().iter();
    let found = findings.find(|finding| finding["name"] == name)?;
    let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    Some((
        text("grade"),
        format!("{} → {}", text("found"), text("consequence")),
    ))
}

fn grade(name: &str) -> Option<String> {
    finding(name).map(|(grade, _)| grade)
}

fn networks() -> Config {
    config(
        "default_network = 'a'
         [networks.a]
         subnets = ['10.70.0.0/24']
         [networks.b]
         subnets = ['10.71.0.0/24']
         bridge = 'second'",
    )
}

async fn pod(manager: &Manager, network: &str, port: u16) -> PodNetwork {
    let ports = json!([{"hostPort": port, "containerPort": 80}]);
    let request = read(
        manager,
        json!({"networks": [{"name": network, "portMappings": ports}]}),
    );
    manager.set_up(&request, &format!("pod-{port}")).await.unwrap()
}

#[test]
fn n_3_check_tells_of_a_foreign_flush_and_gc_repairs_it() {
    on_a_node(|| async {
        // Nothing has been asked for: nothing is told, and nothing is made.
        assert_eq!(grade("pod-rules").as_deref(), Some("good"));
        assert!(!Path::new("/run/podling").exists());

        let manager = Manager::open(networks()).unwrap();
        let client = outside(9, &[]);
        let one = pod(&manager, "a", 31001).await;
        let _server = Server::start(one.netns().unwrap(), "one", 80);
        let answer = || ask_tcp(&client, node_address(9, false), 31001);
        assert!(answer().unwrap().starts_with("one"));
        assert_eq!(grade("pod-rules").as_deref(), Some("good"));
        for damage in ["nft flush ruleset", "nft flush chain inet podling prerouting"] {
            sh(damage);
            let (grade, words) = finding("pod-rules").unwrap();
            assert_eq!(grade, "lesser");
            assert!(words.contains("published ports"), "{words}");
            answer().unwrap_err();
            // Its own networks are others than ours; what is on the node counts.
            assert_eq!(podling(&["gc"]).0, 0);
            assert!(answer().unwrap().starts_with("one"), "{damage}");
            assert_eq!(manager.report().await.unwrap().table, Found::Whole);
        }
        one.tear_down().await.unwrap();
    });
}

#[test]
fn n_3_executors_of_different_configurations_share_the_rules() {
    on_a_node(|| async {
        let first = Manager::open(networks()).unwrap();
        let second = Manager::open(config(
            "default_network = 'z'\n[networks.z]\nsubnets = ['10.72.0.0/24']",
        ))
        .unwrap();
        let client = outside(9, &[]);
        let (one, two) = (pod(&first, "a", 31001).await, pod(&second, "z", 31002).await);
        let servers =
            [(&one, "one"), (&two, "two")].map(|(pod, name)| Server::start(pod.netns().unwrap(), name, 80));
        for (port, name) in [(31001, "one"), (31002, "two")] {
            assert!(
                ask_tcp(&client, node_address(9, false), port)
                    .unwrap()
                    .starts_with(name)
            );
        }
        // Both see the same table, so none lays it anew under the other; and they are apart.
        for manager in [&first, &second] {
            assert_eq!(manager.report().await.unwrap().table, Found::Whole);
        }
        let at = two.container_ip().unwrap();
        in_pod(&one, &format!("! timeout 0.3 busybox nc {at} 80 </dev/null"));
        drop(servers);
        one.tear_down().await.unwrap();
        two.tear_down().await.unwrap();
    });
}

#[test]
fn n_3_what_the_node_has_for_pods_goes_with_the_last_of_them() {
    on_a_node(|| async {
        let manager = Manager::open(networks()).unwrap();
        sh("echo 1 > /proc/sys/net/ipv4/ip_forward");
        let before = sh("ip -o link; ip -o addr; nft list ruleset; ls /run");
        let (one, two) = (pod(&manager, "a", 31001).await, pod(&manager, "b", 31002).await);
        // Not while a pod lives, whoever asks.
        assert_eq!(podling(&["gc", "--network"]).0, 0);
        assert!(!manager.dismantle().await.unwrap());
        two.tear_down().await.unwrap();
        assert!(!manager.dismantle().await.unwrap());
        sh("ip link show second; nft list table inet podling");
        one.tear_down().await.unwrap();
        // Its own configuration does not know these networks; what was noted counts.
        assert_eq!(podling(&["gc", "--network"]).0, 0);
        sh("find /run/podling -depth -type d -empty -delete");
        assert_eq!(sh("ip -o link; ip -o addr; nft list ruleset; ls /run"), before);

        // And a manager that has been there before begins anew.
        let again = pod(&manager, "b", 31002).await;
        again.tear_down().await.unwrap();
        // Somebody has plugged something else into a bridge of ours: it stays, and all else goes.
        sh("ip link add tap type veth peer name tip; ip link set tap master second");
        assert!(manager.dismantle().await.unwrap());
        sh("ip link show second; ip link show tap");
        assert!(fs::exists("/run/podling/network/bridges/second").unwrap());
        assert_eq!(sh("nft list ruleset"), "");
        sh("ip link del tap");
        assert!(manager.dismantle().await.unwrap());
        sh("find /run/podling -depth -type d -empty -delete");
        assert_eq!(sh("ip -o link; ip -o addr; nft list ruleset; ls /run"), before);
    });
}

/// Many come and go while others clean up behind them: nobody's lock is taken away, and nobody is in the way.
#[test]
fn n_3_cleaning_up_and_coming_do_not_hurt_each_other() {
    on_a_node(|| async {
        let managers: Vec<Manager> = (0..3).map(|_| Manager::open(networks()).unwrap()).collect();
        let lane = async |lane: u16| {
            for round in 0..12 {
                let manager = &managers[usize::from(lane)];
                let one = pod(manager, if round % 2 == 0 { "a" } else { "b" }, 31001 + lane).await;
                let _server = Server::start(one.netns().unwrap(), "one", 80);
                let gateway = if round % 2 == 0 { "10.70.0.1" } else { "10.71.0.1" };
                let answer = ask_tcp(crate::support::node(), gateway.parse().unwrap(), 31001 + lane);
                assert!(answer.unwrap().starts_with("one"));
                assert!(!managers[0].dismantle().await.unwrap());
                one.tear_down().await.unwrap();
                manager.dismantle().await.unwrap();
            }
        };
        tokio::join!(lane(0), lane(1), lane(2));
        assert!(managers[0].dismantle().await.unwrap());
        assert_eq!(sh("nft list ruleset; ls /run/podling"), "");
    });
}

#[test]
fn a_firewall_that_drops_what_is_forwarded_is_told_and_obeyed() {
    on_a_node(|| async {
        let manager = Manager::open(networks()).unwrap();
        let client = outside(9, &[]);
        sh("nft add table ip filter; \
            nft 'add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }'");
        let one = pod(&manager, "a", 31001).await;
        let _server = Server::start(one.netns().unwrap(), "one", 80);
        let (grade, words) = finding("firewall").unwrap();
        assert_eq!(grade, "lesser");
        assert!(
            words.starts_with("forwarded packets are dropped by chain ip filter FORWARD → "),
            "{words}"
        );
        // The operator's word counts: nothing of theirs is changed.
        let theirs = sh("nft list table ip filter");
        crate::support::no_answer(&client, node_address(9, false), 31001);
        assert_eq!(sh("nft list table ip filter"), theirs);
        // As the documentation says.
        let documented = include_str!("../../docs/network.md");
        let rules = documented
            .split("```nft\n")
            .nth(1)
            .unwrap()
            .split("```")
            .next()
            .unwrap();
        let bridge = manager.report().await.unwrap().bridges[0].1.clone();
        sh(&rules.replace("podling0", &bridge));
        assert!(
            ask_tcp(&client, node_address(9, false), 31001)
                .unwrap()
                .starts_with("one")
        );
        one.tear_down().await.unwrap();
    });
}

#[test]
fn a_subnet_that_the_node_uses_elsewhere_is_refused_with_a_sentence() {
    on_a_node(|| async {
        sh(
            "ip link add nic type veth peer name far; ip link set nic up; ip link set far up
            ip addr add 192.0.2.1/24 dev nic; ip addr add fd99::1/64 dev nic nodad",
        );
        let refused = async |subnet: &str, damage: &str, undo: &str| {
            sh(damage);
            let words = config(&format!(
                "default_network = 'a'\n[networks.a]\nsubnets = ['{subnet}']"
            ));
            let manager = Manager::open(words).unwrap();
            let request = read(&manager, json!({"mode": "bridge"}));
            let answer = manager.set_up(&request, "pod").await;
            sh(undo);
            match answer {
                Ok(pod) => {
                    pod.tear_down().await.unwrap();
                    manager.dismantle().await.unwrap();
                    None
                }
                Err(error) => Some(error.to_string()),
            }
        };
        for (subnet, route, taken) in [
            (
                "10.70.0.0/16",
                "10.70.5.0/24 via 192.0.2.9",
                "the route to 10.70.5.0/24",
            ),
            (
                "10.70.0.0/16",
                "10.0.0.0/8 via 192.0.2.9",
                "the route to 10.0.0.0/8",
            ),
            ("fd70::/64", "fd70::/48 via fd99::9", "the route to fd70::/48"),
        ] {
            let error = refused(
                subnet,
                &format!("ip route add {route}"),
                &format!("ip route del {route}"),
            )
            .await;
            let expected = format!(
                "{subnet} of network a overlaps {taken} on interface nic of this node; choose another subnet"
            );
            assert_eq!(error.as_deref(), Some(expected.as_str()));
        }
        // A way out is no place, and neither is a route to nowhere.
        for route in [
            "default via 192.0.2.9",
            "0.0.0.0/1 via 192.0.2.9",
            "blackhole 10.0.0.0/8",
            "10.71.0.0/16 via 192.0.2.9",
        ] {
            let undo = format!("ip route del {route}");
            assert_eq!(
                refused("10.70.0.0/16", &format!("ip route add {route}"), &undo).await,
                None
            );
        }
        // A subnet that is changed while its bridge is there is compared again.
        let manager = Manager::open(config(
            "default_network = 'a'\n[networks.a]\nsubnets = ['10.70.0.0/24']",
        ))
        .unwrap();
        let one = manager
            .set_up(&read(&manager, json!({"mode": "bridge"})), "one")
            .await
            .unwrap();
        let error = refused("192.0.2.0/25", "true", "true").await.unwrap();
        assert!(
            error.contains("overlaps 192.0.2.1/24 on interface nic"),
            "{error}"
        );
        one.tear_down().await.unwrap();
    });
}
