//! The thin scheduler: a REST face, a pure core, a store, a session with the master.

pub mod api;
pub mod core;
mod journal;
pub mod master;
pub mod service;
pub mod standing;
pub mod store;
