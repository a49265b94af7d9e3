//! The thin scheduler: a REST face, a pure core, a store, a session with the master.

pub mod core;
pub mod store;
