//! Running something more in a member: checks, and people with questions.

use std::{
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::PathBuf,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::pipe::{PipeFlags, pipe_with};
use tokio::{io::AsyncReadExt, net::unix::pipe::Receiver};

use super::{
    cgroup::MemberCgroup,
    error::{LaunchError, Problem},
    launch::{Birth, Launched, Status, ended_early, launch},
    member::{Running, exit_status},
    plan::{Command, Terminal},
    process::{Heir, Process},
    setup::{self, Confinement, Streams, Task},
    terminal,
};
use crate::{group::ExitStatus, sys::pidfd::Ended};

/// What to run in a member. It is the member's user, with all that the member may and may not.
#[derive(Debug, Clone)]
pub struct ExecPlan {
    pub command: Command,
    /// On top of the member's own (H-15).
    pub environment: Vec<(String, String)>,
    /// The member's, if there is none.
    pub cwd: Option<PathBuf>,
    pub streams: ExecStreams,
}

#[derive(Debug, Clone)]
pub enum ExecStreams {
    /// Nothing in, nothing out.
    Null,
    Descriptors {
        stdin: Arc<OwnedFd>,
        stdout: Arc<OwnedFd>,
        stderr: Arc<OwnedFd>,
    },
    /// A new terminal; its other side is in [`Executing::terminal`].
    Terminal(Terminal),
}

/// Rooms of one member have different names.
fn room_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("exec-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// What a command said and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    pub status: ExitStatus,
    /// Its output and errors as they came, up to the limit.
    pub output: Vec<u8>,
    /// There was more.
    pub truncated: bool,
}

/// The way into a running member; may be kept beside it and copied.
#[derive(Debug, Clone)]
pub struct Entrance {
    confinement: Confinement,
    program: Arc<OwnedFd>,
    init: Arc<OwnedFd>,
    /// The first of the processes it shares with its pod.
    pod: Option<Arc<OwnedFd>>,
    /// Not kept alive by those who might come in.
    cgroup: Option<Weak<MemberCgroup>>,
    null: Arc<OwnedFd>,
}

impl Running {
    /// For running something in this member while somebody waits for its end.
    pub fn entrance(&self) -> std::io::Result<Entrance> {
        Ok(Entrance {
            confinement: self.member.confinement.clone(),
            program: Arc::clone(&self.member.program),
            init: Arc::new(self.member.process.share()?),
            pod: self.member.pod.as_ref().and_then(|pod| pod.init()),
            cgroup: self.member.process.cgroup().map(Arc::downgrade),
            null: Arc::clone(&self.member.null),
        })
    }
}

impl Entrance {
    /// How sentences call the member.
    pub fn member(&self) -> &str {
        &self.confinement.plan.member
    }

    /// Starts a command; `Ok` once the exec itself has succeeded.
    pub async fn exec(&self, plan: ExecPlan) -> Result<Executing, LaunchError> {
        self.begin(plan, false).await
    }

    /// `enclosed`: in a room of its own, with which all that it starts can be ended, where there are cgroups.
    async fn begin(&self, plan: ExecPlan, enclosed: bool) -> Result<Executing, LaunchError> {
        let member = &self.confinement.plan;
        let name = &member.member;
        let mut environment = member.environment.clone();
        for (key, value) in plan.environment {
            match environment.iter_mut().find(|(known, _)| *known == key) {
                Some((_, old)) => *old = value,
                None => environment.push((key, value)),
            }
        }
        let null = || Arc::clone(&self.null);
        let (streams, wanted) = match plan.streams {
            ExecStreams::Null => ((null(), null(), null()), None),
            ExecStreams::Terminal(terminal) => ((null(), null(), null()), Some(terminal)),
            ExecStreams::Descriptors {
                stdin,
                stdout,
                stderr,
            } => ((stdin, stdout, stderr), None),
        };
        let streams = Streams {
            stdin: streams.0,
            stdout: streams.1,
            stderr: streams.2,
        };
        let sockets = match wanted {
            Some(_) => {
                Some(terminal::socket().map_err(|error| LaunchError::step(name, "make a socket", error))?)
            }
            None => None,
        };
        let task = Task {
            command: &plan.command,
            environment: &environment,
            cwd: plan.cwd.as_deref().unwrap_or(&member.cwd),
            terminal: wanted.zip(sockets.as_ref().map(|(_, theirs)| theirs.as_fd())),
            streams: &streams,
            gate: false,
            among: Some(self.pod.as_ref().unwrap_or(&self.init).as_fd()),
        };
        let cgroup = match &self.cgroup {
            None => None,
            Some(cgroup) => Some(cgroup.upgrade().ok_or_else(|| {
                LaunchError::step(
                    name,
                    "enter the member",
                    std::io::Error::from_raw_os_error(libc::ESRCH),
                )
            })?),
        };
        let refused = |error| LaunchError::new(name, Problem::Cgroup { error });
        let room = match cgroup.as_ref().filter(|_| enclosed) {
            None => None,
            Some(cgroup) => Some(Arc::new(cgroup.room(&room_name()).map_err(refused)?)),
        };
        let into = room
            .as_deref()
            .or(cgroup.as_deref())
            .and_then(MemberCgroup::clone_into);
        let join = match (&cgroup, &room) {
            (None, _) => None,
            (Some(cgroup), None) => Some(cgroup.join(into.is_some()).map_err(refused)?),
            (Some(cgroup), Some(room)) => Some(cgroup.join_room(room, into.is_some()).map_err(refused)?),
        };
        let join = join.as_ref().map_or(&[][..], |join| join.as_raw_fds());
        let script = setup::exec(&self.confinement, &task, &self.init, self.pod.as_ref(), join)
            .map_err(|error| LaunchError::step(name, "write the script", error))?;
        let sockets_of_theirs = sockets.iter().map(|(_, theirs)| theirs.as_raw_fd());
        let keep: Vec<_> = sockets_of_theirs.chain(join.iter().copied()).collect();
        // The gate is not used, but its end is what an orphan would notice.
        let Launched {
            process,
            mut report,
            gate: _gate,
            status,
        } = launch(
            name,
            script,
            &Birth {
                cgroup: into,
                also_keep: &keep,
                ..Birth::of(&self.program)
            },
        )?;
        let mut executing = Executing {
            process: process.with_cgroup(room.clone()),
            status,
            task: None,
            terminal: None,
        };
        let mut started = false;
        while let Some(reached) = report.next().await? {
            match reached.what {
                // If it has ended already, nothing needs to be done to it.
                setup::FORKED => executing.task = Heir::of(&executing.process, reached.value),
                setup::AT_EXEC => started = true,
                setup::AT_TERMINAL => {
                    if let Some((ours, _)) = &sockets {
                        let taken = terminal::take(ours.as_fd())
                            .map_err(|error| LaunchError::step(name, "take the terminal", error))?;
                        executing.terminal = Some(taken);
                    }
                }
                _ => {}
            }
        }
        match started {
            true => Ok(executing),
            false => Err(ended_early(name, &mut executing.process).await),
        }
    }

    /// Runs a command to its end. Dropping the future kills it. Output beyond `limit` bytes is read and dropped, so
    /// that the command is not held up.
    pub async fn capture(&self, plan: ExecPlan, limit: usize) -> Result<Captured, LaunchError> {
        let (captured, _) = self.listen(plan, limit, false).await?;
        Ok(captured)
    }

    /// The same, and whatever the command has started ends with it, wherever it has hidden.
    pub async fn capture_whole(&self, plan: ExecPlan, limit: usize) -> Result<Captured, LaunchError> {
        let (captured, mut executing) = self.listen(plan, limit, true).await?;
        executing.clear().await;
        Ok(captured)
    }

    async fn listen(
        &self,
        plan: ExecPlan,
        limit: usize,
        enclosed: bool,
    ) -> Result<(Captured, Executing), LaunchError> {
        let name = &self.confinement.plan.member;
        let failed = |error: std::io::Error| LaunchError::step(name, "make a pipe", error);
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| failed(errno.into()))?;
        let mut output = Receiver::from_owned_fd(read).map_err(failed)?;
        let write = Arc::new(write);
        let plan = ExecPlan {
            streams: ExecStreams::Descriptors {
                stdin: Arc::clone(&self.null),
                stdout: Arc::clone(&write),
                stderr: write,
            },
            ..plan
        };
        let mut executing = self.begin(plan, enclosed).await?;
        let mut captured = Captured {
            status: ExitStatus::Code(0),
            output: Vec::new(),
            truncated: false,
        };
        let mut buffer = [0u8; 4096];
        let mut open = true;
        loop {
            tokio::select! {
                biased;
                read = output.read(&mut buffer), if open => match read {
                    Ok(length) if length > 0 => captured.add(buffer.get(..length).unwrap_or_default(), limit),
                    _ => open = false,
                },
                status = executing.wait() => {
                    captured.status = status;
                    // What it left in the pipe; not what others, that it left behind, may still write.
                    while let Ok(length @ 1..) = output.try_read(&mut buffer) {
                        captured.add(buffer.get(..length).unwrap_or_default(), limit);
                    }
                    return Ok((captured, executing));
                }
            }
        }
    }
}

impl Captured {
    fn add(&mut self, bytes: &[u8], limit: usize) {
        let room = limit.saturating_sub(self.output.len());
        self.truncated |= bytes.len() > room;
        self.output.extend(bytes.iter().take(room));
    }
}

/// A command that runs in a member. Dropping it kills it.
#[derive(Debug)]
pub struct Executing {
    process: Process,
    status: Status,
    /// Leads a session and process group of its own.
    task: Option<Heir>,
    /// The other side of its terminal, if it has one.
    pub terminal: Option<OwnedFd>,
}

impl Executing {
    pub async fn wait(&mut self) -> ExitStatus {
        let ended = self.process.ended().await;
        self.task = None;
        match (self.status.told(), ended) {
            (Some(told), _) => exit_status(told),
            (None, Ok(ended @ Ended::Signal { .. })) => exit_status(ended),
            (None, _) => ExitStatus::Signal(libc::SIGKILL),
        }
    }

    /// Ends what it has left behind, if it had a room of its own.
    async fn clear(&mut self) {
        // The only error is that there is nothing to wait for.
        let _ = self.process.gone().await;
    }

    /// Sends a signal to the command.
    pub fn signal(&self, number: i32) {
        if let Some(task) = &self.task {
            task.signal(number);
        }
    }

    /// Kills it and what it started: all of it if it has a room of its own, else what stayed in its process group; the
    /// rest ends with the member.
    pub fn kill(&self) {
        // Its parent, the init of this exec, is not reaped yet: the number still means this group.
        if let Some(task) = &self.task {
            // All that can be wrong is that there is nobody any more.
            let _ = rustix::process::kill_process_group(task.pid, rustix::process::Signal::KILL);
        }
        self.process.kill();
    }
}

impl Drop for Executing {
    fn drop(&mut self) {
        if self.task.is_some() {
            self.kill();
        }
    }
}
