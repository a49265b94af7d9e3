//! The same tree as GNU tar and umoci make of the same layers (I2). What is known to differ is left out here and
//! explained in the table below.
//!
//! | what | GNU tar, umoci | we |
//! |---|---|---|
//! | device nodes | made | left out, unless the operator keeps them |
//! | names with `..` | skipped; cut off at the root | the layer is refused |
//! | `trusted.*`, `security.*` but capabilities | set as root | left out: they mean something to the host |
//! | times of directories | umoci: of unpacking, if a later layer changes something in them | as their entry says |
//! | whiteouts | tar: plain files | overlayfs's marks, which a mounted root shows as umoci's tree |
//! | directories without an entry | time of unpacking | 1970, or what a lower layer says of them |
//! | hard link to a file of a lower layer | umoci: made | refused, as docker does |
//! | a link in one layer, files behind it in another | umoci: follows it | a directory takes its place, as docker does |

use std::{
    collections::BTreeMap,
    fs,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use podling::image::{DevicePolicy, UnpackOptions, unpack};

use super::{
    build::{Head, Layer, Packing, TestImage},
    pull::{TestStore, inside},
    tree::{differences, tree},
};

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 16) as usize % limit
    }

    fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Directory,
    File,
    Other,
}

/// Writes layers that a well-behaved but imaginative builder might write.
struct Imagination {
    random: Random,
    /// What there is, in this layer and below.
    there: BTreeMap<String, What>,
    /// Files of this very layer: hard links reach no further.
    own: Vec<String>,
    whiteouts: bool,
}

impl Imagination {
    fn new(seed: u64, whiteouts: bool) -> Imagination {
        Imagination {
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            there: BTreeMap::from([(String::new(), What::Directory)]),
            own: Vec::new(),
            whiteouts,
        }
    }

    fn layer(&mut self, entries: usize) -> Layer {
        self.own.clear();
        let mut described = vec![String::new()];
        let mut layer = Layer::new().head(Head::new(b'5', "./").mode(0o755), b"");
        for number in 0..entries {
            let parent = self.pick_directory();
            layer = self.describe(layer, &parent, &mut described);
            let name = self.name(&parent, number);
            layer = self.entry(layer, name, &mut described);
        }
        layer
    }

    fn pick_directory(&mut self) -> String {
        let directories: Vec<&String> = self
            .there
            .iter()
            .filter(|(_, what)| **what == What::Directory)
            .map(|(name, _)| name)
            .collect();
        directories[self.random.below(directories.len())].clone()
    }

    /// An entry for a directory and those above it, once in each layer.
    fn describe(&mut self, mut layer: Layer, directory: &str, described: &mut Vec<String>) -> Layer {
        let ends: Vec<usize> = directory
            .match_indices('/')
            .map(|(at, _)| at)
            .chain([directory.len()])
            .collect();
        for end in ends {
            let name = directory[..end].to_owned();
            if !described.contains(&name) {
                layer = self.head(layer, b'5', &name, b"", None);
                described.push(name);
            }
        }
        layer
    }

    fn name(&mut self, parent: &str, number: usize) -> String {
        // Now and then one that is there already.
        if self.random.one_in(6) {
            let files: Vec<&String> = self
                .there
                .iter()
                .filter(|(_, what)| **what != What::Directory)
                .map(|(name, _)| name)
                .collect();
            if !files.is_empty() {
                return files[self.random.below(files.len())].clone();
            }
        }
        let last = match self.random.below(12) {
            0 => format!("with space {number}"),
            1 => format!("ümlaut-{number}"),
            2 => format!("new\nline-{number}"),
            3 => format!("{}-{number}", "long".repeat(30)),
            4 => format!("back\\slash-{number}"),
            5 => format!("-dash-{number}"),
            _ => format!("n{number}"),
        };
        match parent {
            "" => last,
            parent => format!("{parent}/{last}"),
        }
    }

    fn entry(&mut self, layer: Layer, name: String, described: &mut Vec<String>) -> Layer {
        let layer = match name.rsplit_once('/') {
            Some((parent, _)) => self.describe(layer, parent, described),
            None => layer,
        };
        let replaces = self.there.contains_key(&name);
        if self.there.get(&name) == Some(&What::Directory) {
            // Of another layer, where the numbers were the same: what takes its place takes all of it away.
            let below = format!("{name}/");
            self.there.retain(|there, _| !there.starts_with(&below));
            self.own.retain(|own| !own.starts_with(&below));
            described.retain(|directory| *directory != name && !directory.starts_with(&below));
        }
        let pick = self
            .random
            .below(if self.whiteouts && replaces { 14 } else { 11 });
        self.own.retain(|own| *own != name);
        match pick {
            0..=1 if !replaces => {
                described.push(name.clone());
                let layer = self.head(layer, b'5', &name, b"", None);
                self.there.insert(name, What::Directory);
                layer
            }
            2 => {
                let target = ["n0", "../n1", "/absolute", "./x/../y", "dangling"][self.random.below(5)];
                let layer = self.head(layer, b'2', &name, b"", Some(target));
                self.there.insert(name, What::Other);
                layer
            }
            3 if !self.own.is_empty() => {
                let target = self.own[self.random.below(self.own.len())].clone();
                let layer = self.head(layer, b'1', &name, b"", Some(&target));
                self.there.insert(name, What::Other);
                layer
            }
            4 => {
                let layer = self.head(layer, b'6', &name, b"", None);
                self.there.insert(name, What::Other);
                layer
            }
            11.. => {
                let (parent, last) = name.rsplit_once('/').unwrap_or(("", &name));
                let whiteout = match parent {
                    "" => format!(".wh.{last}"),
                    parent => format!("{parent}/.wh.{last}"),
                };
                // Said before anything else in this layer took the name.
                if described.contains(&name) {
                    return layer;
                }
                let layer = self.head(layer, b'0', &whiteout, b"", None);
                self.there.remove(&name);
                layer
            }
            _ => {
                let length = match self.random.below(8) {
                    0 => 0,
                    1 => 512,
                    2 => 70_000,
                    _ => self.random.below(3000),
                };
                let seed = self.random.next() as u8;
                let data: Vec<u8> = (0..length).map(|at| seed.wrapping_add((at / 7) as u8)).collect();
                let layer = self.head(layer, b'0', &name, &data, None);
                self.own.push(name.clone());
                self.there.insert(name, What::File);
                layer
            }
        }
    }

    /// An entry in one of the forms there are for what does not fit into a plain header.
    fn head(&mut self, mut layer: Layer, kind: u8, name: &str, data: &[u8], link: Option<&str>) -> Layer {
        let mut records: Vec<(String, Vec<u8>)> = Vec::new();
        let slash = if kind == b'5' && self.random.one_in(2) {
            "/"
        } else {
            ""
        };
        let dot = if self.random.one_in(3) { "./" } else { "" };
        let name = format!("{dot}{name}{slash}");
        let gnu = self.random.one_in(2);
        let mut head = match gnu {
            true => Head::gnu(kind, ""),
            false => Head::new(kind, ""),
        };
        let mode = [0o644, 0o755, 0o600, 0o4755, 0o2755, 0o1777, 0o000, 0o444][self.random.below(8)];
        head = head.mode(mode);
        if self.random.one_in(3) {
            let owner = [1, 1000, 65_534, 2_097_151][self.random.below(4)];
            let text = format!("{owner:07o}\0");
            head = head.field(108, text.as_bytes()).field(116, text.as_bytes());
        }
        let time = self.random.next() % 2_000_000_000;
        head = head.field(136, format!("{time:011o}\0").as_bytes());
        if !gnu && self.random.one_in(3) {
            records.push((
                "mtime".into(),
                format!("{time}.{:09}", self.random.below(1_000_000_000)).into_bytes(),
            ));
        }
        if !gnu && matches!(kind, b'0' | b'5') && self.random.one_in(5) {
            records.push(("SCHILY.xattr.user.test".into(), b"va\nlue\0".to_vec()));
        }
        if name.len() <= 100 {
            head = head.field(0, name.as_bytes());
        } else if gnu {
            layer = layer.long(b'L', &name);
        } else {
            records.push(("path".into(), name.into_bytes()));
        }
        match link {
            Some(link) if link.len() <= 100 => head = head.link(link),
            Some(link) if gnu => layer = layer.long(b'K', link),
            Some(link) => records.push(("linkpath".into(), link.as_bytes().to_vec())),
            None => {}
        }
        if !records.is_empty() {
            let records: Vec<(&str, &[u8])> =
                records.iter().map(|(k, v)| (k.as_str(), v.as_slice())).collect();
            layer = layer.pax(&records);
        }
        layer.head(head, data)
    }
}

fn ours(tar: &[u8], base: &Path) -> BTreeMap<PathBuf, String> {
    let (root, scratch) = (base.join("ours"), base.join("scratch"));
    fs::create_dir_all(&root).unwrap();
    fs::create_dir_all(&scratch).unwrap();
    let options = UnpackOptions {
        devices: DevicePolicy::Keep,
        ..UnpackOptions::default()
    };
    let (root_fd, scratch_fd) = (fs::File::open(&root).unwrap(), fs::File::open(&scratch).unwrap());
    let length = tar.len() as u64;
    unpack(tar, length, root_fd.as_fd(), scratch_fd.as_fd(), None, &options).unwrap();
    tree(&root)
}

fn gnu_tar(archive: &Path, base: &Path) -> BTreeMap<PathBuf, String> {
    let root = base.join("theirs");
    fs::create_dir_all(&root).unwrap();
    let output = Command::new("tar")
        .args([
            "--extract",
            "--same-permissions",
            "--numeric-owner",
            "--xattrs",
            "--xattrs-include=user.*",
        ])
        .args(["--delay-directory-restore", "--absolute-names", "--file"])
        .arg(archive)
        .arg("--directory")
        .arg(&root)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    tree(&root)
}

#[test]
fn i2_120_imagined_layers_are_the_same_to_gnu_tar() {
    for seed in 0..120 {
        let base = tempfile::tempdir().unwrap();
        let tar = Imagination::new(seed, false).layer(40).tar();
        let archive = base.path().join("layer.tar");
        fs::write(&archive, &tar).unwrap();
        let (ours, theirs) = (ours(&tar, base.path()), gnu_tar(&archive, base.path()));
        assert!(ours.len() > 10);
        assert_eq!(differences(&ours, &theirs), Vec::<String>::new(), "seed {seed}");
    }
}

/// Trees packed by GNU tar in every format it has, with holes found and attributes kept.
#[test]
fn i2_100_archives_of_gnu_tar_give_the_tree_back() {
    for seed in 0..20 {
        let base = tempfile::tempdir().unwrap();
        let tar = Imagination::new(1000 + seed, false).layer(40).tar();
        ours(&tar, base.path());
        let source = base.path().join("ours");
        // Holes at the start, in the middle and at the end, and more of them than a header holds.
        let sparse = fs::File::create(source.join("sparse")).unwrap();
        for hole in 0..30 {
            std::os::unix::fs::FileExt::write_all_at(&sparse, b"data", 50_000 + hole * 40_960).unwrap();
        }
        sparse.set_len(3_000_000).unwrap();
        for (format, more) in [
            ("gnu", &["--sparse"][..]),
            ("oldgnu", &["--sparse"]),
            ("posix", &["--sparse", "--sparse-version=0.0", "--xattrs"]),
            ("posix", &["--sparse", "--sparse-version=0.1", "--xattrs"]),
            ("posix", &["--sparse", "--sparse-version=1.0", "--xattrs"]),
        ] {
            let work = tempfile::tempdir().unwrap();
            let archive = work.path().join("layer.tar");
            let packed = Command::new("tar")
                .args(["--create", "--numeric-owner", "--format", format])
                .args(more)
                .arg("--file")
                .arg(&archive)
                .arg("--directory")
                .arg(&source)
                .arg(".")
                .stderr(Stdio::null())
                .status()
                .unwrap();
            assert!(packed.success());
            let again = ours(&fs::read(&archive).unwrap(), work.path());
            // Only the PAX format keeps parts of seconds and attributes, so GNU tar's own reading is the measure.
            let theirs = gnu_tar(&archive, work.path());
            assert_eq!(
                differences(&again, &theirs),
                Vec::<String>::new(),
                "seed {seed} {format} {more:?}"
            );
            assert!(again[Path::new("sparse")].starts_with("file 3000000 "));
        }
    }
}

/// Stacks of layers with whiteouts: what our mounted root shows is what umoci unpacks.
#[test]
fn i2_100_imagined_layers_in_stacks_are_the_same_to_umoci() {
    for seed in 0..10 {
        let store = TestStore::new();
        let base = store.directory.path();
        let mut imagination = Imagination::new(5000 + seed, true);
        let layers = (0..10).map(|_| imagination.layer(25).tar()).collect();
        let layout = base.join("layout");
        TestImage::oci(layers, Packing::Gzip).write_layout(&layout, "x");
        let theirs = base.join("theirs");
        let output = Command::new("umoci")
            .args(["raw", "unpack", "--image"])
            .arg(format!("{}:x", layout.display()))
            .arg(&theirs)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let image = store.pull(&format!("oci:{}", layout.display())).unwrap();
        let rootfs = image.rootfs(None).unwrap();
        let (mut ours, mut theirs) = (tree(&inside(&rootfs)), tree(&theirs));
        for line in ours.values_mut().chain(theirs.values_mut()) {
            if let (true, Some(at)) = (line.starts_with("directory"), line.find("time=")) {
                let end = line[at..].find(' ').map_or(line.len(), |length| at + length);
                line.replace_range(at..end, "");
            }
        }
        assert_eq!(differences(&ours, &theirs), Vec::<String>::new(), "seed {seed}");
    }
}
