//! What a task may ask for at most on this node.
//!
//! One pure function, [`Policy::verdict`], over one thing that a launch asks for. It is asked twice: of what a task
//! says, before anything is made ([`judge`]), and of what only shows when names have been looked up, users and links
//! among them.

use std::{
    fmt,
    path::{Component, Path, PathBuf},
};

use super::plan::{
    CapabilitySet, Context, IpcNamespace, MountSource, Network, PidNamespace, Plan, PlanError, UserSpec,
};
use crate::mesos::v1;

/// What the node is for, in a word; each item has a setting of its own that wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Preset {
    /// Everything that Mesos allows.
    Mesos,
    /// What ordinary pods ask for, and no more capabilities than Docker gives.
    #[default]
    Standard,
    /// Pods of people whom the node's owner does not know.
    Strict,
}

impl Preset {
    pub const ALL: [Self; 3] = [Self::Mesos, Self::Standard, Self::Strict];

    pub fn name(self) -> &'static str {
        match self {
            Preset::Mesos => "mesos",
            Preset::Standard => "standard",
            Preset::Strict => "strict",
        }
    }
}

/// The system call filters that a task may choose; it never needs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filters {
    /// None at all, too.
    Any,
    /// Those in the operator's directory.
    Profiles,
    /// There is nothing to choose.
    Default,
}

/// How much of a place of the host a volume may give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    None,
    Read,
    Write,
}

/// Places of the host and what volumes of them may give. The deepest rule above a place counts for it; what a volume
/// shows besides, counts too.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostVolumes(Vec<(PathBuf, Access)>);

impl HostVolumes {
    pub fn new(rules: impl IntoIterator<Item = (PathBuf, Access)>) -> Self {
        Self(rules.into_iter().collect())
    }

    pub fn rules(&self) -> &[(PathBuf, Access)] {
        &self.0
    }

    fn access(&self, place: &Path) -> Access {
        let above = self.0.iter().filter(|(path, _)| place.starts_with(path));
        let deepest = above.max_by_key(|(path, _)| path.components().count());
        let below = self.0.iter().filter(|(path, _)| path.starts_with(place));
        below
            .map(|(_, access)| *access)
            .chain([deepest.map_or(Access::None, |(_, access)| *access)])
            .min()
            .unwrap_or(Access::None)
    }
}

/// A node's policy: the preset, and what the operator says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    pub preset: Preset,
    pub capabilities: Option<CapabilitySet>,
    pub filters: Option<Filters>,
    pub host_volumes: Option<HostVolumes>,
    pub host_network: Option<bool>,
    pub host_ipc: Option<bool>,
    pub shared_pid: Option<bool>,
    pub root: Option<bool>,
}

/// One thing that a launch asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish<'a> {
    Capabilities(CapabilitySet),
    Unconfined,
    Profile(&'a str),
    HostVolume {
        path: &'a Path,
        read_only: bool,
    },
    HostNetwork,
    HostIpc,
    SharedPid,
    /// User 0 of the host.
    Root,
}

/// Why not: in words, and which setting would have to say otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    what: String,
    preset: Preset,
    pub setting: &'static str,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: this node's policy `{}` does not allow it; `{}`",
            self.what,
            self.preset.name(),
            self.setting
        )
    }
}

/// Docker's set without what makes nodes and without what makes packets of any kind.
const STRICT_CAPABILITIES: CapabilitySet = CapabilitySet::DOCKER.without(CapabilitySet::of(&[
    13, // NET_RAW
    27, // MKNOD
]));

impl Policy {
    pub fn of(preset: Preset) -> Self {
        Self {
            preset,
            ..Self::default()
        }
    }

    pub fn capabilities(&self) -> CapabilitySet {
        self.capabilities.unwrap_or(match self.preset {
            Preset::Mesos => CapabilitySet(u64::MAX),
            Preset::Standard => CapabilitySet::DOCKER,
            Preset::Strict => STRICT_CAPABILITIES,
        })
    }

    pub fn filters(&self) -> Filters {
        self.filters.unwrap_or(match self.preset {
            Preset::Mesos => Filters::Any,
            Preset::Standard => Filters::Profiles,
            Preset::Strict => Filters::Default,
        })
    }

    pub fn host_volumes(&self) -> HostVolumes {
        if let Some(own) = &self.host_volumes {
            return own.clone();
        }
        let rules: &[(&str, Access)] = match self.preset {
            Preset::Mesos => &[("/", Access::Write)],
            // Through what the kernel shows, root of a member would have the kernel do things outside of it.
            Preset::Standard => &[
                ("/", Access::Write),
                ("/proc", Access::Read),
                ("/sys", Access::Read),
                ("/dev", Access::Read),
                ("/dev/shm", Access::Write),
            ],
            Preset::Strict => &[],
        };
        HostVolumes::new(rules.iter().map(|(path, access)| (PathBuf::from(path), *access)))
    }

    pub fn host_network(&self) -> bool {
        self.host_network.unwrap_or(self.preset != Preset::Strict)
    }

    pub fn host_ipc(&self) -> bool {
        self.host_ipc.unwrap_or(self.preset != Preset::Strict)
    }

    pub fn shared_pid(&self) -> bool {
        self.shared_pid.unwrap_or(self.preset != Preset::Strict)
    }

    pub fn root(&self) -> bool {
        self.root.unwrap_or(self.preset != Preset::Strict)
    }

    /// Whether a launch may have this.
    pub fn verdict(&self, wish: &Wish<'_>) -> Result<(), Refusal> {
        let (allowed, what, setting) = match wish {
            Wish::Capabilities(set) => {
                let more = set.without(self.capabilities());
                (
                    more == CapabilitySet::EMPTY,
                    more.to_string(),
                    "allowed_capabilities",
                )
            }
            Wish::Unconfined => (
                self.filters() == Filters::Any,
                "no filter of system calls".to_owned(),
                "allowed_seccomp",
            ),
            Wish::Profile(name) => (
                self.filters() != Filters::Default,
                format!("seccomp profile {name:?}"),
                "allowed_seccomp",
            ),
            Wish::HostVolume { path, read_only } => {
                let (asked, how) = match read_only {
                    true => (Access::Read, "to read"),
                    false => (Access::Write, "to write"),
                };
                // What leads up may lead anywhere.
                let plain = !path.components().any(|part| part == Component::ParentDir);
                (
                    plain && self.host_volumes().access(path) >= asked,
                    format!("{} of the host, {how}", path.display()),
                    "allowed_host_volumes",
                )
            }
            Wish::HostNetwork => (
                self.host_network(),
                "the host's network".to_owned(),
                "allow_host_network",
            ),
            Wish::HostIpc => (
                self.host_ipc(),
                "the host's IPC (ipc_mode PRIVATE has its own)".to_owned(),
                "allow_host_ipc",
            ),
            Wish::SharedPid => (
                self.shared_pid(),
                "processes shared with other members".to_owned(),
                "allow_shared_pid",
            ),
            Wish::Root => (
                self.root(),
                "user 0 without a user namespace".to_owned(),
                "allow_root",
            ),
        };
        match allowed {
            true => Ok(()),
            false => Err(Refusal {
                what,
                preset: self.preset,
                setting,
            }),
        }
    }
}

/// Whether a task may be launched as it has been planned, as far as it can be known by then.
pub(super) fn judge(
    task: &v1::TaskInfo,
    plan: &Plan,
    context: &Context,
    policy: &Policy,
) -> Result<(), PlanError> {
    for (field, wish) in wishes(task, plan, context) {
        policy.verdict(&wish).map_err(|refusal| PlanError {
            field,
            problem: refusal.to_string(),
        })?;
    }
    Ok(())
}

fn wishes<'a>(task: &'a v1::TaskInfo, plan: &'a Plan, context: &Context) -> Vec<(String, Wish<'a>)> {
    let mut wishes = vec![(
        "container.linux_info".to_owned(),
        Wish::Capabilities(plan.capabilities.bounding),
    )];
    let seccomp = task.container.as_ref().and_then(|container| {
        let linux = container.linux_info.as_ref()?;
        linux.seccomp.as_ref()
    });
    // Of the task's own choice only: an operator who filters nothing by default has said so.
    if let Some(seccomp) = seccomp {
        let wish = match seccomp.profile_name.as_deref() {
            Some(name) => Wish::Profile(name),
            None => Wish::Unconfined,
        };
        wishes.push(("container.linux_info.seccomp".to_owned(), wish));
    }
    for mount in plan.mounts.iter().filter(|mount| mount.is_of_task()) {
        if let MountSource::Host(path) = &mount.source {
            let read_only = mount.read_only;
            wishes.push((mount.field.clone(), Wish::HostVolume { path, read_only }));
        }
    }
    if let Network::Host = plan.namespaces.network
        && !context.network_of_agent
    {
        wishes.push(("network".to_owned(), Wish::HostNetwork));
    }
    if plan.namespaces.ipc == IpcNamespace::Parent {
        wishes.push(("container.linux_info.ipc_mode".to_owned(), Wish::HostIpc));
    }
    if let PidNamespace::Shared(_) = plan.namespaces.pid {
        let field = "container.linux_info.share_pid_namespace".to_owned();
        wishes.push((field, Wish::SharedPid));
    }
    if plan.namespaces.users.is_none() && is_root(&plan.user) {
        wishes.push(("command.user".to_owned(), Wish::Root));
    }
    wishes
}

/// Root by what everybody calls it; other names are looked up first.
fn is_root(user: &UserSpec) -> bool {
    let UserSpec::Named { text, .. } = user else {
        return false;
    };
    let name = text.split(':').next().unwrap_or_default();
    name == "root" || name.parse() == Ok(0u32)
}

#[cfg(test)]
mod tests;
