//! The happy path, and what every way to an image has in common.

use std::{
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use podling::{
    image::{Image, Observer, Progress, PullError, PullOptions, Reference, Rootfs, Store, StoreConfig},
    sys::held::Held,
};

use super::{
    build::{Layer, Packing, TestImage},
    registry::DockerRegistry,
    tree::tree,
};

/// A store in a directory of its own.
pub struct TestStore {
    pub store: Store,
    pub directory: tempfile::TempDir,
}

impl TestStore {
    pub fn new() -> TestStore {
        TestStore::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut StoreConfig)) -> TestStore {
        let directory = tempfile::tempdir().unwrap();
        let mut config = StoreConfig::new(directory.path().join("store"));
        config.registries.retry.first_delay = Duration::from_millis(2);
        change(&mut config);
        TestStore {
            store: Store::open(config).unwrap(),
            directory,
        }
    }

    pub fn pull(&self, reference: &str) -> Result<Image, PullError> {
        self.pull_with(reference, &PullOptions::default())
    }

    pub fn pull_with(&self, reference: &str, options: &PullOptions) -> Result<Image, PullError> {
        block_on(self.store.resolve_and_pull(&reference.parse().unwrap(), options))
    }
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// The image's root with a place for changes.
pub fn writable(image: &Image, directory: &Path) -> Rootfs {
    let parent = Held::open(directory.parent().unwrap()).unwrap();
    let name = directory.file_name().unwrap().to_str().unwrap();
    let changes = image.changes(&parent, name).unwrap();
    image.rootfs(Some(&changes)).unwrap()
}

/// A detached mount can be looked into through its descriptor.
pub fn inside(rootfs: &Rootfs) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/.", rootfs.mount().as_raw_fd()))
}

fn two_layers() -> TestImage {
    TestImage::docker(vec![
        Layer::new()
            .dir("etc/", 0o755)
            .file("etc/one", "1")
            .file("etc/two", "2")
            .dir("var/", 0o755)
            .dir("var/cache/", 0o750)
            .file("var/cache/old", "old")
            .file_mode("bin/prog", "#!", 0o4755)
            .tar(),
        Layer::new()
            .dir("etc/", 0o700)
            .file("etc/.wh.one", "")
            .file("etc/two", "two")
            .owned("etc/three", 1000, 2000, b"3")
            .symlink("etc/link", "two")
            .hard_link("etc/again", "etc/three")
            .dir("var/cache/", 0o711)
            .file("var/cache/.wh..wh..opq", "")
            .file("var/cache/new", "new")
            .tar(),
    ])
}

#[test]
fn a_tag_becomes_a_root_file_system() {
    let registry = DockerRegistry::start();
    let image = two_layers();
    registry.push("some/image", "v1", &image);
    let store = TestStore::new();
    let reference = format!("{}/some/image:v1", registry.address);
    let pulled = store.pull(&reference).unwrap();
    assert_eq!(pulled.digest().to_string(), image.digest());
    let config = pulled.config().config().as_ref().unwrap();
    assert_eq!(
        config.entrypoint().as_deref(),
        Some(&["/bin/prog".to_owned()][..])
    );

    let rootfs = pulled.rootfs(None).unwrap();
    let lines = tree(&inside(&rootfs));
    let paths: Vec<_> = lines.keys().map(|path| path.to_str().unwrap()).collect();
    let want = [
        "",
        "bin",
        "bin/prog",
        "etc",
        "etc/again",
        "etc/link",
        "etc/three",
        "etc/two",
        "var",
        "var/cache",
        "var/cache/new",
    ];
    assert_eq!(paths, want);
    let line = |path: &str| lines[Path::new(path)].as_str();
    assert!(line("etc").contains("mode=700") && line("etc").contains("time=1600000000.0"));
    assert!(line("bin/prog").contains("mode=4755"));
    assert!(line("etc/three").contains("mode=600 owner=1000:2000"));
    assert!(line("etc/three").contains("same as"));
    assert!(line("etc/link").starts_with("link to \"two\""));
    assert!(line("var/cache").contains("mode=711"));
    assert!(
        std::fs::write(inside(&rootfs).join("etc/new"), "x").is_err(),
        "a read-only root was written to"
    );
}

#[test]
fn writes_go_to_the_members_directory_and_nowhere_else() {
    let registry = DockerRegistry::start();
    registry.push("a", "1", &two_layers());
    let store = TestStore::new();
    let pulled = store.pull(&format!("{}/a:1", registry.address)).unwrap();
    let before: Vec<_> = pulled.layers().iter().map(|layer| tree(layer)).collect();
    let upper = store.directory.path().join("sandbox");
    let rootfs = writable(&pulled, &upper);
    std::fs::write(inside(&rootfs).join("etc/two"), "changed").unwrap();
    std::fs::remove_file(inside(&rootfs).join("etc/three")).unwrap();
    assert_eq!(
        std::fs::read_to_string(upper.join("upper/etc/two")).unwrap(),
        "changed"
    );
    // A second member sees the image as it is.
    let other = writable(&pulled, &store.directory.path().join("other"));
    assert_eq!(
        std::fs::read_to_string(inside(&other).join("etc/two")).unwrap(),
        "two"
    );
    drop((rootfs, other));
    assert_eq!(
        before,
        pulled
            .layers()
            .iter()
            .map(|layer| tree(layer))
            .collect::<Vec<_>>()
    );
}

#[test]
fn p_05_a_known_image_needs_no_registry_and_force_asks_it() {
    let registry = DockerRegistry::start();
    let (old, new) = (
        two_layers(),
        TestImage::docker(vec![Layer::new().file("new", "").tar()]),
    );
    registry.push("a", "latest", &old);
    let store = TestStore::new();
    let reference = format!("{}/a", registry.address);
    store.pull(&reference).unwrap();
    registry.push("a", "latest", &new);
    assert_eq!(store.pull(&reference).unwrap().digest().to_string(), old.digest());
    let force = PullOptions {
        force: true,
        ..PullOptions::default()
    };
    assert_eq!(
        store.pull_with(&reference, &force).unwrap().digest().to_string(),
        new.digest()
    );
    drop(registry);
    assert_eq!(store.pull(&reference).unwrap().digest().to_string(), new.digest());
    assert!(store.pull_with(&reference, &force).is_err());
    // The first image is still there under its digest only if somebody pulled it so.
    let by_digest = format!("{reference}@{}", old.digest());
    assert!(by_digest.parse::<Reference>().is_ok());
}

#[test]
fn by_digest_and_in_every_packing() {
    let registry = DockerRegistry::start();
    let store = TestStore::new();
    for packing in [Packing::Plain, Packing::Gzip, Packing::Zstd] {
        let text = format!("{packing:?}");
        let image = TestImage::oci(vec![Layer::new().file("packing", &text).tar()], packing);
        registry.push("packed", "x", &image);
        let pulled = store
            .pull(&format!("{}/packed@{}", registry.address, image.digest()))
            .unwrap();
        let rootfs = pulled.rootfs(None).unwrap();
        assert_eq!(
            std::fs::read_to_string(inside(&rootfs).join("packing")).unwrap(),
            text
        );
    }
}

#[test]
fn p_09_an_image_of_130_layers() {
    let registry = DockerRegistry::start();
    let layers = (0..130)
        .map(|n| {
            Layer::new()
                .file(&format!("layer-{n}"), n.to_string())
                .file("last", n.to_string())
                .tar()
        })
        .collect();
    registry.push("deep", "x", &TestImage::docker(layers));
    let store = TestStore::new();
    let pulled = store.pull(&format!("{}/deep:x", registry.address)).unwrap();
    let rootfs = writable(&pulled, &store.directory.path().join("upper"));
    let lines = tree(&inside(&rootfs));
    assert_eq!(lines.len(), 132);
    assert_eq!(
        std::fs::read_to_string(inside(&rootfs).join("last")).unwrap(),
        "129"
    );
}

#[test]
fn p_15_an_image_without_layers() {
    let registry = DockerRegistry::start();
    registry.push("scratch", "x", &TestImage::docker(vec![]));
    let store = TestStore::new();
    let pulled = store.pull(&format!("{}/scratch:x", registry.address)).unwrap();
    let rootfs = writable(&pulled, &store.directory.path().join("upper"));
    assert_eq!(tree(&inside(&rootfs)).len(), 1);
    std::fs::write(inside(&rootfs).join("file"), "x").unwrap();
}

#[test]
fn progress_names_every_layer_to_its_end() {
    let registry = DockerRegistry::start();
    let image = two_layers();
    registry.push("a", "1", &image);
    let store = TestStore::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    let options = PullOptions {
        progress: Observer::new(move |progress| sink.lock().unwrap().push(progress)),
        ..PullOptions::default()
    };
    store
        .pull_with(&format!("{}/a:1", registry.address), &options)
        .unwrap();
    let seen = seen.lock().unwrap();
    let count = |what: fn(&Progress) -> bool| seen.iter().filter(|progress| what(progress)).count();
    assert_eq!(count(|p| matches!(p, Progress::Layer { .. })), 2);
    assert_eq!(count(|p| matches!(p, Progress::Done { .. })), 2);
}
