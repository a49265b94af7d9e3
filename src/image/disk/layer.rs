//! Layers in the store: unpacked beside, checked, then put into place by one rename.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::{fd::AsFd, unix::fs::DirBuilderExt},
    path::{Path, PathBuf},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};

use super::{
    files::{create_private, read_whole},
    layout::Layout,
    lock::{Lock, Mode},
};
use crate::image::{
    digest::Digest,
    unpack::{Applied, Digests, UnpackError, UnpackOptions, tree, unpack},
};

const MAX_RECORD: u64 = 16 << 20;

/// What the store knows about a layer besides its files.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::image) struct LayerRecord {
    /// The machine's run during which it was written; after another boot only durable layers are trusted.
    boot: String,
    /// Bytes of its files.
    pub(super) bytes: u64,
    pub(super) entries: u64,
    /// Of files, if it is known.
    #[serde(default)]
    pub(super) files: Option<u64>,
    #[serde(default)]
    pub(in crate::image) opaque_root: bool,
    /// The layer has an entry for its root.
    #[serde(default)]
    pub(in crate::image) root_described: bool,
    /// Directories without an entry of their own, in base64: names are bytes.
    #[serde(default)]
    implied: Vec<String>,
}

impl LayerRecord {
    fn new(applied: &Applied, boot: &str) -> LayerRecord {
        LayerRecord {
            boot: boot.to_owned(),
            bytes: applied.bytes,
            entries: applied.entries,
            files: applied.files,
            opaque_root: applied.opaque_root,
            root_described: applied.root_described,
            implied: applied
                .implied
                .iter()
                .map(|path| BASE64_STANDARD.encode(path))
                .collect(),
        }
    }

    /// Paths of the directories whose attributes the layer does not say, parents first.
    pub(in crate::image) fn implied(&self) -> impl Iterator<Item = Vec<u8>> {
        self.implied
            .iter()
            .filter_map(|path| BASE64_STANDARD.decode(path).ok())
    }

    /// Reads a layer's record if the layer is there and can be trusted.
    pub(in crate::image) fn load(
        layout: &Layout,
        diff_id: Digest,
        boot: &str,
    ) -> io::Result<Option<LayerRecord>> {
        let directory = layout.layer(diff_id);
        let Some(text) = read_whole(&directory.join("layer.json"), MAX_RECORD)? else {
            return Ok(None);
        };
        let record: Option<LayerRecord> = serde_json::from_slice(&text).ok();
        Ok(record.filter(|record| record.boot == boot || directory.join("durable").exists()))
    }

    /// What it takes on disk, roughly: a file's last block and its inode count as well.
    pub(super) fn footprint(&self) -> u64 {
        self.bytes + self.entries * 2048
    }
}

/// A layer's digests are not what the image says.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    #[error("its content has the digest {got}, not {wanted}: it was damaged or replaced on the way")]
    Blob { wanted: Digest, got: Digest },
    #[error("it ended after {got} of {wanted} bytes")]
    Size { wanted: u64, got: u64 },
    #[error("unpacked it has the digest {got}, but the image's configuration says {wanted}")]
    DiffId { wanted: Digest, got: Digest },
    #[error("the image store cannot {step}")]
    Store {
        step: &'static str,
        #[source]
        source: io::Error,
    },
}

impl LayerError {
    fn store(step: &'static str) -> impl Fn(io::Error) -> LayerError {
        move |source| LayerError::Store { step, source }
    }

    pub fn is_disk_full(&self) -> bool {
        match self {
            LayerError::Unpack(error) => error.is_disk_full(),
            LayerError::Store { source, .. } => super::is_disk_full(source),
            _ => false,
        }
    }
}

/// What a layer must turn out to be. A `docker save` archive names no digest of the packed form.
#[derive(Debug, Clone, Copy)]
pub(in crate::image) struct Expected {
    pub blob: Option<Digest>,
    pub size: u64,
    pub diff_id: Digest,
}

/// The right to unpack one layer, for one holder on this node at a time.
#[derive(Debug)]
pub(in crate::image) struct Slot {
    layout: Layout,
    diff_id: Digest,
    /// Held until the layer is in place or its remains are gone.
    _lock: Lock,
}

impl Slot {
    /// Takes the slot if nobody has it.
    pub(in crate::image) fn try_take(layout: &Layout, diff_id: Digest) -> io::Result<Option<Slot>> {
        let Some(lock) = Lock::try_take(&layout.layer_lock(diff_id), Mode::Exclusive)? else {
            return Ok(None);
        };
        Ok(Some(Slot {
            layout: layout.clone(),
            diff_id,
            _lock: lock,
        }))
    }

    fn clear(&self) -> io::Result<()> {
        remove_tree(&self.layout.directory("staging"), &self.diff_id.hex())
    }

    /// Unpacks into the slot and puts the layer into place if it is what it must be. Nothing is left otherwise.
    pub(in crate::image) fn fill(
        self,
        blob: impl io::BufRead,
        expected: &Expected,
        boot: &str,
        options: &UnpackOptions,
    ) -> Result<(), LayerError> {
        let filled = self.unpack_and_commit(blob, expected, boot, options);
        if filled.is_err()
            && let Err(error) = self.clear()
        {
            tracing::warn!(layer = %self.diff_id, %error, "remains of a layer could not be removed");
        }
        filled
    }

    fn unpack_and_commit(
        &self,
        blob: impl io::BufRead,
        expected: &Expected,
        boot: &str,
        options: &UnpackOptions,
    ) -> Result<(), LayerError> {
        let staging = self.layout.staging(self.diff_id);
        let inside = staging.join("fs");
        let prepare = LayerError::store("prepare a layer's directory");
        // A holder that was killed left its work.
        self.clear().map_err(&prepare)?;
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&staging)
            .map_err(&prepare)?;
        // What a layer does not say about its root is what every root looks like.
        fs::DirBuilder::new()
            .mode(0o755)
            .create(&inside)
            .map_err(&prepare)?;
        let scratch = File::open(&staging).map_err(&prepare)?;
        let root = File::open(&inside).map_err(&prepare)?;
        if !options.exact_modes {
            rustix::fs::fchmod(&root, rustix::fs::Mode::from_raw_mode(0o755))
                .map_err(|e| prepare(e.into()))?;
        }
        let sums = create_private(&staging.join("sums")).map_err(&prepare)?;
        let (digests, applied) = unpack(
            blob,
            expected.size,
            root.as_fd(),
            scratch.as_fd(),
            Some(sums),
            options,
        )?;
        check(&digests, expected)?;
        let record = serde_json::to_vec(&LayerRecord::new(&applied, boot)).map_err(io::Error::from);
        record
            .and_then(|record| create_private(&staging.join("layer.json"))?.write_all(&record))
            .map_err(LayerError::store("note what a layer holds"))?;
        self.commit(&staging)
            .map_err(LayerError::store("put a layer into place"))
    }

    fn commit(&self, staging: &Path) -> io::Result<()> {
        let place = self.layout.layer(self.diff_id);
        match fs::rename(staging, &place) {
            // One that is there was not trusted, or we would not be here.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
                ) =>
            {
                discard(&self.layout, &place)?;
                fs::rename(staging, &place)
            }
            other => other,
        }
    }
}

fn check(digests: &Digests, expected: &Expected) -> Result<(), LayerError> {
    if digests.blob_size != expected.size {
        return Err(LayerError::Size {
            wanted: expected.size,
            got: digests.blob_size,
        });
    }
    if let Some(wanted) = expected.blob.filter(|wanted| *wanted != digests.blob) {
        return Err(LayerError::Blob {
            wanted,
            got: digests.blob,
        });
    }
    if digests.diff_id != expected.diff_id {
        return Err(LayerError::DiffId {
            wanted: expected.diff_id,
            got: digests.diff_id,
        });
    }
    Ok(())
}

/// Takes something out of sight at once and removes it.
pub(super) fn discard(layout: &Layout, path: &Path) -> io::Result<()> {
    let gone = to_trash(layout, path)?;
    match gone.file_name().and_then(|name| name.to_str()) {
        Some(name) => remove_tree(&layout.directory("trash"), name),
        None => Ok(()),
    }
}

/// Takes something out of sight; removing it can wait.
pub(super) fn to_trash(layout: &Layout, path: &Path) -> io::Result<PathBuf> {
    loop {
        let gone = super::files::unique(&layout.directory("trash"), "removed");
        if gone.exists() {
            continue;
        }
        fs::rename(path, &gone)?;
        return Ok(gone);
    }
}

/// Removes `name` in `directory`, however deep it is and whatever it holds.
pub(super) fn remove_tree(directory: &Path, name: &str) -> io::Result<()> {
    let directory = File::open(directory)?;
    let name = std::ffi::CString::new(name)?;
    tree::remove_entry(directory.as_fd(), &name, directory.as_fd())?;
    Ok(())
}

/// Makes layers durable: everything written so far reaches the disk, then they are marked.
pub(super) fn make_durable(layout: &Layout, layers: &[Digest]) -> io::Result<()> {
    let unmarked: Vec<PathBuf> = layers
        .iter()
        .map(|diff_id| layout.layer(*diff_id).join("durable"))
        .filter(|mark| !mark.exists())
        .collect();
    if unmarked.is_empty() {
        return Ok(());
    }
    rustix::fs::syncfs(File::open(layout.root())?)?;
    for mark in unmarked {
        match create_private(&mark) {
            Ok(_) => {}
            // Removed or marked meanwhile, which is somebody else's right.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists
                ) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
