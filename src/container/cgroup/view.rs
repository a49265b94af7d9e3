//! What a member sees of cgroups below `/sys/fs/cgroup`: its own, where programs look for their limits.
//!
//! A member has a cgroup namespace, so `/proc/self/cgroup` calls its cgroup the root; what is mounted has to agree, or
//! a Java machine takes the memory of the node for its own. Hierarchies that we make no cgroups in are shown
//! as well, where the executor is in them: programs expect all of them to be there.

use std::{
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    MemberCgroup,
    layout::{Controller, Hierarchy, Version},
    places::Home,
};

/// Where every program looks.
pub const CGROUPS: &str = "/sys/fs/cgroup";

/// The hierarchies of a machine as members see them, and the cgroups that the executor itself is in.
#[derive(Debug, Default)]
pub(super) struct Sights(Vec<Sight>);

#[derive(Debug)]
struct Sight {
    at: At,
    own: Arc<Home>,
}

/// Where a hierarchy appears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    /// It is all there is.
    Top,
    Below {
        directory: String,
        /// Other names of the same.
        links: Vec<&'static str>,
    },
}

/// The cgroups one member is shown.
#[derive(Debug)]
pub struct View {
    shown: Vec<(At, Arc<Home>)>,
}

impl View {
    pub fn shown(&self) -> impl Iterator<Item = (&At, BorrowedFd<'_>)> {
        self.shown.iter().map(|(at, home)| (at, home.node.fd()))
    }
}

impl Sights {
    /// `alone`: there is no other hierarchy. `own` is the cgroup that we are in.
    pub(super) fn add(&mut self, hierarchy: &Hierarchy, alone: bool, own: Arc<Home>) {
        let at = at(&hierarchy.version, &hierarchy.mount, alone);
        if !self.0.iter().any(|sight| sight.at == at) {
            self.0.push(Sight { at, own });
        }
    }

    /// `None`: there is nothing to see.
    pub(super) fn of(&self, member: Option<&MemberCgroup>) -> Option<View> {
        let shown: Vec<_> = self
            .0
            .iter()
            .map(|sight| {
                let branches = member.map_or(&[][..], |member| &member.cgroup.branches);
                let made = branches
                    .iter()
                    .find(|branch| branch.home.version == sight.own.version);
                let home = made.map_or(&sight.own, |branch| &branch.home);
                (sight.at.clone(), Arc::clone(home))
            })
            .collect();
        (!shown.is_empty()).then_some(View { shown })
    }
}

/// Where the host has it, if that is where everybody looks.
fn at(version: &Version, mount: &Path, alone: bool) -> At {
    let controllers: Vec<&'static str> = match version {
        Version::V2 if alone => return At::Top,
        Version::V2 => vec!["unified"],
        Version::V1(controllers) => controllers.iter().copied().map(Controller::v1_name).collect(),
    };
    let usual = mount.strip_prefix(CGROUPS).ok().map(PathBuf::from);
    let usual = usual.filter(|rest| rest.components().count() == 1);
    let directory = usual.map_or_else(
        || controllers.join(","),
        |rest| rest.to_string_lossy().into_owned(),
    );
    let links = match version {
        Version::V2 => Vec::new(),
        Version::V1(_) => controllers
            .into_iter()
            .filter(|name| *name != directory)
            .collect(),
    };
    At::Below { directory, links }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_find_each_hierarchy_where_they_look() {
        let below = |directory: &str, links: &[&'static str]| At::Below {
            directory: directory.into(),
            links: links.into(),
        };
        let v1 = |controllers: &[Controller]| Version::V1(controllers.into());
        let cases = [
            (Version::V2, CGROUPS, true, At::Top),
            (Version::V2, "/cgroup2", true, At::Top),
            (
                Version::V2,
                "/sys/fs/cgroup/unified",
                false,
                below("unified", &[]),
            ),
            (Version::V2, "/mnt/x", false, below("unified", &[])),
            (
                v1(&[Controller::Memory]),
                "/sys/fs/cgroup/memory",
                false,
                below("memory", &[]),
            ),
            (
                v1(&[Controller::Cpu, Controller::Cpuacct]),
                "/sys/fs/cgroup/cpu,cpuacct",
                false,
                below("cpu,cpuacct", &["cpu", "cpuacct"]),
            ),
            (
                v1(&[Controller::Memory]),
                "/cgroup/mem",
                false,
                below("memory", &[]),
            ),
            (
                v1(&[Controller::Memory]),
                "/sys/fs/cgroup/a/b",
                false,
                below("memory", &[]),
            ),
            (
                v1(&[Controller::Memory]),
                "/sys/fs/cgroup/m",
                false,
                below("m", &["memory"]),
            ),
        ];
        for (version, mount, alone, expected) in cases {
            assert_eq!(at(&version, Path::new(mount), alone), expected, "{mount}");
        }
    }
}
