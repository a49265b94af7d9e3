//! Control groups against the real kernel. Needs root and a cgroup file system that can be written.

#![allow(clippy::unwrap_used, clippy::panic)]

mod check;
mod hosts;
mod janitor;
mod kill;
mod limits;
mod support;
