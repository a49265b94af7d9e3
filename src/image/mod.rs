//! Images: what they are called and what they are made of.

mod digest;
mod document;
mod platform;
mod reference;
mod registry;
mod unpack;

pub use digest::{Digest, DigestError};
pub use document::DocumentError;
pub use platform::{Platform, PlatformError};
pub use reference::{Reference, ReferenceError, RegistryReference};
pub use unpack::{
    Budget, Compression, DevicePolicy, Digests, OverBudget, Privilege, Refusal, UnpackError, UnpackOptions, unpack,
};
pub use registry::{Credential, CredentialError, Credentials, Patience, RegistryConfig, RegistryError, Retry};
