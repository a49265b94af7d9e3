//! The log of commands that stay: lines or JSON to standard error, or records to journald.
//!
//! `PODLING_LOG` says how much, as for executors; `PODLING_LOG_FORMAT` in which form.

use std::io;

use tracing_subscriber::{
    Layer as _, filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use super::Failure;

const FILTER: &str = "PODLING_LOG";
const FORMAT: &str = "PODLING_LOG_FORMAT";

/// Starts logging; `usual` is how much when nobody says.
pub(super) fn start(usual: &str) -> Result<(), Failure> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let filter = variable(FILTER);
    let targets: Targets = filter.as_deref().unwrap_or(usual).parse().map_err(|error| {
        Failure::usage(format!(
            "{FILTER}: {error}; expected off, error, warn, info, debug or trace, also by module \
             (info,podling::scheduler=debug)"
        ))
    })?;
    let format = variable(FORMAT);
    let layer = match format.as_deref().unwrap_or("text") {
        "text" => tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_writer(io::stderr)
            .boxed(),
        "json" => tracing_subscriber::fmt::layer()
            .json()
            .with_writer(io::stderr)
            .boxed(),
        "journald" => tracing_journald::layer()
            .map_err(|error| Failure::failed(format!("{FORMAT}: no journald here: {error}")))?
            .boxed(),
        other => {
            return Err(Failure::usage(format!(
                "{FORMAT}: {other:?} is no form of a log; expected text, json or journald"
            )));
        }
    };
    // A second start, in tests, keeps the first.
    let _ = tracing_subscriber::registry()
        .with(layer.with_filter(targets))
        .try_init();
    Ok(())
}
