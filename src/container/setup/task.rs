//! The task's own part: who it is, what it may, what it runs.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use libc::{
    SYS_capset, SYS_chdir, SYS_close, SYS_close_range, SYS_dup2, SYS_execve, SYS_fchown, SYS_ioctl,
    SYS_openat, SYS_prctl, SYS_prlimit64, SYS_rt_sigprocmask, SYS_seccomp, SYS_sendmsg, SYS_setgroups,
    SYS_setns, SYS_setresgid, SYS_setresuid, SYS_setsid, SYS_umask, SYS_write,
};

use super::{AT_EXEC, AT_GATE, AT_TERMINAL, Confinement, FORKED, RELEASED, Task, WATCHED_BY_INIT, Writer};
use crate::{
    container::{
        error::EXEC,
        plan::{CapabilitySet, Rlimit, Rootfs, Terminal},
        program,
        script::{Register, Slot},
        users::Identity,
    },
    sys::init_format::{CHECK_CWD, CHECK_PROGRAM, CLOSE_REST, HAND_OVER, RESOLVE, STORE, TELL, WAIT},
};

/// Level and type of a control message, as the two halves of a word.
const SOL_SOCKET_SCM_RIGHTS: u64 = (libc::SCM_RIGHTS as u64) << 32 | libc::SOL_SOCKET as u64;

const LINUX_CAPABILITY_VERSION_3: u32 = 0x2008_0522;

impl Writer {
    /// The rest of the script, from the fork to the exec.
    pub(super) fn task(&mut self, confinement: &Confinement, task: &Task<'_>) -> io::Result<()> {
        let plan = &confinement.plan;
        if let Some(among) = task.among {
            // Only children enter a process namespace.
            op!(self, "enter the processes"; SYS_setns, among.as_raw_fd(), libc::CLONE_NEWPID);
        }
        match task.terminal {
            Some((terminal, socket)) => self.terminal(terminal, socket, confinement, task)?,
            None => {
                let streams = task.streams;
                op!(self, "set stdin"; SYS_dup2, streams.stdin.as_raw_fd(), 0u32);
                op!(self, "set stdout"; SYS_dup2, streams.stdout.as_raw_fd(), 1u32);
                op!(self, "set stderr"; SYS_dup2, streams.stderr.as_raw_fd(), 2u32);
            }
        }
        if task.among.is_none() {
            self.lead(task);
        }
        if let (Some(score), true) = (plan.oom_score_adj, task.gate) {
            let proc = match task.among {
                None => Slot::Proc,
                Some(_) => Slot::HostProc,
            };
            self.oom_score(score, proc)?;
        }
        let proc = if task.gate { Slot::Proc } else { Slot::HostProc };
        self.be_oneself(confinement, proc)?;
        // All that has to be opened is open by now, however few descriptors are allowed.
        for limit in &plan.rlimits {
            self.rlimit(limit);
        }
        let cwd = self.script.path(task.cwd)?;
        op!(self, format!("change to {:?}", task.cwd); SYS_chdir, cwd);
        op!(self, "check the working directory"; CHECK_CWD);
        self.enter_users(confinement);
        // Without the promise of no new privileges, installing a filter is itself a privilege.
        if !plan.no_new_privileges {
            self.filter(confinement);
        }
        self.identity(confinement);
        op!(self, "set the umask"; SYS_umask, plan.umask);
        if plan.no_new_privileges {
            self.no_new_privileges();
        }
        self.find_program(task)?;
        match task.among {
            None => self.filter_at_last(confinement),
            Some(_) => self.hand_over(confinement, task),
        }
        if task.gate {
            op!(self, "tell that the gate is reached"; TELL, AT_GATE, 0u32);
            op!(self, "wait at the gate"; WAIT, u32::from(RELEASED));
        } else {
            op!(self, "tell of the exec"; TELL, AT_EXEC, 0u32);
        }
        self.exec(task)
    }

    /// Last of all where possible: the profile then only has to allow what follows.
    fn filter_at_last(&mut self, confinement: &Confinement) {
        if confinement.plan.no_new_privileges {
            self.filter(confinement);
        }
    }

    /// From here on a process goes on that is one of those others: it is born with what the task has, and no
    /// descriptor of ours but to tell and to wait. That includes the filter, unless its profile forbids what is still
    /// to do: then members that may trace find a process of themselves without a filter, for some microseconds.
    fn hand_over(&mut self, confinement: &Confinement, task: &Task<'_>) {
        let early = confinement
            .filter
            .as_ref()
            .is_none_or(|program| program.lets_hand_over);
        // One born before its init traces us would not be held at its exec.
        if task.gate {
            op!(self, "wait to be watched"; WAIT, u32::from(WATCHED_BY_INIT));
        }
        op!(self, "close what is ours"; CLOSE_REST);
        if early {
            self.filter_at_last(confinement);
        }
        op!(self, "hand over to the task"; HAND_OVER, FORKED);
        self.lead(task);
        // The end of what waits for it does not end it by itself.
        op!(self, "follow the init"; SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if !early {
            self.filter_at_last(confinement);
        }
    }

    /// A session of its own, and the terminal that is its stdin.
    fn lead(&mut self, task: &Task<'_>) {
        op!(self, "start a session of its own"; SYS_setsid);
        if task.terminal.is_some() {
            op!(self, "control the terminal"; SYS_ioctl, 0u32, libc::TIOCSCTTY, 0u32);
        }
    }

    /// Z-08: a new terminal of the member's own kind; its other side is for the executor.
    fn terminal(
        &mut self,
        terminal: Terminal,
        socket: BorrowedFd<'_>,
        confinement: &Confinement,
        task: &Task<'_>,
    ) -> io::Result<()> {
        let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
        let (base, name) = match (&confinement.plan.rootfs, task.gate) {
            // A place of our own making; the member's name for it may have got another meaning.
            (Rootfs::Host, _) => (self.open_root(), "dev/ptmx"),
            (_, true) => (Register::of(Slot::Terminals), "ptmx"),
            (_, false) => (self.open_root(), "dev/pts/ptmx"),
        };
        let name = self.script.text(name)?;
        let master = open!(self, "open a terminal"; SYS_openat, base, name, flags);
        let unlock = self.script.bytes(&0u32.to_ne_bytes());
        op!(self, "unlock the terminal"; SYS_ioctl, master, libc::TIOCSPTLCK, unlock);
        let slave =
            open!(self, "open the terminal's inner side"; SYS_ioctl, master, libc::TIOCGPTPEER, flags);
        if let Some((rows, columns)) = terminal.size {
            let size = [rows, columns, 0, 0].map(u16::to_ne_bytes).concat();
            let size = self.script.bytes(&size);
            op!(self, "set the terminal's size"; SYS_ioctl, master, libc::TIOCSWINSZ, size);
        }
        op!(self, "own the terminal"; SYS_fchown, slave, confinement.outside.uid, u32::MAX);
        for (number, name) in [(0u32, "stdin"), (1, "stdout"), (2, "stderr")] {
            op!(self, format!("set {name}"); SYS_dup2, slave, number);
        }
        self.send("pass the terminal on", master, socket)?;
        op!(self, "tell of the terminal"; TELL, AT_TERMINAL, 0u32);
        op!(self, "close the terminal's other side"; SYS_close, master);
        Ok(())
    }

    /// A message of one byte that carries a descriptor.
    pub(super) fn send(
        &mut self,
        step: &'static str,
        descriptor: Register,
        socket: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let byte = self.script.bytes(&[0]);
        let vector = self.script.structure(&[0, 1], &[(0, byte)]);
        let rights = self.script.words(&[20, SOL_SOCKET_SCM_RIGHTS, 0]);
        let message = self
            .script
            .structure(&[0, 0, 0, 1, 0, 24, 0], &[(2, vector), (4, rights)]);
        op!(self, step; STORE, rights.plus(16), descriptor);
        op!(self, step; SYS_sendmsg, socket.as_raw_fd(), message, 0u32);
        Ok(())
    }

    fn open_root(&mut self) -> Register {
        open!(self, "open /"; SYS_openat, libc::AT_FDCWD, self.slash, libc::O_PATH | libc::O_CLOEXEC)
    }

    fn rlimit(&mut self, limit: &Rlimit) {
        let value = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
        let words = self.script.words(&[value(limit.soft), value(limit.hard)]);
        let step = format!("set resource limit {}", rlimit_name(limit.resource));
        op!(self, step; SYS_prlimit64, 0u32, limit.resource, words, 0u32);
    }

    /// Through a proc file system that cannot be anything else and shows the process that does it: the member's fresh
    /// one, or the host's as it was before anything was joined.
    pub(super) fn oom_score(&mut self, score: i32, proc: Slot) -> io::Result<()> {
        let path = self.script.text("self/oom_score_adj")?;
        let flags = libc::O_WRONLY | libc::O_CLOEXEC;
        let file = open!(self, "open oom_score_adj"; SYS_openat, Register::of(proc), path, flags);
        let text = score.to_string();
        let data = self.script.text(&text)?;
        op!(self, format!("set oom_score_adj to {score}"); SYS_write, file, data, text.len() as u64);
        Ok(())
    }

    /// Bounding set, groups, gid, uid, the other sets, in the order that each still may be done.
    fn identity(&mut self, confinement: &Confinement) {
        let caps = confinement.plan.capabilities;
        self.limit_bounding_set(confinement);
        let Identity { uid, gid, groups } = &confinement.identity;
        let (uid, gid) = (*uid, *gid);
        let list: Vec<u8> = groups.iter().flat_map(|group| group.to_ne_bytes()).collect();
        let list = self.script.bytes(&list);
        if !confinement.rootless {
            op!(self, "set the groups"; SYS_setgroups, groups.len() as u64, list);
        }
        op!(self, format!("become group {gid}"); SYS_setresgid, gid, gid, gid);
        op!(self, "keep capabilities"; SYS_prctl, libc::PR_SET_KEEPCAPS, 1u32, 0u32, 0u32, 0u32);
        op!(self, format!("become user {uid}"); SYS_setresuid, uid, uid, uid);
        let known = confinement.known_capabilities();
        self.set_capabilities(
            caps.effective.and(known),
            caps.permitted.and(known),
            caps.inheritable.and(known),
        );
        let (ambient, clear) = (libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL);
        op!(self, "clear the ambient set"; SYS_prctl, ambient, clear, 0u32, 0u32, 0u32);
        for number in caps.ambient.and(known).numbers() {
            let raise = libc::PR_CAP_AMBIENT_RAISE;
            op!(self, "raise the ambient set"; SYS_prctl, ambient, raise, number, 0u32, 0u32);
        }
    }

    pub(super) fn limit_bounding_set(&mut self, confinement: &Confinement) {
        let unwanted = confinement
            .known_capabilities()
            .without(confinement.plan.capabilities.bounding);
        for number in unwanted.numbers() {
            op!(self, "limit the bounding set"; SYS_prctl, libc::PR_CAPBSET_DROP, number, 0u32, 0u32, 0u32);
        }
    }

    pub(super) fn set_capabilities(
        &mut self,
        effective: CapabilitySet,
        permitted: CapabilitySet,
        inheritable: CapabilitySet,
    ) {
        let header = self
            .script
            .bytes(&[LINUX_CAPABILITY_VERSION_3, 0].map(u32::to_ne_bytes).concat());
        let sets = [effective, permitted, inheritable];
        let low_then_high = [sets.map(|set| set.0 as u32), sets.map(|set| (set.0 >> 32) as u32)].concat();
        let data: Vec<u8> = low_then_high.into_iter().flat_map(u32::to_ne_bytes).collect();
        let data = self.script.bytes(&data);
        op!(self, "set the capabilities"; SYS_capset, header, data);
    }

    pub(super) fn no_new_privileges(&mut self) {
        op!(self, "give up new privileges"; SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1u32, 0u32, 0u32, 0u32);
    }

    fn filter(&mut self, confinement: &Confinement) {
        if let Some(program) = &confinement.filter {
            let flags = if program.log {
                libc::SECCOMP_FILTER_FLAG_LOG
            } else {
                0
            };
            self.install(program.instructions(), flags);
        }
    }

    pub(super) fn install(&mut self, instructions: &[libc::sock_filter], flags: libc::c_ulong) {
        let bytes: Vec<u8> = instructions.iter().flat_map(instruction_bytes).collect();
        let code = self.script.bytes(&bytes);
        let program = self
            .script
            .structure(&[instructions.len() as u64, 0], &[(1, code)]);
        let mode = libc::SECCOMP_SET_MODE_FILTER;
        op!(self, "install the system call filter"; SYS_seccomp, mode, flags, program);
    }

    /// Before the gate, and as the final user: what is not there must not be found out after others have started
    /// (L1).
    fn find_program(&mut self, task: &Task<'_>) -> io::Result<()> {
        let list = candidates(task)
            .iter()
            .map(|path| self.script.text(path))
            .collect::<io::Result<Vec<_>>>()?;
        let list = self.script.pointers(&list);
        let found = open!(self in Slot::Program, exec_step(task); RESOLVE, list);
        if !program::runs_other_formats() {
            let [_, find] = EXEC;
            let step = format!("{find} `{}`", task.command.program);
            op!(self, step; CHECK_PROGRAM, found);
        }
        Ok(())
    }

    fn exec(&mut self, task: &Task<'_>) -> io::Result<()> {
        let on_exec = libc::CLOSE_RANGE_CLOEXEC;
        op!(self, "close what is not the task's"; SYS_close_range, 3u32, u32::MAX, on_exec);
        let arguments = task
            .command
            .arguments
            .iter()
            .map(|text| self.script.text(text))
            .collect::<io::Result<Vec<_>>>()?;
        let arguments = self.script.pointers(&arguments);
        let variable = |(name, value): &(String, String)| format!("{name}={value}");
        let environment = task
            .environment
            .iter()
            .map(|pair| self.script.text(&variable(pair)))
            .collect::<io::Result<Vec<_>>>()?;
        let environment = self.script.pointers(&environment);
        let none = self.script.words(&[0]);
        op!(self, "let signals in"; SYS_rt_sigprocmask, libc::SIG_SETMASK, none, 0u32, 8u32);
        op!(self, exec_step(task); SYS_execve, Register::of(Slot::Program), arguments, environment);
        Ok(())
    }
}

fn exec_step(task: &Task<'_>) -> String {
    let [exec, _] = EXEC;
    format!("{exec} `{}`", task.command.program)
}

/// `struct sock_filter` as the kernel reads it.
fn instruction_bytes(instruction: &libc::sock_filter) -> [u8; 8] {
    let [a, b] = instruction.code.to_ne_bytes();
    let [c, d, e, f] = instruction.k.to_ne_bytes();
    [a, b, instruction.jt, instruction.jf, c, d, e, f]
}

/// I-11: a name without a slash is looked up in the member's PATH.
fn candidates(task: &Task<'_>) -> Vec<String> {
    let program = &task.command.program;
    if program.contains('/') {
        return vec![program.clone()];
    }
    let path = task
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
