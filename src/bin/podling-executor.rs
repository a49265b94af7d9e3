//! `podling-executor`: one per pod instance, started by the Mesos agent.

use std::process::ExitCode;

fn main() -> ExitCode {
    podling::executor::main()
}
