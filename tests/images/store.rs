//! One store, many users, and everything that can go wrong on a node (I1, I6, I7, I8).

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
};

use podling::image::{Keep, PullOptions, Reserve, Store, StoreConfig};

use super::{
    build::{Layer, Packing, TestImage, digest},
    fake::{Content, End, FakeRegistry, PARTS, Reply},
    pull::{TestStore, block_on, inside},
};

fn content() -> Content {
    let layers = (0..3)
        .map(|n: u32| {
            let data: Vec<u8> = (0..40_000u32).flat_map(|word| (word ^ n).to_le_bytes()).collect();
            Layer::new()
                .dir("d/", 0o755)
                .file(&format!("d/file-{n}"), &data)
                .tar()
        })
        .collect();
    Content::of(TestImage::oci(layers, Packing::Plain))
}

fn left_in(store: &Path, directory: &str) -> usize {
    fs::read_dir(store.join(directory)).unwrap().count()
}

#[test]
fn i6_a_hundred_pulls_at_once_transfer_each_blob_once() {
    let content = content();
    let served = content.clone();
    let registry = FakeRegistry::start(move |request, _| Reply::good(&served, request));
    let directory = tempfile::tempdir().unwrap();
    let reference = format!("{}/a:tag", registry.address);
    // Twenty executors with five pods each: every store is opened by itself, as another process would.
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                let store = Store::open(StoreConfig::new(directory.path())).unwrap();
                let reference = reference.parse().unwrap();
                let options = PullOptions {
                    force: true,
                    ..PullOptions::default()
                };
                block_on(async {
                    let pull = || store.resolve_and_pull(&reference, &options);
                    let images = tokio::join!(pull(), pull(), pull(), pull(), pull());
                    for image in [images.0, images.1, images.2, images.3, images.4] {
                        let rootfs = image.unwrap().rootfs(None).unwrap();
                        assert_eq!(fs::read_dir(inside(&rootfs).join("d")).unwrap().count(), 3);
                    }
                });
            });
        }
    });
    let mut transfers = HashMap::new();
    for request in registry.requests() {
        if let Some((_, blob)) = request.target.split_once("/blobs/") {
            *transfers.entry(blob.to_owned()).or_insert(0) += 1;
        }
    }
    let want: HashMap<String, i32> = content.image.blobs.keys().map(|blob| (blob.clone(), 1)).collect();
    assert_eq!(transfers, want);
}

/// `podling image pull` as a process of its own.
fn pull_in_a_process(store: &Path, reference: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_podling"))
        .args(["image", "pull", "--store"])
        .arg(store)
        .arg(reference)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The registry stops in the middle of an answer, the puller is killed there, and the next one finds no trace.
#[test]
fn i6_a_pull_killed_at_each_step_leaves_a_store_that_heals() {
    for part in PARTS {
        for quarters in 0..4 {
            let content = content();
            let (reached, wait) = mpsc::channel();
            let reached = std::sync::Mutex::new(reached);
            let stalled = Arc::new(AtomicUsize::new(0));
            let count = stalled.clone();
            let registry = FakeRegistry::start(move |request, _| {
                let good = Reply::good(&content, request);
                if request.part(&content) == Some(part) && count.fetch_add(1, Ordering::SeqCst) == 0 {
                    let length = good.bytes.len() * quarters / 4;
                    reached.lock().unwrap().send(()).unwrap();
                    return Reply {
                        bytes: good.bytes[..length].to_vec(),
                        end: End::Stall,
                    };
                }
                good
            });
            let directory = tempfile::tempdir().unwrap();
            let store = directory.path().join("store");
            let reference = format!("{}/a:tag", registry.address);
            let mut child = pull_in_a_process(&store, &reference);
            wait.recv().unwrap();
            child.kill().unwrap();
            child.wait().unwrap();
            let survivor = Store::open(StoreConfig::new(&store)).unwrap();
            assert_eq!(block_on(survivor.list()).unwrap().len(), 0, "{part:?} {quarters}");
            let reference = reference.parse().unwrap();
            let image = block_on(survivor.resolve_and_pull(&reference, &PullOptions::default())).unwrap();
            assert_eq!(left_in(&store, "staging"), 0, "{part:?} {quarters}");
            let report = block_on(survivor.verify(image.digest())).unwrap();
            assert!(report.is_whole(), "{part:?} {quarters}: {:?}", report.problems);
            drop(image);
            block_on(survivor.collect(Keep::InUse)).unwrap();
            for empty in ["layers", "images", "refs", "blobs", "leases", "locks", "staging"] {
                assert_eq!(left_in(&store, empty), 0, "{part:?} {quarters}: {empty}");
            }
        }
    }
}

#[test]
fn i6_what_a_dead_process_left_is_collected_and_nothing_else() {
    let store = TestStore::new();
    let root = store.directory.path().join("store");
    let gone = "0".repeat(64);
    fs::create_dir_all(root.join("staging").join(&gone).join("fs/deep/er")).unwrap();
    fs::write(root.join("locks").join(&gone), "").unwrap();
    fs::write(root.join("leases/lease-1-1"), format!("[\"sha256:{gone}\"]")).unwrap();
    fs::create_dir_all(root.join("layers/not-ours")).unwrap();
    fs::create_dir_all(root.join("layers").join(&gone).join("fs")).unwrap();
    block_on(store.store.collect(Keep::AllImages)).unwrap();
    assert!(!root.join("staging").join(&gone).exists());
    assert!(!root.join("leases/lease-1-1").exists());
    assert!(!root.join("layers").join(&gone).exists());
    assert!(root.join("layers/not-ours").exists());
}

#[test]
fn r4_layers_that_had_not_reached_the_disk_before_another_boot_are_not_trusted() {
    let store = TestStore::new();
    let layout = store.directory.path().join("layout");
    TestImage::oci(vec![Layer::new().file("f", "right").tar()], Packing::Gzip).write_layout(&layout, "x");
    let reference = format!("oci:{}", layout.display());
    let image = store.pull(&reference).unwrap();
    block_on(store.store.settle(&image)).unwrap();
    let layer = image.layers()[0].parent().unwrap().to_owned();
    drop(image);
    // As if the machine had been started again.
    let record = fs::read_to_string(layer.join("layer.json")).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    fs::write(layer.join("layer.json"), record.replace(boot.trim(), "another")).unwrap();
    fs::write(layer.join("fs/f"), "wrong").unwrap();
    let read = || {
        let image = store.pull(&reference).unwrap();
        let rootfs = image.rootfs(None).unwrap();
        fs::read_to_string(inside(&rootfs).join("f")).unwrap()
    };
    assert_eq!(read(), "wrong", "a durable layer is used as it is");
    fs::remove_file(layer.join("durable")).unwrap();
    assert_eq!(read(), "right", "one that might be torn is brought again");
}

type Damage = fn(&mut Vec<u8>);

/// Damage of every kind in every blob is found, and nothing of it stays (I1).
#[test]
fn i1_damage_of_every_blob_is_refused() {
    let damage: [(&str, Damage); 8] = [
        ("first bit", |blob| blob[0] ^= 1),
        ("middle bit", |blob| {
            let middle = blob.len() / 2;
            blob[middle] ^= 1;
        }),
        ("last bit", |blob| *blob.last_mut().unwrap() ^= 1),
        ("cut", |blob| blob.truncate(blob.len() - 1)),
        ("appended", |blob| blob.push(b'\n')),
        ("empty", |blob| blob.clear()),
        ("doubled", |blob| blob.extend_from_within(..)),
        ("zeros", |blob| blob.fill(0)),
    ];
    for packing in [Packing::Plain, Packing::Gzip, Packing::Zstd] {
        let layers = vec![
            Layer::new().file("one", "1").tar(),
            Layer::new().file("two", "2").tar(),
        ];
        let content = Content::of(TestImage::oci(layers, packing));
        let top = digest(&content.index);
        let mut keys: Vec<String> = content.image.blobs.keys().cloned().collect();
        keys.extend([top.clone(), content.image.digest()]);
        for damaged in keys {
            for (name, change) in damage {
                let (served, key, index) = (content.clone(), damaged.clone(), top.clone());
                let registry = FakeRegistry::start(move |request, _| {
                    let (media_type, mut body) = match request.target.ends_with(&index) {
                        true => (served.index_type, served.index.clone()),
                        false => served.answer(request).unwrap(),
                    };
                    if request.target.ends_with(&key) {
                        change(&mut body);
                    }
                    Reply::ok(media_type, &body)
                });
                let store = TestStore::with(|config| config.registries.retry.attempts = 1);
                let refused = store.pull(&format!("{}/a@{top}", registry.address));
                assert!(refused.is_err(), "{packing:?} {damaged} {name}");
                let root = store.directory.path().join("store");
                assert_eq!(
                    left_in(&root, "images") + left_in(&root, "refs") + left_in(&root, "staging"),
                    0
                );
                block_on(store.store.collect(Keep::AllImages)).unwrap();
                assert_eq!(
                    left_in(&root, "layers") + left_in(&root, "blobs"),
                    0,
                    "{packing:?} {damaged} {name}"
                );
            }
        }
    }
}

#[test]
fn verify_finds_a_flipped_bit_a_missing_and_a_foreign_file() {
    let store = TestStore::new();
    let layout = store.directory.path().join("layout");
    let layer = Layer::new()
        .dir("d/", 0o755)
        .file("d/a", "content")
        .file("d/b", "")
        .hard_link("d/c", "d/a")
        .tar();
    TestImage::oci(vec![layer], Packing::Gzip).write_layout(&layout, "x");
    let image = store.pull(&format!("oci:{}", layout.display())).unwrap();
    let root = image.layers()[0].clone();
    let problems = || block_on(store.store.verify(image.digest())).unwrap().problems;
    assert_eq!(problems(), Vec::<String>::new());
    let mtime = fs::metadata(root.join("d/a")).unwrap().modified().unwrap();
    fs::write(root.join("d/a"), "Content").unwrap();
    let file = fs::File::options().write(true).open(root.join("d/a")).unwrap();
    file.set_modified(mtime).unwrap();
    assert!(
        problems()[0].contains("not as it was unpacked"),
        "{:?}",
        problems()
    );
    fs::write(root.join("d/a"), "content").unwrap();
    file.set_modified(mtime).unwrap();
    assert_eq!(problems(), Vec::<String>::new());
    fs::write(root.join("d/new"), "").unwrap();
    assert!(problems()[0].contains("was not in the layer"));
    fs::remove_file(root.join("d/new")).unwrap();
    fs::remove_file(root.join("d/b")).unwrap();
    assert!(problems()[0].contains("1 file is missing"), "{:?}", problems());
}

fn images(directory: &Path, count: usize) -> Vec<String> {
    (0..count)
        .map(|n| {
            let layout = directory.join(format!("layout-{n}"));
            // Every image has a layer of its own and one it shares with its neighbour.
            let own = Layer::new().file("own", vec![n as u8; 100_000]).tar();
            let shared = Layer::new().file("shared", vec![(n / 2) as u8; 100_000]).tar();
            TestImage::oci(vec![shared, own], Packing::Gzip).write_layout(&layout, "x");
            format!("oci:{}", layout.display())
        })
        .collect()
}

#[test]
fn i7_the_least_recently_used_goes_first_and_what_is_in_use_never() {
    let store = TestStore::new();
    let references = images(store.directory.path(), 6);
    let pull = |n: usize| store.pull(&references[n]).unwrap();
    let digests: Vec<_> = (0..6).map(|n| pull(n).digest()).collect();
    let held = pull(1);
    drop(pull(0));
    let known = || -> Vec<usize> {
        let known = block_on(store.store.list()).unwrap();
        let mut known: Vec<usize> = known
            .iter()
            .map(|image| digests.iter().position(|digest| *digest == image.digest).unwrap())
            .collect();
        known.sort_unstable();
        known
    };
    assert_eq!(known(), [0, 1, 2, 3, 4, 5]);
    // Room for five layers: images 2 to 4 go, the shared layer of 4 and 5 stays with 5.
    let collected = block_on(store.store.collect(Keep::Bytes(520_000))).unwrap();
    assert_eq!((known(), collected.images), (vec![0, 1, 5], 3));
    let collected = block_on(store.store.collect(Keep::InUse)).unwrap();
    assert_eq!((known(), collected.images), (vec![1], 2));
    assert!(block_on(store.store.forget(held.digest())).unwrap().is_none());
    assert!(block_on(store.store.verify(held.digest())).unwrap().is_whole());
    drop(held);
    let collected = block_on(store.store.collect(Keep::InUse)).unwrap();
    assert_eq!((collected.images, collected.layers, collected.left), (1, 2, 0));
}

#[test]
fn i7_a_pull_keeps_the_store_within_its_quota() {
    let store = TestStore::with(|config| config.quota = Some(350_000));
    for reference in images(store.directory.path(), 5) {
        drop(store.pull(&reference).unwrap());
    }
    // The collection after a pull runs by itself; asking for one waits for its turn.
    let collected = block_on(store.store.collect(Keep::Bytes(350_000))).unwrap();
    assert!(collected.left <= 350_000, "{}", collected.left);
    assert!(!block_on(store.store.list()).unwrap().is_empty());
}

/// Pulls, starts, stops and collections in any order: whoever holds an image can use it.
#[test]
fn i7_random_histories_never_take_what_is_held() {
    let store = TestStore::new();
    let references = images(store.directory.path(), 6);
    let mut held = Vec::new();
    let mut random = 0x2545_f491_4f6c_dd1du64;
    for step in 0..400 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let pick = (random >> 32) as usize;
        match random % 8 {
            0..=2 => held.push(store.pull(&references[pick % 6]).unwrap()),
            3..=4 if !held.is_empty() => drop(held.swap_remove(pick % held.len())),
            5 => drop(block_on(store.store.collect(Keep::Bytes(pick as u64 % 600_000))).unwrap()),
            6 => drop(block_on(store.store.collect(Keep::InUse)).unwrap()),
            _ if !held.is_empty() => {
                let digest = held[pick % held.len()].digest();
                assert!(block_on(store.store.forget(digest)).unwrap().is_none());
            }
            _ => {}
        }
        for image in &held {
            let rootfs = image.rootfs(None).unwrap();
            let both = ["own", "shared"].map(|name| fs::metadata(inside(&rootfs).join(name)).unwrap().len());
            assert_eq!(both, [100_000; 2], "step {step}");
        }
    }
    held.clear();
    let collected = block_on(store.store.collect(Keep::InUse)).unwrap();
    assert_eq!(collected.left, 0);
}

/// Collecting while others pull and use, in several processes' worth of stores.
#[test]
fn i7_collecting_races_with_pulls() {
    let directory = tempfile::tempdir().unwrap();
    let references = images(directory.path(), 4);
    let root = directory.path().join("store");
    std::thread::scope(|scope| {
        for worker in 0..3 {
            let (references, root) = (&references, &root);
            scope.spawn(move || {
                let store = Store::open(StoreConfig::new(root)).unwrap();
                for turn in 0..20 {
                    let reference = references[(worker + turn) % 4].parse().unwrap();
                    let image =
                        block_on(store.resolve_and_pull(&reference, &PullOptions::default())).unwrap();
                    let rootfs = image.rootfs(None).unwrap();
                    assert_eq!(fs::metadata(inside(&rootfs).join("own")).unwrap().len(), 100_000);
                }
            });
        }
        scope.spawn(|| {
            let store = Store::open(StoreConfig::new(&root)).unwrap();
            for _ in 0..60 {
                block_on(store.collect(Keep::InUse)).unwrap();
            }
        });
    });
}

/// A file system of a certain size, for as long as it is needed.
struct SmallFileSystem {
    place: PathBuf,
}

impl SmallFileSystem {
    fn mount(place: &Path, arguments: &[&str]) -> SmallFileSystem {
        fs::create_dir_all(place).unwrap();
        let mounted = Command::new("mount").args(arguments).arg(place).status().unwrap();
        assert!(mounted.success());
        SmallFileSystem {
            place: place.to_owned(),
        }
    }
}

impl Drop for SmallFileSystem {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.place).status();
    }
}

/// Pulls into a store that is too small, by so much that another write fails each time, then makes room.
fn pull_into_too_little(directory: &Path, size: &str, grow: &[&str], reference: &str) -> bool {
    let place = directory.join(format!("small-{size}"));
    let small = SmallFileSystem::mount(&place, &["-t", "tmpfs", "-o", size, "podling-tests"]);
    let failed = match Store::open(StoreConfig::new(place.join("store"))) {
        Err(error) => {
            assert!(format!("{:#}", anyhow::Error::new(error)).contains("No space left"));
            true
        }
        Ok(store) => {
            let reference = reference.parse().unwrap();
            let result = block_on(store.resolve_and_pull(&reference, &PullOptions::default()));
            let failed = result.is_err();
            if let Err(error) = result {
                let sentence = format!("{:#}", anyhow::Error::new(error));
                assert!(sentence.contains("No space left"), "{size}: {sentence}");
                let root = place.join("store");
                assert_eq!(left_in(&root, "staging"), 0, "{size}");
                assert_eq!(left_in(&root, "tmp"), 0, "{size}");
                assert_eq!(left_in(&root, "refs"), 0, "{size}");
            }
            failed
        }
    };
    let mut remount = Command::new("mount");
    remount.arg("-o").arg(grow.join(",")).arg(&place);
    assert!(remount.status().unwrap().success());
    let store = Store::open(StoreConfig::new(place.join("store"))).unwrap();
    let image =
        block_on(store.resolve_and_pull(&reference.parse().unwrap(), &PullOptions::default())).unwrap();
    assert!(
        block_on(store.verify(image.digest())).unwrap().is_whole(),
        "{size}"
    );
    drop((image, store));
    drop(small);
    failed
}

#[test]
fn i8_a_full_disk_is_survived_at_every_write_and_told() {
    let directory = tempfile::tempdir().unwrap();
    let layout = directory.path().join("layout");
    let layers = (0..3)
        .map(|n: u8| {
            let files = (0..20u8).fold(Layer::new().dir("d/", 0o755), |layer, file| {
                layer
                    .file(&format!("d/{n}-{file}"), [n ^ file; 5000])
                    .symlink(&format!("d/link-{n}-{file}"), "x")
            });
            files.file("d/.wh.gone", "").tar()
        })
        .collect();
    TestImage::oci(layers, Packing::Gzip).write_layout(&layout, "x");
    let reference = format!("oci:{}", layout.display());
    let grow = ["remount", "size=64m", "nr_inodes=10000"];
    let mut failed = 0;
    // By bytes and by inodes, from nothing to nearly enough.
    for kilobytes in [4, 8, 12, 16, 24, 32, 64, 128, 256, 400, 480, 520, 540] {
        let size = format!("size={kilobytes}k");
        failed += usize::from(pull_into_too_little(directory.path(), &size, &grow, &reference));
    }
    for inodes in (4..160).step_by(3) {
        let size = format!("nr_inodes={inodes}");
        failed += usize::from(pull_into_too_little(directory.path(), &size, &grow, &reference));
    }
    assert!(failed > 40, "only {failed} were too small");
}

#[test]
fn i8_a_pull_that_would_take_what_is_left_to_others_is_not_begun_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let layout = directory.path().join("layout");
    let noise = (0..50_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes());
    let layer = Layer::new().file("large", noise.collect::<Vec<u8>>()).tar();
    TestImage::oci(vec![layer], Packing::Plain).write_layout(&layout, "large");
    let reference = format!("oci:{}", layout.display()).parse().unwrap();
    let place = directory.path().join("place");
    let _small = SmallFileSystem::mount(&place, &["-t", "tmpfs", "-o", "size=1m", "podling-tests"]);
    let pull = |reserve| {
        let store = Store::open(StoreConfig {
            reserve: Reserve(reserve),
            ..StoreConfig::new(place.join("store"))
        });
        block_on(
            store
                .unwrap()
                .resolve_and_pull(&reference, &PullOptions::default()),
        )
        .map(drop)
    };
    // There is room for it, though not beside what others are to have.
    let sentence = format!("{:#}", anyhow::Error::new(pull(90).unwrap_err()));
    assert!(
        sentence.contains("bytes, and the image store's file system has")
            && sentence.contains("are not for images (`images_reserve`)"),
        "{sentence}"
    );
    for nothing in ["staging", "tmp", "refs", "layers"] {
        assert_eq!(left_in(&place.join("store"), nothing), 0, "{nothing}");
    }
    pull(50).unwrap();
}

#[test]
fn i8_a_full_loop_mounted_ext4_is_survived() {
    let directory = tempfile::tempdir().unwrap();
    let disk = directory.path().join("disk");
    fs::File::create(&disk).unwrap().set_len(4 << 20).unwrap();
    let made = Command::new("mkfs.ext4")
        .args(["-q", "-O", "^has_journal"])
        .arg(&disk)
        .status()
        .unwrap();
    assert!(made.success());
    let place = directory.path().join("place");
    let _small = SmallFileSystem::mount(&place, &["-o", "loop", disk.to_str().unwrap()]);
    let layout = directory.path().join("layout");
    let large = Layer::new().file("large", vec![1; 6 << 20]).tar();
    TestImage::oci(vec![Layer::new().file("f", "").tar(), large], Packing::Gzip)
        .write_layout(&layout, "large");
    let fits = directory.path().join("fits");
    TestImage::oci(vec![Layer::new().file("f", "").tar()], Packing::Gzip).write_layout(&fits, "x");
    let store = Store::open(StoreConfig::new(place.join("store"))).unwrap();
    let pull = |path: &Path| {
        let reference = format!("oci:{}", path.display()).parse().unwrap();
        block_on(store.resolve_and_pull(&reference, &PullOptions::default()))
    };
    let sentence = format!("{:#}", anyhow::Error::new(pull(&layout).unwrap_err()));
    assert!(
        sentence.contains("No space left") && sentence.contains("large"),
        "{sentence}"
    );
    pull(&fits).unwrap();
}

/// A pull of everything that takes memory at once, within a hard limit of 48 MB for data (I3).
#[test]
fn i3_a_pull_fits_into_48_megabytes() {
    let directory = tempfile::tempdir().unwrap();
    let mut random = 0x1234_5678_9abc_def1u64;
    let mut noise = |length: usize| -> Vec<u8> {
        std::iter::repeat_with(|| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random.to_le_bytes()
        })
        .take(length / 8)
        .flatten()
        .collect()
    };
    // The largest windows that are taken, long names, many directories and attributes, in four layers at once.
    let layers: Vec<Vec<u8>> = (0..4)
        .map(|n| {
            let layer = (0..3000).fold(Layer::new(), |layer, number| {
                let name = format!("{}/{n}-{number}/", "d".repeat(200));
                layer.long(b'L', name).dir("x", 0o755)
            });
            let value = noise(3000);
            layer
                .pax(&[("SCHILY.xattr.user.large", &value)])
                .file(&format!("large-{n}"), noise(12 << 20))
                .tar()
        })
        .collect();
    let packed = layers
        .iter()
        .map(|layer| {
            let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
            encoder.window_log(23).unwrap();
            encoder.include_contentsize(false).unwrap();
            std::io::Write::write_all(&mut encoder, layer).unwrap();
            encoder.finish().unwrap()
        })
        .collect();
    let diff_ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
    let config = serde_json::json!({
        "os": "linux", "architecture": "amd64", "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let content = Content::of(TestImage::from_parts(config, packed, Packing::Zstd, false));
    let registry = FakeRegistry::start(move |request, _| Reply::good(&content, request));
    let pull = |limit: u64| {
        Command::new("prlimit")
            .arg(format!("--data={limit}"))
            .arg(env!("CARGO_BIN_EXE_podling"))
            .args(["image", "pull", "--store"])
            .arg(directory.path().join(format!("store-{limit}")))
            .arg(format!("{}/a:tag", registry.address))
            .output()
            .unwrap()
    };
    let output = pull(48 << 20);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    // The limit does limit.
    assert!(!pull(4 << 20).status.success());
}

#[test]
fn i8_what_nobody_uses_makes_room_for_what_is_needed() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("place");
    let _small = SmallFileSystem::mount(&place, &["-t", "tmpfs", "-o", "size=3m", "podling-tests"]);
    let store = Store::open(StoreConfig::new(place.join("store"))).unwrap();
    let mut held = None;
    for n in 0..4u8 {
        let layout = directory.path().join(format!("layout-{n}"));
        TestImage::oci(
            vec![Layer::new().file("f", vec![n; 1 << 20]).tar()],
            Packing::Gzip,
        )
        .write_layout(&layout, "x");
        let reference = format!("oci:{}", layout.display()).parse().unwrap();
        let image = block_on(store.resolve_and_pull(&reference, &PullOptions::default())).unwrap();
        if n == 0 {
            held = Some(image);
        }
    }
    let held = held.unwrap();
    assert!(block_on(store.verify(held.digest())).unwrap().is_whole());
}
