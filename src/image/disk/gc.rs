//! Removes what nobody uses and nobody is likely to use: least recently used images first.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    os::unix::fs::MetadataExt,
    time::UNIX_EPOCH,
};

use serde::Serialize;

use super::{
    Disk, ImageRecord, Known, ReferenceRecord, StoreError,
    files::read_whole,
    layer::{LayerRecord, remove_tree, to_trash},
    layout::digests_in,
    lease,
    lock::{Lock, Mode},
};
use crate::image::digest::Digest;

/// How much is to stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// The most recently used images that fit into so many bytes.
    Bytes(u64),
    /// Every image; only what belongs to none goes.
    AllImages,
    /// Nothing that is not in use.
    InUse,
}

/// What a collection did.
#[derive(Debug, Clone, Default, Serialize, PartialEq, Eq)]
pub struct Collected {
    pub images: usize,
    pub layers: usize,
    /// Bytes that were freed, roughly.
    pub freed: u64,
    /// Bytes of the layers that are left.
    pub left: u64,
}

struct Inventory {
    /// Least recently used first.
    images: Vec<(u64, ImageRecord)>,
    references: Vec<(std::path::PathBuf, ReferenceRecord)>,
    /// Bytes of every layer that is there.
    layers: HashMap<Digest, u64>,
    leased: HashSet<Digest>,
}

impl Disk {
    /// Collects garbage. What a lease holds stays, and so does what is being unpacked.
    pub(in crate::image) fn collect(&self, keep: Keep) -> Result<Collected, StoreError> {
        let collected = self
            .collect_under_lock(keep)
            .map_err(self.failed("collect garbage"))?;
        self.empty_trash()
            .map_err(self.failed("remove what was collected"))?;
        Ok(collected)
    }

    /// Forgets one image, if nobody uses it. `None` if it is in use.
    pub(in crate::image) fn forget(&self, manifest: Digest) -> Result<Option<Collected>, StoreError> {
        let forget = || -> io::Result<Option<Collected>> {
            let _guard = Lock::take(&self.layout.lock(), Mode::Exclusive)?;
            let mut inventory = self.inventory()?;
            if inventory.leased.contains(&manifest) {
                return Ok(None);
            }
            let mut collected = Collected::default();
            if let Some(at) = inventory
                .images
                .iter()
                .position(|(_, image)| image.manifest == manifest)
            {
                inventory.images.remove(at);
                collected.images = 1;
            }
            self.sweep(&inventory, &mut collected)?;
            Ok(Some(collected))
        };
        let collected = forget().map_err(self.failed("forget an image"))?;
        self.empty_trash()
            .map_err(self.failed("remove what was collected"))?;
        Ok(collected)
    }

    /// Every image that is known, most recently used first.
    pub(in crate::image) fn known(&self) -> Result<Vec<Known>, StoreError> {
        let list = || -> io::Result<Vec<Known>> {
            let _guard = Lock::take(&self.layout.lock(), Mode::Exclusive)?;
            let inventory = self.inventory()?;
            let known = inventory.images.iter().rev().map(|(last_used, image)| {
                let leads_here = |(_, record): &&(_, ReferenceRecord)| record.manifest == image.manifest;
                let mut references: Vec<String> = inventory
                    .references
                    .iter()
                    .filter(leads_here)
                    .map(|(_, record)| record.reference.clone())
                    .collect();
                references.sort();
                references.dedup();
                Known {
                    references,
                    digest: image.manifest,
                    platform: image.platform.clone(),
                    bytes: image
                        .layers
                        .iter()
                        .collect::<HashSet<_>>()
                        .iter()
                        .filter_map(|layer| inventory.layers.get(layer))
                        .sum(),
                    layers: image.layers.len(),
                    last_used: *last_used / 1_000_000_000,
                    in_use: inventory.leased.contains(&image.manifest),
                }
            });
            Ok(known.collect())
        };
        list().map_err(self.failed("list its images"))
    }

    fn collect_under_lock(&self, keep: Keep) -> io::Result<Collected> {
        let _guard = Lock::take(&self.layout.lock(), Mode::Exclusive)?;
        let mut inventory = self.inventory()?;
        let mut collected = Collected::default();
        let limit = match keep {
            Keep::Bytes(limit) => limit,
            Keep::AllImages => u64::MAX,
            Keep::InUse => 0,
        };
        while inventory.needed_bytes() > limit {
            let in_use = |image: &ImageRecord| inventory.leased.contains(&image.manifest);
            let Some(oldest) = inventory.images.iter().position(|(_, image)| !in_use(image)) else {
                break;
            };
            inventory.images.remove(oldest);
            collected.images += 1;
        }
        // Images without layers take no room, but they go with the rest.
        if keep == Keep::InUse {
            let before = inventory.images.len();
            let leased = &inventory.leased;
            inventory
                .images
                .retain(|(_, image)| leased.contains(&image.manifest));
            collected.images += before - inventory.images.len();
        }
        self.sweep(&inventory, &mut collected)?;
        self.sweep_staging()?;
        Ok(collected)
    }

    fn inventory(&self) -> io::Result<Inventory> {
        let layout = &self.layout;
        let mut images = Vec::new();
        for manifest in digests_in(&layout.directory("images"))? {
            let path = layout.image(manifest);
            let used = fs::metadata(&path)?.modified()?;
            let record =
                read_whole(&path, super::MAX_RECORD)?.and_then(|text| serde_json::from_slice(&text).ok());
            if let Some(record) = record {
                let used = used.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
                images.push((u64::try_from(used).unwrap_or(u64::MAX), record));
            }
        }
        images.sort_by_key(|(used, image): &(u64, ImageRecord)| (*used, image.manifest));
        let mut references = Vec::new();
        for key in digests_in(&layout.directory("refs"))? {
            let path = layout.reference(key);
            let record =
                read_whole(&path, super::MAX_RECORD)?.and_then(|text| serde_json::from_slice(&text).ok());
            if let Some(record) = record {
                references.push((path, record));
            }
        }
        let mut layers = HashMap::new();
        for diff_id in digests_in(&layout.directory("layers"))? {
            let record = LayerRecord::load(layout, diff_id, &self.boot)?;
            layers.insert(diff_id, record.map_or(0, |record| record.footprint()));
        }
        Ok(Inventory {
            images,
            references,
            layers,
            leased: lease::leased(layout)?,
        })
    }

    /// Removes what no image of the inventory and no lease needs.
    fn sweep(&self, inventory: &Inventory, collected: &mut Collected) -> io::Result<()> {
        let layout = &self.layout;
        let images: HashSet<Digest> = inventory.images.iter().map(|(_, image)| image.manifest).collect();
        for manifest in digests_in(&layout.directory("images"))? {
            if !images.contains(&manifest) && !inventory.leased.contains(&manifest) {
                fs::remove_file(layout.image(manifest))?;
            }
        }
        for (path, record) in &inventory.references {
            if !images.contains(&record.manifest) && !inventory.leased.contains(&record.manifest) {
                fs::remove_file(path)?;
            }
        }
        let needed = inventory.needed();
        for document in digests_in(&layout.directory("blobs"))? {
            if !needed.contains(&document) {
                fs::remove_file(layout.blob(document))?;
            }
        }
        for (layer, bytes) in &inventory.layers {
            if needed.contains(layer) {
                collected.left += bytes;
            } else {
                to_trash(layout, &layout.layer(*layer))?;
                collected.layers += 1;
                collected.freed += bytes;
            }
        }
        // Fixes are leased and needed under the name of the manifest they were made for.
        for fix in digests_in(&layout.directory("fixes"))? {
            if !needed.contains(&fix) {
                to_trash(layout, &layout.fix(fix))?;
            }
        }
        Ok(())
    }

    /// What dead processes left of layers they were unpacking, and locks nobody needs.
    fn sweep_staging(&self) -> io::Result<()> {
        let layout = &self.layout;
        for diff_id in digests_in(&layout.directory("locks"))? {
            if let Some(lock) = Lock::try_take(&layout.layer_lock(diff_id), Mode::Exclusive)? {
                let staging = layout.staging(diff_id);
                if staging.exists() {
                    to_trash(layout, &staging)?;
                }
                lock.remove()?;
            }
        }
        // Whoever puts a small file into place holds no lock, but needs far less than an hour for it.
        for entry in fs::read_dir(layout.directory("tmp"))? {
            let entry = entry?;
            let age = entry.metadata().ok().map(|metadata| metadata.ctime());
            let now = std::time::SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            if age.is_some_and(|changed| changed.saturating_add(3600) < now.as_secs().cast_signed()) {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    /// Removes the trash outside the store's lock; several may do it at once.
    fn empty_trash(&self) -> io::Result<()> {
        let Some(_guard) = Lock::try_take(&self.layout.directory("trash").join("lock"), Mode::Exclusive)?
        else {
            return Ok(());
        };
        let trash = self.layout.directory("trash");
        for entry in fs::read_dir(&trash)? {
            let name = entry?.file_name();
            if let Some(name) = name.to_str().filter(|name| name.starts_with("removed-")) {
                remove_tree(&trash, name)?;
            }
        }
        Ok(())
    }
}

impl Inventory {
    fn needed(&self) -> HashSet<Digest> {
        let of_images = self.images.iter().flat_map(|(_, image)| image.digests());
        of_images.chain(self.leased.iter().copied()).collect()
    }

    fn needed_bytes(&self) -> u64 {
        self.needed()
            .iter()
            .filter_map(|digest| self.layers.get(digest))
            .sum()
    }
}
