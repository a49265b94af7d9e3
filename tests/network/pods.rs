//! Networks of pods through executors: who reaches whom, what is told, what is refused.

use std::{fs, path::Path};

use podling::mesos::v1::{
    ContainerInfo, NetworkInfo,
    TaskState::{TaskFailed, TaskFinished, TaskKilled, TaskRunning},
    container_info,
    task_status::Reason,
};
use serde_json::{Value, json};

use crate::{
    members::{
        PLUGINS, addresses, agent, bridge, conflist, finish, group, infos, last, peer, published, shell, told,
    },
    support::{ask, ask_tcp, no_answer, node, node_address, on_a_node, outside, outside_address, sh},
    witness::Witness,
};

/// Two pods of two executors with the same container port, and everybody who may ask them.
fn two_pods_and_the_world(subnets: &'static str, families: &'static [bool]) {
    on_a_node(move || async move {
        let client = outside(9, &[]);
        let before = Witness::look();
        let gateway = |ipv6: bool| if ipv6 { "fd70:1::1" } else { "10.70.0.1" };
        let loopback = |ipv6: bool| if ipv6 { "::1" } else { "127.0.0.1" };
        let pods = [("one", 31001), ("two", 31002)].map(|(name, port)| {
            // Its sibling by localhost, itself and the other pod by published port.
            let mut targets = String::new();
            for &ipv6 in families {
                targets += &format!(" {} 80", loopback(ipv6));
                targets += &format!(" {0} {port} {0} {1}", gateway(ipv6), 31001 + 31002 - port);
            }
            let asks = format!("{name}-asks");
            let tasks = [
                peer(name, &format!("serve {name} 80")),
                peer(&asks, &format!("ask{targets}")),
            ];
            let network = json!({"networks": [published("a", port)]});
            let agent = agent(&bridge(subnets), network).task_group(group(tasks));
            (name, port, asks, agent.start().unwrap())
        });
        for (name, port, asks, agent) in &pods {
            agent.wait_told(&[name], TaskRunning).unwrap();
            agent.wait_told(&[asks], TaskFinished).unwrap();
            let other = if *name == "one" { "two" } else { "one" };
            let text = fs::read_to_string(agent.sandbox().join("tasks").join(asks).join("stdout")).unwrap();
            let answers: Vec<&str> = text
                .lines()
                .filter_map(|line| line.strip_prefix("told ")?.split_once(" to "))
                .map(|(who, _)| who)
                .collect();
            assert_eq!(answers, [*name, name, other].repeat(families.len()), "{text}");
            for &ipv6 in families {
                // The outside by published port, and the pod sees who asks.
                let by_port = format!("{name} to {}", outside_address(9, ipv6));
                assert_eq!(ask(&client, node_address(9, ipv6), *port), by_port);
                no_answer(&client, node_address(9, ipv6), 80);
            }
            if families.contains(&false) {
                // The node's own loopback.
                assert!(ask(node(), "127.0.0.1".parse().unwrap(), *port).starts_with(name));
            }
            // N-09, U-09, E-03.
            let history = agent.history();
            let status = *history.updates(name).last().unwrap();
            let [info] = infos(status) else {
                panic!("{status:?}")
            };
            let mappings: Vec<(u32, u32, &str)> = info
                .port_mappings
                .iter()
                .map(|mapping| (mapping.host_port, mapping.container_port, mapping.protocol()))
                .collect();
            let port = u32::from(*port);
            assert_eq!(mappings, [(port, 80, "tcp"), (port, 80, "udp")]);
            assert_eq!(info.ip_addresses.len(), families.len());
            assert_eq!(
                told(agent.sandbox(), name, "ip"),
                info.ip_addresses[0].ip_address()
            );
        }
        let mut seen = Vec::new();
        for (name, port, _, agent) in pods {
            agent.kill(name).unwrap();
            let outcome = finish(agent);
            seen.push(
                infos(last(&outcome, name))[0].ip_addresses[0]
                    .ip_address()
                    .to_owned(),
            );
            no_answer(&client, node_address(9, families[0]), port);
        }
        assert_ne!(seen[0], seen[1]);
        before.assert_only_infrastructure_remains(&["wire9"]);
    });
}

#[test]
fn w_1_two_executors_pods_are_reached_by_what_they_publish_ipv4() {
    two_pods_and_the_world("'10.70.0.0/24'", &[false]);
}

#[test]
fn w_3_the_same_through_executors_over_ipv6() {
    two_pods_and_the_world("'fd70:1::/64'", &[true]);
}

#[test]
fn w_3_the_same_through_executors_over_both() {
    two_pods_and_the_world("'10.70.0.0/24', 'fd70:1::/64'", &[false, true]);
}

#[test]
fn l_04_groups_of_one_executor_have_networks_of_their_own() {
    on_a_node(|| async {
        let network = json!({"networks": [published("a", 31001)]});
        let agent = agent(&bridge("'10.70.0.0/24'"), network)
            .task_group(group([peer("a", "serve a 80"), peer("a2", "ask 127.0.0.1 80")]))
            .start()
            .unwrap();
        agent.wait_told(&["a2"], TaskFinished).unwrap();
        // The node has the port once; the second group is told who has it, and the first is left alone.
        agent.launch(group([peer("b", "serve b 80")]));
        agent.wait_told(&["b"], TaskFailed).unwrap();
        let history = agent.history();
        let failed = *history.updates("b").last().unwrap();
        assert!(
            failed
                .message()
                .contains("port 31001/tcp of this node is already published by pod "),
            "{failed:?}"
        );
        assert_eq!(failed.reason(), Reason::ContainerLaunchFailed);
        assert!(ask(node(), "10.70.0.1".parse().unwrap(), 31001).starts_with("a "));
        agent.kill("a").unwrap();
        finish(agent);

        // Without ports: the same container port, an address each.
        let groups = ["a", "b"].map(|name| {
            let asks = format!("{name}-asks");
            group([
                peer(name, &format!("serve {name} 80")),
                peer(&asks, "ask 127.0.0.1 80"),
            ])
        });
        let [first, second] = groups;
        let agent = crate::members::agent(&bridge("'10.70.0.0/24'"), json!({"mode": "bridge"}))
            .task_group(first)
            .task_group(second)
            .start()
            .unwrap();
        agent.wait_told(&["a-asks", "b-asks"], TaskFinished).unwrap();
        let of = |task: &str, what: &str| told(agent.sandbox(), task, what);
        for name in ["a", "b"] {
            let asks = format!("{name}-asks");
            assert_eq!(of(&asks, name), "to 127.0.0.1");
            assert_eq!(of(&asks, "net"), of(name, "net"));
            assert_eq!(of(&asks, "ip"), of(name, "ip"));
        }
        assert_ne!(of("a", "net"), of("b", "net"));
        assert_ne!(of("a", "ip"), of("b", "ip"));
        agent.kill("a").unwrap();
        agent.wait_told(&["a"], TaskKilled).unwrap();
        assert!(ask(node(), of("b", "ip").parse().unwrap(), 80).starts_with("b "));
        agent.kill("b").unwrap();
        finish(agent);
    });
}

#[test]
fn n_01_n_07_a_pod_on_several_networks_of_debians_plugins() {
    on_a_node(|| async {
        let ipam = |subnet: &str| json!({"type": "host-local", "dataDir": "/run/cni", "subnet": subnet});
        sh("ip link add nic type veth peer name far; ip link set nic up; ip link set far up");
        conflist(
            "front",
            json!([
                {"type": "bridge", "bridge": "cni-front", "isGateway": true, "ipMasq": true, "hairpinMode": true,
                 "ipam": {"type": "host-local", "dataDir": "/run/cni", "ranges": [[{"subnet": "10.71.0.0/24"}]],
                          "routes": [{"dst": "0.0.0.0/0"}]},
                 "dns": {"nameservers": ["10.71.0.53"]}},
                {"type": "portmap", "capabilities": {"portMappings": true}},
                {"type": "loopback"},
            ]),
        );
        conflist("link", json!([{"type": "ptp", "ipam": ipam("10.73.0.0/24")}]));
        conflist(
            "wire",
            json!([{"type": "macvlan", "master": "nic", "ipam": ipam("10.72.0.0/24")}]),
        );
        let client = outside(9, &[]);
        let before = Witness::look();
        let network = json!({"networks": [published("front", 31001), {"name": "link"}, {"name": "wire"}]});
        let look = "echo told dns $(cat /etc/resolv.conf); echo told eth $(ip -4 -o addr | tr -s ' ' | cut -d' ' -f2,4)";
        let agent = agent(PLUGINS, network)
            .task_group(group([
                peer("pod", "serve pod 80"),
                peer("asks", "ask 127.0.0.1 80 10.71.0.1 31001"),
                shell("looks", look),
            ]))
            .start()
            .unwrap();
        agent.wait_told(&["asks", "looks"], TaskFinished).unwrap();
        let history = agent.history();
        let status = *history.updates("pod").last().unwrap();
        assert_eq!(
            addresses(status),
            [
                ("front", vec!["10.71.0.2"]),
                ("link", vec!["10.73.0.2"]),
                ("wire", vec!["10.72.0.2"])
            ]
        );
        assert_eq!(told(agent.sandbox(), "pod", "ip"), "10.71.0.2");
        assert_eq!(told(agent.sandbox(), "looks", "dns"), "nameserver 10.71.0.53");
        assert_eq!(
            told(agent.sandbox(), "looks", "eth"),
            "lo 127.0.0.1/8 eth0 10.71.0.2/24 eth1 10.73.0.2/24 eth2 10.72.0.2/24"
        );
        // The outside, and the node's own loopback.
        assert_eq!(
            ask(&client, node_address(9, false), 31001),
            format!("pod to {}", outside_address(9, false))
        );
        assert!(ask(node(), "127.0.0.1".parse().unwrap(), 31001).starts_with("pod"));
        agent.kill("pod").unwrap();
        finish(agent);
        no_answer(&client, node_address(9, false), 31001);
        before.assert_only_infrastructure_remains(&["cni-front"]);
        assert_eq!(sh("ls /run/cni/front | grep -c ^10 || true"), "0\n");
    });
}

#[test]
fn w_2_a_plugins_own_words_reach_every_task() {
    on_a_node(|| async {
        fs::create_dir_all("/run/plugins").unwrap();
        let refuses = "#!/bin/sh\ntest $CNI_COMMAND = DEL && exit 0\n\
                       echo '{\"code\": 101, \"msg\": \"no luck\", \"details\": \"today\"}'; exit 1\n";
        fs::write("/run/plugins/odd", refuses).unwrap();
        sh("chmod +x /run/plugins/odd");
        conflist("odd", json!([{"type": "odd"}]));
        let before = Witness::look();
        let agent = agent(PLUGINS, json!({"networks": [{"name": "odd"}]}));
        let tasks = [shell("a", "touch ran"), shell("b", "touch ran")];
        let agent = agent.task_group(group(tasks)).start().unwrap();
        let sandbox = agent.sandbox().to_owned();
        let outcome = finish(agent);
        let words = "network odd: plug-in odd refused ADD: no luck: today (code 101)";
        let states = ["a", "b"].map(|task| {
            let status = last(&outcome, task);
            assert!(status.message().contains(words), "{status:?}");
            assert!(!sandbox.join("tasks").join(task).join("ran").exists());
            (status.state(), status.reason())
        });
        assert!(
            states.contains(&(TaskFailed, Reason::ContainerLaunchFailed)),
            "{states:?}"
        );
        before.assert_only_infrastructure_remains(&[]);
    });
}

#[test]
fn l_11_a_bad_network_is_refused_with_its_place_before_anything_is_made() {
    on_a_node(|| async {
        let mapping = |mapping: Value| json!({"networks": [{"name": "a", "portMappings": [mapping]}]});
        let before = Witness::look();
        for (network, sentence) in [
            (json!("host"), "executor.data.network: expected an object"),
            (
                json!({"mode": "overlay"}),
                "executor.data.network.mode: `overlay` is not a mode",
            ),
            (json!({"nets": []}), "executor.data.network.nets: unknown key"),
            (
                json!({"networks": [{"name": "dcos"}]}),
                "executor.data.network.networks[0].name: this node has no network `dcos`",
            ),
            (
                mapping(json!({"hostPort": 31001, "protocol": "sctp"})),
                "executor.data.network.networks[0].portMappings[0].protocol: sctp ports cannot be published",
            ),
            (
                mapping(json!({"hostPort": 70000})),
                "executor.data.network.networks[0].portMappings[0].hostPort: 70000 is above 65535",
            ),
        ] {
            let agent = agent(&bridge("'10.70.0.0/24'"), network)
                .task_group(group([shell("a", "true"), shell("b", "true")]));
            let outcome = finish(agent.start().unwrap());
            for task in ["a", "b"] {
                // Not even STARTING.
                let updates = outcome.history.updates(task);
                let [status] = updates.as_slice() else {
                    panic!("{updates:?}")
                };
                assert_eq!(
                    (status.state(), status.reason()),
                    (TaskFailed, Reason::TaskInvalid)
                );
                assert!(status.message().starts_with(sentence), "{status:?}");
            }
        }
        // N-08, and asking twice.
        let named = |name: &str| NetworkInfo {
            name: Some(name.to_owned()),
            ..Default::default()
        };
        for (infos, network, sentence) in [
            (
                vec![named("x"), named("x")],
                None,
                "executor.container.network_infos[1].name: the pod is already in network `x`",
            ),
            (
                vec![named("x")],
                Some(json!({"mode": "bridge"})),
                "executor.data.network: the agent has already made this pod's network",
            ),
        ] {
            let agent = agent(&bridge("'10.70.0.0/24'"), Value::Null).with_executor_info(|executor| {
                let data = network.map(|network| json!({"podling": 1, "network": network}).to_string());
                executor.data = data.map(|data| data.into_bytes().into());
                executor.container = Some(in_networks(infos));
            });
            let outcome = finish(agent.task_group(group([shell("a", "true")])).start().unwrap());
            let status = last(&outcome, "a");
            assert_eq!(
                (status.state(), status.reason()),
                (TaskFailed, Reason::TaskInvalid)
            );
            assert!(status.message().starts_with(sentence), "{status:?}");
        }
        before.assert_only_infrastructure_remains(&[]);
        assert!(!Path::new("/run/podling/network").exists());
    });
}

fn in_networks(network_infos: Vec<NetworkInfo>) -> ContainerInfo {
    ContainerInfo {
        r#type: container_info::Type::Mesos.into(),
        network_infos,
        ..Default::default()
    }
}

#[test]
fn n_01_members_share_the_network_that_the_agent_has_made() {
    on_a_node(|| async {
        // This node is what a Mesos agent has put its executor into.
        sh(
            "ip link add eth0 type veth peer name far; ip addr add 10.80.0.5/24 dev eth0; ip link set eth0 up
             ip link add eth1 type veth peer name far1; ip addr add fd80::5/64 dev eth1 nodad; ip link set eth1 up",
        );
        let before = sh("ip -o addr; nft list ruleset");
        let names = ["blue", "green"].map(|name| NetworkInfo {
            name: Some(name.to_owned()),
            ..Default::default()
        });
        let agent = agent(&bridge("'10.70.0.0/24'"), Value::Null)
            .with_executor_info(|executor| {
                executor.data = None;
                executor.container = Some(in_networks(names.to_vec()));
            })
            .task_group(group([
                peer("serves", "serve pod 8080"),
                peer("asks", "ask 10.80.0.5 8080 fd80::5 8080"),
            ]))
            .start()
            .unwrap();
        agent.wait_told(&["asks"], TaskFinished).unwrap();
        let history = agent.history();
        // From the first update on.
        for status in history.updates("serves") {
            assert_eq!(
                addresses(status),
                [("blue", vec!["10.80.0.5"]), ("green", vec!["fd80::5"])]
            );
        }
        let ours = fs::read_link("/proc/thread-self/ns/net").unwrap();
        assert_eq!(told(agent.sandbox(), "serves", "net"), ours.display().to_string());
        assert_eq!(told(agent.sandbox(), "serves", "ip"), "10.80.0.5");
        assert_eq!(sh("ip -o addr; nft list ruleset"), before);
        agent.kill("serves").unwrap();
        finish(agent);
        assert_eq!(sh("ip -o addr; nft list ruleset"), before);
    });
}

#[test]
fn n_01_in_host_mode_members_are_where_the_agent_is() {
    on_a_node(|| async {
        for network in [json!({"mode": "host"}), json!({})] {
            let before = sh("ip -o addr; nft list ruleset");
            let agent = agent(&bridge("'10.70.0.0/24'"), network)
                .task_group(group([
                    peer("serves", "serve pod 8080"),
                    peer("asks", "ask 127.0.0.1 8080"),
                ]))
                .start()
                .unwrap();
            agent.wait_told(&["asks"], TaskFinished).unwrap();
            assert!(
                ask_tcp(node(), "127.0.0.1".parse().unwrap(), 8080)
                    .unwrap()
                    .starts_with("pod")
            );
            let ours = fs::read_link("/proc/thread-self/ns/net").unwrap();
            assert_eq!(told(agent.sandbox(), "serves", "net"), ours.display().to_string());
            let history = agent.history();
            // The agent's address, under no name.
            assert_eq!(addresses(history.updates("serves")[0]), [("", vec!["127.0.0.1"])]);
            assert_eq!(told(agent.sandbox(), "serves", "ip"), "127.0.0.1");
            agent.kill("serves").unwrap();
            finish(agent);
            assert_eq!(sh("ip -o addr; nft list ruleset"), before);
        }
    });
}
