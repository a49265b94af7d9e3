//! Members as whole processes: from a task to something that runs, is looked at from inside, and is gone.

// A test that cannot go on may end at once.
#![allow(clippy::unwrap_used, clippy::panic)]

mod bundle;
mod conformance;
mod crash;
mod escapes;
mod exec;
mod grouped;
mod held;
mod hogs;
mod hosted;
mod ipc;
mod launch;
mod mapped;
mod modes;
mod pods;
mod processes;
mod rooted;
mod rootless;
mod seen;
mod support;
mod users;
