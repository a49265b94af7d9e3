//! Small things that everything may stand on.

pub mod trust;
