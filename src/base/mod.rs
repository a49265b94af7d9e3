//! What everything else stands on: small, and knowing nothing of pods.

pub mod private;
pub mod remove;
pub mod trust;
