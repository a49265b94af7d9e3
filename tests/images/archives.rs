//! Images in archives, as other tools write them.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

use super::{
    build::{Layer, Packing, TestImage, digest},
    pull::{TestStore, inside},
    sources::skopeo,
};

/// What an image says in its file `name`, through a mount.
fn name_in(store: &TestStore, reference: &str) -> String {
    let image = store.pull(reference).unwrap_or_else(|error| panic!("{error}"));
    let rootfs = image.rootfs(None).unwrap();
    fs::read_to_string(inside(&rootfs).join("name")).unwrap()
}

fn refused(store: &TestStore, reference: &str) -> String {
    store.pull(reference).unwrap_err().to_string()
}

/// One layer that says who it is, unpacked as `docker save` keeps it.
fn image(name: &str) -> TestImage {
    TestImage::oci(vec![Layer::new().file("name", name).tar()], Packing::Plain)
}

/// Configuration and only layer of an image.
fn parts(image: &TestImage) -> (String, String) {
    let manifest: Value = serde_json::from_slice(&image.manifest).unwrap();
    let digest_of = |value: &Value| value["digest"].as_str().unwrap().to_owned();
    (digest_of(&manifest["config"]), digest_of(&manifest["layers"][0]))
}

#[test]
fn p_07_an_archive_as_docker_saves_it() {
    let store = TestStore::new();
    let path = |name: &str| store.directory.path().join(name);
    image("saved").write_layout(&path("layout"), "x");
    let archive = path("saved.tar");
    skopeo(
        &format!("oci:{}:x", path("layout").display()),
        &format!("docker-archive:{}:repo/name:tag", archive.display()),
    );
    let reference = format!("docker-archive:{}", archive.display());
    assert_eq!(name_in(&store, &reference), "saved");
    assert_eq!(name_in(&store, &format!("{reference}:repo/name:tag")), "saved");
    let error = refused(&store, &format!("{reference}:repo/name:other"));
    assert!(error.contains("repo/name:tag"), "{error}");
}

/// As docker before 25 writes it: a directory for each layer, and a link where one occurs again.
#[test]
fn p_07_an_archive_of_several_images_in_docker_s_old_layout() {
    let store = TestStore::new();
    let (one, two) = (image("one"), image("two"));
    let tags = ["a/one:1", "two:latest", "again:x"];
    let mut archive = Layer::new();
    let mut manifest = Vec::new();
    for (at, saved) in [&one, &two, &one].into_iter().enumerate() {
        let (config, layer) = parts(saved);
        let (directory, config_name) = (format!("{at:064x}"), format!("{}.json", &config[7..]));
        archive = archive
            .dir(&format!("{directory}/"), 0o755)
            .file(&format!("{directory}/VERSION"), "1.0")
            .file(&format!("{directory}/json"), "{}");
        archive = match at {
            2 => archive.symlink(
                &format!("{directory}/layer.tar"),
                &format!("../{:064x}/layer.tar", 0),
            ),
            _ => archive.file(&format!("{directory}/layer.tar"), &saved.blobs[&layer]),
        };
        archive = archive.file(&config_name, &saved.blobs[&config]);
        manifest.push(json!({
            "Config": config_name,
            "RepoTags": [tags[at]],
            "Layers": [format!("{directory}/layer.tar")],
        }));
    }
    let file = store.directory.path().join("several.tar");
    let archive = archive
        .file("manifest.json", json!(manifest).to_string())
        .file("repositories", "{}");
    fs::write(&file, archive.tar()).unwrap();
    let reference = format!("docker-archive:{}", file.display());
    assert_eq!(name_in(&store, &format!("{reference}:a/one:1")), "one");
    assert_eq!(
        name_in(&store, &format!("{reference}:docker.io/library/two:latest")),
        "two"
    );
    assert_eq!(name_in(&store, &format!("{reference}:again:x")), "one");
    let error = refused(&store, &reference);
    assert!(
        error.contains("several images") && error.contains("a/one:1, two:latest, again:x"),
        "{error}"
    );
}

/// Since docker 25 the archive is an OCI layout, with a manifest of the old kind beside its index.
#[test]
fn p_07_an_archive_of_docker_25_is_read_as_either_kind() {
    let store = TestStore::new();
    let saved = image("new");
    let (config, layer) = parts(&saved);
    let blob = |digest: &str| format!("blobs/sha256/{}", &digest[7..]);
    let layout = store.directory.path().join("layout");
    saved.write_layout(&layout, "latest");
    let manifest = json!([{"Config": blob(&config), "RepoTags": ["a/new:1"], "Layers": [blob(&layer)]}]);
    fs::write(layout.join("manifest.json"), manifest.to_string()).unwrap();
    let file = store.directory.path().join("new.tar");
    // GNU tar writes `./` in front of each name.
    tar(&layout, &file);
    for reference in [
        "docker-archive:F",
        "docker-archive:F:a/new:1",
        "oci-archive:F",
        "oci-archive:F:latest",
    ] {
        let reference = reference.replace('F', file.to_str().unwrap());
        assert_eq!(name_in(&store, &reference), "new", "{reference}");
    }
}

fn tar(directory: &Path, file: &Path) {
    let done = Command::new("tar")
        .arg("cf")
        .arg(file)
        .arg("-C")
        .arg(directory)
        .arg(".")
        .status();
    assert!(done.unwrap().success());
}

#[test]
fn an_oci_archive_as_skopeo_writes_it() {
    let store = TestStore::new();
    let path = |name: &str| store.directory.path().join(name);
    image("archived").write_layout(&path("layout"), "x");
    let archive = path("oci.tar");
    skopeo(
        &format!("oci:{}:x", path("layout").display()),
        &format!("oci-archive:{}:tag", archive.display()),
    );
    let reference = format!("oci-archive:{}", archive.display());
    assert_eq!(name_in(&store, &reference), "archived");
    assert_eq!(name_in(&store, &format!("{reference}:tag")), "archived");
    assert!(refused(&store, &format!("{reference}:other")).contains("it has tag"));
}

#[test]
fn an_archive_that_is_another_thing_is_told_as_what_it_is() {
    let store = TestStore::new();
    let file = store.directory.path().join("file.tar");
    for (content, kind, sentence) in [
        (
            Layer::new().file("index.json", "{}").tar(),
            "docker-archive",
            "oci-archive: reads it",
        ),
        (
            Layer::new().file("manifest.json", "[]").tar(),
            "oci-archive",
            "docker-archive: reads it",
        ),
        (
            Layer::new().file("repositories", "{}").tar(),
            "docker-archive",
            "docker before 1.10",
        ),
        (
            Layer::new().file("a", "b").tar(),
            "oci-archive",
            "it has no index.json",
        ),
        (
            Layer::new().file("manifest.json", "[]").tar(),
            "docker-archive",
            "it holds no image",
        ),
        (
            Layer::new().file("manifest.json", "[").tar(),
            "docker-archive",
            "manifest.json: EOF",
        ),
        (
            Packing::Gzip.pack(&Layer::new().tar()),
            "docker-archive",
            "it is compressed; unpack it first",
        ),
        (b"<html>".repeat(200), "docker-archive", "malformed"),
    ] {
        fs::write(&file, content).unwrap();
        let error = refused(&store, &format!("{kind}:{}", file.display()));
        assert!(error.contains(sentence), "{error}");
    }
    // Neither does it wait for a pipe, nor take a directory for an archive.
    let pipe = store.directory.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for odd in [pipe.as_path(), store.directory.path()] {
        let error = refused(&store, &format!("docker-archive:{}", odd.display()));
        assert!(error.contains("not a plain file"), "{error}");
    }
}

/// I1 holds for archives, too: nothing in them is taken on trust.
#[test]
fn i1_damage_in_an_archive_is_refused() {
    let store = TestStore::new();
    let saved = image("whole");
    let (config, layer) = parts(&saved);
    let file = store.directory.path().join("saved.tar");
    let named = |name: &str, content: &[u8]| {
        let manifest = json!([{"Config": format!("{}.json", &config[7..]), "Layers": ["l/layer.tar"]}]);
        let pick = |at: &str, whole: &str| match name == at {
            true => content.to_vec(),
            false => saved.blobs[whole].clone(),
        };
        Layer::new()
            .file("l/layer.tar", pick("layer", &layer))
            .file(&format!("{}.json", &config[7..]), pick("config", &config))
            .file("manifest.json", manifest.to_string())
            .tar()
    };
    let other = Layer::new().file("name", "other").tar();
    for (content, sentence) in [
        (named("layer", &other), digest(&other)),
        (named("layer", &saved.blobs[&layer][..1024]), layer.clone()),
        (named("config", b"{}"), "not what its name says".to_owned()),
    ] {
        fs::write(&file, content).unwrap();
        let error = refused(&store, &format!("docker-archive:{}", file.display()));
        assert!(error.contains(&sentence), "{error}");
        let layers = fs::read_dir(store.directory.path().join("store/layers")).unwrap();
        assert_eq!(layers.count(), 0);
    }
}

/// umoci's `insert` ends its archives with the data of the last file: no padding, no end.
#[test]
fn a_layer_that_umoci_inserted_without_padding() {
    let store = TestStore::new();
    let at = |name: &str| store.directory.path().join(name);
    fs::create_dir(at("data")).unwrap();
    let umoci = |arguments: &[&str]| {
        let done = Command::new("umoci")
            .args(arguments)
            .current_dir(store.directory.path())
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    umoci(&["init", "--layout", "layout"]);
    umoci(&["new", "--image", "layout:x"]);
    // Whatever the length is modulo a block.
    for (turn, length) in [1, 511, 512, 513, 100_000].into_iter().enumerate() {
        fs::write(at("data/name"), vec![b'x'; length]).unwrap();
        umoci(&["insert", "--image", "layout:x", "data/name", "/name"]);
        let tag = format!("{}-{turn}", "x");
        umoci(&["tag", "--image", "layout:x", &tag]);
        let said = name_in(&store, &format!("oci:{}:{tag}", at("layout").display()));
        assert_eq!(said.len(), length);
    }
}
