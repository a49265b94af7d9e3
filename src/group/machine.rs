//! The machine: every group of an executor, its session with the agent and its end.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    Effect, Event, Extras, GroupId, MemberId, MemberSignal, Settings, Stamp,
    identity::Identity,
    launch::Group,
    member::{Member, Telling, memory_limitation},
    session::{Link, Phase},
    state::{Act, Input, State, Turn},
    updates::{Chance, Kind, Outbox},
    verdict::Verdict,
    wire::Wire,
};
use crate::mesos::v1::{self, TaskState};

/// All groups of one executor.
///
/// It is a value: it can be cloned, compared, stored and restored (serde) at any point between two steps. A stored
/// machine is trusted as it is; whoever reads one from outside has to check it first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    pub(super) settings: Settings,
    pub(super) link: Link,
    pub(super) phase: Phase,
    /// When to stop waiting for acknowledgements, once every member has ended.
    pub(super) linger: Option<Duration>,
    /// Unset until the first SUBSCRIBED.
    pub(super) identity: Option<Identity>,
    pub(super) groups: BTreeMap<GroupId, Group>,
    pub(super) members: BTreeMap<MemberId, Member>,
    pub(super) outbox: Outbox,
    /// The addresses of members that have none of their own.
    pub(super) network: Vec<Wire<v1::NetworkInfo>>,
    /// Why no group can run: the executor asks for a network that cannot be had.
    pub(super) refusal: Option<String>,
    /// What is said in the first status of each member.
    pub(super) lesser: Option<String>,
    pub(super) next_group: u32,
    pub(super) next_member: u32,
}

/// A member as others may see it.
#[derive(Debug, Clone, Copy)]
pub struct MemberView<'a> {
    pub id: MemberId,
    pub group: GroupId,
    pub task: &'a v1::TaskInfo,
    /// The value of the member's own `ContainerID`.
    pub container: &'a str,
    /// One word: `preparing`, `gated`, `releasing`, `held`, `running`, `discarding`, `stopping`, `killing`, `ended`.
    pub state: &'static str,
    pub healthy: Option<bool>,
}

/// What one event brings, and the effects it has had so far.
#[derive(Debug)]
pub(super) struct Step {
    pub now: Duration,
    pub wall: f64,
    pub chance: Chance,
    /// Members are let go, and hear of a death, before anybody writes a word about it.
    first: Vec<Effect>,
    effects: Vec<Effect>,
}

impl Step {
    fn new(stamp: Stamp) -> Step {
        Step {
            now: stamp.now,
            wall: stamp.wall,
            chance: Chance::new(stamp.entropy),
            first: Vec::new(),
            effects: Vec::new(),
        }
    }

    pub fn push(&mut self, effect: Effect) {
        match effect {
            Effect::Begin(_) | Effect::Signal(..) => self.first.push(effect),
            _ => self.effects.push(effect),
        }
    }

    fn into_effects(self) -> Vec<Effect> {
        let mut all = self.first;
        all.extend(self.effects);
        all
    }
}

impl Machine {
    pub fn new(settings: Settings) -> Self {
        Machine {
            settings,
            link: Link::Fresh,
            phase: Phase::Serving,
            linger: None,
            identity: None,
            groups: BTreeMap::new(),
            members: BTreeMap::new(),
            outbox: Outbox::default(),
            network: Vec::new(),
            refusal: None,
            lesser: None,
            next_group: 0,
            next_member: 0,
        }
    }

    /// What happened → what to do about it. Total: any event is legal at any time.
    pub fn step(&mut self, stamp: Stamp, event: Event) -> Vec<Effect> {
        if self.is_done() {
            return Vec::new();
        }
        let mut step = Step::new(stamp);
        let s = &mut step;
        match event {
            Event::Subscribed(told) => self.subscribed(told, s),
            Event::Disconnected => self.disconnected(s),
            Event::LaunchGroup(tasks) => self.launch(tasks, s),
            Event::Kill { task, policy } => self.kill(&task, policy.as_ref(), s),
            Event::Acknowledged { task, uuid } => self.acknowledged(&task, &uuid),
            Event::Shutdown => self.shutdown(s),

            Event::Prepared(member) => self.turn(member, Input::Prepared, s),
            Event::PrepareFailed(member, failure) => self.turn(member, Input::PrepareFailed(failure), s),
            Event::Held(member) => self.turn(member, Input::Held, s),
            Event::StartFailed(member, failure) => self.turn(member, Input::StartFailed(failure), s),
            Event::Discarded(member) => self.turn(member, Input::Discarded, s),
            Event::Exited(member, exit) => self.turn(member, Input::Exited(exit), s),

            Event::Network { member, infos } => self.network(member, infos),
            Event::NetworkRefused(why) => self.refusal = Some(why),
            Event::Lesser(what) => self.lesser = Some(what),
            Event::Health {
                member,
                healthy,
                message,
            } => self.health(member, healthy, message, s),
            Event::Unhealthy { member, message } => self.unhealthy(member, message, s),
            Event::Ready {
                member,
                ready,
                status,
                message,
            } => self.ready(member, ready, status, message, s),
            Event::Check {
                member,
                status,
                message,
            } => self.check(member, status, message, s),

            Event::Tick => self.tick(s),
        }
        self.settle(&mut step);
        step.into_effects()
    }

    /// The earliest time at which the shell must feed [`Event::Tick`]. May lie in the past; then at once. Directly
    /// after a tick it never does.
    pub fn deadline(&self) -> Option<Duration> {
        if self.is_done() {
            return None;
        }
        let members = self.members.values().filter_map(|m| m.state.deadline());
        let groups = self.groups.values().filter_map(|g| g.launch_until);
        members.chain(groups).chain(self.session_deadline()).min()
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The scheduler's extras, once subscribed and if they could be read.
    pub fn extras(&self) -> Option<&Extras> {
        self.identity.as_ref()?.extras().as_ref().ok()
    }

    /// Every member that has not ended or whose end is not acknowledged yet, in order of arrival.
    pub fn members(&self) -> impl Iterator<Item = MemberView<'_>> {
        self.members.values().map(|m| MemberView {
            id: m.id,
            group: m.group,
            task: &m.task,
            container: &m.container,
            state: m.state.name(),
            healthy: m.healthy,
        })
    }

    /// Updates that the agent has not acknowledged, in the order they were made.
    pub fn unacknowledged(&self) -> impl Iterator<Item = &v1::TaskStatus> {
        self.outbox.iter()
    }

    /// Moves one member and draws every consequence, for it and for its group.
    pub(super) fn turn(&mut self, id: MemberId, input: Input, step: &mut Step) {
        let Some(member) = self.members.get_mut(&id) else {
            // Ended, told and acknowledged: an answer that was under way, for nobody.
            return;
        };
        match member.state.turn(input, step.now) {
            Turn::Stay => {}
            Turn::Odd => {
                let (task, state) = (member.task_id(), member.state.name());
                step.push(Effect::Note(format!(
                    "member `{task}` is {state}: an answer from its container makes no sense now and is ignored"
                )));
            }
            Turn::Act(acts) => act(id, acts, step),
            Turn::Go(state, acts) => {
                act(id, acts, step);
                let old = std::mem::replace(&mut member.state, state);
                self.entered(id, &old, step);
            }
            Turn::End(verdict) => self.ended(id, verdict, step),
        }
    }

    /// What follows from a new state other than the last.
    fn entered(&mut self, id: MemberId, old: &State, step: &mut Step) {
        let Some(member) = self.members.get(&id) else {
            return;
        };
        let group = member.group;
        match &member.state {
            State::Gated => self.try_release(group, step),
            State::Held => self.try_begin(group, step),
            State::Running { .. } => {
                self.tell(id, TaskState::TaskRunning, Kind::Life, Telling::default(), step);
                self.launch_over(group);
            }
            State::Stopping { cause, .. } | State::Killing { cause, .. } if !is_stopped(old) => {
                let cause = cause.clone();
                if cause.is_announced() && self.identity.as_ref().is_some_and(Identity::knows_killing) {
                    let telling = Telling {
                        message: Some(cause.announcement()),
                        ..Telling::default()
                    };
                    self.tell(id, TaskState::TaskKilling, Kind::Life, telling, step);
                }
                self.fall(group, id, &cause.as_predicate(), step);
            }
            State::Discarding { cause, .. } if old.is_launching() => {
                let why = cause.as_predicate();
                self.fall(group, id, &why, step);
            }
            // A grace is over; the rest is not entered by `Turn::Go`.
            State::Discarding { .. }
            | State::Stopping { .. }
            | State::Killing { .. }
            | State::Preparing
            | State::Releasing
            | State::Ended(_) => {}
        }
    }

    /// A member has reached its end: tell it, once, and see what it means for its group.
    fn ended(&mut self, id: MemberId, verdict: Verdict, step: &mut Step) {
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        member.state = State::Ended(verdict.fate);
        let group = member.group;
        let why = verdict.as_predicate();
        let fate = verdict.fate;
        self.tell_end(id, verdict, step);
        step.push(Effect::Forget(id));
        if self.groups.get(&group).is_some_and(|g| g.falls_by(fate)) {
            self.fall(group, id, &why, step);
        }
        self.launch_over(group);
    }

    /// Tells a terminal state.
    pub(super) fn tell_end(&mut self, id: MemberId, verdict: Verdict, step: &mut Step) {
        let aware = self.identity.as_ref().is_some_and(Identity::is_partition_aware);
        let telling = Telling {
            reason: verdict.reason,
            message: Some(verdict.message),
            limitation: verdict.memory_limit.map(memory_limitation),
        };
        self.tell(id, verdict.fate.task_state(aware), Kind::Life, telling, step);
    }

    /// Makes an update, keeps it until it is acknowledged, and sends it if there is somebody to send it to.
    pub(super) fn tell(
        &mut self,
        id: MemberId,
        state: TaskState,
        kind: Kind,
        telling: Telling,
        step: &mut Step,
    ) {
        // No member exists before the first SUBSCRIBED.
        let (Some(member), Some(identity)) = (self.members.get(&id), &self.identity) else {
            return;
        };
        let mut status = member.status(state, identity, &self.network, step.chance.uuid(), step.wall);
        status.reason = telling.reason.map(i32::from);
        status.message = telling.message;
        status.limitation = telling.limitation;
        let status = Wire(Arc::new(status));
        let sent = self.link == Link::Subscribed;
        if sent {
            step.push(Effect::Send(status.0.clone()));
        }
        self.outbox.push(id, kind, status, sent);
    }

    /// Everything whose time has come.
    fn tick(&mut self, step: &mut Step) {
        let due = |m: &Member| m.state.deadline().is_some_and(|d| d <= step.now);
        let due: Vec<MemberId> = self.members.values().filter(|m| due(m)).map(|m| m.id).collect();
        for id in due {
            self.turn(id, Input::Due, step);
        }
        self.launches_due(step);
        self.session_due(step);
    }
}

/// Whether the member had its stop signal before.
fn is_stopped(state: &State) -> bool {
    matches!(state, State::Stopping { .. } | State::Killing { .. })
}

fn act(id: MemberId, acts: &[Act], step: &mut Step) {
    for act in acts {
        step.push(match act {
            Act::Release => Effect::Release(id),
            Act::Begin => Effect::Begin(id),
            Act::Discard => Effect::Discard(id),
            Act::Stop => Effect::Signal(id, MemberSignal::Stop),
            Act::Kill => Effect::Signal(id, MemberSignal::Kill),
        });
    }
}
