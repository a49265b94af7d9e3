//! Where things are in the store's directory.
//!
//! ```text
//! lock                     shared to take a lease, exclusive to collect garbage
//! blobs/HEX                manifests and configurations, checked against their digest whenever read
//! refs/HEX                 what a reference last led to; HEX is the hash of reference and platform
//! images/HEX               an image by its manifest: configuration and layers; its mtime is the time of last use
//! layers/HEX/fs            an unpacked layer by its diff_id, in overlayfs's form
//! layers/HEX/layer.json    what is known about it
//! layers/HEX/sums          a checksum of each of its files
//! layers/HEX/durable       it has reached the disk and can be trusted after a loss of power
//! staging/HEX              a layer being unpacked by the holder of locks/HEX
//! locks/HEX                who unpacks a layer
//! leases/NAME              what a living process uses: locked while it lives
//! fixes/HEX                attributes of directories that upper layers of an image left unsaid
//! trash/                   what is being removed
//! tmp/                     files on their way to their place
//! empty/                   directories for images without layers, and for those of one where two are needed
//! ```

use std::{
    fs::{OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::image::{digest::Digest, store::Places};

const DIRECTORIES: [&str; 11] = [
    "blobs", "refs", "images", "layers", "staging", "locks", "leases", "fixes", "trash", "tmp", "empty",
];

#[derive(Debug, Clone)]
pub(in crate::image) struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Makes what is missing. Nobody but the owner may look in: layers hold set-uid programs of strangers.
    pub(super) fn open(root: &Path) -> io::Result<Layout> {
        let mut private = std::fs::DirBuilder::new();
        private.recursive(true).mode(0o700);
        private.create(root)?;
        std::fs::set_permissions(root, Permissions::from_mode(0o700))?;
        for directory in DIRECTORIES {
            private.create(root.join(directory))?;
        }
        // The root of an image without layers is one of these, so it must look like a root.
        for directory in ["empty/layer", "empty/filler"] {
            let path = root.join(directory);
            private.create(&path)?;
            std::fs::set_permissions(&path, Permissions::from_mode(0o755))?;
            std::fs::File::open(&path)?.set_modified(std::time::UNIX_EPOCH)?;
        }
        Ok(Layout {
            root: root.to_owned(),
        })
    }

    pub(in crate::image) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub(in crate::image) fn directory(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(super) fn blob(&self, digest: Digest) -> PathBuf {
        self.root.join("blobs").join(digest.hex())
    }

    pub(super) fn reference(&self, key: Digest) -> PathBuf {
        self.root.join("refs").join(key.hex())
    }

    pub(super) fn image(&self, manifest: Digest) -> PathBuf {
        self.root.join("images").join(manifest.hex())
    }

    pub(in crate::image) fn layer(&self, diff_id: Digest) -> PathBuf {
        self.root.join("layers").join(diff_id.hex())
    }

    pub(super) fn staging(&self, diff_id: Digest) -> PathBuf {
        self.root.join("staging").join(diff_id.hex())
    }

    pub(super) fn layer_lock(&self, diff_id: Digest) -> PathBuf {
        self.root.join("locks").join(diff_id.hex())
    }

    pub(in crate::image) fn fix(&self, chain: Digest) -> PathBuf {
        self.root.join("fixes").join(chain.hex())
    }

    pub(in crate::image) fn empty(&self) -> PathBuf {
        self.root.join("empty")
    }

    /// A directory that holds nothing but these, to lie below the lowest layer.
    pub(in crate::image) fn ground(&self, places: &Places) -> io::Result<PathBuf> {
        let ground = self.empty().join("ground");
        readable_directory(&ground)?;
        for place in &places.directories {
            readable_directory(&ground.join(place))?;
        }
        for place in &places.files {
            let path = ground.join(place);
            if !path.exists() {
                path.parent().map_or(Ok(()), readable_directory)?;
                // Another executor may be at it too.
                let file = OpenOptions::new().append(true).create(true).open(&path)?;
                file.set_permissions(Permissions::from_mode(0o644))?;
            }
        }
        Ok(ground)
    }
}

/// Whatever our umask is.
fn readable_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    path.parent().map_or(Ok(()), readable_directory)?;
    match std::fs::create_dir(path) {
        Ok(()) => std::fs::set_permissions(path, Permissions::from_mode(0o755)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// The names in a directory that are digests; others are not ours and are left alone.
pub(super) fn digests_in(directory: &Path) -> io::Result<Vec<Digest>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name();
        if let Some(digest) = name.to_str().and_then(|name| Digest::from_hex(name).ok()) {
            found.push(digest);
        }
    }
    Ok(found)
}
