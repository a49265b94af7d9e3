//! A member as a process: at its gate, running, ended.

use std::{
    os::fd::{BorrowedFd, OwnedFd},
    sync::Arc,
};

use super::{
    cgroup::{OomWatch, oom_verdict},
    error::{LaunchError, Problem},
    launch::{Gate, Report, Status, ended_early},
    plan::Network,
    pod::Pod,
    process::{Heir, Process},
    setup::{self, Confinement},
    terminal::Copied,
};
use crate::{
    group::{Exit, ExitStatus},
    sys::{ipc::Ipc, pidfd::Ended},
};

/// What is known of a member's processes at every stage.
#[derive(Debug)]
pub(super) struct Member {
    pub confinement: Confinement,
    /// The init, the parent of the task.
    pub process: Process,
    pub status: Status,
    /// The task, if it is one of the processes that its pod shares.
    pub heir: Option<Heir>,
    /// Keeps the process namespace that it shares.
    pub pod: Option<Arc<Pod>>,
    /// Keeps what it shares of communication, for those of its pod that come later.
    #[expect(dead_code, reason = "held, not used")]
    pub ipc: Option<Arc<Ipc>>,
    /// The program that further processes of the member start from.
    pub program: Arc<OwnedFd>,
    pub null: Arc<OwnedFd>,
    pub terminal: Option<Copied>,
    /// Notices when the kernel kills for want of memory.
    pub oom: Option<OomWatch>,
}

impl Member {
    /// Waits for the end of its init, which is that of all its processes. One that the kernel kills for want of memory
    /// is its end too, as it is in Mesos: what is left without it is rarely what it was, and nobody would be
    /// told.
    async fn ends(&mut self) -> std::io::Result<Ended> {
        loop {
            let kill = async {
                match &mut self.oom {
                    Some(watch) => watch.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                ended = self.process.ended() => return ended,
                kills = kill => match kills {
                    Ok(kills) => {
                        tracing::warn!(
                            "member `{}`: the kernel has killed {kills} of its processes for want of memory",
                            self.confinement.plan.member
                        );
                        self.process.kill();
                    }
                    // Nothing more will be heard of it; the verdict at the end still counts.
                    Err(_) => self.oom = None,
                },
            }
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.confinement.plan.member
    }

    async fn discard(mut self) {
        self.process.kill();
        // The only error is that there is nothing to wait for.
        let _ = self.process.gone().await;
    }

    /// Between its gate and the end of its exec, without an error to tell: the kernel was past the point where it could
    /// have given one, or somebody has killed it.
    async fn died_in_exec(mut self) -> LaunchError {
        let name = self.name().to_owned();
        let early = ended_early(&name, &mut self.process).await;
        match self.status.told() {
            Some(Ended::Signal { number, .. }) => {
                let program = &self.confinement.plan.command.program;
                LaunchError::new(
                    &name,
                    Problem::Ended(format!(
                        "exec `{program}`: ended by signal {number} while the kernel loaded it"
                    )),
                )
            }
            _ => early,
        }
    }
}

/// A member whose process exists and waits. Dropping it ends the process.
#[derive(Debug)]
pub struct Gated {
    pub(super) member: Member,
    pub(super) report: Report,
    pub(super) gate: Gate,
    pub(super) outputs: Vec<OwnedFd>,
    /// Its init will hold it after the exec.
    pub(super) watched: bool,
}

impl Gated {
    /// Opens the gate; `Ok` once the exec itself has succeeded. Not one instruction of the program has run by then,
    /// unless this host forbids to hold it.
    pub async fn execute(mut self) -> Result<Held, LaunchError> {
        if let Some(cgroup) = self.member.process.cgroup() {
            cgroup
                .hold_cpu()
                .map_err(|error| LaunchError::new(self.member.name(), Problem::Cgroup { error }))?;
        }
        self.gate.pass(self.member.name(), setup::RELEASED)?;
        let gate = match (self.report.next().await?, self.watched) {
            (Some(reached), true) if reached.what == setup::EXECUTED => Some(self.gate),
            // The exec has closed the report.
            (None, false) => None,
            _ => return Err(self.member.died_in_exec().await),
        };
        Ok(Held {
            member: self.member,
            gate,
        })
    }

    /// For a member of its own: executed and begun.
    pub async fn release(self) -> Result<Running, LaunchError> {
        Ok(self.execute().await?.begin())
    }

    /// Gives it up; resolves when nothing of it is left.
    pub async fn discard(self) {
        self.member.discard().await;
    }

    /// The files that its stderr and then its stdout go to, as far as they go to files, to be read.
    pub fn take_outputs(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.outputs)
    }

    /// Process id of the member's init, in our namespace.
    pub fn pid(&self) -> i32 {
        self.member.process.pid
    }
}

/// A member whose exec has succeeded, and that waits for the others of its group. Dropping it ends the process.
#[derive(Debug)]
pub struct Held {
    member: Member,
    /// None if it runs already.
    gate: Option<Gate>,
}

impl Held {
    /// Process id of the member's init, in our namespace.
    pub fn pid(&self) -> i32 {
        self.member.process.pid
    }

    pub fn begin(self) -> Running {
        if let Some(gate) = &self.gate
            && let Err(error) = gate.pass(self.member.name(), setup::BEGUN)
        {
            // Its end will be seen like any other.
            tracing::error!("{error}");
            self.member.process.kill();
        }
        Running {
            member: self.member,
            exit: None,
        }
    }

    /// Gives it up; resolves when nothing of it is left.
    pub async fn discard(self) {
        self.member.discard().await;
    }
}

/// A member that runs. Dropping it kills the whole container.
#[derive(Debug)]
pub struct Running {
    pub(super) member: Member,
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

    /// The network that it has joined; none if that is ours.
    pub fn network(&self) -> Option<Arc<OwnedFd>> {
        match &self.member.confinement.plan.namespaces.network {
            Network::Host => None,
            Network::Join(namespace) => Some(Arc::clone(namespace)),
        }
    }

    /// Asks the member to end: its stop signal, to its init, which passes it on.
    pub fn stop(&self) {
        let signal = self.member.confinement.plan.stop_signal;
        match &self.member.heir {
            Some(task) => task.signal(signal),
            None => self.member.process.signal(signal),
        }
    }

    /// Ends the whole container.
    pub fn kill(&self) {
        self.member.process.kill();
    }

    /// Resolves at the first sign of the member's end; there may still be something of it.
    pub async fn ends(&mut self) {
        // An error is the end, too: [`Running::wait`] knows what to make of it.
        let _ = self.member.ends().await;
    }

    /// Resolves when the member has ended and its cgroup is empty.
    pub async fn wait(&mut self) -> Exit {
        if let Some(exit) = &self.exit {
            return exit.clone();
        }
        let _ = self.member.ends().await;
        let ended = self.member.process.gone().await;
        let status = match (self.member.status.told(), ended) {
            (Some(told), _) => exit_status(told),
            // The init was killed, and all of the container with it.
            (None, Ok(ended @ Ended::Signal { .. })) => exit_status(ended),
            (None, _) => ExitStatus::Signal(libc::SIGKILL),
        };
        if let Some(terminal) = self.member.terminal.take() {
            terminal.finish().await;
        }
        let limit = match self.member.process.cgroup() {
            Some(cgroup) => oom_verdict(cgroup, self.member.oom.as_mut(), status),
            None => None,
        };
        let exit = Exit {
            status,
            limit,
            words: None,
        };
        self.exit = Some(exit.clone());
        exit
    }
}

pub(super) fn exit_status(ended: Ended) -> ExitStatus {
    match ended {
        Ended::Code(code) => ExitStatus::Code(code),
        Ended::Signal { number, .. } => ExitStatus::Signal(number),
    }
}
