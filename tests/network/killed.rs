//! Real executors that are killed while they make networks (N3).

use std::{fs, process::Command, thread, time::Duration};

use nix::sys::signal::Signal;
use podling::mesos::v1::TaskState::{TaskFailed, TaskRunning};
use serde_json::{Value, json};

use crate::{
    members::{PLUGINS, agent, conflist, finish, group, patiently, peer, published, shell},
    support::{ask_tcp, node, on_a_node, sh},
    witness::Witness,
};

/// A built-in network and a plug-in's, with ports on both.
fn both_kinds() -> (String, Value) {
    conflist(
        "front",
        json!([
            {"type": "bridge", "bridge": "cni-front", "isGateway": true,
             "ipam": {"type": "host-local", "dataDir": "/run/cni", "subnet": "10.71.0.0/24"}},
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ]),
    );
    let operator = "{ default_network = 'a', networks = { a = { subnets = ['10.70.0.0/24', 'fd70:1::/64'] } }, \
                    cni = { config_dirs = ['/run/net.d'], plugin_dirs = ['/run/plugins', '/usr/lib/cni'] } }";
    let network = json!({"networks": [published("a", 31001), published("front", 31002)]});
    (operator.to_owned(), network)
}

/// What `podling node gc` says on a node with these networks.
fn gc(operator: &str) -> Value {
    let mut podling = Command::new(env!("CARGO_BIN_EXE_podling"));
    let output = podling
        .args(["node", "gc", "-o", "json"])
        .env("PODLING_NETWORK", operator)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn n_3_executors_killed_at_random_leave_nothing_and_are_in_nobodys_way() {
    on_a_node(|| async {
        let (operator, network) = both_kinds();
        let start = || {
            let agent = agent(&operator, network.clone()).task_group(group([peer("pod", "serve pod 80")]));
            agent.start().unwrap()
        };
        // The plug-ins lay their chains with the first pod.
        let first = start();
        first.wait_told(&["pod"], TaskRunning).unwrap();
        first.kill("pod").unwrap();
        finish(first);
        let before = Witness::look();
        // From before the subscription until long after the start.
        for after in 0..14 {
            let agent = start();
            thread::sleep(Duration::from_millis(after * 25));
            agent.signal(Signal::SIGKILL).unwrap();
            agent.abandon();
        }
        // What the dead held is in the way of the next only as long as a plug-in of theirs still runs.
        let works = || {
            let last = start();
            let told = last.wait_for_some("an end or a start", |history| {
                history
                    .state("pod")
                    .filter(|state| [TaskRunning, TaskFailed].contains(state))
            });
            let running = told.unwrap() == TaskRunning;
            if running {
                for at in ["10.70.0.1", "fd70:1::1"] {
                    let answer = patiently(|| ask_tcp(node(), at.parse().unwrap(), 31001).ok());
                    assert!(answer.starts_with("pod"), "{answer}");
                }
                last.kill("pod").unwrap();
            }
            finish(last);
            running.then_some(())
        };
        patiently(works);
        patiently(|| {
            assert_eq!(gc(&operator)["failed"], json!([]));
            sh("ls /run/podling/network/leases").is_empty().then_some(())
        });
        before
            .wait_until_only_infrastructure_remains(&["cni-front"])
            .await;
        assert_eq!(sh("ls /run/cni/front | grep -c ^10 || true"), "0\n");
    });
}

/// What a plug-in is still making for a dead executor cannot be undone yet.
#[test]
fn w_2_n_3_a_plugin_outlives_its_executor_and_is_undone_then() {
    on_a_node(|| async {
        fs::create_dir_all("/run/plugins").unwrap();
        let slow = "#!/bin/sh\ncat >/dev/null\necho $CNI_COMMAND >> /run/called\n\
                    test $CNI_COMMAND = DEL && { ip link del made 2>/dev/null; exit 0; }\n\
                    until test -e /run/go; do sleep 0.01; done\nip link add made type veth peer name other\n\
                    echo '{\"cniVersion\": \"1.0.0\", \"ips\": []}'; echo done >> /run/called\n";
        fs::write("/run/plugins/slow", slow).unwrap();
        sh("chmod +x /run/plugins/slow");
        conflist("slow", json!([{"type": "slow"}]));
        let before = Witness::look();
        let agent = agent(PLUGINS, json!({"networks": [{"name": "slow"}]}));
        let agent = agent.task_group(group([shell("a", "true")])).start().unwrap();
        patiently(|| fs::exists("/run/called").unwrap().then_some(()));
        agent.signal(Signal::SIGKILL).unwrap();
        agent.abandon();
        assert_eq!(gc(PLUGINS)["networks"], 0);
        assert_eq!(sh("cat /run/called"), "ADD\n");
        fs::write("/run/go", "").unwrap();
        let taken_back = patiently(|| gc(PLUGINS)["networks"].as_u64().filter(|count| *count > 0));
        assert_eq!(taken_back, 1);
        assert!(sh("cat /run/called").ends_with("DEL\n"));
        before.wait_until_only_infrastructure_remains(&[]).await;
    });
}
