//! The agent goes and comes back.

use super::{
    super::{
        journal::{Killed, Phase, What},
        link::Order,
    },
    Core, SeatId,
    seat::State,
};
use crate::mesos::v1::task_status::Reason;

impl Core {
    /// What the agent loses when it goes: every connection, every timer, and whatever is not checkpointed.
    pub fn go_away(&mut self) {
        self.set_phase(Phase::Away);
        self.recovery = None;
        self.order(|_| true, Order::Cut);
        for seat in self.seats.values_mut() {
            seat.stream = None;
            seat.deadline = None;
            seat.heartbeat = None;
            seat.withheld.clear();
            seat.forgotten |= !seat.checkpoints() && seat.state != State::Terminated;
            // That an executor was told to shut down is not checkpointed either.
            if matches!(seat.state, State::Running | State::Terminating) {
                seat.state = State::Registering;
            }
        }
    }

    /// A step on the way back, up to the one before recovery.
    pub fn set_phase(&mut self, phase: Phase) {
        if self.phase != phase {
            self.phase = phase;
            self.journal.record(What::Agent(phase));
        }
    }

    /// Opens the door for executors to come back, and counts who has not when time is up.
    pub fn recover(&mut self) {
        if self.phase == Phase::Up {
            return;
        }
        self.set_phase(Phase::Recovering);
        for id in self.all() {
            let lost = self.seats.get_mut(&id.0).filter(|seat| !seat.forgotten);
            let lost = lost.map(|seat| seat.book.withdraw_queue()).unwrap_or_default();
            let message = "The task is unknown to the agent, which was restarted before delivery";
            self.end_tasks(id, &lost, self.dropped(id), Reason::Reconciliation, message);
            let unseen = self.seats.get_mut(&id.0).and_then(|seat| seat.unseen_exit.take());
            if let Some(status) = unseen {
                self.settle(id, status);
            }
        }
        let timer = self.after(self.flags.executor_reregistration_timeout, Core::recovered);
        self.recovery = Some(timer);
    }

    pub(super) fn all(&self) -> Vec<SeatId> {
        self.seats.keys().map(|id| SeatId(*id)).collect()
    }

    pub(super) fn recovered(&mut self) {
        for id in self.all() {
            let late = self.seats.get(&id.0);
            let late = late.is_some_and(|seat| !seat.forgotten && seat.state == State::Registering);
            if late {
                self.destroy(id, Killed::ReregistrationTimeout);
            }
        }
        self.set_phase(Phase::Up);
    }
}
