//! The node's images, shared by every executor and command on it through file locks.
//!
//! Nothing in it is seen before it was checked, and everything appears by one rename, so a process may be killed
//! anywhere. What it leaves behind is either whole or in a place that the next one clears.

mod files;
mod gc;
mod layer;
mod layout;
mod lease;
mod lock;
mod verify;

use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};

pub use gc::{Collected, Keep};
pub use layer::LayerError;
pub(super) use layer::{Expected, LayerRecord, Slot};
pub(super) use layout::Layout;
pub use lease::Lease;
pub use verify::Verified;

use self::files::{read_whole, write_whole};
use super::{
    digest::Digest,
    document::{MAX_DOCUMENT, Manifest},
    platform::Platform,
    reference::Reference,
};

const MAX_RECORD: u64 = 1 << 20;

/// The store could not do something for a reason of the node's.
#[derive(Debug, thiserror::Error)]
#[error("the image store {path} cannot {step}")]
pub struct StoreError {
    path: PathBuf,
    step: &'static str,
    #[source]
    source: io::Error,
}

impl StoreError {
    pub fn is_disk_full(&self) -> bool {
        is_disk_full(&self.source)
    }
}

pub(super) fn is_disk_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// An image as the store remembers it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ImageRecord {
    pub manifest: Digest,
    pub config: Digest,
    /// By their diff_ids, lowest first.
    pub layers: Vec<Digest>,
    pub platform: String,
    /// Bytes of the layers as they were transferred.
    pub size: u64,
}

impl ImageRecord {
    pub(super) fn new(
        manifest: Digest,
        document: &Manifest,
        layers: Vec<Digest>,
        platform: &Platform,
    ) -> ImageRecord {
        ImageRecord {
            manifest,
            config: document.config.digest,
            layers,
            platform: platform.to_string(),
            size: document.layers.iter().map(|layer| layer.size).sum(),
        }
    }

    /// Everything the image needs.
    pub(super) fn digests(&self) -> HashSet<Digest> {
        let own = [self.manifest, self.config];
        self.layers.iter().copied().chain(own).collect()
    }
}

/// What a reference led to when it was last pulled.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ReferenceRecord {
    pub reference: String,
    pub platform: String,
    pub manifest: Digest,
    /// What the local file that says so looked like.
    #[serde(default)]
    pub stamp: Option<String>,
}

/// A known image, for lists.
#[derive(Debug, Clone, Serialize)]
pub struct Known {
    /// References that lead to it, sorted.
    pub references: Vec<String>,
    pub digest: Digest,
    pub platform: String,
    /// Bytes on disk, layers shared with other images included.
    pub bytes: u64,
    pub layers: usize,
    /// Seconds since 1970.
    pub last_used: u64,
    /// Some process on this node uses it.
    pub in_use: bool,
}

/// The directory and what is in it. All of this blocks, but only for small files.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    pub(super) layout: Layout,
    /// Names the machine's present run.
    pub(super) boot: String,
}

/// Removes the leases that dead executors have left in a node's store, if there is one.
pub fn drop_dead_leases(root: &Path) -> Result<Vec<PathBuf>, StoreError> {
    if !root.join("leases").is_dir() {
        return Ok(Vec::new());
    }
    let disk = Disk::open(root)?;
    lease::drop_dead(&disk.layout).map_err(disk.failed("let go of what dead executors used"))
}

impl Disk {
    pub(super) fn open(root: &Path) -> Result<Disk, StoreError> {
        let failed = |step| {
            move |source| StoreError {
                path: root.to_owned(),
                step,
                source,
            }
        };
        let layout = Layout::open(root).map_err(failed("be opened"))?;
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map_err(failed("learn the boot id"))?;
        Ok(Disk {
            layout,
            boot: boot.trim().to_owned(),
        })
    }

    pub(super) fn failed(&self, step: &'static str) -> impl Fn(io::Error) -> StoreError + use<> {
        let path = self.layout.root().to_owned();
        move |source| StoreError {
            path: path.clone(),
            step,
            source,
        }
    }

    pub(super) fn lease(&self, digests: &HashSet<Digest>) -> Result<Lease, StoreError> {
        Lease::take(&self.layout, digests).map_err(self.failed("take a lease"))
    }

    /// A document by its digest; one that is damaged is as good as absent.
    pub(super) fn document(&self, digest: Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let bytes = match read_whole(&self.layout.blob(digest), MAX_DOCUMENT) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => None,
            other => other.map_err(self.failed("read a document"))?,
        };
        Ok(bytes.filter(|bytes| Digest::of(bytes) == digest))
    }

    /// Keeps a document whose digest the caller has checked.
    pub(super) fn keep_document(&self, digest: Digest, bytes: &[u8]) -> Result<(), StoreError> {
        self.write(&self.layout.blob(digest), bytes, "keep a document")
    }

    pub(super) fn image(&self, manifest: Digest) -> Result<Option<ImageRecord>, StoreError> {
        self.read_json(&self.layout.image(manifest))
    }

    pub(super) fn keep_image(&self, record: &ImageRecord) -> Result<(), StoreError> {
        self.write_json(&self.layout.image(record.manifest), record)
    }

    /// Notes that an image is wanted now.
    pub(super) fn touch(&self, manifest: Digest) {
        // If the time cannot be set, the image is merely collected earlier.
        if let Ok(file) = std::fs::File::options()
            .write(true)
            .open(self.layout.image(manifest))
        {
            let _ = file.set_modified(SystemTime::now());
        }
    }

    /// Where a reference led last time, unless it is a local one whose file has changed. One whose file is gone leads where
    /// it did.
    pub(super) fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Option<Digest>, StoreError> {
        let record: Option<ReferenceRecord> =
            self.read_json(&self.layout.reference(reference_key(reference, platform)))?;
        let stamp = reference.stamp();
        let holds = |record: &ReferenceRecord| stamp.is_none() || record.stamp == stamp;
        Ok(record.filter(holds).map(|record| record.manifest))
    }

    pub(super) fn keep_reference(
        &self,
        reference: &Reference,
        platform: &Platform,
        manifest: Digest,
        stamp: Option<String>,
    ) -> Result<(), StoreError> {
        let record = ReferenceRecord {
            reference: reference.to_string(),
            platform: platform.to_string(),
            manifest,
            stamp,
        };
        self.write_json(
            &self.layout.reference(reference_key(reference, platform)),
            &record,
        )
    }

    pub(super) fn layer(&self, diff_id: Digest) -> Result<Option<LayerRecord>, StoreError> {
        LayerRecord::load(&self.layout, diff_id, &self.boot).map_err(self.failed("read a layer's record"))
    }

    /// Of each of these layers, what is known.
    pub(super) fn layers(
        &self,
        diff_ids: &[Digest],
    ) -> Result<Vec<(Digest, Option<LayerRecord>)>, StoreError> {
        let known = |diff_id: &Digest| Ok((*diff_id, self.layer(*diff_id)?));
        diff_ids.iter().map(known).collect()
    }

    pub(super) fn try_slot(&self, diff_id: Digest) -> Result<Option<Slot>, StoreError> {
        Slot::try_take(&self.layout, diff_id).map_err(self.failed("prepare for a layer"))
    }

    /// The right to fetch a document, for one holder on this node at a time.
    pub(super) fn try_claim(&self, digest: Digest) -> Result<Option<impl Sized + use<>>, StoreError> {
        lock::Lock::try_take(&self.layout.layer_lock(digest), lock::Mode::Exclusive)
            .map_err(self.failed("claim a document"))
    }

    pub(super) fn make_durable(&self, layers: &[Digest]) -> Result<(), StoreError> {
        layer::make_durable(&self.layout, layers).map_err(self.failed("write its layers to disk"))
    }

    /// Files that a loss of power damaged are as good as absent.
    fn read_json<T: serde::de::DeserializeOwned>(&self, path: &Path) -> Result<Option<T>, StoreError> {
        let text = match read_whole(path, MAX_RECORD) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => None,
            other => other.map_err(self.failed("read a record"))?,
        };
        Ok(text.and_then(|text| serde_json::from_slice(&text).ok()))
    }

    fn write_json(&self, path: &Path, value: &impl Serialize) -> Result<(), StoreError> {
        let text = serde_json::to_vec(value)
            .map_err(io::Error::from)
            .map_err(self.failed("write a record"))?;
        self.write(path, &text, "write a record")
    }

    fn write(&self, path: &Path, bytes: &[u8], step: &'static str) -> Result<(), StoreError> {
        write_whole(path, bytes, &self.layout.directory("tmp")).map_err(self.failed(step))
    }
}

/// A reference leads to different images for different platforms.
fn reference_key(reference: &Reference, platform: &Platform) -> Digest {
    Digest::of(format!("{platform} {reference}").as_bytes())
}
