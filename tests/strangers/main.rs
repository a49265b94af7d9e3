//! Our ends of the wire meet ends that nobody here wrote: pymesos from PyPI drives the loopback agent and master, and
//! what a real agent sent drives our executor.
#![allow(clippy::unwrap_used, clippy::panic)]

mod pymesos;
mod pymesos_scheduler;
mod recorded_agent;
mod recording;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// A Python with pymesos.
fn python() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let install = root.join("packaging/install-test-python");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), Into::into);
    // Returns at once if `make test` has done it.
    let status = Command::new(&install)
        .env("CARGO_TARGET_DIR", &target)
        .status()
        .expect("sh is there");
    assert!(
        status.success(),
        "{} could not install pymesos: {status}",
        install.display()
    );
    target.join("test-python/bin/python")
}
