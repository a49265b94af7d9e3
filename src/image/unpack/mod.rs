//! From a layer's bytes to a directory, in one pass and constant memory.

mod apply;
mod archive;
mod budget;
mod spill;
mod stream;
mod sums;
pub(super) mod tree;

use std::{fs::File, io, os::fd::BorrowedFd};

pub(super) use apply::copied_xattrs;
pub use apply::{Applied, DevicePolicy, Privilege, Refusal};
pub use archive::{Archive, ArchiveError, Kind};
pub use budget::{Budget, OverBudget};
pub use stream::{Compression, Digests};
pub(super) use sums::{Sum, read_sums};

use self::{
    apply::{Applier, printable},
    stream::{Hashed, Unpacked},
};

/// Why a layer could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    #[error("entry {name:?} is refused: {refusal}")]
    Entry { name: String, refusal: Refusal },
    #[error(transparent)]
    Archive(ArchiveError),
    #[error(transparent)]
    OverBudget(#[from] OverBudget),
    /// The bytes could not be had or decompressed.
    #[error("its bytes cannot be read")]
    Read(#[source] io::Error),
    #[error("cannot {step} for {name:?}")]
    Io {
        step: &'static str,
        name: String,
        #[source]
        source: io::Error,
    },
}

impl UnpackError {
    fn io(step: &'static str, name: &[u8], source: impl Into<io::Error>) -> UnpackError {
        UnpackError::Io {
            step,
            name: printable(name),
            source: source.into(),
        }
    }

    /// The node's disk is full: nothing is wrong with the image.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, UnpackError::Io { source, .. } if super::disk::is_disk_full(source))
    }

    /// A limit hidden in a read error comes out as what it is.
    fn read(error: io::Error) -> UnpackError {
        match error.downcast::<OverBudget>() {
            Ok(budget) => UnpackError::OverBudget(budget),
            Err(error) => UnpackError::Read(error),
        }
    }
}

impl From<ArchiveError> for UnpackError {
    fn from(error: ArchiveError) -> UnpackError {
        match error {
            ArchiveError::Read(error) => UnpackError::read(error),
            ArchiveError::OverBudget(budget) => UnpackError::OverBudget(budget),
            malformed => UnpackError::Archive(malformed),
        }
    }
}

/// How layers are unpacked.
#[derive(Debug, Clone)]
pub struct UnpackOptions {
    pub budget: Budget,
    pub devices: DevicePolicy,
    pub privilege: Privilege,
    /// The calling thread's umask is 0.
    pub exact_modes: bool,
}

impl Default for UnpackOptions {
    fn default() -> UnpackOptions {
        UnpackOptions {
            budget: Budget::default(),
            devices: DevicePolicy::default(),
            privilege: Privilege::current(),
            exact_modes: false,
        }
    }
}

/// A layer's bytes, decompressed and within the budget.
#[cfg(any(test, fuzzing))]
pub(super) fn unpacked<R: io::BufRead>(blob: R, announced: u64, budget: &Budget) -> io::Result<Unpacked<R>> {
    Unpacked::new(Hashed::new(blob, announced), budget)
}

/// Unpacks a layer of `announced` compressed bytes into the empty directory `root`. The digests are told, not
/// judged: whoever knows what they should be must compare them before the directory is used. `scratch` is a directory
/// on the same file system, outside `root`; `sums` takes a checksum of every file.
pub fn unpack(
    blob: impl io::BufRead,
    announced: u64,
    root: BorrowedFd<'_>,
    scratch: BorrowedFd<'_>,
    sums: Option<File>,
    options: &UnpackOptions,
) -> Result<(Digests, Applied), UnpackError> {
    let stream = Unpacked::new(Hashed::new(blob, announced), &options.budget).map_err(UnpackError::read)?;
    let mut archive = Archive::new(stream, &options.budget);
    let mut applier = Applier::new(root, scratch, sums, options);
    while let Some(entry) = archive.next()? {
        applier.apply(&entry, &mut archive)?;
    }
    let applied = applier.finish()?;
    let digests = archive.into_inner().finish().map_err(UnpackError::read)?;
    Ok((digests, applied))
}
