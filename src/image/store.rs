//! The store as the rest of the program sees it, and an image in it.

use std::{
    collections::HashSet,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use oci_spec::image::ImageConfiguration;

use super::{
    digest::Digest,
    disk::{Collected, Disk, ImageRecord, Keep, Known, LayerRecord, Lease, StoreError, Verified},
    document::Configuration,
    platform::Platform,
    pool::{Lost, Pool},
    pull::{Observer, Problem},
    reference::Reference,
    registry::{Credentials, Registries, RegistryConfig},
    room::Reserve,
    rootfs::{Changes, Rootfs, RootfsError, Stack},
    unpack::{Budget, DevicePolicy, Privilege, UnpackOptions},
};
use crate::sys::held::Held;

/// Where whoever runs an image mounts something, whatever is there. Members find these in their root also when the
/// image lacks them, and nobody has to make them in what takes the member's changes.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// Relative to the root, as all of these are.
    pub directories: Vec<PathBuf>,
    pub files: Vec<PathBuf>,
}

/// How a node keeps images.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// The store's directory, `/var/lib/podling/images` unless an operator says otherwise.
    pub root: PathBuf,
    /// Bytes of layers to keep when they are not in use; `None` keeps everything.
    pub quota: Option<u64>,
    /// What a pull leaves free.
    pub reserve: Reserve,
    pub registries: RegistryConfig,
    pub budget: Budget,
    pub devices: DevicePolicy,
    pub places: Places,
}

impl StoreConfig {
    pub fn new(root: impl Into<PathBuf>) -> StoreConfig {
        StoreConfig {
            root: root.into(),
            quota: None,
            reserve: Reserve(0),
            registries: RegistryConfig::default(),
            budget: Budget::default(),
            devices: DevicePolicy::default(),
            places: Places::default(),
        }
    }
}

/// How to get one image.
#[derive(Debug, Clone)]
pub struct PullOptions {
    /// Ask the source even if the reference is known (P-05: `cached` false, `forcePull`).
    pub force: bool,
    /// Take the place of the operator's credentials (P-06).
    pub credentials: Option<Credentials>,
    pub platform: Platform,
    pub progress: Observer,
}

impl Default for PullOptions {
    fn default() -> PullOptions {
        PullOptions {
            force: false,
            credentials: None,
            platform: Platform::host(),
            progress: Observer::default(),
        }
    }
}

/// The node's image store. Cheap to clone; any number of processes may have it open.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    disk: Disk,
    quota: Option<u64>,
    reserve: Reserve,
    registries: Registries,
    pool: Pool,
    unpack: UnpackOptions,
    ground: Arc<Path>,
}

/// An image that is whole and checked, and stays so while this value lives.
#[derive(Debug)]
pub struct Image {
    record: ImageRecord,
    config: ImageConfiguration,
    stack: Stack,
    ground: Arc<Path>,
    _lease: Lease,
}

impl Store {
    pub fn open(config: StoreConfig) -> Result<Store, StoreError> {
        let disk = Disk::open(&config.root)?;
        let ground = disk.layout.ground(&config.places);
        let ground = ground.map_err(disk.failed("be opened"))?;
        Ok(Store {
            inner: Arc::new(Inner {
                disk,
                ground: ground.into(),
                quota: config.quota,
                reserve: config.reserve,
                registries: Registries::new(config.registries),
                pool: Pool::for_this_machine(),
                unpack: UnpackOptions {
                    budget: config.budget,
                    devices: config.devices,
                    privilege: Privilege::current(),
                    exact_modes: false,
                },
            }),
        })
    }

    pub(super) fn disk(&self) -> &Disk {
        &self.inner.disk
    }

    pub(super) fn reserve(&self) -> Reserve {
        self.inner.reserve
    }

    pub(super) fn registries(&self) -> &Registries {
        &self.inner.registries
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.inner.pool
    }

    pub(super) fn unpack_options(&self) -> UnpackOptions {
        self.inner.unpack.clone()
    }

    /// The image a reference led to last time, if it is still whole. Touches only a few small files.
    pub(super) fn known_image(
        &self,
        reference: &Reference,
        options: &super::PullOptions,
    ) -> Result<Option<Image>, Problem> {
        let disk = self.disk();
        let Some(manifest) = disk.resolve(reference, &options.platform)? else {
            return Ok(None);
        };
        let Some(record) = disk.image(manifest)? else {
            return Ok(None);
        };
        // First the lease, then the look: between them nothing can be collected.
        let lease = disk.lease(&record.digests())?;
        let Some(config) = disk.document(record.config)? else {
            return Ok(None);
        };
        let Ok(configuration) = Configuration::parse(&config, &options.platform) else {
            return Ok(None);
        };
        let layers = disk.layers(&record.layers)?;
        if layers.iter().any(|(_, layer)| layer.is_none()) {
            return Ok(None);
        }
        disk.touch(manifest);
        Ok(Some(self.image(record, &layers, configuration.image, lease)?))
    }

    pub(super) fn image(
        &self,
        record: ImageRecord,
        layers: &[(Digest, Option<LayerRecord>)],
        config: ImageConfiguration,
        lease: Lease,
    ) -> Result<Image, Problem> {
        let stack = Stack::assemble(self.disk(), record.manifest, layers, &self.inner.unpack)?;
        Ok(Image {
            record,
            config,
            stack,
            ground: self.inner.ground.clone(),
            _lease: lease,
        })
    }

    /// What a pull leaves for later: bringing the layers to the disk, and making room.
    pub(super) fn after_pull(&self, image: &Image) {
        let store = self.clone();
        let layers = image.record.layers.clone();
        // Nobody waits for it; the job is queued when the future is made.
        drop(self.pool().run(move |_| {
            if let Err(error) = store.disk().make_durable(&layers) {
                tracing::warn!(%error, "an image would not survive a loss of power");
            }
            if let Some(quota) = store.inner.quota
                && let Err(error) = store.disk().collect(Keep::Bytes(quota))
            {
                tracing::warn!(%error, "the image store may outgrow its quota");
            }
        }));
    }

    /// Waits until everything pulled so far has reached the disk.
    pub async fn settle(&self, image: &Image) -> Result<(), StoreError> {
        let disk = self.disk().clone();
        let layers = image.record.layers.clone();
        self.blocking(move || disk.make_durable(&layers)).await
    }

    /// Every image that is known, most recently used first.
    pub async fn list(&self) -> Result<Vec<Known>, StoreError> {
        let disk = self.disk().clone();
        self.blocking(move || disk.known()).await
    }

    /// Removes what is not in use and not to be kept.
    pub async fn collect(&self, keep: Keep) -> Result<Collected, StoreError> {
        let disk = self.disk().clone();
        self.blocking(move || disk.collect(keep)).await
    }

    /// Forgets the image a reference leads to; `None` if it is in use.
    pub async fn forget(&self, manifest: Digest) -> Result<Option<Collected>, StoreError> {
        let disk = self.disk().clone();
        self.blocking(move || disk.forget(manifest)).await
    }

    /// Checks a known image, file by file.
    pub async fn verify(&self, manifest: Digest) -> Result<Verified, StoreError> {
        let disk = self.disk().clone();
        self.blocking(move || disk.verify(manifest)).await
    }

    /// Runs work on the pool.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let lost = |Lost| {
            let failed = self.disk().failed("find a thread to work on");
            failed(std::io::Error::other(Lost))
        };
        self.pool().run(move |_| work()).await.map_err(lost)?
    }
}

impl Image {
    /// The digest of the manifest, which names the image for good.
    pub fn digest(&self) -> Digest {
        self.record.manifest
    }

    pub fn config(&self) -> &ImageConfiguration {
        &self.config
    }

    /// The same image, whose files belong to the users of that user namespace by the numbers they have in it.
    pub fn owned_by(mut self, users: Option<Arc<OwnedFd>>) -> Self {
        self.stack = self.stack.owned_by(users);
        self
    }

    /// The directories the root is stacked from, the topmost first.
    pub fn layers(&self) -> &[PathBuf] {
        self.stack.layers()
    }

    /// Bytes of the layers as they were transferred.
    pub fn transfer_size(&self) -> u64 {
        self.record.size
    }

    /// All digests the image stands on.
    pub fn digests(&self) -> HashSet<Digest> {
        self.record.digests()
    }

    /// Makes a directory of that name, which must not be there, to take what a member writes to its root. It is the
    /// caller's to remove.
    pub fn changes(&self, parent: &Held, name: &str) -> Result<Changes, RootfsError> {
        self.stack.changes(parent, name)
    }

    /// Mounts the image, detached: the caller attaches it where a root is to be. Without a place for changes it is
    /// read-only.
    pub fn rootfs(&self, changes: Option<&Changes>) -> Result<Rootfs, RootfsError> {
        self.stack.mount(changes, None)
    }

    /// The same for a member's root: with the places of the store's configuration.
    pub fn member_root(&self, changes: &Changes) -> Result<Rootfs, RootfsError> {
        self.stack.mount(Some(changes), Some(&self.ground))
    }
}
