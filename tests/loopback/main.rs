//! The loopback agent, seen from the executor's side of the wire, and the loopback master, seen from the scheduler's.

#![allow(clippy::unwrap_used, clippy::panic)]

mod client;
mod command;
mod conformance;
mod hostile;
mod life;
mod master;
mod recovery;
mod traps;

use std::{
    fs::{self, File},
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use podling::{
    loopback::agent::{Agent, AgentBuilder},
    mesos::v1::{CommandInfo, TaskGroupInfo, TaskId, TaskInfo},
};

/// A task that nobody runs, or that the shell runs where an executor does.
pub(crate) fn task(id: &str, command: &str) -> TaskInfo {
    TaskInfo {
        name: id.into(),
        task_id: TaskId { value: id.into() },
        command: Some(CommandInfo {
            value: Some(command.into()),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub(crate) fn group(ids: &[&str]) -> TaskGroupInfo {
    TaskGroupInfo {
        tasks: ids.iter().map(|id| task(id, "sleep 1000")).collect(),
    }
}

/// A directory of one test.
pub(crate) struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "podling-test-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    pub fn file(&self, name: &str, content: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The process of an executor whose protocol the test itself speaks. It ends with 0 when told.
pub(crate) struct Body {
    scratch: Scratch,
}

impl Body {
    pub fn new() -> Self {
        let scratch = Scratch::new();
        nix::unistd::mkfifo(&scratch.0.join("end"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        Body { scratch }
    }

    /// An agent that runs this as its executor.
    pub fn agent(&self) -> AgentBuilder {
        let end = self.scratch.0.join("end").display().to_string();
        Agent::builder().executor_argv(["/bin/cat", &end])
    }

    /// Lets the process end. Opening waits for it to have come so far, closing is what it reads.
    pub fn end(&self) {
        drop(
            File::options()
                .write(true)
                .open(self.scratch.0.join("end"))
                .unwrap(),
        );
    }
}
