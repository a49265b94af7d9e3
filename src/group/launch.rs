//! From LAUNCH_GROUP to the open gate: a group starts whole or not at all (L1).
//!
//! ```text
//! accept: STARTING for each ─▶ prepare all at once ─▶ every member at its gate ─▶ release all
//!                                          ─▶ every member executed and held ─▶ all begin: RUNNING for each
//! ```
//!
//! One failure before all are held, that of an exec included, and nobody runs.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    Effect, GroupId, MemberId, OnFinish,
    machine::{Machine, Step},
    member::{Member, Telling},
    session::Phase,
    state::{Input, State},
    updates::Kind,
    validate,
    verdict::{Cause, Fate, Verdict},
};
use crate::mesos::v1::{self, TaskState};

/// The tasks that live and die together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Group {
    pub on_finish: OnFinish,
    /// When the launch is too late (L-15). Unset once all have begun, or the group falls.
    pub launch_until: Option<Duration>,
    /// The fate of all is sealed. Happens once (G-03).
    pub fallen: bool,
}

impl Group {
    /// Whether this end of one member ends all (G-01, G-02).
    pub fn falls_by(&self, fate: Fate) -> bool {
        match fate {
            Fate::Finished => self.on_finish == OnFinish::Kill,
            Fate::Failed | Fate::Killed | Fate::Dropped => true,
        }
    }
}

impl Machine {
    /// LAUNCH_GROUP, or LAUNCH as a group of one (S-14).
    pub(super) fn launch(&mut self, tasks: Vec<v1::TaskInfo>, step: &mut Step) {
        let Some(identity) = &self.identity else {
            step.push(Effect::Note(
                "a task group came before SUBSCRIBED and is ignored".into(),
            ));
            return;
        };
        if let Some(why) = self.closed_to_launches() {
            return self.refuse(
                tasks,
                |_| Some(Verdict::dropped(format!("not started: {why}"))),
                step,
            );
        }
        let active = |task: &v1::TaskInfo| self.active(&task.task_id.value).is_some();
        if let Some(twin) = tasks.iter().find(|t| active(t)) {
            // L-12. An update for the duplicate would be taken for one of the task that runs.
            let twin = twin.task_id.value.clone();
            step.push(Effect::Note(format!(
                "a second task group brought task `{twin}`, which is active: the group is refused, the task that runs is left alone"
            )));
            let message =
                format!("not started: task `{twin}` of its group is already active on this executor");
            let duplicates: Vec<bool> = tasks.iter().map(active).collect();
            return self.refuse(
                tasks,
                |n| match duplicates.get(n) {
                    Some(false) => Some(Verdict::dropped(message.clone())),
                    _ => None,
                },
                step,
            );
        }
        let on_finish = match identity.extras() {
            Ok(extras) => extras.on_finish,
            Err(error) => {
                let error = error.to_string();
                return self.refuse(tasks, |_| Some(Verdict::invalid(error.clone())), step);
            }
        };
        if let Some(why) = self.refusal.clone() {
            return self.refuse(tasks, |_| Some(Verdict::invalid(why.clone())), step);
        }
        let faults = validate::group(&tasks, identity.executor_info());
        if let Some(first) = faults.first() {
            let first = first.to_string();
            let told = |n: usize| {
                let own = faults.iter().filter(|f| f.concerns(n)).map(|f| f.to_string());
                let own: Vec<String> = own.collect();
                Some(match own.is_empty() {
                    true => Verdict::given_up(&Cause::Sibling {
                        why: format!("its group is invalid: {first}"),
                    }),
                    false => Verdict::invalid(own.join("; ")),
                })
            };
            return self.refuse(tasks, told, step);
        }
        self.accept(tasks, on_finish, step);
    }

    /// STARTING for every member before anything is made for any (L-02).
    fn accept(&mut self, tasks: Vec<v1::TaskInfo>, on_finish: OnFinish, step: &mut Step) {
        let group = self.add_group(
            Group {
                on_finish,
                launch_until: Some(step.now.saturating_add(self.settings.launch_deadline)),
                fallen: false,
            },
            &tasks,
        );
        let ids: Vec<MemberId> = tasks
            .into_iter()
            .map(|task| self.add_member(group, task, State::Preparing, step))
            .collect();
        for id in &ids {
            let telling = Telling {
                message: self.lesser.clone(),
                ..Telling::default()
            };
            self.tell(*id, TaskState::TaskStarting, Kind::Life, telling, step);
        }
        for id in ids {
            if let Some(member) = self.members.get(&id) {
                step.push(Effect::Prepare {
                    member: id,
                    group,
                    container: member.container.clone(),
                    task: member.task.0.clone(),
                });
            }
        }
    }

    /// Tells the end of tasks that nothing was ever done for. They are remembered like others until their end is
    /// acknowledged (S-08). `None` means not a word about this one.
    fn refuse(
        &mut self,
        tasks: Vec<v1::TaskInfo>,
        verdict: impl Fn(usize) -> Option<Verdict>,
        step: &mut Step,
    ) {
        let group = self.add_group(
            Group {
                on_finish: OnFinish::Continue,
                launch_until: None,
                fallen: true,
            },
            &tasks,
        );
        let mut told: Vec<String> = Vec::new();
        for (n, task) in tasks.into_iter().enumerate() {
            let Some(verdict) = verdict(n) else { continue };
            // A task has one end, even if its group names it twice; nobody waits for one without a name.
            let name = task.task_id.value.clone();
            if name.is_empty() || told.contains(&name) {
                continue;
            }
            told.push(name);
            let id = self.add_member(group, task, State::Ended(verdict.fate), step);
            self.tell_end(id, verdict, step);
        }
        self.sweep();
    }

    fn add_group(&mut self, group: Group, tasks: &[v1::TaskInfo]) -> GroupId {
        let id = GroupId(self.next_group);
        self.next_group = self.next_group.wrapping_add(1);
        if !tasks.is_empty() {
            self.groups.insert(id, group);
        }
        id
    }

    fn add_member(&mut self, group: GroupId, task: v1::TaskInfo, state: State, step: &mut Step) -> MemberId {
        let id = MemberId(self.next_member);
        self.next_member = self.next_member.wrapping_add(1);
        let container = step.chance.uuid().to_string();
        self.members
            .insert(id, Member::new(id, group, task, container, state));
        id
    }

    /// Why no group is taken any more (Q-08, Q-09).
    fn closed_to_launches(&self) -> Option<&'static str> {
        match self.phase {
            Phase::Closing { .. } => Some("the executor is shutting down"),
            Phase::Done => Some("the executor has ended"),
            // A group that came now would have to keep alive an executor whose end may already be settled.
            Phase::Serving if self.has_nothing_left() => {
                Some("the last task of the executor has ended and it is about to exit")
            }
            Phase::Serving => None,
        }
    }

    /// The member that a task id means to the agent. Ids come back, but only after the end (E-07).
    pub(super) fn active(&self, task: &str) -> Option<MemberId> {
        let named = |m: &&Member| !m.state.has_ended() && m.task_id() == task;
        self.members.values().find(named).map(|m| m.id)
    }

    pub(super) fn members_of(&self, group: GroupId) -> Vec<MemberId> {
        let of_group = self.members.values().filter(|m| m.group == group);
        of_group.map(|m| m.id).collect()
    }

    /// Opens the gates as soon as the last member stands at its own.
    pub(super) fn try_release(&mut self, group: GroupId, step: &mut Step) {
        let mut members = self.members.values().filter(|m| m.group == group);
        if members.all(|m| m.state == State::Gated) {
            for id in self.members_of(group) {
                self.turn(id, Input::Open, step);
            }
        }
    }

    /// Lets all go as soon as the last one's exec has succeeded.
    pub(super) fn try_begin(&mut self, group: GroupId, step: &mut Step) {
        let mut members = self.members.values().filter(|m| m.group == group);
        if members.all(|m| m.state == State::Held) {
            for id in self.members_of(group) {
                let limit = self.members.get(&id).and_then(Member::max_completion_time);
                let expires = limit.map(|limit| step.now.saturating_add(limit));
                self.turn(id, Input::Begin { expires }, step);
            }
        }
    }

    /// The launch deadline has no say any more once no member is launching.
    pub(super) fn launch_over(&mut self, group: GroupId) {
        let mut members = self.members.values().filter(|m| m.group == group);
        if !members.any(|m| m.state.is_launching())
            && let Some(group) = self.groups.get_mut(&group)
        {
            group.launch_until = None;
        }
    }

    /// Groups that took too long: whoever is not ready, or does not start, has failed; its siblings fall (L-15).
    pub(super) fn launches_due(&mut self, step: &mut Step) {
        let due = |g: &Group| g.launch_until.is_some_and(|until| until <= step.now);
        let due: Vec<GroupId> = self
            .groups
            .iter()
            .filter(|(_, g)| due(g))
            .map(|(id, _)| *id)
            .collect();
        for group in due {
            let late =
                |m: &&Member| m.group == group && matches!(m.state, State::Preparing | State::Releasing);
            let late: Vec<MemberId> = self.members.values().filter(late).map(|m| m.id).collect();
            // All of the late first, so that none of them counts as a victim of another.
            if let Some(g) = self.groups.get_mut(&group) {
                g.launch_until = None;
                g.fallen = true;
            }
            let cause = Cause::NotReady {
                limit: self.settings.launch_deadline,
            };
            for id in &late {
                self.order(*id, cause.clone(), None, step);
            }
            if let Some(first) = late.first() {
                self.fall_all(group, *first, &cause.as_predicate(), step);
            }
        }
    }
}
