//! From a reference to an image in the store.

use std::{
    collections::HashSet,
    fmt, future, io,
    path::PathBuf,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use tokio::sync::Notify;

use super::{
    digest::Digest,
    disk::{Expected, ImageRecord, Keep, LayerError, StoreError},
    document::{Blob, Configuration, Document, DocumentError, MAX_INDEX_DEPTH, Manifest, choose},
    pool::Lost,
    reference::Reference,
    registry::RegistryError,
    room::{NoRoom, Reserve},
    source::{ArchiveSource, LayerInput, LayoutSource, Source, SourceError},
    store::{Image, PullOptions, Store},
    unpack::UnpackOptions,
};

/// How long to wait before looking again whether another process has finished a layer.
const FIRST_LOOK: Duration = Duration::from_millis(5);
const LONGEST_LOOK: Duration = Duration::from_millis(100);

/// Why there is no image: displayed as one sentence with all causes, since it ends up in the message of a failed
/// member. It therefore has no source of its own; questions go to [`PullError::problem`].
#[derive(Debug)]
pub struct PullError {
    reference: String,
    problem: Box<Problem>,
}

impl PullError {
    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// The node has no room: nothing is wrong with the image.
    pub fn is_disk_full(&self) -> bool {
        self.problem.is_disk_full()
    }
}

impl std::error::Error for PullError {}

impl fmt::Display for PullError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "image {} cannot be had", self.reference)?;
        let mut cause: Option<&dyn std::error::Error> = Some(&*self.problem);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("the {what} {digest} is unusable")]
    Document {
        what: &'static str,
        digest: Digest,
        source: Box<DocumentError>,
    },
    #[error("the {what} has the digest {got}, not {wanted}: it was damaged or replaced on the way")]
    Digest {
        what: &'static str,
        wanted: Digest,
        got: Digest,
    },
    #[error("the {what} {digest} is {got} bytes long instead of {wanted}")]
    Size {
        what: &'static str,
        digest: Digest,
        wanted: u64,
        got: u64,
    },
    #[error("layer {digest}")]
    Layer { digest: Digest, source: LayerError },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Rootfs(#[from] super::rootfs::RootfsError),
    #[error(transparent)]
    Room(#[from] NoRoom),
    #[error(transparent)]
    Lost(#[from] Lost),
}

impl Problem {
    fn is_disk_full(&self) -> bool {
        match self {
            Problem::Layer { source, .. } => source.is_disk_full(),
            Problem::Store(error) => error.is_disk_full(),
            Problem::Room(_) => true,
            _ => false,
        }
    }
}

impl From<RegistryError> for Problem {
    fn from(error: RegistryError) -> Problem {
        Problem::Source(error.into())
    }
}

/// What a pull reports on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The image has this layer of so many packed bytes.
    Layer { digest: Digest, size: u64 },
    /// The layer is in the store already.
    Present { digest: Digest },
    /// Somebody else is unpacking the layer.
    Waiting { digest: Digest },
    /// So many packed bytes of the layer went through.
    Transferred { digest: Digest, bytes: u64 },
    /// The layer is checked and in the store.
    Done { digest: Digest },
}

/// Who wants to know of progress.
#[derive(Clone)]
pub struct Observer(Arc<dyn Fn(Progress) + Send + Sync>);

impl Observer {
    pub fn new(observe: impl Fn(Progress) + Send + Sync + 'static) -> Observer {
        Observer(Arc::new(observe))
    }

    fn tell(&self, progress: Progress) {
        (self.0)(progress);
    }
}

impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Observer")
    }
}

impl Default for Observer {
    fn default() -> Observer {
        Observer::new(|_| {})
    }
}

impl Store {
    /// Gives the image a reference stands for, from the store if it is there (P-05), else from its source. The image
    /// stays in the store at least as long as the returned value lives.
    pub async fn resolve_and_pull(
        &self,
        reference: &Reference,
        options: &PullOptions,
    ) -> Result<Image, PullError> {
        let pulled = async {
            if !options.force
                && let Some(image) = self.known_image(reference, options)?
            {
                return Ok(image);
            }
            let image = match self.pull(reference, options).await {
                // What nobody uses may be in the way of what somebody needs now.
                Err(problem) if problem.is_disk_full() && self.collect(Keep::InUse).await?.freed > 0 => {
                    self.pull(reference, options).await?
                }
                other => other?,
            };
            self.registries().close_idle();
            self.after_pull(&image);
            Ok(image)
        };
        pulled.await.map_err(|problem| PullError {
            reference: reference.to_string(),
            problem: Box::new(problem),
        })
    }

    async fn pull(&self, reference: &Reference, options: &PullOptions) -> Result<Image, Problem> {
        // Before it is read: what changes meanwhile is read again next time.
        let stamp = reference.stamp();
        let source = self.open_source(reference, options).await?;
        let (manifest_digest, manifest) = self.manifest(&source, options).await?;
        let disk = self.disk();
        let configuration = self.configuration(&source, &manifest, options).await?;
        let record = ImageRecord::new(
            manifest_digest,
            &manifest,
            configuration.diff_ids.clone(),
            &options.platform,
        );
        // Before the first look at what is there: see Lease.
        let lease = disk.lease(&record.digests())?;
        self.layers(&source, &manifest, &configuration, options).await?;
        disk.keep_image(&record)?;
        disk.keep_reference(reference, &options.platform, manifest_digest, stamp)?;
        let layers = disk.layers(&record.layers)?;
        self.image(record, &layers, configuration.image, lease)
    }

    async fn open_source(&self, reference: &Reference, options: &PullOptions) -> Result<Source, Problem> {
        match reference {
            Reference::Registry(reference) => {
                let repository = self
                    .registries()
                    .repository(reference, options.credentials.as_ref())?;
                Ok(Source::Registry(Box::new(repository), reference.clone()))
            }
            Reference::Layout { path, tag } => {
                Ok(Source::Layout(LayoutSource::directory(path, tag.as_deref())))
            }
            Reference::LayoutArchive { path, tag } => {
                let (path, tag) = (path.clone(), tag.clone());
                let open = move |_| LayoutSource::archive(&path, tag.as_deref());
                Ok(Source::Layout(self.pool().run(open).await??))
            }
            Reference::Archive { path, tag } => {
                let (path, tag) = (path.clone(), tag.clone());
                let open = move |_| ArchiveSource::open(&path, tag.as_deref());
                Ok(Source::Archive(self.pool().run(open).await??))
            }
        }
    }

    /// Walks from the reference through any indices to the manifest, checking every digest on the way.
    async fn manifest(&self, source: &Source, options: &PullOptions) -> Result<(Digest, Manifest), Problem> {
        let top = source.top(&options.platform).await?;
        let mut bytes = top.bytes;
        let mut digest = Digest::of(&bytes);
        if let Some(wanted) = top.digest {
            check_digest("manifest", wanted, digest)?;
        }
        let mut media_type = top.media_type;
        for _ in 0..=MAX_INDEX_DEPTH {
            let unusable = |source: DocumentError| Problem::Document {
                what: "manifest",
                digest,
                source: source.into(),
            };
            match Document::parse(&bytes, media_type.as_deref()).map_err(unusable)? {
                Document::Manifest(manifest) => {
                    self.disk().keep_document(digest, &bytes)?;
                    return Ok((digest, manifest));
                }
                Document::Index(index) => {
                    let choice = choose(&index, &options.platform).map_err(unusable)?;
                    bytes = source.manifest(&choice.blob).await?;
                    check_document("manifest", &choice.blob, &bytes)?;
                    digest = choice.blob.digest;
                    media_type = Some(choice.media_type);
                }
            }
        }
        Err(Problem::Document {
            what: "manifest",
            digest,
            source: DocumentError::TooDeep.into(),
        })
    }

    async fn configuration(
        &self,
        source: &Source,
        manifest: &Manifest,
        options: &PullOptions,
    ) -> Result<Configuration, Problem> {
        let blob = manifest.config;
        let unusable = |source: DocumentError| Problem::Document {
            what: "configuration",
            digest: blob.digest,
            source: source.into(),
        };
        if blob.size > super::document::MAX_DOCUMENT {
            return Err(unusable(DocumentError::TooLarge));
        }
        let bytes = self.config_bytes(source, &blob).await?;
        let configuration = Configuration::parse(&bytes, &options.platform).map_err(unusable)?;
        configuration.matches(manifest).map_err(unusable)?;
        Ok(configuration)
    }

    /// The configuration from the store, or from its source by one of those who want it.
    async fn config_bytes(&self, source: &Source, blob: &Blob) -> Result<Vec<u8>, Problem> {
        let mut look = FIRST_LOOK;
        loop {
            // Claimed before the look: whoever had the claim before us has put the document into place.
            let claim = self.disk().try_claim(blob.digest)?;
            if let Some(bytes) = self.disk().document(blob.digest)? {
                return Ok(bytes);
            }
            if claim.is_some() {
                let bytes = source.config(blob).await?;
                check_document("configuration", blob, &bytes)?;
                self.disk().keep_document(blob.digest, &bytes)?;
                return Ok(bytes);
            }
            tokio::time::sleep(look).await;
            look = (look * 2).min(LONGEST_LOOK);
        }
    }

    /// Brings all missing layers, several at once.
    async fn layers(
        &self,
        source: &Source,
        manifest: &Manifest,
        configuration: &Configuration,
        options: &PullOptions,
    ) -> Result<(), Problem> {
        let wanted = manifest.layers.iter().zip(&configuration.diff_ids).enumerate();
        let mut seen = HashSet::new();
        let mut missing = Vec::new();
        for (at, (blob, diff_id)) in wanted {
            // A layer may occur several times in an image.
            if !seen.insert(*diff_id) {
                continue;
            }
            options.progress.tell(Progress::Layer {
                digest: blob.digest,
                size: blob.size,
            });
            missing.push(LayerPull {
                at,
                blob: *blob,
                diff_id: *diff_id,
            });
        }
        let absent = |layer: &&LayerPull| !matches!(self.disk().layer(layer.diff_id), Ok(Some(_)));
        let needed = missing.iter().filter(absent).map(|layer| layer.blob.size);
        match needed.fold(0, u64::saturating_add) {
            0 => {}
            needed => self.reserve().check(self.disk().layout.root(), needed)?,
        }
        let queue = Mutex::new(missing.into_iter());
        // Also when this future is dropped: what workers read then comes to an end.
        let stop = Stop::default();
        let _guard = StopOnDrop(&stop);
        // As many hands as there are threads: each has at most one layer in work, so none waits in vain for a thread.
        let hand = async || -> Result<(), Problem> {
            loop {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                match next {
                    Some(layer) if !stop.is_set() => self.layer(source, layer, options, &stop).await?,
                    _ => return Ok(()),
                }
            }
        };
        let hands = (0..self.pool().limit()).map(|_| hand()).collect();
        try_all(hands, &stop).await
    }

    /// Brings one layer, or waits until whoever is at it has brought it.
    async fn layer(
        &self,
        source: &Source,
        layer: LayerPull,
        options: &PullOptions,
        stop: &Stop,
    ) -> Result<(), Problem> {
        let digest = layer.blob.digest;
        let mut look = FIRST_LOOK;
        let slot = loop {
            if self.disk().layer(layer.diff_id)?.is_some() {
                options.progress.tell(Progress::Present { digest });
                return Ok(());
            }
            if let Some(slot) = self.disk().try_slot(layer.diff_id)? {
                // It may have come between the look and the lock.
                if self.disk().layer(layer.diff_id)?.is_some() {
                    options.progress.tell(Progress::Present { digest });
                    return Ok(());
                }
                break slot;
            }
            options.progress.tell(Progress::Waiting { digest });
            if tokio::time::timeout(look, stop.wait()).await.is_ok() {
                return Ok(());
            }
            look = (look * 2).min(LONGEST_LOOK);
        };
        let expected = Expected {
            blob: source.knows_blob_digests().then_some(digest),
            size: layer.blob.size,
            diff_id: layer.diff_id,
        };
        let (input, download) = source.layer(layer.at, &layer.blob)?;
        let input = Counted {
            inner: input,
            stop: stop.clone(),
            store: self.disk().layout.root().into(),
            reserve: self.reserve(),
            passed: 0,
            told: 0,
            digest,
            observer: options.progress.clone(),
        };
        let boot = self.disk().boot.clone();
        let unpack = self.unpack_options();
        let filled = self.pool().run(move |worker| {
            let options = UnpackOptions {
                exact_modes: worker.own_umask,
                ..unpack
            };
            slot.fill(input, &expected, &boot, &options)
        });
        let (downloaded, filled) = match download {
            Some(download) => {
                // Whatever ends it, the worker is waited for: it clears its place when it fails.
                let download = async {
                    tokio::select! {
                        downloaded = download.run() => downloaded,
                        () = stop.wait() => Ok(()),
                    }
                };
                tokio::join!(download, filled)
            }
            None => (Ok(()), filled.await),
        };
        if let Err(source) = filled? {
            // If the transfer failed, its reason is the one to tell: the worker only saw an early end.
            downloaded?;
            return Err(Problem::Layer { digest, source });
        }
        options.progress.tell(Progress::Done { digest });
        Ok(())
    }
}

#[derive(Debug, Clone, Copy)]
struct LayerPull {
    /// Its place in the image.
    at: usize,
    blob: Blob,
    diff_id: Digest,
}

fn check_digest(what: &'static str, wanted: Digest, got: Digest) -> Result<(), Problem> {
    match wanted == got {
        true => Ok(()),
        false => Err(Problem::Digest { what, wanted, got }),
    }
}

fn check_document(what: &'static str, blob: &Blob, bytes: &[u8]) -> Result<(), Problem> {
    let got = bytes.len() as u64;
    if got != blob.size {
        return Err(Problem::Size {
            what,
            digest: blob.digest,
            wanted: blob.size,
            got,
        });
    }
    check_digest(what, blob.digest, Digest::of(bytes))
}

/// Tells everyone at work on an image that it is in vain.
#[derive(Debug, Clone, Default)]
struct Stop(Arc<(AtomicBool, Notify)>);

impl Stop {
    fn set(&self) {
        self.0.0.store(true, Ordering::Relaxed);
        self.0.1.notify_waiters();
    }

    fn is_set(&self) -> bool {
        self.0.0.load(Ordering::Relaxed)
    }

    async fn wait(&self) {
        // Registered before the look, so that nothing falls between the two.
        let mut notified = pin!(self.0.1.notified());
        notified.as_mut().enable();
        if !self.is_set() {
            notified.await;
        }
    }
}

struct StopOnDrop<'a>(&'a Stop);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.set();
    }
}

/// Awaits all. The first failure stops the others, which are awaited nevertheless: nothing of theirs is to be left.
async fn try_all<E>(futures: Vec<impl Future<Output = Result<(), E>>>, stop: &Stop) -> Result<(), E> {
    let mut running: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut failure = None;
    future::poll_fn(|context| {
        running.retain_mut(|future| match future.as_mut().poll(context) {
            Poll::Pending => true,
            Poll::Ready(Ok(())) => false,
            Poll::Ready(Err(error)) => {
                failure.get_or_insert(error);
                stop.set();
                // Those polled before this one do not know of it yet.
                context.waker().wake_by_ref();
                false
            }
        });
        match running.is_empty() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
    failure.map_or(Ok(()), Err)
}

/// Tells the observer how far a layer has come, in steps worth drawing.
struct Counted {
    inner: LayerInput,
    stop: Stop,
    /// Where it goes to.
    store: PathBuf,
    reserve: Reserve,
    passed: u64,
    told: u64,
    digest: Digest,
    observer: Observer,
}

const TELL_EVERY: u64 = 256 << 10;

impl io::BufRead for Counted {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.stop.is_set() {
            return Err(io::Error::other("the pull was given up"));
        }
        // Others take room, too, and what is unpacked is larger than what is transferred.
        if self.passed == self.told && self.passed > 0 {
            let room = self.reserve.check(&self.store, 0);
            room.map_err(|error| io::Error::new(io::ErrorKind::StorageFull, error))?;
        }
        self.inner.fill_buf()
    }

    fn consume(&mut self, used: usize) {
        self.inner.consume(used);
        self.passed += used as u64;
        if self.passed - self.told >= TELL_EVERY {
            self.told = self.passed;
            self.observer.tell(Progress::Transferred {
                digest: self.digest,
                bytes: self.passed,
            });
        }
    }
}

impl io::Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(into)?;
        self.passed += read as u64;
        Ok(read)
    }
}
