use std::collections::BTreeMap;

use super::*;
use crate::network::config::{Config, Networks};

fn networks(subnet: &str) -> Networks {
    let toml = format!("default_network = ''\n[networks.n]\nsubnets = ['{subnet}']");
    toml::from_str::<Config>(&toml).unwrap().check().unwrap()
}

fn got<T>(claim: Claim<T>) -> T {
    match claim {
        Claim::Got(got) => got,
        Claim::Stale(lease) => panic!("in the way: {}", lease.pod()),
    }
}

fn stale<T>(claim: Claim<T>) -> Lease {
    match claim {
        Claim::Got(_) => panic!("got it"),
        Claim::Stale(lease) => lease,
    }
}

fn address(store: &Store, lease: &mut Lease, networks: &Networks) -> Result<Claim<IpAddr>, LeaseError> {
    let network = networks.get("n").unwrap();
    store
        .lock()
        .unwrap()
        .take_address(lease, network, &network.stacks[0])
}

fn open(store: &Store, pod: &str) -> Lease {
    got(store.lock().unwrap().claim(pod, None).unwrap())
}

fn take_port(locked: &Locked<'_>, lease: &mut Lease, port: u16) -> Result<Claim<()>, LeaseError> {
    let to = ("10.0.0.2".parse().unwrap(), 80);
    locked.take_port(lease, Protocol::Tcp, port, Some(to))
}

fn files(dir: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for part in ["leases", "addresses/n", "ports", "cni"] {
        let Ok(entries) = fs::read_dir(dir.join(part)) else {
            continue;
        };
        all.extend(entries.map(|entry| format!("{part}/{}", entry.unwrap().file_name().display())));
    }
    all
}

#[test]
fn addresses_go_round_and_are_given_once() {
    let dir = tempfile::tempdir().unwrap();
    let (store, networks) = (Store::new(dir.path()), networks("10.0.0.0/29"));
    let mut lease = open(&store, "a");
    // .0 is the base, .1 the gateway, .7 the broadcast address.
    for last in 2..=6 {
        let given = got(address(&store, &mut lease, &networks).unwrap());
        assert_eq!(given.to_string(), format!("10.0.0.{last}"));
    }
    let full = address(&store, &mut lease, &networks).unwrap_err().to_string();
    assert!(
        full.starts_with("network n has no free address left in 10.0.0.0/29"),
        "{full}"
    );
    store.lock().unwrap().release(lease, false).unwrap();
    assert_eq!(files(dir.path()), [""; 0]);
    // After .6 comes .2 again.
    let mut lease = open(&store, "b");
    assert_eq!(
        got(address(&store, &mut lease, &networks).unwrap()).to_string(),
        "10.0.0.2"
    );
}

#[test]
fn what_the_living_hold_is_theirs() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::new(dir.path());
    let (mut one, mut two) = (open(&store, "one"), open(&store, "two"));
    let locked = store.lock().unwrap();
    got(take_port(&locked, &mut one, 80).unwrap());
    let taken = take_port(&locked, &mut two, 80).unwrap_err().to_string();
    assert_eq!(taken, "port 80/tcp of this node is already published by pod one");
    let twice = locked.claim("one", None).unwrap_err().to_string();
    assert!(
        twice.starts_with("the network of pod one is already set up by process "),
        "{twice}"
    );
    assert_eq!(locked.alive().unwrap(), 2);
    assert!(locked.stale().unwrap().is_empty());
}

#[test]
fn n_3_what_the_dead_held_is_found_by_whoever_needs_it() {
    let dir = tempfile::tempdir().unwrap();
    let (store, networks) = (Store::new(dir.path()), networks("10.0.0.0/29"));
    let mut dead = open(&store, "dead");
    for _ in 0..5 {
        got(address(&store, &mut dead, &networks).unwrap());
    }
    got(take_port(&store.lock().unwrap(), &mut dead, 80).unwrap());
    drop(dead); // and with it the lock, as when its process ends

    let mut lease = open(&store, "living");
    let by_address = stale(address(&store, &mut lease, &networks).unwrap());
    assert_eq!(by_address.pod(), "dead");
    drop(by_address);
    let by_port = stale(take_port(&store.lock().unwrap(), &mut lease, 80).unwrap());
    drop(by_port);
    let by_name = stale(store.lock().unwrap().claim("dead", None).unwrap());
    store.lock().unwrap().release(by_name, false).unwrap();
    assert_eq!(files(dir.path()), ["leases/living"]);
    got(take_port(&store.lock().unwrap(), &mut lease, 80).unwrap());
}

#[test]
fn a_journal_cut_anywhere_is_read_as_far_as_it_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (store, networks) = (Store::new(dir.path()), networks("10.0.0.0/24"));
    let mut lease = open(&store, "pod");
    got(address(&store, &mut lease, &networks).unwrap());
    lease.note(Entry::Link { name: "plv0".into() }).unwrap();
    let (path, entries) = (lease.path.clone(), lease.entries.clone());
    drop(lease);
    let whole = fs::read(&path).unwrap();
    for cut in 0..=whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        let stale = store.lock().unwrap().stale().unwrap().pop_front().unwrap();
        assert_eq!(stale.pod(), "pod");
        assert!(entries.starts_with(stale.entries()));
        let lines = whole[..cut].iter().filter(|byte| **byte == b'\n').count();
        assert_eq!(stale.entries().len(), lines);
    }
    for garbage in [&b"\xff\xfe\n"[..], b"{}\n[1]\n", b"{\"holds\":\"crown\"}\n"] {
        fs::write(&path, garbage).unwrap();
        assert_eq!(store.lock().unwrap().stale().unwrap().len(), 1);
    }
}

#[test]
fn a_lease_takes_only_what_is_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::new(dir.path());
    let (mut one, mut two) = (open(&store, "one"), open(&store, "two"));
    let locked = store.lock().unwrap();
    got(take_port(&locked, &mut one, 80).unwrap());
    // It has noted the port, then found it taken.
    two.note(Entry::Port {
        protocol: Protocol::Tcp,
        host_port: 80,
        to: Some(("10.0.0.3".parse().unwrap(), 80)),
    })
    .unwrap();
    assert_eq!(locked.share(&two), Share::default());
    locked.release(two, false).unwrap();
    assert_eq!(files(dir.path()), ["leases/one", "ports/tcp-80"]);
}

#[test]
fn names_of_pods_are_safe_as_files() {
    assert_eq!(plain_name("4b1f-a.b_c"), "4b1f-a.b_c");
    for name in ["", ".", "..", "a/b", "../x", "a\0b", &"x".repeat(129)] {
        let file = plain_name(name);
        assert!(file.starts_with("pod-") && !file.contains(['/', '\0']), "{file}");
    }
}

/// Many at once, some of which die with what they hold: nothing is ever given to two.
#[test]
fn w_1_a_thousand_random_port_plans_without_a_collision() {
    use std::sync::{Arc, Mutex};
    let dir = tempfile::tempdir().unwrap();
    let store = Store::new(dir.path());
    let networks = Arc::new(networks("10.0.0.0/25"));
    // What somebody holds, by our own independent account.
    let held: Arc<Mutex<BTreeMap<String, u64>>> = Arc::default();
    let workers = (0..4u64).map(|worker| {
        let (store, networks, held) = (store.clone(), networks.clone(), held.clone());
        std::thread::spawn(move || {
            let mut chance = 0x9e37_79b9_7f4a_7c15 ^ (worker << 32 | 1);
            let mut random = move |below: u64| {
                chance ^= chance << 13;
                chance ^= chance >> 7;
                chance ^= chance << 17;
                chance % below
            };
            let mut mine: VecDeque<(Lease, Vec<String>)> = VecDeque::new();
            for plan in 0..250u64 {
                let id = worker << 32 | plan;
                let locked = store.lock().unwrap();
                let mut lease = got(locked.claim(&format!("{worker}-{plan}"), None).unwrap());
                let mut names = Vec::new();
                for _ in 0..=random(3) {
                    let asked = 30_000 + random(60) as u16;
                    match take_port(&locked, &mut lease, asked) {
                        Ok(Claim::Got(())) => names.push(format!("port {asked}")),
                        Ok(Claim::Stale(stale)) => locked.release(stale, false).unwrap(),
                        Err(LeaseError::PortTaken { .. }) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
                let network = networks.get("n").unwrap();
                match locked
                    .take_address(&mut lease, network, &network.stacks[0])
                    .unwrap()
                {
                    Claim::Got(address) => names.push(format!("address {address}")),
                    Claim::Stale(stale) => locked.release(stale, false).unwrap(),
                }
                names.sort();
                names.dedup();
                let mut account = held.lock().unwrap();
                for name in &names {
                    assert_eq!(account.insert(name.clone(), id), None, "{name} was given twice");
                }
                mine.push_back((lease, names));
                // The last plan lets go of everything, the others keep a few alive.
                let keep = if plan < 249 { 8 } else { 0 };
                while mine.len() > keep {
                    let (lease, names) = mine.pop_front().unwrap();
                    names
                        .iter()
                        .for_each(|name| assert!(account.remove(name).is_some()));
                    if random(4) == 0 {
                        drop(lease); // dies with what it holds
                    } else {
                        locked.release(lease, false).unwrap();
                    }
                }
            }
        })
    });
    workers
        .collect::<Vec<_>>()
        .into_iter()
        .for_each(|worker| worker.join().unwrap());
    // All are dead now; taking them back leaves nothing.
    let locked = store.lock().unwrap();
    for lease in locked.stale().unwrap() {
        locked.release(lease, false).unwrap();
    }
    assert_eq!(files(dir.path()), [""; 0]);
}
