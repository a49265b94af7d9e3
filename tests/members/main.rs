//! Members as whole processes: from a task to something that runs, is looked at from inside, and is gone.

// A test that cannot go on may end at once.
#![allow(clippy::unwrap_used, clippy::panic)]

mod conformance;
mod crash;
mod escapes;
mod exec;
mod grouped;
mod hosted;
mod launch;
mod pods;
mod rooted;
mod rootless;
mod support;
