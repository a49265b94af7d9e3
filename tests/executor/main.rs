//! The executor as a process, as an agent meets it. Names carry the ids of the behaviours they show.

// A test that cannot go on may end at once.
#![allow(clippy::unwrap_used, clippy::panic)]

mod causes;
mod checks;
mod crash;
mod execve;
mod hostile;
mod life;
mod places;
mod policy;
mod samples;
mod session;
mod shutdown;
mod start;
mod support;
