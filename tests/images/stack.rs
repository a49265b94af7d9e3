//! What layers say about each other, seen through the mounted stack.

use std::{collections::BTreeMap, fs, path::PathBuf};

use podling::{image::Places, sys::held::Held};

use super::{
    build::{Layer, Packing, TestImage},
    pull::{TestStore, inside, writable},
    tree::tree,
};

/// The tree of an image with these layers, without the times of directories nobody described.
fn stacked(layers: Vec<Layer>) -> BTreeMap<PathBuf, String> {
    let store = TestStore::new();
    let layout = store.directory.path().join("layout");
    let layers = layers.into_iter().map(Layer::tar).collect();
    TestImage::oci(layers, Packing::Gzip).write_layout(&layout, "x");
    let image = store.pull(&format!("oci:{}", layout.display())).unwrap();
    let rootfs = image.rootfs(None).unwrap();
    let read_only = tree(&inside(&rootfs));
    let upper = store.directory.path().join("upper");
    let writable = writable(&image, &upper);
    assert_eq!(read_only, tree(&inside(&writable)));
    read_only
}

fn paths(tree: &BTreeMap<PathBuf, String>) -> Vec<&str> {
    tree.keys().skip(1).map(|path| path.to_str().unwrap()).collect()
}

#[test]
fn a_whiteout_is_about_lower_layers_only_and_in_any_order() {
    let lower = || Layer::new().dir("d/", 0o755).file("d/low", "").file("f", "");
    // The name is in the layer itself, before and after its whiteout: the layer's own stays, the lower one goes.
    let before = Layer::new().dir("d/", 0o755).file("d/high", "").file(".wh.d", "");
    let after = Layer::new().file(".wh.d", "").dir("d/", 0o755).file("d/high", "");
    let unsaid = Layer::new().file(".wh.d", "").file("d/high", "");
    let opaque_first = Layer::new()
        .dir("d/", 0o755)
        .file("d/.wh..wh..opq", "")
        .file("d/high", "");
    let opaque_last = Layer::new()
        .dir("d/", 0o755)
        .file("d/high", "")
        .file("d/.wh..wh..opq", "");
    for upper in [before, after, unsaid, opaque_first, opaque_last] {
        assert_eq!(paths(&stacked(vec![lower(), upper])), ["d", "d/high", "f"]);
    }
    let file_before = Layer::new().file("f", "new").file(".wh.f", "");
    let file_after = Layer::new().file(".wh.f", "").file("f", "new");
    for upper in [file_before, file_after] {
        assert_eq!(paths(&stacked(vec![lower(), upper])), ["d", "d/low", "f"]);
    }
}

#[test]
fn an_opaque_root_hides_everything_below() {
    let upper = Layer::new().file(".wh..wh..opq", "").file("only", "");
    assert_eq!(
        paths(&stacked(vec![Layer::new().file("a", "").dir("d/", 0o755), upper])),
        ["only"]
    );
}

#[test]
fn a_layer_that_occurs_twice_counts_at_its_upper_place() {
    let same = || Layer::new().file("a", "").file("b", "");
    let between = Layer::new().file(".wh.a", "").file("c", "");
    assert_eq!(paths(&stacked(vec![same(), between, same()])), ["a", "b", "c"]);
}

#[test]
fn directories_without_entries_keep_the_attributes_of_lower_layers() {
    let lower = Layer::new()
        .dir("tmp/", 0o1777)
        .dir("var/", 0o751)
        .dir("var/mail/", 0o2775)
        .dir("gone/", 0o700)
        .dir("replaced/", 0o700);
    let middle = Layer::new()
        .file("tmp/a", "")
        .file("var/mail/b", "")
        .file("gone/x", "");
    let upper = Layer::new()
        .file(".wh.gone", "")
        .file("replaced/.wh..wh..opq", "")
        .file("replaced/new", "")
        .file("fresh/file", "");
    let tree = stacked(vec![lower, middle, upper]);
    let mode = |path: &str| {
        let line = &tree[&PathBuf::from(path)];
        let at = line.find("mode=").unwrap() + 5;
        line[at..].split(' ').next().unwrap().to_owned()
    };
    assert_eq!(mode("tmp"), "1777");
    assert!(tree[&PathBuf::from("tmp")].contains("time=1600000000."));
    assert_eq!(mode("var"), "751");
    assert_eq!(mode("var/mail"), "2775");
    // Nothing below an opaque directory shows, its attributes neither.
    assert_eq!(mode("replaced"), "755");
    assert_eq!(mode("fresh"), "755");
    assert!(!tree.contains_key(&PathBuf::from("gone")));
}

#[test]
fn places_to_mount_on_lie_under_members_only_and_below_every_layer() {
    let store = TestStore::with(|config| {
        config.places = Places {
            directories: ["proc", "mnt/mesos/sandbox"].map(PathBuf::from).into(),
            files: ["etc/hosts", "etc/hostname"].map(PathBuf::from).into(),
        };
    });
    let layout = store.directory.path().join("layout");
    let layer = Layer::new()
        .dir("etc/", 0o711)
        .file("etc/hosts", "the image's")
        .symlink("proc", "etc");
    TestImage::oci(vec![layer.tar()], Packing::Gzip).write_layout(&layout, "x");
    let image = store.pull(&format!("oci:{}", layout.display())).unwrap();
    assert_eq!(
        paths(&tree(&inside(&image.rootfs(None).unwrap()))),
        ["etc", "etc/hosts", "proc"]
    );

    let place = Held::open(store.directory.path()).unwrap();
    let changes = image.changes(&place, "member").unwrap();
    let root = image.member_root(&changes).unwrap();
    let found = tree(&inside(&root));
    let expected = [
        "etc",
        "etc/hostname",
        "etc/hosts",
        "mnt",
        "mnt/mesos",
        "mnt/mesos/sandbox",
        "proc",
    ];
    assert_eq!(paths(&found), expected);
    // What the image has is as the image has it.
    assert_eq!(
        fs::read_to_string(inside(&root).join("etc/hosts")).unwrap(),
        "the image's"
    );
    assert!(inside(&root).join("proc").is_symlink());
    assert!(found[&PathBuf::from("etc")].contains("711"), "{found:?}");
    // And the member's directory for changes stays empty.
    assert_eq!(fs::read_dir(changes.upper.path()).unwrap().count(), 0);
}
