//! Where an image's bytes come from: a registry, an OCI layout (a directory or an archive), or a `docker save` archive.

mod files;
mod input;
mod layout;
mod saved;

use std::{io, path::PathBuf};

use self::input::Download;
pub(super) use self::{input::LayerInput, layout::LayoutSource, saved::ArchiveSource};
use super::{
    digest::Digest,
    document::{Blob, DocumentError, MAX_DOCUMENT},
    platform::Platform,
    reference::RegistryReference,
    registry::{RegistryError, Repository},
};

#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error(transparent)]
    Registry(Box<RegistryError>),
    #[error("{path} cannot be read")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is larger than {MAX_DOCUMENT} bytes")]
    TooLarge { path: PathBuf },
    #[error("{path}")]
    Document {
        path: PathBuf,
        #[source]
        source: Box<DocumentError>,
    },
    #[error("{path} has no image {tag:?}; it has {offered}")]
    NoSuchTag {
        path: PathBuf,
        tag: String,
        offered: String,
    },
    #[error("{path} has several images, so one must be named: {offered}")]
    Several { path: PathBuf, offered: String },
    #[error("{path} cannot be used as an archive of images: {why}")]
    NotAnArchive { path: PathBuf, why: String },
}

impl From<RegistryError> for SourceError {
    fn from(error: RegistryError) -> SourceError {
        SourceError::Registry(Box::new(error))
    }
}

/// An opened source.
#[derive(Debug)]
pub(super) enum Source {
    Registry(Box<Repository>, RegistryReference),
    Layout(LayoutSource),
    Archive(ArchiveSource),
}

/// What a reference leads to, still to be checked against `digest` if there is one.
#[derive(Debug)]
pub(super) struct Top {
    pub bytes: Vec<u8>,
    pub media_type: Option<String>,
    pub digest: Option<Digest>,
}

impl Source {
    pub(super) async fn top(&self, platform: &Platform) -> Result<Top, SourceError> {
        match self {
            Source::Registry(repository, reference) => {
                let fetched = repository.manifest(&reference.manifest_key()).await?;
                Ok(Top {
                    bytes: fetched.bytes,
                    media_type: fetched.media_type,
                    digest: reference.digest(),
                })
            }
            Source::Layout(layout) => layout.top(platform),
            Source::Archive(archive) => Ok(archive.top()),
        }
    }

    /// A manifest or index named by another one.
    pub(super) async fn manifest(&self, blob: &Blob) -> Result<Vec<u8>, SourceError> {
        match self {
            Source::Registry(repository, _) => Ok(repository.manifest(&blob.digest.to_string()).await?.bytes),
            Source::Layout(layout) => layout.document(blob.digest),
            Source::Archive(archive) => archive.small(blob.digest),
        }
    }

    pub(super) async fn config(&self, blob: &Blob) -> Result<Vec<u8>, SourceError> {
        match self {
            Source::Registry(repository, _) => Ok(repository.small_blob(blob).await?.bytes),
            Source::Layout(layout) => layout.document(blob.digest),
            Source::Archive(archive) => archive.small(blob.digest),
        }
    }

    /// The bytes of layer number `at`, and for a registry the work that brings them.
    pub(super) fn layer(
        &self,
        at: usize,
        blob: &Blob,
    ) -> Result<(LayerInput, Option<Download<'_>>), SourceError> {
        match self {
            Source::Registry(repository, _) => {
                let (download, input) = Download::of(repository, *blob);
                Ok((input, Some(download)))
            }
            Source::Layout(layout) => Ok((layout.layer(blob.digest)?, None)),
            Source::Archive(archive) => Ok((archive.layer(at)?, None)),
        }
    }

    /// Whether the digests of packed layers are known.
    pub(super) fn knows_blob_digests(&self) -> bool {
        !matches!(self, Source::Archive(_))
    }
}
