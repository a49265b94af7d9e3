//! A thousand random port plans of several executors at once, and not one collision (W1).

use std::{
    collections::VecDeque,
    env,
    fs::{self, OpenOptions},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use nix::sys::signal::{Signal, raise};
use podling::network::{
    Config,
    lease::{Claim, Lease, LeaseError, Locked, Store},
    request::Protocol,
};

const SEED: &str = "PODLING_TEST_PLANS";
const PROCESSES: u64 = 4;
const PLANS: u64 = 250;

/// Takes one for the plan, after whoever died with it is out of the way.
fn take<T>(
    locked: &Locked<'_>,
    mut question: impl FnMut() -> Result<Claim<T>, LeaseError>,
) -> Result<T, LeaseError> {
    loop {
        match question()? {
            Claim::Got(got) => return Ok(got),
            Claim::Stale(stale) => locked.release(stale, false).unwrap(),
        }
    }
}

/// An account that knows nothing of ours: a file that only one can make.
fn account(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join("account").join(name);
    let made = OpenOptions::new().write(true).create_new(true).open(&path);
    made.unwrap_or_else(|error| panic!("{name} was given twice: {error}"));
    path
}

/// A child of the test: plans until it is killed with what it holds at the end.
#[test]
#[ignore = "started by w_1_a_thousand_random_port_plans_of_several_processes"]
fn a_planner() {
    let Ok(words) = env::var(SEED) else { return };
    let (seed, dir) = words.split_once(' ').unwrap();
    let (seed, dir): (u64, &Path) = (seed.parse().unwrap(), Path::new(dir));
    let mut chance = 0x9e37_79b9_7f4a_7c15 ^ (seed << 32 | 1);
    let mut random = move |below: u64| {
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        chance % below
    };
    let toml = "default_network = 'n'\n[networks.n]\nsubnets = ['10.0.0.0/25', 'fd00::/120']";
    let networks = toml::from_str::<Config>(toml).unwrap().check().unwrap();
    let network = networks.get("n").unwrap();
    let store = Store::new(&dir.join("state"));
    let mut mine: VecDeque<(Lease, Vec<PathBuf>)> = VecDeque::new();
    for plan in 0..PLANS {
        let locked = store.lock().unwrap();
        let mut lease = take(&locked, || locked.claim(&format!("{seed}-{plan}"), None)).unwrap();
        let mut held: Vec<PathBuf> = Vec::new();
        for _ in 0..=random(4) {
            let protocol = if random(2) == 0 {
                Protocol::Tcp
            } else {
                Protocol::Udp
            };
            let port = 31_000 + random(80) as u16;
            let name = format!("{protocol}-{port}");
            let to = Some(("10.0.0.2".parse().unwrap(), 80));
            match take(&locked, || locked.take_port(&mut lease, protocol, port, to)) {
                // Asked for twice by the same pod: it has it already.
                Ok(()) if held.iter().any(|path| path.ends_with(&name)) => {}
                Ok(()) => held.push(account(dir, &name)),
                Err(LeaseError::PortTaken { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
        for stack in &network.stacks {
            let address = take(&locked, || locked.take_address(&mut lease, network, stack)).unwrap();
            held.push(account(dir, &address.to_string()));
        }
        mine.push_back((lease, held));
        while mine.len() > 8 {
            let (lease, held) = mine.pop_front().unwrap();
            held.iter().for_each(|path| fs::remove_file(path).unwrap());
            // A quarter dies with what it holds.
            if random(4) > 0 {
                locked.release(lease, false).unwrap();
            }
        }
    }
    let _locked = store.lock().unwrap();
    for (_, held) in &mine {
        held.iter().for_each(|path| fs::remove_file(path).unwrap());
    }
    raise(Signal::SIGKILL).unwrap();
}

#[test]
fn w_1_a_thousand_random_port_plans_of_several_processes() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("account")).unwrap();
    let children: Vec<Child> = (0..PROCESSES)
        .map(|seed| {
            Command::new(env::current_exe().unwrap())
                .args(["--exact", "plans::a_planner", "--ignored", "--quiet"])
                .env(SEED, format!("{seed} {}", dir.path().display()))
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in children {
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(Signal::SIGKILL as i32), "{status}");
    }
    assert_eq!(fs::read_dir(dir.path().join("account")).unwrap().count(), 0);
    // All are dead now. Taking them back leaves the pool full: what was noted is gone.
    let store = Store::new(&dir.path().join("state"));
    let locked = store.lock().unwrap();
    assert_eq!(locked.alive().unwrap(), 0);
    // The last eight of whoever ended last, at least.
    let stale = locked.stale().unwrap();
    assert!(stale.len() >= 8, "{}", stale.len());
    for lease in stale {
        locked.release(lease, false).unwrap();
    }
    for part in ["leases", "ports", "addresses/n"] {
        let left = fs::read_dir(dir.path().join("state").join(part)).unwrap().count();
        assert_eq!(left, 0, "{part}");
    }
}
