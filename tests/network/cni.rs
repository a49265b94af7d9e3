//! Networks made by plug-ins: Debian's own, and some that misbehave (W2).

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use podling::network::{Config, Manager, PodNetwork, request::Protocol};
use serde_json::{Value, json};

use crate::{
    support::{
        Server, address, ask, ask_tcp, config, in_pod, no_answer, node, node_address, on_a_node, outside,
        outside_address, read, reclaim, sh,
    },
    witness::Witness,
};

const LISTS: &str = "/run/net.d";
const PLUGINS: &str = "/run/plugins";

fn with_plugins() -> Config {
    let config = config(
        "default_network = 'a'
         [networks.a]
         subnets = ['10.70.0.0/24']
         [cni]
         config_dirs = ['/run/net.d']
         plugin_dirs = ['/run/plugins', '/usr/lib/cni']
         timeout_seconds = 20",
    );
    for dir in [LISTS, PLUGINS] {
        fs::create_dir_all(dir).unwrap();
    }
    config
}

fn list(name: &str, value: Value) {
    fs::write(
        Path::new(LISTS).join(format!("{name}.conflist")),
        value.to_string(),
    )
    .unwrap();
}

fn plugin(name: &str, script: &str) {
    let path = Path::new(PLUGINS).join(name);
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn bridge(name: &str, subnet: &str) -> Value {
    json!({
        "cniVersion": "1.0.0", "name": name,
        "plugins": [
            {"type": "bridge", "bridge": format!("cni-{name}"), "isGateway": true, "ipMasq": true, "hairpinMode": true,
             "ipam": {"type": "host-local", "dataDir": "/run/cni", "ranges": [[{"subnet": subnet}]],
                      "routes": [{"dst": "0.0.0.0/0"}]},
             "dns": {"nameservers": ["10.71.0.1"], "search": ["example.org"]}},
            {"type": "portmap", "capabilities": {"portMappings": true}},
            {"type": "loopback"},
        ],
    })
}

async fn set_up(manager: &Manager, extras: Value, pod: &str) -> PodNetwork {
    manager.set_up(&read(manager, extras), pod).await.unwrap()
}

#[test]
fn n_07_a_pod_on_the_plugins_bridge_with_published_ports() {
    on_a_node(|| async {
        let manager = Manager::open(with_plugins()).unwrap();
        list("front", bridge("front", "10.71.0.0/24"));
        let client = outside(9, &[]);
        let _outside = Server::start(&client, "outside", 80);
        let ports = |port: u16| {
            json!([
                {"hostPort": port, "containerPort": 80},
                {"hostPort": port, "containerPort": 80, "protocol": "udp"},
            ])
        };
        let extras = |port| json!({"networks": [{"name": "front", "labels": {"a": "b"}, "portMappings": ports(port)}]});
        let before = Witness::look();
        let one = set_up(&manager, extras(31001), "one").await;
        let two = set_up(&manager, extras(31002), "two").await;
        let _one = Server::start(one.netns().unwrap(), "one", 80);
        let _two = Server::start(two.netns().unwrap(), "two", 80);

        let (one_at, two_at) = (address(&one, false), address(&two, false));
        assert_eq!(
            ask(one.netns().unwrap(), "127.0.0.1".parse().unwrap(), 80),
            "one to 127.0.0.1"
        );
        assert_eq!(ask(one.netns().unwrap(), two_at, 80), format!("two to {one_at}"));
        assert_eq!(
            ask(&client, node_address(9, false), 31001),
            format!("one to {}", outside_address(9, false))
        );
        assert!(ask(&client, node_address(9, false), 31002).starts_with("two"));
        assert!(ask(node(), "127.0.0.1".parse().unwrap(), 31001).starts_with("one"));
        let out = ask(two.netns().unwrap(), outside_address(9, false), 80);
        assert_eq!(out, format!("outside to {}", node_address(9, false)));

        // What is told about it: N-05, N-09.
        let infos = one.network_infos();
        assert_eq!(infos[0].name.as_deref(), Some("front"));
        assert_eq!(
            infos[0].ip_addresses[0].ip_address.as_deref(),
            Some(one_at.to_string().as_str())
        );
        assert_eq!(infos[0].labels.as_ref().unwrap().labels[0].key, "a");
        assert_eq!(
            one.published()
                .filter(|port| port.protocol == Protocol::Udp)
                .count(),
            1
        );
        let files = one.files().unwrap();
        assert_eq!(files.resolv_conf, "search example.org\nnameserver 10.71.0.1\n");
        assert!(
            files.hosts.ends_with(&format!("{one_at} one\n")),
            "{}",
            files.hosts
        );

        one.tear_down().await.unwrap();
        no_answer(&client, node_address(9, false), 31001);
        two.tear_down().await.unwrap();
        before.assert_only_infrastructure_remains(&["cni-front"]);
    });
}

#[test]
fn a_pod_is_on_several_networks_of_different_makers() {
    on_a_node(|| async {
        let manager = Manager::open(with_plugins()).unwrap();
        list("front", bridge("front", "10.71.0.0/24"));
        sh("ip link add nic type veth peer name far; ip link set nic up; ip link set far up");
        list(
            "wire",
            json!({"cniVersion": "0.4.0", "name": "wire", "plugins": [
            {"type": "macvlan", "master": "nic",
             "ipam": {"type": "host-local", "dataDir": "/run/cni", "subnet": "10.72.0.0/24"}}]}),
        );
        list(
            "link",
            json!({"cniVersion": "0.3.1", "name": "link", "plugins": [
            {"type": "ptp", "ipMasq": false,
             "ipam": {"type": "host-local", "dataDir": "/run/cni", "ranges": [[{"subnet": "10.73.0.0/24"}],
                                                                           [{"subnet": "fd73::/64"}]]}}]}),
        );
        let before = Witness::look();
        let ports = json!([{"hostPort": 31001, "containerPort": 80}]);
        let extras = json!({"networks": [
            {"name": "front", "portMappings": ports}, {"name": "a", "portMappings": ports}, {"name": "wire"}, {"name": "link"},
        ]});
        let pod = set_up(&manager, extras.clone(), "pod").await;
        let networks: Vec<_> = pod
            .interfaces()
            .iter()
            .map(|i| (i.name.as_str(), i.network.as_str()))
            .collect();
        assert_eq!(
            networks,
            [
                ("eth0", "front"),
                ("eth1", "a"),
                ("eth2", "wire"),
                ("eth3", "link")
            ]
        );
        let shown = in_pod(&pod, "ip -o addr");
        for (interface, subnet) in [
            ("eth0", "10.71.0."),
            ("eth1", "10.70.0."),
            ("eth2", "10.72.0."),
            ("eth3", "10.73.0."),
        ] {
            assert!(
                shown
                    .lines()
                    .any(|line| line.contains(interface) && line.contains(subnet)),
                "{interface} {subnet}: {shown}"
            );
        }
        assert_eq!(pod.interfaces()[3].addresses.len(), 2);
        assert_eq!(pod.addresses().count(), 5);
        // One default route: the first network's.
        assert_eq!(in_pod(&pod, "ip route show default").lines().count(), 1);
        assert!(in_pod(&pod, "ip route show default").contains("eth0"));
        let _server = Server::start(pod.netns().unwrap(), "pod", 80);
        let published = ask_tcp(node(), "10.70.0.1".parse().unwrap(), 31001).unwrap();
        assert!(published.starts_with("pod"), "{published}");
        pod.tear_down().await.unwrap();
        before.assert_only_infrastructure_remains(&["cni-front"]);
    });
}

/// A chain of Debian's bridge and one that does what `script` says; nothing may be left of it.
async fn fails(manager: &Manager, script: &str) -> String {
    plugin("odd", script);
    let mut chain = bridge("chain", "10.74.0.0/24");
    chain["plugins"][2]["type"] = json!("odd");
    list("chain", chain);
    let before = Witness::look();
    let request = read(manager, json!({"networks": [{"name": "a"}, {"name": "chain"}]}));
    let error = manager.set_up(&request, "pod").await.unwrap_err().to_string();
    before.assert_only_infrastructure_remains(&["cni-chain"]);
    let addresses = sh("ls /run/cni/chain 2>/dev/null | grep -c '^10' || true");
    assert_eq!(addresses, "0\n", "host-local keeps an address");
    error
}

#[test]
fn w_2_plugins_that_refuse_crash_lie_or_babble_leave_nothing() {
    on_a_node(|| async {
        let manager = Manager::open(with_plugins()).unwrap();
        // DEL is fine in each: what is left of ADD is what counts.
        let del = "test $CNI_COMMAND = DEL && exit 0";
        for (script, sentence) in [
            (
                "echo '{\"code\": 101, \"msg\": \"no luck\", \"details\": \"today\"}'; exit 1",
                "network chain: plug-in odd refused ADD: no luck: today (code 101)",
            ),
            (
                "echo oh no >&2; exit 3",
                "network chain: plug-in odd broke down at ADD (exit status: 3); it printed: oh no",
            ),
            (
                "kill -SEGV $$",
                "network chain: plug-in odd broke down at ADD (signal: 11 (SIGSEGV)",
            ),
            (
                "echo '<html>'",
                "network chain: plug-in odd printed no CNI result: ",
            ),
            ("true", "network chain: plug-in odd printed no CNI result: "),
            (
                "echo '{\"cniVersion\": \"1.0.0\", \"ips\": [{\"address\": \"10.74.0.77/24\"}]}'",
                "network chain: its plug-ins say that eth1 has 10.74.0.77/24, but it has 10.74.0.",
            ),
            (
                "echo '{\"cniVersion\": \"1.0.0\", \"ips\": [{\"address\": \"everywhere\"}]}'",
                "network chain: the result's ips[0].address is \"everywhere\", not an address",
            ),
            (
                "yes",
                "network chain: plug-in odd printed more than 1 MiB at ADD and was killed",
            ),
        ] {
            let error = fails(&manager, &format!("{del}\n{script}")).await;
            assert!(error.starts_with(sentence), "{error}");
        }
        // Success without an interface.
        plugin("odd", "echo '{\"cniVersion\": \"1.0.0\", \"ips\": []}'");
        list(
            "chain",
            json!({"cniVersion": "1.0.0", "name": "chain", "plugins": [{"type": "odd"}]}),
        );
        let request = read(&manager, json!({"networks": [{"name": "chain"}]}));
        assert_eq!(
            manager.set_up(&request, "pod").await.unwrap_err().to_string(),
            "network chain: its plug-ins say that eth0 has no address, but it has not even been made"
        );
        // A plug-in that is not there.
        let missing = {
            let mut chain = bridge("chain", "10.74.0.0/24");
            chain["plugins"][1]["type"] = json!("absent");
            list("chain", chain);
            let request = read(&manager, json!({"networks": [{"name": "chain"}]}));
            manager.set_up(&request, "pod").await.unwrap_err().to_string()
        };
        assert_eq!(
            missing,
            "network chain: plug-in absent is in none of /run/plugins, /usr/lib/cni"
        );
    });
}

#[test]
fn w_2_a_plugin_that_hangs_is_killed_with_what_it_started() {
    on_a_node(|| async {
        let mut config = with_plugins();
        config.cni.timeout_seconds = 1;
        let manager = Manager::open(config).unwrap();
        let script = "test $CNI_COMMAND = DEL && exit 0
                      sleep 1000 & echo $! > /run/child
                      wait";
        let error = fails(&manager, script).await;
        assert_eq!(
            error,
            "network chain: plug-in odd did not end ADD within 1 s and was killed"
        );
        let child = fs::read_to_string("/run/child").unwrap();
        let state = sh(&format!(
            "cat /proc/{}/stat 2>/dev/null | cut -d' ' -f3 || true",
            child.trim()
        ));
        assert!(
            state.is_empty() || state == "Z\n",
            "the plug-in's child is still there: {state}"
        );
    });
}

#[test]
fn w_2_a_dropped_set_up_is_undone_by_the_plugins_too() {
    on_a_node(|| async {
        let manager = Manager::open(with_plugins()).unwrap();
        plugin(
            "odd",
            "test $CNI_COMMAND = DEL && exit 0; echo reached > /run/reached; sleep 1000",
        );
        let mut chain = bridge("chain", "10.74.0.0/24");
        chain["plugins"][2]["type"] = json!("odd");
        list("chain", chain);
        let before = Witness::look();
        let request = read(&manager, json!({"networks": [{"name": "a"}, {"name": "chain"}]}));
        {
            let set_up = manager.set_up(&request, "pod");
            tokio::pin!(set_up);
            loop {
                tokio::select! {
                    answer = &mut set_up => panic!("{answer:?}"),
                    () = tokio::time::sleep(Duration::from_millis(5)) => {
                        if Path::new("/run/reached").exists() {
                            break;
                        }
                    }
                }
            }
        }
        // Undone in the background.
        before
            .wait_until_only_infrastructure_remains(&["cni-chain"])
            .await;
    });
}

#[test]
fn w_2_what_del_cannot_undo_is_tried_again_by_the_next_clean_up() {
    on_a_node(|| async {
        let manager = Manager::open(with_plugins()).unwrap();
        let mut chain = bridge("chain", "10.74.0.0/24");
        chain["plugins"].as_array_mut().unwrap().remove(2);
        chain["plugins"]
            .as_array_mut()
            .unwrap()
            .insert(0, json!({"type": "odd"}));
        list("chain", chain);
        plugin(
            "odd",
            "cat > /run/input.$CNI_COMMAND; test $CNI_COMMAND = DEL && test -e /run/broken && exit 1; echo '{\"cniVersion\": \"1.0.0\"}'",
        );
        let ports = json!([{"hostPort": 31001, "containerPort": 80}]);
        let before = Witness::look();
        let pod = set_up(
            &manager,
            json!({"networks": [{"name": "a", "portMappings": ports}, {"name": "chain"}]}),
            "pod",
        )
        .await;
        fs::write("/run/broken", "").unwrap();
        let error = pod.tear_down().await.unwrap_err().to_string();
        assert!(
            error.starts_with("network chain: plug-in odd broke down at DEL"),
            "{error}"
        );
        assert_eq!(sh("ls /run/podling/network/leases"), "pod\n");
        assert!(manager.reclaim().await.is_err());
        // Meanwhile it is in nobody's way, but a pod of the same name is told.
        let other = set_up(
            &manager,
            json!({"networks": [{"name": "a", "portMappings": ports}]}),
            "other",
        )
        .await;
        other.tear_down().await.unwrap();
        let again = read(&manager, json!({"mode": "bridge"}));
        let error = manager.set_up(&again, "pod").await.unwrap_err().to_string();
        assert!(
            error.starts_with("network chain: plug-in odd broke down at DEL"),
            "{error}"
        );
        fs::remove_file("/run/broken").unwrap();
        // The operator may have removed the list meanwhile: DEL needs only what was kept.
        fs::remove_file(Path::new(LISTS).join("chain.conflist")).unwrap();
        reclaim(&manager, 1).await;
        before.assert_only_infrastructure_remains(&["cni-chain"]);
        // DEL was given what ADD had given.
        let input: Value = serde_json::from_slice(&fs::read("/run/input.DEL").unwrap()).unwrap();
        assert_eq!(
            input["prevResult"]["ips"][0]["address"]
                .as_str()
                .unwrap()
                .split('.')
                .next(),
            Some("10")
        );
    });
}

#[test]
fn plugins_are_told_what_the_specification_says() {
    on_a_node(|| async {
        let mut config = with_plugins();
        config.cni.gc = true;
        let manager = Manager::open(config).unwrap();
        plugin(
            "spy",
            "test $CNI_COMMAND = VERSION && { echo '{\"supportedVersions\": [\"1.0.0\", \"1.1.0\"]}'; exit; }
             cat > /run/input.$CNI_COMMAND
             env | sort > /run/env.$CNI_COMMAND
             test $CNI_COMMAND = ADD && nsenter --net=$CNI_NETNS ip link add $CNI_IFNAME type veth peer name other
             echo '{\"cniVersion\": \"1.1.0\", \"ips\": []}'",
        );
        list(
            "spied",
            json!({"cniVersion": "1.1.0", "name": "spied", "plugins": [
            {"type": "spy", "capabilities": {"portMappings": true, "mac": true}, "own": [1], "args": {"cni": {"x": "y"}}}]}),
        );
        let extras = json!({"networks": [{"name": "spied", "labels": {"tier": "2"}, "portMappings": [
            {"hostPort": 31001, "containerPort": 80, "protocol": "http"}]}]});
        let pod = set_up(&manager, extras, "a pod of ours").await;
        let json = |file: &str| -> Value { serde_json::from_slice(&fs::read(file).unwrap()).unwrap() };
        let input = json("/run/input.ADD");
        assert_eq!(
            input,
            json!({
                "cniVersion": "1.1.0", "name": "spied", "type": "spy", "own": [1],
                "args": {"cni": {"x": "y"}, "org.apache.mesos": {"network_info": {
                    "name": "spied", "labels": {"labels": [{"key": "tier", "value": "2"}]},
                    "port_mappings": [{"host_port": 31001, "container_port": 80, "protocol": "tcp"}]}}},
                "runtimeConfig": {"portMappings": [{"hostPort": 31001, "containerPort": 80, "protocol": "tcp"}]},
            })
        );
        let env = fs::read_to_string("/run/env.ADD").unwrap();
        let names: Vec<&str> = env
            .lines()
            .filter_map(|line| Some(line.split_once('=')?.0))
            .collect();
        assert_eq!(
            names,
            [
                "CNI_ARGS",
                "CNI_COMMAND",
                "CNI_CONTAINERID",
                "CNI_IFNAME",
                "CNI_NETNS",
                "CNI_PATH",
                "PATH",
                "PWD"
            ],
            "{env}"
        );
        // A name that CNI does not allow for a container is replaced by a hash.
        assert!(env.contains("CNI_CONTAINERID=pod-"), "{env}");
        pod.check().await.unwrap();
        assert_eq!(json("/run/input.CHECK")["prevResult"]["cniVersion"], "1.1.0");
        manager.reclaim().await.unwrap();
        let alive = json("/run/input.GC")["cni.dev/valid-attachments"].clone();
        assert_eq!(alive[0]["ifname"], "eth0");
        assert_eq!(alive.as_array().unwrap().len(), 1);
        pod.tear_down().await.unwrap();
        manager.reclaim().await.unwrap();
        assert_eq!(json("/run/input.GC")["cni.dev/valid-attachments"], json!([]));
    });
}

#[test]
fn check_asks_the_plugins() {
    on_a_node(|| async {
        let manager = Manager::open(with_plugins()).unwrap();
        list("front", bridge("front", "10.71.0.0/24"));
        let pod = set_up(&manager, json!({"networks": [{"name": "front"}]}), "pod").await;
        pod.check().await.unwrap();
        in_pod(&pod, "ip addr flush dev eth0");
        let error = pod.check().await.unwrap_err().to_string();
        assert!(
            error.starts_with("network front: plug-in bridge refused CHECK"),
            "{error}"
        );
        pod.tear_down().await.unwrap();
    });
}

/// What a plug-in starts and leaves running may keep its output open; its own end is what counts.
#[test]
fn a_plugins_daemon_does_not_hold_up_the_pod() {
    on_a_node(|| async {
        let manager = Manager::open(with_plugins()).unwrap();
        plugin(
            "odd",
            "test $CNI_COMMAND = DEL && { kill $(cat /run/daemon); exit 0; }
             sleep 1000 & echo $! > /run/daemon
             nsenter --net=$CNI_NETNS ip link add $CNI_IFNAME type veth peer name other
             echo '{\"cniVersion\": \"1.0.0\", \"ips\": []}'",
        );
        list(
            "chain",
            json!({"cniVersion": "1.0.0", "name": "chain", "plugins": [{"type": "odd"}]}),
        );
        let pod = set_up(&manager, json!({"networks": [{"name": "chain"}]}), "pod").await;
        sh("kill -0 $(cat /run/daemon)");
        pod.tear_down().await.unwrap();
    });
}
