//! What a group wants done.

use std::sync::Arc;

use super::event::{GroupId, MemberId};
use crate::mesos::v1;

/// A request to the shell, to be carried out in the order given. The comment of each says which event answers it.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Post this update. Only while subscribed; the machine keeps it until it is acknowledged.
    Send(Arc<v1::TaskStatus>),
    /// Make a member ready up to its gate → exactly one of `Prepared`, `PrepareFailed`, or, after
    /// [`Effect::Discard`], `Discarded`.
    Prepare {
        member: MemberId,
        group: GroupId,
        /// The value of its own `ContainerID` in every update; names its sandbox (E-06).
        container: String,
        task: Arc<v1::TaskInfo>,
    },
    /// Open the gate of a prepared member, and hold it before the first instruction of what it executes → exactly one
    /// of `Held`, `StartFailed`, or, after [`Effect::Discard`], `Discarded`.
    Release(MemberId),
    /// Let a held member go. Nothing answers: it runs from here on, and its end shows as `Exited`.
    Begin(MemberId),
    /// Give up a member that has not begun: a preparation, a member at its gate, an opening gate, or one that is held →
    /// `Discarded`, once nothing of it is left. Answers may cross on the way: a `PrepareFailed` or `StartFailed`
    /// that was already queued is the answer and no `Discarded` need follow.
    Discard(MemberId),
    /// Signal a member that runs; its end shows as `Exited`. A signal to one that has just ended is lost on purpose.
    Signal(MemberId, MemberSignal),
    /// The member's terminal state is decided: drop what is still held for it. Nothing answers.
    Forget(MemberId),
    /// Worth a line in the log although no update tells it.
    Note(String),
    /// The process may go, with exit code 0 in every case (G-05). Comes once and last. Members that are still there
    /// (only after [`Settings::shutdown_grace`](super::Settings) has run out) go with the process.
    Exit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberSignal {
    /// Ask it to end: the image's stop signal or SIGTERM, to the member's init.
    Stop,
    /// End it: the whole container, whatever it forked.
    Kill,
}
