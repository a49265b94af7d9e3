//! Where the scheduler's state outlives it.
//!
//! The core hands over [`Change`]s; a store applies them all or not at all, and has them on disk when it says so.
//! Records are JSON under a key, so that an operator can read them and a later version can still understand them.

mod sqlite;

pub use self::sqlite::Sqlite;
use super::core::{Change, Saved};
use crate::{
    base::private::PrivateError,
    pod::{Pod, PodId, Version},
};

/// Versions kept for each pod.
pub const HISTORY: usize = 50;

/// A place for the scheduler's state. Calls block; the shell makes them from a thread of its own.
pub trait Store: Send {
    /// Everything that was stored.
    fn load(&mut self) -> Result<Saved, StoreError>;

    /// Applies all changes or none; they are durable when this returns.
    fn apply(&mut self, changes: &[Change]) -> Result<(), StoreError>;

    /// Whether changes can be stored again after they could not.
    fn probe(&mut self) -> Result<(), StoreError>;

    /// The versions of a pod, oldest first; they are kept when the pod is gone.
    fn versions(&mut self, id: &PodId) -> Result<Vec<Version>, StoreError>;

    fn version(&mut self, id: &PodId, version: Version) -> Result<Option<Pod>, StoreError>;
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the store {place} is in use by another process; two schedulers need two stores")]
    InUse { place: String },
    #[error("cannot {doing} the store {place}: {source}")]
    Database {
        doing: &'static str,
        place: String,
        source: rusqlite::Error,
    },
    #[error(
        "the store {place} was written by a newer version of podling (format {found}, this one knows {known}); run that \
         version, or start with another store"
    )]
    TooNew { place: String, found: i64, known: i64 },
    #[error("the store {place} holds a record that cannot be read, {key}: {source}")]
    Record {
        place: String,
        key: String,
        source: serde_json::Error,
    },
    #[error("the store {place} names no file")]
    NoFile { place: String },
    #[error("no place for the store: {0}")]
    Private(#[from] PrivateError),
}
