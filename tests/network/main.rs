//! The pod's network against the real kernel.
//!
//! Every test is a node of its own: a thread in a fresh network and mount namespace, with a private `/run`. Nothing of
//! the machine's own links, rules or routes is in reach. Needs root, and `ip` and `nft` as independent witnesses.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../common/own_node.rs"]
mod own_node;

mod cni;
mod faults;
mod killed;
mod kinds;
mod members;
mod operator;
mod plans;
mod pods;
mod ports;
mod reach;
mod support;
mod witness;
