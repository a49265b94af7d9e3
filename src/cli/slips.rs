//! Variables and values that look like slips of the pen: said, since whoever made one would look for it for long.

use std::ffi::OsString;

use clap::CommandFactory as _;

use super::{Cli, failure};
use crate::{executor::config::Effective, suggest};

/// What pods and offers of this cluster are made of.
const RESOURCES: [&str; 5] = ["cpus", "mem", "disk", "ports", "gpus"];

const PREFIX: &str = "PODLING_";

/// Variables that mean nothing and are nearly one of ours, each in a sentence.
pub(super) fn of(variables: &[(OsString, OsString)]) -> Vec<String> {
    let command_lines = command_line_variables(&Cli::command());
    Effective::strangers(variables)
        .filter(|name| !command_lines.iter().any(|known| known == name))
        .filter_map(|name| {
            let meant = Effective::meant(name).or_else(|| {
                // All begin alike, which makes none of them likelier.
                let known = command_lines
                    .iter()
                    .filter_map(|known| known.strip_prefix(PREFIX));
                let meant = suggest::nearest(name.strip_prefix(PREFIX)?, known)?;
                Some(format!("{PREFIX}{meant}"))
            })?;
            Some(format!("{name} means nothing; did you mean {meant}?"))
        })
        .collect()
}

/// Says so.
pub(super) fn complain_of_variables() {
    let variables: Vec<_> = std::env::vars_os().collect();
    for slip in of(&variables) {
        failure::complain(slip);
    }
}

/// Of resources in Mesos' text form: others may be anybody's own, so it is said and no more.
pub(super) fn complain_of_resources(flag: &str, text: &str) {
    for name in text.split(';').filter_map(|one| one.split([':', '(']).next()) {
        let name = name.trim();
        if RESOURCES.contains(&name) {
            continue;
        }
        if let Some(meant) = suggest::nearest(name, RESOURCES) {
            failure::complain(format_args!(
                "{flag}: no pod asks for {name}; did you mean {meant}?"
            ));
        }
    }
}

fn command_line_variables(command: &clap::Command) -> Vec<String> {
    let own = command.get_arguments().filter_map(|argument| argument.get_env());
    let mut all: Vec<String> = own.filter_map(|name| name.to_str().map(str::to_owned)).collect();
    all.extend(command.get_subcommands().flat_map(command_line_variables));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_everything_known_is_none() {
        let slips = |name: &str| of(&[(name.into(), "x".into())]);
        assert_eq!(
            slips("PODLING_IMAGES_QOUTA"),
            ["PODLING_IMAGES_QOUTA means nothing; did you mean PODLING_IMAGES_QUOTA?"]
        );
        assert_eq!(
            slips("PODLING_ULR"),
            ["PODLING_ULR means nothing; did you mean PODLING_URL?"]
        );
        for fine in [
            "PODLING_URL",
            "PODLING_LOG",
            "PODLING_MASTER",
            "PODLING_SOMETHING_ELSE",
            "PODLING_BUILD",
            "HOME",
        ] {
            assert_eq!(slips(fine), [""; 0], "{fine}");
        }
    }
}
