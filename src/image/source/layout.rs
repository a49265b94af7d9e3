//! An OCI image layout, as a directory or in an archive.

use std::path::Path;

use oci_spec::image::{ImageIndex, ImageIndexBuilder};

use super::{
    SourceError, Top,
    files::{Files, Tarball, offered},
    input::LayerInput,
};
use crate::image::{
    digest::Digest,
    document::{DocumentError, choose},
    platform::Platform,
};

const INDEX: &str = "index.json";
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// `index.json` and `blobs/sha256/`.
#[derive(Debug)]
pub(in crate::image) struct LayoutSource {
    files: Files,
    tag: Option<String>,
}

impl LayoutSource {
    pub(in crate::image) fn directory(path: &Path, tag: Option<&str>) -> LayoutSource {
        LayoutSource {
            files: Files::Directory(path.to_owned()),
            tag: tag.map(str::to_owned),
        }
    }

    /// Blocks.
    pub(in crate::image) fn archive(path: &Path, tag: Option<&str>) -> Result<LayoutSource, SourceError> {
        let tarball = Tarball::open(path)?;
        if !tarball.has(INDEX) {
            let hint = match tarball.has("manifest.json") {
                true => "; docker-archive: reads it",
                false => "",
            };
            return Err(tarball.unusable(format!("it has no {INDEX}{hint}")));
        }
        Ok(LayoutSource {
            files: Files::Tarball(tarball),
            tag: tag.map(str::to_owned),
        })
    }

    fn name(digest: Digest) -> String {
        format!("blobs/sha256/{}", digest.hex())
    }

    pub(super) fn document(&self, digest: Digest) -> Result<Vec<u8>, SourceError> {
        self.files.document(&LayoutSource::name(digest))
    }

    pub(super) fn layer(&self, digest: Digest) -> Result<LayerInput, SourceError> {
        self.files.layer(&LayoutSource::name(digest))
    }

    pub(super) fn top(&self, platform: &Platform) -> Result<Top, SourceError> {
        let path = || self.files.path().to_owned();
        let failed = |source: DocumentError| SourceError::Document {
            path: path().join(INDEX),
            source: source.into(),
        };
        let index: ImageIndex = serde_json::from_slice(&self.files.document(INDEX)?)
            .map_err(|error| failed(DocumentError::Json(error)))?;
        let name_of = |entry: &oci_spec::image::Descriptor| {
            entry
                .annotations()
                .as_ref()
                .and_then(|annotations| annotations.get(REF_NAME).cloned())
        };
        let names: Vec<Option<String>> = index.manifests().iter().map(name_of).collect();
        let wanted = match &self.tag {
            Some(tag) => Some(tag.clone()),
            // Without a tag: the only name there is, or "latest" among several.
            None => {
                let mut named: Vec<&String> = names.iter().flatten().collect();
                named.sort();
                named.dedup();
                match named.as_slice() {
                    [] => None,
                    [only] => Some((*only).clone()),
                    several if several.iter().any(|name| *name == "latest") => Some("latest".to_owned()),
                    _ => {
                        return Err(SourceError::Several {
                            path: path(),
                            offered: offered(names.iter().flatten()),
                        });
                    }
                }
            }
        };
        let entries: Vec<_> = index
            .manifests()
            .iter()
            .filter(|entry| wanted.is_none() || name_of(entry) == wanted)
            .cloned()
            .collect();
        if let (true, Some(tag)) = (entries.is_empty(), &wanted) {
            return Err(SourceError::NoSuchTag {
                path: path(),
                tag: tag.clone(),
                offered: offered(names.iter().flatten()),
            });
        }
        let narrowed = ImageIndexBuilder::default()
            .schema_version(2u32)
            .manifests(entries)
            .build()
            .map_err(|error| failed(DocumentError::NotAnImage(error.to_string())))?;
        let choice = choose(&narrowed, platform).map_err(failed)?;
        Ok(Top {
            bytes: self.document(choice.blob.digest)?,
            media_type: Some(choice.media_type),
            digest: Some(choice.blob.digest),
        })
    }
}
