//! What a pod's network costs: at launch and at the end beside CNI plug-ins, netavark and `ip`/`nft` commands; and bytes a
//! second through a published port beside plain loopback.
//!
//! `cargo bench --bench network`, as root; `PODLING_BENCH_RUNS` changes the number of runs. All of it happens on a node of
//! its own (a fresh network and mount namespace). Contenders take turns, with a pause of 150 ms before each: back
//! to back, the kernel is warmer than it ever is on an agent. Raw results go to `benches/results/network.json`.

// A benchmark that cannot go on may end at once.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    collections::BTreeMap,
    env, fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use podling::{
    network::{Config, Manager, PodNetwork, Request},
    sys::netns,
};
use serde_json::{Value, json};

const PAUSE: Duration = Duration::from_millis(150);
const NETAVARK: &str = "/usr/lib/podman/netavark";

type Times = BTreeMap<String, Vec<f64>>;

fn main() {
    // `cargo test --benches` only wants to know that it starts.
    if env::args().any(|argument| argument == "--test") {
        return;
    }
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("this benchmark needs root");
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).unwrap();
    fs::create_dir_all("/run/netns").unwrap();
    sh("ip link set lo up; echo 1 > /proc/sys/net/ipv4/ip_forward");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let results = runtime.block_on(async {
        let launches = launches().await;
        let churn = churn().await;
        let throughput = throughput().await;
        json!({"launch_ms": launches, "churn": churn, "throughput_gbit_s": throughput})
    });
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/results/network.json");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, format!("{results:#}\n")).unwrap();
}

fn sh(script: &str) {
    let done = Command::new("sh")
        .args(["-ec", script])
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(done.success(), "{script}");
}

fn runs() -> usize {
    env::var("PODLING_BENCH_RUNS")
        .ok()
        .and_then(|runs| runs.parse().ok())
        .unwrap_or(40)
}

fn manager() -> Manager {
    fs::create_dir_all("/run/net.d").unwrap();
    let list = json!({"cniVersion": "1.0.0", "name": "plugins", "plugins": [
        {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true,
         "ipam": {"type": "host-local", "dataDir": "/run/cni", "subnet": "10.71.0.0/16",
                  "routes": [{"dst": "0.0.0.0/0"}]}},
        {"type": "portmap", "capabilities": {"portMappings": true}}]});
    fs::write("/run/net.d/plugins.conflist", list.to_string()).unwrap();
    let mut config = Config {
        state_dir: Some("/run/podling/network".into()),
        ..Config::default()
    };
    config.cni.config_dirs = vec!["/run/net.d".into()];
    Manager::open(config).unwrap()
}

fn request(manager: &Manager, network: &str, port: u16) -> Request {
    let ports = json!([{"hostPort": port, "containerPort": 80},
                       {"hostPort": port, "containerPort": 80, "protocol": "udp"}]);
    let extras = json!({"networks": [{"name": network, "portMappings": ports}]});
    manager.read(None, Some(&extras)).unwrap()
}

async fn ours(manager: &Manager, network: &str, times: &mut Times, name: &str) {
    let request = request(manager, network, 31001);
    let start = Instant::now();
    let pod = manager.set_up(&request, "bench").await.unwrap();
    note(times, name, start);
    thread::sleep(PAUSE);
    let start = Instant::now();
    pod.tear_down().await.unwrap();
    note(times, &format!("{name}, end"), start);
}

fn note(times: &mut Times, name: &str, start: Instant) {
    times
        .entry(name.to_owned())
        .or_default()
        .push(start.elapsed().as_secs_f64() * 1e3);
}

fn run(command: &str) {
    let words: Vec<&str> = command.split(' ').collect();
    let status = Command::new(words[0]).args(&words[1..]).status().unwrap();
    assert!(status.success(), "{command}");
}

/// What a shell script would do: eight commands.
fn commands(times: &mut Times) {
    let start = Instant::now();
    for command in [
        "ip netns add bench",
        "ip link add plbench type veth peer name eth0 netns bench",
        "ip link set plbench master cmd0 up",
        "ip -n bench link set lo up",
        "ip -n bench link set eth0 up",
        "ip -n bench addr add 10.72.0.2/16 dev eth0",
        "ip -n bench route add default via 10.72.0.1",
    ] {
        run(command);
    }
    feed("nft", &["-f", "-"], RULES);
    note(times, "ip and nft commands", start);
    thread::sleep(PAUSE);
    let start = Instant::now();
    for command in [
        "nft delete table inet bench",
        "ip link del plbench",
        "ip netns del bench",
    ] {
        run(command);
    }
    note(times, "ip and nft commands, end", start);
}

const RULES: &str = "table inet bench {
    chain prerouting { type nat hook prerouting priority dstnat; tcp dport 31001 dnat ip to 10.72.0.2:80; udp dport 31001 dnat ip to 10.72.0.2:80; }
    chain postrouting { type nat hook postrouting priority srcnat; ip saddr 10.72.0.2 masquerade; }
}";

fn feed(program: &str, arguments: &[&str], input: &str) {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{program} {arguments:?}");
}

/// podman's network program, namespace not counted.
fn netavark(times: &mut Times) {
    let wish = json!({
        "container_id": "bench", "container_name": "bench",
        "networks": {"nv": {"static_ips": ["10.73.0.2"], "interface_name": "eth0"}},
        "network_info": {"nv": {
            "name": "nv", "id": "0000000000000000000000000000000000000000000000000000000000000001",
            "driver": "bridge", "network_interface": "nv0",
            "subnets": [{"subnet": "10.73.0.0/16", "gateway": "10.73.0.1"}],
            "ipv6_enabled": false, "internal": false, "dns_enabled": false, "ipam_options": {"driver": "host-local"}}},
        "port_mappings": [
            {"container_port": 80, "host_ip": "", "host_port": 31001, "protocol": "tcp", "range": 1},
            {"container_port": 80, "host_ip": "", "host_port": 31001, "protocol": "udp", "range": 1}],
    })
    .to_string();
    sh("ip netns add bench");
    thread::sleep(PAUSE);
    let start = Instant::now();
    feed(NETAVARK, &["setup", "/run/netns/bench"], &wish);
    note(times, "netavark", start);
    thread::sleep(PAUSE);
    let start = Instant::now();
    feed(NETAVARK, &["teardown", "/run/netns/bench"], &wish);
    note(times, "netavark, end", start);
    sh("ip netns del bench");
}

async fn launches() -> Value {
    let manager = manager();
    sh("ip link add cmd0 type bridge; ip addr add 10.72.0.1/16 dev cmd0; ip link set cmd0 up");
    let with_netavark = Path::new(NETAVARK).exists();
    let mut times = Times::new();
    for run in 0..=runs() {
        if run == 1 {
            // The first lays tables and bridges, ours and the others'.
            times.clear();
        }
        manager.warm();
        thread::sleep(PAUSE);
        ours(&manager, "mesos-bridge", &mut times, "ours").await;
        thread::sleep(PAUSE);
        ours(&manager, "mesos-bridge", &mut times, "ours, no namespace ahead").await;
        if run % 4 == 0 {
            thread::sleep(PAUSE);
            ours(&manager, "plugins", &mut times, "CNI bridge, host-local, portmap").await;
            thread::sleep(PAUSE);
            commands(&mut times);
            if with_netavark {
                thread::sleep(PAUSE);
                netavark(&mut times);
            }
        }
    }
    // Among a hundred others.
    let mut others = Vec::new();
    for index in 0..100 {
        let request = request(&manager, "mesos-bridge", 32000 + index);
        others.push(manager.set_up(&request, &format!("other-{index}")).await.unwrap());
    }
    for _ in 0..runs() / 2 {
        manager.warm();
        thread::sleep(PAUSE);
        ours(&manager, "mesos-bridge", &mut times, "ours among 100 pods").await;
    }
    for pod in others {
        pod.tear_down().await.unwrap();
    }
    println!("{:34} {:>9} {:>9} {:>9}   runs", "", "median", "p99", "best");
    for (name, times) in &mut times {
        times.sort_by(f64::total_cmp);
        let at = |part: f64| times[((times.len() - 1) as f64 * part).round() as usize];
        println!(
            "{name:34} {:6.2} ms {:6.2} ms {:6.2} ms   {}",
            at(0.5),
            at(0.99),
            at(0.0),
            times.len()
        );
    }
    json!(times)
}

/// Pods that come and go, one after the other and eight at a time.
async fn churn() -> Value {
    let manager = manager();
    let mut rates = BTreeMap::new();
    println!();
    for lanes in [1, 8] {
        let start = Instant::now();
        let count = (runs() * 5).next_multiple_of(lanes);
        let lane = async |lane: usize| {
            let request = request(&manager, "mesos-bridge", 31001 + lane as u16);
            for _ in 0..count / lanes {
                let pod = manager.set_up(&request, &format!("churn-{lane}")).await.unwrap();
                pod.tear_down().await.unwrap();
            }
        };
        if lanes == 1 {
            lane(0).await;
        } else {
            tokio::join!(
                lane(0),
                lane(1),
                lane(2),
                lane(3),
                lane(4),
                lane(5),
                lane(6),
                lane(7)
            );
        }
        let rate = count as f64 / start.elapsed().as_secs_f64();
        println!("{rate:.0} pods' networks made and undone a second, {lanes} at a time");
        rates.insert(format!("{lanes} at a time"), rate);
    }
    json!(rates)
}

/// Pushes bytes for a second from one namespace to a listener in another; answers Gbit/s.
fn push(listen_in: &OwnedFd, listen_port: u16, from: &OwnedFd, to: SocketAddr) -> f64 {
    let listener = netns::enter(listen_in, move || TcpListener::bind(("0.0.0.0", listen_port))).unwrap();
    let receiver = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = vec![0; 256 << 10];
        let (start, mut total) = (Instant::now(), 0usize);
        while let Ok(read @ 1..) = stream.read(&mut buffer) {
            total += read;
        }
        total as f64 * 8e-9 / start.elapsed().as_secs_f64()
    });
    let mut stream = netns::enter(from, move || TcpStream::connect(to)).unwrap();
    let buffer = vec![0; 256 << 10];
    let end = Instant::now() + Duration::from_secs(1);
    while Instant::now() < end {
        stream.write_all(&buffer).unwrap();
    }
    drop(stream);
    receiver.join().unwrap()
}

async fn throughput() -> Value {
    let manager = manager();
    let set_up = async |pod: &str, port| -> PodNetwork {
        manager
            .set_up(&request(&manager, "mesos-bridge", port), pod)
            .await
            .unwrap()
    };
    let (one, two) = (set_up("one", 31001).await, set_up("two", 31002).await);
    let namespace = |pod: &PodNetwork| pod.netns().unwrap().try_clone_to_owned().unwrap();
    let (node, in_one, in_two) = (netns::current().unwrap(), namespace(&one), namespace(&two));
    let (outside, ()) = netns::create(|| Ok(())).unwrap();
    let path = format!("/proc/{}/fd/{}", std::process::id(), outside.as_fd().as_raw_fd());
    sh(&format!(
        "ip link add wire type veth peer name far; ip link set far netns {path}
         ip addr add 198.51.100.1/24 dev wire; ip link set wire up
         nsenter --net={path} sh -ec 'ip addr add 198.51.100.2/24 dev far; ip link set far up'"
    ));
    let at = |text: &str| text.parse::<SocketAddr>().unwrap();
    let two_at = SocketAddr::new(two.container_ip().unwrap(), 80);
    let ways = [
        (
            "plain loopback of the node",
            &node,
            9090,
            &node,
            at("127.0.0.1:9090"),
        ),
        (
            "member to member, localhost",
            &in_one,
            80,
            &in_one,
            at("127.0.0.1:80"),
        ),
        ("pod to pod, by address", &in_two, 80, &in_one, two_at),
        (
            "node to published port, loopback",
            &in_one,
            80,
            &node,
            at("127.0.0.1:31001"),
        ),
        (
            "outside to the node itself",
            &node,
            9090,
            &outside,
            at("198.51.100.1:9090"),
        ),
        (
            "outside to published port",
            &in_one,
            80,
            &outside,
            at("198.51.100.1:31001"),
        ),
    ];
    let mut rates: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for _ in 0..3 {
        for (name, listen_in, port, from, to) in &ways {
            rates
                .entry(name)
                .or_default()
                .push(push(listen_in, *port, from, *to));
        }
    }
    println!();
    for (name, ..) in &ways {
        let rates = rates.get_mut(name).unwrap();
        rates.sort_by(f64::total_cmp);
        println!("{name:34} {:6.1} Gbit/s", rates[1]);
    }
    one.tear_down().await.unwrap();
    two.tear_down().await.unwrap();
    json!(rates)
}
