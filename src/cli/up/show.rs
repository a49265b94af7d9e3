//! What the user of `podling up` sees.
//!
//! One line for each change of a member's state, and the members' own lines behind a prefix. Plain text when nobody is
//! looking at a terminal.

use std::{
    collections::BTreeMap,
    io::{IsTerminal as _, Write as _},
    path::{Path, PathBuf},
};

use anstyle::{AnsiColor, Style};

use super::logs::Follower;
use crate::{
    mesos::v1::{TaskState, TaskStatus},
    pod::{InstanceId, PodId, TaskName},
    scheduler::core::{Condition, Notice},
};

const COLOURS: [AnsiColor; 6] = [
    AnsiColor::Cyan,
    AnsiColor::Yellow,
    AnsiColor::Green,
    AnsiColor::Magenta,
    AnsiColor::Blue,
    AnsiColor::BrightRed,
];

#[derive(Debug)]
pub(super) struct Show {
    colours: bool,
    follower: Option<Follower>,
    /// Short numbers for instances, in the order they were first seen: `/web[2]`.
    numbers: BTreeMap<PodId, Vec<InstanceId>>,
    /// Prefixes are padded to the longest so far.
    width: usize,
    /// Colours by prefix, in the order they were first seen.
    prefixes: Vec<String>,
}

impl Show {
    /// `output`: show what members write even if this is no terminal.
    pub fn new(output: bool) -> Self {
        let terminal = std::io::stdout().is_terminal();
        let follower = (output || terminal)
            .then(Follower::new)
            .and_then(|follower| match follower {
                Ok(follower) => Some(follower),
                Err(error) => {
                    eprintln!("podling: cannot follow what members write: {error}");
                    None
                }
            });
        Show {
            colours: terminal && std::env::var_os("NO_COLOR").is_none(),
            follower,
            numbers: BTreeMap::new(),
            width: 0,
            prefixes: Vec::new(),
        }
    }

    pub fn began(&self, address: &str, agents: u16, work_dir: &Path) {
        let agents = if agents == 1 {
            "1 agent".to_owned()
        } else {
            format!("{agents} agents")
        };
        self.say(&format!(
            "pods API at http://{address}, {agents}, sandboxes in {}",
            work_dir.display()
        ));
        if !nix::unistd::geteuid().is_root() {
            self.say("not root: members share this user's rights, the host's network, and have no limits of their own");
        }
    }

    pub fn ending(&self) {
        self.say("ending");
    }

    pub fn lagged(&self, count: u64) {
        self.say(&format!("{count} messages were too many to show"));
    }

    /// Waits until members have written something.
    pub async fn until_output(&self) {
        match &self.follower {
            Some(follower) => follower.grown().await,
            None => std::future::pending().await,
        }
    }

    pub fn output(&mut self) {
        self.with_lines(|follower, line| follower.read(line));
    }

    /// The last words of everybody.
    pub fn finish(&mut self, work_dir: &Path) {
        let below = work_dir.to_owned();
        self.with_lines(move |follower, line| follower.finish(&below, line));
    }

    fn with_lines(&mut self, read: impl FnOnce(&mut Follower, &mut dyn FnMut(&str, &str))) {
        let Some(mut follower) = self.follower.take() else {
            return;
        };
        read(&mut follower, &mut |label, text| self.line(label, text));
        self.follower = Some(follower);
    }

    pub fn notice(&mut self, notice: &Notice, work_dir: &Path) {
        match notice {
            Notice::StatusUpdate { status, .. } => self.status(status, work_dir),
            Notice::InstanceChanged {
                pod,
                instance,
                condition,
                host,
                ..
            } => {
                let label = self.instance(pod, instance);
                match condition {
                    Condition::Scheduled => self.event(&label, "waits for an offer"),
                    Condition::Provisioned => {
                        self.event(
                            &label,
                            &format!("goes to {}", host.as_deref().unwrap_or("an agent")),
                        );
                    }
                    _ => {}
                }
            }
            Notice::DeploymentSuccess { pod, .. } => self.event(&pod.to_string(), "is as it should be"),
            Notice::PodDeleted(pod) => self.event(&pod.to_string(), "is gone"),
            Notice::UnknownInstanceTerminated { .. }
            | Notice::PodCreated(_)
            | Notice::PodUpdated(_)
            | Notice::DeploymentFailed { .. }
            | Notice::Registered { .. }
            | Notice::Disconnected => {}
        }
    }

    fn status(&mut self, status: &TaskStatus, work_dir: &Path) {
        let Some(name) = TaskName::parse(&status.task_id.value) else {
            return;
        };
        let label = self.member(&name);
        // What a member wrote before it ended comes before its end.
        let sandbox = sandbox(work_dir, status, &name);
        let state = status.state();
        let ended = Condition::of(state).is_terminal();
        if let Some(sandbox) = &sandbox {
            if ended {
                let below = sandbox.clone();
                self.with_lines(move |follower, line| follower.finish(&below, line));
            } else if state == TaskState::TaskRunning
                && let Some(follower) = &mut self.follower
            {
                for file in ["stdout", "stderr"] {
                    // A sandbox we may not look into is no reason to stop.
                    let _ = follower.add(&sandbox.join(file), &label);
                }
            }
        }
        let word = state.as_str_name().trim_start_matches("TASK_");
        let health = match status.healthy {
            Some(true) => ", healthy",
            Some(false) => ", unhealthy",
            None => "",
        };
        let why = status
            .message
            .as_deref()
            .map(|message| format!(": {message}"))
            .unwrap_or_default();
        let style = match state {
            TaskState::TaskRunning => Style::new().fg_color(Some(AnsiColor::Green.into())),
            TaskState::TaskFailed | TaskState::TaskError | TaskState::TaskLost | TaskState::TaskDropped => {
                Style::new().fg_color(Some(AnsiColor::Red.into())).bold()
            }
            _ => Style::new(),
        };
        self.event(&label, &format!("{}{health}{why}", self.paint(style, word)));
        if !ended {
            self.output();
        }
    }

    /// `/web` for a pod's first instance, `/web[2]` for its second.
    fn instance(&mut self, pod: &PodId, instance: &InstanceId) -> String {
        let known = self.numbers.entry(pod.clone()).or_default();
        let number = known.iter().position(|id| id == instance).unwrap_or_else(|| {
            known.push(instance.clone());
            known.len() - 1
        });
        if number == 0 {
            pod.to_string()
        } else {
            format!("{pod}[{}]", number + 1)
        }
    }

    fn member(&mut self, name: &TaskName) -> String {
        let pod = self
            .numbers
            .iter()
            .find(|(_, known)| known.contains(&name.instance))
            .map(|(pod, _)| pod.clone());
        match pod {
            Some(pod) => format!("{} {}", self.instance(&pod, &name.instance), name.container),
            None => format!("{} {}", name.instance, name.container),
        }
    }

    fn say(&self, text: &str) {
        println!("{}", self.paint(Style::new().dimmed(), text));
    }

    fn event(&mut self, label: &str, text: &str) {
        self.row(label, "·", text);
    }

    fn line(&mut self, label: &str, text: &str) {
        // A member must not paint over our own lines.
        let clean: String = text
            .chars()
            .map(|c| {
                if c.is_control() && c != '\t' {
                    '\u{fffd}'
                } else {
                    c
                }
            })
            .collect();
        self.row(label, "|", clean.trim_end_matches('\u{fffd}'));
    }

    fn row(&mut self, label: &str, mark: &str, text: &str) {
        self.width = self.width.max(label.chars().count()).min(40);
        let position = self
            .prefixes
            .iter()
            .position(|known| known == label)
            .unwrap_or_else(|| {
                self.prefixes.push(label.to_owned());
                self.prefixes.len() - 1
            });
        let colour = COLOURS
            .get(position % COLOURS.len())
            .copied()
            .unwrap_or(AnsiColor::White);
        let prefix = format!("{label:<width$} {mark}", width = self.width);
        let prefix = self.paint(Style::new().fg_color(Some(colour.into())), &prefix);
        // A reader that has gone away is no reason to end the pods.
        let _ = writeln!(std::io::stdout().lock(), "{prefix} {text}");
    }

    fn paint(&self, style: Style, text: &str) -> String {
        if self.colours {
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }
}

/// The member's own directory below the agents' work directory.
fn sandbox(work_dir: &Path, status: &TaskStatus, name: &TaskName) -> Option<PathBuf> {
    let agent = &status.agent_id.as_ref()?.value;
    let frameworks = work_dir.join("slaves").join(agent).join("frameworks");
    // Ours is the only framework of this cluster.
    let framework = std::fs::read_dir(frameworks).ok()?.next()?.ok()?.path();
    let runs = framework
        .join("executors")
        .join(name.instance.executor_id())
        .join("runs");
    runs.join("latest/tasks")
        .join(&status.task_id.value)
        .canonicalize()
        .ok()
}
