//! The command line of `podling`: what was typed becomes a value of [`Cli`], whose command then runs.
//!
//! A new command is a module here with a clap type that has `run(self) -> Ended`, a variant of [`Command`] and its
//! line in [`Cli::run`].

mod client;
mod definition;
mod failure;
mod guests;
mod image;
mod line;
mod loopback;
mod master;
mod networks;
mod node;
mod pod;
mod scheduler;
mod signals;
mod text;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use self::failure::{Ended, Failure};

/// Runs pods on Apache Mesos.
#[derive(Debug, Parser)]
#[command(
    name = "podling",
    version,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// This node's images
    #[command(subcommand)]
    Image(image::Command),
    /// Stand-ins for a Mesos cluster on this machine
    #[command(subcommand)]
    Loopback(loopback::Command),
    /// Run pods on this machine: a cluster, a scheduler and real executors, until Ctrl-C
    Up(up::Up),
    /// Have a Mesos cluster run pods: Marathon's pods API in front of a master
    Scheduler(scheduler::SchedulerCommand),
    /// Pods of a scheduler: add, list, show, update, remove
    Pod(pod::Pod),
    /// This machine: what it offers to members, and what dead executors have left on it
    #[command(subcommand)]
    Node(node::Command),
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
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too, with 0. Nobody is left to tell if they cannot be printed.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
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
