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

mod branches;
mod devices;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod kill;
mod launching;
mod layout;
mod limits;
mod oom;
mod places;
mod stale;
mod stats;
mod tree;
mod view;
mod watch;

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rustix::fs::OFlags;

pub use devices::{Access, DeviceKind, DeviceRule, default_devices};
pub(super) use layout::unescape;
pub use layout::{Controller, Mode, directory_name};
pub use limits::{Bound, Limits, Policy, Request, group_limits, oom_score_adj};
pub use oom::{OomWatch, oom_verdict};
pub use places::{Config, Layout, Missing, Placement};
pub use stale::{Removed, remove_stale};
pub use stats::{CpuStats, MemoryStats, Pressure, Stats};
pub use view::{At, CGROUPS, View};

use branches::Cgroup;
use launching::{Group, Launching};
use layout::Version;
use places::{Home, executor_leaf};
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

const MEMBER_PREFIX: &str = "member";

/// The cgroup above all members of a group. Removed when it and all its members are dropped.
#[derive(Debug)]
pub struct GroupCgroup {
    homes: Vec<Arc<Home>>,
    notes: Vec<String>,
    group: Arc<Group>,
}

impl GroupCgroup {
    fn new(cgroup: Cgroup, limits: Limits, notes: Vec<String>) -> GroupCgroup {
        let homes = cgroup.branches.iter().map(|branch| branch.home.clone());
        GroupCgroup {
            homes: homes.collect(),
            notes,
            group: Arc::new(Group::new(cgroup, limits)),
        }
    }

    /// What could not be had for this group, in sentences; to be told once.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The directories that exist now because of this group, and what tells each from a later one of its name.
    pub fn identities(&self) -> Result<Vec<(PathBuf, u64)>, CgroupError> {
        let mut out = Vec::new();
        for branch in &self.group.cgroup.branches {
            out.push((branch.home.node.path().into(), branch.home.node.inode()?));
            let leaf = executor_leaf(&self.group.cgroup.name);
            if branch.home.version == Version::V2
                && let Ok(leaf) = branch.parent.node.open_below(Path::new(&leaf))
            {
                out.push((leaf.path().into(), leaf.inode()?));
            }
        }
        Ok(out)
    }

    /// Makes a member's cgroup within. Its cpu is not limited before [`MemberCgroup::hold_cpu`].
    pub fn member(&self, name: &str, limits: &Limits) -> Result<MemberCgroup, CgroupError> {
        let cgroup = Arc::new(Cgroup::create(&self.homes, &directory_name(MEMBER_PREFIX, name))?);
        let (_, rest) = launching::halves(&self.group.show(&cgroup, limits));
        cgroup.apply(&rest)?;
        Ok(MemberCgroup {
            cgroup,
            limits: limits.clone(),
            launching: Mutex::new(Some(Launching::begin(&self.group)?)),
            group: self.group.clone(),
        })
    }

    /// Makes room for more members: hard limits go up to those of `limits` where these are higher, never down (R-03).
    pub fn raise(&self, limits: &Limits) -> Result<(), CgroupError> {
        self.group.raise(limits)
    }

    pub fn stats(&self) -> Stats {
        stats::read(&self.group.cgroup)
    }

    /// Kills every process of every member, once.
    pub fn kill(&self) -> Result<(), CgroupError> {
        self.group.cgroup.kill()
    }
}

/// A member's own cgroup.
#[derive(Debug)]
pub struct MemberCgroup {
    cgroup: Arc<Cgroup>,
    /// What it is held to by itself; the cpu from the release on.
    limits: Limits,
    /// Until then.
    launching: Mutex<Option<Launching>>,
    /// Keeps the parent until we are gone.
    group: Arc<Group>,
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
        self.way_in(None, cloned_into)
    }

    /// The way into a room of this member.
    pub fn join_room(&self, room: &MemberCgroup, cloned_into: bool) -> Result<JoinPlan, CgroupError> {
        self.way_in(Some(room), cloned_into)
    }

    /// A place inside for one more command and whatever it starts, so that all of it can be ended alone. It is where
    /// processes are tracked and killed; what they use is still the member's, whose limits hold.
    pub fn room(&self, name: &str) -> Result<MemberCgroup, CgroupError> {
        let homes = self.cgroup.branches.iter().map(|branch| &branch.home);
        let tracks = |home: &&Arc<Home>| match &home.version {
            Version::V2 => true,
            Version::V1(controllers) => controllers.contains(&layout::Controller::Freezer),
        };
        let parents: Vec<Arc<Home>> = homes.filter(tracks).cloned().collect();
        Ok(MemberCgroup {
            cgroup: Arc::new(Cgroup::create(&parents, name)?),
            limits: Limits::default(),
            launching: Mutex::default(),
            group: Arc::clone(&self.group),
        })
    }

    fn way_in(&self, room: Option<&MemberCgroup>, cloned_into: bool) -> Result<JoinPlan, CgroupError> {
        let mut owned = Vec::with_capacity(self.cgroup.branches.len());
        for branch in &self.cgroup.branches {
            let rooms = room.map_or(&[][..], |room| &room.cgroup.branches);
            let inside = rooms
                .iter()
                .find(|inside| Arc::ptr_eq(&inside.parent, &branch.home));
            let home = inside.map_or(&branch.home, |inside| &inside.home);
            let file = match home.version {
                Version::V1(_) => "tasks",
                Version::V2 if cloned_into => continue,
                Version::V2 => "cgroup.procs",
            };
            owned.push(home.node.open_file(file, OFlags::WRONLY)?);
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

    /// Holds the member to its share of the cpu and to its quota. To be called when it is released, before its own
    /// program runs; what came before was our work.
    pub fn hold_cpu(&self) -> Result<(), CgroupError> {
        let (cpu, _) = launching::halves(&self.group.shown(&self.limits));
        self.cgroup.apply(&cpu)?;
        let launching = self
            .launching
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        drop(launching);
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
