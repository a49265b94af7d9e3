//! `podling`: the command line of operators and developers.

use std::process::ExitCode;

fn main() -> ExitCode {
    podling::cli::main()
}
