//! A story of pods posted, scaled, changed, killed and deleted, while the scheduler is killed with -9 at random instants
//! and started again. Between the chapters, and at the end, the master's own books, the processes of the machine and
//! what the API says have to agree.
//!
//! `PODLING_STORY_KILLS` makes it longer, `PODLING_STORY_SEED` repeats one.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use podling::loopback::{
    agent::CommandLine,
    master::{Access, Cluster, Options},
};
use serde_json::{Value, json};

use crate::process::{Broken, Scheduler, call, processes, runs};

const PATIENCE: Duration = Duration::from_secs(60);
/// The kill comes within this time after the request is on its way.
const LATEST_KILL: u64 = 60;
/// So often everything is left to settle, and looked at.
const CHAPTER: usize = 4;

/// SplitMix64: the same seed tells the same story.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// A pod as it should be.
#[derive(Debug, Clone, PartialEq)]
struct Wanted {
    instances: u64,
    /// Part of the command; another one replaces every instance.
    edition: u64,
}

#[derive(Debug)]
enum Act {
    Put(String, Wanted),
    Delete(String),
    /// One instance is killed, and comes back.
    Kill(String),
}

struct Story {
    chance: Chance,
    cluster: Cluster,
    work_dir: PathBuf,
    store: PathBuf,
    scheduler: Scheduler,
    wanted: BTreeMap<String, Wanted>,
    /// Versions that were acknowledged, by pod.
    versions: BTreeMap<String, BTreeSet<String>>,
    marker: String,
}

impl Story {
    fn begin(seed: u64, directory: &Path) -> Self {
        let work_dir = directory.join("work");
        std::fs::create_dir(&work_dir).unwrap();
        let cluster = Cluster::start(Options {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            agents: 2,
            resources: "cpus:8;mem:8192;disk:8192;ports:[31000-31100]".to_owned(),
            default_executor: CommandLine::typed(env!("CARGO_BIN_EXE_podling-executor")),
            work_dir: work_dir.clone(),
            executor_environment: Vec::new(),
            access: Access::default(),
        })
        .unwrap();
        let store = directory.join("state.db");
        let scheduler = Scheduler::start(cluster.address(), &store);
        Story {
            chance: Chance(seed),
            cluster,
            work_dir,
            store,
            scheduler,
            wanted: BTreeMap::new(),
            versions: BTreeMap::new(),
            marker: format!("{}{seed}", std::process::id()),
        }
    }

    /// The last argument of a pod's members, which no other process of the machine has.
    fn seconds(&self, id: &str) -> String {
        let number = id.rsplit('-').next().unwrap();
        format!("9{number}{}", self.marker)
    }

    fn definition(&self, id: &str, wanted: &Wanted) -> Value {
        let member = |name: &str| {
            let command = format!("exec sleep {}.{}", self.seconds(id), wanted.edition);
            json!({"name": name, "resources": {"cpus": 0.01, "mem": 16}, "exec": {"command": {"shell": command}}})
        };
        json!({"id": id, "containers": [member("a"), member("b")],
            "scaling": {"kind": "fixed", "instances": wanted.instances},
            "scheduling": {"backoff": {"backoff": 0.1, "backoffFactor": 1.0, "maxLaunchDelay": 1}}})
    }

    fn next_act(&mut self) -> Act {
        let id = format!("/story/pod-{}", self.chance.below(3));
        let Some(known) = self.wanted.get(&id).cloned() else {
            let (instances, edition) = (self.chance.below(4), self.chance.below(2));
            return Act::Put(id, Wanted { instances, edition });
        };
        match self.chance.below(10) {
            0..4 => {
                let instances = self.chance.below(4);
                Act::Put(id, Wanted { instances, ..known })
            }
            4..7 => {
                let edition = known.edition + 1;
                Act::Put(id, Wanted { edition, ..known })
            }
            7..8 => Act::Kill(id),
            _ => Act::Delete(id),
        }
    }

    /// Asks until it is answered. What was on its way when the scheduler died may have been taken on or not.
    fn carry_out(&mut self, act: &Act, address: &str) -> Result<(), Broken> {
        match act {
            Act::Put(id, wanted) => {
                let body = self.definition(id, wanted);
                let path = format!("/v2/pods{id}?force=true");
                let (status, body) = call(address, "PUT", &path, Some(&body))?;
                assert_eq!(status, 200, "{body}");
                let version = body["version"].as_str().unwrap().to_owned();
                self.versions.entry(id.clone()).or_default().insert(version);
                self.wanted.insert(id.clone(), wanted.clone());
            }
            Act::Delete(id) => {
                let (status, body) = call(address, "DELETE", &format!("/v2/pods{id}?force=true"), None)?;
                assert!(status == 202 || status == 404, "{status}: {body}");
                self.wanted.remove(id);
            }
            Act::Kill(id) => {
                let (_, status) = call(address, "GET", &format!("/v2/pods{id}::status"), None)?;
                let instances = status["instances"].as_array().cloned().unwrap_or_default();
                if let Some(first) = instances.first() {
                    let instance = first["id"].as_str().unwrap();
                    let path = format!("/v2/pods{id}::instances/{instance}");
                    let (status, body) = call(address, "DELETE", &path, None)?;
                    assert!(status == 200 || status == 404, "{status}: {body}");
                }
            }
        }
        Ok(())
    }

    /// One act, and the death of the scheduler somewhere in what follows from it.
    fn kill_during(&mut self, act: &Act) {
        let delay = Duration::from_micros(self.chance.below(LATEST_KILL * 1000));
        let address = self.scheduler.address();
        let asked = match act {
            Act::Put(id, wanted) => Some((
                "PUT",
                format!("/v2/pods{id}?force=true"),
                Some(self.definition(id, wanted)),
            )),
            Act::Delete(id) => Some(("DELETE", format!("/v2/pods{id}?force=true"), None)),
            Act::Kill(_) => None,
        };
        let asking = thread::spawn(move || {
            if let Some((method, path, body)) = asked {
                let _ = call(&address, method, &path, body.as_ref());
            }
        });
        // Not to wait for something, but to come at any moment.
        thread::sleep(delay);
        self.scheduler.kill();
        asking.join().unwrap();
        self.scheduler = Scheduler::start(self.cluster.address(), &self.store);
        let address = self.scheduler.address();
        self.carry_out(act, &address).unwrap();
    }

    /// Nothing is ever doubled, not even on the way: never more members than an upgrade may have.
    fn check_bounds(&self) {
        for (id, wanted) in &self.wanted {
            let most = 2 * (2 * 3 + 1).max(wanted.instances as usize);
            let live = processes(&format!("sleep\0{}.", self.seconds(id)));
            assert!(live <= most, "{live} members of {id}");
        }
    }

    /// Waits until the API calls everything stable, and compares.
    fn settle(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.differences() {
                differences if differences.is_empty() => return,
                differences => assert!(Instant::now() < deadline, "{differences:#?}"),
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Where the API, the master and the machine differ from what is wanted, and from each other.
    fn differences(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut expect = |what: String, is: &dyn PartialEqDebug, wanted: &dyn PartialEqDebug| {
            if is.show() != wanted.show() {
                found.push(format!("{what}: {}, not {}", is.show(), wanted.show()));
            }
        };
        let statuses = self.scheduler.get("/v2/pods/::status");
        let statuses = statuses.as_array().unwrap();
        let ids: BTreeSet<&str> = statuses.iter().map(|pod| pod["id"].as_str().unwrap()).collect();
        let wanted_ids: BTreeSet<&str> = self.wanted.keys().map(String::as_str).collect();
        expect("pods".to_owned(), &ids, &wanted_ids);
        let mut told = BTreeSet::new();
        for pod in statuses {
            let id = pod["id"].as_str().unwrap();
            let Some(wanted) = self.wanted.get(id) else {
                continue;
            };
            let instances = pod["instances"].as_array().unwrap();
            expect(format!("status of {id}"), &pod["status"], &json!("STABLE"));
            expect(
                format!("instances of {id}"),
                &(instances.len() as u64),
                &wanted.instances,
            );
            let containers = instances
                .iter()
                .flat_map(|instance| instance["containers"].as_array().unwrap());
            for container in containers {
                expect(
                    format!("a container of {id}"),
                    &container["status"],
                    &json!("TASK_RUNNING"),
                );
                told.insert(container["containerId"].as_str().unwrap_or_default().to_owned());
            }
            let marker = format!("sleep\0{}.", self.seconds(id));
            let members = 2 * wanted.instances as usize;
            expect(format!("members of {id}"), &processes(&marker), &members);
            let edition = format!("{marker}{}", wanted.edition);
            expect(
                format!("members of {id} in edition {}", wanted.edition),
                &processes(&edition),
                &members,
            );
        }
        for seconds in (0..3).map(|number| format!("/story/pod-{number}")) {
            if !self.wanted.contains_key(&seconds) {
                let left = processes(&format!("sleep\0{}.", self.seconds(&seconds)));
                expect(format!("members of {seconds}, which is gone"), &left, &0);
            }
        }
        let live: BTreeSet<String> = self
            .cluster
            .live_tasks()
            .into_iter()
            .map(|task| task.id)
            .collect();
        expect("tasks the master knows".to_owned(), &live, &told);
        let deployments = self.scheduler.get("/v2/deployments");
        expect(
            "deployments".to_owned(),
            &deployments.as_array().unwrap().len(),
            &0,
        );
        found
    }

    /// Every version that was acknowledged can be read back.
    fn check_history(&self) {
        for (id, versions) in self
            .versions
            .iter()
            .filter(|(id, _)| self.wanted.contains_key(*id))
        {
            let kept = self.scheduler.get(&format!("/v2/pods{id}::versions"));
            let kept: BTreeSet<&str> = kept
                .as_array()
                .unwrap()
                .iter()
                .map(|v| v.as_str().unwrap())
                .collect();
            if kept.len() < 50 {
                let lost: Vec<&String> = versions
                    .iter()
                    .filter(|version| !kept.contains(version.as_str()))
                    .collect();
                assert!(lost.is_empty(), "versions of {id} that were forgotten: {lost:?}");
            }
        }
    }
}

/// To compare values of different types by what they show.
trait PartialEqDebug {
    fn show(&self) -> String;
}

impl<T: std::fmt::Debug> PartialEqDebug for T {
    fn show(&self) -> String {
        format!("{self:?}")
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn r8_killed_at_any_instant_it_forgets_nothing_and_doubles_nothing() {
    let kills = number("PODLING_STORY_KILLS").unwrap_or(8) as usize;
    let seed = number("PODLING_STORY_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("PODLING_STORY_KILLS={kills} PODLING_STORY_SEED={seed}");
    let directory = tempfile::tempdir().unwrap();
    let mut story = Story::begin(seed, directory.path());
    for kill in 1..=kills {
        let act = story.next_act();
        println!("{kill}: {act:?}");
        story.kill_during(&act);
        story.check_bounds();
        if kill % CHAPTER == 0 {
            story.settle();
            story.check_history();
        }
    }
    story.settle();
    story.check_history();

    // At peace, a restart changes nothing at all.
    let before = (runs(&story.work_dir), story.cluster.live_tasks());
    story.scheduler.kill();
    story.scheduler = Scheduler::start(story.cluster.address(), &story.store);
    story.settle();
    assert_eq!((runs(&story.work_dir), story.cluster.live_tasks()), before);

    for id in story.wanted.keys().cloned().collect::<Vec<_>>() {
        let address = story.scheduler.address();
        story.carry_out(&Act::Delete(id), &address).unwrap();
    }
    story.settle();
    assert_eq!(story.cluster.live_tasks(), []);
}
