//! What a group wants done.

use std::sync::Arc;

use super::event::MemberId;
use crate::mesos::v1;

/// A request to the shell. The comment of each says which event answers it.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Post this update. Only while subscribed; the machine keeps it until it is acknowledged.
    Send(Arc<v1::TaskStatus>),
    /// Make a member ready up to its gate → exactly one of `Prepared`, `PrepareFailed`, or, after
    /// [`Effect::Discard`], `Discarded`.
    Prepare {
        member: MemberId,
        task: Arc<v1::TaskInfo>,
    },
    /// Open the gate of a prepared member → exactly one of `Started`, `StartFailed`.
    Release(MemberId),
    /// Give up a preparation or a gated member → `Discarded`.
    Discard(MemberId),
    /// Signal a started member; its end shows as `Exited`.
    Signal(MemberId, MemberSignal),
    /// The member's terminal state is decided: drop what is still held for it.
    Forget(MemberId),
    /// Everything has ended and been told: the process may go.
    Exit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberSignal {
    /// Ask it to end: the image's stop signal or SIGTERM, to the member's init.
    Stop,
    /// End it: the whole container, whatever it forked.
    Kill,
}
