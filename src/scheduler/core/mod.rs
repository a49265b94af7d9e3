//! What runs where: the scheduler's decisions, as a pure state machine.
//!
//! The shell feeds it [`Event`]s and [`Command`]s, each with a [`Stamp`], and carries out the [`Effect`]s in order.
//! `Persist` comes before the call that it covers: a launch that is not stored is never sent, so a scheduler that dies
//! between the two finds either nothing or an instance that reconciliation settles.
//!
//! * [`machine`]: the state and its transitions
//! * `commands`: what people ask for
//! * `offers`: used, held for a moment, or declined; and when to ask for more
//! * `converge`: what a pod needs next, from what it wants and what it has
//! * `fleet`: the instances of a pod, counted, so that nobody has to look through them
//! * [`instance`]: one copy of a pod and the condition its tasks put it in
//! * [`matching`]: which offer can hold an instance, and why another cannot
//! * `reconcile`: what the master is asked about our tasks, and what its not knowing means
//! * `rollout`: how many old instances may go and new ones come, and how far that is
//! * [`status`]: the same state in the words of the API

mod backoff;
mod commands;
mod converge;
mod effect;
mod event;
mod fleet;
pub mod instance;
pub mod machine;
pub mod matching;
mod offers;
mod reconcile;
mod rollout;
pub mod status;

pub use self::{
    backoff::Backoff,
    effect::{Change, Effect, Notice},
    event::{Accepted, Command, Event, Refusal, Settings, Stamp},
    instance::{Condition, Goal, Instance, InstanceTask},
    machine::{Core, Deployment, DeploymentKind, Saved, StoredPod, Trouble},
};

#[cfg(test)]
mod tests;
