//! What the executor itself does for a plan before there is a process: look up, open, make directories.

use std::{
    fs::File,
    io::Write,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::Arc,
};

use super::{
    error::{LaunchError, Problem},
    filters::Filters,
    overlay::Directories,
    plan::{MountSource, Output, Plan, Rootfs, UserSpec},
    setup::{Confinement, Prepared, PreparedMount, Source, Streams},
    tree::{self, Ownership},
    users::{Accounts, Identity},
};

/// What all members of an executor have in common.
#[derive(Debug)]
pub(super) struct Common {
    /// The executor's sandbox.
    pub sandbox: OwnedFd,
    pub sandbox_path: std::path::PathBuf,
    /// The host's null device, seen to be that.
    pub null: Arc<OwnedFd>,
    pub last_capability: u32,
    pub filters: Filters,
    /// Names of steps that are not done. For tests.
    pub left_out: &'static [&'static str],
}

pub(super) fn prepare(plan: &Arc<Plan>, common: &Common) -> Result<Prepared, LaunchError> {
    let failed = |step: String| move |error: std::io::Error| LaunchError::step(&plan.member, step, error);
    let root = root(plan)?;
    let identity = identity(plan, root.as_ref().map(AsFd::as_fd))?;

    // E-06: the sandbox is the member's own, and nobody else's to read.
    let owner = Ownership {
        uid: identity.uid,
        gid: identity.gid,
        mode: 0o750,
    };
    let shown = plan.sandbox.display().to_string();
    let inside = plan.sandbox.strip_prefix(&common.sandbox_path).map_err(|_| {
        let text = format!(
            "sandbox {shown} is not below the executor's {}",
            common.sandbox_path.display()
        );
        LaunchError::new(&plan.member, Problem::Invalid(text))
    })?;
    let above = Ownership {
        uid: 0,
        gid: 0,
        mode: 0o755,
    };
    let sandbox = tree::make_directory(common.sandbox.as_fd(), inside, current(above))
        .and_then(|sandbox| tree::own(sandbox.as_fd(), owner).map(|()| sandbox))
        .map_err(failed(format!("make sandbox {shown}")))?;

    let stream = |output: &Output, name: &str| -> Result<Arc<OwnedFd>, LaunchError> {
        match output {
            Output::Null => Ok(Arc::clone(&common.null)),
            Output::Descriptor(fd) => Ok(Arc::clone(fd)),
            Output::File(path) => tree::append(sandbox.as_fd(), path, identity.uid, identity.gid)
                .map(Arc::new)
                .map_err(failed(format!("open {} for {name}", path.display()))),
        }
    };
    let (stdout, stderr) = (stream(&plan.stdout, "stdout")?, stream(&plan.stderr, "stderr")?);
    for note in &plan.notes {
        // Only a note: a full disk or a closed pipe must not stop the member here.
        if let Ok(stderr) = stderr.try_clone() {
            let _ = writeln!(File::from(stderr), "{note}");
        }
    }

    let mut mounts = Vec::with_capacity(plan.mounts.len());
    for mount in &plan.mounts {
        let made = source(
            &mount.source,
            mount.read_only,
            common.sandbox.as_fd(),
            sandbox.as_fd(),
            &identity,
        )
        .map_err(failed(format!("{}: {}", mount.field, describe(&mount.source))))?;
        mounts.push(made);
    }
    let sandbox =
        tree::detached(sandbox.as_fd(), false).map_err(failed(format!("take hold of sandbox {shown}")))?;
    let filter = common
        .filters
        .get(&plan.seccomp, plan.capabilities.bounding)
        .map_err(|error| LaunchError::new(&plan.member, Problem::Seccomp(error)))?;
    Ok(Prepared {
        confinement: Confinement {
            plan: Arc::clone(plan),
            identity,
            filter,
            last_capability: common.last_capability,
        },
        root,
        sandbox,
        mounts,
        streams: Streams {
            stdin: Arc::clone(&common.null),
            stdout,
            stderr,
        },
        terminal: None,
        cgroups: Vec::new(),
        pod: None,
    })
}

/// Directories above a sandbox belong to whoever we are.
fn current(new: Ownership) -> Ownership {
    Ownership {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        ..new
    }
}

fn root(plan: &Plan) -> Result<Option<OwnedFd>, LaunchError> {
    match &plan.rootfs {
        Rootfs::Host => Ok(None),
        Rootfs::Directory { path, .. } => tree::open(path)
            .and_then(|place| tree::detached(place.as_fd(), false))
            .map(Some)
            .map_err(|error| {
                LaunchError::step(
                    &plan.member,
                    format!("open root file system {}", path.display()),
                    error,
                )
            }),
        Rootfs::Overlay { lower, upper, work } => Directories::open(lower, upper, work)
            .and_then(|directories| directories.mount())
            .map(Some)
            .map_err(|error| LaunchError::step(&plan.member, "mount the image's layers", error)),
    }
}

fn identity(plan: &Plan, root: Option<BorrowedFd<'_>>) -> Result<Identity, LaunchError> {
    let failed = |error| LaunchError::new(&plan.member, Problem::User { error });
    let of_host = || -> Result<Accounts, LaunchError> {
        let host =
            tree::open(Path::new("/")).map_err(|error| LaunchError::step(&plan.member, "open /", error))?;
        Accounts::read(host.as_fd()).map_err(failed)
    };
    match &plan.user {
        UserSpec::Inherit => Ok(Identity {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            groups: rustix::process::getgroups()
                .map_err(|errno| LaunchError::step(&plan.member, "read the executor's groups", errno))?
                .into_iter()
                .map(|group| group.as_raw())
                .collect(),
        }),
        UserSpec::Named { text, host_too } => match root {
            None => of_host()?.find(text).map_err(failed),
            Some(root) => match Accounts::read(root).and_then(|accounts| accounts.find(text)) {
                Err(error) if *host_too && error.is_unknown() => {
                    of_host()?.find(text).map_err(|_| failed(error))
                }
                other => other.map_err(failed),
            },
        },
    }
}

fn source(
    source: &MountSource,
    read_only: bool,
    executor: BorrowedFd<'_>,
    own: BorrowedFd<'_>,
    identity: &Identity,
) -> std::io::Result<PreparedMount> {
    let tree = |place: OwnedFd| -> std::io::Result<PreparedMount> {
        Ok(PreparedMount {
            directory: tree::is_directory(place.as_fd())?,
            source: Source::Tree(Arc::new(tree::detached(place.as_fd(), read_only)?)),
        })
    };
    match source {
        MountSource::OwnSandbox(path) => tree(tree::make_directory(
            own,
            path,
            Ownership {
                uid: identity.uid,
                gid: identity.gid,
                mode: 0o755,
            },
        )?),
        // Members with different users share it: like the scratch volumes people know, open to all of the pod; the
        // executor's sandbox round it is not open to others.
        MountSource::ExecutorSandbox(path) => {
            let base = rustix::fs::fstat(executor)?;
            tree(tree::make_directory(
                executor,
                path,
                Ownership {
                    uid: base.st_uid,
                    gid: base.st_gid,
                    mode: 0o777,
                },
            )?)
        }
        MountSource::Host(path) => tree(tree::open(path)?),
        MountSource::Detached(fd) => Ok(PreparedMount {
            directory: tree::is_directory(fd.as_fd())?,
            source: Source::Tree(Arc::clone(fd)),
        }),
        MountSource::Tmpfs { size, mode } => Ok(PreparedMount {
            directory: true,
            source: Source::Tmpfs {
                size: *size,
                mode: *mode,
            },
        }),
        MountSource::Secret(bytes) => Ok(PreparedMount {
            directory: false,
            source: Source::Secret(Arc::clone(bytes)),
        }),
    }
}

fn describe(source: &MountSource) -> String {
    match source {
        MountSource::OwnSandbox(path) => format!("make directory {path:?} in the sandbox"),
        MountSource::ExecutorSandbox(path) => format!("make directory {path:?} in the executor's sandbox"),
        MountSource::Host(path) => format!("open host path {path:?}"),
        MountSource::Detached(_) => "look at the mount".into(),
        MountSource::Tmpfs { .. } | MountSource::Secret(_) => "make the file system".into(),
    }
}
