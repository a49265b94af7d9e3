//! What scripts are made of: file systems, places, and the one put on the other.

use std::{io, os::fd::AsRawFd, path::Path};

use libc::{
    SYS_close, SYS_fsconfig, SYS_fsmount, SYS_fsopen, SYS_mount_setattr, SYS_move_mount, SYS_open_tree,
    SYS_openat2,
};

use super::Writer;
use crate::{
    container::{
        script::{Arg, Register, Slot, Step},
        tree::Tree,
    },
    sys::{
        init_format::{TARGET, TARGET_DIRECTORY, TARGET_FILE, TARGET_PLAIN_DIRECTORY},
        mount,
    },
};

pub(super) const O_PATH: i32 = libc::O_PATH | libc::O_CLOEXEC;

/// What every file system has that holds neither programs nor devices.
pub(super) const NOTHING_SPECIAL: u64 = mount::NO_SUID | mount::NO_DEV | mount::NO_EXEC;

const IN_ROOT: u64 = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
/// Below a file system that we made, and on that one only: nothing that was mounted or linked over it counts.
const ON_THIS: u64 = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_XDEV;

/// Where paths are found from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Base {
    /// A root file system that somebody else filled.
    Root(Arg),
    /// The host's root, opened by the script itself.
    HostRoot,
    /// A file system that the script made.
    Own(Register),
}

impl From<Base> for Arg {
    fn from(base: Base) -> Self {
        match base {
            Base::Root(root) => root,
            Base::HostRoot => Register::of(Slot::Root).into(),
            Base::Own(register) => register.into(),
        }
    }
}

const CLONE_TREE: u32 = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;

impl Writer {
    /// Mounts that are in no tree yet.
    pub(super) fn tree(&mut self, slot: Option<Slot>, step: &str, tree: &Tree) -> io::Result<Arg> {
        let (path, read_only) = match tree {
            Tree::Detached(fd) => return Ok(fd.as_raw_fd().into()),
            Tree::Place { path, read_only } => (path, *read_only),
        };
        let path = self.script.path(path)?;
        let no_links = libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS;
        let how = self.script.words(&[O_PATH as u64, 0, no_links]);
        let place = open!(self, step.to_owned(); SYS_openat2, libc::AT_FDCWD, path, how, 24u32);
        let flags = CLONE_TREE | (libc::AT_EMPTY_PATH | libc::AT_RECURSIVE) as u32;
        let tree = match slot {
            Some(slot) => open!(self in slot, step.to_owned(); SYS_open_tree, place, self.empty, flags),
            None => open!(self, step.to_owned(); SYS_open_tree, place, self.empty, flags),
        };
        if read_only {
            self.set_read_only(step.to_owned(), tree, true);
        }
        op!(self, "close a place"; SYS_close, place);
        Ok(tree.into())
    }

    /// A new file system that is not mounted anywhere yet.
    pub(super) fn fresh(
        &mut self,
        kind: &'static str,
        options: &[(&str, &str)],
        attributes: u64,
    ) -> io::Result<Register> {
        self.fresh_in(None, kind, options, attributes)
    }

    pub(super) fn fresh_in(
        &mut self,
        slot: Option<Slot>,
        kind: &'static str,
        options: &[(&str, &str)],
        attributes: u64,
    ) -> io::Result<Register> {
        let name = self.script.text(kind)?;
        let context = open!(self, format!("open file system {kind}"); SYS_fsopen, name, libc::FSOPEN_CLOEXEC);
        for (key, value) in options {
            let step = format!("set {key} of {kind}");
            let key = self.script.text(key)?;
            let value = self.script.text(value)?;
            op!(self, step; SYS_fsconfig, context, libc::FSCONFIG_SET_STRING, key, value, 0u32);
        }
        let create = libc::FSCONFIG_CMD_CREATE;
        op!(self, format!("make file system {kind}"); SYS_fsconfig, context, create, 0u32, 0u32, 0u32);
        let step = format!("make a mount of {kind}");
        let args = [context.into(), libc::FSMOUNT_CLOEXEC.into(), attributes.into()];
        let mount = match slot {
            Some(slot) => self.script.open_in(slot, step, SYS_fsmount, &args),
            None => self.script.open(step, SYS_fsmount, &args),
        };
        op!(self, "close a file system"; SYS_close, context);
        Ok(mount)
    }

    /// Makes a directory and mounts there.
    pub(super) fn mount_at(
        &mut self,
        step: &'static str,
        base: Base,
        path: &str,
        tree: impl Into<Arg>,
    ) -> io::Result<()> {
        let place = self.target(step, base, Path::new(path.trim_start_matches('/')), true)?;
        self.attach(step, tree, place);
        Ok(())
    }

    /// The same for what the kernel shows: an image that has a link there would have us mount it elsewhere, and run
    /// the member without it.
    pub(super) fn mount_plainly_at(
        &mut self,
        step: &'static str,
        base: Base,
        path: &str,
        tree: impl Into<Arg>,
    ) -> io::Result<()> {
        let path = self.script.text(path)?;
        let kind = TARGET_PLAIN_DIRECTORY;
        let place = open!(self, step; TARGET, Arg::from(base), path, kind, 0o755u32);
        self.attach(step, tree, place);
        Ok(())
    }

    /// Finds a place, or makes it.
    pub(super) fn target(
        &mut self,
        step: impl Into<Step>,
        base: impl Into<Arg>,
        path: &Path,
        directory: bool,
    ) -> io::Result<Register> {
        let path = self.script.path(path)?;
        let kind = if directory { TARGET_DIRECTORY } else { TARGET_FILE };
        Ok(open!(self, step; TARGET, base.into(), path, kind, 0o755u32))
    }

    /// Finds a place that may be missing; the next `skip` operations are left out then.
    pub(super) fn find(
        &mut self,
        step: impl Into<Step>,
        base: Base,
        path: &Path,
        directory: bool,
        skip: u8,
    ) -> io::Result<Register> {
        let path = self.script.path(path)?;
        let flags = O_PATH | if directory { libc::O_DIRECTORY } else { 0 };
        let resolve = match base {
            Base::Own(_) => ON_THIS,
            Base::Root(_) | Base::HostRoot => IN_ROOT,
        };
        let how = self.script.words(&[flags as u64, 0, resolve]);
        let place = open!(self, step; SYS_openat2, base, path, how, 24u32);
        self.script.tolerate_last([libc::ENOENT, libc::ENOTDIR], skip);
        Ok(place)
    }

    /// Mounts, and closes the place: there may be many.
    pub(super) fn attach(&mut self, step: impl Into<Step>, tree: impl Into<Arg>, place: Register) {
        self.attach_only(step, tree, place);
        op!(self, "close a mount point"; SYS_close, place);
    }

    /// Mounts, in one operation.
    pub(super) fn attach_only(&mut self, step: impl Into<Step>, tree: impl Into<Arg>, place: Register) {
        let (tree, empty) = (tree.into(), self.empty);
        let flags = libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH;
        op!(self, step; SYS_move_mount, tree, empty, place, empty, flags);
    }

    pub(super) fn set_read_only(&mut self, step: impl Into<Step>, tree: impl Into<Arg>, recursive: bool) {
        let attributes = self.script.words(&[mount::READ_ONLY, 0, 0, 0]);
        let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
        let (tree, empty) = (tree.into(), self.empty);
        op!(self, step; SYS_mount_setattr, tree, empty, flags, attributes, 32u32);
    }
}
