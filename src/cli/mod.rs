//! The command line of `podling`: what was typed becomes a value of [`Cli`], whose command then runs.
//!
//! A new command is a module here with a clap type that has `run(self) -> Ended`, a variant of [`Command`] and its
//! line in [`Cli::run`].
//!
//! The same program is also an executor, under its name or as a command that is not shown: see [`executor`].

mod client;
mod colour;
mod definition;
mod executor;
mod failure;
mod guests;
mod image;
mod line;
mod logging;
mod loopback;
mod master;
mod networks;
mod node;
mod pod;
mod scheduler;
mod signals;
mod slips;
mod text;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use self::failure::{Ended, Failure};
use crate::{base, version::VERSION};

const EXAMPLES: &str = "\
Examples:
  podling up examples/hello.json            run a pod on this machine, nothing else needed
  podling pod list                          in another terminal: what runs
  podling node check                        what this machine offers to pods
  podling COMMAND --help                    more on each of these";

/// Runs pods on Apache Mesos.
#[derive(Debug, Parser)]
#[command(
    name = "podling",
    version = VERSION,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = EXAMPLES
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run pods on this machine: a cluster, a scheduler and real executors, until Ctrl-C
    Up(up::Up),
    /// Pods of a scheduler: add, list, show, update, remove
    Pod(pod::Pod),
    /// Have a Mesos cluster run pods: Marathon's pods API in front of a master
    Scheduler(scheduler::SchedulerCommand),
    /// This machine: what it offers to members, and what dead executors have left on it
    #[command(subcommand, after_help = node::EXAMPLES)]
    Node(node::Command),
    /// This node's images
    #[command(subcommand, after_help = image::EXAMPLES)]
    Image(image::Command),
    /// Stand-ins for a Mesos cluster on this machine
    #[command(subcommand, after_help = loopback::EXAMPLES)]
    Loopback(loopback::Command),
}

impl Cli {
    fn run(self) -> Ended {
        match self.command {
            Command::Image(command) => command.run(),
            Command::Loopback(command) => command.run(),
            Command::Up(command) => command.run(),
            Command::Scheduler(command) => command.run(),
            Command::Pod(command) => command.run(),
            Command::Node(command) => command.run(),
        }
    }
}

/// Reads the command line, does what it says, and tells how that ended: 0 done, 1 failed, 2 wrong use.
pub fn main() -> ExitCode {
    // Before anything else: an executor takes secrets out of its environment while it has one thread and no child.
    if executor::is_asked_for(&std::env::args_os().collect::<Vec<_>>()) {
        return crate::executor::main();
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too, with 0. Nobody is left to tell if they cannot be printed.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    // An agent makes sandboxes that members of other users walk through, and starts executors of strangers.
    if !matches!(cli.command, Command::Up(_) | Command::Loopback(_)) {
        base::umask::close();
    }
    match cli.run() {
        Ok(code) => code,
        Err(failure) => {
            failure::complain(&failure);
            failure.exit_code()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }
}
