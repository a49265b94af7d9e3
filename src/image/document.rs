//! The JSON documents of an image: index, manifest, configuration. Bounded, unambiguous, and reduced to what a pull
//! needs; nothing here trusts a document before its digest was checked by the caller.

use oci_spec::image::{ImageConfiguration, ImageIndex, ImageManifest, MediaType};
use serde::{Deserialize, de::IgnoredAny};

use super::{
    digest::{Digest, DigestError},
    platform::Platform,
};

/// What registries themselves allow for a manifest; a configuration is no bigger in practice.
pub const MAX_DOCUMENT: u64 = 4 << 20;
/// overlayfs stacks at most 500 layers.
pub const MAX_LAYERS: usize = 500;
/// An index in an index is legal; nobody nests deeper.
pub const MAX_INDEX_DEPTH: usize = 3;

pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// What a registry is asked for, best first.
pub const ACCEPT: &str = concat!(
    "application/vnd.oci.image.index.v1+json, ",
    "application/vnd.oci.image.manifest.v1+json, ",
    "application/vnd.docker.distribution.manifest.list.v2+json, ",
    "application/vnd.docker.distribution.manifest.v2+json"
);

/// A piece of content named by a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blob {
    pub digest: Digest,
    pub size: u64,
}

/// An image manifest: its configuration and its layers, lowest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    pub config: Blob,
    pub layers: Vec<Blob>,
}

/// Either kind of document a tag can lead to.
#[derive(Debug, Clone)]
pub enum Document {
    Manifest(Manifest),
    Index(Box<ImageIndex>),
}

#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    #[error("it is larger than {MAX_DOCUMENT} bytes")]
    TooLarge,
    #[error("it is not valid JSON of its kind")]
    Json(#[from] serde_json::Error),
    #[error("it is a schema 1 manifest, a format that registries gave up in 2019; push the image again")]
    Schema1,
    #[error("schemaVersion {0} is not supported, only 2 is")]
    SchemaVersion(u64),
    #[error("it says of itself that it is {said}, but it was announced as {announced}")]
    MediaTypes { said: String, announced: String },
    #[error("it has the fields of both an index and a manifest, so it could be read in two ways")]
    Ambiguous,
    #[error("{0:?} is neither an image manifest nor an index")]
    NotAnImage(String),
    #[error("its configuration is a {0:?}, so it is no container image")]
    NotAnImageConfig(String),
    #[error("layer {index} is a {media_type:?}, which cannot be unpacked")]
    LayerType { index: usize, media_type: String },
    #[error("it has {0} layers, more than {MAX_LAYERS}")]
    TooManyLayers(usize),
    #[error("it names content by an unusable digest")]
    Digest(#[from] DigestError),
    #[error("it offers nothing for {wanted}; it has {offered}")]
    NoPlatform { wanted: Platform, offered: String },
    #[error("indices are nested more than {MAX_INDEX_DEPTH} deep")]
    TooDeep,
    #[error("the manifest lists {layers} layers, but the configuration has {diff_ids} diff_ids")]
    LayerCount { layers: usize, diff_ids: usize },
    #[error("the image is for {image}, this node runs {node}")]
    WrongPlatform { image: String, node: Platform },
}

/// Just enough of a document to tell what it is. Duplicate keys are an error of the JSON reader.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    schema_version: Option<u64>,
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
    fs_layers: Option<IgnoredAny>,
}

impl Document {
    /// Reads an index or manifest. `announced` is the type given by whoever named it: a descriptor or a Content-Type.
    pub fn parse(bytes: &[u8], announced: Option<&str>) -> Result<Document, DocumentError> {
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(DocumentError::TooLarge);
        }
        let probe: Probe = serde_json::from_slice(bytes)?;
        if probe.fs_layers.is_some() || probe.schema_version == Some(1) {
            return Err(DocumentError::Schema1);
        }
        if let Some(version) = probe.schema_version.filter(|version| *version != 2) {
            return Err(DocumentError::SchemaVersion(version));
        }
        let is_index = probe.manifests.is_some();
        if is_index && (probe.layers.is_some() || probe.config.is_some()) {
            return Err(DocumentError::Ambiguous);
        }
        // Servers that know nothing of types say text/plain or application/json; that announces nothing.
        let announced = announced
            .map(|announced| announced.split(';').next().unwrap_or_default().trim())
            .filter(|announced| kind_of(announced).is_some());
        let said = probe.media_type.as_deref();
        if let (Some(said), Some(announced)) = (said, announced)
            && said != announced
        {
            return Err(DocumentError::MediaTypes {
                said: said.to_owned(),
                announced: announced.to_owned(),
            });
        }
        let shape = if is_index { Kind::Index } else { Kind::Manifest };
        if let Some(media_type) = said.or(announced) {
            match kind_of(media_type) {
                Some(kind) if kind == shape => {}
                Some(_) => return Err(DocumentError::Ambiguous),
                None => return Err(DocumentError::NotAnImage(media_type.to_owned())),
            }
        }
        if is_index {
            return Ok(Document::Index(Box::new(serde_json::from_slice(bytes)?)));
        }
        Manifest::new(&serde_json::from_slice(bytes)?).map(Document::Manifest)
    }
}

#[derive(PartialEq, Eq, Clone, Copy)]
enum Kind {
    Index,
    Manifest,
}

fn kind_of(media_type: &str) -> Option<Kind> {
    match media_type {
        DOCKER_MANIFEST | OCI_MANIFEST => Some(Kind::Manifest),
        DOCKER_LIST | OCI_INDEX => Some(Kind::Index),
        _ => None,
    }
}

impl Manifest {
    fn new(manifest: &ImageManifest) -> Result<Manifest, DocumentError> {
        let config_type = manifest.config().media_type();
        match config_type {
            MediaType::ImageConfig => {}
            MediaType::Other(docker) if docker == DOCKER_CONFIG => {}
            other => return Err(DocumentError::NotAnImageConfig(other.to_string())),
        }
        if manifest.layers().len() > MAX_LAYERS {
            return Err(DocumentError::TooManyLayers(manifest.layers().len()));
        }
        let layers = manifest.layers().iter().enumerate().map(|(index, layer)| {
            if !is_layer_type(layer.media_type()) {
                let media_type = layer.media_type().to_string();
                return Err(DocumentError::LayerType { index, media_type });
            }
            Ok(Blob {
                digest: layer.digest().try_into()?,
                size: layer.size(),
            })
        });
        Ok(Manifest {
            layers: layers.collect::<Result<_, _>>()?,
            config: Blob {
                digest: manifest.config().digest().try_into()?,
                size: manifest.config().size(),
            },
        })
    }
}

/// The compression itself is told from the bytes: media types are known to lie about it, digests do not.
fn is_layer_type(media_type: &MediaType) -> bool {
    match media_type {
        MediaType::ImageLayer
        | MediaType::ImageLayerGzip
        | MediaType::ImageLayerZstd
        | MediaType::ImageLayerNonDistributable
        | MediaType::ImageLayerNonDistributableGzip
        | MediaType::ImageLayerNonDistributableZstd => true,
        MediaType::Other(other) => matches!(
            other.as_str(),
            "application/vnd.docker.image.rootfs.diff.tar"
                | "application/vnd.docker.image.rootfs.diff.tar.gzip"
                | "application/vnd.docker.image.rootfs.diff.tar.zstd"
                | "application/vnd.docker.image.rootfs.foreign.diff.tar"
                | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
        ),
        _ => false,
    }
}

/// An index's choice for a platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    pub blob: Blob,
    pub media_type: String,
}

/// Picks from an index: the best fit, the first among equals.
pub fn choose(index: &ImageIndex, wanted: &Platform) -> Result<Choice, DocumentError> {
    let mut best: Option<(u32, &oci_spec::image::Descriptor)> = None;
    for descriptor in index.manifests() {
        let fitness = match descriptor.platform() {
            Some(platform) => wanted.fitness(
                platform.os(),
                platform.architecture(),
                platform.variant().as_deref(),
            ),
            // A nested index carries no platform of its own; an entry without one is worth a try when nothing fits.
            None => Some(0),
        };
        let fitness = fitness.filter(|_| kind_of(descriptor.media_type().as_ref()).is_some());
        if let Some(fitness) = fitness
            && best.is_none_or(|(other, _)| fitness > other)
        {
            best = Some((fitness, descriptor));
        }
    }
    let Some((_, descriptor)) = best else {
        return Err(DocumentError::NoPlatform {
            wanted: wanted.clone(),
            offered: offered(index),
        });
    };
    Ok(Choice {
        blob: Blob {
            digest: descriptor.digest().try_into()?,
            size: descriptor.size(),
        },
        media_type: descriptor.media_type().to_string(),
    })
}

/// What an index has, for the error sentence: at most ten platforms by name.
fn offered(index: &ImageIndex) -> String {
    let mut names: Vec<String> = Vec::new();
    for platform in index
        .manifests()
        .iter()
        .filter_map(|entry| entry.platform().as_ref())
    {
        let name = format!("{}/{}", platform.os(), platform.architecture());
        if !names.contains(&name) && name != "unknown/unknown" {
            names.push(name);
        }
        if names.len() > 10 {
            names.push("…".to_owned());
            break;
        }
    }
    if names.is_empty() {
        "no image at all".to_owned()
    } else {
        names.join(", ")
    }
}

/// An image's configuration and the checked digests of its uncompressed layers.
#[derive(Debug, Clone)]
pub struct Configuration {
    pub image: ImageConfiguration,
    pub diff_ids: Vec<Digest>,
}

impl Configuration {
    pub fn parse(bytes: &[u8], node: &Platform) -> Result<Configuration, DocumentError> {
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(DocumentError::TooLarge);
        }
        let image: ImageConfiguration = match serde_json::from_slice(bytes) {
            Ok(image) => image,
            Err(error) => lenient(bytes).ok_or(error)?,
        };
        let diff_ids: Result<Vec<Digest>, _> = image
            .rootfs()
            .diff_ids()
            .iter()
            .map(|text| text.parse())
            .collect();
        let configuration = Configuration {
            diff_ids: diff_ids?,
            image,
        };
        configuration.check_platform(node)?;
        Ok(configuration)
    }

    /// Checks that this configuration belongs to a manifest.
    pub fn matches(&self, manifest: &Manifest) -> Result<(), DocumentError> {
        let (layers, diff_ids) = (manifest.layers.len(), self.diff_ids.len());
        if layers != diff_ids {
            return Err(DocumentError::LayerCount { layers, diff_ids });
        }
        Ok(())
    }

    /// An index was chosen from by platform; a lone manifest says only here what it is for. Builders that leave the
    /// fields empty are given the benefit of the doubt.
    fn check_platform(&self, node: &Platform) -> Result<(), DocumentError> {
        let (os, architecture) = (self.image.os(), self.image.architecture());
        let unsaid = |text: String| text.is_empty() || text == "unknown";
        let os_fits = unsaid(os.to_string()) || os.to_string() == node.os;
        let architecture_fits = unsaid(architecture.to_string())
            || architecture.to_string() == node.architecture
            || node
                .fitness(&"linux".into(), architecture, self.image.variant().as_deref())
                .is_some();
        if os_fits && architecture_fits {
            return Ok(());
        }
        Err(DocumentError::WrongPlatform {
            image: format!("{os}/{architecture}"),
            node: node.clone(),
        })
    }
}

/// Images without layers (P-15) come with `"diff_ids": null` or no `rootfs` at all from some builders.
fn lenient(bytes: &[u8]) -> Option<ImageConfiguration> {
    const SMALL: usize = 256 << 10;
    if bytes.len() > SMALL {
        return None;
    }
    let mut value: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    let fields = value.as_object_mut()?;
    let rootfs = fields
        .entry("rootfs")
        .or_insert_with(|| serde_json::json!({ "type": "layers" }))
        .as_object_mut()?;
    let diff_ids = rootfs.entry("diff_ids").or_insert(serde_json::Value::Null);
    if diff_ids.is_null() {
        *diff_ids = serde_json::json!([]);
    }
    for field in ["os", "architecture"] {
        fields.entry(field).or_insert_with(|| "".into());
    }
    serde_json::from_value(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn manifest(extra: &str) -> String {
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{DOCKER_MANIFEST}","config":{{"mediaType":"{DOCKER_CONFIG}","size":2,
            "digest":"sha256:{HEX}"}},"layers":[{{"mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip",
            "size":3,"digest":"sha256:{HEX}"}}]{extra}}}"#
        )
    }

    fn index(entries: &[(&str, &str)]) -> String {
        let entries: Vec<String> = entries
            .iter()
            .enumerate()
            .map(|(at, (os, arch))| {
                format!(
                    r#"{{"mediaType":"{OCI_MANIFEST}","size":{at},"digest":"sha256:{HEX}","platform":{{"os":"{os}","architecture":"{arch}"}}}}"#
                )
            })
            .collect();
        format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","))
    }

    #[test]
    fn a_docker_manifest_is_read() {
        let Document::Manifest(read) =
            Document::parse(manifest("").as_bytes(), Some(DOCKER_MANIFEST)).unwrap()
        else {
            panic!()
        };
        assert_eq!((read.config.size, read.layers.len()), (2, 1));
    }

    #[test]
    fn i1_a_document_of_two_readings_is_refused() {
        let refuse = |text: &str, announced: Option<&str>| {
            Document::parse(text.as_bytes(), announced)
                .map(|_| ())
                .unwrap_err()
        };
        assert!(matches!(
            refuse(&manifest(r#","manifests":[]"#), None),
            DocumentError::Ambiguous
        ));
        assert!(matches!(
            refuse(&manifest(""), Some(OCI_INDEX)),
            DocumentError::MediaTypes { .. }
        ));
        assert!(matches!(
            refuse(&index(&[]), Some(OCI_MANIFEST)),
            DocumentError::Ambiguous
        ));
        assert!(matches!(
            refuse(&manifest(r#","layers":[]"#), None),
            DocumentError::Json(_)
        ));
        assert!(matches!(
            refuse(r#"{"schemaVersion":1,"fsLayers":[]}"#, None),
            DocumentError::Schema1
        ));
        assert!(matches!(
            refuse(r#"{"schemaVersion":3}"#, None),
            DocumentError::SchemaVersion(3)
        ));
        assert!(matches!(refuse("[]", None), DocumentError::Json(_)));
        assert!(matches!(refuse("", None), DocumentError::Json(_)));
        let deep = format!(r#"{{"annotations":{}1{}}}"#, "[".repeat(200), "]".repeat(200));
        assert!(matches!(refuse(&deep, None), DocumentError::Json(_)));
    }

    #[test]
    fn p_04_the_platform_is_chosen_from_an_index() {
        let parse = |text: &str| match Document::parse(text.as_bytes(), None).unwrap() {
            Document::Index(index) => index,
            Document::Manifest(_) => panic!(),
        };
        let wanted: Platform = "linux/amd64".parse().unwrap();
        let some = parse(&index(&[
            ("windows", "amd64"),
            ("linux", "arm64"),
            ("linux", "amd64"),
            ("linux", "amd64"),
        ]));
        assert_eq!(choose(&some, &wanted).unwrap().blob.size, 2);
        let none = parse(&index(&[("linux", "s390x"), ("windows", "amd64")]));
        let sentence = choose(&none, &wanted).unwrap_err().to_string();
        assert!(sentence.contains("linux/s390x, windows/amd64"), "{sentence}");
    }

    #[test]
    fn p_15_a_configuration_without_layers_is_read() {
        let node = Platform::host();
        for text in [
            r#"{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":null}}"#,
            r#"{"os":"linux","architecture":"amd64"}"#,
            "{}",
        ] {
            let read = Configuration::parse(text.as_bytes(), &node).unwrap();
            assert!(read.diff_ids.is_empty());
        }
    }

    #[test]
    fn a_configuration_for_another_machine_is_refused() {
        let node = "linux/amd64".parse().unwrap();
        for (text, sentence) in [
            (
                r#"{"os":"windows","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}"#,
                "windows/amd64",
            ),
            (
                r#"{"os":"linux","architecture":"arm64","rootfs":{"type":"layers","diff_ids":[]}}"#,
                "linux/arm64",
            ),
        ] {
            let error = Configuration::parse(text.as_bytes(), &node)
                .unwrap_err()
                .to_string();
            assert!(error.contains(sentence), "{error}");
        }
    }
}
