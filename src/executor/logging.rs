//! Log lines to stderr, which the agent keeps in the executor's sandbox.

use std::io;

use tracing_subscriber::{
    Layer as _, filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

/// Starts logging. `filter` has been checked by the configuration; what cannot be read means `info`.
pub fn start(filter: &str) {
    let targets: Targets = filter
        .parse()
        .unwrap_or_else(|_| Targets::new().with_default(tracing::Level::INFO));
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_writer(io::stderr)
        .with_filter(targets);
    // A second start, in tests, keeps the first.
    let _ = tracing_subscriber::registry().with(lines).try_init();
}
