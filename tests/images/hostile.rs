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

mod paths {
    use super::*;

    hostile! {
        // Upwards, in every field that can hold a name.
        up_in_name: No(UP), |_| file("../x");
        up_in_the_middle: No(UP), |_| file("a/../../x");
        up_and_down_again: No(UP), |_| file("a/../b");
        up_at_the_end: No(UP), |_| file("a/..");
        up_alone: No(UP), |_| new().dir("..", 0o755);
        up_alone_with_slash: No(UP), |_| new().dir("../", 0o755);
        up_after_dot: No(UP), |_| file("./../x");
        up_after_root: No(UP), |_| file("/../x");
        up_after_slashes: No(UP), |_| file("//..//x");
        up_in_prefix: No(UP), |_| new().head(Head::new(b'0', "x").prefix(".."), "x");
        up_deep_in_prefix: No(UP), |_| new().head(Head::new(b'0', "x").prefix("a/../../b"), "x");
        up_in_name_behind_prefix: No(UP), |_| new().head(Head::new(b'0', "../../x").prefix("a"), "x");
        up_in_gnu_long_name: No(UP), |_| new().long(b'L', "../x").file("y", "x");
        up_in_pax_path: No(UP), |_| new().pax(&[("path", b"../x")]).file("y", "x");
        up_in_sparse_name: No(UP), |_| new()
            .pax(&[("GNU.sparse.map", b"0,1"), ("GNU.sparse.size", b"1"), ("GNU.sparse.name", b"../x")])
            .file("y", "x");
        up_as_directory: No(UP), |_| new().dir("../d/", 0o755);
        up_as_symlink: No(UP), |_| new().symlink("../l", "x");
        up_as_hard_link: No(UP), |_| file("a").hard_link("../l", "a");
        up_as_fifo: No(UP), |_| new().head(Head::new(b'6', "../f"), "");
        up_as_device: No(UP), |_| new().head(Head::new(b'3', "../n").device(1, 3), "");
        up_as_whiteout: No(UP), |_| file("../.wh.x");
        up_as_opaque_marker: No(UP), |_| file("../.wh..wh..opq");
        up_in_gnu_long_link: No(UP), |_| file("a").long(b'K', "../outside/file").hard_link("l", "a");
        up_in_pax_link: No(UP), |_| file("a").pax(&[("linkpath", b"../outside/file")]).hard_link("l", "a");

        // Absolute names stay inside.
        absolute_name: Tree(&["etc", "etc/x"]), |_| file("/etc/x");
        absolute_name_with_slashes: Tree(&["etc", "etc/x"]), |_| file("///etc///x");
        absolute_name_of_a_host_file: Line("etc/passwd", "file 1 "), |_| file("/etc/passwd");
        absolute_hard_link_is_inside: No("not in this layer"), |_| new().hard_link("l", "/etc/passwd");
        absolute_hard_link_to_own_file: Line("l", "same as \"etc/x\""), |_| file("etc/x").hard_link("l", "/etc/x");
        absolute_symlink_is_only_text: Line("l", "link to \"/etc/passwd\""), |_| new().symlink("l", "/etc/passwd");

        // Odd names.
        name_empty: No("empty"), |_| new().head(Head::new(b'0', ""), "x");
        name_empty_directory: No("empty"), |_| new().head(Head::new(b'5', ""), "");
        name_empty_by_long_name: No("empty"), |_| new().long(b'L', "").file("y", "x");
        name_dot_is_the_root: Line("", "mode=700"), |_| new().dir(".", 0o700);
        name_slash_is_the_root: Line("", "mode=711"), |_| new().dir("/", 0o711);
        name_dot_as_file: No("layer's root"), |_| file(".");
        name_slashes_as_file: No("layer's root"), |_| new().head(Head::new(b'6', "//"), "");
        name_three_dots: Tree(&["..."]), |_| file("...");
        name_dots_and_letters: Tree(&["..a", "a.."]), |_| file("..a").file("a..", "");
        name_with_newline: Tree(&["a\\nb"]), |_| file("a\nb");
        name_with_escape: Tree(&["a\\u{1b}[2Jb"]), |_| file("a\x1b[2Jb");
        name_with_backslashes: Tree(&["..\\\\..\\\\x"]), |_| file("..\\..\\x");
        name_of_spaces: Tree(&["  "]), |_| file("  ");
        name_not_utf_8: Tree(&["\u{fffd}\u{fffd}"]), |_| new().head(Head::new(b'0', [0xff, 0xfe]), "x");
        name_pax_not_utf_8: Tree(&["\u{fffd}"]), |_| new().pax(&[("path", &[0xc0])]).file("y", "x");
        name_pax_with_newline: Tree(&["a\\nb=c"]), |_| new().pax(&[("path", b"a\nb=c")]).file("y", "x");
        name_pax_with_nul: No("NUL"), |_| new().pax(&[("path", b"a\0b")]).file("y", "x");
        link_pax_with_nul: No("NUL"), |_| new().pax(&[("linkpath", b"a\0b")]).symlink("y", "x");
        name_of_64_kib: No("longer than 4096"), |_| new().long(b'L', "a/".repeat(32 << 10)).file("y", "x");
        name_of_64_kib_in_pax: No("longer than 4096"), |_| new()
            .pax(&[("path", "a/".repeat(32 << 10).as_bytes())])
            .file("y", "x");
        link_of_64_kib: No("longer than 4096"), |_| new().long(b'K', "a/".repeat(32 << 10)).symlink("y", "x");
        component_of_255_bytes: Line("", "directory"), |_| new().long(b'L', "n".repeat(255)).file("y", "x");
        component_of_256_bytes: No("too long"), |_| new().long(b'L', "n".repeat(256)).file("y", "x");
        names_that_differ_in_case: Tree(&["A", "a"]), |_| file("a").file("A", "");
        names_that_differ_in_normal_form: Tree(&["e\u{301}", "\u{e9}"]), |_| file("\u{e9}").file("e\u{301}", "");
        name_with_trailing_slash_and_data: No("cannot have data"), |_| new().head(Head::new(b'0', "d/"), "data");
        name_with_trailing_slash_is_a_directory: Line("d", "directory"), |_| new().head(Head::new(b'0', "d/"), "");
        deep_path: Line("d/d/d/d/d/d/d/d", "directory"), |_| new().long(b'L', "d/".repeat(99)).dir("y", 0o755);
        deeper_than_implied_directories_may_be: No("without an entry"), |_| {
            new().long(b'L', "d/".repeat(2000)).dir("y", 0o755)
        };
    }
}

mod links {
    use super::*;

    hostile! {
        // Through a link to the outside: there is no such place inside.
        through_absolute_link: No("not a directory"), |p| new().symlink("l", &p.outside()).file("l/x", "x");
        through_relative_link: No("not a directory"), |_| new().symlink("l", "../outside").file("l/x", "x");
        through_far_relative_link: No("not a directory"), |_| {
            new().symlink("l", "../../../../../../tmp").file("l/x", "x")
        };
        through_link_below_a_directory: No("not a directory"), |_| {
            new().dir("d/", 0o755).symlink("d/l", "../../outside").file("d/l/x", "x")
        };
        through_link_as_directory: No("not a directory"), |p| {
            new().symlink("l", &p.outside()).dir("l/directory/", 0o700)
        };
        through_link_as_whiteout: No("not a directory"), |p| new().symlink("l", &p.outside()).file("l/.wh.file", "");
        through_link_as_opaque_marker: No("not a directory"), |p| {
            new().symlink("l", &p.outside()).file("l/.wh..wh..opq", "")
        };
        through_link_as_hard_link_source: No("not in this layer"), |p| {
            new().symlink("l", &p.outside()).hard_link("x", "l/file")
        };
        through_link_as_hard_link_place: No("not a directory"), |p| {
            file("a").symlink("l", &p.outside()).hard_link("l/x", "a")
        };
        through_link_to_proc: No("not a directory"), |_| new().symlink("l", "/proc/self/root").file("l/x", "x");
        through_link_to_cwd: No("not a directory"), |_| new().symlink("l", "/proc/self/cwd").file("l/x", "x");
        through_link_to_descriptor: No("not a directory"), |_| new().symlink("l", "/dev/fd/3").file("l/x", "x");
        through_link_to_root_is_inside: Tree(&["l", "x"]), |_| new().symlink("l", "/").file("l/x", "x");
        through_link_upwards_is_inside: Tree(&["l", "x"]), |_| new().symlink("l", "../..").file("l/x", "x");
        through_link_to_own_directory: Tree(&["d", "d/x", "l"]), |_| {
            new().dir("d/", 0o755).symlink("l", "d").file("l/x", "x")
        };
        through_absolute_link_to_own_directory: Tree(&["d", "d/e", "d/e/x", "l"]), |_| {
            new().dir("d/e/", 0o755).symlink("l", "/d/e").file("l/x", "x")
        };
        through_link_to_a_file: No("parent"), |_| file("f").symlink("l", "f").file("l/x", "x");
        through_a_file: No("not a directory"), |_| file("f").file("f/x", "x");
        through_chain_of_links: Tree(&["a", "b", "c", "d", "d/x"]), |_| {
            new().dir("d/", 0o755).symlink("c", "d").symlink("b", "c").symlink("a", "b").file("a/x", "x")
        };
        through_two_links_that_are_a_loop: No("parent"), |_| {
            new().symlink("a", "b").symlink("b", "a").file("a/x", "x")
        };
        through_link_to_itself: No("parent"), |_| new().symlink("a", "a").file("a/x", "x");
        through_41_links: No("parent"), |_| {
            let chain = (0..41).fold(new().dir("l41/", 0o755), |layer, n| {
                layer.symlink(&format!("l{n}"), &format!("l{}", n + 1))
            });
            chain.file("l0/x", "x")
        };

        // A link in the last place is replaced, never followed.
        file_over_link_to_outside: Line("l", "file 1 "), |p| {
            new().symlink("l", &format!("{}/file", p.outside())).file("l", "x")
        };
        file_over_dangling_link: Tree(&["l"]), |p| new().symlink("l", &format!("{}/new", p.outside())).file("l", "x");
        directory_over_link: Line("l", "mode=700"), |p| new().symlink("l", &p.outside()).dir("l/", 0o700);
        fifo_over_link: Line("l", "fifo"), |p| {
            new().symlink("l", &format!("{}/file", p.outside())).head(Head::new(b'6', "l"), "")
        };
        link_over_link: Line("l", "link to \"other\""), |p| new().symlink("l", &p.outside()).symlink("l", "other");
        hard_link_over_link: Line("l", "same as \"a\""), |p| {
            file("a").symlink("l", &format!("{}/file", p.outside())).hard_link("l", "a")
        };
        whiteout_of_a_links_target: Tree(&["d", "d/f", "l"]), |_| {
            new().dir("d/", 0o755).file("d/f", "").symlink("l", "d/f").file(".wh.l", "")
        };
        link_attributes_are_its_own: Line("l", "time=1600000000."), |p| new().symlink("l", &p.outside());

        // Directories that turn into links and back.
        directory_to_link_then_file_in_it: No("not a directory"), |p| {
            new().dir("d/", 0o755).file("d/a", "").symlink("d", &p.outside()).file("d/b", "")
        };
        directory_to_link_and_back: Tree(&["d", "d/b"]), |p| {
            new()
                .dir("d/", 0o755)
                .file("d/a", "")
                .symlink("d", &p.outside())
                .dir("d/", 0o755)
                .file("d/b", "")
        };
        parent_to_link_after_use: No("not a directory"), |p| {
            new().file("a/b/c", "").symlink("a", &p.outside()).file("a/b/d", "")
        };
        attributes_of_a_directory_that_became_a_link: Line("d", "link to"), |p| {
            new().dir("d/", 0o7777).symlink("d", &p.outside())
        };
        attributes_behind_a_parent_that_became_a_link: Line("other/d", "mode=700"), |_| {
            new()
                .dir("p/", 0o755)
                .dir("p/d/", 0o7777)
                .dir("other/", 0o755)
                .dir("other/d/", 0o700)
                .symlink("p", "other")
        };

        // Hard links.
        hard_link_upwards: No(UP), |_| new().hard_link("l", "../outside/file");
        hard_link_to_outside: No("not in this layer"), |p| {
            new().long(b'K', format!("{}/file", p.outside())).hard_link("l", "")
        };
        hard_link_to_nothing: No("not in this layer"), |_| new().hard_link("l", "missing");
        hard_link_to_a_later_entry: No("not in this layer"), |_| new().hard_link("l", "f").file("f", "");
        hard_link_to_itself: No("not in this layer"), |_| new().hard_link("l", "l");
        hard_link_to_itself_when_it_is_there: Tree(&["l"]), |_| file("l").hard_link("l", "l");
        hard_link_said_twice: Line("l", "same as \"a\""), |_| file("a").hard_link("l", "a").hard_link("l", "a");
        hard_link_to_a_directory: No("directory"), |_| new().dir("d/", 0o755).hard_link("l", "d");
        hard_link_to_the_root: No("directory"), |_| new().hard_link("l", ".");
        hard_link_without_target: No("without a target"), |_| new().hard_link("l", "");
        hard_link_to_a_whiteout: No("whiteout"), |_| file(".wh.w").hard_link("l", "w");
        hard_link_to_a_link_is_that_link: Line("m", "same as \"l\""), |p| {
            new().symlink("l", &format!("{}/file", p.outside())).hard_link("m", "l")
        };
        hard_link_to_a_link_then_file_over_it: Line("l", "link to"), |p| {
            new().symlink("l", &p.outside()).hard_link("m", "l").file("m", "x")
        };
        hard_link_through_a_loop: No("not in this layer"), |_| {
            new().symlink("a", "b").symlink("b", "a").hard_link("l", "a/x")
        };
        hard_link_with_a_size: Line("l", "file 5 "), |_| {
            new().file("a", "12345").head_as_is(Head::new(b'1', "l").link("a").size(5), "")
        };
        hard_link_to_a_fifo: Line("l", "fifo"), |_| new().head(Head::new(b'6', "f"), "").hard_link("l", "f");
        hard_link_replaced_leaves_the_other: Line("a", "file 1 "), |_| {
            file("a").hard_link("b", "a").file("b", "longer")
        };
        hard_link_named_as_whiteout: Tree(&["a", "-w"]), |_| file("a").hard_link(".wh.w", "a");
        symlink_without_target: No("without a target"), |_| new().symlink("l", "");
        symlink_with_a_size: No("cannot have data"), |_| {
            new().head(Head::new(b'2', "l").link("x"), "data")
        };
        symlink_of_4096_bytes: No("too long"), |_| new().long(b'K', "n".repeat(4096)).symlink("l", "");
    }
}

mod kinds {
    use super::*;

    hostile! {
        // The root of a layer is a directory.
        root_as_link: No("layer's root"), |p| new().symlink("./", &p.outside());
        root_as_hard_link: No("layer's root"), |_| file("a").hard_link(".", "a");
        root_as_device: No("layer's root"), |_| new().head(Head::new(b'4', "/").device(8, 0), "");
        root_with_set_id_bits: Line("", "mode=7755"), |_| new().dir("./", 0o7755);
        root_with_an_overlay_mark: Line("", "mode=755"), |_| new()
            .pax(&[("SCHILY.xattr.trusted.overlay.opaque", b"y")])
            .dir("./", 0o755);

        // One thing takes the place of another.
        file_over_file: Line("f", "file 3 "), |_| file("f").file("f", "new");
        file_over_directory: Line("d", "file 1 "), |_| new().dir("d/", 0o755).file("d/e/f", "").file("d", "x");
        directory_over_file: Line("f", "directory"), |_| file("f").dir("f/", 0o755);
        directory_over_fifo: Line("f", "directory"), |_| new().head(Head::new(b'6', "f"), "").dir("f/", 0o755);
        link_over_directory: Line("d", "link to"), |p| {
            new().dir("d/", 0o755).file("d/f", "").symlink("d", &p.outside())
        };
        fifo_over_directory: Line("d", "fifo"), |_| new().file("d/f", "").head(Head::new(b'6', "d"), "");
        directory_twice_keeps_what_is_in_it: Tree(&["d", "d/f"]), |_| {
            new().dir("d/", 0o700).file("d/f", "").dir("d/", 0o755)
        };
        file_over_set_id_file: Line("f", "mode=644"), |_| new().file_mode("f", "", 0o6755).file("f", "");
        set_id_over_its_hard_link: Line("a", "mode=644"), |_| {
            file("a").hard_link("b", "a").file_mode("b", "", 0o4755)
        };

        // Whiteouts.
        whiteout_of_nothing: No("names no file"), |_| file(".wh.");
        whiteout_of_dot: No("names no file"), |_| file(".wh..");
        whiteout_of_dot_dot: No("names no file"), |_| file(".wh...");
        whiteout_with_slash: No("names no file"), |_| new().dir(".wh./", 0o755);
        whiteout_as_directory: Tree(&["-x"]), |_| new().dir(".wh.x/", 0o755);
        whiteout_as_link: Tree(&["-x"]), |p| new().symlink(".wh.x", &p.outside());
        whiteout_as_device: Tree(&["-x"]), |_| new().head(Head::new(b'3', ".wh.x").device(1, 3), "");
        whiteout_with_data: Tree(&["-x", "y"]), |_| new().file(".wh.x", "data").file("y", "");
        whiteout_twice: Tree(&["-x"]), |_| file(".wh.x").file(".wh.x", "");
        whiteout_of_a_whiteout_name: Tree(&[]), |_| file(".wh..wh.x");
        whiteout_in_an_unknown_directory: Tree(&["d", "-d/x"]), |_| file("d/.wh.x");
        whiteout_as_parent: No("below a whiteout"), |_| file(".wh.x/y");
        whiteout_below_a_file: No("not a directory"), |_| file("f").file("f/.wh.x", "");
        whiteout_then_directory_hides: Line("x", "trusted.overlay.opaque=[79]"), |_| {
            file(".wh.x").dir("x/", 0o755)
        };
        whiteout_then_implied_directory_hides: Line("x", "trusted.overlay.opaque=[79]"), |_| {
            file(".wh.x").file("x/y", "")
        };
        directory_then_whiteout_hides: Line("x", "trusted.overlay.opaque=[79]"), |_| {
            new().dir("x/", 0o755).file(".wh.x", "")
        };
        opaque_marker_below_a_file: No("not a directory"), |_| file("f").file("f/.wh..wh..opq", "");
        opaque_marker_as_directory: Line("d", "trusted.overlay.opaque=[79]"), |_| new().dir("d/.wh..wh..opq/", 0o755);
        aufs_bookkeeping_is_left_out: Tree(&["x"]), |_| {
            new().dir(".wh..wh.plnk/", 0o700).file(".wh..wh.plnk/1.2", "").file(".wh..wh.aufs", "").file("x", "")
        };

        // Devices and other things.
        device_is_left_out: Tree(&["-null"]), |_| new().head(Head::new(b'3', "null").device(1, 3), "");
        block_device_is_left_out: Tree(&["-sda"]), |_| new().head(Head::new(b'4', "sda").device(8, 0), "");
        device_of_odd_number: Tree(&["-n"]), |_| {
            new().head(Head::new(b'3', "n").field(329, &[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]), "")
        };
        device_number_too_large: No("number"), |_| {
            new().head(Head::new(b'3', "n").field(329, &[0x80, 0, 0, 1, 0, 0, 0, 0]), "")
        };
        device_zero_is_overlayfs_own: No("0:0"), |_| new().head(Head::new(b'3', "n"), "");
        device_with_data: No("cannot have data"), |_| new().head(Head::new(b'3', "n").device(1, 3), "x");
        fifo_at_etc_passwd: Line("etc/passwd", "fifo"), |_| new().head(Head::new(b'6', "etc/passwd"), "");
        fifo_at_etc_group: Line("etc/group", "fifo"), |_| new().head(Head::new(b'6', "etc/group"), "");
        fifo_over_etc_passwd: Line("etc/passwd", "fifo"), |_| {
            file("etc/passwd").head(Head::new(b'6', "etc/passwd"), "")
        };
        fifo_with_data: No("cannot have data"), |_| new().head(Head::new(b'6', "f"), "x");
        socket: No("unknown"), |_| new().head(Head::new(b's', "s"), "");
        link_at_dev: Line("dev", "link to"), |p| new().symlink("dev", &p.outside());
        link_at_dev_null: Line("dev/null", "link to"), |p| {
            new().symlink("dev/null", &format!("{}/file", p.outside()))
        };
        link_at_dev_pts: Line("dev/pts", "link to"), |p| new().symlink("dev/pts", &p.outside());
        link_at_proc: Line("proc", "link to"), |p| new().symlink("proc", &p.outside());
        link_at_sys: Line("sys", "link to"), |p| new().symlink("sys", &p.outside());
        link_at_etc_mtab: Line("etc/mtab", "link to"), |_| new().symlink("etc/mtab", "/proc/mounts");
        file_below_proc: Tree(&["proc", "proc/self", "proc/self/exe"]), |_| file("proc/self/exe");
        set_user_id_file: Line("f", "mode=4755"), |_| new().file_mode("f", "", 0o4755);
        set_group_id_directory: Line("d", "mode=2775"), |_| new().dir("d/", 0o2775).file("d/f", "");
        set_group_id_is_not_inherited: Line("d/e", "mode=755"), |_| new().dir("d/", 0o2775).dir("d/e/", 0o755);
        sticky_directory: Line("d", "mode=1777"), |_| new().dir("d/", 0o1777);
        directory_without_rights: Line("d/f", "file 1 "), |_| new().dir("d/", 0).file("d/f", "x");
        mode_with_type_bits: Line("f", "mode=644"), |_| new().head(Head::new(b'0', "f").mode(0o120_644), "");
        mode_of_all_bits: Line("f", "mode=7777"), |_| new().head(Head::new(b'0', "f").mode(0o7777), "");
        contiguous_file_is_a_file: Line("f", "file 1 "), |_| new().head(Head::new(b'7', "f"), "x");
        directory_with_data: No("cannot have data"), |_| new().head(Head::new(b'5', "d/"), "x");
        volume_label: No("unknown"), |_| new().head(Head::gnu(b'V', "label"), "");
        multi_volume_part: No("unknown"), |_| new().head(Head::gnu(b'M', "part"), "");
        dumped_directory: No("unknown"), |_| new().head(Head::gnu(b'D', "d/"), "");
        old_long_names: No("unknown"), |_| new().head(Head::gnu(b'N', "x"), "");
        solaris_acl: No("unknown"), |_| new().head(Head::new(b'A', "x"), "");
        type_of_high_bit: No("unknown"), |_| new().head(Head::new(0xff, "x"), "");
    }
}

mod headers {
    use super::*;

    const MALFORMED: &str = "PAX record is malformed";

    hostile! {
        // PAX.
        pax_size_larger_than_header: Line("f", "file 600 "), |_| {
            new().pax(&[("size", b"600")]).head_as_is(Head::new(b'0', "f").size(5), [b'x'; 600])
        };
        pax_size_smaller_than_header: Tree(&["f", "g"]), |_| {
            new().pax(&[("size", b"5")]).head_as_is(Head::new(b'0', "f").size(600), "12345").file("g", "")
        };
        pax_size_beyond_the_archive: No("middle of an entry"), |_| {
            new().pax(&[("size", b"60000")]).head_as_is(Head::new(b'0', "f"), "x")
        };
        pax_size_beyond_the_budget: No("unpacks to more"), |_| {
            new().pax(&[("size", b"9223372036854775807")]).head_as_is(Head::new(b'0', "f"), "x")
        };
        pax_size_negative: No("number"), |_| new().pax(&[("size", b"-1")]).file("f", "x");
        pax_size_in_hexadecimal: No("number"), |_| new().pax(&[("size", b"0x10")]).file("f", "x");
        pax_size_of_a_directory: No("cannot have data"), |_| new().pax(&[("size", b"512")]).dir("d/", 0o755);
        pax_size_of_21_digits: No("number"), |_| new().pax(&[("size", b"100000000000000000000")]).file("f", "x");
        pax_key_twice_the_same: Tree(&["p"]), |_| new().pax(&[("path", b"p"), ("path", b"p")]).file("f", "");
        pax_key_twice_different: No("contradict"), |_| new().pax(&[("path", b"p"), ("path", b"q")]).file("f", "");
        pax_size_twice_different: No("contradict"), |_| new().pax(&[("size", b"1"), ("size", b"2")]).file("f", "x");
        pax_empty_value_means_the_header: Tree(&["f"]), |_| new().pax(&[("path", b"")]).file("f", "");
        pax_unknown_keys: Tree(&["f"]), |_| new().pax(&[("VENDOR.key", b"value"), ("comment", b"x\ny")]).file("f", "");
        pax_without_records: Tree(&["f"]), |_| new().pax_raw(b'x', b"").file("f", "");
        pax_without_equals: No(MALFORMED), |_| new().pax_raw(b'x', b"6 path\n").file("f", "");
        pax_without_key: No(MALFORMED), |_| new().pax_raw(b'x', b"5 =v\n").file("f", "");
        pax_without_newline: No(MALFORMED), |_| new().pax_raw(b'x', b"10 path=ab").file("f", "");
        pax_length_zero: No(MALFORMED), |_| new().pax_raw(b'x', b"0 path=a\n").file("f", "");
        pax_length_too_short: No(MALFORMED), |_| new().pax_raw(b'x', b"5 path=a\n").file("f", "");
        pax_length_too_long: No(MALFORMED), |_| new().pax_raw(b'x', b"99 path=a\n").file("f", "");
        pax_length_negative: No(MALFORMED), |_| new().pax_raw(b'x', b"-9 path=a\n").file("f", "");
        pax_length_overflows: No(MALFORMED), |_| new().pax_raw(b'x', b"18446744073709551616 a=b\n").file("f", "");
        pax_length_without_space: No(MALFORMED), |_| new().pax_raw(b'x', b"99999999999999999999999").file("f", "");
        pax_filled_with_nul: No(MALFORMED), |_| new().pax_raw(b'x', &[0; 100]).file("f", "");
        pax_hides_a_record_in_a_value: Tree(&["f"]), |_| {
            new().pax(&[("comment", b"x\n11 path=../e\n")]).file("f", "")
        };
        pax_twice: No("two extension headers"), |_| new().pax(&[("path", b"a")]).pax(&[("path", b"b")]).file("f", "");
        pax_for_nothing: No("describes no entry"), |_| file("f").pax(&[("path", b"a")]);
        pax_global_comment: Tree(&["f"]), |_| {
            new().pax_type(tar::EntryType::XGlobalHeader, &[("comment", b"1234")]).file("f", "")
        };
        pax_global_path: No("global"), |_| {
            new().pax_type(tar::EntryType::XGlobalHeader, &[("path", b"evil")]).file("f", "")
        };
        pax_global_size: No("global"), |_| {
            new().pax_type(tar::EntryType::XGlobalHeader, &[("size", b"0")]).file("f", "x")
        };
        pax_global_attribute: No("global"), |_| {
            new()
                .pax_type(tar::EntryType::XGlobalHeader, &[("SCHILY.xattr.user.x", b"y")])
                .file("f", "x")
        };
        pax_global_between_entries: Tree(&["f", "g"]), |_| {
            file("f").pax_type(tar::EntryType::XGlobalHeader, &[("comment", b"x")]).file("g", "")
        };
        pax_global_between_pax_and_entry: No("describes no entry"), |_| {
            new()
                .pax(&[("path", b"a")])
                .pax_type(tar::EntryType::XGlobalHeader, &[("comment", b"x")])
                .file("f", "")
        };
        pax_of_two_megabytes: No("extended headers"), |_| {
            new().pax(&[("comment", &vec![b'x'; 2 << 20])]).file("f", "")
        };
        pax_said_to_be_ten_gigabytes: No("extended headers"), |_| {
            new().head_as_is(Head::new(b'x', "p").field(124, &[0x80, 0, 0, 0, 0, 0, 0, 2, 0x54, 0x0b, 0xe4, 0]), "")
        };

        // GNU's long names.
        long_name_and_pax_path_agree: Tree(&["same"]), |_| {
            new().long(b'L', "same").pax(&[("path", b"same")]).file("f", "")
        };
        long_name_and_pax_path_differ: No("contradict"), |_| {
            new().long(b'L', "one").pax(&[("path", b"two")]).file("f", "")
        };
        long_link_and_pax_link_differ: No("contradict"), |_| {
            new().long(b'K', "one").pax(&[("linkpath", b"two")]).symlink("f", "")
        };
        long_name_twice: No("two extension headers"), |_| new().long(b'L', "a").long(b'L', "b").file("f", "");
        long_link_twice: No("two extension headers"), |_| new().long(b'K', "a").long(b'K', "b").symlink("f", "");
        long_name_for_nothing: No("describes no entry"), |_| file("f").long(b'L', "a");
        long_name_ends_at_nul: Tree(&["a"]), |_| new().long(b'L', "a\0b").file("f", "");
        long_names_without_end: No("extended headers"), |_| new().long(b'L', "n".repeat(1 << 20)).file("f", "");
        long_name_in_a_v7_header: No("unknown"), |_| {
            new().head(Head::new(b'L', "x").field(257, &[0; 8]), "name\0")
        };
        v7_file: Line("f", "file 1 "), |_| new().head(Head::new(0, "f").field(257, &[0; 8]), "x");
        v7_directory: Line("d", "directory"), |_| new().head(Head::new(0, "d/").field(257, &[0; 8]), "");

        // Numbers.
        size_negative: No("number"), |_| new().head_as_is(Head::new(b'0', "f").field(124, &[0xff; 12]), "");
        size_of_95_bits: No("number"), |_| {
            let mut field = [0xff; 12];
            field[0] = 0xbf;
            new().head_as_is(Head::new(b'0', "f").field(124, &field), "")
        };
        size_beyond_the_budget: No("unpacks to more"), |_| {
            new().head_as_is(Head::new(b'0', "f").field(124, &[0x80, 0, 0, 0, 0x7f, 0, 0, 0, 0, 0, 0, 0]), "")
        };
        size_not_octal: No("number"), |_| new().head_as_is(Head::new(b'0', "f").field(124, b"0000000009z\0"), "");
        size_in_base_256: Line("f", "file 5 "), |_| {
            new().head_as_is(Head::new(b'0', "f").field(124, &[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5]), "12345")
        };
        size_without_end: Line("f", "file 5 "), |_| {
            new().head_as_is(Head::new(b'0', "f").field(124, b"000000000005"), "12345")
        };
        mode_not_octal: No("number"), |_| new().head(Head::new(b'0', "f").field(100, b"rwxr-xr-"), "");
        user_of_31_bits: Line("f", "owner=2147483647:0 "), |_| new().pax(&[("uid", b"2147483647")]).file("f", "");
        user_of_32_bits: Line("f", "owner=2147483648:0 "), |_| new().pax(&[("uid", b"2147483648")]).file("f", "");
        user_the_last_but_one: Line("f", "owner=4294967294:0 "), |_| {
            new().pax(&[("uid", b"4294967294")]).file("f", "")
        };
        user_that_means_none: No("number"), |_| new().pax(&[("uid", b"4294967295")]).file("f", "");
        group_that_means_none: No("number"), |_| new().pax(&[("gid", b"4294967295")]).file("f", "");
        user_beyond_32_bits_does_not_wrap: No("number"), |_| new().pax(&[("uid", b"4294967296")]).file("f", "");
        group_beyond_32_bits_does_not_wrap: No("number"), |_| {
            new().head(Head::new(b'0', "f").field(116, &[0x80, 0, 0, 1, 0, 0, 0, 0]), "")
        };
        user_negative: No("number"), |_| new().pax(&[("uid", b"-1")]).file("f", "");
        user_negative_in_base_256: No("number"), |_| new().head(Head::new(b'0', "f").field(108, &[0xff; 8]), "");
        user_by_name_is_not_looked_up: Line("f", "owner=0:0 "), |_| {
            new().head(Head::new(b'0', "f").field(265, b"nobody").field(297, b"nogroup"), "")
        };

        // Times.
        time_before_1970: Line("f", "time=-86400."), |_| new().pax(&[("mtime", b"-86400")]).file("f", "");
        time_before_1970_with_fraction: Line("f", "time=-2.250000000"), |_| {
            new().pax(&[("mtime", b"-1.75")]).file("f", "")
        };
        time_before_1970_in_base_256: Line("f", "time=-1."), |_| {
            new().head(Head::new(b'0', "f").field(136, &[0xff; 12]), "")
        };
        time_in_1901: Line("f", "time=-2147483648."), |_| new().pax(&[("mtime", b"-2147483648")]).file("f", "");
        time_far_ahead: Line("f", "file 0 "), |_| new().pax(&[("mtime", b"9223372036854775807")]).file("f", "");
        time_far_ahead_in_base_256: Line("f", "file 0 "), |_| {
            new().head(Head::new(b'0', "f").field(136, &[0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]), "")
        };
        time_not_a_number: No("number"), |_| new().pax(&[("mtime", b"yesterday")]).file("f", "");
        time_with_many_digits: Line("f", "time=1.123456789"), |_| {
            new().pax(&[("mtime", b"1.1234567891234567890")]).file("f", "")
        };
        time_of_a_directory_is_last: Line("d", "time=5."), |_| {
            new().pax(&[("mtime", b"5")]).dir("d/", 0o755).file("d/f", "")
        };

        // Attributes.
        attribute_of_the_user: Line("f", "user.a=[78]"), |_| {
            new().pax(&[("SCHILY.xattr.user.a", b"x")]).file("f", "")
        };
        attribute_with_newlines: Line("f", "user.a=[0a, 0a]"), |_| {
            new().pax(&[("SCHILY.xattr.user.a", b"\n\n")]).file("f", "")
        };
        attribute_of_overlayfs: Line("d", "time=1600000000.000000000"), |_| {
            new()
                .pax(&[
                    ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
                    ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
                    ("SCHILY.xattr.user.overlay.opaque", b"y"),
                ])
                .dir("d/", 0o755)
        };
        attribute_capability: Line("f", "security.capability="), |_| {
            let value = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            new().pax(&[("SCHILY.xattr.security.capability", &value)]).file("f", "")
        };
        attribute_capability_malformed: No("attributes"), |_| {
            new().pax(&[("SCHILY.xattr.security.capability", b"nonsense")]).file("f", "")
        };
        attribute_without_name: No(MALFORMED), |_| new().pax(&[("SCHILY.xattr.", b"x")]).file("f", "");
        attribute_name_with_nul: No(MALFORMED), |_| new().pax(&[("SCHILY.xattr.user.a\0b", b"x")]).file("f", "");
        attribute_too_large: No("attributes"), |_| {
            new().pax(&[("SCHILY.xattr.user.a", &[b'x'; 70_000])]).file("f", "")
        };
        attributes_too_many: No("extended attributes"), |_| {
            let names: Vec<String> = (0..300).map(|n| format!("SCHILY.xattr.user.{n}")).collect();
            let records: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b"x"[..])).collect();
            new().pax(&records).file("f", "")
        };
        attribute_of_the_user_on_a_link: Line("l", "link to"), |_| {
            new().pax(&[("SCHILY.xattr.user.a", b"x")]).symlink("l", "x")
        };
        attribute_does_not_follow_a_link: Line("l", "time=1."), |p| {
            new()
                .pax(&[("SCHILY.xattr.user.a", b"x"), ("mtime", b"1")])
                .symlink("l", &format!("{}/file", p.outside()))
        };
    }
}

mod sparse {
    use super::*;

    const MAP: &str = "sparse map";

    fn v01(map: &str, size: &str, data: &[u8]) -> Layer {
        new()
            .pax(&[
                ("GNU.sparse.map", map.as_bytes()),
                ("GNU.sparse.size", size.as_bytes()),
            ])
            .file("f", data)
    }

    fn v10(size: &str, data: &[u8]) -> Layer {
        new()
            .pax(&[
                ("GNU.sparse.major", b"1"),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.name", b"f"),
                ("GNU.sparse.realsize", size.as_bytes()),
            ])
            .file("GNUSparseFile.0/f", data)
    }

    /// The map in front of the data, filled to a block.
    fn mapped(map: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = map.as_bytes().to_vec();
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes.extend_from_slice(data);
        bytes
    }

    fn old(segments: &[(u64, u64)], real_size: u64, data: &[u8]) -> Layer {
        let mut head = Head::gnu(b'S', "f").field(483, format!("{real_size:011o}\0").as_bytes());
        for (at, (offset, length)) in segments.iter().enumerate() {
            let text = format!("{offset:011o}\0{length:011o}\0");
            head = head.field(386 + 24 * at, text.as_bytes());
        }
        new().head(head, data)
    }

    hostile! {
        sparse_of_the_old_kind: Line("f", "file 2000 "), |_| old(&[(1000, 5)], 2000, b"12345");
        sparse_of_the_old_kind_all_hole: Line("f", "file 2000 "), |_| old(&[(2000, 0)], 2000, b"");
        sparse_old_overlaps: No(MAP), |_| old(&[(0, 512), (100, 512)], 2000, &[b'x'; 1024]);
        sparse_old_out_of_order: No(MAP), |_| old(&[(1024, 512), (0, 512)], 2000, &[b'x'; 1024]);
        sparse_old_beyond_its_size: No(MAP), |_| old(&[(1000, 5)], 1001, b"12345");
        sparse_old_with_too_little_data: No(MAP), |_| old(&[(1000, 500)], 2000, b"12345");
        sparse_old_with_too_much_data: No(MAP), |_| old(&[(1000, 1)], 2000, b"12345");
        sparse_old_with_an_empty_extension: Line("f", "file 0 "), |_| {
            new().raw(&Head::gnu(b'S', "f").field(482, b"\x01").block())
        };
        sparse_old_without_end: No("extended headers"), |_| {
            let mut extension = [0; 512];
            extension[504] = 1;
            let head = Head::gnu(b'S', "f").field(482, b"\x01").block();
            (0..3000).fold(new().raw(&head), |layer, _| layer.raw(&extension))
        };
        sparse_0_0: Line("f", "file 20 "), |_| {
            new()
                .pax(&[
                    ("GNU.sparse.size", b"20"),
                    ("GNU.sparse.numblocks", b"2"),
                    ("GNU.sparse.offset", b"1"),
                    ("GNU.sparse.numbytes", b"2"),
                    ("GNU.sparse.offset", b"10"),
                    ("GNU.sparse.numbytes", b"3"),
                ])
                .file("f", "12345")
        };
        sparse_0_0_in_the_wrong_order: No(MAP), |_| {
            new()
                .pax(&[("GNU.sparse.size", b"20"), ("GNU.sparse.numbytes", b"2"), ("GNU.sparse.offset", b"1")])
                .file("f", "12")
        };
        sparse_0_1: Line("f", "file 20 "), |_| v01("1,2,10,3", "20", b"12345");
        sparse_0_1_odd: No(MAP), |_| v01("1,2,10", "20", b"12345");
        sparse_0_1_overlaps: No(MAP), |_| v01("0,3,2,2", "20", b"12345");
        sparse_0_1_not_numbers: No(MAP), |_| v01("1,-2", "20", b"12345");
        sparse_0_1_overflows: No(MAP), |_| v01("18446744073709551615,5", "20", b"12345");
        sparse_0_1_sum_overflows: No(MAP), |_| {
            v01("0,18446744073709551615,18446744073709551615,6", "20", b"12345")
        };
        sparse_without_a_size: No(MAP), |_| new().pax(&[("GNU.sparse.map", b"0,1")]).file("f", "x");
        sparse_of_ten_terabytes: No("unpacks to more"), |_| v01("0,1", "10995116277760", b"x");
        sparse_1_0: Line("f", "file 20 "), |_| v10("20", &mapped("2\n1\n2\n10\n3\n", b"12345"));
        sparse_1_0_all_hole: Line("f", "file 20 "), |_| v10("20", &mapped("0\n", b""));
        sparse_1_0_without_map: No(MAP), |_| v10("20", b"");
        sparse_1_0_cut_map: No(MAP), |_| v10("20", b"2\n1\n");
        sparse_1_0_endless_number: No(MAP), |_| v10("20", &[b'1'; 600]);
        sparse_1_0_not_a_number: No(MAP), |_| v10("20", b"x\n");
        sparse_1_0_empty_number: No(MAP), |_| v10("20", b"\n");
        sparse_1_0_many_segments: No(MAP), |_| v10("20", b"99999999999\n1\n");
        sparse_1_0_not_filled: No(MAP), |_| v10("20", b"0\n");
        sparse_version_2: No(MAP), |_| {
            new()
                .pax(&[("GNU.sparse.major", b"2"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"1")])
                .file("f", "x")
        };
        sparse_size_twice: No("contradict"), |_| {
            new()
                .pax(&[("GNU.sparse.size", b"1"), ("GNU.sparse.realsize", b"2"), ("GNU.sparse.map", b"0,1")])
                .file("f", "x")
        };
    }
}

mod bytes {
    use super::*;

    fn archive() -> Vec<u8> {
        file("f").tar()
    }

    fn gzip(tar: &[u8]) -> Vec<u8> {
        Packing::Gzip.pack(tar)
    }

    fn zstd(tar: &[u8]) -> Vec<u8> {
        Packing::Zstd.pack(tar)
    }

    fn cut(bytes: &[u8], length: usize) -> Vec<u8> {
        bytes[..length].to_vec()
    }

    hostile_bytes! {
        // The end of an archive.
        end_missing: Tree(&["f"]), |_| cut(&archive(), 1024);
        end_of_one_block: Tree(&["f"]), |_| cut(&archive(), 1536);
        end_in_the_middle: No("single zero block"), |_| {
            [&archive()[..1536], &file("g").tar()[..]].concat()
        };
        end_then_data: Tree(&["f"]), |_| [&archive()[..], b"more"].concat();
        end_then_a_second_archive: Tree(&["f"]), |_| [archive(), file("g").tar()].concat();
        empty_blob: Tree(&[]), |_| Vec::new();
        only_an_end: Tree(&[]), |_| vec![0; 1024];
        one_zero_byte: No("middle of an entry"), |_| vec![0];
        cut_in_a_header: No("middle of an entry"), |_| cut(&archive(), 300);
        cut_in_data: No("middle of an entry"), |_| cut(&new().file("f", [b'x'; 2000]).tar(), 1000);
        cut_in_a_sparse_extension: No("middle of an entry"), |_| {
            Head::gnu(b'S', "f").field(482, b"\x01").block().to_vec()
        };
        cut_before_padding: Tree(&["f"]), |_| cut(&archive(), 513);
        cut_in_padding: Tree(&["f"]), |_| cut(&archive(), 600);
        cut_at_the_last_byte_of_data: No("middle of an entry"), |_| cut(&new().file("f", "two").tar(), 514);
        cut_in_padding_of_a_name: No("describes no entry"), |_| cut(&new().long(b'L', "name").tar(), 600);
        cut_in_padding_of_a_sparse_map: No("sparse map"), |_| {
            let records: [(&str, &[u8]); 4] = [
                ("GNU.sparse.major", b"1"),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.name", b"f"),
                ("GNU.sparse.realsize", b"5"),
            ];
            let layer = new().pax(&records).file("f", "1\n0\n5\n").tar();
            let data = layer.len() - 1024 - 512;
            cut(&layer, data + 6)
        };
        cut_in_an_extension: No("middle of an entry"), |_| cut(&new().long(b'L', "name").tar(), 515);
        checksum_wrong: No("checksum"), |_| {
            let mut archive = archive();
            archive[0] ^= 1;
            archive
        };
        checksum_of_signed_bytes: Line("\u{e9}", "file 1 "), |_| {
            let mut block = Head::new(b'0', "\u{e9}").size(1).block();
            block[148..156].fill(b' ');
            let sum: i64 = block.iter().map(|byte| i64::from(byte.cast_signed())).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            new().raw(&block).raw(b"x").raw(&[0; 511]).tar()
        };
        text: No("number"), |_| b"<html>not found</html>".repeat(100);
        ones: No("number"), |_| vec![0xff; 2048];

        // Packing.
        gzip_plain: Tree(&["f"]), |_| gzip(&archive());
        gzip_in_two_members: Tree(&["f"]), |_| {
            let archive = archive();
            [gzip(&archive[..700]), gzip(&archive[700..])].concat()
        };
        gzip_then_garbage: No("cannot be read"), |_| [gzip(&archive()), b"garbage".to_vec()].concat();
        gzip_cut: No("cannot be read"), |_| {
            let packed = gzip(&new().file("f", (0..=255).cycle().take(100_000).collect::<Vec<u8>>()).tar());
            cut(&packed, packed.len() / 2)
        };
        gzip_without_trailer: No("cannot be read"), |_| {
            let packed = gzip(&archive());
            cut(&packed, packed.len() - 8)
        };
        gzip_with_wrong_checksum: No("cannot be read"), |_| {
            let mut packed = gzip(&archive());
            let at = packed.len() - 8;
            packed[at] ^= 1;
            packed
        };
        gzip_with_wrong_length: No("cannot be read"), |_| {
            let mut packed = gzip(&archive());
            let at = packed.len() - 4;
            packed[at] ^= 1;
            packed
        };
        gzip_of_gzip: No("middle of an entry"), |_| gzip(&gzip(&new().file("f", b"incompressible".repeat(99)).tar()));
        gzip_header_only: No("cannot be read"), |_| vec![0x1f, 0x8b];
        gzip_with_an_endless_name: No("cannot be read"), |_| {
            let mut bytes = vec![0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 3];
            bytes.extend(std::iter::repeat_n(b'n', 100_000));
            bytes
        };
        gzip_bomb: No("more than"), |_| gzip(&new().file("f", vec![0; 50 << 20]).tar());
        zstd_plain: Tree(&["f"]), |_| zstd(&archive());
        zstd_in_two_frames: Tree(&["f"]), |_| {
            let archive = archive();
            [zstd(&archive[..700]), zstd(&archive[700..])].concat()
        };
        zstd_with_skippable_frames: Tree(&["f"]), |_| {
            let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0][..], b"skip"].concat();
            [&skippable[..], &zstd(&archive()), &skippable].concat()
        };
        zstd_then_garbage: No("cannot be read"), |_| [zstd(&archive()), b"garbage".to_vec()].concat();
        zstd_cut: No("cannot be read"), |_| {
            let packed = zstd(&archive());
            cut(&packed, packed.len() - 3)
        };
        zstd_damaged: No("cannot be read"), |_| {
            let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
            encoder.include_checksum(true).unwrap();
            std::io::Write::write_all(&mut encoder, &archive()).unwrap();
            let mut packed = encoder.finish().unwrap();
            let at = packed.len() - 2;
            packed[at] ^= 1;
            packed
        };
        zstd_with_an_oversized_window: No("cannot be read"), |_| {
            let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
            encoder.window_log(27).unwrap();
            encoder.include_contentsize(false).unwrap();
            std::io::Write::write_all(&mut encoder, &new().file("f", vec![7; 9 << 20]).tar()).unwrap();
            encoder.finish().unwrap()
        };
        zstd_bomb: No("more than"), |_| zstd(&new().file("f", vec![0; 50 << 20]).tar());
        xz_is_not_spoken: No("number"), |_| {
            [&[0xfd, b'7', b'z', b'X', b'Z', 0][..], &[1; 600][..]].concat()
        };

        // More than the budget.
        bytes_beyond_the_budget: No("unpacks to more than 67108864 bytes"), |_| {
            (0..66).fold(new(), |layer, n| layer.file(&format!("f{n}"), vec![n; 1 << 20])).tar()
        };
        entries_beyond_the_budget: No("more than 5000 entries"), |_| {
            (0..5001).fold(new(), |layer, n| layer.symlink(&format!("{n}"), "x")).tar()
        };
        directories_nobody_described: No("without an entry"), |_| {
            (0..200).fold(new(), |layer, n| layer.file(&format!("d{n}/f"), "")).tar()
        };
        one_name_ten_thousand_times: No("more than 5000 entries"), |_| {
            (0..10_000).fold(new(), |layer, _| layer.file("f", "")).tar()
        };
        directories_taken_away_again_and_again: Tree(&["f"]), |_| {
            (0..500).fold(new(), |layer, n| layer.dir("f/", 0o755).file(&format!("f/{n}/x"), "").file("f", "")).tar()
        };
        deep_through_links: Tree(&["x"]), |_| {
            // Each round goes a hundred directories deeper through the link, further than a path can say, and then
            // all of it is replaced by one file.
            let step = "d/".repeat(40);
            let mut layer = new().dir("x/", 0o755).dir(&format!("x/{step}"), 0o755);
            for round in 0..2 {
                layer = layer.dir(&format!("x/{step}{}", "e/".repeat(round + 1)), 0o755);
            }
            layer.file("x", "").tar()
        };
    }
}

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
