//! The shell round [`group`](crate::group): what a Mesos agent starts for each pod instance.

pub mod config;
pub mod environment;
pub mod logging;
pub mod session;
