//! A machine of a test's own, and a witness who counts what is on it with other people's tools.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use super::own_node::on_own_node;
pub use super::own_node::sh;

/// An ordinary user's numbers; nobody has to know them.
pub const USER: u32 = 54_321;

/// Runs a test on a node of its own: its links, rules, mounts and `/run` are nobody else's. Root's privilege.
pub fn on_a_node(test: impl FnOnce(&Node) + Send + 'static) {
    on_own_node(move || test(&Node::new()));
}

/// The cgroup of this test, below which all else of it is.
struct Cgroups(Vec<PathBuf>);

impl Cgroups {
    fn new(name: &str) -> Self {
        let own = fs::read_to_string("/proc/thread-self/cgroup").unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mut made = Vec::new();
        for line in own.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next().unwrap(), fields.next().unwrap());
            let point = mounts.lines().find_map(|mount| {
                let (place, system) = mount.split_once(" - ")?;
                let point = place.split(' ').nth(4)?;
                let mut system = system.split(' ');
                let (kind, options) = (system.next()?, system.nth(1)?);
                let fits = match controllers {
                    "" => kind == "cgroup2",
                    names => {
                        kind == "cgroup"
                            && options
                                .split(',')
                                .any(|o| o == names || names.split(',').any(|n| n == o))
                    }
                };
                fits.then(|| PathBuf::from(point))
            });
            let Some(point) = point else { continue };
            let directory = point.join(path.trim_start_matches('/')).join(name);
            if fs::create_dir(&directory).is_ok() {
                // Nobody can be in a set of processors without any.
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    if let Ok(all) = fs::read(directory.with_file_name(file)) {
                        let _ = fs::write(directory.join(file), all);
                    }
                }
                made.push(directory);
            }
        }
        Cgroups(made)
    }

    /// What is below, by name.
    fn below(&self) -> BTreeSet<String> {
        self.0
            .iter()
            .flat_map(|top| paths_below(top))
            .filter(|path| path.is_dir())
            .map(|path| path.display().to_string())
            .collect()
    }

    fn join_script(&self) -> String {
        let files = self
            .0
            .iter()
            .map(|directory| format!("echo $$ > {}/cgroup.procs", directory.display()));
        files.collect::<Vec<_>>().join("; ")
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for directory in &self.0 {
            let mut inner: Vec<PathBuf> = paths_below(directory)
                .into_iter()
                .filter(|path| path.is_dir())
                .collect();
            inner.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
            for path in inner {
                let _ = fs::remove_dir(path);
            }
            let _ = fs::remove_dir(directory);
        }
    }
}

pub struct Node {
    /// `TMPDIR` of what is run here; of the ordinary user.
    pub tmp: tempfile::TempDir,
    pub home: PathBuf,
    cgroups: Cgroups,
    network: PathBuf,
}

impl Node {
    fn new() -> Self {
        let tmp = tempfile::Builder::new().prefix("podling-up-").tempdir().unwrap();
        fs::set_permissions(tmp.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["tmp", "home", "bin"] {
            let path = tmp.path().join(name);
            fs::create_dir(&path).unwrap();
            chown(&path, Some(USER), Some(USER)).unwrap();
        }
        // Where an ordinary user can reach them.
        for name in ["podling", "podling-executor"] {
            let built = Path::new(env!("CARGO_BIN_EXE_podling")).with_file_name(name);
            fs::copy(built, tmp.path().join("bin").join(name)).unwrap();
        }
        let unique = tmp.path().file_name().unwrap().to_str().unwrap().to_owned();
        Node {
            home: tmp.path().join("home"),
            cgroups: Cgroups::new(&unique),
            network: fs::read_link("/proc/thread-self/ns/net").unwrap(),
            tmp,
        }
    }

    /// `podling up` with these arguments, in the test's own cgroup and temporary directory.
    pub fn up(&self, ordinary: bool, arguments: &[&str]) -> Command {
        let tmp = self.tmp.path().join("tmp");
        let program = self.tmp.path().join("bin/podling");
        // Whoever runs the tests may have been started by nohup.
        let mut command = Command::new("env");
        let become_user = match ordinary {
            true => format!("setpriv --reuid {USER} --regid {USER} --clear-groups"),
            false => String::new(),
        };
        let script = format!(
            "{}; exec {become_user} {} up --listen 127.0.0.1:0 \"$@\"",
            self.cgroups.join_script(),
            program.display()
        );
        let shell = ["--default-signal=HUP", "sh", "-c", &script, "sh"];
        command.args(shell).args(arguments);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        command
            .env("TMPDIR", tmp)
            .env("HOME", &self.home)
            .current_dir(&self.home);
        command
    }

    /// A file in the user's home directory.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.home.join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Everything that could be left behind, in words. What a node remembers for its next pod is not: where the search
    /// for a free address goes on, and the lock of that memory.
    pub fn look(&self) -> BTreeSet<String> {
        let mut seen = BTreeSet::new();
        let mut all = |what: &str, lines: &str| {
            seen.extend(lines.lines().map(|line| format!("{what} {}", line.trim())));
        };
        all("link", &sh("ip -o link | sed 's/^[0-9]*: //; s/[@:].*//'"));
        all(
            "address",
            &sh("ip -o addr | sed 's/^[0-9]*: //; s/ *valid_lft.*//'"),
        );
        all(
            "route",
            &sh("ip route show table all; ip -6 route show table all"),
        );
        all("rule", &sh("nft list ruleset"));
        all(
            "namespace",
            &sh("ip netns list; ls /run/netns 2>/dev/null || true"),
        );
        all("mount", &sh("cut -d' ' -f5- /proc/thread-self/mountinfo"));
        all("ipc", &sh("ipcs -a | grep '^0x' || true"));
        all(
            "file",
            &sh(&format!(
                "find /run {} ! -type d ! -path '*/podling/network/lock' ! -path '*/podling/network/cursors/*'",
                self.tmp.path().join("tmp").display()
            )),
        );
        all(
            "directory",
            &sh(&format!("find {} -type d", self.tmp.path().join("tmp").display())),
        );
        seen.extend(self.cgroups.below().iter().map(|path| format!("cgroup {path}")));
        seen.extend(self.processes());
        seen
    }

    /// Whoever is on this node's network, or was started with something of this test's.
    fn processes(&self) -> BTreeSet<String> {
        let mark = self.tmp.path().to_str().unwrap();
        let mine = std::process::id().to_string();
        let mut seen = BTreeSet::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name == mine || !name.bytes().all(|byte| byte.is_ascii_digit()) {
                continue;
            }
            let text = |file: &str| {
                fs::read(entry.path().join(file)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            };
            let here =
                fs::read_link(entry.path().join("ns/net")).is_ok_and(|network| network == self.network);
            let marked = ["cmdline", "environ"]
                .iter()
                .any(|file| text(file).is_ok_and(|text| text.contains(mark)));
            if here || marked {
                seen.insert(format!(
                    "process {}",
                    text("cmdline").unwrap_or_default().replace('\0', " ")
                ));
            }
        }
        seen
    }

    /// Asserts that nothing has come to what was there, and nothing gone. The kernel takes some things away a moment
    /// after their last user is gone.
    #[track_caller]
    pub fn nothing_left(&self, before: &BTreeSet<String>, what: &str) {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let now = self.look();
            if now == *before {
                return;
            }
            if Instant::now() > deadline {
                let new: Vec<_> = now.difference(before).collect();
                let lost: Vec<_> = before.difference(&now).collect();
                panic!("{what}: left behind: {new:#?}\ngone: {lost:#?}");
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn paths_below(top: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![top.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                waiting.push(entry.path());
                found.push(entry.path());
            }
        }
    }
    found
}

/// Whose file this is.
pub fn owner(path: &Path) -> u32 {
    fs::metadata(path).unwrap().uid()
}
