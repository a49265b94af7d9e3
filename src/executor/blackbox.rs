//! The black box: every cause and every effect, appended to a file before the effects are carried out.
//!
//! One JSON object a line, with the microseconds since the executor started, for whoever looks into the sandbox, whether
//! we live or not. It holds ids, states, messages and exits, and never an environment, a command or a secret.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, Write as _},
    time::Duration,
};

use rustix::fs::{self, FileType, Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::crash;
use crate::{
    group::{Effect, Event, ExitStatus, Limit, MemberSignal},
    mesos::v1,
    sys::held::Held,
};

pub const NAME: &str = "blackbox.jsonl";
/// The history before that, once there is too much of it.
pub const OLDER: &str = "blackbox.1.jsonl";

/// One line. Every field but the time is there only if it means something.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Line<'a> {
    /// Microseconds since the executor started.
    pub us: u64,
    /// What happened …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cow<'a, str>>,
    /// … or what is done about the cause above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub member: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthy: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<Cow<'a, str>>,
}

impl<'a> Line<'a> {
    fn cause(name: &'static str) -> Self {
        Line {
            cause: Some(name.into()),
            ..Line::default()
        }
    }

    fn effect(name: &'static str) -> Self {
        Line {
            effect: Some(name.into()),
            ..Line::default()
        }
    }

    /// A fact beside causes and effects, such as a lost connection and why.
    pub fn fact(name: &'static str, message: &'a str) -> Self {
        Line {
            message: Some(message.into()),
            ..Line::cause(name)
        }
    }
}

impl<'a> From<&'a Event> for Line<'a> {
    fn from(event: &'a Event) -> Self {
        let of = |name, member: &crate::group::MemberId| Line {
            member: Some(member.0),
            ..Line::cause(name)
        };
        match event {
            Event::Subscribed(subscribed) => Line {
                container: subscribed
                    .container_id
                    .as_ref()
                    .map(|id| id.value.as_str().into()),
                ..Line::cause("subscribed")
            },
            Event::Disconnected => Line::cause("disconnected"),
            Event::LaunchGroup(tasks) => Line {
                tasks: tasks
                    .iter()
                    .map(|task| task.task_id.value.as_str().into())
                    .collect(),
                ..Line::cause("launch_group")
            },
            Event::Kill { task, policy } => Line {
                task: Some(task.into()),
                grace_ms: policy
                    .as_ref()
                    .and_then(|policy| policy.grace_period.as_ref())
                    .map(|grace| u64::try_from(grace.nanoseconds / 1_000_000).unwrap_or(0)),
                ..Line::cause("kill")
            },
            Event::Acknowledged { task, uuid } => Line {
                task: Some(task.into()),
                uuid: Some(hex(uuid)),
                ..Line::cause("acknowledged")
            },
            Event::Shutdown => Line::cause("shutdown"),
            Event::Prepared(member) => of("prepared", member),
            Event::PrepareFailed(member, failure) => Line {
                message: Some(failure.message.as_str().into()),
                ..of("prepare_failed", member)
            },
            Event::Held(member) => of("held", member),
            Event::StartFailed(member, failure) => Line {
                message: Some(failure.message.as_str().into()),
                ..of("start_failed", member)
            },
            Event::Discarded(member) => of("discarded", member),
            Event::Exited(member, exit) => {
                let mut line = of("exited", member);
                match exit.status {
                    ExitStatus::Code(code) => line.code = Some(code),
                    ExitStatus::Signal(signal) => line.signal = Some(signal),
                }
                if let Some(Limit::Memory { message, .. }) = &exit.limit {
                    line.reason = Some("memory".into());
                    line.message = Some(message.as_str().into());
                }
                line
            }
            Event::Network { member, .. } => Line {
                member: member.map(|member| member.0),
                ..Line::cause("network")
            },
            Event::NetworkRefused(why) => Line {
                message: Some(why.into()),
                ..Line::cause("network_refused")
            },
            Event::Lesser(what) => Line {
                message: Some(what.into()),
                ..Line::cause("lesser")
            },
            Event::Health {
                member,
                healthy,
                message,
            } => Line {
                healthy: Some(*healthy),
                message: message.as_deref().map(Cow::from),
                ..of("health", member)
            },
            Event::Unhealthy { member, message } => Line {
                message: Some(message.into()),
                ..of("unhealthy", member)
            },
            Event::Ready { member, message, .. } => Line {
                message: message.as_deref().map(Cow::from),
                ..of("ready", member)
            },
            Event::Check { member, message, .. } => Line {
                message: message.as_deref().map(Cow::from),
                ..of("check", member)
            },
            Event::Tick => Line::cause("tick"),
        }
    }
}

impl<'a> From<&'a Effect> for Line<'a> {
    fn from(effect: &'a Effect) -> Self {
        let of = |name, member: &crate::group::MemberId| Line {
            member: Some(member.0),
            ..Line::effect(name)
        };
        match effect {
            Effect::Send(status) => Line {
                task: Some(status.task_id.value.as_str().into()),
                state: Some(status.state().as_str_name().into()),
                reason: status.reason.map(|_| status.reason().as_str_name().into()),
                healthy: status.healthy,
                uuid: status.uuid.as_deref().map(hex),
                message: status.message.as_deref().map(Cow::from),
                ..Line::effect("send")
            },
            Effect::Prepare {
                member,
                group,
                container,
                task,
            } => Line {
                group: Some(group.0),
                container: Some(container.into()),
                task: Some(task.task_id.value.as_str().into()),
                ..of("prepare", member)
            },
            Effect::Release(member) => of("release", member),
            Effect::Begin(member) => of("begin", member),
            Effect::Discard(member) => of("discard", member),
            Effect::Signal(member, MemberSignal::Stop) => of("stop", member),
            Effect::Signal(member, MemberSignal::Kill) => of("kill", member),
            Effect::Forget(member) => of("forget", member),
            Effect::Note(note) => Line {
                message: Some(note.into()),
                ..Line::effect("note")
            },
            Effect::Exit => Line::effect("exit"),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(32).map(|byte| format!("{byte:02x}")).collect()
}

/// Who and when, the first line of every life.
#[derive(Debug, Serialize)]
pub struct Begin<'a> {
    pub us: u64,
    /// Seconds since the epoch at `us`.
    pub begin: f64,
    pub version: &'a str,
    pub pid: u32,
    pub framework: &'a str,
    pub executor: &'a str,
}

/// The writing side. A box that cannot be written is told once and does not stop the executor.
#[derive(Debug)]
pub struct BlackBox {
    directory: Option<Held>,
    file: Option<File>,
    written: u64,
    limit: u64,
    buffer: Vec<u8>,
}

impl BlackBox {
    /// `directory`: our own one inside the sandbox; without it nothing is recorded.
    pub fn open(directory: Option<Held>, limit: u64) -> Self {
        let mut record = BlackBox {
            directory,
            file: None,
            written: 0,
            limit,
            buffer: Vec::new(),
        };
        record.reopen();
        record
    }

    /// Writes a cause and what follows from it, in one piece.
    pub fn step(&mut self, now: Duration, cause: &Event, effects: &[Effect]) {
        self.line(now, cause.into());
        for effect in effects {
            self.line(now, effect.into());
        }
        self.flush();
    }

    pub fn fact(&mut self, now: Duration, line: Line<'_>) {
        self.line(now, line);
        self.flush();
    }

    pub fn begin(&mut self, begin: &Begin<'_>) {
        self.push(begin);
        self.flush();
    }

    fn line(&mut self, now: Duration, mut line: Line<'_>) {
        line.us = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        self.push(&line);
    }

    fn push(&mut self, value: &impl Serialize) {
        let before = self.buffer.len();
        match serde_json::to_writer(&mut self.buffer, value) {
            Ok(()) => self.buffer.push(b'\n'),
            Err(_) => self.buffer.truncate(before),
        }
    }

    fn flush(&mut self) {
        if let Some(file) = &mut self.file {
            match file.write_all(&self.buffer) {
                Ok(()) => self.written += self.buffer.len() as u64,
                Err(error) => {
                    tracing::warn!("the black box cannot be written and ends here: {error}");
                    self.file = None;
                }
            }
        }
        self.buffer.clear();
        if self.file.is_some() && self.written >= self.limit {
            self.turn_over();
        }
    }

    fn turn_over(&mut self) {
        if let Some(directory) = &self.directory {
            // If that fails the file is emptied below, so its size stays bounded all the same.
            let _ = fs::renameat(directory, NAME, directory, OLDER);
        }
        self.reopen();
        if let Some(file) = &self.file {
            let _ = file.set_len(0);
        }
        self.written = 0;
    }

    fn reopen(&mut self) {
        let Some(directory) = &self.directory else { return };
        // What the agent has fetched for us may be anything; a FIFO would wait for its other end.
        let flags = OFlags::WRONLY
            | OFlags::APPEND
            | OFlags::CREATE
            | OFlags::NOFOLLOW
            | OFlags::NONBLOCK
            | OFlags::CLOEXEC;
        let opened = fs::openat(directory, NAME, flags, Mode::RUSR | Mode::WUSR)
            .map_err(io::Error::from)
            .and_then(|file| match FileType::from_raw_mode(fs::fstat(&file)?.st_mode) {
                FileType::RegularFile => Ok(file),
                _ => Err(io::Error::other("not a regular file")),
            });
        match opened {
            Ok(file) => {
                let file = File::from(file);
                self.written = file.metadata().map_or(0, |metadata| metadata.len());
                self.file = Some(file);
            }
            Err(error) => {
                tracing::warn!("there will be no black box: {error}");
                self.file = None;
            }
        }
        crash::tell_black_box(self.file.as_ref());
    }
}

/// The state of a status as Mesos writes it, for log lines.
pub fn state_name(status: &v1::TaskStatus) -> &'static str {
    status.state().as_str_name()
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt as _, path::Path, sync::Arc};

    use super::*;
    use crate::group::{GroupId, MemberId};

    fn open(dir: &Path, limit: u64) -> BlackBox {
        BlackBox::open(Some(Held::open(dir).expect("dir")), limit)
    }

    fn task(id: &str) -> v1::TaskInfo {
        let variable = v1::environment::Variable {
            name: "PASSWORD".into(),
            value: Some("hunter2".into()),
            ..Default::default()
        };
        v1::TaskInfo {
            task_id: v1::TaskId { value: id.into() },
            command: Some(v1::CommandInfo {
                environment: Some(v1::Environment {
                    variables: vec![variable],
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn a_cause_stands_above_its_effects_and_secrets_stay_out() {
        let dir = tempfile::tempdir().expect("dir");
        let mut record = open(dir.path(), 1 << 20);
        let prepare = Effect::Prepare {
            member: MemberId(1),
            group: GroupId(0),
            container: "c-1".into(),
            task: Arc::new(task("web")),
        };
        record.step(
            Duration::from_micros(1234),
            &Event::LaunchGroup(vec![task("web")]),
            &[prepare],
        );
        record.fact(Duration::from_micros(1300), Line::fact("connection", "lost"));
        let path = dir.path().join(NAME);
        let text = std::fs::read_to_string(&path).expect("written");
        let lines: Vec<Line<'_>> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0].us, 1234);
        assert_eq!(lines[0].cause.as_deref(), Some("launch_group"));
        assert_eq!(lines[0].tasks, ["web"]);
        assert_eq!(lines[1].effect.as_deref(), Some("prepare"));
        assert_eq!(lines[1].container.as_deref(), Some("c-1"));
        assert_eq!(lines[2].message.as_deref(), Some("lost"));
        assert!(!text.contains("hunter2") && !text.contains("PASSWORD"), "{text}");
        assert_eq!(path.metadata().expect("file").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn n_2_its_size_is_bounded() {
        let dir = tempfile::tempdir().expect("dir");
        let mut record = open(dir.path(), 4096);
        for _ in 0..1000 {
            record.step(
                Duration::from_secs(1),
                &Event::Tick,
                &[Effect::Note("x".repeat(50))],
            );
        }
        let size = |name| dir.path().join(name).metadata().expect("file").len();
        assert!(size(NAME) < 4096 + 200 && size(OLDER) < 4096 + 200);
        assert_eq!(std::fs::read_dir(dir.path()).expect("dir").count(), 2);
    }

    #[test]
    fn s_3_a_fifo_in_its_place_is_not_waited_for() {
        let dir = tempfile::tempdir().expect("dir");
        let (kind, mode) = (FileType::Fifo, Mode::RUSR | Mode::WUSR);
        fs::mknodat(fs::CWD, dir.path().join(NAME), kind, mode, 0).expect("a fifo");
        let _reader = fs::open(dir.path().join(NAME), OFlags::RDWR, Mode::empty()).expect("opened");
        open(dir.path(), 4096).step(Duration::ZERO, &Event::Tick, &[]);
        let metadata = dir.path().join(NAME).symlink_metadata().expect("still there");
        assert!(!metadata.is_file());
    }

    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let dir = tempfile::tempdir().expect("dir");
        let victim = dir.path().join("victim");
        std::os::unix::fs::symlink(&victim, dir.path().join(NAME)).expect("link");
        let mut record = open(dir.path(), 4096);
        record.step(Duration::ZERO, &Event::Tick, &[]);
        assert!(!victim.exists());
    }
}
