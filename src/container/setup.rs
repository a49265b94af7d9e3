//! From a plan to a script: what the member's processes do between their birth and the exec.
//!
//! Two processes walk it. The first is the init: it makes the mount tree and the other namespaces, waits until it is
//! attached to its cgroups, and forks. The second becomes the task: it gives up all it must not keep, makes sure
//! that there is something to exec, says that it waits at the gate, and execs when the gate opens.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    plan::{CapabilitySet, Plan, Rootfs, SANDBOX_IN_IMAGE, Target},
    script::{Arg, Data, Register, Script, Slot, Step},
    seccomp::Program,
    users::Identity,
};
use crate::sys::{init_format as format, mount};

/// Bytes that open the gate, in this order.
pub(super) const ATTACHED: u8 = b'a';
pub(super) const RELEASED: u8 = b'r';

/// What [`format::TELL`] tells when the task waits at its gate.
pub(super) const AT_GATE: u32 = 1;

/// What the executor opened and looked up for a plan.
#[derive(Debug)]
pub(super) struct Prepared {
    pub identity: Identity,
    /// The root file system as a detached mount; none for the host's.
    pub root: Option<OwnedFd>,
    /// The sandbox as a detached mount.
    pub sandbox: OwnedFd,
    /// For each mount of the plan, in order.
    pub mounts: Vec<PreparedMount>,
    pub stdin: Arc<OwnedFd>,
    pub stdout: Arc<OwnedFd>,
    pub stderr: Arc<OwnedFd>,
    /// The system call filter, if there is to be one.
    pub filter: Option<Arc<Program>>,
    /// The highest capability this kernel knows.
    pub last_capability: u32,
}

#[derive(Debug)]
pub(super) struct PreparedMount {
    pub source: Source,
    pub directory: bool,
}

#[derive(Debug)]
pub(super) enum Source {
    Tree(Arc<OwnedFd>),
    Tmpfs { size: Option<u64>, mode: u32 },
    Secret(Arc<[u8]>),
}

const O_PATH: i32 = libc::O_PATH | libc::O_CLOEXEC;
const IN_ROOT: u64 = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;

/// Writes the script of a member.
pub(super) fn write(plan: &Plan, prepared: Prepared) -> io::Result<Script> {
    let mut script = Writer {
        script: Script::default(),
    };
    script.begin()?;
    script.mount_tree(plan, &prepared)?;
    script.other_namespaces(plan)?;
    script.fork();
    script.task(plan, &prepared)?;
    let mut script = script.script;
    for mount in prepared.mounts {
        if let Source::Tree(tree) = mount.source {
            script.keep_shared(&tree);
        }
    }
    if let Some(root) = prepared.root {
        script.keep(root);
    }
    script.keep(prepared.sandbox);
    for stream in [&prepared.stdin, &prepared.stdout, &prepared.stderr] {
        script.keep_shared(stream);
    }
    Ok(script)
}

struct Writer {
    script: Script,
}

impl Writer {
    fn call(&mut self, step: impl Into<Step>, number: i64, args: &[Arg]) -> &mut format::Op {
        self.script.call(step, number, args)
    }

    fn special(&mut self, step: impl Into<Step>, number: i32, args: &[Arg]) -> &mut format::Op {
        self.script.call(step, number.into(), args)
    }

    /// Nothing of the executor's process state is inherited.
    fn begin(&mut self) -> io::Result<()> {
        self.special("reset signals", format::DEFAULT_SIGNALS, &[]);
        self.call("start a session", libc::SYS_setsid, &[]);
        self.call("clear the umask", libc::SYS_umask, &[0u32.into()]);
        // The executor's death is this process's, and with it that of the whole pid namespace. If it has died
        // before this line, the gate tells.
        self.call(
            "follow the executor",
            libc::SYS_prctl,
            &[libc::PR_SET_PDEATHSIG.into(), libc::SIGKILL.into()],
        );
        // Nobody in the container may look into this process or use its descriptors.
        self.call(
            "become opaque",
            libc::SYS_prctl,
            &[libc::PR_SET_DUMPABLE.into(), 0u32.into()],
        );
        let name = self.script.text("podling-init")?;
        self.call(
            "name the init",
            libc::SYS_prctl,
            &[libc::PR_SET_NAME.into(), name.into()],
        );
        Ok(())
    }

    fn mount_tree(&mut self, plan: &Plan, prepared: &Prepared) -> io::Result<()> {
        let (empty, root) = (self.script.text("")?, self.script.text("/")?);
        self.call(
            "separate the mount tree from the host's",
            libc::SYS_mount,
            &[
                0u32.into(),
                root.into(),
                0u32.into(),
                (libc::MS_REC | libc::MS_SLAVE).into(),
                0u32.into(),
            ],
        );
        match &prepared.root {
            Some(fd) => self.own_root(plan, prepared, fd.as_raw_fd(), empty, root)?,
            None => self.host_root(plan, prepared, empty, root)?,
        }
        Ok(())
    }

    /// The host's root as Mesos shows it: only `/proc` is new, and the sandbox is a mount of its own, so that
    /// everything below it can be found from a descriptor.
    fn host_root(&mut self, plan: &Plan, prepared: &Prepared, empty: Data, root: Data) -> io::Result<()> {
        self.script.open_in(
            Slot::Root,
            "open /",
            libc::SYS_openat,
            &[
                libc::AT_FDCWD.into(),
                root.into(),
                (O_PATH | libc::O_DIRECTORY).into(),
            ],
        );
        let proc = self.fresh_in(Some(Slot::Proc), "proc", &[], NOTHING_SPECIAL)?;
        let place = self.script.text("/proc")?;
        let place = self.script.open(
            "open /proc",
            libc::SYS_openat,
            &[
                libc::AT_FDCWD.into(),
                place.into(),
                (O_PATH | libc::O_DIRECTORY).into(),
            ],
        );
        self.attach("mount /proc", proc.into(), place, empty);

        let place = self.script.path(&plan.sandbox)?;
        let place = self.script.open(
            "open the sandbox",
            libc::SYS_openat,
            &[
                libc::AT_FDCWD.into(),
                place.into(),
                (O_PATH | libc::O_DIRECTORY).into(),
            ],
        );
        self.attach(
            "mount the sandbox",
            prepared.sandbox.as_raw_fd().into(),
            place,
            empty,
        );
        self.volumes(
            plan,
            prepared,
            prepared.sandbox.as_raw_fd().into(),
            RootArg::Slot,
            empty,
        )
    }

    /// A root file system of its own (I-16…I-18).
    fn own_root(
        &mut self,
        plan: &Plan,
        prepared: &Prepared,
        fd: RawFd,
        empty: Data,
        root: Data,
    ) -> io::Result<()> {
        self.call(
            "mount the root file system",
            libc::SYS_move_mount,
            &[
                fd.into(),
                empty.into(),
                libc::AT_FDCWD.into(),
                root.into(),
                MOVE_FROM_FD.into(),
            ],
        );
        let at = RootArg::Fd(fd);
        // In this order: sysfs shows the network namespace it is mounted from, proc the pid namespace.
        let proc = self.fresh_in(Some(Slot::Proc), "proc", &[], NOTHING_SPECIAL)?;
        self.place("mount /proc", at, "proc", proc.into(), empty)?;
        let sys = self.fresh_in(Some(Slot::Sys), "sysfs", &[], NOTHING_SPECIAL | mount::READ_ONLY)?;
        self.place("mount /sys", at, "sys", sys.into(), empty)?;
        let cgroup = self.fresh(
            "tmpfs",
            &[("mode", "755".into()), ("size", "4k".into())],
            NOTHING_SPECIAL | mount::READ_ONLY,
        )?;
        // Not there when the kernel has no cgroups.
        self.place_where_possible(
            "mount /sys/fs/cgroup",
            Slot::Sys,
            "fs/cgroup",
            cgroup.into(),
            empty,
        )?;
        let dev = self.fresh_in(
            Some(Slot::Dev),
            "tmpfs",
            &[("mode", "755".into()), ("size", "64k".into())],
            mount::NO_SUID,
        )?;
        self.place("mount /dev", at, "dev", dev.into(), empty)?;
        self.devices(plan, dev, empty)?;

        self.place(
            "mount the sandbox",
            at,
            SANDBOX_IN_IMAGE,
            prepared.sandbox.as_raw_fd().into(),
            empty,
        )?;
        self.volumes(plan, prepared, prepared.sandbox.as_raw_fd().into(), at, empty)?;
        self.protect(plan, at, empty)?;
        // I-12: as the image says, made if it is not there.
        self.target("make the working directory", at, &relative(&plan.cwd), true)?;
        if let Rootfs::Directory { read_only: true, .. } = plan.rootfs {
            self.set_read_only("make the root read-only", fd.into(), empty, false);
        }
        self.call("enter the root file system", libc::SYS_fchdir, &[fd.into()]);
        let dot = self.script.text(".")?;
        self.call("change the root", libc::SYS_pivot_root, &[dot.into(), dot.into()]);
        self.call(
            "let go of the old root",
            libc::SYS_umount2,
            &[dot.into(), libc::MNT_DETACH.into()],
        );
        self.call("change to the new root", libc::SYS_chdir, &[root.into()]);
        Ok(())
    }

    fn devices(&mut self, plan: &Plan, dev: Register, empty: Data) -> io::Result<()> {
        for device in &plan.devices {
            let name = self.script.text(&device.name)?;
            self.call(
                format!("make /dev/{}", device.name),
                libc::SYS_mknodat,
                &[
                    dev.into(),
                    name.into(),
                    (libc::S_IFCHR | device.mode).into(),
                    libc::makedev(device.major, device.minor).into(),
                ],
            );
        }
        for (name, to) in [
            ("fd", "/proc/self/fd"),
            ("stdin", "/proc/self/fd/0"),
            ("stdout", "/proc/self/fd/1"),
            ("stderr", "/proc/self/fd/2"),
            ("ptmx", "pts/ptmx"),
        ] {
            let (name, to) = (self.script.text(name)?, self.script.text(to)?);
            self.call(
                "make the links of /dev",
                libc::SYS_symlinkat,
                &[to.into(), dev.into(), name.into()],
            );
        }
        let options = [
            ("newinstance", String::new()),
            ("ptmxmode", "0666".into()),
            ("mode", "0620".into()),
            ("gid", "5".into()),
        ];
        let pts = self.fresh("devpts", &options, mount::NO_SUID | mount::NO_EXEC)?;
        self.place("mount /dev/pts", RootArg::Register(dev), "pts", pts.into(), empty)?;
        let queues = self.fresh("mqueue", &[], NOTHING_SPECIAL)?;
        self.place(
            "mount /dev/mqueue",
            RootArg::Register(dev),
            "mqueue",
            queues.into(),
            empty,
        )?;
        Ok(())
    }

    /// The plan's mounts, each found from the root or the sandbox at the moment it is made: an earlier one may hold
    /// the place of a later one (V-16).
    fn volumes(
        &mut self,
        plan: &Plan,
        prepared: &Prepared,
        sandbox: Arg,
        root: RootArg,
        empty: Data,
    ) -> io::Result<()> {
        for (mount, made) in plan.mounts.iter().zip(&prepared.mounts) {
            let tree: Arg = match &made.source {
                Source::Tree(fd) => fd.as_raw_fd().into(),
                Source::Tmpfs { size, mode } => {
                    let mut options = vec![("mode", format!("{mode:o}"))];
                    options.extend(size.map(|size| ("size", size.to_string())));
                    let flags = if mount.read_only { mount::READ_ONLY } else { 0 };
                    self.fresh("tmpfs", &options, NOTHING_SPECIAL | flags)?.into()
                }
                Source::Secret(bytes) => self.secret(bytes, prepared, empty)?,
            };
            let (root, path): (Arg, &Path) = match &mount.target {
                Target::Root(path) => (root.into(), path),
                Target::Sandbox(path) => (sandbox, path),
            };
            let step = format!("mount {} at {:?}", mount.field, path);
            let path = self.script.path(path)?;
            let kind = if made.directory {
                format::TARGET_DIRECTORY
            } else {
                format::TARGET_FILE
            };
            let place = self.script.open(
                step.clone(),
                format::TARGET.into(),
                &[root, path.into(), kind.into(), 0o755u32.into()],
            );
            self.attach(step, tree, place, empty);
        }
        Ok(())
    }

    /// A file on a file system of its own, of which only that one file is to be seen (V-12).
    fn secret(&mut self, bytes: &[u8], prepared: &Prepared, empty: Data) -> io::Result<Arg> {
        let held = self.fresh("tmpfs", &[("mode", "700".into())], NOTHING_SPECIAL)?;
        // A file can be bound only from a mount that is in the tree; this one is there for a moment.
        let held_at = self.script.text("/proc")?;
        let place = self.script.open(
            "hold a secret",
            libc::SYS_openat,
            &[
                libc::AT_FDCWD.into(),
                held_at.into(),
                (O_PATH | libc::O_DIRECTORY).into(),
            ],
        );
        self.attach("hold a secret", held.into(), place, empty);
        let name = self.script.text("secret")?;
        let flags = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY | libc::O_CLOEXEC;
        let file = self.script.open(
            "make a secret's file",
            libc::SYS_openat,
            &[held.into(), name.into(), flags.into(), 0o400u32.into()],
        );
        let data = self.script.bytes(bytes);
        self.call(
            "write a secret",
            libc::SYS_write,
            &[file.into(), data.into(), (bytes.len() as u64).into()],
        );
        let Identity { uid, gid, .. } = prepared.identity;
        self.call(
            "own a secret",
            libc::SYS_fchown,
            &[file.into(), uid.into(), gid.into()],
        );
        let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH as u32;
        let tree = self.script.open(
            "bind a secret",
            libc::SYS_open_tree,
            &[file.into(), empty.into(), flags.into()],
        );
        self.call("close a secret", libc::SYS_close, &[file.into()]);
        self.call(
            "let go of a secret's file system",
            libc::SYS_umount2,
            &[held_at.into(), libc::MNT_DETACH.into()],
        );
        Ok(tree.into())
    }

    /// Masked and read-only paths (I-16, I-17). Those of `/proc` and `/sys` are found from the file systems made
    /// above, whatever was mounted or linked over them since.
    fn protect(&mut self, plan: &Plan, root: RootArg, empty: Data) -> io::Result<()> {
        let null = self.script.text("null")?;
        for path in &plan.masked_paths {
            let Some((base, rest, directory)) = locate(path, root) else {
                continue;
            };
            let step = format!("mask /{}", path.display());
            let tree = match directory {
                true => self.fresh(
                    "tmpfs",
                    &[
                        ("mode", "555".into()),
                        ("size", "0".into()),
                        ("nr_inodes", "1".into()),
                    ],
                    NOTHING_SPECIAL | mount::READ_ONLY,
                )?,
                false => {
                    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
                    self.script.open(
                        step.clone(),
                        libc::SYS_open_tree,
                        &[Arg::Register(Register::of(Slot::Dev)), null.into(), flags.into()],
                    )
                }
            };
            self.over(step, base, &rest, directory, tree, empty)?;
        }
        for path in &plan.read_only_paths {
            let Some((base, rest, directory)) = locate(path, root) else {
                continue;
            };
            let step = format!("make /{} read-only", path.display());
            let place = self.find(step.clone(), base, &rest, directory, 3)?;
            let flags = libc::OPEN_TREE_CLONE
                | libc::OPEN_TREE_CLOEXEC
                | (libc::AT_EMPTY_PATH | libc::AT_RECURSIVE) as u32;
            let tree = self.script.open(
                step.clone(),
                libc::SYS_open_tree,
                &[place.into(), empty.into(), flags.into()],
            );
            self.set_read_only(step.clone(), tree.into(), empty, true);
            self.attach_and_keep(step, tree.into(), place, empty);
        }
        Ok(())
    }

    fn over(
        &mut self,
        step: String,
        base: RootArg,
        rest: &Path,
        directory: bool,
        tree: Register,
        empty: Data,
    ) -> io::Result<()> {
        let place = self.find(step.clone(), base, rest, directory, 1)?;
        self.attach_and_keep(step, tree.into(), place, empty);
        Ok(())
    }

    /// Finds an existing place; the next `skip` operations are left out when it is not there.
    fn find(
        &mut self,
        step: String,
        base: RootArg,
        rest: &Path,
        directory: bool,
        skip: u8,
    ) -> io::Result<Register> {
        let path = self.script.path(rest)?;
        let flags = O_PATH | if directory { libc::O_DIRECTORY } else { 0 };
        let resolve = match base {
            RootArg::Register(_) => libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_XDEV,
            _ => IN_ROOT,
        };
        let how = self.script.words(&[flags as u64, 0, resolve]);
        let register = self.script.open(
            step,
            libc::SYS_openat2,
            &[base.into(), path.into(), how.into(), 24u32.into()],
        );
        self.script.tolerate_last([libc::ENOENT, libc::ENOTDIR], skip);
        Ok(register)
    }

    fn other_namespaces(&mut self, plan: &Plan) -> io::Result<()> {
        if let Some(hostname) = &plan.hostname {
            let name = self.script.text(hostname)?;
            self.call(
                "set the hostname",
                libc::SYS_sethostname,
                &[name.into(), (hostname.len() as u64).into()],
            );
        }
        self.special(
            "wait for the cgroups",
            format::WAIT,
            &[u32::from(ATTACHED).into()],
        );
        self.call(
            "make a cgroup namespace",
            libc::SYS_unshare,
            &[libc::CLONE_NEWCGROUP.into()],
        );
        Ok(())
    }

    fn fork(&mut self) {
        self.special("fork", format::FORK, &[]);
    }

    fn task(&mut self, plan: &Plan, prepared: &Prepared) -> io::Result<()> {
        self.call("start a session of its own", libc::SYS_setsid, &[]);
        for (stream, number, name) in [
            (&prepared.stdin, 0u32, "stdin"),
            (&prepared.stdout, 1, "stdout"),
            (&prepared.stderr, 2, "stderr"),
        ] {
            self.call(
                format!("set {name}"),
                libc::SYS_dup2,
                &[stream.as_raw_fd().into(), number.into()],
            );
        }
        for limit in &plan.rlimits {
            let value = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
            let words = self.script.words(&[value(limit.soft), value(limit.hard)]);
            self.call(
                format!("set resource limit {}", rlimit_name(limit.resource)),
                libc::SYS_prlimit64,
                &[0u32.into(), limit.resource.into(), words.into(), 0u32.into()],
            );
        }
        if let Some(score) = plan.oom_score_adj {
            self.oom_score(score)?;
        }
        let cwd = self.script.path(&plan.cwd)?;
        self.call(
            format!("change to {:?}", plan.cwd),
            libc::SYS_chdir,
            &[cwd.into()],
        );
        self.special("check the working directory", format::CHECK_CWD, &[]);
        // Without the promise of no new privileges, installing a filter is itself a privilege.
        if !plan.no_new_privileges {
            self.filter(prepared);
        }
        self.identity(plan, prepared)?;
        self.call("set the umask", libc::SYS_umask, &[plan.umask.into()]);
        if plan.no_new_privileges {
            self.call(
                "give up new privileges",
                libc::SYS_prctl,
                &[
                    libc::PR_SET_NO_NEW_PRIVS.into(),
                    1u32.into(),
                    0u32.into(),
                    0u32.into(),
                    0u32.into(),
                ],
            );
        }
        self.find_program(plan)?;
        if plan.no_new_privileges {
            self.filter(prepared);
        }
        self.gate();
        self.exec(plan)
    }

    /// Last of all where possible: the profile then only has to allow what follows.
    fn filter(&mut self, prepared: &Prepared) {
        let Some(program) = &prepared.filter else { return };
        let instructions = program.instructions();
        let bytes: Vec<u8> = instructions.iter().flat_map(instruction_bytes).collect();
        let code = self.script.bytes(&bytes);
        let program_of = self
            .script
            .structure(&[instructions.len() as u64, 0], &[(1, code)]);
        let flags = if program.log {
            libc::SECCOMP_FILTER_FLAG_LOG
        } else {
            0
        };
        self.call(
            "install the system call filter",
            libc::SYS_seccomp,
            &[
                libc::SECCOMP_SET_MODE_FILTER.into(),
                flags.into(),
                program_of.into(),
            ],
        );
    }

    fn oom_score(&mut self, score: i32) -> io::Result<()> {
        let path = self.script.text("self/oom_score_adj")?;
        let file = self.script.open(
            "open oom_score_adj",
            libc::SYS_openat,
            &[
                Register::of(Slot::Proc).into(),
                path.into(),
                (libc::O_WRONLY | libc::O_CLOEXEC).into(),
            ],
        );
        let text = score.to_string();
        let data = self.script.text(&text)?;
        self.call(
            format!("set oom_score_adj to {score}"),
            libc::SYS_write,
            &[file.into(), data.into(), (text.len() as u64).into()],
        );
        Ok(())
    }

    /// Bounding set, groups, gid, uid, the other sets, in the order that each still may be done.
    fn identity(&mut self, plan: &Plan, prepared: &Prepared) -> io::Result<()> {
        let known = CapabilitySet(u64::MAX >> (63 - prepared.last_capability.min(63)));
        let caps = plan.capabilities;
        for number in known.without(caps.bounding).numbers() {
            self.call(
                "limit the bounding set",
                libc::SYS_prctl,
                &[
                    libc::PR_CAPBSET_DROP.into(),
                    number.into(),
                    0u32.into(),
                    0u32.into(),
                    0u32.into(),
                ],
            );
        }
        let Identity { uid, gid, groups } = &prepared.identity;
        let list: Vec<u8> = groups.iter().flat_map(|group| group.to_ne_bytes()).collect();
        let list = self.script.bytes(&list);
        self.call(
            "set the groups",
            libc::SYS_setgroups,
            &[(groups.len() as u64).into(), list.into()],
        );
        let (uid, gid) = (*uid, *gid);
        self.call(
            format!("become group {gid}"),
            libc::SYS_setresgid,
            &[gid.into(), gid.into(), gid.into()],
        );
        let keep = [
            libc::PR_SET_KEEPCAPS.into(),
            1u32.into(),
            0u32.into(),
            0u32.into(),
            0u32.into(),
        ];
        self.call("keep capabilities", libc::SYS_prctl, &keep);
        self.call(
            format!("become user {uid}"),
            libc::SYS_setresuid,
            &[uid.into(), uid.into(), uid.into()],
        );
        let header = self
            .script
            .bytes(&[LINUX_CAPABILITY_VERSION_3.to_ne_bytes(), 0u32.to_ne_bytes()].concat());
        let (effective, permitted, inheritable) = (
            caps.effective.and(known).0,
            caps.permitted.and(known).0,
            caps.inheritable.and(known).0,
        );
        let halves = [
            effective as u32,
            permitted as u32,
            inheritable as u32,
            (effective >> 32) as u32,
            (permitted >> 32) as u32,
            (inheritable >> 32) as u32,
        ];
        let data = self.script.bytes(&halves.map(u32::to_ne_bytes).concat());
        self.call(
            "set the capabilities",
            libc::SYS_capset,
            &[header.into(), data.into()],
        );
        let ambient = |operation: i32, number: u32| {
            [
                libc::PR_CAP_AMBIENT.into(),
                operation.into(),
                number.into(),
                0u32.into(),
                0u32.into(),
            ]
        };
        self.call(
            "clear the ambient set",
            libc::SYS_prctl,
            &ambient(libc::PR_CAP_AMBIENT_CLEAR_ALL, 0),
        );
        for number in caps.ambient.and(known).numbers() {
            self.call(
                "raise the ambient set",
                libc::SYS_prctl,
                &ambient(libc::PR_CAP_AMBIENT_RAISE, number),
            );
        }
        Ok(())
    }

    /// Before the gate, and as the final user: what is not there must not be found out after others have started
    /// (L1).
    fn find_program(&mut self, plan: &Plan) -> io::Result<()> {
        let list = candidates(plan)
            .iter()
            .map(|path| self.script.text(path))
            .collect::<io::Result<Vec<_>>>()?;
        let list = self.script.pointers(&list);
        self.script.open_in(
            Slot::Program,
            exec_step(plan),
            format::RESOLVE.into(),
            &[list.into()],
        );
        Ok(())
    }

    fn gate(&mut self) {
        self.special("tell that the gate is reached", format::TELL, &[AT_GATE.into()]);
        self.special("wait at the gate", format::WAIT, &[u32::from(RELEASED).into()]);
        self.call(
            "close what is not the task's",
            libc::SYS_close_range,
            &[3u32.into(), u32::MAX.into(), libc::CLOSE_RANGE_CLOEXEC.into()],
        );
    }

    fn exec(&mut self, plan: &Plan) -> io::Result<()> {
        let none = self.script.words(&[0]);
        self.call(
            "let signals in",
            libc::SYS_rt_sigprocmask,
            &[libc::SIG_SETMASK.into(), none.into(), 0u32.into(), 8u32.into()],
        );
        let arguments = plan
            .command
            .arguments
            .iter()
            .map(|text| self.script.text(text))
            .collect::<io::Result<Vec<_>>>()?;
        let arguments = self.script.pointers(&arguments);
        let environment = plan
            .environment
            .iter()
            .map(|(name, value)| self.script.text(&format!("{name}={value}")))
            .collect::<io::Result<Vec<_>>>()?;
        let environment = self.script.pointers(&environment);
        self.call(
            exec_step(plan),
            libc::SYS_execve,
            &[
                Register::of(Slot::Program).into(),
                arguments.into(),
                environment.into(),
            ],
        );
        Ok(())
    }

    // ---- building blocks

    fn fresh(
        &mut self,
        kind: &'static str,
        options: &[(&str, String)],
        attributes: u64,
    ) -> io::Result<Register> {
        self.fresh_in(None, kind, options, attributes)
    }

    /// A new file system that is not mounted anywhere yet. An option without a value is a flag.
    fn fresh_in(
        &mut self,
        slot: Option<Slot>,
        kind: &'static str,
        options: &[(&str, String)],
        attributes: u64,
    ) -> io::Result<Register> {
        let name = self.script.text(kind)?;
        let context = self.script.open(
            format!("open file system {kind}"),
            libc::SYS_fsopen,
            &[name.into(), libc::FSOPEN_CLOEXEC.into()],
        );
        for (key, value) in options {
            let name = self.script.text(key)?;
            let (command, value): (u32, Arg) = match value.is_empty() {
                true => (libc::FSCONFIG_SET_FLAG, 0u32.into()),
                false => (libc::FSCONFIG_SET_STRING, self.script.text(value)?.into()),
            };
            self.call(
                format!("set {key} of {kind}"),
                libc::SYS_fsconfig,
                &[context.into(), command.into(), name.into(), value, 0u32.into()],
            );
        }
        self.call(
            format!("make file system {kind}"),
            libc::SYS_fsconfig,
            &[
                context.into(),
                libc::FSCONFIG_CMD_CREATE.into(),
                0u32.into(),
                0u32.into(),
                0u32.into(),
            ],
        );
        let step = format!("make a mount of {kind}");
        let args = [context.into(), libc::FSMOUNT_CLOEXEC.into(), attributes.into()];
        let mount = match slot {
            Some(slot) => self.script.open_in(slot, step, libc::SYS_fsmount, &args),
            None => self.script.open(step, libc::SYS_fsmount, &args),
        };
        self.call("close a file system", libc::SYS_close, &[context.into()]);
        Ok(mount)
    }

    /// Makes a directory below a root and mounts there.
    fn place(
        &mut self,
        step: &'static str,
        root: RootArg,
        path: &str,
        tree: Arg,
        empty: Data,
    ) -> io::Result<()> {
        let place = self.target(step, root, Path::new(path.trim_start_matches('/')), true)?;
        self.attach(step, tree, place, empty);
        Ok(())
    }

    fn place_where_possible(
        &mut self,
        step: &'static str,
        base: Slot,
        path: &str,
        tree: Arg,
        empty: Data,
    ) -> io::Result<()> {
        let place = self.find(
            step.into(),
            RootArg::Register(Register::of(base)),
            Path::new(path),
            true,
            1,
        )?;
        self.attach_and_keep(step, tree, place, empty);
        Ok(())
    }

    fn target(
        &mut self,
        step: impl Into<Step>,
        root: RootArg,
        path: &Path,
        directory: bool,
    ) -> io::Result<Register> {
        let path = self.script.path(path)?;
        let kind = if directory {
            format::TARGET_DIRECTORY
        } else {
            format::TARGET_FILE
        };
        Ok(self.script.open(
            step,
            format::TARGET.into(),
            &[root.into(), path.into(), kind.into(), 0o755u32.into()],
        ))
    }

    fn attach(&mut self, step: impl Into<Step>, tree: Arg, place: Register, empty: Data) {
        self.attach_and_keep(step, tree, place, empty);
        self.call("close a mount point", libc::SYS_close, &[place.into()]);
    }

    fn attach_and_keep(&mut self, step: impl Into<Step>, tree: Arg, place: Register, empty: Data) {
        let flags = MOVE_FROM_FD | libc::MOVE_MOUNT_T_EMPTY_PATH;
        self.call(
            step,
            libc::SYS_move_mount,
            &[tree, empty.into(), place.into(), empty.into(), flags.into()],
        );
    }

    fn set_read_only(&mut self, step: impl Into<Step>, tree: Arg, empty: Data, recursive: bool) {
        let attributes = self.script.words(&[mount::READ_ONLY, 0, 0, 0]);
        let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
        self.call(
            step,
            libc::SYS_mount_setattr,
            &[tree, empty.into(), flags.into(), attributes.into(), 32u32.into()],
        );
    }
}

const MOVE_FROM_FD: u32 = libc::MOVE_MOUNT_F_EMPTY_PATH;

/// What every file system has that holds neither programs nor devices.
const NOTHING_SPECIAL: u64 = mount::NO_SUID | mount::NO_DEV | mount::NO_EXEC;

const LINUX_CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// Where paths are found from.
#[derive(Debug, Clone, Copy)]
enum RootArg {
    Fd(RawFd),
    /// The host's root, opened by the script itself.
    Slot,
    Register(Register),
}

impl From<RootArg> for Arg {
    fn from(root: RootArg) -> Self {
        match root {
            RootArg::Fd(fd) => fd.into(),
            RootArg::Slot => Register::of(Slot::Root).into(),
            RootArg::Register(register) => register.into(),
        }
    }
}

fn relative(path: &Path) -> PathBuf {
    // In-root resolution would take "..", but a path that needs it is not worth making.
    path.components()
        .filter(|part| matches!(part, std::path::Component::Normal(_)))
        .collect()
}

/// Where to look for a path to protect, and whether it is a directory on this kernel. `None`: not there at all.
fn locate(path: &Path, root: RootArg) -> Option<(RootArg, PathBuf, bool)> {
    for (top, slot) in [("proc", Slot::Proc), ("sys", Slot::Sys)] {
        if let Ok(rest) = path.strip_prefix(top) {
            let directory = Path::new("/").join(path).metadata().ok()?.is_dir();
            return Some((RootArg::Register(Register::of(slot)), rest.to_owned(), directory));
        }
    }
    Some((root, path.to_owned(), false))
}

fn exec_step(plan: &Plan) -> String {
    format!("exec `{}`", plan.command.program)
}

/// `struct sock_filter` as the kernel reads it.
fn instruction_bytes(instruction: &libc::sock_filter) -> [u8; 8] {
    let [a, b] = instruction.code.to_ne_bytes();
    let [c, d, e, f] = instruction.k.to_ne_bytes();
    [a, b, instruction.jt, instruction.jf, c, d, e, f]
}

/// I-11: a name without a slash is looked up in the member's PATH.
fn candidates(plan: &Plan) -> Vec<String> {
    let program = &plan.command.program;
    if program.contains('/') {
        return vec![program.clone()];
    }
    let path = plan
        .environment
        .iter()
        .find(|(name, _)| name == "PATH")
        .map_or("", |(_, value)| value.as_str());
    path.split(':')
        .map(|directory| match directory {
            "" => format!("./{program}"),
            directory => format!("{}/{program}", directory.trim_end_matches('/')),
        })
        .collect()
}

fn rlimit_name(resource: u32) -> &'static str {
    const NAMES: [&str; 16] = [
        "cpu",
        "fsize",
        "data",
        "stack",
        "core",
        "rss",
        "nproc",
        "nofile",
        "memlock",
        "as",
        "locks",
        "sigpending",
        "msgqueue",
        "nice",
        "rtprio",
        "rttime",
    ];
    NAMES.get(resource as usize).copied().unwrap_or("?")
}
