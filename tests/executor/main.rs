//! The executor as a process, as an agent meets it.

mod start;
