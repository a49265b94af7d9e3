//! What `docker save` and `podman save` write.

use std::path::Path;

use serde::Deserialize;

use super::{
    SourceError, Top,
    files::{Section, Tarball, offered},
    input::LayerInput,
};
use crate::image::{
    digest::Digest,
    document::{DocumentError, OCI_MANIFEST},
    reference::Reference,
};

const MANIFEST: &str = "manifest.json";

/// Its manifest is written by us, since it has none: the configuration and the
/// digests of the unpacked layers, which are what can be checked.
#[derive(Debug)]
pub(in crate::image) struct ArchiveSource {
    tarball: Tarball,
    manifest: Vec<u8>,
    config: Vec<u8>,
    layers: Vec<Section>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SavedImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

impl ArchiveSource {
    /// Blocks.
    pub(in crate::image) fn open(path: &Path, tag: Option<&str>) -> Result<ArchiveSource, SourceError> {
        let tarball = Tarball::open(path)?;
        if !tarball.has(MANIFEST) {
            let hint = if tarball.has("index.json") {
                "; oci-archive: reads it"
            } else if tarball.has("repositories") {
                "; docker before 1.10 saved images in a form that has no digests"
            } else {
                ""
            };
            return Err(tarball.unusable(format!("it has no {MANIFEST}{hint}")));
        }
        let images: Vec<SavedImage> = serde_json::from_slice(&tarball.document(MANIFEST)?)
            .map_err(|error| tarball.unusable(format!("{MANIFEST}: {error}")))?;
        let image = choose(path, images, tag)?;
        let config = tarball.document(&image.config)?;
        let digest = Digest::of(&config);
        // The name is the digest in every version of docker.
        let name = Path::new(&image.config)
            .file_stem()
            .and_then(|stem| stem.to_str());
        if let Some(named) = name.and_then(|name| Digest::from_hex(name).ok())
            && named != digest
        {
            return Err(tarball.unusable(format!(
                "the content of {} is not what its name says",
                image.config
            )));
        }
        let layers = image.layers.iter().map(|layer| tarball.section(layer));
        let layers = layers.collect::<Result<Vec<_>, _>>()?;
        let manifest =
            synthetic_manifest(&config, digest, &layers).map_err(|source| SourceError::Document {
                path: path.to_owned(),
                source: source.into(),
            })?;
        Ok(ArchiveSource {
            tarball,
            manifest,
            config,
            layers,
        })
    }

    pub(super) fn top(&self) -> Top {
        Top {
            bytes: self.manifest.clone(),
            media_type: None,
            digest: None,
        }
    }

    pub(super) fn small(&self, digest: Digest) -> Result<Vec<u8>, SourceError> {
        if Digest::of(&self.config) == digest {
            return Ok(self.config.clone());
        }
        Err(self.tarball.unusable(format!("it has no {digest}")))
    }

    pub(super) fn layer(&self, at: usize) -> Result<LayerInput, SourceError> {
        let missing = || self.tarball.unusable(format!("it has no layer number {at}"));
        self.tarball.layer(*self.layers.get(at).ok_or_else(missing)?)
    }
}

fn synthetic_manifest(config: &[u8], digest: Digest, layers: &[Section]) -> Result<Vec<u8>, DocumentError> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(default)]
        rootfs: Option<RootFs>,
    }
    #[derive(Deserialize)]
    struct RootFs {
        #[serde(default)]
        diff_ids: Option<Vec<Digest>>,
    }
    let parsed: Config = serde_json::from_slice(config)?;
    let diff_ids = parsed
        .rootfs
        .and_then(|rootfs| rootfs.diff_ids)
        .unwrap_or_default();
    if diff_ids.len() != layers.len() {
        return Err(DocumentError::LayerCount {
            layers: layers.len(),
            diff_ids: diff_ids.len(),
        });
    }
    let layers: Vec<serde_json::Value> = diff_ids
        .iter()
        .zip(layers)
        .map(|(diff_id, section)| {
            serde_json::json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": diff_id,
                "size": section.length,
            })
        })
        .collect();
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest,
            "size": config.len(),
        },
        "layers": layers,
    });
    Ok(serde_json::to_vec(&manifest)?)
}

fn choose(path: &Path, mut images: Vec<SavedImage>, tag: Option<&str>) -> Result<SavedImage, SourceError> {
    // `repo:tag` is compared in its full form, however short it is written on either side.
    let full = |name: &str| match name.parse::<Reference>() {
        Ok(reference) => reference.to_string(),
        Err(_) => name.to_owned(),
    };
    let tags: Vec<String> = images
        .iter()
        .flat_map(|image| image.repo_tags.iter().flatten().cloned())
        .collect();
    if let Some(tag) = tag {
        let wanted = full(tag);
        let named = |image: &SavedImage| image.repo_tags.iter().flatten().any(|tag| full(tag) == wanted);
        return images
            .into_iter()
            .find(named)
            .ok_or_else(|| SourceError::NoSuchTag {
                path: path.to_owned(),
                tag: tag.to_owned(),
                offered: offered(tags.iter()),
            });
    }
    match (images.len(), images.pop()) {
        (1, Some(only)) => Ok(only),
        (0, _) | (_, None) => Err(SourceError::NotAnArchive {
            path: path.to_owned(),
            why: "it holds no image".to_owned(),
        }),
        _ => Err(SourceError::Several {
            path: path.to_owned(),
            offered: offered(tags.iter()),
        }),
    }
}
