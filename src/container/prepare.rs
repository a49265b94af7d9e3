//! What the executor itself does for a plan before there is a process: look up, open, make directories.

use std::{
    fs::File,
    io::Write,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::Path,
    sync::Arc,
};

use rustix::fs::FileType;

use super::{
    error::{LaunchError, Problem},
    filters::Filters,
    mapped::MappedUsers,
    plan::{
        CapabilitySet, EXECUTORS_OWN, MountSource, Network, Output, PidNamespace, Plan, Rootfs, UserSpec,
    },
    policy::Wish,
    program,
    setup::{ClosedWay, Confinement, Prepared, PreparedMount, Source, Streams},
    tree::{self, Ownership, Tree},
    users::{Accounts, Identity},
};
use crate::sys::ipc::Ipc;

/// What all members of an executor have in common.
#[derive(Debug)]
pub(super) struct Common {
    /// The executor's sandbox.
    pub sandbox: OwnedFd,
    pub sandbox_path: std::path::PathBuf,
    /// The host's null device, seen to be that.
    pub null: Arc<OwnedFd>,
    pub last_capability: u32,
    /// What we are permitted ourselves.
    pub capabilities: CapabilitySet,
    pub filters: Filters,
    /// We may do nothing but what an ordinary user may: members get a user namespace, and little else of ours.
    pub rootless: bool,
    /// Names of steps that are not done. For tests.
    pub left_out: &'static [&'static str],
}

/// `ipc`: what the plan shares with others.
pub(super) fn prepare(plan: &Arc<Plan>, common: &Common, ipc: Option<&Ipc>) -> Result<Prepared, LaunchError> {
    let failed = |step: String| move |error: std::io::Error| LaunchError::step(&plan.member, step, error);
    let rootless = common.rootless;
    if rootless {
        possible_without_root(plan)?;
    }
    let stack = program::stack_limit(&plan.rlimits);
    program::fits(&plan.command, &plan.environment, stack)
        .map_err(|what| LaunchError::new(&plan.member, Problem::Invalid(what)))?;
    let (root, files) = root(plan, rootless)?;
    if let Some(files) = &files {
        tells_the_truth(plan, files.as_fd())?;
    }
    let identity = identity(plan, files.as_ref().map(AsFd::as_fd), rootless)?;
    let outside = outside(plan, &identity, rootless)?;
    if outside.uid == 0 && !rootless {
        allowed(plan, "command.user", &Wish::Root)?;
    }

    // E-06: the sandbox is the member's own, and nobody else's to read.
    let owner = Ownership {
        mode: 0o750,
        ..owner(&outside, rootless)
    };
    let shown = plan.sandbox.display().to_string();
    let inside = plan.sandbox.strip_prefix(&common.sandbox_path).map_err(|_| {
        let text = format!(
            "sandbox {shown} is not below the executor's {}",
            common.sandbox_path.display()
        );
        LaunchError::new(&plan.member, Problem::Invalid(text))
    })?;
    let above = current();
    let sandbox = tree::make_directory(common.sandbox.as_fd(), inside, above)
        .and_then(|sandbox| tree::own(sandbox.as_fd(), owner).map(|()| sandbox))
        .map_err(failed(format!("make sandbox {shown}")))?;

    let stream = |output: &Output, name: &str| -> Result<Arc<OwnedFd>, LaunchError> {
        match output {
            Output::Null => Ok(Arc::clone(&common.null)),
            Output::Descriptor(fd) => Ok(Arc::clone(fd)),
            Output::File(path) => tree::append(sandbox.as_fd(), path, owner.uid, owner.gid)
                .map(Arc::new)
                .map_err(failed(format!("open {} for {name}", path.display()))),
        }
    };
    let (stdout, stderr) = (stream(&plan.stdout, "stdout")?, stream(&plan.stderr, "stderr")?);
    let outputs = [(&plan.stderr, &stderr), (&plan.stdout, &stdout)]
        .into_iter()
        .filter(|(output, _)| matches!(output, Output::File(_)))
        .map(|(_, file)| tree::readable(file.as_fd()))
        .collect::<Result<_, _>>()
        .map_err(failed("open what it writes".into()))?;
    for note in &plan.notes {
        // Only a note: a full disk or a closed pipe must not stop the member here.
        if let Ok(stderr) = stderr.try_clone() {
            let _ = writeln!(File::from(stderr), "{note}");
        }
    }

    let sources = Sources {
        executor: common.sandbox.as_fd(),
        own: sandbox.as_fd(),
        owner,
        rootless,
        users: plan.namespaces.users.as_deref(),
        ipc,
    };
    let mut mounts = Vec::with_capacity(plan.mounts.len());
    for mount in &plan.mounts {
        let step = || format!("{}: {}", mount.field, describe(&mount.source));
        let found = match &mount.source {
            // What links make of it counts for the policy, and no other link comes between.
            MountSource::Host(path) => {
                let path = path.canonicalize().map_err(failed(step()))?;
                if mount.is_of_task() {
                    let (path, read_only) = (path.as_path(), mount.read_only);
                    allowed(plan, &mount.field, &Wish::HostVolume { path, read_only })?;
                }
                Some(MountSource::Host(path))
            }
            _ => None,
        };
        let made = sources
            .take(found.as_ref().unwrap_or(&mount.source), mount.read_only)
            .map_err(failed(step()))?;
        mounts.push(made);
    }
    // In the member's own view of the host only; an ordinary user has no members of other users.
    let closed = match (&plan.rootfs, rootless) {
        (Rootfs::Host, false) => closed_way(&plan.sandbox, &outside)
            .map_err(failed(format!("look at the directories above sandbox {shown}")))?,
        _ => None,
    };
    let seen = plan.cgroup_view.iter().flat_map(|view| view.shown());
    let cgroup_view = seen
        .map(|(at, cgroup)| Ok((at.clone(), Tree::cgroup(cgroup, rootless)?)))
        .collect::<std::io::Result<_>>()
        .map_err(failed("take hold of the cgroups to show".into()))?;
    let sandbox = Tree::of(sandbox.as_fd(), false, rootless)
        .map_err(failed(format!("take hold of sandbox {shown}")))?;
    let filter = common
        .filters
        .get(&plan.seccomp, plan.capabilities.bounding)
        .map_err(|error| LaunchError::new(&plan.member, Problem::Seccomp(error)))?;
    Ok(Prepared {
        confinement: Confinement {
            plan: Arc::clone(plan),
            identity,
            outside,
            capabilities: common.capabilities,
            filter,
            last_capability: common.last_capability,
            rootless,
            left_out: common.left_out,
        },
        root,
        sandbox,
        closed,
        mounts,
        cgroup_view,
        streams: Streams {
            stdin: Arc::clone(&common.null),
            stdout,
            stderr,
        },
        outputs,
        terminal: None,
        cgroups: Vec::new(),
        ipc: ipc
            .map(|ipc| ipc.namespace.try_clone().map(Arc::new))
            .transpose()
            .map_err(failed("hold the pod's IPC".into()))?,
        pod: None,
    })
}

/// The first directory on the way to a sandbox that its user may not pass through, with the rest of the way from
/// there, both without links. Sandboxes lie in directories that are closed to others, but a member knows its own by
/// its path.
fn closed_way(sandbox: &Path, user: &Identity) -> std::io::Result<Option<ClosedWay>> {
    if user.uid == 0 {
        return Ok(None);
    }
    let sandbox = sandbox.canonicalize()?;
    let mut above: Vec<&Path> = sandbox.ancestors().skip(1).collect();
    above.reverse();
    for directory in above {
        let found = directory.metadata()?;
        let search = match () {
            () if found.uid() == user.uid => 0o100,
            () if found.gid() == user.gid || user.groups.contains(&found.gid()) => 0o010,
            () => 0o001,
        };
        if found.mode() & search == 0 {
            let rest = sandbox.strip_prefix(directory).unwrap_or(&sandbox).to_owned();
            return Ok(Some(ClosedWay {
                at: directory.to_owned(),
                rest,
            }));
        }
    }
    Ok(None)
}

/// The policy once more, of what has been found out.
fn allowed(plan: &Plan, field: &str, wish: &Wish<'_>) -> Result<(), LaunchError> {
    plan.policy.verdict(wish).map_err(|refusal| {
        let text = format!("{field}: {refusal}");
        LaunchError::new(&plan.member, Problem::Invalid(text))
    })
}

/// Directories above a sandbox belong to whoever we are.
fn current() -> Ownership {
    Ownership {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        mode: 0o755,
    }
}

/// Whom the member's files belong to, as the host sees it.
fn owner(identity: &Identity, rootless: bool) -> Ownership {
    match rootless {
        true => current(),
        false => Ownership {
            uid: identity.uid,
            gid: identity.gid,
            mode: 0o755,
        },
    }
}

fn possible_without_root(plan: &Plan) -> Result<(), LaunchError> {
    let refused = |what: &str| {
        let text = format!("{what} needs root; this executor runs as an ordinary user");
        Err(LaunchError::new(&plan.member, Problem::Invalid(text)))
    };
    if plan.namespaces.pid != PidNamespace::Own {
        return refused("sharing the processes of a pod");
    }
    if let Network::Join(_) = plan.namespaces.network {
        return refused("a network of the pod's own");
    }
    if let Rootfs::Mounted { .. } = plan.rootfs {
        return refused("a root file system of layers");
    }
    match plan
        .mounts
        .iter()
        .find(|mount| matches!(mount.source, MountSource::Detached(_)))
    {
        Some(mount) => refused(&mount.field),
        None => Ok(()),
    }
}

/// What the member gets as its root, and the same to look up users in.
fn root(plan: &Plan, rootless: bool) -> Result<(Option<Tree>, Option<OwnedFd>), LaunchError> {
    match &plan.rootfs {
        Rootfs::Host => Ok((None, None)),
        Rootfs::Directory { path, .. } => tree::open(path)
            .and_then(|place| {
                let tree =
                    Tree::of(place.as_fd(), false, rootless)?.mapped(plan.namespaces.users.as_deref())?;
                Ok((Some(tree), Some(place)))
            })
            .map_err(|error| {
                LaunchError::step(
                    &plan.member,
                    format!("open root file system {}", path.display()),
                    error,
                )
            }),
        Rootfs::Mounted { mount, .. } => mount
            .try_clone()
            .map(|files| (Some(Tree::Detached(Arc::clone(mount))), Some(files)))
            .map_err(|error| LaunchError::step(&plan.member, "take hold of the image's root", error)),
    }
}

/// Where the kernel shows itself there has to be a directory, or room for one. A link is how an image makes us mount
/// over something else, and gets a `/proc` of its own; what is mounted later is found without links once more.
fn tells_the_truth(plan: &Plan, root: BorrowedFd<'_>) -> Result<(), LaunchError> {
    for name in ["proc", "sys", "dev"] {
        let is = match tree::kind(root, name) {
            Ok(FileType::Directory) => continue,
            Ok(FileType::Symlink) => "a symbolic link",
            Ok(_) => "no directory",
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(LaunchError::step(&plan.member, format!("look at /{name}"), error)),
        };
        let text = format!("/{name} of its root file system is {is}; it has to be a directory");
        return Err(LaunchError::new(&plan.member, Problem::Invalid(text)));
    }
    Ok(())
}

fn identity(plan: &Plan, root: Option<BorrowedFd<'_>>, rootless: bool) -> Result<Identity, LaunchError> {
    let failed = |error| LaunchError::new(&plan.member, Problem::User { error });
    let of_host = || -> Result<Accounts, LaunchError> {
        let host =
            tree::open(Path::new("/")).map_err(|error| LaunchError::step(&plan.member, "open /", error))?;
        Accounts::read(host.as_fd()).map_err(failed)
    };
    let identity = match &plan.user {
        UserSpec::Inherit => Identity {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            groups: rustix::process::getgroups()
                .map_err(|errno| LaunchError::step(&plan.member, "read the executor's groups", errno))?
                .into_iter()
                .map(|group| group.as_raw())
                .collect(),
        },
        UserSpec::Named { text, host_too } => match root {
            None => of_host()?.find_on_host(text).map_err(failed)?,
            Some(root) => match Accounts::read(root).and_then(|accounts| accounts.find(text)) {
                Err(error) if *host_too && error.is_unknown() => {
                    of_host()?.find_on_host(text).map_err(|_| failed(error))?
                }
                other => other.map_err(failed)?,
            },
        },
    };
    if !rootless {
        return Ok(identity);
    }
    // An ordinary user is itself; in its namespace it can also be root, of files that are its own.
    let own = Identity {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        groups: Vec::new(),
    };
    let needs_root = |what: String| {
        let text = format!(
            "becoming {what} needs root; this executor runs as user {}",
            own.uid
        );
        Err(LaunchError::new(&plan.member, Problem::Invalid(text)))
    };
    match (identity.uid, identity.gid) {
        (uid, gid) if (uid, gid) == (own.uid, own.gid) => Ok(own),
        (0, _) if root.is_some() => Ok(Identity::root()),
        (uid, gid) if uid == own.uid => needs_root(format!("group {gid}")),
        (uid, _) => needs_root(format!("user {uid}")),
    }
}

/// The same as whoever makes the member's world sees it: the host, or without privileges the user namespace in which
/// we are root.
fn outside(plan: &Plan, identity: &Identity, rootless: bool) -> Result<Identity, LaunchError> {
    if rootless {
        return Ok(Identity::root());
    }
    let Some(users) = &plan.namespaces.users else {
        return Ok(identity.clone());
    };
    let outside = |what: &str, id: u32| {
        users.range.outside(id).ok_or_else(|| {
            let text = format!(
                "{what} {id} is none of the {} that members have here (user_namespace)",
                users.range.count()
            );
            LaunchError::new(&plan.member, Problem::Invalid(text))
        })
    };
    Ok(Identity {
        uid: outside("user", identity.uid)?,
        gid: outside("group", identity.gid)?,
        groups: identity
            .groups
            .iter()
            .map(|&group| outside("group", group))
            .collect::<Result<_, _>>()?,
    })
}

/// Where the mounts of one member come from, and for whom they are.
struct Sources<'p> {
    /// The executor's sandbox.
    executor: BorrowedFd<'p>,
    /// The member's.
    own: BorrowedFd<'p>,
    owner: Ownership,
    rootless: bool,
    users: Option<&'p MappedUsers>,
    ipc: Option<&'p Ipc>,
}

impl Sources<'_> {
    fn take(&self, source: &MountSource, read_only: bool) -> std::io::Result<PreparedMount> {
        let tree = |place: &OwnedFd| -> std::io::Result<(bool, Tree)> {
            let directory = tree::is_directory(place.as_fd())?;
            Ok((directory, Tree::of(place.as_fd(), read_only, self.rootless)?))
        };
        let owner = Ownership {
            mode: 0o755,
            ..self.owner
        };
        let (directory, source) = match source {
            MountSource::OwnSandbox(path) => {
                let (directory, tree) = tree(&tree::make_directory(self.own, path, owner)?)?;
                (directory, Source::Tree(tree))
            }
            // It belongs to the user of whoever comes first, as in Mesos: others of the pod read it.
            MountSource::ExecutorSandbox(path) => {
                refuse_our_own(self.executor, path)?;
                let (directory, tree) = tree(&tree::make_directory(self.executor, path, owner)?)?;
                (directory, Source::Tree(tree))
            }
            MountSource::Host(path) => {
                let (directory, tree) = tree(&tree::open_real(path)?)?;
                (directory, Source::Tree(tree.mapped(self.users)?))
            }
            MountSource::Opened(place) => {
                let (directory, tree) = tree(place)?;
                (directory, Source::Tree(tree.mapped(self.users)?))
            }
            MountSource::Detached(fd) => (
                tree::is_directory(fd.as_fd())?,
                Source::Tree(Tree::Detached(Arc::clone(fd))),
            ),
            MountSource::SharedMemory => {
                let source = match self.ipc {
                    Some(ipc) => Source::Tree(Tree::Detached(Arc::new(ipc.memory()?))),
                    None => Source::Tmpfs {
                        size: None,
                        mode: 0o1777,
                    },
                };
                (true, source)
            }
            MountSource::Tmpfs { size, mode } => (
                true,
                Source::Tmpfs {
                    size: *size,
                    mode: *mode,
                },
            ),
            MountSource::Secret(bytes) => (false, Source::Secret(Arc::clone(bytes))),
        };
        Ok(PreparedMount { directory, source })
    }
}

/// What the executor keeps in its sandbox is no member's, by whatever name it is found there.
fn refuse_our_own(executor: BorrowedFd<'_>, path: &Path) -> std::io::Result<()> {
    let which = |name: &Path| tree::identity(executor, name).ok();
    let Some(first) = path.components().next() else {
        return Ok(());
    };
    let first = Path::new(first.as_os_str());
    let found = which(first);
    let own = |name: &&&str| first == Path::new(name) || found.is_some() && found == which(Path::new(name));
    match EXECUTORS_OWN.iter().find(own) {
        None => Ok(()),
        Some(name) => Err(std::io::Error::new(
            std::io::ErrorKind::PermissionDenied,
            format!("{name:?} is the executor's own"),
        )),
    }
}

fn describe(source: &MountSource) -> String {
    match source {
        MountSource::OwnSandbox(path) => format!("make directory {path:?} in the sandbox"),
        MountSource::ExecutorSandbox(path) => format!("make directory {path:?} in the executor's sandbox"),
        MountSource::Host(path) => format!("open host path {path:?}"),
        MountSource::Opened(_) | MountSource::Detached(_) => "look at the mount".into(),
        MountSource::SharedMemory | MountSource::Tmpfs { .. } | MountSource::Secret(_) => {
            "make the file system".into()
        }
    }
}
