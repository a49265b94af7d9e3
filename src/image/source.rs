//! Where an image's bytes come from: a registry, an OCI layout directory, or a `docker save` archive.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    os::unix::fs::OpenOptionsExt,
    path::{Component, Path, PathBuf},
};

use bytes::Bytes;
use oci_spec::image::{ImageIndex, ImageIndexBuilder};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::{
    digest::Digest,
    document::{Blob, DocumentError, MAX_DOCUMENT, choose},
    platform::Platform,
    reference::{Reference, RegistryReference},
    registry::{RegistryError, Repository},
    unpack::{Archive, ArchiveError, Budget, Compression, Kind},
};

const REF_NAME: &str = "org.opencontainers.image.ref.name";
const MAX_ARCHIVE_ENTRIES: usize = 100_000;
/// Pieces between the network and a worker: enough to keep both busy, little enough for the memory budget.
const PIECES: usize = 4;

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
    #[error("{path} is not an archive made by docker save: {why}")]
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
            Source::Layout(layout) => read_document(&layout.blob(blob.digest)),
            Source::Archive(archive) => archive.small(blob.digest),
        }
    }

    pub(super) async fn config(&self, blob: &Blob) -> Result<Vec<u8>, SourceError> {
        match self {
            Source::Registry(repository, _) => Ok(repository.small_blob(blob).await?.bytes),
            Source::Layout(layout) => read_document(&layout.blob(blob.digest)),
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
                let (sender, receiver) = mpsc::channel(PIECES);
                let download = Download {
                    repository,
                    blob: *blob,
                    sender,
                };
                Ok((LayerInput::Pieces(Pieces::new(receiver)), Some(download)))
            }
            Source::Layout(layout) => {
                let path = layout.blob(blob.digest);
                let file = open_file(&path).map_err(|source| SourceError::File { path, source })?;
                Ok((LayerInput::file(file, u64::MAX), None))
            }
            Source::Archive(archive) => Ok((archive.layer(at)?, None)),
        }
    }

    /// Whether the digests of packed layers are known.
    pub(super) fn knows_blob_digests(&self) -> bool {
        !matches!(self, Source::Archive(_))
    }
}

/// The transfer of one blob, to be awaited while a worker unpacks what it brings.
#[derive(Debug)]
pub(super) struct Download<'a> {
    repository: &'a Repository,
    blob: Blob,
    sender: mpsc::Sender<Bytes>,
}

impl Download<'_> {
    pub(super) async fn run(self) -> Result<(), RegistryError> {
        // The sender goes with `self` at the end, which is how the worker learns that nothing more comes.
        self.repository.blob(&self.blob, &self.sender).await
    }
}

/// A layer's bytes as a worker thread reads them.
#[derive(Debug)]
pub(super) enum LayerInput {
    Pieces(Pieces),
    File(BufReader<io::Take<File>>),
}

impl LayerInput {
    fn file(file: File, length: u64) -> LayerInput {
        LayerInput::File(BufReader::with_capacity(128 << 10, file.take(length)))
    }
}

impl Read for LayerInput {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            LayerInput::Pieces(pieces) => pieces.read(into),
            LayerInput::File(file) => file.read(into),
        }
    }
}

impl BufRead for LayerInput {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self {
            LayerInput::Pieces(pieces) => pieces.fill_buf(),
            LayerInput::File(file) => file.fill_buf(),
        }
    }

    fn consume(&mut self, used: usize) {
        match self {
            LayerInput::Pieces(pieces) => pieces.consume(used),
            LayerInput::File(file) => file.consume(used),
        }
    }
}

/// The receiving end of a transfer. When the sender goes without having sent everything, the end comes early, which
/// the size and the digest tell.
#[derive(Debug)]
pub(super) struct Pieces {
    receiver: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl Pieces {
    fn new(receiver: mpsc::Receiver<Bytes>) -> Pieces {
        Pieces {
            receiver,
            piece: Bytes::new(),
        }
    }
}

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.piece.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => break,
            }
        }
        Ok(&self.piece)
    }

    fn consume(&mut self, used: usize) {
        bytes::Buf::advance(&mut self.piece, used);
    }
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.len().min(into.len());
        if let (Some(into), Some(piece)) = (into.get_mut(..length), self.piece.get(..length)) {
            into.copy_from_slice(piece);
        }
        self.consume(length);
        Ok(length)
    }
}

/// An OCI image layout: `index.json` and `blobs/sha256/`.
#[derive(Debug)]
pub(super) struct LayoutSource {
    path: PathBuf,
    tag: Option<String>,
}

impl LayoutSource {
    pub(super) fn new(path: &Path, tag: Option<&str>) -> LayoutSource {
        LayoutSource {
            path: path.to_owned(),
            tag: tag.map(str::to_owned),
        }
    }

    fn blob(&self, digest: Digest) -> PathBuf {
        self.path.join("blobs/sha256").join(digest.hex())
    }

    fn top(&self, platform: &Platform) -> Result<Top, SourceError> {
        let path = self.path.join("index.json");
        let failed = |source: DocumentError| SourceError::Document {
            path: path.clone(),
            source: source.into(),
        };
        let index: ImageIndex = serde_json::from_slice(&read_document(&path)?)
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
                            path: self.path.clone(),
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
                path: self.path.clone(),
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
            bytes: read_document(&self.blob(choice.blob.digest))?,
            media_type: Some(choice.media_type),
            digest: Some(choice.blob.digest),
        })
    }
}

/// An archive made by `docker save`. Its manifest is written by us, since it has none: the configuration and the
/// digests of the unpacked layers, which are what can be checked.
#[derive(Debug)]
pub(super) struct ArchiveSource {
    path: PathBuf,
    manifest: Vec<u8>,
    config: Vec<u8>,
    /// Offset and length of each layer in the archive.
    layers: Vec<(u64, u64)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SavedImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

#[derive(Debug, Clone)]
enum Member {
    File { offset: u64, length: u64 },
    Link(PathBuf),
}

impl ArchiveSource {
    /// Reads the archive once to learn what lies where. Blocks.
    pub(super) fn open(path: &Path, tag: Option<&str>) -> Result<ArchiveSource, SourceError> {
        let members = list_members(path)?;
        let not_an_archive = |why: String| SourceError::NotAnArchive {
            path: path.to_owned(),
            why,
        };
        let read = |name: &str| -> Result<Vec<u8>, SourceError> {
            let (offset, length) =
                find(&members, name).ok_or_else(|| not_an_archive(format!("it has no {name}")))?;
            read_section(path, offset, length)
        };
        let images: Vec<SavedImage> = serde_json::from_slice(&read("manifest.json")?)
            .map_err(|error| not_an_archive(error.to_string()))?;
        let image = choose_saved(path, images, tag)?;
        let config = read(&image.config)?;
        let digest = Digest::of(&config);
        // The name is the digest in every version of docker.
        let name = Path::new(&image.config)
            .file_stem()
            .and_then(|stem| stem.to_str());
        if let Some(named) = name.and_then(|name| Digest::from_hex(name).ok())
            && named != digest
        {
            return Err(not_an_archive(format!(
                "the content of {} is not what its name says",
                image.config
            )));
        }
        let layers: Option<Vec<(u64, u64)>> =
            image.layers.iter().map(|layer| find(&members, layer)).collect();
        let layers = layers.ok_or_else(|| not_an_archive("a layer is missing".to_owned()))?;
        let manifest =
            synthetic_manifest(&config, digest, &layers).map_err(|source| SourceError::Document {
                path: path.to_owned(),
                source: source.into(),
            })?;
        Ok(ArchiveSource {
            path: path.to_owned(),
            manifest,
            config,
            layers,
        })
    }

    fn top(&self) -> Top {
        Top {
            bytes: self.manifest.clone(),
            media_type: None,
            digest: None,
        }
    }

    fn small(&self, digest: Digest) -> Result<Vec<u8>, SourceError> {
        if Digest::of(&self.config) == digest {
            return Ok(self.config.clone());
        }
        Err(SourceError::NotAnArchive {
            path: self.path.clone(),
            why: format!("it has no {digest}"),
        })
    }

    fn layer(&self, at: usize) -> Result<LayerInput, SourceError> {
        let failed = |source| SourceError::File {
            path: self.path.clone(),
            source,
        };
        let (offset, length) = self.layers.get(at).copied().unwrap_or_default();
        let mut file = open_file(&self.path).map_err(failed)?;
        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        Ok(LayerInput::file(file, length))
    }
}

fn synthetic_manifest(
    config: &[u8],
    digest: Digest,
    layers: &[(u64, u64)],
) -> Result<Vec<u8>, DocumentError> {
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
        .map(|(diff_id, (_, size))| {
            serde_json::json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": diff_id,
                "size": size,
            })
        })
        .collect();
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": super::document::OCI_MANIFEST,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest,
            "size": config.len(),
        },
        "layers": layers,
    });
    Ok(serde_json::to_vec(&manifest)?)
}

fn list_members(path: &Path) -> Result<HashMap<PathBuf, Member>, SourceError> {
    let failed = |source| SourceError::File {
        path: path.to_owned(),
        source,
    };
    let not_an_archive = |why: String| SourceError::NotAnArchive {
        path: path.to_owned(),
        why,
    };
    let mut file = BufReader::with_capacity(128 << 10, open_file(path).map_err(failed)?);
    if Compression::of(file.fill_buf().map_err(failed)?.get(..4).unwrap_or_default()) != Compression::None {
        return Err(not_an_archive("it is compressed; unpack it first".to_owned()));
    }
    let budget = Budget {
        bytes: u64::MAX >> 1,
        ..Budget::default()
    };
    let mut archive = Archive::new(file, &budget);
    let mut members = HashMap::new();
    loop {
        let entry = match archive.next() {
            Ok(Some(entry)) => entry,
            Ok(None) => return Ok(members),
            Err(ArchiveError::Read(source)) => return Err(failed(source)),
            Err(error) => return Err(not_an_archive(error.to_string())),
        };
        let name = PathBuf::from(String::from_utf8_lossy(&entry.name).into_owned());
        let member = match entry.kind {
            Kind::File if entry.segments.is_none() => Member::File {
                offset: archive.offset(),
                length: entry.size,
            },
            // Layers that occur twice are saved once.
            Kind::Symlink => Member::Link(PathBuf::from(String::from_utf8_lossy(&entry.link).into_owned())),
            _ => continue,
        };
        if members.len() >= MAX_ARCHIVE_ENTRIES {
            return Err(not_an_archive(format!(
                "it has more than {MAX_ARCHIVE_ENTRIES} members"
            )));
        }
        members.insert(name, member);
    }
}

fn find(members: &HashMap<PathBuf, Member>, name: &str) -> Option<(u64, u64)> {
    let path = Path::new(name);
    match members.get(path)? {
        Member::File { offset, length } => Some((*offset, *length)),
        Member::Link(target) => {
            let mut resolved = path.parent().unwrap_or(Path::new("")).to_owned();
            for component in target.components() {
                match component {
                    Component::Normal(part) => resolved.push(part),
                    Component::ParentDir => drop(resolved.pop()),
                    Component::CurDir => {}
                    Component::RootDir | Component::Prefix(_) => return None,
                }
            }
            match members.get(&resolved)? {
                Member::File { offset, length } => Some((*offset, *length)),
                Member::Link(_) => None,
            }
        }
    }
}

fn choose_saved(
    path: &Path,
    mut images: Vec<SavedImage>,
    tag: Option<&str>,
) -> Result<SavedImage, SourceError> {
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

fn offered<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.take(10).map(String::as_str).collect();
    match names.is_empty() {
        true => "none with a name".to_owned(),
        false => names.join(", "),
    }
}

/// Only plain files: a pipe or device in a directory given to us must not make us wait.
fn open_file(path: &Path) -> io::Result<File> {
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(nonblocking).open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("it is not a plain file"))
    }
}

fn read_document(path: &Path) -> Result<Vec<u8>, SourceError> {
    let failed = |source| SourceError::File {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let file = open_file(path).map_err(failed)?;
    file.take(MAX_DOCUMENT + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_DOCUMENT {
        return Err(SourceError::TooLarge {
            path: path.to_owned(),
        });
    }
    Ok(bytes)
}

fn read_section(path: &Path, offset: u64, length: u64) -> Result<Vec<u8>, SourceError> {
    if length > MAX_DOCUMENT {
        return Err(SourceError::TooLarge {
            path: path.to_owned(),
        });
    }
    let failed = |source| SourceError::File {
        path: path.to_owned(),
        source,
    };
    let mut file = open_file(path).map_err(failed)?;
    file.seek(SeekFrom::Start(offset)).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}
