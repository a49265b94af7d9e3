//! `podling scheduler` as a process, against a loopback cluster with real executors.
#![allow(clippy::unwrap_used, clippy::panic)]

mod empty_master;
mod guests;
mod process;
mod removed;
mod status;
mod story;
mod trouble;
