//! The plan of the house, held against the house: which room may lean on which, and which rooms stay pure.

#![allow(clippy::unwrap_used, clippy::panic)]

mod arrows;
mod behaviour;
mod security;
mod source;
