//! What is left when all went well, when some went wrong, and when the executor is killed (L3, N1, N3).
//!
//! The executor is this test binary run again, so that counters are its own. `PODLING_LAUNCHES` and `PODLING_KILLS`
//! make it more.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use podling::container::{
    Gated, Running, Runtime, Setup,
    cgroup::{Config, Layout, Limits},
    plan::{self, Context, Defaults, Plan},
};

use crate::support::{make_root, overlay, shell};

const ROLE: &str = "PODLING_TEST_ROLE";
const PLACE: &str = "PODLING_TEST_PLACE";
/// Launches that are not counted: at least one of every kind.
const WARM_UP: usize = 70;

/// How often, unless the environment says otherwise.
fn times(variable: &str, default: usize) -> usize {
    env::var(variable)
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(default)
}

/// An executor of its own, in a directory whose name is nobody else's.
struct Executor {
    directory: tempfile::TempDir,
    process: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Executor {
    fn start(role: &str) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("podling-crash-")
            .tempdir()
            .unwrap();
        make_root(&directory.path().join("layer"));
        let mut process = Command::new(env::current_exe().unwrap())
            .args(["--exact", "crash::executor", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(PLACE, directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(process.stdout.take().unwrap());
        Self {
            directory,
            process,
            said,
        }
    }

    fn name(&self) -> String {
        self.directory
            .path()
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    }

    /// Waits until it says this.
    fn until(&mut self, word: &str) {
        let mut line = String::new();
        while !line.trim_end().ends_with(word) {
            line.clear();
            assert_ne!(
                self.said.read_line(&mut line).unwrap(),
                0,
                "the executor ended before it said {word:?}"
            );
        }
    }

    fn go_on(&mut self) {
        self.process.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    /// Counters by a script that knows nothing of our code.
    fn count(&self) -> Counters {
        Counters::read(&self.process.id().to_string(), &self.name())
    }
}

/// What the script counts, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Counters(BTreeMap<String, u64>);

impl Counters {
    fn read(pid: &str, name: &str) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/members/leaks.sh");
        let output = Command::new("sh").arg(script).args([pid, name]).output().unwrap();
        let counted = String::from_utf8(output.stdout).unwrap();
        let mut counters: BTreeMap<String, u64> = counted
            .lines()
            .map(|line| line.rsplit_once(' ').unwrap())
            .map(|(name, count)| (name.to_owned(), count.parse().unwrap()))
            .collect();
        assert_eq!(counters.len(), if pid == "-" { 6 } else { 10 }, "{counted}");
        // Other tests make these meanwhile; they only count on a machine of one's own.
        if env::var_os("PODLING_ALONE").is_none() {
            counters.retain(|name, _| !["network namespaces", "namespaces", "ipc"].contains(&name.as_str()));
        }
        Counters(counters)
    }

    /// Kilobytes of memory that are nobody else's; taken out, for it is never the same twice.
    fn memory(&mut self) -> u64 {
        self.0.remove("memory").unwrap()
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        for cgroup in cgroups(&self.name()) {
            let _ = fs::remove_dir(cgroup);
        }
    }
}

/// Cgroups of that name, the deepest first.
fn cgroups(name: &str) -> Vec<PathBuf> {
    let found = Command::new("find")
        .args(["/sys/fs/cgroup", "-depth", "-type", "d", "-path"])
        .arg(format!("*{name}*"))
        .output();
    String::from_utf8(found.unwrap().stdout)
        .unwrap()
        .lines()
        .map(PathBuf::from)
        .collect()
}

/// The executor's side: not a test by itself.
#[tokio::test]
async fn executor() {
    let (Ok(role), Ok(place)) = (env::var(ROLE), env::var(PLACE)) else {
        return;
    };
    let place = PathBuf::from(place);
    let name = place.file_name().unwrap().to_str().unwrap().to_owned();
    let setup = Setup {
        name: name.clone(),
        sandbox: place.clone(),
    };
    let runtime = Runtime::open(setup).unwrap();
    let group = Layout::detect(&Config::default())
        .group(&name, &Limits::default())
        .unwrap();
    let mut number = 0;
    let mut plan = |line: &str| -> Plan {
        number += 1;
        let at = |name: &str| place.join(format!("{name}{number}"));
        let context = Context {
            sandbox: at("m"),
            rootfs: overlay(&[place.join("layer")], &at("upper")),
            cgroup: Some(Arc::new(
                group.member(&format!("m{number}"), &Limits::default()).unwrap(),
            )),
            ..Context::default()
        };
        let mut plan = plan::member(&shell(line), None, &context, &Defaults::default()).unwrap();
        plan.environment.push(("MARK".into(), name.clone()));
        plan
    };
    match role.as_str() {
        "launches" => {
            let launches = times("PODLING_LAUNCHES", 100);
            // Whatever is made once and kept is made by the first of every kind.
            for round in 0..WARM_UP + launches {
                if round == WARM_UP {
                    settled(&name).await;
                    say_and_wait("ready");
                }
                let mut plan =
                    plan(["true", "exit 3", "sleep 1000", "sleep 1000 & sleep 1000 & true"][round % 4]);
                match round % 10 {
                    0 => plan.command.program = "/no/such".into(),
                    1 => plan.rlimits.push(plan::Rlimit {
                        resource: libc::RLIMIT_NOFILE,
                        soft: None,
                        hard: None,
                    }),
                    _ => {}
                }
                let Ok(gated) = runtime.prepare(plan).await else {
                    continue;
                };
                match round % 7 {
                    0 => gated.discard().await,
                    1 => drop(gated),
                    2 => drop(gated.release().await.unwrap()),
                    _ => {
                        let mut running = gated.release().await.unwrap();
                        if round % 4 == 2 {
                            running.kill();
                        }
                        running.wait().await;
                    }
                }
            }
            settled(&name).await;
            say_and_wait("done");
        }
        "killed" => {
            println!("ready");
            loop {
                let mut gated: Vec<Gated> = Vec::new();
                for line in [
                    "sleep 1000",
                    "trap '' TERM; sleep 1000 & setsid sleep 1000 & wait",
                    "exec sleep 1000",
                ] {
                    gated.push(runtime.prepare(plan(line)).await.unwrap());
                }
                let mut running: Vec<Running> = Vec::new();
                for member in gated {
                    running.push(member.release().await.unwrap());
                }
            }
        }
        role => panic!("{role}"),
    }
}

/// What was dropped takes a moment to die.
async fn settled(name: &str) {
    let children = || {
        let thread = rustix::thread::gettid().as_raw_nonzero();
        fs::read_to_string(format!("/proc/self/task/{thread}/children"))
    };
    while !children().unwrap().is_empty() || runtime_is_busy(name) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Members' cgroups that are still to be removed.
fn runtime_is_busy(name: &str) -> bool {
    cgroups(name)
        .iter()
        .any(|path| path.file_name().unwrap().to_str().unwrap().contains("member"))
}

fn say_and_wait(word: &str) {
    println!("{word}");
    std::io::stdout().flush().unwrap();
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

#[test]
fn n1_counters_are_the_same_after_many_launches() {
    let mut executor = Executor::start("launches");
    executor.until("ready");
    let mut before = executor.count();
    executor.go_on();
    executor.until("done");
    let mut after = executor.count();
    let (begun, ended) = (before.memory(), after.memory());
    assert_eq!(before, after);
    // The allocator's own holes apart, however many launches there were (N2).
    assert!(ended < begun + 512, "{begun} kB before, {ended} kB after");
    println!("counters before and after: {after:?}; memory {begun} and {ended} kB");
    executor.go_on();
}

#[test]
fn l3_n1_nothing_outlives_an_executor_that_is_killed() {
    // Of none of these names there is anything; but what all have in common is counted as well.
    let before = Counters::read("-", "podling-crash-none");
    for round in 0..times("PODLING_KILLS", 10) {
        let mut executor = Executor::start("killed");
        executor.until("ready");
        // Any instant will do; this one is not waited for, but aimed at.
        std::thread::sleep(Duration::from_micros((round as u64 * 7919) % 60_000));
        executor.process.kill().unwrap();
        executor.process.wait().unwrap();
        let name = executor.name();
        // The kernel takes namespaces apart after their inits have ended, and somebody has to reap those.
        becomes(Vec::<String>::new(), || marked(&name), round);
        // The cgroups are there to be removed, by the next start or the janitor, and empty.
        for cgroup in cgroups(&name) {
            fs::remove_dir(&cgroup).unwrap_or_else(|error| panic!("{}: {error}", cgroup.display()));
        }
        becomes(before.clone(), || Counters::read("-", &name), round);
    }
}

/// It is so in a moment.
fn becomes<T: PartialEq + std::fmt::Debug>(expected: T, is: impl Fn() -> T, round: usize) {
    let begin = Instant::now();
    loop {
        let is = is();
        if expected == is {
            return;
        }
        assert!(
            begin.elapsed() < Duration::from_secs(20),
            "round {round}: {is:?} is not {expected:?}"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Processes that have the name in their environment, or walk a script of that executor.
fn marked(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let path = entry.path();
        let environment = fs::read(path.join("environ")).unwrap_or_default();
        if environment
            .windows(name.len())
            .any(|window| window == name.as_bytes())
        {
            found.push(path.display().to_string());
        }
    }
    for cgroup in cgroups(name) {
        let processes = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
        found.extend(processes.lines().map(str::to_owned));
    }
    found
}
