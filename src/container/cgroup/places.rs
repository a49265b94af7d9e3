//! Where groups are made on this machine, and making that possible.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    CgroupError, GroupCgroup, MemberCgroup,
    branches::Cgroup,
    layout::{self, Controller, Hierarchies, Mode, Version, directory_name},
    limits::{Limits, Policy},
    tree::Node,
    view::{Sights, View},
};

const GROUP_PREFIX: &str = "podling";

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
    sights: Sights,
    missing: Vec<Missing>,
}

#[derive(Debug)]
pub(super) struct Home {
    pub(super) version: Version,
    pub(super) node: Node,
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
        let mut sights = Sights::default();
        let alone = hierarchies.found.len() == 1;
        for hierarchy in hierarchies.found {
            // What cannot be opened cannot be shown either, and is told below if it matters.
            if let Ok(node) = Node::open_mount(&hierarchy.mount, &hierarchy.version)
                .and_then(|mount| mount.open_below(&hierarchy.own))
            {
                let version = hierarchy.version.clone();
                sights.add(&hierarchy, alone, Arc::new(Home { version, node }));
            }
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
            sights,
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

    /// What this member is to see of cgroups; without one of its own, those that we are in. `None`: this machine has
    /// none.
    pub fn view(&self, member: Option<&MemberCgroup>) -> Option<View> {
        self.sights.of(member)
    }

    /// What members cannot be held to here, in words.
    pub fn unheld(&self) -> Vec<&'static str> {
        let limited = [
            (Controller::Cpu, "cpu"),
            (Controller::Memory, "memory"),
            (Controller::Pids, "processes"),
        ];
        let writable = self.homes.iter().all(|home| home.node.is_writable());
        limited
            .into_iter()
            .filter(|(controller, _)| !writable || !self.offers(*controller))
            .map(|(_, name)| name)
            .collect()
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
        // Old kernels sum up only where told to, before there are children.
        if let Some(memory) = cgroup.v1(Controller::Memory)
            && memory.read_opt("memory.use_hierarchy").as_deref() == Some("0\n")
        {
            memory.write("memory.use_hierarchy", "1")?;
        }
        cgroup.apply(limits)?;
        if let Some(v2) = cgroup.v2() {
            notes.extend(enable_controllers(v2));
        }
        Ok(GroupCgroup::new(cgroup, limits.clone(), notes))
    }
}

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
pub(super) fn executor_leaf(group: &str) -> String {
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
pub(super) fn inherit_cpuset(parent: &Node, child: &Node, version: &Version) -> Result<(), CgroupError> {
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
