//! What members of one executor have in common, and the way from a plan to a member at its gate.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::fs::{FileType, MemfdFlags, Mode, OFlags, SealFlags};

use super::{
    cgroup::{Access, DeviceKind, DeviceRule, JoinPlan, MemberCgroup, OomWatch, default_devices},
    error::{LaunchError, Problem, SetupError},
    filters::Filters,
    launch::{Birth, Launched, ended_early, launch},
    mapped::{IdRange, MappedUsers},
    member::{Gated, Member},
    plan::{CapabilitySet, IpcNamespace, PidNamespace, Plan},
    pod::Pod,
    prepare::{self, Common},
    process::Heir,
    setup, terminal, tree,
};
use crate::sys::{self, ipc::Ipc};

/// What a runtime needs to know of its executor.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Names our cgroups: the executor's container id, or the executor id.
    pub name: String,
    pub sandbox: PathBuf,
}

/// One per executor: the sealed init program, compiled filters, what the host offers.
///
/// Members die with the thread that prepares them (`PR_SET_PDEATHSIG` counts threads), so that has to be one that
/// lives as long as the executor.
#[derive(Debug)]
pub struct Runtime {
    common: Common,
    init: Arc<OwnedFd>,
    /// Process namespaces that members share, by key; gone with the last of their members.
    pods: Mutex<HashMap<String, Weak<Pod>>>,
    /// It was said that members cannot be held after their exec.
    unwatched: AtomicBool,
    /// The same for System V and POSIX communication.
    ipcs: Mutex<HashMap<String, Weak<Ipc>>>,
}

impl Runtime {
    pub fn open(setup: Setup) -> Result<Runtime, SetupError> {
        let failed = |step: String| move |error: io::Error| SetupError::new(step, error);
        let sandbox = tree::open(&setup.sandbox).map_err(failed(format!(
            "open the executor's sandbox {}",
            setup.sandbox.display()
        )))?;
        let null = null_device().map_err(failed("open /dev/null".into()))?;
        let init = sealed_init().map_err(failed("make the init program".into()))?;
        let (permitted, effective) = (own_capabilities("CapPrm:"), own_capabilities("CapEff:"));
        let last = "/proc/sys/kernel/cap_last_cap";
        let last_capability = std::fs::read_to_string(last).map_err(failed(format!("read {last}")))?;
        let last_capability = last_capability.trim().parse().unwrap_or(40);
        Ok(Runtime {
            common: Common {
                sandbox,
                sandbox_path: setup.sandbox,
                null: Arc::new(null),
                last_capability,
                capabilities: permitted,
                filters: Filters::default(),
                rootless: !effective.contains(CAP_SYS_ADMIN),
                left_out: &[],
            },
            init: Arc::new(init),
            pods: Mutex::default(),
            unwatched: AtomicBool::new(false),
            ipcs: Mutex::default(),
        })
    }

    /// Whether members are made without root's privileges.
    pub fn is_rootless(&self) -> bool {
        self.common.rootless
    }

    /// Where the operator keeps seccomp profiles: `default.json` replaces the built-in one, others are named by tasks.
    pub fn with_seccomp_profiles(mut self, directory: PathBuf) -> Self {
        self.common.filters = Filters::from_directory(directory);
        self
    }

    /// A runtime with holes, to show that tests notice them: the named steps are not done.
    #[doc(hidden)]
    pub fn weakened(mut self, left_out: &'static [&'static str]) -> Self {
        self.common.left_out = left_out;
        self
    }

    /// Does everything but the last exec. Dropping the future undoes what was done.
    pub async fn prepare(&self, mut plan: Plan) -> Result<Gated, LaunchError> {
        // Kept apart, for it is to go with the member's processes, not with whoever still knows its plan.
        let cgroup = plan.cgroup.take();
        let plan = Arc::new(plan);
        let name = &plan.member;
        let ipc = match &plan.namespaces.ipc {
            // Without privileges each has its own, for nobody can enter another's.
            IpcNamespace::Shared(key) if !self.common.rootless => Some(self.ipc(name, key)?),
            _ => None,
        };
        let mut prepared = prepare::prepare(&plan, &self.common, ipc.as_deref())?;
        let entered = cgroup.as_deref().map(|cgroup| enter(cgroup, &plan)).transpose()?;
        prepared.cgroups = entered
            .as_ref()
            .map(|(join, _)| join.as_raw_fds().to_vec())
            .unwrap_or_default();
        let pod = match &plan.namespaces.pid {
            PidNamespace::Own => None,
            PidNamespace::Shared(key) => Some(self.pod(key)),
        };
        prepared.pod = match &pod {
            None => None,
            Some(pod) => Some(pod.processes(&self.init, &prepared.confinement).await?),
        };
        let socket = match plan.terminal {
            None => None,
            Some(_) => {
                let (ours, theirs) =
                    terminal::socket().map_err(|error| LaunchError::step(name, "make a socket", error))?;
                prepared.terminal = Some(theirs);
                Some(ours)
            }
        };
        let (confinement, streams) = (prepared.confinement.clone(), prepared.streams.clone());
        let outputs = std::mem::take(&mut prepared.outputs);
        let script =
            setup::member(prepared).map_err(|error| LaunchError::step(name, "write the script", error))?;
        let Launched {
            process,
            mut report,
            gate,
            status,
        } = launch(
            name,
            script,
            &Birth {
                program: &self.init,
                namespaces: namespaces(&plan, self.common.rootless),
                own_root: self.common.rootless,
                cgroup: cgroup.as_deref().and_then(MemberCgroup::clone_into),
                also_keep: entered.as_ref().map_or(&[], |(join, _)| join.as_raw_fds()),
            },
        )?;
        let mut member = Member {
            confinement,
            process: process.with_cgroup(cgroup),
            oom: entered.and_then(|(_, oom)| oom),
            status,
            heir: None,
            pod,
            ipc,
            program: Arc::clone(&self.init),
            null: Arc::clone(&self.common.null),
            terminal: None,
        };
        // The task may not run before its init has given up what it must not get hold of, nor before that holds it.
        let mut watched = match self.common.left_out.contains(&setup::WATCH) {
            true => Some(false),
            false => None,
        };
        let hands_over = member.pod.is_some();
        let arrived: Result<bool, LaunchError> = async {
            if hands_over && watched.is_some() {
                gate.pass(&plan.member, setup::WATCHED_BY_INIT)?;
            }
            let (mut at_gate, mut confined) = (false, false);
            loop {
                if let (true, true, Some(watched)) = (at_gate, confined, watched)
                    && (member.pod.is_none() || member.heir.is_some())
                {
                    return Ok(watched);
                }
                let Some(reached) = report.next().await? else {
                    return Err(ended_early(&plan.member, &mut member.process).await);
                };
                match reached.what {
                    setup::AT_GATE => at_gate = true,
                    setup::CONFINED => confined = true,
                    setup::WATCHED => {
                        if reached.value != 0 {
                            self.tell_unwatched(reached.value);
                        }
                        watched = Some(reached.value == 0);
                        if hands_over {
                            gate.pass(&plan.member, setup::WATCHED_BY_INIT)?;
                        }
                    }
                    setup::FORKED => match Heir::of(&member.process, reached.value) {
                        Some(heir) => member.heir = Some(heir),
                        None => return Err(ended_early(&plan.member, &mut member.process).await),
                    },
                    setup::AT_TERMINAL => {
                        if let Some(socket) = &socket {
                            let taken = terminal::take(socket.as_fd())
                                .and_then(|terminal| terminal::copy_to(terminal, &streams.stdout))
                                .map_err(|error| {
                                    LaunchError::step(&plan.member, "take the terminal", error)
                                })?;
                            member.terminal = Some(taken);
                        }
                    }
                    _ => return Err(ended_early(&plan.member, &mut member.process).await),
                }
            }
        }
        .await;
        let watched = match arrived {
            Ok(watched) => watched,
            Err(error) => {
                // It is told when nothing is left: the next attempt may have the same name and cgroup.
                member.process.kill();
                // The only error is that there is nothing to wait for.
                let _ = member.process.gone().await;
                return Err(error);
            }
        };
        Ok(Gated {
            member,
            report,
            gate,
            outputs,
            watched,
        })
    }

    /// A kernel or sandbox that forbids all tracing: members run there, but no longer whole groups or none.
    fn tell_unwatched(&self, errno: u32) {
        let told = self.unwatched.swap(true, Ordering::Relaxed);
        if !told {
            tracing::warn!(
                "tracing is forbidden here ({}): when the kernel refuses to execute the program of one member, others \
                 of its group may have run for a moment",
                io::Error::from_raw_os_error(errno as i32)
            );
        }
    }

    /// Users of members' own: a user namespace whose numbers are those of the host's range.
    pub fn map_users(&self, range: IdRange) -> Result<MappedUsers, SetupError> {
        const STEP: &str = "make a user namespace";
        let failed = |error: io::Error| SetupError::new(STEP, error);
        // Nobody can make a mapping for itself; so a process that does nothing else has it made for it.
        let birth = Birth {
            namespaces: libc::CLONE_NEWUSER,
            ..Birth::of(&self.init)
        };
        let launched = launch(STEP, setup::idle().map_err(failed)?, &birth)
            .map_err(|error| failed(io::Error::other(error)))?;
        let process = PathBuf::from(format!("/proc/{}", launched.process.pid));
        let map = format!("0 {} {}", range.root(), range.count());
        for file in ["uid_map", "gid_map"] {
            std::fs::write(process.join(file), &map).map_err(failed)?;
        }
        let namespace = std::fs::File::open(process.join("ns/user")).map_err(failed)?;
        Ok(MappedUsers {
            range,
            namespace: Arc::new(namespace.into()),
        })
    }

    /// The communication of that key, made if this is its first member.
    fn ipc(&self, member: &str, key: &str) -> Result<Arc<Ipc>, LaunchError> {
        let mut ipcs = self.ipcs.lock().unwrap_or_else(PoisonError::into_inner);
        ipcs.retain(|_, ipc| ipc.strong_count() > 0);
        if let Some(ipc) = ipcs.get(key).and_then(Weak::upgrade) {
            return Ok(ipc);
        }
        let made = Ipc::new().map_err(|error| LaunchError::step(member, "make an IPC namespace", error))?;
        let ipc = Arc::new(made);
        ipcs.insert(key.to_owned(), Arc::downgrade(&ipc));
        Ok(ipc)
    }

    /// The namespace of that key, new if this is its first member.
    fn pod(&self, key: &str) -> Arc<Pod> {
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        pods.retain(|_, pod| pod.strong_count() > 0);
        if let Some(pod) = pods.get(key).and_then(Weak::upgrade) {
            return pod;
        }
        let pod = Arc::new(Pod::default());
        pods.insert(key.to_owned(), Arc::downgrade(&pod));
        pod
    }
}

/// The way into a member's cgroup, with its devices restricted, and the watch over its memory.
fn enter(cgroup: &MemberCgroup, plan: &Plan) -> Result<(JoinPlan, Option<OomWatch>), LaunchError> {
    let failed = |error| LaunchError::new(&plan.member, Problem::Cgroup { error });
    let mut rules = default_devices();
    for device in &plan.devices {
        let rule = DeviceRule {
            kind: DeviceKind::Char,
            major: Some(device.major),
            minor: Some(device.minor),
            access: Access {
                read: true,
                write: true,
                mknod: true,
            },
        };
        // Most are among those that everybody may use.
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    // What no controller can do is told once for the machine, not for each member.
    cgroup.restrict_devices(&rules).map_err(failed)?;
    let join = cgroup.join(cgroup.clone_into().is_some()).map_err(failed)?;
    Ok((join, cgroup.oom_watch().map_err(failed)?))
}

/// What making mounts and namespaces takes.
const CAP_SYS_ADMIN: u32 = 21;

fn own_capabilities(set: &str) -> CapabilitySet {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let hex = status.lines().find_map(|line| line.strip_prefix(set));
    CapabilitySet(
        hex.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
            .unwrap_or(0),
    )
}

fn namespaces(plan: &Plan, rootless: bool) -> i32 {
    let mut flags = libc::CLONE_NEWNS | libc::CLONE_NEWUTS;
    if rootless {
        // Message queues can be shown only by who owns them.
        flags |= libc::CLONE_NEWUSER | libc::CLONE_NEWIPC;
    }
    if plan.namespaces.pid == PidNamespace::Own {
        flags |= libc::CLONE_NEWPID;
    }
    if matches!(plan.namespaces.ipc, IpcNamespace::Private { .. }) {
        flags |= libc::CLONE_NEWIPC;
    }
    flags
}

/// Masks and empty inputs are made of this, so it has to be the real one, not a file somebody put there.
fn null_device() -> io::Result<OwnedFd> {
    let null = rustix::fs::open(
        Path::new("/dev/null"),
        OFlags::RDWR | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let stat = rustix::fs::fstat(&null)?;
    let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    match FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && device == (1, 3) {
        true => Ok(null),
        false => Err(io::Error::other("it is not the null device")),
    }
}

/// The init as an anonymous file that nobody can write to any more, and not of ours: a member that gets hold of
/// `/proc/1/exe` holds a few kilobytes of nothing (CVE-2019-5736).
fn sealed_init() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 do not know the flag and need none.
    let file = match rustix::fs::memfd_create(c"podling-init", flags | MemfdFlags::EXEC) {
        Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create(c"podling-init", flags),
        other => other,
    }?;
    let mut rest = sys::INIT;
    while !rest.is_empty() {
        let written = rustix::io::write(&file, rest)?;
        rest = rest.get(written..).unwrap_or_default();
    }
    rustix::fs::fcntl_add_seals(
        &file,
        SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL,
    )?;
    Ok(file)
}
