//! Which build this is.

/// `0.1.0 (commit 1a2b3c4d5e6f, x86_64-unknown-linux-musl, musl, static)`.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("BUILT_AS"), ")");
