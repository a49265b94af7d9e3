//! What the user of `podling up` sees.
//!
//! One line for each change of a member's state, and the members' own lines behind a prefix. Plain text when nobody is
//! looking at a terminal.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal as _},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anstyle::{AnsiColor, Style};

use super::{
    listen,
    logs::{self, Follower, Said},
    printer::Printer,
    repeats::Repeats,
};
use crate::{
    cli::{colour, failure, text},
    mesos::v1::{TaskState, TaskStatus},
    pod::{InstanceId, Pod, PodId, TaskName},
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

/// Prefixes are not padded beyond this.
const WIDEST: usize = 40;
/// So many names are remembered, for their numbers and colours.
const REMEMBERED: usize = 1000;

#[derive(Debug)]
pub(super) struct Show {
    printer: Printer,
    work_dir: PathBuf,
    colours: bool,
    follower: Option<Follower>,
    /// How many bytes a member may be ahead of what is shown.
    furthest: u64,
    /// Members have written more than was read by now.
    behind: bool,
    /// Short numbers for instances, in the order they were first seen: `/web[2]`.
    numbers: BTreeMap<PodId, Vec<InstanceId>>,
    /// Prefixes are padded to the longest so far.
    width: usize,
    /// What was told of where instances answer, by label.
    endpoints: BTreeMap<String, Vec<String>>,
    repeats: Repeats,
    /// Colours by prefix, in the order they were first seen.
    prefixes: Vec<String>,
}

impl Show {
    /// `output`: show what members write even if this is no terminal. `whole`: leave none of it out then, however long
    /// that takes; on a terminal nobody could read it.
    pub fn new(output: bool, whole: bool, work_dir: &Path) -> io::Result<Self> {
        let terminal = io::stdout().is_terminal();
        let follower = (output || terminal)
            .then(Follower::new)
            .and_then(|follower| match follower {
                Ok(follower) => Some(follower),
                Err(error) => {
                    failure::complain(format_args!("cannot follow what members write: {error}"));
                    None
                }
            });
        Ok(Show {
            printer: Printer::start()?,
            work_dir: work_dir.to_owned(),
            colours: colour::is_wanted(),
            follower,
            furthest: match whole && !terminal {
                true => u64::MAX,
                false => logs::FURTHEST,
            },
            behind: false,
            numbers: BTreeMap::new(),
            width: 0,
            endpoints: BTreeMap::new(),
            repeats: Repeats::default(),
            prefixes: Vec::new(),
        })
    }

    pub fn began(&mut self, address: SocketAddr, agents: u16, pods: &[Pod], root: bool) {
        let agents = if agents == 1 {
            "1 agent".to_owned()
        } else {
            format!("{agents} agents")
        };
        self.say(&format!(
            "pods API at http://{address}, {agents}, sandboxes in {}",
            self.work_dir.display()
        ));
        if !root {
            self.say(
                "not root: members run as this user, without images, networks, and limits on cpu and memory",
            );
        }
        // What is known from the start lines up from the start.
        for pod in pods {
            let names = pod.containers.iter().map(|container| container.name.len());
            let number = match pod.scaling.instances {
                0 | 1 => 0,
                instances => instances.to_string().len() + 2,
            };
            let widest = pod.id.to_string().len() + number + 1 + names.max().unwrap_or(0);
            self.width = self.width.max(widest).min(WIDEST);
        }
    }

    /// Where one is, and the way out.
    pub fn hints(&self, address: SocketAddr, empty: bool) {
        let client = match address == listen::USUAL {
            true => "podling pod".to_owned(),
            false => format!("PODLING_URL=http://{address} podling pod"),
        };
        let what = match empty {
            true => "add POD.json",
            false => "list",
        };
        self.say(&format!(
            "Ctrl-C ends everything; in another terminal: {client} {what}"
        ));
        self.say("pods are services: what ends is started again; --once runs them as jobs");
    }

    /// Where an instance answers; told once, and when it changes.
    pub fn endpoints(&mut self, pod: &PodId, instance: &InstanceId, endpoints: Vec<String>) {
        let label = self.instance(pod, instance);
        if self.endpoints.get(&label) == Some(&endpoints) {
            return;
        }
        if self.endpoints.len() >= REMEMBERED {
            self.endpoints.clear();
        }
        for endpoint in &endpoints {
            self.event(&label, endpoint);
        }
        self.endpoints.insert(label, endpoints);
    }

    /// `asked`: by somebody who may ask again.
    pub fn ending(&mut self, asked: bool) {
        if asked {
            self.furthest = logs::FURTHEST;
        }
        self.say(match asked {
            true => "ending; Ctrl-C once more does not wait",
            false => "ending",
        });
    }

    /// Why a pod still waits.
    pub fn unfit(&mut self, pod: &PodId, why: &str) {
        self.event(&pod.to_string(), &format!("fits no offer: {}", text::line(why)));
    }

    pub fn lagged(&self, count: u64) {
        self.say(&format!("{count} messages were too many to show"));
    }

    /// Waits until members have written something and there is room for it.
    pub async fn until_output(&self) {
        match &self.follower {
            Some(follower) if !self.behind => follower.grown().await,
            Some(_) => {}
            None => std::future::pending().await,
        }
        self.printer.room().await;
    }

    /// Shows a turn of what members have written.
    pub fn output(&mut self) {
        let furthest = self.furthest;
        self.behind = self.with_lines(|follower, say| follower.read(furthest, say));
    }

    /// The last words of everybody below a directory; of each no more than `furthest` bytes.
    async fn last_words(&mut self, below: &Path, furthest: u64) {
        loop {
            self.printer.room().await;
            if !self.with_lines(|follower, say| follower.finish(below, furthest, say)) {
                return;
            }
            // There is always room when nobody but a file is written to; others live on this thread too.
            tokio::task::yield_now().await;
        }
    }

    /// Everybody's last words, and the wait until they are written.
    pub async fn finish(&mut self) {
        let all = self.work_dir.clone();
        // Together no more than one may be ahead: somebody waits for the end.
        let count = self.follower.as_ref().map_or(0, |follower| follower.count(&all));
        let each = match self.furthest {
            u64::MAX => u64::MAX,
            furthest => furthest / u64::try_from(count.max(1)).unwrap_or(u64::MAX),
        };
        self.last_words(&all, each).await;
        self.printer.close().await;
    }

    fn with_lines(
        &mut self,
        read: impl FnOnce(&mut Follower, &mut dyn FnMut(&str, Said<'_>)) -> bool,
    ) -> bool {
        let Some(mut follower) = self.follower.take() else {
            return false;
        };
        let mut shown = String::new();
        let more = read(&mut follower, &mut |label, said| match said {
            Said::Line(text) => self.row(&mut shown, label, "|", &text::coloured_line(text, self.colours)),
            Said::LeftOut(bytes) => {
                self.row(
                    &mut shown,
                    label,
                    "·",
                    &format!("… {} not shown", text::size(bytes)),
                );
            }
        });
        self.printer.print(shown);
        self.follower = Some(follower);
        more
    }

    /// `waits_for`: what holds up an instance that is to be launched, if not the want of an offer.
    pub async fn notice(&mut self, notice: &Notice, waits_for: Option<&str>) {
        match notice {
            Notice::StatusUpdate { status, .. } => self.status(status).await,
            Notice::InstanceChanged {
                pod,
                instance,
                condition,
                host,
                ..
            } => {
                let label = self.instance(pod, instance);
                // What has led to the same end twice is not told again.
                let known = self.repeats.is_known(&label);
                match condition {
                    Condition::Scheduled if known && waits_for.is_none() => {}
                    Condition::Provisioned if known => {}
                    Condition::Scheduled => self.event(&label, waits_for.unwrap_or("waits for an offer")),
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
            Notice::PodDeleted(pod) => {
                self.event(&pod.to_string(), "is gone");
                self.numbers.remove(pod);
            }
            Notice::UnknownInstanceTerminated { .. }
            | Notice::PodCreated(_)
            | Notice::PodUpdated(_)
            | Notice::DeploymentFailed { .. }
            | Notice::Registered { .. }
            | Notice::Disconnected => {}
        }
    }

    async fn status(&mut self, status: &TaskStatus) {
        let Some(name) = TaskName::parse(&status.task_id.value) else {
            return;
        };
        let label = self.member(&name);
        // What a member wrote before it ended comes before its end.
        let sandbox = sandbox(&self.work_dir, status, &name);
        let state = status.state();
        let ended = Condition::of(state).is_terminal();
        if let Some(sandbox) = &sandbox {
            if ended {
                self.last_words(sandbox, self.furthest).await;
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
            .map(|message| text::lines(message).replace('\n', " "))
            .map(|message| format!(": {}", text::shorter(&message, &name.instance.to_string())))
            .unwrap_or_default();
        let shown = self.paint(colour::of_state(word), word);
        let count = match ended {
            true => self.repeats.count(&label, &format!("{word}{why}")),
            false => 1,
        };
        if count > 1 {
            self.event(
                &label,
                &format!("{shown}, {count} times in a row with the same cause"),
            );
        } else if state != TaskState::TaskStarting || !self.repeats.is_known(&label) {
            self.event(&label, &format!("{shown}{health}{why}"));
        }
        if state == TaskState::TaskRunning {
            self.output();
        }
    }

    /// `/web` for a pod's first instance, `/web[2]` for its second.
    fn instance(&mut self, pod: &PodId, instance: &InstanceId) -> String {
        let known = self.numbers.entry(pod.clone()).or_default();
        let number = known.iter().position(|id| id == instance).unwrap_or_else(|| {
            if known.len() == REMEMBERED {
                known.clear();
            }
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
        self.printer
            .print(format!("{}\n", self.paint(Style::new().dimmed(), text)));
    }

    fn event(&mut self, label: &str, text: &str) {
        let mut shown = String::new();
        self.row(&mut shown, label, "·", text);
        self.printer.print(shown);
    }

    fn row(&mut self, out: &mut String, label: &str, mark: &str, text: &str) {
        self.width = self.width.max(label.chars().count()).min(WIDEST);
        let position = self.prefixes.iter().position(|known| known == label);
        let position = position.unwrap_or_else(|| {
            if self.prefixes.len() == REMEMBERED {
                self.prefixes.clear();
            }
            self.prefixes.push(label.to_owned());
            self.prefixes.len() - 1
        });
        let colour = COLOURS
            .get(position % COLOURS.len())
            .copied()
            .unwrap_or(AnsiColor::White);
        let prefix = format!("{label:<width$} {mark}", width = self.width);
        out.push_str(&self.paint(Style::new().fg_color(Some(colour.into())), &prefix));
        out.push(' ');
        out.push_str(text);
        out.push('\n');
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
    let sandbox = runs
        .join("latest/tasks")
        .join(&status.task_id.value)
        .canonicalize()
        .ok()?;
    // Links in there are within reach of members that are root.
    sandbox.starts_with(work_dir).then_some(sandbox)
}
