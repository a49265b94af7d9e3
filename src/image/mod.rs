//! Images: pulled, verified, unpacked, kept and mounted.
//!
//! ```text
//! Reference ─▶ Source: registry, OCI layout, docker archive
//!                │ manifest and configuration, digests checked
//!                ▼
//!    download ─▶ hash ─▶ decompress ─▶ hash ─▶ unpack      one pass for each layer, several layers at once
//!                                               │
//!                                               ▼
//!              Store: one rename when every digest is right ─▶ Image (lease) ─▶ Rootfs (overlayfs)
//! ```

mod config;
mod digest;
mod disk;
mod document;
mod fixes;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod platform;
mod pool;
mod pull;
mod reference;
mod registry;
mod room;
mod rootfs;
mod source;
mod store;
mod unpack;

pub use config::{OperatorConfig, Quota};
pub use digest::{Digest, DigestError};
pub use disk::{Collected, Keep, Known, LayerError, StoreError, Verified, drop_dead_leases};
pub use document::DocumentError;
pub use platform::{Platform, PlatformError};
pub use pool::{Lost, Pool, Worker};
pub use pull::{Observer, Problem, Progress, PullError};
pub use reference::{Reference, ReferenceError, RegistryReference};
pub use registry::{
    Credential, CredentialError, Credentials, Patience, RegistryConfig, RegistryError, Retry,
};
pub use room::{NoRoom, Reserve};
pub use rootfs::{Changes, Rootfs, RootfsError, discard_changes};
pub use source::SourceError;
pub use store::{Image, Places, PullOptions, Store, StoreConfig};
pub use unpack::{
    Budget, Compression, DevicePolicy, Digests, OverBudget, Privilege, Refusal, UnpackError, UnpackOptions,
    unpack,
};
