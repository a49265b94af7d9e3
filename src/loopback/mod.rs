//! Stand-ins for a cluster on one machine. They behave like the real thing, nasty parts included, and can be told
//! to misbehave. They meet executors and schedulers only over the wire, so that strangers can be tried too.

pub mod agent;
pub mod master;
