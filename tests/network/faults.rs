//! Steps that fail, executors that are killed, rules that others remove (W2, N1, N3).

use std::{
    collections::BTreeSet,
    env, fs,
    os::unix::process::ExitStatusExt,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use nix::sys::signal::{Signal, raise};
use podling::network::{Config, Manager, Request, Step, Watch, ruleset::Found};
use serde_json::{Value, json};

use crate::{
    support::{
        Server, ask_tcp, config, error, no_answer, node, node_address, on_a_node, outside, read, reclaim, sh,
    },
    witness::Witness,
};

/// A node with a built-in network of both families and a CNI network.
///
/// Without `ipMasq`: this plug-in finds the rules for it by the interface in the namespace, so it forgets them when that
/// died with its executor. (Later versions of it find them by the kept result.)
fn everything() -> Config {
    let subnets = env::var(SUBNETS).unwrap_or(BOTH.to_owned());
    everything_on(&subnets)
}

const BOTH: &str = "'10.70.0.0/24', 'fd70:1::/64'";
const FAMILIES: [&str; 3] = ["'10.70.0.0/24'", "'fd70:1::/64'", BOTH];
/// For a test's child.
const SUBNETS: &str = "PODLING_TEST_SUBNETS";

fn everything_on(subnets: &str) -> Config {
    fs::create_dir_all("/run/net.d").unwrap();
    fs::write(
        "/run/net.d/front.conflist",
        json!({"cniVersion": "1.0.0", "name": "front", "plugins": [
            {"type": "bridge", "bridge": "cni-front", "isGateway": true,
             "ipam": {"type": "host-local", "dataDir": "/run/cni", "subnet": "10.71.0.0/24"}},
            {"type": "portmap", "capabilities": {"portMappings": true}}]})
        .to_string(),
    )
    .unwrap();
    config(&format!(
        "default_network = 'a'
         [networks.a]
         subnets = [{subnets}]
         [cni]
         config_dirs = ['/run/net.d']
         plugin_dirs = ['/usr/lib/cni']"
    ))
}

fn wish(manager: &Manager) -> Request {
    let ports = |port: u16| {
        json!([{"hostPort": port, "containerPort": 80},
                                   {"hostPort": port, "containerPort": 80, "protocol": "udp"}])
    };
    read(
        manager,
        json!({"networks": [{"name": "a", "portMappings": ports(31001)}, {"name": "front", "portMappings": ports(31002)}]}),
    )
}

/// Does something at the `count`th time that a step comes.
fn at(step: Step, count: usize, then: impl Fn() -> bool + Send + Sync + 'static) -> Watch {
    let seen = AtomicUsize::new(0);
    Watch::new(move |now| now != step || seen.fetch_add(1, Ordering::Relaxed) != count || then())
}

/// How often each step comes in one life of a pod.
async fn steps(subnets: &str) -> Vec<Step> {
    let seen: Arc<std::sync::Mutex<Vec<Step>>> = Arc::default();
    let manager = Manager::open(everything_on(subnets))
        .unwrap()
        .with_watch(Watch::new({
            let seen = seen.clone();
            move |step| {
                seen.lock().unwrap().push(step);
                true
            }
        }));
    let request = wish(&manager);
    let pod = manager.set_up(&request, "pod").await.unwrap();
    pod.tear_down().await.unwrap();
    let seen = seen.lock().unwrap().clone();
    let kinds: BTreeSet<String> = seen.iter().map(|step| format!("{step:?}")).collect();
    assert_eq!(kinds.len(), Step::UP.len() + Step::DOWN.len(), "{kinds:?}");
    seen
}

/// Every step with its number among those of its kind.
fn numbered(steps: &[Step]) -> Vec<(Step, usize)> {
    let before = |index: usize, step: Step| steps[..index].iter().filter(|other| **other == step).count();
    steps
        .iter()
        .enumerate()
        .map(|(index, step)| (*step, before(index, *step)))
        .collect()
}

fn each_step_failed_in_turn(subnets: &'static str) {
    on_a_node(move || async move {
        let steps = steps(subnets).await;
        let before = Witness::look();
        for (step, count) in numbered(&steps) {
            let manager = Manager::open(everything_on(subnets))
                .unwrap()
                .with_watch(at(step, count, || false));
            let request = wish(&manager);
            match manager.set_up(&request, "pod").await {
                Err(error) => {
                    assert!(Step::UP.contains(&step));
                    assert_eq!(error.to_string(), format!("step {step:?} was made to fail"));
                }
                Ok(pod) => {
                    // Failed on the way back: the next clean-up does it.
                    assert!(Step::DOWN.contains(&step), "{step:?} {count}");
                    pod.tear_down().await.unwrap_err();
                    reclaim(&manager, 1).await;
                }
            }
            before.assert_only_infrastructure_remains(&["cni-front"]);
        }
    });
}

#[test]
fn w_2_each_step_failed_in_turn_leaves_nothing_ipv4() {
    each_step_failed_in_turn(FAMILIES[0]);
}

#[test]
fn w_2_w_3_each_step_failed_in_turn_leaves_nothing_ipv6() {
    each_step_failed_in_turn(FAMILIES[1]);
}

#[test]
fn w_2_w_3_each_step_failed_in_turn_leaves_nothing_both() {
    each_step_failed_in_turn(FAMILIES[2]);
}

/// The child of the next test: an executor that is killed at one step of its pod's network.
#[test]
#[ignore = "started by those that kill an executor at each step"]
fn an_executor_that_is_killed() {
    let Ok(wanted) = env::var("PODLING_TEST_KILL_AT") else {
        return;
    };
    let (step, count) = wanted.split_once(' ').unwrap();
    let step = *Step::UP
        .iter()
        .chain(&Step::DOWN)
        .find(|one| format!("{one:?}") == step)
        .unwrap();
    let watch = at(step, count.parse().unwrap(), || {
        raise(Signal::SIGKILL).unwrap();
        unreachable!()
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let manager = Manager::open(everything()).unwrap().with_watch(watch);
        let request = wish(&manager);
        let pod = manager.set_up(&request, "pod").await.unwrap();
        pod.tear_down().await.unwrap();
    });
}

fn kill_an_executor_at(step: Step, count: usize, subnets: &str) {
    let status = Command::new(env::current_exe().unwrap())
        .args([
            "--exact",
            "faults::an_executor_that_is_killed",
            "--ignored",
            "--quiet",
        ])
        .env("PODLING_TEST_KILL_AT", format!("{step:?} {count}"))
        .env(SUBNETS, subnets)
        .output()
        .unwrap()
        .status;
    assert_eq!(
        status.signal(),
        Some(Signal::SIGKILL as i32),
        "{step:?} {count}: {status}"
    );
}

fn killed_at_each_step(subnets: &'static str) {
    on_a_node(move || async move {
        let steps = steps(subnets).await;
        let before = Witness::look();
        for (step, count) in numbered(&steps) {
            kill_an_executor_at(step, count, subnets);
            let manager = Manager::open(everything_on(subnets)).unwrap();
            // Before its journal is opened a pod holds nothing.
            let held = usize::from(!matches!(step, Step::Namespace | Step::Lease));
            reclaim(&manager, held).await;
            before
                .wait_until_only_infrastructure_remains(&["cni-front"])
                .await;
        }
    });
}

#[test]
fn n_3_an_executor_killed_at_each_step_leaves_nothing_to_the_next_ipv4() {
    killed_at_each_step(FAMILIES[0]);
}

#[test]
fn n_3_w_3_an_executor_killed_at_each_step_leaves_nothing_to_the_next_ipv6() {
    killed_at_each_step(FAMILIES[1]);
}

#[test]
fn n_3_w_3_an_executor_killed_at_each_step_leaves_nothing_to_the_next_both() {
    killed_at_each_step(FAMILIES[2]);
}

#[test]
fn n_3_what_a_dead_executor_holds_is_not_in_the_way_of_the_next_pod() {
    on_a_node(|| async {
        let steps = steps(BOTH).await;
        let before = Witness::look();
        for step in [
            Step::Port,
            Step::Inside,
            Step::Attach,
            Step::Unlink,
            Step::Release,
        ] {
            assert!(steps.contains(&step));
            kill_an_executor_at(step, 0, BOTH);
            // The same name and the same ports again, without anybody having cleaned up.
            let manager = Manager::open(everything()).unwrap();
            let request = wish(&manager);
            let pod = manager.set_up(&request, "pod").await.unwrap();
            let _server = Server::start(pod.netns().unwrap(), "pod", 80);
            let answer = ask_tcp(node(), "10.70.0.1".parse().unwrap(), 31001).unwrap();
            assert!(answer.starts_with("pod"), "{answer}");
            pod.tear_down().await.unwrap();
            drop(_server);
            before
                .wait_until_only_infrastructure_remains(&["cni-front"])
                .await;
        }
    });
}

/// The whole of what `nft`, `ip` and the settings show.
fn portrait() -> String {
    sh("nft -s list ruleset
        ip -d -o link | sed 's/ *promiscuity.*//'
        ip -o addr | sed 's/ *valid_lft.*//'
        ip route show table all; ip -6 route show table all | sed 's/ expires [0-9]*sec//'
        ip rule; ip -6 rule
        bridge link")
}

fn foreign_things() {
    sh("echo 1 > /proc/sys/net/ipv4/ip_forward
        echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
        echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad
        nft -f - <<'END'
        table inet podling2 { set pods4 { type ipv4_addr; elements = { 10.70.0.2 }; }; chain forward { type filter hook forward priority 0; policy accept; ip saddr 10.99.0.0/16 drop; }; }
        table ip podling { map ports4 { type inet_service : ipv4_addr; elements = { 31001 : 10.70.0.2 }; }; }
        table ip nat { chain POSTROUTING { type nat hook postrouting priority srcnat; ip saddr 172.17.0.0/16 masquerade; }; }
END
        ip link add plb0123456789ab type bridge
        ip link set plb0123456789ab alias 'podling network z'
        ip link add plv0123456789ab type veth peer name plvpeer
        ip link set plv0123456789ab master plb0123456789ab
        ip link set plv0123456789ab alias 'podling eth0 of pod'
        ip addr add 10.99.0.1/16 dev plb0123456789ab
        ip link set plb0123456789ab up
        ip link set plv0123456789ab up
        ip link set plvpeer up
        ip route add 10.98.0.0/16 via 10.99.0.7");
}

#[test]
fn n_3_nothing_of_others_is_touched() {
    on_a_node(|| async {
        foreign_things();
        let before = portrait();
        let mut config = everything();
        config.cni.config_dirs.clear();
        let manager = Manager::open(config).unwrap();
        let ports = json!([{"hostPort": 31001, "containerPort": 80}]);
        let request = read(
            &manager,
            json!({"networks": [{"name": "a", "portMappings": ports}]}),
        );
        for name in ["one", "two"] {
            let pod = manager.set_up(&request, name).await.unwrap();
            assert_ne!(portrait(), before);
            pod.tear_down().await.unwrap();
        }
        kill_an_executor_at(Step::Publish, 0, BOTH);
        manager.reclaim().await.unwrap();
        assert!(manager.dismantle().await.unwrap());
        assert_eq!(portrait(), before);
    });
}

#[test]
fn n_3_a_foreign_interface_under_a_noted_name_is_left_alone() {
    on_a_node(|| async {
        kill_an_executor_at(Step::Inside, 0, BOTH);
        let journal = fs::read_to_string("/run/podling/network/leases/pod").unwrap();
        let noted = journal.lines().find(|line| line.contains("\"link\"")).unwrap();
        let noted: Value = serde_json::from_str(noted).unwrap();
        let name = noted["name"].as_str().unwrap();
        // The pod's own has gone with its namespace; somebody else takes the name.
        sh(&format!(
            "for i in $(seq 500); do ip link show {name} >/dev/null 2>&1 || break; sleep 0.01; done
             ip link add {name} type veth peer name other"
        ));
        let manager = Manager::open(everything()).unwrap();
        reclaim(&manager, 1).await;
        sh(&format!("ip link show {name}"));
        // And a pod of that name gets another one.
        let request = read(&manager, json!({"mode": "bridge"}));
        let pod = manager.set_up(&request, "pod").await.unwrap();
        pod.tear_down().await.unwrap();
        sh(&format!("ip link show {name}"));
    });
}

#[test]
fn a_foreign_flush_is_told_and_the_next_start_repairs() {
    on_a_node(|| async {
        let manager = Manager::open(everything()).unwrap();
        let publish = |port: u16| {
            let ports = json!([{"hostPort": port, "containerPort": 80}]);
            read(
                &manager,
                json!({"networks": [{"name": "a", "portMappings": ports}]}),
            )
        };
        let client = outside(9, &[]);
        let at = node_address(9, false);
        let reaches =
            |port| ask_tcp(&client, at, port).map(|answer| answer.split(' ').next().unwrap().to_owned());
        let one = manager.set_up(&publish(31001), "one").await.unwrap();
        let _one = Server::start(one.netns().unwrap(), "one", 80);
        assert_eq!(manager.report().await.unwrap().table, Found::Whole);
        for (number, (damage, found)) in [
            ("nft flush ruleset", Found::Missing),
            ("nft delete table inet podling", Found::Missing),
            ("nft flush table inet podling", Found::Missing),
            ("nft flush chain inet podling prerouting", Found::Changed),
            (
                "nft insert rule inet podling prerouting tcp dport 31001 return",
                Found::Changed,
            ),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(reaches(31001).unwrap(), "one");
            sh(damage);
            assert_eq!(manager.report().await.unwrap().table, found, "{damage}");
            assert_eq!(
                error(&client, at, 31001),
                std::io::ErrorKind::ConnectionRefused,
                "{damage}"
            );
            let port = 31100 + number as u16;
            let two = manager.set_up(&publish(port), "two").await.unwrap();
            let server = Server::start(two.netns().unwrap(), "two", 80);
            assert_eq!(manager.report().await.unwrap().table, Found::Whole, "{damage}");
            // The new one, and the one that was there before.
            assert_eq!(reaches(port).unwrap(), "two", "{damage}");
            assert_eq!(reaches(31001).unwrap(), "one", "{damage}");
            drop(server);
            two.tear_down().await.unwrap();
        }
        // Without a table there is nothing to take a pod out of.
        sh("nft flush ruleset");
        one.tear_down().await.unwrap();
    });
}

#[test]
fn a_bridge_that_somebody_removed_or_stripped_is_mended() {
    on_a_node(|| async {
        let manager = Manager::open(everything()).unwrap();
        let request = read(&manager, json!({"mode": "bridge"}));
        manager
            .set_up(&request, "first")
            .await
            .unwrap()
            .tear_down()
            .await
            .unwrap();
        let bridge = manager.report().await.unwrap().bridges[0].1.clone();
        for damage in [
            "ip link del BRIDGE",
            "ip addr flush dev BRIDGE",
            "ip link set BRIDGE down",
        ] {
            sh(&damage.replace("BRIDGE", &bridge));
            let pod = manager.set_up(&request, "pod").await.unwrap();
            let _server = Server::start(pod.netns().unwrap(), "pod", 80);
            for at in pod.addresses() {
                assert!(ask_tcp(node(), at, 80).unwrap().starts_with("pod"), "{damage}");
            }
            pod.tear_down().await.unwrap();
        }
    });
}

#[test]
fn what_stands_in_the_way_is_told_before_anything_is_made() {
    on_a_node(|| async {
        let request = |manager: &Manager| read(manager, json!({"mode": "bridge"}));
        let refused = async |config: Config| {
            let manager = Manager::open(config).unwrap();
            let before = portrait();
            let error = manager
                .set_up(&request(&manager), "pod")
                .await
                .unwrap_err()
                .to_string();
            assert_eq!(portrait(), before, "{error}");
            error
        };
        let mut foreign = everything();
        foreign.networks.get_mut("a").unwrap().bridge = Some("mine".into());
        sh("ip link add mine type bridge");
        assert_eq!(
            refused(foreign).await,
            "interface mine exists already and is not ours; name another one with networks.a.bridge"
        );
        sh("ip link del mine; ip addr add 10.70.0.77/24 dev lo");
        assert_eq!(
            refused(everything()).await,
            "10.70.0.0/24 of network a overlaps 10.70.0.77/24 on interface lo of this node; choose another subnet"
        );
        sh("ip addr del 10.70.0.77/24 dev lo; echo 0 > /proc/sys/net/ipv4/ip_forward");
        let mut still = everything();
        still.enable_forwarding = false;
        let error = refused(still).await;
        assert!(
            error.starts_with("net/ipv4/ip_forward is 0 on this node and we may not change it"),
            "{error}"
        );
        // A port that a living pod has.
        let manager = Manager::open(everything()).unwrap();
        let ports = json!([{"hostPort": 31001, "containerPort": 80}]);
        let asked = read(
            &manager,
            json!({"networks": [{"name": "a", "portMappings": ports}]}),
        );
        let one = manager.set_up(&asked, "one").await.unwrap();
        let before = Witness::look();
        let error = manager.set_up(&asked, "two").await.unwrap_err().to_string();
        assert_eq!(
            error,
            "port 31001/tcp of this node is already published by pod one"
        );
        let error = manager.set_up(&asked, "one").await.unwrap_err().to_string();
        assert!(
            error.starts_with("the network of pod one is already set up by process"),
            "{error}"
        );
        before.assert_only_infrastructure_remains(&[]);
        one.tear_down().await.unwrap();
    });
}

#[test]
fn networks_are_apart_unless_the_operator_joins_them() {
    on_a_node(|| async {
        let network =
            |isolated: bool, number: u8| format!("subnets = ['10.7{number}.0.0/24']\nisolated = {isolated}");
        let config = config(&format!(
            "default_network = 'a'\n[networks.a]\n{}\n[networks.b]\n{}\n[networks.c]\n{}\n[networks.d]\n{}",
            network(true, 0),
            network(true, 1),
            network(false, 2),
            network(false, 3)
        ));
        let manager = Manager::open(config).unwrap();
        let mut pods = Vec::new();
        for (name, port) in [("a", 31001), ("b", 31002), ("c", 31003), ("d", 31004)] {
            let ports = json!([{"hostPort": port, "containerPort": 80}, {"hostPort": port, "containerPort": 80, "protocol": "udp"}]);
            let request = read(
                &manager,
                json!({"networks": [{"name": name, "portMappings": ports}]}),
            );
            let pod = manager.set_up(&request, name).await.unwrap();
            let server = Server::start(pod.netns().unwrap(), name, 80);
            pods.push((name, port, pod, server));
        }
        for (from, _, asker, _) in &pods {
            for (to, port, asked, _) in &pods {
                let at = asked.addresses().next().unwrap();
                let may = from == to || (["c", "d"].contains(from) && ["c", "d"].contains(to));
                if may {
                    let answer = ask_tcp(asker.netns().unwrap(), at, 80).unwrap();
                    assert_eq!(answer, format!("{to} to {}", asker.addresses().next().unwrap()));
                } else {
                    no_answer(asker.netns().unwrap(), at, 80);
                }
                // What is published is published to all.
                let gateway = format!(
                    "{}1",
                    asker
                        .addresses()
                        .next()
                        .unwrap()
                        .to_string()
                        .trim_end_matches('2')
                );
                let answer = ask_tcp(asker.netns().unwrap(), gateway.parse().unwrap(), *port).unwrap();
                assert!(answer.starts_with(to), "{from} {to}: {answer}");
            }
        }
        for (_, _, pod, server) in pods {
            drop(server);
            pod.tear_down().await.unwrap();
        }
        assert!(manager.dismantle().await.unwrap());
    });
}

/// Whatever else still holds the namespace, a pod that has ended is off the network.
#[test]
fn n_1_a_namespace_that_somebody_keeps_is_cut_off() {
    on_a_node(|| async {
        let before = Witness::look();
        let manager = Manager::open(everything()).unwrap();
        let request = read(&manager, json!({"mode": "bridge"}));
        let pod = manager.set_up(&request, "pod").await.unwrap();
        let kept = pod.netns().unwrap().try_clone_to_owned().unwrap();
        let (server, at) = (Server::start(&kept, "pod", 80), pod.addresses().next().unwrap());
        assert!(ask_tcp(node(), at, 80).is_ok());
        pod.tear_down().await.unwrap();
        before.assert_only_infrastructure_remains(&[]);
        no_answer(node(), at, 80);
        drop(server);
    });
}
