//! Podling runs pods on Apache Mesos.
//!
//! Dependencies point downwards only:
//!
//! ```text
//! cli → scheduler, loopback, executor → container, image, network, … → mesos, base, sys
//! ```
//!
//! [`group`], [`pod`] and `scheduler::core` are pure: they decide and never do. The modules round them do and
//! never decide. [`sys`] is the one door to the kernel.

pub mod base;
pub mod check;
pub mod cli;
pub mod container;
pub mod door;
pub mod executor;
pub mod group;
pub mod image;
pub mod loopback;
pub mod mesos;
pub mod network;
pub mod pod;
pub mod scheduler;
pub mod suggest;
pub mod sys;
#[cfg(test)]
mod tests;
pub mod version;
pub mod volume;
