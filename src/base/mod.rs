//! Small things that everything may stand on: they know nothing of pods.

pub mod entrusted;
pub mod private;
pub mod remove;
pub mod trust;
pub mod umask;
