//! The pod's network: one namespace, real addresses, published ports.
//!
//! ```text
//! ExecutorInfo ──Manager::read──▶ Request ──Manager::set_up──▶ PodNetwork ──tear_down──▶ nothing left
//! ```
//!
//! A [`Request`] is read and checked before anything is made. A [`PodNetwork`] owns a namespace by its descriptor; the
//! members join it. Whatever else exists for a pod (addresses, ports, interfaces, rules, CNI attachments) is written in
//! its journal before it is made, see [`lease`]: `tear_down`, a drop, a failed step and the clean-up after a killed
//! executor all undo by the same journal.
//!
//! On the node we touch, and only for built-in networks:
//!
//! * one bridge per network, named in the configuration or `plb…`; interfaces `plv…`; all carry an alias that says whose they are;
//! * one nftables table, `inet podling`, see [`ruleset`];
//! * `net.ipv4.ip_forward` (and `net.ipv6.conf.all.forwarding` for networks with IPv6) when off and
//!   `enable_forwarding` allows it;
//! * `route_localnet` of our own bridges, so that the node's `127.0.0.1` reaches published ports; the table keeps pods
//!   from using it the other way round. From the node's `::1` published ports are not reached: the kernel has no
//!   such switch for IPv6.

mod bridge;
pub mod cni;
pub mod config;
mod conntrack;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod lease;
mod link;
mod manager;
pub mod names;
mod namespace;
mod nft;
mod node;
mod pod;
pub mod port;
mod report;
pub mod request;
pub mod ruleset;
pub mod subnet;
mod watch;

pub use config::Config;
pub use error::NetworkError;
pub use manager::Manager;
pub use node::Interface;
pub use pod::PodNetwork;
pub use report::{Report, Wall};
pub use request::Request;
pub use watch::{Step, Watch};
