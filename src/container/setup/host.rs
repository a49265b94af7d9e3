//! The host's root as a member may change it: what the kernel shows there is not part of it.
//!
//! Root of a member on the host's root writes to the host's files, as in Mesos. It does not have to be able to name
//! the program that the kernel runs for a core (`core_pattern`), to press SysRq or to send the machine to sleep: none
//! of that is a file of anybody's, and all of it needs nothing but user 0.

use std::{
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::{Writer, blocks::Base};
use crate::{
    container::{
        plan::Plan,
        script::{Register, Slot},
    },
    sys::mount,
};

impl Writer {
    /// After `/proc` was mounted, and before anything else is.
    pub(super) fn protect_host(&mut self, plan: &Plan) -> io::Result<()> {
        for path in &plan.read_only_paths {
            match path.strip_prefix("proc") {
                Ok(rest) => self.read_only_below(path, Base::Own(Register::of(Slot::Proc)), rest)?,
                Err(_) => self.read_only_place(path)?,
            }
        }
        Ok(())
    }

    /// A mount of the host with all that is mounted below, in the member's own tree of mounts. Of `/dev` only itself:
    /// terminals and shared memory are there to be written to.
    fn read_only_place(&mut self, path: &Path) -> io::Result<()> {
        let shown = Path::new("/").join(path);
        let recursive = path != Path::new("dev");
        if !recursive && !has_own_shared_memory() {
            return Ok(());
        }
        let place = self.script.path(&shown)?;
        let attributes = self.script.words(&[mount::READ_ONLY, 0, 0, 0]);
        let flags = if recursive { libc::AT_RECURSIVE } else { 0 };
        let step = format!("make {} read-only", shown.display());
        op!(self, step; libc::SYS_mount_setattr, libc::AT_FDCWD, place, flags, attributes, 32u32);
        // Not every host has them, or as mounts.
        self.script.tolerate_last([libc::EINVAL, libc::ENOENT], 0);
        Ok(())
    }
}

/// Whether it stays as it is when `/dev` becomes read-only.
fn has_own_shared_memory() -> bool {
    let device = |path: &str| PathBuf::from(path).metadata().map(|found| found.dev()).ok();
    match device("/dev/shm") {
        None => true,
        shared => shared != device("/dev"),
    }
}
