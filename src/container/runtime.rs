//! Carrying out plans: the processes of members, from birth to burial.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{FileType, MemfdFlags, Mode, OFlags, SealFlags},
    pipe::{PipeFlags, pipe_with},
};
use tokio::{io::AsyncReadExt, net::unix::pipe::Receiver};

use super::{
    error::{LaunchError, Problem, SetupError},
    filters::Filters,
    plan::{IpcNamespace, PidNamespace, Plan},
    prepare::{self, Common},
    process::Process,
    script::Step,
    setup, tree,
};
use crate::{
    group::{Exit, ExitStatus},
    sys::{
        self,
        init_format::{self as format, Record},
        pidfd::Ended,
        spawn::{Spawn, spawn},
    },
};

/// What a runtime needs to know of its executor.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Names our cgroups: the executor's container id, or the executor id.
    pub name: String,
    pub sandbox: PathBuf,
}

/// One per executor: cgroups of the group, the sealed init program, what the host offers.
///
/// Members die with the thread that prepares them (`PR_SET_PDEATHSIG` counts threads), so that has to be one that
/// lives as long as the executor.
#[derive(Debug)]
pub struct Runtime {
    common: Common,
    init: OwnedFd,
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
        let last = "/proc/sys/kernel/cap_last_cap";
        let last_capability = std::fs::read_to_string(last).map_err(failed(format!("read {last}")))?;
        let last_capability = last_capability.trim().parse().unwrap_or(40);
        Ok(Runtime {
            common: Common {
                sandbox,
                sandbox_path: setup.sandbox,
                null: Arc::new(null),
                last_capability,
                filters: Filters::default(),
            },
            init,
        })
    }

    /// Where the operator keeps seccomp profiles: `default.json` replaces the built-in one, others are named by tasks.
    pub fn with_seccomp_profiles(mut self, directory: PathBuf) -> Self {
        self.common.filters = Filters::from_directory(directory);
        self
    }

    /// Does everything but the last exec. Dropping the future undoes what was done.
    pub async fn prepare(&self, plan: Plan) -> Result<Gated, LaunchError> {
        let name = plan.member.clone();
        let failed = |step: &'static str| {
            let name = name.clone();
            move |error: io::Error| LaunchError::step(&name, step, error)
        };
        let prepared = prepare::prepare(&plan, &self.common)?;
        let (report, report_end) = pipe().map_err(failed("make a pipe"))?;
        let (gate_end, gate) = pipe().map_err(failed("make a pipe"))?;
        let (status, status_end) = pipe().map_err(failed("make a pipe"))?;
        let report = Receiver::from_owned_fd(report).map_err(failed("watch a pipe"))?;
        let script = setup::write(&plan, prepared).map_err(failed("write the script"))?;
        let script = script
            .finish(
                report_end.as_raw_fd(),
                gate_end.as_raw_fd(),
                status_end.as_raw_fd(),
            )
            .map_err(failed("write the script"))?;

        let number = std::ffi::CString::new(script.image.as_raw_fd().to_string()).unwrap_or_default();
        let mut keep: Vec<RawFd> = script.descriptors().collect();
        keep.extend([&script.image, &report_end, &gate_end, &status_end].map(AsRawFd::as_raw_fd));
        let child = spawn(&Spawn {
            program: self.init.as_fd(),
            arguments: &[c"podling-init", &number],
            namespaces: namespaces(&plan),
            cgroup: None,
            keep: &keep,
        })
        .map_err(failed("start the init"))?;
        let process = Process::new(child).map_err(failed("watch the init"))?;
        let steps = script.steps;
        drop((script.image, report_end, gate_end, status_end));

        let mut gated = Gated {
            member: Member {
                name: plan.member,
                stop_signal: plan.stop_signal,
                process,
                status,
            },
            report,
            gate,
            steps,
        };
        gated.pass(setup::ATTACHED)?;
        match gated.next().await? {
            Some(record) if record.kind == format::REACHED && record.step == setup::AT_GATE => Ok(gated),
            _ => Err(gated.member.ended_early().await),
        }
    }
}

/// A member whose process exists and waits. Dropping it ends the process.
#[derive(Debug)]
pub struct Gated {
    member: Member,
    report: Receiver,
    gate: OwnedFd,
    /// What the operations of its script are called.
    steps: Vec<Step>,
}

impl Gated {
    /// Opens the gate; `Ok` once the exec itself has succeeded.
    pub async fn release(mut self) -> Result<Running, LaunchError> {
        self.pass(setup::RELEASED)?;
        match self.next().await? {
            // The exec has closed the report.
            None => Ok(Running {
                member: self.member,
                exit: None,
            }),
            Some(_) => Err(self.member.ended_early().await),
        }
    }

    /// Gives it up; resolves when nothing of it is left.
    pub async fn discard(mut self) {
        self.member.process.signal(libc::SIGKILL);
        let _ = self.member.process.ended().await;
    }

    /// Process id of the member's init, in our namespace.
    pub fn pid(&self) -> i32 {
        self.member.process.pid
    }

    fn pass(&self, byte: u8) -> Result<(), LaunchError> {
        match rustix::io::write(&self.gate, &[byte]) {
            // If nobody reads any more, the report says why.
            Ok(_) | Err(rustix::io::Errno::PIPE) => Ok(()),
            Err(errno) => Err(LaunchError::step(&self.member.name, "open the gate", errno)),
        }
    }

    /// The next thing the script tells; a failure becomes an error, the end of the report `None`.
    async fn next(&mut self) -> Result<Option<Record>, LaunchError> {
        let mut bytes = [0u8; format::RECORD_SIZE];
        match self.report.read_exact(&mut bytes).await {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(LaunchError::step(&self.member.name, "read the report", error)),
        }
        let word = |at: usize| {
            let mut word = [0u8; 4];
            word.iter_mut()
                .zip(bytes.iter().skip(at))
                .for_each(|(to, from)| *to = *from);
            u32::from_ne_bytes(word)
        };
        let record = Record {
            kind: word(0),
            step: word(4),
            errno: word(8),
        };
        if record.kind == format::FAILED {
            let step = self
                .steps
                .get(record.step as usize)
                .cloned()
                .unwrap_or("an unknown step".into());
            let error = io::Error::from_raw_os_error(record.errno as i32);
            return Err(LaunchError::step(&self.member.name, step, error));
        }
        Ok(Some(record))
    }
}

/// A member that runs. Dropping it kills the whole container.
#[derive(Debug)]
pub struct Running {
    member: Member,
    exit: Option<Exit>,
}

impl Running {
    /// Process id of the member's init, in our namespace.
    pub fn pid(&self) -> i32 {
        self.member.process.pid
    }

    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.member.process.pidfd()
    }

    /// Asks the member to end: its stop signal, to its init.
    pub fn stop(&self) {
        self.member.process.signal(self.member.stop_signal);
    }

    /// Ends the whole container.
    pub fn kill(&self) {
        self.member.process.signal(libc::SIGKILL);
    }

    /// Resolves when the member has ended and its cgroup is empty.
    pub async fn wait(&mut self) -> Exit {
        if let Some(exit) = &self.exit {
            return exit.clone();
        }
        let ended = self.member.process.ended().await;
        let status = match (self.member.told_status(), ended) {
            (Some(told), _) => told,
            // The init was killed, and all of the container with it.
            (None, Ok(Ended::Signal { number, .. })) => ExitStatus::Signal(number),
            (None, _) => ExitStatus::Signal(libc::SIGKILL),
        };
        let exit = Exit { status, limit: None };
        self.exit = Some(exit.clone());
        exit
    }
}

/// What is known of a member's processes at every stage.
#[derive(Debug)]
struct Member {
    name: String,
    stop_signal: i32,
    process: Process,
    /// Where the init tells the task's wait status.
    status: OwnedFd,
}

impl Member {
    /// How the task ended, if its init lived to tell. Only to be asked after the init's end.
    fn told_status(&self) -> Option<ExitStatus> {
        let mut bytes = [0u8; 4];
        match rustix::io::read(&self.status, &mut bytes) {
            Ok(4) => Some(match Ended::from_raw(i32::from_ne_bytes(bytes)) {
                Ended::Code(code) => ExitStatus::Code(code),
                Ended::Signal { number, .. } => ExitStatus::Signal(number),
            }),
            _ => None,
        }
    }

    /// It is gone without having said why: killed from outside, or for want of memory.
    async fn ended_early(&mut self) -> LaunchError {
        let how = match self.process.ended().await {
            Ok(Ended::Code(code)) => format!("ended with status {code} before it was started"),
            Ok(Ended::Signal { number, .. }) => {
                format!("was killed by signal {number} before it was started")
            }
            Err(error) => format!("was lost before it was started: {error}"),
        };
        LaunchError::new(&self.name, Problem::Ended(how))
    }
}

fn namespaces(plan: &Plan) -> u64 {
    let mut flags = libc::CLONE_NEWNS | libc::CLONE_NEWUTS;
    if plan.namespaces.pid == PidNamespace::Own {
        flags |= libc::CLONE_NEWPID;
    }
    if matches!(plan.namespaces.ipc, IpcNamespace::Private { .. }) {
        flags |= libc::CLONE_NEWIPC;
    }
    flags as u64
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(pipe_with(PipeFlags::CLOEXEC)?)
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
