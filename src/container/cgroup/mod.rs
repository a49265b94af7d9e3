//! Control groups: limits, accounting, and the certainty that what ended is gone.
//!
//! ```text
//! Layout (what this machine has) ──group──▶ GroupCgroup ──member──▶ MemberCgroup
//!                                           podling-<executor>      podling-<executor>/member-<name>
//! ```
//!
//! Version 1, version 2 and both side by side are one thing to callers: a cgroup is a handful of directories, one in
//! each hierarchy we use, and every operation goes to the one that does it best. Dropping a cgroup removes it.
//!
//! **How a member gets in.** On version 2 by `clone3` straight into [`MemberCgroup::clone_into`]. On version 1 the
//! new process itself writes `0` to each descriptor of a [`JoinPlan`], right after the clone, while it has one thread:
//! moving oneself through `tasks` is the one way in that does not take the kernel's global lock, whose
//! grace period costs 5 to 10 ms on a quiet machine (measured: 0.1 ms for six hierarchies, against 8 ms).
//!
//! **How it goes.** [`MemberCgroup::destroy`] kills until the kernel says the cgroup is empty: nothing that the
//! member forked can survive that, whatever it did.

mod devices;
mod kill;
mod layout;
mod limits;
mod oom;
mod stale;
mod stats;
mod tree;
mod watch;

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::OFlags;

pub use devices::{Access, DeviceKind, DeviceRule, default_devices};
pub(super) use layout::unescape;
pub use layout::{Controller, Mode, directory_name};
pub use limits::{Bound, Limits, Policy, Request, group_limits, oom_score_adj};
pub use oom::{OomWatch, oom_verdict};
pub use stale::{Removed, remove_stale};
pub use stats::{CpuStats, MemoryStats, Pressure, Stats};

use layout::{Hierarchies, Version};
use limits::Setting;
use tree::Node;

#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("cannot open {}", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("{} is not a cgroup file system", path.display())]
    NotCgroup { path: PathBuf },
    #[error("cannot create cgroup {}", path.display())]
    Create { path: PathBuf, source: io::Error },
    #[error(
        "cgroup {} exists already: another executor uses that name, or `podling node gc` has to clean up",
        path.display()
    )]
    Exists { path: PathBuf },
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {value:?} to {}", path.display())]
    Write {
        path: PathBuf,
        value: String,
        source: io::Error,
    },
    #[error("cannot remove cgroup {}", path.display())]
    Remove { path: PathBuf, source: io::Error },
    #[error("cgroup {} still holds processes after they were killed: {pids:?}", path.display())]
    Stuck { path: PathBuf, pids: Vec<i32> },
    #[error("cannot load the device filter of {}", path.display())]
    DeviceFilter { path: PathBuf, source: io::Error },
}

/// Where our cgroups go (W-05).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Placement {
    /// Below the cgroup we are in: the agent's limits hold for us, and it kills us with all members (W-02).
    #[default]
    BelowOwn,
    /// Below this path of every hierarchy. The agent then no longer kills members with the executor (W-06): they
    /// end by their parent-death signal, and the janitor removes the rest.
    Root(PathBuf),
    /// No cgroups: no limits, no accounting, and killing relies on pid namespaces.
    None,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    pub placement: Placement,
    pub policy: Policy,
}

/// Something a host lacks, and what follows from it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Missing {
    pub what: String,
    pub consequence: &'static str,
}

/// The cgroups of this machine, as far as we use them.
#[derive(Debug)]
pub struct Layout {
    mode: Mode,
    policy: Policy,
    /// Where groups are made, in each hierarchy we use; version 2 last.
    homes: Vec<Arc<Home>>,
    missing: Vec<Missing>,
}

#[derive(Debug)]
struct Home {
    version: Version,
    node: Node,
}

impl Layout {
    /// Looks at this machine and changes nothing. Never fails: what is missing is in [`Layout::missing`].
    pub fn detect(config: &Config) -> Layout {
        let mountinfo = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
        let membership = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let hierarchies = layout::hierarchies(&mountinfo, &membership);
        Layout::open(hierarchies, config, kernel_version())
    }

    fn open(hierarchies: Hierarchies, config: &Config, kernel: (u32, u32)) -> Layout {
        let mode = match config.placement {
            Placement::None => Mode::None,
            _ => hierarchies.mode,
        };
        let mut missing: Vec<Missing> = hierarchies
            .unusable
            .into_iter()
            .map(|what| Missing {
                what,
                consequence: "its controllers are not used",
            })
            .collect();
        let mut wanted = wanted(mode, kernel);
        if config.policy.io_weight.is_some() {
            wanted.push(Controller::Io);
        }
        let mut homes = Vec::new();
        for hierarchy in hierarchies.found {
            let used = match &hierarchy.version {
                Version::V2 => true,
                Version::V1(_) => wanted.iter().any(|controller| hierarchy.has(*controller)),
            };
            if !used || mode == Mode::None {
                continue;
            }
            if hierarchy.read_only {
                missing.push(Missing {
                    what: format!("{} is mounted read-only", hierarchy.mount.display()),
                    consequence: "its controllers are not used",
                });
                continue;
            }
            let place = match &config.placement {
                Placement::Root(root) => root.strip_prefix("/").unwrap_or(root).to_path_buf(),
                _ => hierarchy.own.clone(),
            };
            match open_home(&hierarchy.mount, &hierarchy.version, &place, &config.placement) {
                Ok(node) => homes.push(Arc::new(Home {
                    version: hierarchy.version,
                    node,
                })),
                Err(error) => missing.push(Missing {
                    what: format!("{error}: {}", cause(&error)),
                    consequence: "its controllers are not used",
                }),
            }
        }
        let mut layout = Layout {
            mode,
            policy: config.policy.clone(),
            homes,
            missing,
        };
        layout.note_missing_controllers();
        layout
    }

    fn note_missing_controllers(&mut self) {
        if self.homes.is_empty() {
            self.missing.push(Missing {
                what: "no cgroups".into(),
                consequence: "members have no limits and no accounting; killing relies on pid namespaces",
            });
            return;
        }
        let consequences = [
            (Controller::Cpu, "cpu shares and limits of members are not held"),
            (Controller::Memory, "memory limits of members are not held"),
            (
                Controller::Pids,
                "a fork bomb in one member can exhaust the node's process numbers",
            ),
        ];
        for (controller, consequence) in consequences {
            if !self.offers(controller) {
                self.missing.push(Missing {
                    what: format!("no {} controller", controller.v1_name()),
                    consequence,
                });
            }
        }
    }

    fn offers(&self, controller: Controller) -> bool {
        self.homes.iter().any(|home| match &home.version {
            Version::V1(controllers) => controllers.contains(&controller),
            Version::V2 => {
                let offered = home.node.read_opt("cgroup.controllers").unwrap_or_default();
                controller
                    .v2_name()
                    .is_some_and(|name| offered.split_ascii_whitespace().any(|other| other == name))
            }
        })
    }

    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// What this machine lacks; to be told once.
    pub fn missing(&self) -> &[Missing] {
        &self.missing
    }

    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Controllers that limits can be put on here.
    pub fn controllers(&self) -> Vec<Controller> {
        [
            Controller::Cpu,
            Controller::Memory,
            Controller::Pids,
            Controller::Io,
            Controller::Devices,
        ]
        .into_iter()
        .filter(|controller| self.offers(*controller))
        .collect()
    }

    /// The directories a group of this name may be made of, before it is made: for the register of the janitor.
    pub fn paths(&self, name: &str) -> Vec<PathBuf> {
        let directory = directory_name(GROUP_PREFIX, name);
        let mut paths = Vec::new();
        for home in &self.homes {
            paths.push(home.node.path().join(&directory));
            if home.version == Version::V2 {
                paths.push(home.node.path().join(executor_leaf(&directory)));
            }
        }
        paths
    }

    /// Makes the cgroup above all members of a group. `name` is the executor's, unique on this node.
    pub fn group(&self, name: &str, limits: &Limits) -> Result<GroupCgroup, CgroupError> {
        let directory = directory_name(GROUP_PREFIX, name);
        let mut notes = Vec::new();
        for home in self.homes.iter().filter(|home| home.version == Version::V2) {
            notes.extend(open_for_children(&home.node, &directory));
        }
        let cgroup = Cgroup::create(&self.homes, &directory)?;
        for branch in &cgroup.branches {
            // Old kernels sum up only where told to, before there are children.
            if branch.home.node.read_opt("memory.use_hierarchy").as_deref() == Some("0\n") {
                branch.home.node.write("memory.use_hierarchy", "1")?;
            }
        }
        cgroup.apply(limits)?;
        if let Some(v2) = cgroup.v2() {
            notes.extend(enable_controllers(v2));
        }
        let homes = cgroup.branches.iter().map(|branch| branch.home.clone()).collect();
        Ok(GroupCgroup {
            homes,
            limits: std::sync::Mutex::new(limits.clone()),
            notes,
            cgroup: Arc::new(cgroup),
        })
    }
}

const GROUP_PREFIX: &str = "podling";
const MEMBER_PREFIX: &str = "member";

/// Version 1 controllers worth a directory. Where version 2 is mounted beside them it counts cpu time, freezes and
/// kills, unless it is older than `cgroup.kill`.
fn wanted(mode: Mode, kernel: (u32, u32)) -> Vec<Controller> {
    let mut wanted = vec![
        Controller::Cpu,
        Controller::Memory,
        Controller::Devices,
        Controller::Pids,
    ];
    if mode == Mode::Legacy {
        wanted.push(Controller::Cpuacct);
    }
    if mode == Mode::Legacy || kernel < (5, 14) {
        wanted.push(Controller::Freezer);
    }
    wanted
}

fn open_home(
    mount: &Path,
    version: &Version,
    place: &Path,
    placement: &Placement,
) -> Result<Node, CgroupError> {
    let mut node = Node::open_mount(mount, version)?;
    if !matches!(placement, Placement::Root(_)) {
        return node.open_below(place);
    }
    // The operator's own place: made if it is not there, and left behind.
    for part in place.components() {
        let Some(name) = part.as_os_str().to_str() else {
            return node.open_below(place);
        };
        if *version == Version::V2 {
            enable_controllers(&node);
        }
        node = match node.create(name) {
            Ok(made) => {
                inherit_cpuset(&node, &made, version)?;
                made
            }
            Err(CgroupError::Exists { .. }) => node.open_below(Path::new(name))?,
            Err(error) => return Err(error),
        };
    }
    Ok(node)
}

/// Lets the children of `node` have what `node` has. Returns what could not be enabled.
fn enable_controllers(node: &Node) -> Vec<String> {
    let offered = node.read_opt("cgroup.controllers").unwrap_or_default();
    let enabled = node.read_opt("cgroup.subtree_control").unwrap_or_default();
    let has = |list: &str, name: &str| list.split_ascii_whitespace().any(|other| other == name);
    let mut notes = Vec::new();
    for name in ["cpu", "memory", "pids", "io"] {
        if has(&offered, name) && !has(&enabled, name) {
            // One by one: a refusal of one should not cost the others.
            if let Err(error) = node.write("cgroup.subtree_control", &format!("+{name}")) {
                notes.push(format!(
                    "the {name} controller cannot be used below {}: {}",
                    node.path().display(),
                    cause(&error)
                ));
            }
        }
    }
    notes
}

/// Where the executor itself goes on version 2. It cannot remove that: it is in it.
fn executor_leaf(group: &str) -> String {
    format!("{group}.executor")
}

/// On version 2 a cgroup with processes cannot have children with controllers: we, the executor, move into a leaf of
/// our own first (W-03).
fn open_for_children(home: &Node, group: &str) -> Vec<String> {
    // The root of the hierarchy is free of that rule, and the only one without this file.
    let is_root = !home.has("cgroup.events");
    let offered = home.read_opt("cgroup.controllers").unwrap_or_default();
    let enabled = home.read_opt("cgroup.subtree_control").unwrap_or_default();
    let lacks = |name: &&str| {
        offered.split_ascii_whitespace().any(|other| other == *name)
            && !enabled.split_ascii_whitespace().any(|other| other == *name)
    };
    if !["cpu", "memory", "pids", "io"].iter().any(lacks) {
        return Vec::new();
    }
    let we_are_in = home
        .procs_here()
        .is_ok_and(|pids| pids.contains(&i32::try_from(std::process::id()).unwrap_or(0)));
    if !is_root && we_are_in {
        let leaf = executor_leaf(group);
        let moved = match home.create(&leaf) {
            Ok(leaf) => leaf.write("cgroup.procs", "0"),
            Err(CgroupError::Exists { .. }) => home
                .open_below(Path::new(&leaf))
                .and_then(|leaf| leaf.write("cgroup.procs", "0")),
            Err(error) => Err(error),
        };
        if let Err(error) = moved {
            return vec![format!(
                "the executor cannot move to a leaf: {error}: {}",
                cause(&error)
            )];
        }
    }
    enable_controllers(home)
}

/// A new version 1 cpuset is empty and takes no process.
fn inherit_cpuset(parent: &Node, child: &Node, version: &Version) -> Result<(), CgroupError> {
    if !matches!(version, Version::V1(controllers) if controllers.contains(&Controller::Cpuset)) {
        return Ok(());
    }
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if child.read(file)?.trim().is_empty() {
            child.write(file, parent.read(file)?.trim())?;
        }
    }
    Ok(())
}

fn cause(error: &CgroupError) -> String {
    std::error::Error::source(error).map_or_else(String::new, ToString::to_string)
}

fn kernel_version() -> (u32, u32) {
    let release = rustix::system::uname();
    let release = release.release().to_string_lossy().into_owned();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// One cgroup: its directory in each hierarchy we use. Dropping it kills what is inside and removes it.
#[derive(Debug)]
struct Cgroup {
    name: String,
    branches: Vec<Branch>,
}

#[derive(Debug)]
struct Branch {
    parent: Arc<Home>,
    home: Arc<Home>,
}

impl Cgroup {
    fn create(parents: &[Arc<Home>], name: &str) -> Result<Cgroup, CgroupError> {
        let mut cgroup = Cgroup {
            name: name.into(),
            branches: Vec::with_capacity(parents.len()),
        };
        for parent in parents {
            let node = parent.node.create(name)?;
            let home = Arc::new(Home {
                version: parent.version.clone(),
                node,
            });
            // From here on dropping `cgroup` removes it.
            cgroup.branches.push(Branch {
                parent: parent.clone(),
                home: home.clone(),
            });
            inherit_cpuset(&parent.node, &home.node, &home.version)?;
        }
        Ok(cgroup)
    }

    fn v2(&self) -> Option<&Node> {
        let branch = self
            .branches
            .iter()
            .find(|branch| branch.home.version == Version::V2);
        branch.map(|branch| &branch.home.node)
    }

    fn v1(&self, controller: Controller) -> Option<&Node> {
        let branch = self
            .branches
            .iter()
            .find(|branch| matches!(&branch.home.version, Version::V1(list) if list.contains(&controller)));
        branch.map(|branch| &branch.home.node)
    }

    /// Where processes are counted and listed.
    fn tracker(&self) -> Option<&Node> {
        self.v2()
            .or_else(|| self.v1(Controller::Freezer))
            .or_else(|| self.v1(Controller::Pids))
            .or_else(|| self.branches.first().map(|branch| &branch.home.node))
    }

    fn path(&self) -> PathBuf {
        self.tracker()
            .map_or_else(PathBuf::new, |node| node.path().into())
    }

    fn apply(&self, limits: &Limits) -> Result<(), CgroupError> {
        self.write_settings(&limits.v1(), &limits.v2())
    }

    /// Each controller is either on a version 1 hierarchy or on version 2; where it is on none, that was told before.
    fn write_settings(&self, v1: &[Setting], v2: &[Setting]) -> Result<(), CgroupError> {
        for setting in v1 {
            if let Some(node) = self.v1(setting.controller) {
                write_setting(node, setting)?;
            }
        }
        let Some(node) = self.v2() else { return Ok(()) };
        if v2.iter().all(|setting| self.v1(setting.controller).is_some()) {
            return Ok(());
        }
        let enabled = node.read_opt("cgroup.controllers").unwrap_or_default();
        for setting in v2.iter().filter(|setting| self.v1(setting.controller).is_none()) {
            let name = setting.controller.v2_name().unwrap_or_default();
            if enabled.split_ascii_whitespace().any(|other| other == name) {
                write_setting(node, setting)?;
            }
        }
        Ok(())
    }

    /// Tries to remove all directories now. True if none is left.
    fn remove(&mut self) -> bool {
        let name = self.name.as_ref();
        self.branches
            .retain(|branch| !matches!(branch.parent.node.remove(name), Ok(true)));
        self.branches.is_empty()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if self.branches.is_empty() || self.remove() {
            return;
        }
        // Somebody is still inside: a launch given up half-way, or processes that are just leaving.
        let _ = self.kill();
        self.kill_half_joined();
        for branch in &self.branches {
            let _ = branch.parent.node.remove_patiently(self.name.as_ref());
        }
    }
}

fn write_setting(node: &Node, setting: &Setting) -> Result<(), CgroupError> {
    match node.write(setting.file, &setting.value) {
        Err(_) if !setting.required => Ok(()),
        other => other,
    }
}

/// The cgroup above all members of a group. Removed when it and all its members are dropped.
#[derive(Debug)]
pub struct GroupCgroup {
    homes: Vec<Arc<Home>>,
    limits: std::sync::Mutex<Limits>,
    notes: Vec<String>,
    cgroup: Arc<Cgroup>,
}

impl GroupCgroup {
    /// What could not be had for this group, in sentences; to be told once.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The directories that exist now because of this group, and what tells each from a later one of its name.
    pub fn identities(&self) -> Result<Vec<(PathBuf, u64)>, CgroupError> {
        let mut out = Vec::new();
        for branch in &self.cgroup.branches {
            out.push((branch.home.node.path().into(), branch.home.node.inode()?));
            let leaf = executor_leaf(&self.cgroup.name);
            if branch.home.version == Version::V2
                && let Ok(leaf) = branch.parent.node.open_below(Path::new(&leaf))
            {
                out.push((leaf.path().into(), leaf.inode()?));
            }
        }
        Ok(out)
    }

    /// Makes a member's cgroup within.
    pub fn member(&self, name: &str, limits: &Limits) -> Result<MemberCgroup, CgroupError> {
        let cgroup = Cgroup::create(&self.homes, &directory_name(MEMBER_PREFIX, name))?;
        cgroup.apply(limits)?;
        Ok(MemberCgroup {
            cgroup,
            group: self.cgroup.clone(),
        })
    }

    /// Makes room for more members: hard limits go up to those of `limits` where these are higher, never down (R-03).
    pub fn raise(&self, limits: &Limits) -> Result<(), CgroupError> {
        let mut now = match self.limits.lock() {
            Ok(now) => now,
            Err(poisoned) => poisoned.into_inner(),
        };
        self.cgroup
            .write_settings(&now.raised(limits, false), &now.raised(limits, true))?;
        *now = now.after(limits);
        Ok(())
    }

    pub fn stats(&self) -> Stats {
        stats::read(&self.cgroup)
    }

    /// Kills every process of every member, once.
    pub fn kill(&self) -> Result<(), CgroupError> {
        self.cgroup.kill()
    }
}

/// A member's own cgroup.
#[derive(Debug)]
pub struct MemberCgroup {
    cgroup: Cgroup,
    /// Keeps the parent until we are gone.
    group: Arc<Cgroup>,
}

/// Descriptors a process writes `0` to, one after the other, to become part of a member. Close them afterwards.
///
/// For the child right after `clone`, while it has a single thread; each write is async-signal-safe.
#[derive(Debug)]
pub struct JoinPlan {
    _owned: Vec<OwnedFd>,
    raw: Vec<RawFd>,
}

impl JoinPlan {
    pub fn as_raw_fds(&self) -> &[RawFd] {
        &self.raw
    }
}

impl MemberCgroup {
    /// For `clone3` with `CLONE_INTO_CGROUP`. `None` where there is no version 2 hierarchy.
    pub fn clone_into(&self) -> Option<BorrowedFd<'_>> {
        self.cgroup.v2().map(Node::fd)
    }

    /// The way into the hierarchies that `clone3` does not reach. `cloned_into`: the clone used
    /// [`MemberCgroup::clone_into`], so version 2 is done.
    pub fn join(&self, cloned_into: bool) -> Result<JoinPlan, CgroupError> {
        let mut owned = Vec::with_capacity(self.cgroup.branches.len());
        for branch in &self.cgroup.branches {
            let file = match branch.home.version {
                Version::V1(_) => "tasks",
                Version::V2 if cloned_into => continue,
                Version::V2 => "cgroup.procs",
            };
            owned.push(branch.home.node.open_file(file, OFlags::WRONLY)?);
        }
        Ok(JoinPlan {
            raw: owned.iter().map(AsRawFd::as_raw_fd).collect(),
            _owned: owned,
        })
    }

    /// Moves a whole process in, from outside. Slow on a quiet machine; members come in by clone and [`JoinPlan`].
    pub fn adopt(&self, pid: i32) -> Result<(), CgroupError> {
        // Where it is tracked and killed first.
        for branch in self.cgroup.branches.iter().rev() {
            branch.home.node.write("cgroup.procs", &pid.to_string())?;
        }
        Ok(())
    }

    /// Restricts devices to these. `false`: this machine has no way to.
    pub fn restrict_devices(&self, rules: &[DeviceRule]) -> Result<bool, CgroupError> {
        devices::restrict(&self.cgroup, rules)
    }

    /// Process ids within.
    pub fn procs(&self) -> Result<Vec<i32>, CgroupError> {
        self.cgroup.procs()
    }

    /// True while a process, dead but not yet reaped ones apart, is inside.
    pub fn populated(&self) -> Result<bool, CgroupError> {
        self.cgroup.populated()
    }

    /// Kills every process inside, once. New ones may appear where the kernel cannot do it in one step.
    pub fn kill(&self) -> Result<(), CgroupError> {
        self.cgroup.kill()
    }

    pub fn freeze(&self) -> Result<(), CgroupError> {
        self.cgroup.set_frozen(true)
    }

    pub fn thaw(&self) -> Result<(), CgroupError> {
        self.cgroup.set_frozen(false)
    }

    /// Resolves when no process is inside any more.
    pub async fn empty(&self) -> Result<(), CgroupError> {
        watch::empty(&self.cgroup).await
    }

    /// Kills until nothing is left inside. An error names what could not be killed.
    pub async fn destroy(&self) -> Result<(), CgroupError> {
        kill::destroy(&self.cgroup).await
    }

    pub fn stats(&self) -> Stats {
        stats::read(&self.cgroup)
    }

    /// Notices when the kernel kills for want of memory. `None` where there is no memory controller.
    pub fn oom_watch(&self) -> Result<Option<OomWatch>, CgroupError> {
        OomWatch::new(&self.cgroup)
    }

    /// Path of the cgroup in the hierarchy that tracks processes, for messages.
    pub fn path(&self) -> PathBuf {
        self.cgroup.path()
    }
}
