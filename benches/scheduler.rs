//! The scheduler's core against a cluster in memory: how fast it places, what an update costs, what it takes, and what
//! a restart costs, at growing sizes. `cargo bench --bench scheduler [INSTANCES]…`
//!
//! The cluster keeps books of what each agent has left, offers it, and answers each launch with STARTING and RUNNING.
//! Everything is carried out at once; only the time inside the core counts.

// A benchmark that cannot go on may end at once.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "common/figures.rs"]
#[allow(dead_code)]
mod figures;

use std::{
    collections::{BTreeMap, VecDeque},
    env,
    sync::Arc,
    time::{Duration, Instant},
};

use podling::{
    mesos::v1::{self, TaskState},
    pod::{self, Pod, PodId, Profile, Version, task_group},
    scheduler::core::{Change, Command, Core, Effect, Event, Saved, Settings, Stamp, StoredPod},
};
use serde_json::json;

use self::figures::{Figures, Memory};

const AGENTS: usize = 1_000;
/// A run that takes longer than this tells how far it came.
const PATIENCE: Duration = Duration::from_secs(120);
const EPOCH: i64 = 1_700_000_000_000;

fn main() {
    let asked: Vec<usize> = env::args().filter_map(|word| word.parse().ok()).collect();
    let sizes = if asked.is_empty() {
        vec![1_000, 10_000, 100_000]
    } else {
        asked
    };
    let mut figures = Figures::default();
    for size in &sizes {
        run(&mut figures, (*size / 10).max(1), 10);
    }
    run(&mut figures, 1, 10_000);
    figures.save("scheduler.json", 1);
}

/// So many pods of so many instances: from the POST of each to the last RUNNING, then a storm of updates, a restart.
fn run(figures: &mut Figures, pods: usize, each: usize) {
    let name = format!("{pods} pods of {each}");
    let mut cluster = Cluster::new(pods * each);
    cluster.step(Event::Registered(v1::FrameworkId { value: "F".into() }));
    for n in 0..pods {
        cluster.command(Command::Create(definition(n, each)));
    }
    cluster.spent = Spent::default();
    let begin = Instant::now();
    while cluster.running < pods * each && begin.elapsed() < PATIENCE {
        cluster.round();
    }
    let all = begin.elapsed();
    let spent = std::mem::take(&mut cluster.spent);
    let placed = cluster.running;
    if placed == 0 {
        println!("{name}: nothing placed in {all:.1?}");
        return;
    }
    let rate = placed as f64 / (spent.offers + spent.updates).as_secs_f64();
    let update = micros_each(spent.updates, spent.updates_taken);
    println!(
        "{name}: {placed} placed at {rate:.0}/s, {:.1} µs an update, {:.1} s in all",
        update,
        all.as_secs_f64()
    );

    // Every task is told healthy, then not: the updates of a day.
    let tasks: Vec<(String, usize)> = cluster
        .tasks
        .iter()
        .map(|(id, agent)| (id.clone(), *agent))
        .collect();
    let begin = Instant::now();
    for (id, agent) in tasks.iter().cycle().take(20_000) {
        if begin.elapsed() > PATIENCE / 4 {
            break;
        }
        cluster.flip = !cluster.flip;
        let status = status(id, *agent, TaskState::TaskRunning, Some(cluster.flip));
        cluster.step(Event::Update(Box::new(status)));
    }
    let storm = std::mem::take(&mut cluster.spent);
    let steady = micros_each(storm.updates, storm.updates_taken);
    let memory = Memory::of(std::process::id());
    println!("{name}: {steady:.1} µs a steady update; {memory} with the cluster's books");

    let saved = cluster.store.saved();
    let begin = Instant::now();
    let mut core = Core::restore(settings(), saved, Duration::ZERO);
    let effects = core.step(
        cluster.stamp(),
        Event::Registered(v1::FrameworkId { value: "F".into() }),
    );
    let restart = begin.elapsed();
    println!(
        "{name}: a restart takes {:.2} s, {} effects",
        restart.as_secs_f64(),
        effects.len()
    );
    figures.keep(
        &name,
        json!({
            "placed": placed,
            "placements_per_second": rate,
            "update_us": update,
            "steady_update_us": steady,
            "restart_s": restart.as_secs_f64(),
            "rss_kb": memory.rss,
        }),
    );
}

fn micros_each(all: Duration, count: usize) -> f64 {
    all.as_secs_f64() * 1e6 / count.max(1) as f64
}

/// Time inside the core.
#[derive(Default)]
struct Spent {
    offers: Duration,
    updates: Duration,
    updates_taken: usize,
}

struct Cluster {
    core: Core,
    store: Store,
    /// What each agent has left, in instances.
    free: Vec<usize>,
    offers: BTreeMap<String, usize>,
    wants_offers: bool,
    updates: VecDeque<v1::TaskStatus>,
    tasks: BTreeMap<String, usize>,
    running: usize,
    now: Duration,
    steps: u128,
    flip: bool,
    spent: Spent,
}

impl Cluster {
    fn new(instances: usize) -> Self {
        Cluster {
            core: Core::restore(settings(), Saved::default(), Duration::ZERO),
            store: Store::default(),
            free: vec![instances.div_ceil(AGENTS) + 10; AGENTS],
            offers: BTreeMap::new(),
            wants_offers: true,
            updates: VecDeque::new(),
            tasks: BTreeMap::new(),
            running: 0,
            now: Duration::ZERO,
            steps: 0,
            flip: false,
            spent: Spent::default(),
        }
    }

    fn stamp(&mut self) -> Stamp {
        self.steps += 1;
        self.now += Duration::from_millis(1);
        Stamp {
            now: self.now,
            wall: Version::from_millis(EPOCH + self.now.as_millis() as i64).unwrap(),
            entropy: self.steps.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
        }
    }

    fn step(&mut self, event: Event) {
        let is_update = matches!(event, Event::Update(_));
        let stamp = self.stamp();
        let begin = Instant::now();
        let effects = self.core.step(stamp, event);
        let took = begin.elapsed();
        if is_update {
            self.spent.updates += took;
            self.spent.updates_taken += 1;
        } else {
            self.spent.offers += took;
        }
        self.carry_out(effects);
    }

    fn command(&mut self, command: Command) {
        let stamp = self.stamp();
        let (answer, effects) = self.core.command(stamp, command);
        answer.unwrap();
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Persist(changes) => self.store.apply(changes),
                Effect::Accept { offer, operations } => {
                    let agent = self.offers.remove(&offer.value).unwrap();
                    for operation in operations {
                        self.launch(agent, operation);
                    }
                }
                Effect::Decline { offers, .. } => {
                    for offer in offers {
                        self.offers.remove(&offer.value);
                    }
                }
                Effect::Revive => self.wants_offers = true,
                Effect::Suppress => self.wants_offers = false,
                _ => {}
            }
        }
    }

    fn launch(&mut self, agent: usize, operation: v1::offer::Operation) {
        self.free[agent] -= 1;
        for task in operation.launch_group.unwrap().task_group.tasks {
            let id = task.task_id.value;
            for state in [TaskState::TaskStarting, TaskState::TaskRunning] {
                self.updates.push_back(status(&id, agent, state, None));
            }
            self.tasks.insert(id, agent);
        }
    }

    /// Fifty agents offer what they have, as a busy master's batches do; every update is delivered.
    fn round(&mut self) {
        if self.wants_offers {
            let busy: Vec<usize> = self.offers.values().copied().collect();
            let idle = (0..AGENTS).filter(|agent| self.free[*agent] > 0 && !busy.contains(agent));
            let chosen: Vec<usize> = idle.take(50).collect();
            let offers: Vec<v1::Offer> = chosen.into_iter().map(|agent| self.offer(agent)).collect();
            if !offers.is_empty() {
                self.step(Event::Offers(offers));
            }
        }
        while let Some(update) = self.updates.pop_front() {
            if update.state() == TaskState::TaskRunning {
                self.running += 1;
            }
            self.step(Event::Update(Box::new(update)));
        }
        self.now += Duration::from_millis(10);
        if self.core.deadline().is_some_and(|deadline| deadline <= self.now) {
            self.step(Event::Tick);
        }
    }

    fn offer(&mut self, agent: usize) -> v1::Offer {
        let resource = |name: &str, value: f64| v1::Resource {
            name: name.to_owned(),
            r#type: v1::value::Type::Scalar as i32,
            scalar: Some(v1::value::Scalar { value }),
            ..Default::default()
        };
        let id = format!("O{}", self.steps);
        self.steps += 1;
        self.offers.insert(id.clone(), agent);
        let free = self.free[agent] as f64;
        v1::Offer {
            id: v1::OfferId { value: id },
            agent_id: agent_id(agent),
            hostname: format!("agent{agent}"),
            resources: vec![
                resource("cpus", free),
                // Each takes 32 for itself and 32 for its executor: this is what runs out.
                resource("mem", 64.0 * free),
                resource("disk", 100.0 * free),
            ],
            ..Default::default()
        }
    }
}

fn agent_id(agent: usize) -> v1::AgentId {
    v1::AgentId {
        value: format!("A{agent}"),
    }
}

fn status(id: &str, agent: usize, state: TaskState, healthy: Option<bool>) -> v1::TaskStatus {
    v1::TaskStatus {
        task_id: v1::TaskId { value: id.to_owned() },
        state: state as i32,
        agent_id: Some(agent_id(agent)),
        uuid: Some(vec![0; 16]),
        healthy,
        ..Default::default()
    }
}

fn settings() -> Settings {
    Settings::new(task_group::Options {
        delivery: task_group::Delivery::AgentDefault,
        variable_prefix: String::new(),
        bridge_name: "mesos-bridge".to_owned(),
    })
}

fn definition(n: usize, instances: usize) -> Pod {
    let definition = json!({
        "id": format!("/group{}/pod{n}", n % 100),
        "containers": [{
            "name": "main",
            "exec": {"command": {"shell": "sleep 1000"}},
            "resources": {"cpus": 0.5, "mem": 32},
        }],
        "scaling": {"kind": "fixed", "instances": instances},
    });
    pod::read(&definition, &Profile::default()).unwrap().pod
}

/// What a store would hold.
#[derive(Default)]
struct Store {
    pods: BTreeMap<PodId, StoredPod>,
    instances: BTreeMap<String, podling::scheduler::core::Instance>,
    versions: BTreeMap<(PodId, Version), Arc<Pod>>,
}

impl Store {
    fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Pod(pod) => drop(self.pods.insert(pod.pod.id.clone(), pod)),
                Change::ForgetPod(id) => drop(self.pods.remove(&id)),
                Change::Instance(instance) => drop(self.instances.insert(instance.id.to_string(), instance)),
                Change::ForgetInstance(id) => drop(self.instances.remove(&id.to_string())),
                Change::Version(pod) => {
                    let version = pod.version.unwrap_or(Version::EPOCH);
                    self.versions.insert((pod.id.clone(), version), pod);
                }
                _ => {}
            }
        }
    }

    fn saved(&self) -> Saved {
        Saved {
            framework: Some("F".to_owned()),
            pods: self.pods.values().cloned().collect(),
            instances: self.instances.values().cloned().collect(),
            editions: Vec::new(),
            ..Saved::default()
        }
    }
}
