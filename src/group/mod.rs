//! The life of task groups: a pure state machine.
//!
//! One [`Machine`] per executor. The shell feeds it [`Event`]s, each with a [`Stamp`] (time and entropy come from
//! outside), and carries out the [`Effect`]s it gives back. Nothing here does I/O, looks at a clock or panics.

mod effect;
mod event;
pub mod extras;
pub mod machine;

pub use effect::{Effect, MemberSignal};
pub use event::{Event, Exit, ExitStatus, Failure, GroupId, Limit, MemberId, Settings, Stamp};
pub use extras::{Extras, OnFinish};
pub use machine::{Machine, MemberView};
