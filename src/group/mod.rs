//! The life of task groups: a pure state machine.
//!
//! One [`Machine`] per executor. The shell feeds it [`Event`]s, each with a [`Stamp`] (time and entropy come from
//! outside), and carries out the [`Effect`]s it gives back. Nothing here does I/O, looks at a clock or panics.
//!
//! Read it in this order:
//!
//! * `event`, `effect`: what comes in and goes out, and who answers whom
//! * `state`: the life of one member, as a table; `verdict`: why it ended and what is told of it
//! * [`machine`]: dispatch; `launch`: the gate; `kill`: grace and the fate of a group; `checks`: results;
//!   `session`: the agent, shutdown and our own end
//! * `updates`: the update stream; `member`, `identity`: what an update is made of
//! * [`extras`], [`validate`]: what a scheduler may ask for
//! * [`watch`]: the checks of a member for whoever probes: [`probe`] says what to look at, [`window`] when, and what
//!   a result means

mod checks;
mod effect;
mod event;
pub mod extra_checks;
pub mod extras;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod identity;
mod kill;
mod launch;
pub mod machine;
mod member;
pub mod probe;
mod session;
mod state;
mod updates;
pub mod validate;
mod verdict;
pub mod watch;
pub mod window;
mod wire;

#[cfg(test)]
mod tests;

pub use effect::{Effect, MemberSignal};
pub use event::{Event, Exit, ExitStatus, Failure, GroupId, Limit, MemberId, Settings, Stamp};
pub use extras::{Extras, ExtrasError, OnFinish};
pub use machine::{Machine, MemberView};
