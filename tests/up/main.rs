//! `podling up` and `podling pod` as their users meet them: real processes, real HTTP, real members.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "../common/own_node.rs"]
mod own_node;

mod bad_input;
mod cluster;
mod definitions;
mod door;
mod examples;
mod files;
mod layout;
mod leaving;
mod lone;
mod newcomer;
mod node;
mod once;
mod output;
mod pods;
mod seeds;
