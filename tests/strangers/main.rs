//! Our ends of the wire meet ends that nobody here wrote: pymesos from PyPI drives the loopback agent, and what a real
//! agent sent drives our executor.
#![allow(clippy::unwrap_used)]

mod pymesos;
mod recorded_agent;
mod recording;
