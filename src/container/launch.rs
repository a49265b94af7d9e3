//! Starting an init with a script, and hearing of how far it came.

use std::{
    ffi::CString,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use rustix::pipe::{PipeFlags, pipe_with};
use tokio::{io::AsyncReadExt, net::unix::pipe::Receiver};

use super::{
    error::{LaunchError, Problem},
    process::Process,
    program,
    script::{Script, Step},
};
use crate::sys::{
    init_format::{self as format, RECORD_SIZE},
    init_program::Flaw,
    pidfd::Ended,
    spawn::{Spawn, spawn},
};

/// An init that walks its script.
#[derive(Debug)]
pub(super) struct Launched {
    pub process: Process,
    pub report: Report,
    pub gate: Gate,
    pub status: Status,
}

/// Into what an init is born.
#[derive(Debug)]
pub(super) struct Birth<'a> {
    pub program: &'a OwnedFd,
    /// `CLONE_NEW*` flags.
    pub namespaces: i32,
    /// In the user namespace that is among them, we ourselves are root.
    pub own_root: bool,
    /// The version 2 cgroup.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Descriptors beyond the script's.
    pub also_keep: &'a [RawFd],
}

impl<'a> Birth<'a> {
    /// Into where we are.
    pub(super) fn of(program: &'a OwnedFd) -> Self {
        Birth {
            program,
            namespaces: 0,
            own_root: false,
            cgroup: None,
            also_keep: &[],
        }
    }
}

/// Starts it. When this returns, the process has nothing of our memory any more.
pub(super) fn launch(member: &str, script: Script, birth: &Birth<'_>) -> Result<Launched, LaunchError> {
    let failed = |step: &'static str| move |error: io::Error| LaunchError::step(member, step, error);
    let pipe = || Ok(pipe_with(PipeFlags::CLOEXEC)?);
    let (report, report_end) = pipe().map_err(failed("make a pipe"))?;
    let (gate_end, gate) = pipe().map_err(failed("make a pipe"))?;
    let (status, status_end) = pipe().map_err(failed("make a pipe"))?;
    rustix::io::ioctl_fionbio(&status, true).map_err(|errno| failed("make a pipe")(errno.into()))?;
    let report = Receiver::from_owned_fd(report).map_err(failed("watch a pipe"))?;
    let script = script
        .finish(
            report_end.as_raw_fd(),
            gate_end.as_raw_fd(),
            status_end.as_raw_fd(),
        )
        .map_err(failed("write the script"))?;

    let number = CString::new(script.image.as_raw_fd().to_string()).unwrap_or_default();
    let mut keep: Vec<RawFd> = script.descriptors().collect();
    keep.extend([&script.image, &report_end, &gate_end, &status_end].map(AsRawFd::as_raw_fd));
    keep.extend(birth.also_keep);
    // In a user namespace we are root and nobody is anything else. Giving up groups there could give access.
    let (uid, gid) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    let maps = [format!("0 {uid} 1"), format!("0 {gid} 1")].map(|map| CString::new(map).unwrap_or_default());
    let maps = [
        (c"/proc/self/setgroups", c"deny"),
        (c"/proc/self/uid_map", maps[0].as_c_str()),
        (c"/proc/self/gid_map", maps[1].as_c_str()),
    ];
    let child = spawn(&Spawn {
        write: if birth.own_root { &maps } else { &[] },
        program: birth.program.as_fd(),
        arguments: &[c"podling-init", &number],
        namespaces: birth.namespaces as u64,
        cgroup: birth.cgroup,
        keep: &keep,
    })
    .map_err(failed("start the init"))?;
    Ok(Launched {
        process: Process::new(child).map_err(failed("watch the init"))?,
        report: Report {
            member: member.to_owned(),
            receiver: report,
            steps: script.steps,
            named: String::new(),
        },
        gate: Gate(gate),
        status: Status(status),
    })
}

/// What the script's processes tell, until the exec closes it.
#[derive(Debug)]
pub(super) struct Report {
    member: String,
    receiver: Receiver,
    /// What the operations of the script are called.
    steps: Vec<Step>,
    /// What the failure is about that comes next, made fit to be shown.
    named: String,
}

/// Something that was reached, and what there is to say of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reached {
    pub what: u32,
    pub value: u32,
}

impl Report {
    /// The next thing that is reached; `None` when the exec has happened or the process is gone.
    pub(super) async fn next(&mut self) -> Result<Option<Reached>, LaunchError> {
        loop {
            let mut bytes = [0u8; RECORD_SIZE];
            match self.receiver.read_exact(&mut bytes).await {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                Err(error) => return Err(self.unreadable(error)),
            }
            let mut words = bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|word| u32::from_ne_bytes(*word));
            let mut word = || words.next().unwrap_or_default();
            let (kind, what, value) = (word(), word(), word());
            match kind {
                format::NAMED => {
                    let mut name = vec![0; (value as usize).min(format::NAME_LENGTH)];
                    let read = self.receiver.read_exact(&mut name).await;
                    read.map_err(|error| self.unreadable(error))?;
                    self.named = name.escape_ascii().to_string();
                }
                format::FAILED => return Err(self.failure(what, value)),
                _ => return Ok(Some(Reached { what, value })),
            }
        }
    }

    fn unreadable(&self, error: io::Error) -> LaunchError {
        LaunchError::step(&self.member, "read the report", error)
    }

    fn failure(&self, step: u32, word: u32) -> LaunchError {
        let step = self.steps.get(step as usize).cloned();
        let step = step.unwrap_or("an unknown step".into());
        let (errno, flaw) = Flaw::of_word(word);
        let error = io::Error::from_raw_os_error(errno as i32);
        match flaw {
            None => LaunchError::step(&self.member, step, error),
            Some(flaw) => {
                let error = io::Error::new(error.kind(), program::describe(flaw, &self.named, &error));
                LaunchError::step(&self.member, step, error)
            }
        }
    }
}

/// Closed, it ends a process that waits at it.
#[derive(Debug)]
pub(super) struct Gate(OwnedFd);

impl Gate {
    pub(super) fn pass(&self, member: &str, byte: u8) -> Result<(), LaunchError> {
        match rustix::io::write(&self.0, &[byte]) {
            // If nobody reads any more, the report says why.
            Ok(_) | Err(rustix::io::Errno::PIPE) => Ok(()),
            Err(errno) => Err(LaunchError::step(member, "open the gate", errno)),
        }
    }
}

/// Where the init tells how its task ended.
#[derive(Debug)]
pub(super) struct Status(OwnedFd);

impl Status {
    /// What it told, if it lived to: known when the init has ended.
    pub(super) fn told(&self) -> Option<Ended> {
        let mut bytes = [0u8; 4];
        match rustix::io::read(self.0.as_fd(), &mut bytes) {
            Ok(4) => Some(Ended::from_raw(i32::from_ne_bytes(bytes))),
            _ => None,
        }
    }
}

/// It is gone without having said why: killed from outside, or for want of memory.
pub(super) async fn ended_early(member: &str, process: &mut Process) -> LaunchError {
    let how = match process.ended().await {
        Ok(Ended::Code(code)) => format!("ended with status {code} before it was started"),
        Ok(Ended::Signal { number, .. }) => format!("was killed by signal {number} before it was started"),
        Err(error) => format!("was lost before it was started: {error}"),
    };
    LaunchError::new(member, Problem::Ended(how))
}
