//! The master's decisions, call by call and in random stories.

mod frameworks;
mod launches;
mod offers;
mod stories;
mod tasks;
mod world;
