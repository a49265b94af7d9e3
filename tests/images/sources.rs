//! Where images may come from, and which of several is taken.

use std::{path::Path, process::Command};

use podling::image::PullOptions;

use super::{
    build::{self, Layer, Packing, TestImage},
    pull::{TestStore, inside},
    registry::DockerRegistry,
    tree::{differences, tree},
};

fn image_with(name: &str, docker: bool, architecture: &str) -> TestImage {
    let layer = Layer::new().dir("d/", 0o755).file("d/name", name).tar();
    TestImage::new(vec![layer], Packing::Gzip, docker, architecture)
}

fn name_in(store: &TestStore, reference: &str, options: &PullOptions) -> String {
    let image = store.pull_with(reference, options).unwrap();
    let rootfs = image.rootfs(None).unwrap();
    std::fs::read_to_string(inside(&rootfs).join("d/name")).unwrap()
}

#[test]
fn p_04_an_index_gives_the_image_for_the_platform() {
    let registry = DockerRegistry::start();
    for (docker, list) in [(true, build::DOCKER_LIST), (false, build::OCI_INDEX)] {
        let amd = image_with("amd", docker, "amd64");
        let arm = image_with("arm", docker, "arm64");
        for image in [&amd, &arm] {
            for (digest, blob) in &image.blobs {
                registry.push_blob("multi", digest, blob);
            }
            registry.push_manifest("multi", &image.digest(), image.media_type, &image.manifest);
        }
        let index = build::index(&[("arm64", &arm), ("amd64", &amd)], list);
        registry.push_manifest("multi", "tag", list, &index);
        let store = TestStore::new();
        for reference in [
            format!("{}/multi:tag", registry.address),
            format!("{}/multi@{}", registry.address, build::digest(&index)),
        ] {
            for (platform, name) in [("linux/amd64", "amd"), ("linux/arm64/v8", "arm")] {
                let options = PullOptions {
                    platform: platform.parse().unwrap(),
                    ..PullOptions::default()
                };
                assert_eq!(name_in(&store, &reference, &options), name);
            }
            let options = PullOptions {
                platform: "linux/s390x".parse().unwrap(),
                ..PullOptions::default()
            };
            let error = store.pull_with(&reference, &options).unwrap_err().to_string();
            assert!(
                error.contains("linux/s390x") && error.contains("linux/arm64"),
                "{error}"
            );
        }
    }
}

#[test]
fn an_oci_layout_by_tag_and_without() {
    let store = TestStore::new();
    let layout = store.directory.path().join("layout");
    image_with("laid out", false, "amd64").write_layout(&layout, "some-tag");
    for reference in [
        format!("oci:{}:some-tag", layout.display()),
        format!("oci:{}", layout.display()),
    ] {
        assert_eq!(name_in(&store, &reference, &PullOptions::default()), "laid out");
    }
    let error = store
        .pull(&format!("oci:{}:other", layout.display()))
        .unwrap_err()
        .to_string();
    assert!(error.contains("some-tag"), "{error}");
}

pub fn skopeo(from: &str, to: &str) {
    let output = Command::new("skopeo")
        .args([
            "copy",
            "--insecure-policy",
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
            from,
            to,
        ])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The same image through skopeo and umoci is the same tree.
#[test]
fn i2_umoci_unpacks_the_same_tree() {
    let registry = DockerRegistry::start();
    let image = TestImage::docker(vec![
        Layer::new()
            .dir("./", 0o755)
            .dir("./usr/", 0o755)
            .dir("./usr/bin/", 0o711)
            .file_mode("./usr/bin/tool", "tool", 0o2755)
            .hard_link("./usr/bin/alias", "usr/bin/tool")
            .symlink("./bin", "usr/bin")
            .file("./bin/through-link", "x")
            .owned("./usr/owned", 12345, 54321, b"data")
            .pax(&[
                ("mtime", b"1234567890.987654321"),
                ("SCHILY.xattr.user.a", b"one\ntwo\0"),
            ])
            .file("./usr/fine", "")
            .node("./usr/fifo", tar::EntryType::Fifo, 0, 0)
            .tar(),
        Layer::new()
            .dir("./usr/", 0o750)
            .file("./usr/bin/.wh.tool", "")
            .dir("./usr/owned/", 0o700)
            .file("./usr/owned/now-a-directory", "")
            .tar(),
    ]);
    registry.push("odd", "x", &image);
    let store = TestStore::new();
    let base = store.directory.path();
    let layout = base.join("layout");
    skopeo(
        &format!("docker://{}/odd:x", registry.address),
        &format!("oci:{}:x", layout.display()),
    );
    let bundle = base.join("bundle");
    let output = Command::new("umoci")
        .args(["raw", "unpack", "--image"])
        .arg(format!("{}:x", layout.display()))
        .arg(&bundle)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let pulled = store.pull(&format!("{}/odd:x", registry.address)).unwrap();
    let rootfs = pulled.rootfs(None).unwrap();
    let (ours, theirs) = (tree(&inside(&rootfs)), tree(Path::new(&bundle)));
    assert_eq!(differences(&ours, &theirs), Vec::<String>::new());
}

#[test]
fn p_05_a_layout_is_read_again_when_it_has_changed() {
    let store = TestStore::new();
    let layout = store.directory.path().join("layout");
    let reference = format!("oci:{}", layout.display());
    let options = PullOptions::default();
    for name in ["first", "second"] {
        let _ = std::fs::remove_dir_all(&layout);
        image_with(name, false, "amd64").write_layout(&layout, "tag");
        assert_eq!(name_in(&store, &reference, &options), name);
        assert_eq!(name_in(&store, &reference, &options), name);
    }
    // What is known stays of use when its source is gone.
    std::fs::remove_dir_all(&layout).unwrap();
    assert_eq!(name_in(&store, &reference, &options), "second");
}
