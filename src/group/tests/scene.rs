//! A machine on a stage: time stands still unless told otherwise, and the cast answers when the test says so.

use std::{sync::Arc, time::Duration};

use crate::{
    group::{
        Effect, Event, Exit, ExitStatus, Failure, GroupId, Limit, Machine, MemberId, MemberSignal, Settings,
        Stamp,
    },
    mesos::v1::{
        self, TaskState, TaskStatus,
        executor::{call::Subscribe, event::Subscribed},
        framework_info::{Capability, capability},
        task_status::Reason,
    },
};

pub const SECOND: Duration = Duration::from_secs(1);

pub fn seconds(n: f64) -> v1::DurationInfo {
    v1::DurationInfo {
        nanoseconds: (n * 1e9).round() as i64,
    }
}

pub fn policy(n: f64) -> v1::KillPolicy {
    v1::KillPolicy {
        grace_period: Some(seconds(n)),
    }
}

pub fn task(id: &str) -> v1::TaskInfo {
    v1::TaskInfo {
        name: id.into(),
        task_id: v1::TaskId { value: id.into() },
        agent_id: v1::AgentId {
            value: "agent".into(),
        },
        ..Default::default()
    }
}

pub fn with_grace(id: &str, n: f64) -> v1::TaskInfo {
    v1::TaskInfo {
        kill_policy: Some(policy(n)),
        ..task(id)
    }
}

pub fn failure(message: &str) -> Failure {
    Failure {
        message: message.into(),
        invalid: false,
    }
}

pub fn code(code: i32) -> Exit {
    Exit {
        status: ExitStatus::Code(code),
        limit: None,
        words: None,
    }
}

pub fn signal(signal: i32) -> Exit {
    Exit {
        status: ExitStatus::Signal(signal),
        limit: None,
        words: None,
    }
}

pub fn out_of_memory() -> Exit {
    Exit {
        status: ExitStatus::Signal(9),
        limit: Some(Limit::Memory {
            limit_bytes: 64 << 20,
            message: "process `hog` needed more than 64 MiB".into(),
        }),
        words: None,
    }
}

pub fn subscribed(capabilities: &[capability::Type], data: Option<&str>) -> Arc<Subscribed> {
    Arc::new(Subscribed {
        executor_info: v1::ExecutorInfo {
            executor_id: v1::ExecutorId {
                value: "executor".into(),
            },
            data: data.map(|data| data.as_bytes().to_vec().into()),
            ..Default::default()
        },
        framework_info: v1::FrameworkInfo {
            capabilities: capabilities
                .iter()
                .map(|c| Capability {
                    r#type: Some((*c).into()),
                })
                .collect(),
            ..Default::default()
        },
        container_id: Some(v1::ContainerId {
            value: "parent".into(),
            parent: None,
        }),
        ..Default::default()
    })
}

#[derive(Debug)]
pub struct Scene {
    pub machine: Machine,
    pub now: Duration,
    steps: u128,
    told: Arc<Subscribed>,
    /// Every update that was sent, re-sendings included.
    pub sent: Vec<TaskStatus>,
    /// The effects of the last step other than updates.
    pub effects: Vec<Effect>,
}

impl Scene {
    /// Subscribed; nothing launched. The framework has both capabilities that matter.
    pub fn new() -> Scene {
        Scene::with(Settings::default())
    }

    pub fn with(settings: Settings) -> Scene {
        use capability::Type::*;
        Scene::told(settings, subscribed(&[TaskKillingState, PartitionAware], None))
    }

    pub fn checkpointed() -> Scene {
        Scene::with(Settings {
            checkpoint: true,
            ..Settings::default()
        })
    }

    pub fn told(settings: Settings, told: Arc<Subscribed>) -> Scene {
        let mut scene = Scene::unsubscribed(settings, told);
        scene.subscribe();
        scene
    }

    pub fn unsubscribed(settings: Settings, told: Arc<Subscribed>) -> Scene {
        Scene {
            machine: Machine::new(settings),
            now: SECOND,
            steps: 0,
            told,
            sent: Vec::new(),
            effects: Vec::new(),
        }
    }

    pub fn step(&mut self, event: Event) -> &mut Scene {
        self.steps += 1;
        let stamp = Stamp {
            now: self.now,
            wall: 1e9 + self.now.as_secs_f64(),
            entropy: (self.steps << 32).to_le_bytes(),
        };
        self.effects.clear();
        for effect in self.machine.step(stamp, event) {
            match effect {
                Effect::Send(status) => self.sent.push((*status).clone()),
                other => self.effects.push(other),
            }
        }
        self
    }

    /// SUBSCRIBE and its answer; gives what was carried.
    pub fn subscribe(&mut self) -> Subscribe {
        let carried = self.machine.subscribe();
        let told = self.told.clone();
        self.step(Event::Subscribed(told));
        carried
    }

    pub fn launch(&mut self, tasks: impl IntoIterator<Item = v1::TaskInfo>) -> &mut Scene {
        let tasks = tasks.into_iter().collect();
        self.step(Event::LaunchGroup(tasks))
    }

    /// A scene in which these tasks run as one group.
    pub fn run(&mut self, tasks: impl IntoIterator<Item = v1::TaskInfo>) -> &mut Scene {
        let before: Vec<MemberId> = self.machine.members().map(|m| m.id).collect();
        self.launch(tasks);
        let new: Vec<MemberId> = self.machine.members().map(|m| m.id).collect();
        let new: Vec<MemberId> = new.into_iter().filter(|id| !before.contains(id)).collect();
        for id in &new {
            self.step(Event::Prepared(*id));
        }
        for id in new {
            self.step(Event::Held(id));
        }
        self
    }

    /// The newest member that a task id named.
    pub fn id(&self, task: &str) -> MemberId {
        let named = self.machine.members().filter(|m| m.task.task_id.value == task);
        named.map(|m| m.id).last().unwrap()
    }

    pub fn group(&self, task: &str) -> GroupId {
        let named = self.machine.members().filter(|m| m.task.task_id.value == task);
        named.map(|m| m.group).last().unwrap()
    }

    pub fn state(&self, task: &str) -> &'static str {
        let named = self.machine.members().filter(|m| m.task.task_id.value == task);
        named.map(|m| m.state).last().unwrap_or("gone")
    }

    pub fn prepared(&mut self, task: &str) -> &mut Scene {
        self.step(Event::Prepared(self.id(task)))
    }

    pub fn prepare_failed(&mut self, task: &str, message: &str) -> &mut Scene {
        self.step(Event::PrepareFailed(self.id(task), failure(message)))
    }

    pub fn held(&mut self, task: &str) -> &mut Scene {
        self.step(Event::Held(self.id(task)))
    }

    pub fn start_failed(&mut self, task: &str, message: &str) -> &mut Scene {
        self.step(Event::StartFailed(self.id(task), failure(message)))
    }

    pub fn discarded(&mut self, task: &str) -> &mut Scene {
        self.step(Event::Discarded(self.id(task)))
    }

    pub fn exited(&mut self, task: &str, exit: Exit) -> &mut Scene {
        self.step(Event::Exited(self.id(task), exit))
    }

    pub fn kill(&mut self, task: &str) -> &mut Scene {
        self.step(Event::Kill {
            task: task.into(),
            policy: None,
        })
    }

    pub fn kill_within(&mut self, task: &str, grace: f64) -> &mut Scene {
        self.step(Event::Kill {
            task: task.into(),
            policy: Some(policy(grace)),
        })
    }

    pub fn shutdown(&mut self) -> &mut Scene {
        self.step(Event::Shutdown)
    }

    pub fn disconnected(&mut self) -> &mut Scene {
        self.step(Event::Disconnected)
    }

    pub fn health(&mut self, task: &str, healthy: bool) -> &mut Scene {
        let member = self.id(task);
        self.step(Event::Health {
            member,
            healthy,
            message: Some(format!("healthy: {healthy}")),
        })
    }

    pub fn unhealthy(&mut self, task: &str, message: &str) -> &mut Scene {
        let member = self.id(task);
        self.step(Event::Unhealthy {
            member,
            message: message.into(),
        })
    }

    pub fn check(&mut self, task: &str, status: v1::CheckStatusInfo) -> &mut Scene {
        let member = self.id(task);
        self.step(Event::Check {
            member,
            status,
            message: None,
        })
    }

    /// Lets time pass, ticking at every deadline on the way as the shell does.
    pub fn wait(&mut self, time: Duration) -> &mut Scene {
        let until = self.now + time;
        let mut happened = Vec::new();
        while let Some(deadline) = self.machine.deadline().filter(|d| *d <= until) {
            self.now = self.now.max(deadline);
            self.step(Event::Tick);
            happened.append(&mut self.effects);
            let next = self.machine.deadline();
            assert!(
                next.is_none_or(|next| next > self.now),
                "a tick left something due at {next:?}"
            );
        }
        self.now = until;
        self.effects = happened;
        self
    }

    /// Acknowledges everything that is unacknowledged.
    pub fn acknowledge_all(&mut self) -> &mut Scene {
        let pending: Vec<TaskStatus> = self.machine.unacknowledged().cloned().collect();
        let mut happened = Vec::new();
        for status in pending {
            self.acknowledge(&status);
            happened.append(&mut self.effects);
        }
        self.effects = happened;
        self
    }

    pub fn acknowledge(&mut self, status: &TaskStatus) -> &mut Scene {
        self.step(Event::Acknowledged {
            task: status.task_id.value.clone(),
            uuid: status.uuid().to_vec(),
        })
    }

    // ---- looking

    /// The states sent for one task, in order.
    pub fn states(&self, task: &str) -> Vec<TaskState> {
        let of = self.sent.iter().filter(|s| s.task_id.value == task);
        of.map(TaskStatus::state).collect()
    }

    /// The last update sent for one task.
    pub fn last(&self, task: &str) -> &TaskStatus {
        self.sent.iter().rev().find(|s| s.task_id.value == task).unwrap()
    }

    pub fn message(&self, task: &str) -> &str {
        self.last(task).message()
    }

    pub fn reason(&self, task: &str) -> Option<Reason> {
        let last = self.last(task);
        last.reason.map(|_| last.reason())
    }

    /// Signals of the last step, as task and signal.
    pub fn signals(&self) -> Vec<(String, MemberSignal)> {
        let name = |id: &MemberId| self.name(*id);
        self.effects
            .iter()
            .filter_map(|e| match e {
                Effect::Signal(id, signal) => Some((name(id), *signal)),
                _ => None,
            })
            .collect()
    }

    fn of(&self, pick: impl Fn(&Effect) -> Option<MemberId>) -> Vec<String> {
        self.effects
            .iter()
            .filter_map(pick)
            .map(|id| self.name(id))
            .collect()
    }

    pub fn to_prepare(&self) -> Vec<String> {
        self.of(|e| match e {
            Effect::Prepare { member, .. } => Some(*member),
            _ => None,
        })
    }

    pub fn to_release(&self) -> Vec<String> {
        self.of(|e| match e {
            Effect::Release(id) => Some(*id),
            _ => None,
        })
    }

    pub fn to_begin(&self) -> Vec<String> {
        self.of(|e| match e {
            Effect::Begin(id) => Some(*id),
            _ => None,
        })
    }

    pub fn to_discard(&self) -> Vec<String> {
        self.of(|e| match e {
            Effect::Discard(id) => Some(*id),
            _ => None,
        })
    }

    pub fn notes(&self) -> Vec<&str> {
        let notes = self.effects.iter().filter_map(|e| match e {
            Effect::Note(note) => Some(note.as_str()),
            _ => None,
        });
        notes.collect()
    }

    pub fn has_exited(&self) -> bool {
        self.effects.iter().any(|e| matches!(e, Effect::Exit))
    }

    fn name(&self, id: MemberId) -> String {
        let member = self.machine.members().find(|m| m.id == id);
        member.map_or_else(|| format!("{id:?}"), |m| m.task.task_id.value.clone())
    }
}
