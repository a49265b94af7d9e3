//! The scheduler core against a small master: what people ask for, what becomes of offers, what goes missing, and
//! whole stories of mishaps.

mod away;
mod clocks;
mod counts;
mod health;
mod life;
mod offers;
mod stories;
mod world;
