//! The Mesos v1 wire: types, encodings, framing, durations and connections.

pub mod codec;
pub mod duration;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod json;
pub mod recordio;
pub mod subscription;
pub mod table;
pub mod wire;

/// The protobuf types, generated from `proto/`.
#[allow(missing_docs, missing_debug_implementations, clippy::all)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/mesos.v1.rs"));

    pub mod executor {
        include!(concat!(env!("OUT_DIR"), "/mesos.v1.executor.rs"));
    }
    pub mod scheduler {
        include!(concat!(env!("OUT_DIR"), "/mesos.v1.scheduler.rs"));
    }
    pub mod agent {
        include!(concat!(env!("OUT_DIR"), "/mesos.v1.agent.rs"));
    }
}
