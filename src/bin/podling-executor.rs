//! `podling-executor`: one per pod instance, started by the Mesos agent.

fn main() {}
