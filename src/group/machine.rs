//! The machine: every group of an executor, its session with the agent and its end.

use std::time::Duration;

use super::{Effect, Event, Extras, GroupId, MemberId, Settings, Stamp};
use crate::mesos::v1;

/// All groups of one executor.
#[derive(Debug, Clone)]
pub struct Machine {
    settings: Settings,
}

/// A member as others may see it.
#[derive(Debug, Clone, Copy)]
pub struct MemberView<'a> {
    pub id: MemberId,
    pub group: GroupId,
    pub task: &'a v1::TaskInfo,
    /// The value of the member's own `ContainerID`.
    pub container: &'a str,
    /// One word: `preparing`, `gated`, `releasing`, `running`, `discarding`, `stopping`, `killing`, `ended`.
    pub state: &'static str,
    pub healthy: Option<bool>,
}

impl Machine {
    pub fn new(settings: Settings) -> Self {
        Machine { settings }
    }

    /// What happened → what to do about it. Total: any event is legal at any time.
    pub fn step(&mut self, _stamp: Stamp, _event: Event) -> Vec<Effect> {
        Vec::new()
    }

    /// The earliest time at which the shell must feed [`Event::Tick`]. May lie in the past; then at once.
    pub fn deadline(&self) -> Option<Duration> {
        None
    }

    /// The SUBSCRIBE to send now, with everything the agent has not acknowledged (S-08). Call it when the request
    /// is written: what happens between this call and [`Event::Subscribed`] is sent after that event, and nothing
    /// that this value carries is sent again.
    pub fn subscribe(&mut self) -> v1::executor::call::Subscribe {
        v1::executor::call::Subscribe::default()
    }

    /// Whether the shell should (go on trying to) connect: not subscribed, and there is still something to tell or
    /// to be told. Turns false for good after a shutdown without an agent, or a lost agent without checkpointing.
    pub fn seeks_agent(&self) -> bool {
        true
    }

    /// [`Effect::Exit`] was given.
    pub fn is_done(&self) -> bool {
        false
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The scheduler's extras, once subscribed and if they could be read.
    pub fn extras(&self) -> Option<&Extras> {
        None
    }

    /// Every member that has not ended or whose end is not acknowledged yet, in order of arrival.
    pub fn members(&self) -> impl Iterator<Item = MemberView<'_>> {
        std::iter::empty()
    }
}
