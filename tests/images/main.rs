//! Images from outside: real and misbehaving registries, benign and hostile layers, many processes on one store.
//! Needs root, and the packages named in packaging/test-packages.txt.
#![allow(clippy::unwrap_used, clippy::panic)]

mod archives;
mod build;
mod command;
mod credentials;
mod fake;
mod faults;
mod hostile;
mod pull;
mod registry;
mod sources;
mod stack;
mod store;
mod tls;
mod tree;
mod trees;
