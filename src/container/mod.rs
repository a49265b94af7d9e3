//! From a launch plan to a running member: our own container runtime.
//!
//! ```text
//! TaskInfo + image + defaults ──plan──▶ Plan ──Runtime::prepare──▶ Gated ──execute──▶ Held ──begin──▶ Running ──▶ Exit
//! ```
//!
//! A [`plan::Plan`] is a validated value made by a pure function. Preparing it does everything but the last exec;
//! the member then waits at its gate. Executed, it is held before its first instruction until it may begin. Every stage
//! owns what it made and undoes it when dropped.

pub mod cgroup;
mod error;
mod exec;
mod filters;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod host;
pub mod janitor;
mod launch;
mod mapped;
mod member;
pub mod plan;
mod pod;
pub mod policy;
mod prepare;
mod process;
mod program;
mod runtime;
mod script;
pub mod seccomp;
mod setup;
mod terminal;
mod tree;
pub mod users;
mod words;

pub use error::{LaunchError, SetupError};
pub use exec::{Captured, Entrance, ExecPlan, ExecStreams, Executing};
pub use filters::profile_of;
pub use mapped::{IdRange, MappedUsers};
pub use member::{Gated, Held, Running};
pub use runtime::{Runtime, Setup};
pub use words::last_line;
