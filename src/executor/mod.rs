//! The shell round [`group`](crate::group): what a Mesos agent starts for each pod instance.

pub mod address;
pub mod blackbox;
pub mod config;
pub mod crash;
pub mod environment;
pub mod logging;
pub mod sandbox;
pub mod session;
