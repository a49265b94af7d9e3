//! Ending everything inside a cgroup.
//!
//! Version 2 does it in one write. Version 1 has the freezer: what is frozen cannot fork, so freeze, signal all, thaw;
//! and again, for what was forked before the freezer took hold.

use std::time::{Duration, Instant};

use rustix::{
    io::Errno,
    process::{Pid, Signal, kill_process},
};

use super::{CgroupError, branches::Cgroup, layout::Controller, tree::Node, watch};

/// A freezer that has not taken hold by then will not; signals go out all the same.
const FREEZE_PATIENCE: Duration = Duration::from_millis(20);
/// Processes stuck in the kernel that long, for a dead disk perhaps, are reported and left.
const DESTROY_PATIENCE: Duration = Duration::from_secs(10);

impl Cgroup {
    pub(super) fn procs(&self) -> Result<Vec<i32>, CgroupError> {
        self.tracker().map_or(Ok(Vec::new()), Node::procs)
    }

    pub(super) fn populated(&self) -> Result<bool, CgroupError> {
        match self.v2() {
            Some(v2) => v2.event("populated"),
            None => Ok(!self.procs()?.is_empty()),
        }
    }

    pub(super) fn kill(&self) -> Result<(), CgroupError> {
        if let Some(v2) = self.v2() {
            match v2.write("cgroup.kill", "1") {
                // What somebody froze in version 1 dies only once it runs.
                Ok(()) => return self.thaw_v1(),
                // Kernels before 5.14.
                Err(CgroupError::Open { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let frozen = self.set_frozen(true).is_ok();
        if frozen {
            let start = Instant::now();
            while start.elapsed() < FREEZE_PATIENCE && !self.is_frozen()? {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        for pid in self.procs()? {
            signal(pid);
        }
        match frozen {
            true => self.set_frozen(false),
            false => Ok(()),
        }
    }

    /// Signals also those that have joined some hierarchies, but not yet the one that tracks: their launch was cut
    /// short. There are few of them, and they do not fork.
    pub(super) fn kill_half_joined(&self) {
        for branch in &self.branches {
            for pid in branch.home.node.procs().unwrap_or_default() {
                signal(pid);
            }
        }
    }

    /// A freezer there is either in version 2 or in version 1; without one this does nothing.
    pub(super) fn set_frozen(&self, frozen: bool) -> Result<(), CgroupError> {
        match (
            self.v2().filter(|v2| v2.has("cgroup.freeze")),
            self.v1(Controller::Freezer),
        ) {
            (Some(v2), _) => {
                v2.write("cgroup.freeze", if frozen { "1" } else { "0" })?;
                if frozen { Ok(()) } else { self.thaw_v1() }
            }
            (None, Some(_)) if !frozen => self.thaw_v1(),
            (None, Some(freezer)) => freezer.write("freezer.state", "FROZEN"),
            (None, None) => Ok(()),
        }
    }

    fn thaw_v1(&self) -> Result<(), CgroupError> {
        match self.v1(Controller::Freezer) {
            Some(freezer) => freezer.write("freezer.state", "THAWED"),
            None => Ok(()),
        }
    }

    fn is_frozen(&self) -> Result<bool, CgroupError> {
        match (
            self.v2().filter(|v2| v2.has("cgroup.freeze")),
            self.v1(Controller::Freezer),
        ) {
            (Some(v2), _) => v2.event("frozen"),
            (None, Some(freezer)) => Ok(freezer.read("freezer.state")?.trim() == "FROZEN"),
            (None, None) => Ok(true),
        }
    }
}

impl Node {
    /// A flag in `cgroup.events`.
    fn event(&self, name: &str) -> Result<bool, CgroupError> {
        let events = self.read("cgroup.events")?;
        Ok(super::stats::field(&events, name) == Some(1))
    }
}

fn signal(pid: i32) {
    let Some(pid) = Pid::from_raw(pid) else { return };
    match kill_process(pid, Signal::KILL) {
        // Gone in the meantime, or not ours to kill (then it will show as stuck).
        Ok(()) | Err(Errno::SRCH | Errno::PERM) => {}
        Err(_) => {}
    }
}

/// Kills until the cgroup is empty.
pub(super) async fn destroy(cgroup: &Cgroup) -> Result<(), CgroupError> {
    let start = Instant::now();
    let mut patience = Duration::from_millis(5);
    loop {
        // Mostly the member's init took everything with it.
        if matches!(cgroup.populated(), Ok(false)) {
            return Ok(());
        }
        cgroup.kill()?;
        if let Ok(done) = tokio::time::timeout(patience, watch::empty(cgroup)).await {
            return done;
        }
        if start.elapsed() > DESTROY_PATIENCE {
            return Err(CgroupError::Stuck {
                path: cgroup.path(),
                pids: cgroup.procs().unwrap_or_default(),
            });
        }
        patience = (patience * 2).min(Duration::from_millis(500));
    }
}
