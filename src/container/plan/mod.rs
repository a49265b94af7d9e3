//! The launch plan: everything about a member, decided before anything is done.
//!
//! A [`Plan`] is a plain value. [`member`] makes it from a task, an image's configuration and the operator's
//! defaults, and refuses what cannot be; `super::Runtime` carries it out without deciding anything again.

pub mod bundle;
mod command;
mod environment;
mod error;
mod identity;
mod isolation;
mod member;
mod volumes;

use std::{os::fd::OwnedFd, path::PathBuf, sync::Arc};

use super::{
    cgroup::{MemberCgroup, View},
    mapped::MappedUsers,
    policy::Policy,
};
use crate::mesos::v1;

pub use error::PlanError;
pub use identity::{Capabilities, CapabilitySet, UserSpec};
pub use member::{Context, Defaults, member};

/// One member, completely described.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How sentences call it.
    pub member: String,
    pub command: Command,
    /// `NAME=value`, each name once, in the order given.
    pub environment: Vec<(String, String)>,
    /// As the member sees it; made if it is missing and there is an image.
    pub cwd: PathBuf,
    pub user: UserSpec,
    pub capabilities: Capabilities,
    pub no_new_privileges: bool,
    pub seccomp: Seccomp,
    pub rlimits: Vec<Rlimit>,
    pub namespaces: Namespaces,
    pub hostname: Option<String>,
    pub rootfs: Rootfs,
    /// The member's sandbox on the host, below the executor's; made if it is missing.
    pub sandbox: PathBuf,
    /// In strict order: a later one may lie below an earlier one.
    pub mounts: Vec<Mount>,
    /// Paths that read as nothing; only with a root file system of its own.
    pub masked_paths: Vec<PathBuf>,
    /// With the host's root, of what the kernel shows there.
    pub read_only_paths: Vec<PathBuf>,
    /// Nodes of `/dev`; only with a root file system of its own.
    pub devices: Vec<Device>,
    pub umask: u32,
    pub oom_score_adj: Option<i32>,
    /// Where it is accounted and limited; removed with the member.
    pub cgroup: Option<Arc<MemberCgroup>>,
    /// What it sees of cgroups below `/sys/fs/cgroup`. Without, a member with an image sees none, and one on the host's
    /// root what the host sees, by the names that the host has for them.
    pub cgroup_view: Option<Arc<View>>,
    pub terminal: Option<Terminal>,
    pub stop_signal: i32,
    pub stdout: Output,
    pub stderr: Output,
    /// Said on the member's stderr before it starts (E-02).
    pub notes: Vec<String>,
    /// What it is held against once more when names have been looked up.
    pub policy: Policy,
}

impl Plan {
    /// Who sees the host's cgroups has to know them by the host's names, so not every member has such a namespace.
    pub fn has_cgroup_namespace(&self) -> bool {
        !self.rootfs.is_host() || self.cgroup_view.is_some()
    }
}

/// What to exec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// A path, or a name to look up in the member's `PATH`.
    pub program: String,
    /// With argv\[0\].
    pub arguments: Vec<String>,
}

/// What a command to be run in a member comes to: program, arguments, and variables on top of the member's own.
pub fn in_member(command: &v1::CommandInfo) -> Result<(Command, Vec<(String, String)>), PlanError> {
    Ok((command::plan(Some(command), None)?, environment::on_top(command)?))
}

/// Which system calls are let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seccomp {
    Unconfined,
    /// The operator's default profile.
    Default,
    /// A profile of the operator's, by name.
    Profile(String),
}

/// A character device below `/dev`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    pub name: String,
    pub major: u32,
    pub minor: u32,
    pub mode: u32,
}

/// `None` is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rlimit {
    /// `RLIMIT_*`.
    pub resource: u32,
    pub soft: Option<u64>,
    pub hard: Option<u64>,
}

/// Which namespaces a member has for itself. Mount and UTS namespaces it always has.
#[derive(Debug, Clone)]
pub struct Namespaces {
    pub pid: PidNamespace,
    pub ipc: IpcNamespace,
    pub network: Network,
    /// Users of its own; without, they are the host's.
    pub users: Option<Arc<MappedUsers>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PidNamespace {
    Own,
    /// One for all members that name the same key (Z-01).
    Shared(String),
}

/// Z-02.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IpcNamespace {
    /// An own one, and an own `/dev/shm` of so many bytes (the kernel's default without).
    Private { shm_size: Option<u64> },
    /// One, with one `/dev/shm`, for all members that name the same key.
    Shared(String),
    /// The executor's, and its `/dev/shm`.
    Parent,
}

#[derive(Debug, Clone)]
pub enum Network {
    /// The executor's.
    Host,
    /// One that somebody has made, by descriptor.
    Join(Arc<OwnedFd>),
}

/// What the member sees as `/`.
#[derive(Debug, Clone)]
pub enum Rootfs {
    /// The host's, as Mesos does it for tasks without an image.
    Host,
    Directory {
        path: PathBuf,
        read_only: bool,
    },
    /// Somebody has mounted it for this member alone, detached (`fsmount`), as an image's layers are.
    Mounted {
        mount: Arc<OwnedFd>,
        /// For the member; what it needs for its own mounts is made first.
        read_only: bool,
    },
}

impl Rootfs {
    pub fn is_host(&self) -> bool {
        matches!(self, Rootfs::Host)
    }
}

#[derive(Debug, Clone)]
pub struct Mount {
    pub source: MountSource,
    pub target: Target,
    pub read_only: bool,
    /// The definition's name for it, in sentences.
    pub field: String,
}

impl Mount {
    /// The task asks for it; others are the node's own doing.
    pub fn is_of_task(&self) -> bool {
        self.field.starts_with("container.")
    }
}

#[derive(Debug, Clone)]
pub enum MountSource {
    /// Below the member's own sandbox; made if it is missing (V-01, V-04).
    OwnSandbox(PathBuf),
    /// Below the executor's sandbox; made if it is missing (V-02, V-04).
    ExecutorSandbox(PathBuf),
    /// A file or directory of the host that exists (V-07).
    Host(PathBuf),
    /// A file or directory that somebody holds: its name does not matter any more.
    Opened(Arc<OwnedFd>),
    /// Somebody has opened it: a detached mount (`open_tree`, `fsmount`) made for this member.
    Detached(Arc<OwnedFd>),
    /// The `/dev/shm` that belongs to a shared [`IpcNamespace`].
    SharedMemory,
    Tmpfs {
        size: Option<u64>,
        mode: u32,
    },
    /// A file with these bytes that exists nowhere else (V-12).
    Secret(Arc<[u8]>),
}

/// Where a mount appears. Both are relative and without `.` and `..`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Below the member's root.
    Root(PathBuf),
    /// Below the sandbox, wherever the member sees that.
    Sandbox(PathBuf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terminal {
    /// Rows and columns.
    pub size: Option<(u16, u16)>,
}

/// Where one of the member's output streams goes.
#[derive(Debug, Clone)]
pub enum Output {
    /// Appended to this file of the sandbox.
    File(PathBuf),
    Descriptor(Arc<OwnedFd>),
    Null,
}

/// What the executor keeps for itself in its sandbox, by name: nothing below is to be had as a volume. What is ours
/// alone, the members' own sandboxes (E-06), and the links to them by task (E-07).
pub const EXECUTORS_OWN: [&str; 3] = [".podling", "containers", "tasks"];

/// Where a member with an image finds its sandbox (E-04).
pub const SANDBOX_IN_IMAGE: &str = "/mnt/mesos/sandbox";
