//! The mount tree of a member: I-16…I-18, V-*.

use std::{
    io,
    os::fd::AsRawFd,
    path::{Component, Path, PathBuf},
};

use libc::{
    SYS_chdir, SYS_close, SYS_fchdir, SYS_fchown, SYS_fcntl, SYS_mknodat, SYS_mount, SYS_move_mount,
    SYS_open_tree, SYS_openat, SYS_pivot_root, SYS_symlinkat, SYS_umount2, SYS_write,
};

use super::{
    Prepared, Source, Writer,
    blocks::{Base, NOTHING_SPECIAL, O_PATH},
};
use crate::{
    container::{
        cgroup::{At, CGROUPS},
        plan::{Plan, Rootfs, SANDBOX_IN_IMAGE, Target},
        script::{Arg, Register, Slot},
        tree::Tree,
        users::Identity,
    },
    sys::mount,
};

const CLONE_TREE: u32 = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;

impl Writer {
    pub(super) fn mount_tree(&mut self, plan: &Plan, prepared: &Prepared) -> io::Result<()> {
        self.separate_mounts();
        let sandbox = self.tree(Some(Slot::Sandbox), "take hold of the sandbox", &prepared.sandbox)?;
        match &prepared.root {
            Some(root) => {
                let root = self.tree(Some(Slot::Root), "take hold of the root file system", root)?;
                self.own_root(plan, prepared, root, sandbox)
            }
            None => self.host_root(plan, prepared, sandbox),
        }
    }

    /// The host's root as Mesos shows it: only `/proc` is new, and the sandbox is a mount of its own, so that
    /// everything below it can be found from a descriptor.
    fn host_root(&mut self, plan: &Plan, prepared: &Prepared, sandbox: Arg) -> io::Result<()> {
        let directory = O_PATH | libc::O_DIRECTORY;
        open!(self in Slot::Root, "open /"; SYS_openat, libc::AT_FDCWD, self.slash, directory);
        let proc = self.processes(prepared)?;
        let place = self.script.text("/proc")?;
        let place = open!(self, "open /proc"; SYS_openat, libc::AT_FDCWD, place, directory);
        self.attach("mount /proc", proc, place);
        self.protect_host(plan)?;
        let place = match &prepared.closed {
            None => {
                let place = self.script.path(&plan.sandbox)?;
                open!(self, "open the sandbox"; SYS_openat, libc::AT_FDCWD, place, directory)
            }
            // The member sees nothing there but the way to what is its own.
            Some(closed) => {
                let way = self.fresh("tmpfs", &[("mode", "711"), ("size", "64k")], NOTHING_SPECIAL)?;
                let place = self.script.path(&closed.at)?;
                let place = open!(self, "open what is closed above the sandbox"; SYS_openat, libc::AT_FDCWD, place, directory);
                self.attach("cover what is closed above the sandbox", way, place);
                self.target("make the way to the sandbox", Base::Own(way), &closed.rest, true)?
            }
        };
        self.attach("mount the sandbox", sandbox, place);
        if !prepared.cgroup_view.is_empty() {
            // Not just covered: who reads the list of mounts would take the host's for its own.
            let place = self.script.text(CGROUPS)?;
            op!(self, "let go of the host's cgroups"; SYS_umount2, place, libc::MNT_DETACH);
            // It is none, or one that an ordinary user cannot part from.
            self.script.tolerate_last([libc::EINVAL, libc::ENOENT], 0);
            self.cgroups_shown(Base::HostRoot, &prepared.cgroup_view)?;
        }
        self.volumes(plan, prepared, Base::HostRoot, sandbox)?;
        // The working directory may lie below what is now under a mount.
        op!(self, "change to /"; SYS_chdir, self.slash);
        Ok(())
    }

    /// A root file system of its own.
    fn own_root(&mut self, plan: &Plan, prepared: &Prepared, root: Arg, sandbox: Arg) -> io::Result<()> {
        let rootless = prepared.confinement.rootless;
        let base = Base::Root(root);
        let (empty, slash) = (self.empty, self.slash);
        let from_fd = libc::MOVE_MOUNT_F_EMPTY_PATH;
        op!(self, "mount the root file system"; SYS_move_mount, root, empty, libc::AT_FDCWD, slash, from_fd);

        let proc = self.processes(prepared)?;
        self.mount_plainly_at("mount /proc", base, "proc", proc)?;
        let sys = self.kernel_objects(rootless)?;
        self.mount_plainly_at("mount /sys", base, "sys", sys)?;
        self.cgroups_shown(base, &prepared.cgroup_view)?;
        self.devices(plan, base, rootless)?;

        self.mount_at("mount the sandbox", base, SANDBOX_IN_IMAGE, sandbox)?;
        self.volumes(plan, prepared, base, sandbox)?;
        self.protect(plan, base)?;
        // I-12: as the image says, made if it is not there.
        let cwd = plain(&plan.cwd);
        if !cwd.as_os_str().is_empty() {
            self.target("make the working directory", base, &cwd, true)?;
        }
        if let Rootfs::Directory { read_only: true, .. } | Rootfs::Mounted { read_only: true, .. } =
            plan.rootfs
        {
            self.set_read_only("make the root read-only", root, false);
        }
        self.enter_root(root)
    }

    /// Makes what is mounted over `/` the only thing that is there.
    fn enter_root(&mut self, root: Arg) -> io::Result<()> {
        op!(self, "enter the root file system"; SYS_fchdir, root);
        let dot = self.script.text(".")?;
        op!(self, "change the root"; SYS_pivot_root, dot, dot);
        op!(self, "let go of the old root"; SYS_umount2, dot, libc::MNT_DETACH);
        op!(self, "change to the new root"; SYS_chdir, self.slash);
        Ok(())
    }

    /// A mount tree with nothing in it, and no place to put something.
    pub(super) fn enter_nothing(&mut self) -> io::Result<()> {
        self.separate_mounts();
        let options = [("mode", "555"), ("size", "0"), ("nr_inodes", "1")];
        let root = self.fresh("tmpfs", &options, NOTHING_SPECIAL | mount::READ_ONLY)?;
        let (empty, slash, from_fd) = (self.empty, self.slash, libc::MOVE_MOUNT_F_EMPTY_PATH);
        op!(self, "mount an empty root"; SYS_move_mount, root, empty, libc::AT_FDCWD, slash, from_fd);
        self.enter_root(root.into())
    }

    fn separate_mounts(&mut self) {
        let slave = libc::MS_REC | libc::MS_SLAVE;
        op!(self, "separate the mount tree from the host's"; SYS_mount, 0u32, self.slash, 0u32, slave, 0u32);
    }

    /// The proc file system that shows the processes which the member is to see.
    fn processes(&mut self, prepared: &Prepared) -> io::Result<Register> {
        match &prepared.pod {
            None => self.fresh_in(Some(Slot::Proc), "proc", &[], NOTHING_SPECIAL),
            Some(pod) => {
                let (proc, copy) = (pod.proc.as_raw_fd(), libc::F_DUPFD_CLOEXEC);
                Ok(open!(self in Slot::Proc, "take hold of the pod's /proc"; SYS_fcntl, proc, copy, 3u32))
            }
        }
    }

    /// `/sys`. Only who owns the network namespace may have a new one; others see the host's.
    fn kernel_objects(&mut self, rootless: bool) -> io::Result<Register> {
        if !rootless {
            return self.fresh_in(Some(Slot::Sys), "sysfs", &[], NOTHING_SPECIAL | mount::READ_ONLY);
        }
        let place = self.script.text("/sys")?;
        let flags = CLONE_TREE | libc::AT_RECURSIVE as u32;
        let sys = open!(self in Slot::Sys, "bind /sys"; SYS_open_tree, libc::AT_FDCWD, place, flags);
        self.set_read_only("make /sys read-only", sys, true);
        Ok(sys)
    }

    /// `/sys/fs/cgroup`: the member's own cgroups, to be read; empty if there are none.
    fn cgroups_shown(&mut self, base: Base, view: &[(At, Tree)]) -> io::Result<()> {
        const STEP: &str = "mount /sys/fs/cgroup";
        let place = Path::new(CGROUPS.trim_start_matches('/'));
        if let [(At::Top, only)] = view {
            let tree = self.tree(None, STEP, only)?;
            let place = self.find("find /sys/fs/cgroup", base, place, true, 1)?;
            self.attach_only(STEP, tree, place);
            return Ok(());
        }
        let options = [("mode", "755"), ("size", "64k")];
        let directory = self.fresh_in(Some(Slot::Cgroups), "tmpfs", &options, NOTHING_SPECIAL)?;
        // Not there when the kernel has no cgroups.
        let place = self.find("find /sys/fs/cgroup", base, place, true, 1)?;
        self.attach_only(STEP, directory, place);
        for (at, tree) in view {
            let At::Below {
                directory: name,
                links,
            } = at
            else {
                continue;
            };
            let step = format!("mount /sys/fs/cgroup/{name}");
            let tree = self.tree(None, &step, tree)?;
            let place = self.target(step.clone(), Base::Own(directory), Path::new(name), true)?;
            self.attach(step, tree, place);
            for link in links {
                let (to, link) = (self.script.text(name)?, self.script.text(link)?);
                op!(self, "link the controllers of /sys/fs/cgroup"; SYS_symlinkat, to, directory, link);
            }
        }
        self.set_read_only("make /sys/fs/cgroup read-only", directory, false);
        Ok(())
    }

    fn devices(&mut self, plan: &Plan, base: Base, rootless: bool) -> io::Result<()> {
        let dev = self.fresh_in(
            Some(Slot::Dev),
            "tmpfs",
            &[("mode", "755"), ("size", "64k")],
            mount::NO_SUID,
        )?;
        self.mount_plainly_at("mount /dev", base, "dev", dev)?;
        for device in &plan.devices {
            if rootless {
                // Nodes of our own are not for us to make; those of the host are there.
                let step = format!("bind /dev/{}", device.name);
                let place = self.script.text(&format!("/dev/{}", device.name))?;
                let tree = open!(self, step.clone(); SYS_open_tree, libc::AT_FDCWD, place, CLONE_TREE);
                let target = self.target(step.clone(), Base::Own(dev), Path::new(&device.name), false)?;
                self.attach(step, tree, target);
                continue;
            }
            let (name, mode) = (self.script.text(&device.name)?, libc::S_IFCHR | device.mode);
            let number = libc::makedev(device.major, device.minor);
            op!(self, format!("make /dev/{}", device.name); SYS_mknodat, dev, name, mode, number);
        }
        for (name, to) in [
            ("fd", "/proc/self/fd"),
            ("stdin", "/proc/self/fd/0"),
            ("stdout", "/proc/self/fd/1"),
            ("stderr", "/proc/self/fd/2"),
            ("ptmx", "pts/ptmx"),
        ] {
            let (name, to) = (self.script.text(name)?, self.script.text(to)?);
            op!(self, "make the links of /dev"; SYS_symlinkat, to, dev, name);
        }
        // The group `tty`, as everywhere.
        let users = plan.namespaces.users.as_ref();
        let group = users
            .and_then(|users| users.range.outside(5))
            .unwrap_or(5)
            .to_string();
        let options = [("ptmxmode", "0666"), ("mode", "0620"), ("gid", group.as_str())];
        // There is no such group in a namespace with nobody but root.
        let options = if rootless { &options[..2] } else { &options[..] };
        let terminals = self.fresh_in(
            Some(Slot::Terminals),
            "devpts",
            options,
            mount::NO_SUID | mount::NO_EXEC,
        )?;
        self.mount_at("mount /dev/pts", Base::Own(dev), "pts", terminals)?;
        let queues = self.fresh("mqueue", &[], NOTHING_SPECIAL)?;
        self.mount_at("mount /dev/mqueue", Base::Own(dev), "mqueue", queues)
    }

    /// The plan's mounts, each found from the root or the sandbox at the moment it is made: an earlier one may hold
    /// the place of a later one (V-16).
    fn volumes(&mut self, plan: &Plan, prepared: &Prepared, root: Base, sandbox: Arg) -> io::Result<()> {
        for (volume, made) in plan.mounts.iter().zip(&prepared.mounts) {
            let tree: Arg = match &made.source {
                Source::Tree(tree) => self.tree(None, &format!("take hold of {}", volume.field), tree)?,
                Source::Tmpfs { size, mode } => {
                    let (mode, size) = (format!("{mode:o}"), size.map(|size| size.to_string()));
                    let options: Vec<_> = [("mode", mode.as_str())]
                        .into_iter()
                        .chain(size.as_deref().map(|size| ("size", size)))
                        .collect();
                    let flags = if volume.read_only { mount::READ_ONLY } else { 0 };
                    self.fresh("tmpfs", &options, NOTHING_SPECIAL | flags)?.into()
                }
                Source::Secret(bytes) => {
                    self.secret(bytes, &prepared.confinement.outside, volume.read_only)?
                }
            };
            let (base, path): (Arg, &Path) = match &volume.target {
                Target::Root(path) => (root.into(), path),
                Target::Sandbox(path) => (sandbox, path),
            };
            let step = format!("mount {} at {path:?}", volume.field);
            let place = self.target(step.clone(), base, path, made.directory)?;
            self.attach(step, tree, place);
        }
        Ok(())
    }

    /// A file on a file system of its own, of which only that one file is to be seen (V-12).
    fn secret(&mut self, bytes: &[u8], owner: &Identity, read_only: bool) -> io::Result<Arg> {
        let held = self.fresh("tmpfs", &[("mode", "700")], NOTHING_SPECIAL)?;
        // A file can be bound only from a mount that is in the tree; this one is there for a moment.
        let held_at = self.script.text("/proc")?;
        let place =
            open!(self, "hold a secret"; SYS_openat, libc::AT_FDCWD, held_at, O_PATH | libc::O_DIRECTORY);
        self.attach("hold a secret", held, place);
        let (name, data) = (self.script.text("secret")?, self.script.bytes(bytes));
        let flags = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY | libc::O_CLOEXEC;
        let file = open!(self, "make a secret's file"; SYS_openat, held, name, flags, 0o400u32);
        op!(self, "write a secret"; SYS_write, file, data, bytes.len() as u64);
        op!(self, "own a secret"; SYS_fchown, file, owner.uid, owner.gid);
        let flags = CLONE_TREE | libc::AT_EMPTY_PATH as u32;
        let tree = open!(self, "bind a secret"; SYS_open_tree, file, self.empty, flags);
        if read_only {
            self.set_read_only("protect a secret", tree, false);
        }
        op!(self, "close a secret"; SYS_close, file);
        op!(self, "let go of a secret's file system"; SYS_umount2, held_at, libc::MNT_DETACH);
        Ok(tree.into())
    }

    /// Masked and read-only paths. Those of `/proc` and `/sys` are found from the file systems made above, whatever
    /// was mounted or linked over them since.
    fn protect(&mut self, plan: &Plan, root: Base) -> io::Result<()> {
        let null = self.script.text("null")?;
        for path in &plan.masked_paths {
            let Some((base, rest, directory)) = locate(path, root) else {
                continue;
            };
            let step = format!("mask /{}", path.display());
            let tree = match directory {
                true => {
                    let options = [("mode", "555"), ("size", "0"), ("nr_inodes", "1")];
                    self.fresh("tmpfs", &options, NOTHING_SPECIAL | mount::READ_ONLY)?
                }
                false => open!(self, step.clone(); SYS_open_tree, Register::of(Slot::Dev), null, CLONE_TREE),
            };
            let place = self.find(step.clone(), base, &rest, directory, 1)?;
            self.attach_only(step, tree, place);
        }
        for path in &plan.read_only_paths {
            let Some((base, rest, directory)) = locate(path, root) else {
                continue;
            };
            self.read_only_at(path, base, &rest, directory)?;
        }
        Ok(())
    }

    /// A place below a file system that we made, on this kernel or not.
    pub(super) fn read_only_below(&mut self, path: &Path, base: Base, rest: &Path) -> io::Result<()> {
        let Ok(found) = Path::new("/").join(path).metadata() else {
            return Ok(());
        };
        self.read_only_at(path, base, rest, found.is_dir())
    }

    fn read_only_at(&mut self, path: &Path, base: Base, rest: &Path, directory: bool) -> io::Result<()> {
        let step = format!("make /{} read-only", path.display());
        let place = self.find(step.clone(), base, rest, directory, 3)?;
        let flags = CLONE_TREE | (libc::AT_EMPTY_PATH | libc::AT_RECURSIVE) as u32;
        let tree = open!(self, step.clone(); SYS_open_tree, place, self.empty, flags);
        self.set_read_only(step.clone(), tree, true);
        self.attach_only(step, tree, place);
        Ok(())
    }
}

/// Without what could lead up: a place that needs that is not worth making.
fn plain(path: &Path) -> PathBuf {
    path.components()
        .filter(|part| matches!(part, Component::Normal(_)))
        .collect()
}

/// Where to look for a path to protect, and whether it is a directory on this kernel. `None`: not there at all.
fn locate(path: &Path, root: Base) -> Option<(Base, PathBuf, bool)> {
    for (top, slot) in [("proc", Slot::Proc), ("sys", Slot::Sys)] {
        if let Ok(rest) = path.strip_prefix(top) {
            let directory = Path::new("/").join(path).metadata().ok()?.is_dir();
            return Some((Base::Own(Register::of(slot)), rest.to_owned(), directory));
        }
    }
    Some((root, path.to_owned(), false))
}
