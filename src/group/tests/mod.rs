//! The behaviour list, item by item, and the machine as a whole.

mod fate;
mod kill;
mod launch;
mod scene;
mod session;
mod shutdown;
mod updates;
