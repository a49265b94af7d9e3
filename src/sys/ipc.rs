//! System V and POSIX communication of processes: a namespace and the memory that goes with it, held by descriptors.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
};

use nix::sched::{CloneFlags, setns, unshare};
use rustix::{
    fs::CWD,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
        UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount,
        open_tree, unmount,
    },
};

use super::netns::on_thread;

/// Lives as long as this value, or what was made of it.
#[derive(Debug)]
pub struct Ipc {
    pub namespace: OwnedFd,
    /// A mount namespace with nothing in it but the shared memory: kernels before 6.15 copy a mount only from a
    /// namespace that they are in.
    keeper: OwnedFd,
}

impl Ipc {
    pub fn new() -> io::Result<Ipc> {
        on_thread(|| {
            unshare(CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS)?;
            let ipc = Ipc {
                namespace: File::open("/proc/thread-self/ns/ipc")?.into(),
                keeper: File::open("/proc/thread-self/ns/mnt")?.into(),
            };
            mount_change(
                "/",
                MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
            )?;
            let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
            fsconfig_set_string(context.as_fd(), "mode", "1777")?;
            fsconfig_create(context.as_fd())?;
            let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
                | MountAttrFlags::MOUNT_ATTR_NODEV
                | MountAttrFlags::MOUNT_ATTR_NOEXEC;
            let memory = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
            move_mount(
                memory.as_fd(),
                "",
                CWD,
                "/",
                MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
            )?;
            rustix::process::fchdir(&memory)?;
            rustix::process::pivot_root(".", ".")?;
            unmount(".", UnmountFlags::DETACH)?;
            Ok(ipc)
        })
    }

    /// The shared memory as a mount in no tree, for one member.
    pub fn memory(&self) -> io::Result<OwnedFd> {
        let keeper = self.keeper.try_clone()?;
        on_thread(move || {
            unshare(CloneFlags::CLONE_FS)?;
            setns(&keeper, CloneFlags::CLONE_NEWNS)?;
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            Ok(open_tree(CWD, "/", flags)?)
        })
    }
}
