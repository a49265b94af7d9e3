//! Layers made by people who mean harm, or by tools that do not know better. Each has a name and an expectation, and
//! whatever becomes of it, nothing outside the layer's directory changes (I2, I3).

use std::{
    collections::BTreeMap,
    fs,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use podling::image::{Budget, DevicePolicy, UnpackOptions, unpack};

use super::{
    build::{Head, Layer, Packing, pax_record},
    tree::tree,
};

/// What must become of a layer.
pub enum Want {
    /// Refused, with these words in the sentence.
    No(&'static str),
    /// Accepted, with exactly these paths, a whiteout written as `-path`.
    Tree(&'static [&'static str]),
    /// Accepted, and this line of the tree contains these words.
    Line(&'static str, &'static str),
}
use Want::{Line, No, Tree};

/// Where a layer is unpacked, and what it would like to reach.
pub struct Place {
    base: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let base = tempfile::tempdir().unwrap();
        for directory in ["outside/directory", "layer", "scratch"] {
            fs::create_dir_all(base.path().join(directory)).unwrap();
        }
        fs::write(base.path().join("outside/file"), "untouched").unwrap();
        Place { base }
    }

    fn layer(&self) -> PathBuf {
        self.base.path().join("layer")
    }

    /// A directory the layer has no business in, as an absolute path.
    pub fn outside(&self) -> String {
        self.base.path().join("outside").to_str().unwrap().to_owned()
    }

    /// The host, as far as it can be looked at in a test: our own surroundings whole, and the usual victims.
    fn surroundings(&self) -> BTreeMap<PathBuf, String> {
        let mut seen: BTreeMap<PathBuf, String> = tree(&self.base.path().join("outside"));
        let scratch = fs::read_dir(self.base.path().join("scratch")).unwrap().count();
        seen.insert("scratch".into(), scratch.to_string());
        let names = fs::read_dir(self.base.path()).unwrap().count();
        seen.insert("names".into(), names.to_string());
        for path in [
            "/",
            "/etc",
            "/usr",
            "/etc/passwd",
            "/etc/group",
            "/etc/shadow",
            "/dev/null",
            "/bin",
        ] {
            let metadata = fs::metadata(path).unwrap();
            seen.insert(
                path.into(),
                format!("{} {} {}", metadata.ino(), metadata.ctime(), metadata.mode()),
            );
        }
        seen
    }
}

/// Budgets small enough for tests to reach.
pub fn small_budget() -> Budget {
    Budget {
        bytes: 64 << 20,
        entries: 5000,
        implied_directories: 100,
        ratio: 100,
        ratio_free: 1 << 20,
        ..Budget::default()
    }
}

pub fn options() -> UnpackOptions {
    UnpackOptions {
        budget: small_budget(),
        ..UnpackOptions::default()
    }
}

/// Unpacks and compares with what is wanted, and the surroundings with what they were.
pub fn check(name: &str, make: impl Fn(&Place) -> Vec<u8>, want: &Want, options: &UnpackOptions) {
    let place = Place::new();
    let blob = make(&place);
    let before = place.surroundings();
    let root = fs::File::open(place.layer()).unwrap();
    let scratch = fs::File::open(place.base.path().join("scratch")).unwrap();
    let result = unpack(
        &blob[..],
        blob.len() as u64,
        root.as_fd(),
        scratch.as_fd(),
        None,
        options,
    );
    assert_eq!(
        before,
        place.surroundings(),
        "{name} changed something outside its layer"
    );
    match (want, result) {
        (No(words), Err(error)) => {
            let sentence = format!("{:#}", anyhow::Error::new(error));
            assert!(
                sentence.contains(words),
                "{name} was refused with other words: {sentence}"
            );
            assert!(!sentence.contains(['\n', '\0', '\x1b']), "{name}: {sentence:?}");
        }
        (No(words), Ok(_)) => panic!("{name} was accepted instead of refused with {words:?}"),
        (_, Err(error)) => panic!("{name} was refused: {:#}", anyhow::Error::new(error)),
        (Tree(paths), Ok(_)) => assert_eq!(paths_of(&place.layer()), *paths, "{name}"),
        (Line(path, words), Ok(_)) => {
            let tree = tree(&place.layer());
            let line = tree
                .get(Path::new(path))
                .unwrap_or_else(|| panic!("{name} has no {path:?}"));
            assert!(line.contains(words), "{name}: {line}");
        }
    }
}

fn paths_of(root: &Path) -> Vec<String> {
    let is_whiteout = |line: &str| line.starts_with("c 0x0 ");
    tree(root)
        .iter()
        .skip(1)
        .map(|(path, line)| {
            let mark = if is_whiteout(line) { "-" } else { "" };
            format!("{mark}{}", path.to_string_lossy().escape_debug())
        })
        .collect()
}

macro_rules! hostile {
    ($($name:ident: $want:expr, $make:expr;)*) => {
        $(
            #[test]
            fn $name() {
                let make: fn(&Place) -> Layer = $make;
                check(stringify!($name), |place| make(place).tar(), &$want, &options());
            }
        )*
        /// The table is a promise: it only grows.
        pub const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}
/// For blobs that are not simply a closed archive.
macro_rules! hostile_bytes {
    ($($name:ident: $want:expr, $make:expr;)*) => {
        $(
            #[test]
            fn $name() {
                let make: fn(&Place) -> Vec<u8> = $make;
                check(stringify!($name), make, &$want, &options());
            }
        )*
        pub const BYTES: &[&str] = &[$(stringify!($name)),*];
    };
}

fn new() -> Layer {
    Layer::new()
}

fn file(name: &str) -> Layer {
    new().file(name, "x")
}

const UP: &str = "goes up";

// Here and not above, for they use the macros.
mod bytes;
mod headers;
mod kinds;
mod links;
mod paths;
mod sparse;

#[test]
fn i2_the_table_names_at_least_150_hostile_layers() {
    let tables = [
        paths::NAMES,
        links::NAMES,
        kinds::NAMES,
        headers::NAMES,
        sparse::NAMES,
        bytes::BYTES,
    ];
    let mut names: Vec<&str> = tables.concat();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count, "two layers have one name");
    assert!(count >= 150, "{count}");
    println!("{count} hostile layers");
}

#[test]
fn i2_devices_are_kept_or_refused_as_the_operator_says() {
    let layer = |_: &Place| {
        new()
            .head(Head::new(b'3', "null").device(1, 3).mode(0o666), "")
            .tar()
    };
    let with = |devices| UnpackOptions { devices, ..options() };
    check(
        "kept",
        layer,
        &Line("null", "c 0x103 mode=666"),
        &with(DevicePolicy::Keep),
    );
    check("refused", layer, &No("not allowed"), &with(DevicePolicy::Refuse));
    check("dropped", layer, &Tree(&["-null"]), &with(DevicePolicy::Drop));
}

/// Whatever the bytes, nothing happens outside.
#[test]
fn i2_damaged_hostile_layers_stay_inside() {
    let place = Place::new();
    let outside = place.outside();
    let layer = new()
        .dir("d/", 0o755)
        .symlink("d/l", &outside)
        .pax(&[("path", b"d/e"), ("SCHILY.xattr.user.a", b"x")])
        .file("f", "x")
        .hard_link("h", "d/e")
        .long(b'L', "d/g")
        .file("y", "z")
        .file(".wh.w", "")
        .tar();
    let before = place.surroundings();
    let root = fs::File::open(place.layer()).unwrap();
    let scratch = fs::File::open(place.base.path().join("scratch")).unwrap();
    // Deterministic: every 7th byte, each replaced by something that means something in a header.
    for at in (0..layer.len()).step_by(7) {
        let mut damaged = layer.clone();
        damaged[at] = b"./\x0015x"[at % 6];
        // With the checksum put right, or only the checksum would ever be tested.
        let block = at / 512 * 512;
        damaged[block + 148..block + 156].fill(b' ');
        let sum: u32 = damaged[block..block + 512]
            .iter()
            .map(|byte| u32::from(*byte))
            .sum();
        damaged[block + 148..block + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let _ = unpack(
            &damaged[..],
            damaged.len() as u64,
            root.as_fd(),
            scratch.as_fd(),
            None,
            &options(),
        );
        assert_eq!(before, place.surroundings(), "byte {at}");
    }
}

#[test]
fn pax_records_of_the_builder_are_well_formed() {
    assert_eq!(pax_record("a", b"b"), b"6 a=b\n");
    assert_eq!(pax_record("path", b"12"), b"11 path=12\n");
}
