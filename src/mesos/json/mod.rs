//! Mesos's JSON (wire file, section 4), which is not the canonical JSON of protobuf.
//!
//! Both directions go through the protobuf bytes, guided by the tables: [`read()`] writes what prost then decodes,
//! [`print()`] reads what prost encoded.

mod print;
mod read;

pub use print::{Defaults, print};
pub use read::read;
