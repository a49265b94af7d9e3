//! Cgroups that a dead executor has left, known by path and inode.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    CgroupError,
    branches::{Branch, Cgroup},
    layout::{Controller, Version},
    places::Home,
    tree::Node,
};

/// How long processes get to vanish after they were killed.
const PATIENCE: Duration = Duration::from_secs(5);

/// What became of something that was to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// It was not there.
    Gone,
    Now,
    /// Something else has its name.
    Foreign,
}

type Outcome = (PathBuf, Result<Removed, CgroupError>);

/// Kills what is inside these cgroups and removes them, each only if it is the directory with that inode. Those
/// without one are removed if they are empty.
pub fn remove_stale(cgroups: &[(PathBuf, Option<u64>)]) -> Vec<Outcome> {
    let mut out: Vec<Outcome> = Vec::new();
    // The directories of one cgroup have one name.
    let mut by_name: BTreeMap<&std::ffi::OsStr, Vec<(&PathBuf, Branch)>> = BTreeMap::new();
    for (path, inode) in cgroups {
        match find(path, *inode) {
            Ok(Found::Ours(branch)) => {
                if let Some(name) = path.file_name() {
                    by_name.entry(name).or_default().push((path, branch));
                }
            }
            Ok(Found::Announced(parent)) => out.push((path.clone(), remove_empty(&parent, path))),
            Ok(Found::Gone) => out.push((path.clone(), Ok(Removed::Gone))),
            Ok(Found::Foreign) => out.push((path.clone(), Ok(Removed::Foreign))),
            Err(error) => out.push((path.clone(), Err(error))),
        }
    }
    for (name, found) in by_name {
        let (paths, branches): (Vec<&PathBuf>, Vec<Branch>) = found.into_iter().unzip();
        let mut cgroup = Cgroup::of(name.to_string_lossy().into_owned(), branches);
        let killed = kill_until_empty(&cgroup);
        for (path, branch) in paths.into_iter().zip(std::mem::take(&mut cgroup.branches)) {
            out.push((
                path.clone(),
                match &killed {
                    Err(pids) => Err(CgroupError::Stuck {
                        path: path.clone(),
                        pids: pids.clone(),
                    }),
                    Ok(()) => branch
                        .parent
                        .node
                        .remove_patiently(name)
                        .and_then(|done| match done {
                            true => Ok(Removed::Now),
                            false => Err(CgroupError::Stuck {
                                path: path.clone(),
                                pids: branch.home.node.procs().unwrap_or_default(),
                            }),
                        }),
                },
            ));
        }
    }
    out
}

enum Found {
    Ours(Branch),
    /// Written down before it was made; here is the directory above.
    Announced(Node),
    Gone,
    Foreign,
}

fn find(path: &Path, inode: Option<u64>) -> Result<Found, CgroupError> {
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(Found::Foreign);
    };
    let parent = match Node::open_any(above) {
        Ok(Some(parent)) => parent,
        Ok(None) => return Ok(Found::Foreign),
        Err(error) if error.is_gone() => return Ok(Found::Gone),
        Err(error) => return Err(error),
    };
    let Some(inode) = inode else {
        return Ok(Found::Announced(parent));
    };
    let node = match parent.open_below(Path::new(name)) {
        Ok(node) => node,
        Err(error) if error.is_gone() => return Ok(Found::Gone),
        Err(error) => return Err(error),
    };
    if node.inode()? != inode {
        return Ok(Found::Foreign);
    }
    let version = match (node.has("cgroup.events"), node.has("freezer.state")) {
        (true, _) => Version::V2,
        (false, true) => Version::V1(vec![Controller::Freezer]),
        (false, false) => Version::V1(Vec::new()),
    };
    Ok(Found::Ours(Branch {
        parent: Arc::new(Home {
            version: version.clone(),
            node: parent,
        }),
        home: Arc::new(Home { version, node }),
    }))
}

/// Only the directory itself: what is inside was put there by somebody else.
fn remove_empty(parent: &Node, path: &Path) -> Result<Removed, CgroupError> {
    parent.remove_one(path.file_name().unwrap_or_default())
}

/// The error: process ids that would not go.
fn kill_until_empty(cgroup: &Cgroup) -> Result<(), Vec<i32>> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        let inside: Vec<i32> = cgroup
            .branches
            .iter()
            .flat_map(|branch| branch.home.node.procs().unwrap_or_default())
            .collect();
        // Zombies of others keep a cgroup populated, but are not listed.
        if inside.is_empty() && !cgroup.populated().unwrap_or(false) {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            return Err(inside);
        }
        let _ = cgroup.kill();
        cgroup.kill_half_joined();
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}
