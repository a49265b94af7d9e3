//! Makes images: layers as tar bytes, and the documents around them.

use std::{collections::BTreeMap, io::Write, path::Path};

use podling::image::Digest;
use serde_json::{Value, json};

pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A tar archive in the making, entry by entry.
#[derive(Default)]
pub struct Layer {
    bytes: Vec<u8>,
}

impl Layer {
    pub fn new() -> Layer {
        Layer::default()
    }

    fn header(name: &str, kind: tar::EntryType, mode: u32) -> tar::Header {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_600_000_000);
        header.set_size(0);
        let field = &mut header.as_old_mut().name;
        field[..name.len()].copy_from_slice(name.as_bytes());
        header
    }

    pub fn entry(mut self, mut header: tar::Header, data: &[u8]) -> Layer {
        header.set_size(data.len() as u64);
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(data);
        self.pad()
    }

    fn pad(mut self) -> Layer {
        let padding = self.bytes.len().wrapping_neg() % 512;
        self.bytes.extend(std::iter::repeat_n(0, padding));
        self
    }

    /// A header as it is, with data after it and the size in it.
    pub fn head(self, head: Head, data: impl AsRef<[u8]>) -> Layer {
        let size = data.as_ref().len() as u64;
        self.head_as_is(head.size(size), data)
    }

    /// A header as it is, whatever its size says.
    pub fn head_as_is(self, head: Head, data: impl AsRef<[u8]>) -> Layer {
        self.raw(&head.block()).raw(data.as_ref()).pad()
    }

    /// GNU's long name or long link for the next entry.
    pub fn long(self, kind: u8, text: impl AsRef<[u8]>) -> Layer {
        let mut text = text.as_ref().to_vec();
        text.push(0);
        self.head(Head::gnu(kind, "././@LongLink"), text)
    }

    /// A PAX header with a body as it is.
    pub fn pax_raw(self, kind: u8, body: &[u8]) -> Layer {
        self.head(Head::new(kind, "PaxHeaders"), body)
    }

    /// Bytes as they are.
    pub fn raw(mut self, bytes: &[u8]) -> Layer {
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub fn dir(self, name: &str, mode: u32) -> Layer {
        self.entry(Layer::header(name, tar::EntryType::Directory, mode), b"")
    }

    pub fn file(self, name: &str, data: impl AsRef<[u8]>) -> Layer {
        self.file_mode(name, data, 0o644)
    }

    pub fn file_mode(self, name: &str, data: impl AsRef<[u8]>, mode: u32) -> Layer {
        self.entry(Layer::header(name, tar::EntryType::Regular, mode), data.as_ref())
    }

    pub fn symlink(self, name: &str, target: &str) -> Layer {
        self.link(name, target, tar::EntryType::Symlink)
    }

    pub fn hard_link(self, name: &str, target: &str) -> Layer {
        self.link(name, target, tar::EntryType::Link)
    }

    fn link(self, name: &str, target: &str, kind: tar::EntryType) -> Layer {
        let mut header = Layer::header(name, kind, 0o777);
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        self.entry(header, b"")
    }

    pub fn owned(self, name: &str, uid: u64, gid: u64, data: &[u8]) -> Layer {
        let mut header = Layer::header(name, tar::EntryType::Regular, 0o600);
        header.set_uid(uid);
        header.set_gid(gid);
        self.entry(header, data)
    }

    pub fn node(self, name: &str, kind: tar::EntryType, major: u32, minor: u32) -> Layer {
        let mut header = Layer::header(name, kind, 0o600);
        header.set_device_major(major).unwrap();
        header.set_device_minor(minor).unwrap();
        self.entry(header, b"")
    }

    /// A PAX header for the next entry.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Layer {
        self.pax_type(tar::EntryType::XHeader, records)
    }

    pub fn pax_type(self, kind: tar::EntryType, records: &[(&str, &[u8])]) -> Layer {
        let mut body = Vec::new();
        for (key, value) in records {
            body.extend(pax_record(key, value));
        }
        self.entry(Layer::header("PaxHeaders", kind, 0o644), &body)
    }

    /// The archive, with its end.
    pub fn tar(self) -> Vec<u8> {
        self.raw(&[0; 1024]).bytes
    }
}

/// One header block, every field of which can be set to nonsense.
#[derive(Clone)]
pub struct Head([u8; 512]);

impl Head {
    pub fn new(kind: u8, name: impl AsRef<[u8]>) -> Head {
        let mut head = Head([0; 512])
            .field(100, b"0000644\0")
            .field(108, b"0000000\0")
            .field(116, b"0000000\0")
            .field(124, b"00000000000\0")
            .field(136, b"13727410000\0")
            .field(257, b"ustar\x0000");
        head.0[156] = kind;
        head.field(0, name.as_ref())
    }

    /// In GNU's own format.
    pub fn gnu(kind: u8, name: impl AsRef<[u8]>) -> Head {
        Head::new(kind, name).field(257, b"ustar  \0")
    }

    pub fn field(mut self, at: usize, bytes: &[u8]) -> Head {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub fn mode(self, mode: u32) -> Head {
        self.field(100, format!("{mode:07o}\0").as_bytes())
    }

    pub fn size(self, size: u64) -> Head {
        self.field(124, format!("{size:011o}\0").as_bytes())
    }

    pub fn link(self, target: impl AsRef<[u8]>) -> Head {
        self.field(157, target.as_ref())
    }

    pub fn prefix(self, prefix: &str) -> Head {
        self.field(345, prefix.as_bytes())
    }

    pub fn device(self, major: u32, minor: u32) -> Head {
        self.field(329, format!("{major:07o}\0").as_bytes())
            .field(337, format!("{minor:07o}\0").as_bytes())
    }

    /// With its checksum.
    pub fn block(mut self) -> [u8; 512] {
        self.0[148..156].fill(b' ');
        let sum: u32 = self.0.iter().map(|byte| u32::from(*byte)).sum();
        self.field(148, format!("{sum:06o}\0 ").as_bytes()).0
    }
}

pub fn pax_record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length.to_string().len() + rest != length {
        length = length.to_string().len() + rest;
    }
    let mut record = format!("{length} {key}=").into_bytes();
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Packing {
    Plain,
    Gzip,
    Zstd,
}

impl Packing {
    pub fn pack(self, tar: &[u8]) -> Vec<u8> {
        match self {
            Packing::Plain => tar.to_vec(),
            Packing::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(tar).unwrap();
                encoder.finish().unwrap()
            }
            Packing::Zstd => zstd::encode_all(tar, 3).unwrap(),
        }
    }

    fn media_type(self, docker: bool) -> &'static str {
        match (self, docker) {
            (Packing::Gzip, true) => "application/vnd.docker.image.rootfs.diff.tar.gzip",
            (_, true) => "application/vnd.docker.image.rootfs.diff.tar",
            (Packing::Plain, false) => "application/vnd.oci.image.layer.v1.tar",
            (Packing::Gzip, false) => "application/vnd.oci.image.layer.v1.tar+gzip",
            (Packing::Zstd, false) => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// An image as its documents and blobs.
#[derive(Clone, Debug)]
pub struct TestImage {
    pub manifest: Vec<u8>,
    pub media_type: &'static str,
    /// Everything by digest, manifests of an index included.
    pub blobs: BTreeMap<String, Vec<u8>>,
}

pub fn digest(bytes: &[u8]) -> String {
    Digest::of(bytes).to_string()
}

fn config_for(diff_ids: &[String], architecture: &str) -> Value {
    json!({
        "architecture": architecture,
        "os": "linux",
        "config": { "Env": ["PATH=/bin"], "Entrypoint": ["/bin/prog"], "Cmd": ["arg"], "WorkingDir": "/work" },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    })
}

impl TestImage {
    /// An image in docker's form with gzip layers.
    pub fn docker(layers: Vec<Vec<u8>>) -> TestImage {
        TestImage::new(layers, Packing::Gzip, true, "amd64")
    }

    pub fn oci(layers: Vec<Vec<u8>>, packing: Packing) -> TestImage {
        TestImage::new(layers, packing, false, "amd64")
    }

    pub fn new(layers: Vec<Vec<u8>>, packing: Packing, docker: bool, architecture: &str) -> TestImage {
        let diff_ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
        let packed = layers.iter().map(|layer| packing.pack(layer)).collect();
        let config = config_for(&diff_ids, architecture);
        TestImage::from_parts(config, packed, packing, docker)
    }

    pub fn from_parts(config: Value, packed: Vec<Vec<u8>>, packing: Packing, docker: bool) -> TestImage {
        let config = serde_json::to_vec(&config).unwrap();
        let media_type = if docker { DOCKER_MANIFEST } else { OCI_MANIFEST };
        let config_type = if docker {
            "application/vnd.docker.container.image.v1+json"
        } else {
            "application/vnd.oci.image.config.v1+json"
        };
        let descriptors: Vec<Value> = packed
            .iter()
            .map(|layer| {
                json!({ "mediaType": packing.media_type(docker), "size": layer.len(), "digest": digest(layer) })
            })
            .collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": { "mediaType": config_type, "size": config.len(), "digest": digest(&config) },
            "layers": descriptors,
        });
        let manifest = serde_json::to_vec(&manifest).unwrap();
        let blobs = packed
            .iter()
            .chain([&config])
            .map(|blob| (digest(blob), blob.clone()))
            .collect();
        TestImage {
            manifest,
            media_type,
            blobs,
        }
    }

    pub fn digest(&self) -> String {
        digest(&self.manifest)
    }

    /// Writes an OCI layout directory with the image under a tag.
    pub fn write_layout(&self, directory: &Path, tag: &str) {
        let blobs = directory.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        let put = |bytes: &[u8]| std::fs::write(blobs.join(&digest(bytes)[7..]), bytes).unwrap();
        put(&self.manifest);
        self.blobs.values().for_each(|blob| put(blob));
        std::fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let index = json!({
            "schemaVersion": 2,
            "manifests": [{
                "mediaType": self.media_type, "size": self.manifest.len(), "digest": self.digest(),
                "annotations": { "org.opencontainers.image.ref.name": tag },
            }],
        });
        std::fs::write(directory.join("index.json"), index.to_string()).unwrap();
    }
}

/// An index over images, one for each platform.
pub fn index(images: &[(&str, &TestImage)], media_type: &str) -> Vec<u8> {
    let manifests: Vec<Value> = images
        .iter()
        .map(|(architecture, image)| {
            json!({
                "mediaType": image.media_type, "size": image.manifest.len(), "digest": image.digest(),
                "platform": { "os": "linux", "architecture": architecture },
            })
        })
        .collect();
    serde_json::to_vec(&json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": manifests }))
        .unwrap()
}
