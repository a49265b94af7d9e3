//! What a master is asked about our tasks, and what it means that it does not know one.

use std::{collections::BTreeMap, time::Duration};

use super::{
    effect::Effect,
    event::Settings,
    instance::Instance,
    machine::{Core, Out, Timer},
};
use crate::{
    mesos::v1::{self, TaskState},
    pod::TaskName,
};

/// How often agents that have not come back are asked for.
const RETURNS_NOTICED: Duration = Duration::from_secs(15);

/// What has been asked of this subscription's master.
#[derive(Debug, Default)]
pub(super) struct Questions {
    unanswered: BTreeMap<String, Option<v1::AgentId>>,
    pause: Duration,
    due: Duration,
    /// Until when an agent that the master does not know may come back to it.
    agents_return: Duration,
}

impl Questions {
    /// A subscription began. `same`: as the framework we were before; all that was another's has been killed.
    pub fn begin(&mut self, same: bool, settings: &Settings, now: Duration) {
        self.agents_return = match same {
            true => now.saturating_add(settings.agents_return),
            false => now,
        };
    }

    pub fn answered(&mut self, task: &str) {
        self.unanswered.remove(task);
    }

    /// Whether a timer of then is the last one: each subscription begins a round of its own, and the timer of an
    /// earlier one means nothing.
    pub fn are_due(&self, at: Duration) -> bool {
        at >= self.due
    }
}

impl Core {
    /// A master that has lost its registry knows of an agent when it comes back to it, and of its tasks. Until then
    /// they are out of reach, and asked for again.
    pub(super) fn is_only_away(&self, status: &v1::TaskStatus, now: Duration) -> bool {
        status.state() == TaskState::TaskUnknown
            && now < self.questions.agents_return
            && self.holds(&status.task_id.value)
    }

    /// Whether this is a task of ours that has not ended.
    fn holds(&self, task: &str) -> bool {
        let Some(name) = TaskName::parse(task) else {
            return false;
        };
        let state = self.pods.get(name.instance.safe_path());
        let instance = state.and_then(|state| state.fleet.get(&name.instance));
        instance
            .filter(|instance| instance.incarnation == name.incarnation)
            .and_then(|instance| instance.tasks.get(&name.container))
            .is_some_and(|task| !task.condition.is_terminal())
    }

    pub(super) fn ask_again(&mut self, out: &mut Out) {
        match self.questions.unanswered.is_empty() {
            true => self.reconcile(out),
            false => self.ask(out),
        }
    }

    /// Asks for the state of everything that runs, and for what we do not know of.
    pub(super) fn reconcile(&mut self, out: &mut Out) {
        let live = |instance: &Instance| {
            let agent = instance.agent();
            instance
                .live_tasks()
                .map(move |task| (task, agent.clone()))
                .collect::<Vec<_>>()
        };
        self.questions.unanswered = self
            .pods
            .values()
            .flat_map(|state| state.fleet.iter())
            .flat_map(live)
            .collect();
        self.questions.pause = self.settings.reconcile_retry;
        self.ask(out);
        out.send(Effect::Reconcile(Vec::new()));
    }

    fn ask(&mut self, out: &mut Out) {
        if self.questions.unanswered.is_empty() {
            self.questions.pause = self.settings.reconcile_interval;
        } else {
            let task = |(id, agent): (&String, &Option<v1::AgentId>)| {
                (v1::TaskId { value: id.clone() }, agent.clone())
            };
            out.send(Effect::Reconcile(
                self.questions.unanswered.iter().map(task).collect(),
            ));
            // Whoever comes back is noticed soon, and whoever does not at the end of the time he had.
            let left = self.questions.agents_return.saturating_sub(out.stamp.now);
            if !left.is_zero() {
                self.questions.pause = self.questions.pause.min(RETURNS_NOTICED).min(left);
            }
        }
        self.questions.due = out.stamp.now.saturating_add(self.questions.pause);
        out.wake(self.questions.pause, Timer::Reconcile);
        self.questions.pause = self
            .questions
            .pause
            .saturating_mul(2)
            .min(self.settings.reconcile_interval);
    }
}
