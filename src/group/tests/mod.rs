//! The behaviour list, item by item, and the machine as a whole.

mod fate;
mod kill;
mod launch;
mod model;
mod properties;
mod scene;
mod session;
mod shutdown;
mod table;
mod updates;
