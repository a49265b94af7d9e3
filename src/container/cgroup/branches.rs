//! One cgroup, wherever it has directories.

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use super::{
    CgroupError,
    layout::{Controller, Version},
    limits::{Limits, Setting},
    places::{Home, inherit_cpuset},
    tree::Node,
};

/// One cgroup: its directory in each hierarchy we use. Dropping it kills what is inside and removes it.
#[derive(Debug)]
pub(super) struct Cgroup {
    pub(super) name: String,
    pub(super) branches: Vec<Branch>,
    /// What version 2 has switched on here; the same for as long as we live.
    enabled: OnceLock<String>,
}

#[derive(Debug)]
pub(super) struct Branch {
    pub(super) parent: Arc<Home>,
    pub(super) home: Arc<Home>,
}

impl Cgroup {
    pub(super) fn of(name: String, branches: Vec<Branch>) -> Cgroup {
        Cgroup {
            name,
            branches,
            enabled: OnceLock::new(),
        }
    }

    pub(super) fn create(parents: &[Arc<Home>], name: &str) -> Result<Cgroup, CgroupError> {
        let mut cgroup = Cgroup::of(name.into(), Vec::with_capacity(parents.len()));
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

    pub(super) fn v2(&self) -> Option<&Node> {
        let branch = self
            .branches
            .iter()
            .find(|branch| branch.home.version == Version::V2);
        branch.map(|branch| &branch.home.node)
    }

    pub(super) fn v1(&self, controller: Controller) -> Option<&Node> {
        let branch = self
            .branches
            .iter()
            .find(|branch| matches!(&branch.home.version, Version::V1(list) if list.contains(&controller)));
        branch.map(|branch| &branch.home.node)
    }

    /// Where processes are counted and listed.
    pub(super) fn tracker(&self) -> Option<&Node> {
        self.v2()
            .or_else(|| self.v1(Controller::Freezer))
            .or_else(|| self.v1(Controller::Pids))
            .or_else(|| self.branches.first().map(|branch| &branch.home.node))
    }

    pub(super) fn path(&self) -> PathBuf {
        self.tracker()
            .map_or_else(PathBuf::new, |node| node.path().into())
    }

    pub(super) fn apply(&self, limits: &Limits) -> Result<(), CgroupError> {
        self.write_settings(&limits.v1(), &limits.v2())
    }

    /// Each controller is either on a version 1 hierarchy or on version 2; where it is on none, that was told before.
    pub(super) fn write_settings(&self, v1: &[Setting], v2: &[Setting]) -> Result<(), CgroupError> {
        for setting in v1 {
            if let Some(node) = self.v1(setting.controller) {
                write_setting(node, setting)?;
            }
        }
        let Some(node) = self.v2() else { return Ok(()) };
        if v2.iter().all(|setting| self.v1(setting.controller).is_some()) {
            return Ok(());
        }
        let read = || node.read_opt("cgroup.controllers").unwrap_or_default();
        let enabled = self.enabled.get_or_init(read);
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
