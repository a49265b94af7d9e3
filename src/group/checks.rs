//! Results of checks: what they change, what of it is told, and the kill of the unhealthy.
//!
//! Only a running member has results. One that comes later was late and says nothing (U-06, H-21).

use super::{
    MemberId,
    machine::{Machine, Step},
    member::{Member, Telling},
    updates::Kind,
    verdict::Cause,
    wire::Wire,
};
use crate::mesos::v1::{CheckStatusInfo, NetworkInfo, TaskState, task_status::Reason};

impl Machine {
    fn running(&mut self, id: MemberId) -> Option<&mut Member> {
        self.members.get_mut(&id).filter(|m| m.state.is_running())
    }

    /// Every failure is told (H-05), and every change for the better (H-07).
    pub(super) fn health(&mut self, id: MemberId, healthy: bool, message: Option<String>, step: &mut Step) {
        let Some(member) = self.running(id) else { return };
        let before = member.healthy.replace(healthy);
        if !healthy || before != Some(true) {
            self.tell_result(id, Reason::TaskHealthCheckStatusUpdated, message, step);
        }
    }

    /// An ordinary kill (H-08) that leaves `healthy` false, for this member alone (G-06, G-07).
    pub(super) fn unhealthy(&mut self, id: MemberId, message: String, step: &mut Step) {
        let Some(member) = self.running(id) else { return };
        member.healthy = Some(false);
        self.order(id, Cause::Unhealthy { message }, None, step);
    }

    /// Only a result that differs from the last is told (C-02).
    pub(super) fn check(
        &mut self,
        id: MemberId,
        status: CheckStatusInfo,
        message: Option<String>,
        step: &mut Step,
    ) {
        let Some(member) = self.running(id) else { return };
        if member.check.as_deref() != Some(&status) {
            member.check = Some(Wire::new(status));
            self.tell_result(id, Reason::TaskCheckStatusUpdated, message, step);
        }
    }

    /// Only changes are told, and nobody is killed.
    pub(super) fn ready(
        &mut self,
        id: MemberId,
        ready: bool,
        status: Option<CheckStatusInfo>,
        message: Option<String>,
        step: &mut Step,
    ) {
        let Some(member) = self.running(id) else { return };
        if member.ready.replace(ready) != Some(ready) {
            if let Some(status) = status {
                member.check = Some(Wire::new(status));
            }
            self.tell_result(id, Reason::TaskCheckStatusUpdated, message, step);
        }
    }

    fn tell_result(&mut self, id: MemberId, reason: Reason, message: Option<String>, step: &mut Step) {
        let telling = Telling {
            reason: Some(reason),
            message,
            ..Telling::default()
        };
        self.tell(id, TaskState::TaskRunning, Kind::Result, telling, step);
    }

    /// Addresses for the updates to come (U-09).
    pub(super) fn network(&mut self, member: Option<MemberId>, infos: Vec<NetworkInfo>) {
        let infos = infos.into_iter().map(Wire::new).collect();
        match member {
            None => self.network = infos,
            Some(id) => {
                if let Some(member) = self.members.get_mut(&id) {
                    member.network = Some(infos);
                }
            }
        }
    }
}
