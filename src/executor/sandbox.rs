//! Our places inside the executor's sandbox.
//!
//! ```text
//! <sandbox>/containers/<container id>/   a member's own sandbox: stdout, stderr, its files (E-06)
//! <sandbox>/tasks/<task id>              link to it, so that tools find files by task (E-07)
//! <sandbox>/.podling/                    what is ours alone
//! ```
//!
//! Members can write below here, some of them as root, so nothing is reached through a path that one of them
//! could have bent: directories are opened one by one without following links.

use std::{
    ffi::OsStr,
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{self, Access, AtFlags, Mode, OFlags},
    io::Errno,
};

use crate::{container::plan::EXECUTORS_OWN, sys::held::Held};

/// No volume may name one of these.
const PRIVATE: &str = EXECUTORS_OWN[0];
const MEMBERS: &str = EXECUTORS_OWN[1];
const TASKS: &str = EXECUTORS_OWN[2];

#[derive(Debug, thiserror::Error)]
#[error("sandbox {}: cannot {step} {name}: {source}", .sandbox.display())]
pub struct SandboxError {
    sandbox: PathBuf,
    step: &'static str,
    name: String,
    source: io::Error,
}

#[derive(Debug, Clone)]
pub struct Sandbox {
    directory: Held,
}

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Sandbox {
    /// The agent has made it; we only look whether we can work in it.
    pub fn open(path: &Path) -> Result<Self, SandboxError> {
        // The agent may well have put it behind a link; members cannot change what is above it.
        let opened = Held::open(path).and_then(|directory| {
            fs::accessat(
                &directory,
                ".",
                Access::WRITE_OK | Access::EXEC_OK,
                AtFlags::EACCESS,
            )?;
            Ok(directory)
        });
        if let Ok(directory) = &opened {
            close_to_others(directory, path);
        }
        match opened {
            Ok(directory) => Ok(Sandbox { directory }),
            Err(source) => Err(SandboxError {
                sandbox: path.to_owned(),
                step: "use",
                name: "it".to_owned(),
                source,
            }),
        }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The directory that is ours alone.
    pub fn private(&self) -> Result<Held, SandboxError> {
        let failed = |source| SandboxError {
            sandbox: self.path().to_owned(),
            step: "use",
            name: PRIVATE.to_owned(),
            source,
        };
        self.directory.private(PRIVATE).map_err(failed)
    }

    /// Where a member's own sandbox is; the runtime makes it, for only there the member's user is known.
    pub fn member(&self, container: &str) -> Result<PathBuf, SandboxError> {
        component(container)
            .map_err(|errno| self.failed("use", container.escape_debug().to_string(), errno))?;
        Ok(self.path().join(MEMBERS).join(container))
    }

    /// Lets `tasks/<task>` point to a member's sandbox, whatever it pointed to before.
    pub fn link(&self, task: &str, container: &str) -> Result<(), SandboxError> {
        let tasks = self.subdirectory(TASKS, Mode::from_raw_mode(0o755))?;
        let failed = |errno| self.failed("link", format!("tasks/{}", task.escape_debug()), errno);
        component(task).map_err(failed)?;
        component(container).map_err(failed)?;
        let target = self.path().join(MEMBERS).join(container);
        // Beside, then over: there is no moment without a link. No task id begins like this, for it has a slash.
        let beside = format!(".new-{container}");
        match fs::symlinkat(&target, &tasks, &beside) {
            Err(Errno::EXIST) => {}
            other => other.map_err(failed)?,
        }
        fs::renameat(&tasks, &beside, &tasks, task).map_err(|errno| {
            let _ = fs::unlinkat(&tasks, &beside, AtFlags::empty());
            failed(errno)
        })
    }

    fn subdirectory(&self, name: &str, mode: Mode) -> Result<OwnedFd, SandboxError> {
        let made = match fs::mkdirat(&self.directory, name, mode) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(errno) => return Err(self.failed("make", name, errno)),
        };
        let directory = fs::openat(&self.directory, name, DIRECTORY, Mode::empty())
            .map_err(|errno| self.failed("open", name, errno))?;
        if made {
            // Whatever our umask is.
            fs::fchmod(&directory, mode).map_err(|errno| self.failed("open up", name, errno))?;
        }
        Ok(directory)
    }

    fn failed(&self, step: &'static str, name: impl Into<String>, errno: Errno) -> SandboxError {
        SandboxError {
            sandbox: self.path().to_owned(),
            step,
            name: name.into(),
            source: errno.into(),
        }
    }
}

/// What members make is not for other users of the host: a file of their root that runs with its owner's rights would
/// be the host's root for everybody. Agents of our days make sandboxes like this; older ones did not.
fn close_to_others(directory: impl AsFd, path: &Path) {
    let closed = fs::fstat(&directory).and_then(|found| {
        let mode = Mode::from_raw_mode(found.st_mode);
        let others = Mode::RWXO | Mode::WGRP;
        match mode.intersects(others) {
            true => fs::fchmod(&directory, mode.difference(others)),
            false => Ok(()),
        }
    });
    if let Err(errno) = closed {
        tracing::warn!("sandbox {} stays open to other users: {errno}", path.display());
    }
}

/// A name that means one entry of one directory. Masters check this; whoever else sends us tasks may not.
fn component(name: &str) -> Result<(), Errno> {
    let strange = |char: char| char == '/' || char.is_control();
    let is_one = Path::new(name).file_name() == Some(OsStr::new(name));
    if !is_one || name.len() > 255 || name.contains(strange) {
        Err(Errno::INVAL)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn sandbox() -> (tempfile::TempDir, Sandbox) {
        let dir = tempfile::tempdir().expect("dir");
        let sandbox = Sandbox::open(dir.path()).expect("opened");
        (dir, sandbox)
    }

    #[test]
    fn e_06_a_member_has_a_place_of_its_own() {
        let (dir, sandbox) = sandbox();
        let path = sandbox.member("c-1").expect("a name");
        assert_eq!(path, dir.path().join("containers/c-1"));
    }

    #[test]
    fn s_6_an_open_sandbox_is_closed_to_others() {
        use std::os::unix::fs::PermissionsExt as _;
        let (dir, _) = sandbox();
        for (before, after) in [(0o777, 0o750), (0o755, 0o750), (0o700, 0o700)] {
            std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(before)).expect("mode");
            Sandbox::open(dir.path()).expect("opened");
            let mode = dir.path().metadata().expect("there").permissions().mode();
            assert_eq!(mode & 0o777, after);
        }
    }

    #[test]
    fn e_07_the_link_by_task_id_is_absolute_and_replaced() {
        let (dir, sandbox) = sandbox();
        for container in ["c-1", "c-2", "c-2"] {
            sandbox.link("web", container).expect("linked");
            let target = std::fs::read_link(dir.path().join("tasks/web")).expect("a link");
            assert_eq!(target, dir.path().join("containers").join(container));
        }
        let entries = std::fs::read_dir(dir.path().join("tasks"))
            .expect("tasks")
            .count();
        assert_eq!(entries, 1);
    }

    #[test]
    fn hostile_names_are_refused() {
        let (dir, sandbox) = sandbox();
        let long = "x".repeat(256);
        for name in [
            "", ".", "..", "a/b", "/", "/etc", "a/", "../x", "a\nb", "a\0b", &long,
        ] {
            sandbox.link(name, "c").expect_err(name);
            sandbox.link("t", name).expect_err(name);
            sandbox.member(name).expect_err(name);
        }
        let message = sandbox
            .link("../../etc/passwd", "c")
            .expect_err("refused")
            .to_string();
        assert!(message.contains("../../etc/passwd"), "{message}");
        assert!(
            std::fs::read_dir(dir.path().join("tasks"))
                .expect("tasks")
                .next()
                .is_none()
        );
    }

    #[test]
    fn s_2_bent_directories_are_not_followed() {
        let (dir, sandbox) = sandbox();
        let elsewhere = tempfile::tempdir().expect("dir");
        for name in ["tasks", ".podling"] {
            symlink(elsewhere.path(), dir.path().join(name)).expect("link");
        }
        sandbox.link("t", "c").expect_err("bent");
        sandbox.private().expect_err("bent");
        assert!(std::fs::read_dir(elsewhere.path()).expect("dir").next().is_none());
    }

    #[test]
    fn a_directory_in_the_links_place_is_an_error_and_stays() {
        let (dir, sandbox) = sandbox();
        std::fs::create_dir_all(dir.path().join("tasks/web/full")).expect("dir");
        sandbox.link("web", "c").expect_err("in the way");
        assert_eq!(
            std::fs::read_dir(dir.path().join("tasks"))
                .expect("tasks")
                .count(),
            1
        );
    }

    #[test]
    fn what_is_no_sandbox_is_told() {
        let error = Sandbox::open(Path::new("/nonexistent/sandbox"))
            .expect_err("missing")
            .to_string();
        assert!(error.contains("/nonexistent/sandbox"), "{error}");
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("file");
        std::fs::write(&file, "").expect("file");
        Sandbox::open(&file).expect_err("a file");
    }
}
