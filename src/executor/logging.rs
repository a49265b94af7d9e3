//! Log lines to stderr, which the agent keeps in the executor's sandbox.

use std::io;

use tracing_subscriber::{
    Layer as _, filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::suggest;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Reads a filter such as `info,podling::executor=debug`. What is wrong with it, to follow the filter in a sentence.
pub fn filter(text: &str) -> Result<Targets, String> {
    for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        // A module without a level would mean all of that module, and a mistyped level nothing at all.
        let level = word.rsplit_once('=').map_or(word, |(_, level)| level);
        if LEVELS.iter().any(|known| level.eq_ignore_ascii_case(known)) || level.parse::<u8>().is_ok() {
            continue;
        }
        let meant = suggest::nearest(level, LEVELS).map(|meant| format!("; did you mean `{meant}`?"));
        return Err(format!(
            "is no log filter: `{level}` is no level, of which there are {}{}",
            LEVELS.join(", "),
            meant.unwrap_or_default()
        ));
    }
    text.parse().map_err(|error| format!("is no log filter: {error}"))
}

/// Starts logging. `filter` has been checked by the configuration; what cannot be read means `info`.
pub fn start(filter: &str) {
    let targets = self::filter(filter).unwrap_or_else(|_| Targets::new().with_default(tracing::Level::INFO));
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_writer(io::stderr)
        .with_filter(targets);
    // A second start, in tests, keeps the first.
    let _ = tracing_subscriber::registry().with(lines).try_init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_names_levels() {
        for good in [
            "",
            "info",
            "WARN",
            "off",
            "info,podling::executor=debug",
            "podling=trace,warn",
            "3",
        ] {
            assert!(filter(good).is_ok(), "{good}");
        }
        let problem = |text: &str| filter(text).unwrap_err();
        assert!(problem("loud").contains("`loud` is no level, of which there are off, error,"));
        assert!(problem("podling=inof").ends_with("did you mean `info`?"));
        assert!(problem("info,podling::executor").contains("`podling::executor` is no level"));
    }
}
