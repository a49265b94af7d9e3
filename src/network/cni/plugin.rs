//! One call of one plug-in: environment, input, a time limit, bounded output.

use std::{
    io,
    os::{fd::BorrowedFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::result::excerpt;
use crate::{network::config::CniConfig, sys};

/// A result is a few hundred bytes.
const OUTPUT_LIMIT: u64 = 1 << 20;
/// How long what a plug-in printed may take to arrive after its end; its own children may keep the pipe open.
const LAST_WORDS: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Add,
    Del,
    Check,
    Gc,
    Version,
}

impl Command {
    fn as_str(self) -> &'static str {
        match self {
            Command::Add => "ADD",
            Command::Del => "DEL",
            Command::Check => "CHECK",
            Command::Gc => "GC",
            Command::Version => "VERSION",
        }
    }
}

/// How a call of a plug-in went wrong.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    #[error("plug-in {plugin} is in none of {dirs}")]
    Missing { plugin: String, dirs: String },
    #[error("cannot run plug-in {plugin}: {cause}")]
    Start {
        plugin: String,
        #[source]
        cause: io::Error,
    },
    /// It said so itself.
    #[error("plug-in {plugin} refused {command}: {message} (code {code})")]
    Refused {
        plugin: String,
        command: &'static str,
        code: i64,
        message: String,
    },
    #[error("plug-in {plugin} broke down at {command} ({status}); it printed: {printed}")]
    Crashed {
        plugin: String,
        command: &'static str,
        status: ExitStatus,
        printed: String,
    },
    #[error("plug-in {plugin} did not end {command} within {} s and was killed", limit.as_secs())]
    TimedOut {
        plugin: String,
        command: &'static str,
        limit: Duration,
    },
    #[error("plug-in {plugin} printed more than 1 MiB at {command} and was killed")]
    Chatty { plugin: String, command: &'static str },
}

pub(super) struct Call<'a> {
    pub config: &'a CniConfig,
    pub plugin: &'a str,
    pub command: Command,
    pub container_id: &'a str,
    pub interface: &'a str,
    pub namespace: &'a str,
    pub input: Vec<u8>,
    /// The lock that says that this attachment is being worked on: the plug-in and what it runs hold it too, so that
    /// nobody undoes what a plug-in is still making for an executor that has died.
    pub lock: Option<BorrowedFd<'a>>,
}

/// Kills the plug-in and what it started when it is not wanted any more: at the time limit, or when nobody waits.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0.take() {
            // The leader is not waited for yet, so the number is still its own.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

impl Call<'_> {
    /// What the plug-in prints, if it succeeds.
    pub async fn run(&self) -> Result<Vec<u8>, PluginError> {
        let limit = self.config.timeout();
        let plugin = || self.plugin.to_owned();
        let command = self.command.as_str();
        match timeout(limit, self.run_unlimited()).await {
            Ok(answer) => answer,
            Err(_) => Err(PluginError::TimedOut {
                plugin: plugin(),
                command,
                limit,
            }),
        }
    }

    async fn run_unlimited(&self) -> Result<Vec<u8>, PluginError> {
        let plugin = || self.plugin.to_owned();
        let command = self.command.as_str();
        let failed = |cause| PluginError::Start {
            plugin: plugin(),
            cause,
        };
        let mut line = self.command_line()?;
        if let Some(lock) = self.lock {
            sys::inherit::keep(line.as_std_mut(), lock).map_err(failed)?;
        }
        let mut child = line.spawn().map_err(failed)?;
        // It has a copy of the lock, which the plug-in alone is to hold from here on.
        drop(line);
        let mut group = Group(
            child
                .id()
                .and_then(|id| i32::try_from(id).ok())
                .map(Pid::from_raw),
        );
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (mut printed, mut complaint) = (Vec::new(), Vec::new());
        let (status, whole) = {
            let talk = async {
                let write = async {
                    if let Some(mut stdin) = stdin {
                        // A plug-in need not read its input.
                        let _ = stdin.write_all(&self.input).await;
                    }
                };
                let ((), whole, _) =
                    tokio::join!(write, read(stdout, &mut printed), read(stderr, &mut complaint));
                whole
            };
            tokio::pin!(talk);
            tokio::select! {
                whole = &mut talk => {
                    if !whole {
                        return Err(PluginError::Chatty { plugin: plugin(), command });
                    }
                    (child.wait().await, whole)
                }
                status = child.wait() => (status, timeout(LAST_WORDS, talk).await.unwrap_or(true)),
            }
        };
        // It has been waited for: its number may be somebody else's now.
        group.0 = None;
        let status = status.map_err(failed)?;
        if !whole {
            return Err(PluginError::Chatty {
                plugin: plugin(),
                command,
            });
        }
        if status.success() {
            return Ok(printed);
        }
        Err(self.complaint(status, &printed, &complaint))
    }

    /// A plug-in that refuses prints `{"code", "msg", "details"}`; one that breaks down prints what it likes.
    fn complaint(&self, status: ExitStatus, printed: &[u8], complaint: &[u8]) -> PluginError {
        let said: Value = serde_json::from_slice(printed).unwrap_or_default();
        let text = |key: &str| {
            said.get(key)
                .and_then(Value::as_str)
                .filter(|text| !text.is_empty())
        };
        match (said.get("code").and_then(Value::as_i64), text("msg")) {
            (Some(code), Some(message)) => {
                let details = text("details")
                    .map(|details| format!(": {details}"))
                    .unwrap_or_default();
                PluginError::Refused {
                    plugin: self.plugin.to_owned(),
                    command: self.command.as_str(),
                    code,
                    message: excerpt(format!("{message}{details}").as_bytes()),
                }
            }
            _ => PluginError::Crashed {
                plugin: self.plugin.to_owned(),
                command: self.command.as_str(),
                status,
                printed: excerpt(if complaint.is_empty() { printed } else { complaint }),
            },
        }
    }

    fn command_line(&self) -> Result<tokio::process::Command, PluginError> {
        let dirs = &self.config.plugin_dirs;
        let joined = dirs
            .iter()
            .map(|dir| dir.to_string_lossy())
            .collect::<Vec<_>>()
            .join(":");
        let program = find(dirs, self.plugin).ok_or_else(|| PluginError::Missing {
            plugin: self.plugin.to_owned(),
            dirs: joined.replace(':', ", "),
        })?;
        // Plug-ins call `iptables` and the like, which an agent's PATH may lack.
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{path}:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin");
        let mut command = tokio::process::Command::new(program);
        // Nothing of our environment is a plug-in's business. No `pre_exec`: the standard library then spawns without
        // copying this process.
        command
            .env_clear()
            .env("PATH", path.trim_start_matches(':'))
            .env("CNI_COMMAND", self.command.as_str())
            .env("CNI_PATH", &joined)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if !self.container_id.is_empty() {
            command
                .env("CNI_CONTAINERID", self.container_id)
                .env("CNI_IFNAME", self.interface)
                .env("CNI_NETNS", self.namespace)
                .env("CNI_ARGS", "IgnoreUnknown=1");
        }
        Ok(command)
    }
}

fn find(dirs: &[PathBuf], plugin: &str) -> Option<PathBuf> {
    let runnable = |path: &Path| {
        path.metadata()
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    dirs.iter()
        .map(|dir| dir.join(plugin))
        .find(|path| runnable(path))
}

/// Reads to the end; `false` when that is too far.
async fn read(pipe: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>) -> bool {
    let Some(pipe) = pipe else { return true };
    // What was read before an error is all there is.
    let _ = pipe.take(OUTPUT_LIMIT + 1).read_to_end(into).await;
    into.len() as u64 <= OUTPUT_LIMIT
}
