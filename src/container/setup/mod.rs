//! From a plan to a script: what the member's processes do between their birth and the exec.
//!
//! Two processes walk it. The first is the init: it makes the mount tree and the other namespaces, waits until it is
//! attached to its cgroups, and forks. The second becomes the task: it gives up all it must not keep, makes sure
//! that there is something to exec, says that it waits at the gate, and execs when the gate opens.

/// `op!(self, "what it does"; NUMBER, argument, …)`: adds an operation to the script.
macro_rules! op {
    ($self:ident, $step:expr; $number:expr $(, $arg:expr)*) => {
        $self.script.call($step, i64::from($number), &[$($crate::container::script::Arg::from($arg)),*])
    };
}

/// The same, keeping the result; `in SLOT` for one that is needed for long.
macro_rules! open {
    ($self:ident in $slot:expr, $step:expr; $number:expr $(, $arg:expr)*) => {
        $self.script.open_in($slot, $step, i64::from($number), &[$($crate::container::script::Arg::from($arg)),*])
    };
    ($self:ident, $step:expr; $number:expr $(, $arg:expr)*) => {
        $self.script.open($step, i64::from($number), &[$($crate::container::script::Arg::from($arg)),*])
    };
}

mod blocks;
mod host;
mod task;
mod tree;

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
};

use libc::{
    SYS_close, SYS_openat, SYS_prctl, SYS_setfsgid, SYS_setfsuid, SYS_sethostname, SYS_setns, SYS_setsid,
    SYS_umask, SYS_unshare, SYS_write,
};

use self::blocks::{NOTHING_SPECIAL, O_PATH};
use super::{
    cgroup::At,
    plan::{CapabilitySet, Command, Network, Plan, Terminal},
    script::{Data, Register, Script, Slot},
    seccomp::Program,
    tree::Tree,
    users::Identity,
};
use crate::sys::init_format::{DEFAULT_SIGNALS, FORK, HOLD, SEIZE, STAY, TELL};

/// The byte that lets a process go on at its gate, to its exec.
pub(super) const RELEASED: u8 = b'r';
/// The byte that lets a task's predecessor hand over to it: from here on its init traces whom it makes.
pub(super) const WATCHED_BY_INIT: u8 = b'w';
/// The byte that lets what was executed begin.
pub(super) const BEGUN: u8 = b'b';

/// What the processes tell on their way.
pub(super) const AT_GATE: u32 = 1;
/// The other side of a terminal is in the socket for it.
pub(super) const AT_TERMINAL: u32 = 2;
/// The task is there among processes that are not the init's; the value is its number.
pub(super) const FORKED: u32 = 3;
/// Only the exec itself is left, without a gate.
pub(super) const AT_EXEC: u32 = 4;
/// The init has given up all it does not need.
pub(super) const CONFINED: u32 = 5;
/// The task will stop at the end of its exec; or, with an error, it is not to be had here.
pub(super) const WATCHED: u32 = 6;
/// The exec has succeeded, and the task has not made a step yet.
pub(super) const EXECUTED: u32 = 7;

/// What the executor opened and looked up for a plan.
#[derive(Debug)]
pub(super) struct Prepared {
    pub confinement: Confinement,
    /// The root file system; none for the host's.
    pub root: Option<Tree>,
    pub sandbox: Tree,
    /// Where the member could not get to it by its path.
    pub closed: Option<ClosedWay>,
    /// For each mount of the plan, in order.
    pub mounts: Vec<PreparedMount>,
    /// What is mounted below `/sys/fs/cgroup`.
    pub cgroup_view: Vec<(At, Tree)>,
    pub streams: Streams,
    /// The files among them once more, for reading.
    pub outputs: Vec<OwnedFd>,
    /// Where the other side of the plan's terminal is sent through.
    pub terminal: Option<OwnedFd>,
    /// What to write to, to be in the member's cgroups.
    pub cgroups: Vec<RawFd>,
    /// A namespace for communication that others are in, too.
    pub ipc: Option<Arc<OwnedFd>>,
    /// The pod's processes, when they are shared.
    pub pod: Option<Processes>,
}

/// A process namespace that members share.
#[derive(Debug)]
pub(super) struct Processes {
    /// By its init.
    pub init: Arc<OwnedFd>,
    /// Its proc file system, mounted nowhere yet.
    pub proc: OwnedFd,
}

/// A directory of the host that the member's user may not pass through on the way to its sandbox, and the way from
/// there on.
#[derive(Debug)]
pub(super) struct ClosedWay {
    pub at: PathBuf,
    pub rest: PathBuf,
}

#[derive(Debug)]
pub(super) struct PreparedMount {
    pub source: Source,
    pub directory: bool,
}

#[derive(Debug)]
pub(super) enum Source {
    Tree(Tree),
    Tmpfs { size: Option<u64>, mode: u32 },
    Secret(Arc<[u8]>),
}

/// Standard input, output and error, unless there is a terminal.
#[derive(Debug, Clone)]
pub(super) struct Streams {
    pub stdin: Arc<OwnedFd>,
    pub stdout: Arc<OwnedFd>,
    pub stderr: Arc<OwnedFd>,
}

/// What confines a task, apart from its surroundings: a later exec into the member is confined the same.
#[derive(Debug, Clone)]
pub(super) struct Confinement {
    pub plan: Arc<Plan>,
    pub identity: Identity,
    /// The same as the host sees it: another one in a user namespace.
    pub outside: Identity,
    /// What the executor is permitted.
    pub capabilities: CapabilitySet,
    /// The system call filter, if there is to be one.
    pub filter: Option<Arc<Program>>,
    /// The highest capability this kernel knows.
    pub last_capability: u32,
    /// In a user namespace, with nobody but root in it.
    pub rootless: bool,
    /// Names of steps that are not done. For tests.
    pub left_out: &'static [&'static str],
}

impl Confinement {
    fn known_capabilities(&self) -> CapabilitySet {
        CapabilitySet(u64::MAX >> (63 - self.last_capability.min(63)))
    }
}

/// What is run with that confinement.
#[derive(Debug, Clone, Copy)]
pub(super) struct Task<'a> {
    pub command: &'a Command,
    pub environment: &'a [(String, String)],
    pub cwd: &'a Path,
    /// With a socket to send the other side through.
    pub terminal: Option<(Terminal, BorrowedFd<'a>)>,
    pub streams: &'a Streams,
    /// Wait to be released before the exec.
    pub gate: bool,
    /// Processes that it is to be one of: those of this process. Others that run there could look at whatever of us
    /// is there, and some of them are allowed to trace; so nothing is there that has more than they have.
    pub among: Option<BorrowedFd<'a>>,
}

/// The script of a member.
pub(super) fn member(prepared: Prepared) -> io::Result<Script> {
    let mut writer = Writer::new()?;
    let confinement = &prepared.confinement;
    let plan = &confinement.plan;
    writer.begin()?;
    writer.cgroups(&prepared.cgroups)?;
    // It shows as its root the cgroup that the process is in when it makes it.
    if plan.has_cgroup_namespace() {
        op!(writer, "make a cgroup namespace"; SYS_unshare, libc::CLONE_NEWCGROUP);
    }
    writer.names_and_network(plan)?;
    if let Some(ipc) = &prepared.ipc {
        let ipc = writer.script.keep_shared(ipc);
        op!(writer, "enter the pod's IPC"; SYS_setns, ipc, libc::CLONE_NEWIPC);
    }
    if prepared.pod.is_some() {
        writer.open_proc()?;
    }
    writer.own_what_is_made(confinement);
    writer.mount_tree(plan, &prepared)?;
    let among = prepared.pod.as_ref().map(|pod| pod.init.as_fd());
    writer.fork(confinement, among.is_some(), Parting::Member);
    writer.task(
        confinement,
        &Task {
            command: &plan.command,
            environment: &plan.environment,
            cwd: &plan.cwd,
            terminal: plan.terminal.zip(prepared.terminal.as_ref().map(AsFd::as_fd)),
            streams: &prepared.streams,
            gate: true,
            among,
        },
    )?;
    let mut script = writer.script;
    let mounts = prepared.mounts.iter().filter_map(|mount| match &mount.source {
        Source::Tree(tree) => Some(tree),
        _ => None,
    });
    let cgroups = prepared.cgroup_view.iter().map(|(_, tree)| tree);
    for tree in mounts
        .chain(cgroups)
        .chain(&prepared.root)
        .chain([&prepared.sandbox])
    {
        if let Tree::Detached(tree) = tree {
            script.keep_shared(tree);
        }
    }
    if let Some(pod) = prepared.pod {
        script.keep_shared(&pod.init);
        script.keep(pod.proc);
    }
    keep_users(&mut script, &prepared.confinement);
    if let Some(socket) = prepared.terminal {
        script.keep(socket);
    }
    keep_streams(&mut script, &prepared.streams);
    script.leave_out(prepared.confinement.left_out);
    Ok(script)
}

/// The script of something that is run in a member: it joins all that the member's init has, and is confined as the
/// member's task is. Its own init is none of the member's processes.
pub(super) fn exec(
    confinement: &Confinement,
    task: &Task<'_>,
    init: &Arc<OwnedFd>,
    pod: Option<&Arc<OwnedFd>>,
    cgroups: &[RawFd],
) -> io::Result<Script> {
    let mut writer = Writer::new()?;
    writer.begin()?;
    writer.cgroups(cgroups)?;
    if confinement.rootless || confinement.plan.oom_score_adj.is_some() {
        writer.open_proc()?;
    }
    if let Some(score) = confinement.plan.oom_score_adj {
        writer.oom_score(score, Slot::HostProc)?;
    }
    let namespaces = match confinement.rootless {
        // Its network is the host's, and that is not for us to enter, although we are in it.
        true => (NAMESPACES | libc::CLONE_NEWUSER) & !libc::CLONE_NEWNET,
        false => NAMESPACES,
    };
    // Without one of its own the host's is not for everybody to enter either.
    let namespaces = match confinement.plan.has_cgroup_namespace() {
        true => namespaces,
        false => namespaces & !libc::CLONE_NEWCGROUP,
    };
    op!(writer, "enter the member"; SYS_setns, init.as_raw_fd(), namespaces);
    writer.fork(confinement, true, Parting::Exec);
    writer.task(confinement, task)?;
    let mut script = writer.script;
    script.keep_shared(init);
    if let Some(pod) = pod {
        script.keep_shared(pod);
    }
    keep_users(&mut script, confinement);
    keep_streams(&mut script, task.streams);
    script.leave_out(confinement.left_out);
    Ok(script)
}

/// The script of the first process of a namespace that members share: they see it, and those that may trace see into
/// it. It has nothing to do but to reap, so it has nothing: no capability, no file system, no network but the pod's.
/// Before that it makes the proc file system that shows the namespace, which it alone can, and sends it through
/// `socket`.
pub(super) fn pod(confinement: &Confinement, socket: BorrowedFd<'_>) -> io::Result<Script> {
    let mut writer = Writer::new()?;
    writer.begin()?;
    op!(writer, "make a cgroup namespace"; SYS_unshare, libc::CLONE_NEWCGROUP);
    writer.names_and_network(&confinement.plan)?;
    let proc = writer.fresh("proc", &[], NOTHING_SPECIAL)?;
    writer.send("pass the pod's /proc on", proc, socket)?;
    writer.enter_nothing()?;
    writer.confine_init(confinement, CapabilitySet::EMPTY);
    op!(writer, "reap"; STAY);
    let mut script = writer.script;
    script.leave_out(confinement.left_out);
    Ok(script)
}

/// The script of a process that does nothing but to be there.
pub(super) fn idle() -> io::Result<Script> {
    let mut writer = Writer::new()?;
    writer.begin()?;
    op!(writer, "reap"; STAY);
    Ok(writer.script)
}

/// All that `setns` takes for a process at once, but the user namespace and that of processes.
const NAMESPACES: i32 =
    libc::CLONE_NEWNS | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC | libc::CLONE_NEWNET | libc::CLONE_NEWCGROUP;

/// It signals tasks of other users.
const CAP_KILL: CapabilitySet = CapabilitySet::of(&[5]);

/// The calls that an init makes once it has nothing else to do, in any order; others end it.
const INIT_CALLS: [i64; 9] = [
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_wait4,
    libc::SYS_kill,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_exit_group,
    libc::SYS_dup2,
    libc::SYS_close_range,
    libc::SYS_munmap,
];

static INIT_FILTER: LazyLock<Vec<libc::sock_filter>> = LazyLock::new(|| {
    const NUMBER: u32 = 0;
    const ARCHITECTURE: u32 = 4;
    const REQUEST: u32 = 16;
    // The C libraries do not agree on their type.
    const CONTINUE: u32 = 7;
    const DETACH: u32 = 17;
    const X86_64: u32 = 0xc000_003e;
    let instruction = |code: u32, jt, jf, k| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let load = |offset| instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
    let equal = |value, jt, jf| instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, jt, jf, value);
    let give = |value| instruction(libc::BPF_RET | libc::BPF_K, 0, 0, value);
    let calls = INIT_CALLS.len() as u8;
    // Of tracing, only what lets go of the task.
    let mut filter = vec![
        load(ARCHITECTURE),
        equal(X86_64, 0, calls + 5),
        load(NUMBER),
        equal(libc::SYS_ptrace as u32, 0, 3),
        load(REQUEST),
        equal(CONTINUE, calls + 2, 0),
        equal(DETACH, calls + 1, calls),
    ];
    filter.extend(
        (0..)
            .zip(INIT_CALLS)
            .map(|(i, call)| equal(call as u32, calls - i, 0)),
    );
    filter.extend([
        give(libc::SECCOMP_RET_KILL_PROCESS),
        give(libc::SECCOMP_RET_ALLOW),
    ]);
    filter
});

fn keep_users(script: &mut Script, confinement: &Confinement) {
    if let Some(users) = &confinement.plan.namespaces.users {
        script.keep_shared(&users.namespace);
    }
}

fn keep_streams(script: &mut Script, streams: &Streams) {
    for stream in [&streams.stdin, &streams.stdout, &streams.stderr] {
        script.keep_shared(stream);
    }
}

/// Whose init and task part in the fork.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parting {
    Member,
    Exec,
}

/// Tests leave it out, as a kernel does that forbids all tracing.
pub(super) const WATCH: &str = "watch the task";

struct Writer {
    script: Script,
    /// Texts that are needed again and again.
    empty: Data,
    slash: Data,
}

impl Writer {
    fn new() -> io::Result<Self> {
        let mut script = Script::default();
        Ok(Self {
            empty: script.text("")?,
            slash: script.text("/")?,
            script,
        })
    }

    /// Nothing of the executor's process state is inherited.
    fn begin(&mut self) -> io::Result<()> {
        op!(self, "reset signals"; DEFAULT_SIGNALS);
        op!(self, "start a session"; SYS_setsid);
        op!(self, "clear the umask"; SYS_umask, 0u32);
        // The executor's death is this process's, and with it that of the whole pid namespace. If it has died
        // before this line, the gate tells.
        self.follow_the_executor();
        // Nobody in the container may look into this process or use its descriptors.
        op!(self, "become opaque"; SYS_prctl, libc::PR_SET_DUMPABLE, 0u32);
        let name = self.script.text("podling-init")?;
        op!(self, "name the init"; SYS_prctl, libc::PR_SET_NAME, name);
        Ok(())
    }

    fn follow_the_executor(&mut self) {
        op!(self, "follow the executor"; SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL);
    }

    /// With users of the member's own: what is made for it belongs to its root, not to the host's.
    fn own_what_is_made(&mut self, confinement: &Confinement) {
        let Some(users) = &confinement.plan.namespaces.users else {
            return;
        };
        let root = users.range.root();
        op!(self, "make things as the member's group"; SYS_setfsgid, root);
        op!(self, "make things as the member's root"; SYS_setfsuid, root);
        // These take away what is needed to make them, and the executor's end would not be noticed any more.
        let own = confinement.capabilities.and(confinement.known_capabilities());
        self.set_capabilities(own, own, CapabilitySet::EMPTY);
        self.follow_the_executor();
    }

    /// Without privileges what makes a member's world is root of a user namespace. The task is whom it is outside, in
    /// one more namespace that knows nobody else.
    fn be_oneself(&mut self, confinement: &Confinement, proc: Slot) -> io::Result<()> {
        let Identity { uid, gid, .. } = confinement.identity;
        if !confinement.rootless || (uid, gid) == (0, 0) {
            return Ok(());
        }
        op!(self, "make a user namespace"; SYS_unshare, libc::CLONE_NEWUSER);
        // The files below belong to the host's root while it is opaque and was born outside; nobody of the member's sees it
        // yet.
        let visible = matches!(proc, Slot::HostProc);
        if visible {
            op!(self, "be oneself"; SYS_prctl, libc::PR_SET_DUMPABLE, 1u32);
        }
        // Setting groups is forbidden in here as it is in the one above.
        for (file, id) in [("self/uid_map", uid), ("self/gid_map", gid)] {
            let path = self.script.text(file)?;
            let map = format!("{id} 0 1");
            let data = self.script.text(&map)?;
            let flags = libc::O_WRONLY | libc::O_CLOEXEC;
            let file = open!(self, "be oneself"; SYS_openat, Register::of(proc), path, flags);
            op!(self, "be oneself"; SYS_write, file, data, map.len() as u64);
            op!(self, "be oneself"; SYS_close, file);
        }
        if visible {
            op!(self, "be oneself"; SYS_prctl, libc::PR_SET_DUMPABLE, 0u32);
        }
        Ok(())
    }

    /// From here on all capabilities count among the member's own users only. Answers whether it has such.
    fn enter_users(&mut self, confinement: &Confinement) -> bool {
        let Some(users) = &confinement.plan.namespaces.users else {
            return false;
        };
        let namespace = users.namespace.as_raw_fd();
        op!(self, "enter the users"; SYS_setns, namespace, libc::CLONE_NEWUSER);
        true
    }

    /// Host name and network, before anything is mounted that shows them.
    fn names_and_network(&mut self, plan: &Plan) -> io::Result<()> {
        if let Network::Join(network) = &plan.namespaces.network {
            let network = self.script.keep_shared(network);
            op!(self, "enter the network"; SYS_setns, network, libc::CLONE_NEWNET);
            if plan.namespaces.users.is_some() {
                self.open_low_ports()?;
            }
        }
        if let Some(hostname) = &plan.hostname {
            let name = self.script.text(hostname)?;
            op!(self, "set the host name"; SYS_sethostname, name, hostname.len() as u64);
        }
        Ok(())
    }

    /// The network is not owned by the member's root, who should be able to serve on port 80 all the same.
    fn open_low_ports(&mut self) -> io::Result<()> {
        let path = self
            .script
            .text("/proc/sys/net/ipv4/ip_unprivileged_port_start")?;
        let zero = self.script.text("0")?;
        let flags = libc::O_WRONLY | libc::O_CLOEXEC;
        let file = open!(self, "open low ports"; SYS_openat, libc::AT_FDCWD, path, flags);
        self.script.tolerate_last([libc::ENOENT, libc::EROFS], 1);
        op!(self, "open low ports"; SYS_write, file, zero, 1u32);
        Ok(())
    }

    /// The host's proc file system, while nobody else can have laid anything over it.
    fn open_proc(&mut self) -> io::Result<()> {
        let place = self.script.text("/proc")?;
        open!(self in Slot::HostProc, "open /proc"; SYS_openat, libc::AT_FDCWD, place, O_PATH);
        Ok(())
    }

    /// Becomes init and task, or the one that hands over to it. The init then needs to signal, reap and tell, and
    /// gives up all else: whoever gets hold of it, by being allowed to trace processes for example, has got nothing.
    ///
    /// A member's task does not make a step of its own before all of its group can (L1): its init stops it at the end
    /// of its exec. That leaves nothing behind: nobody traces it once it has begun.
    fn fork(&mut self, confinement: &Confinement, hands_over: bool, parting: Parting) {
        let first = self.script.len();
        op!(self, "fork"; FORK, 0u32, u32::from(hands_over));
        if parting == Parting::Member {
            op!(self, WATCH; SEIZE, WATCHED);
        }
        if self.enter_users(confinement) {
            self.follow_the_executor();
        }
        self.confine_init(confinement, CAP_KILL);
        if parting == Parting::Member {
            op!(self, "hold the task"; HOLD, EXECUTED, u32::from(BEGUN));
        }
        let own = self.script.len() - first - 1;
        self.script.set_argument(first, 0, own as u64);
    }

    /// Nobody of the members may run before this is told.
    fn confine_init(&mut self, confinement: &Confinement, needed: CapabilitySet) {
        self.limit_bounding_set(confinement);
        self.set_capabilities(needed, needed, CapabilitySet::EMPTY);
        self.no_new_privileges();
        self.install(&INIT_FILTER, 0);
        op!(self, "tell that the init is confined"; TELL, CONFINED, 0u32);
    }

    /// On its own, while it is single: the one way in that does not wait for the rest of the machine.
    fn cgroups(&mut self, cgroups: &[RawFd]) -> io::Result<()> {
        let own = self.script.text("0")?;
        for cgroup in cgroups {
            op!(self, "enter the cgroups"; SYS_write, *cgroup, own, 1u32);
        }
        Ok(())
    }
}
