//! The shell round [`group`](crate::group): what a Mesos agent starts for each pod instance.
//!
//! ```text
//!  agent ◀──▶ session ──notices──▶ ┌───────┐ ──event, stamp──▶ group::Machine
//!                     ◀──calls──── │ shell │ ◀──effects───────
//!  members ◀─▶ keepers ─answers──▶ └───────┘ ──causes, effects──▶ black box
//! ```
//!
//! One thread. The machine decides, everything here does.

mod address;
pub mod blackbox;
mod cgroups;
mod checks;
pub mod config;
mod crash;
pub mod environment;
mod keeper;
mod last_words;
mod logging;
mod planner;
mod provision;
mod sandbox;
pub mod session;
mod shell;

use std::{
    error::Error,
    ffi::OsString,
    process::ExitCode,
    time::{Duration, Instant},
};

use self::{config::Effective, environment::Environment};
use crate::{base, sys, version::VERSION};

const HELP: &str = "\
podling-executor runs the task groups that a Mesos agent gives it.

It is started by an agent and takes everything from the environment (MESOS_*); settings of the operator come from
/etc/podling/executor.toml and PODLING_* variables. Flags it does not know are ignored.

  --version  print the version
  --help     print this

To try it on one machine: podling loopback agent --task-group FILE.json";

/// The names under which a program is started as an executor: its own, and that of the executor whose place it takes
/// in an agent's launcher directory.
pub const NAMES: [&str; 2] = ["podling-executor", "mesos-default-executor"];

/// The whole program.
pub fn main() -> ExitCode {
    let start = Instant::now();
    for flag in std::env::args_os().skip(1) {
        match flag.to_str() {
            Some("--version") => {
                println!("podling-executor {VERSION}");
                return ExitCode::SUCCESS;
            }
            Some("--help") => {
                println!("{HELP}");
                return ExitCode::SUCCESS;
            }
            // Among others what an agent gives to its own default executor, `--launcher_dir=…`.
            _ => {}
        }
    }
    crash::end_on_panic(start);
    base::umask::close();
    match live(start) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("podling-executor: {}", sentence(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn live(start: Instant) -> Result<(), Box<dyn Error>> {
    // Before anything could start a thread or a child.
    let token = sys::environ::take_secret(environment::TOKEN)?;
    let variables: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    let effective = Effective::load(&variables)?;
    logging::start(&effective.config.log);
    for (key, value, origin) in effective.changed() {
        tracing::info!("{key} = {value} (from {origin})");
    }
    for name in Effective::strangers(&variables) {
        match Effective::meant(name) {
            Some(meant) => tracing::warn!("{name} is set and means nothing to us; did you mean {meant}?"),
            None => tracing::warn!("{name} is set and means nothing to us"),
        }
    }
    let config = effective.config;
    let token = token.map(|token| (OsString::from(environment::TOKEN), token));
    let environment = Environment::parse(variables.into_iter().chain(token))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        // Deletes and the like; small and gone when idle.
        .max_blocking_threads(2)
        .thread_keep_alive(Duration::from_secs(1))
        .build()?;
    // The keepers stay on this thread, with which their members die.
    let keepers = tokio::task::LocalSet::new();
    keepers.block_on(&runtime, shell::run(environment, config, start))?;
    Ok(())
}

/// An error with all its causes, as one sentence.
fn sentence(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // Some messages quote their cause already.
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}
