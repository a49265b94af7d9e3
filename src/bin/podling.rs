//! `podling`: the command line of operators and developers.

fn main() {}
