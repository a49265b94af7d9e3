//! Compiles the Mesos definitions in `proto/` without a `protoc`.

use std::{env, io::Result, path::PathBuf};

const PROTOS: [&str; 4] = [
    "mesos/v1/mesos.proto",
    "mesos/v1/executor.proto",
    "mesos/v1/scheduler.proto",
    "mesos/v1/agent.proto",
];

fn main() -> Result<()> {
    println!("cargo::rerun-if-changed=proto");
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("proto");
    let descriptors = protox::compile(PROTOS, [&root]).map_err(std::io::Error::other)?;
    prost_build::Config::new()
        .bytes([".mesos.v1.ExecutorInfo.data", ".mesos.v1.TaskInfo.data"])
        .compile_fds(descriptors)
}
