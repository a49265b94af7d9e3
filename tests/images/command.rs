//! `podling image` as a user types it.

use std::{path::Path, process::Command};

use super::{
    build::{Layer, Packing, TestImage},
    registry::DockerRegistry,
};

struct Said {
    code: Option<i32>,
    out: String,
    error: String,
}

impl Said {
    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|_| panic!("{} {}", self.out, self.error))
    }
}

fn podling(store: &Path, arguments: &[&str]) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_podling"))
        .arg("image")
        .args(arguments)
        .arg("--store")
        .arg(store)
        .output()
        .unwrap();
    Said {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        error: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[test]
fn an_image_from_pull_to_rm() {
    let registry = DockerRegistry::start();
    let image = TestImage::docker(vec![Layer::new().file("f", "content").tar()]);
    registry.push("some/image", "v1", &image);
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("store");
    let reference = format!("{}/some/image:v1", registry.address);

    let pulled = podling(&store, &["pull", &reference]);
    assert_eq!(pulled.code, Some(0), "{}", pulled.error);
    assert_eq!(pulled.out, format!("{reference}  {}\n", image.digest()));
    assert_eq!(pulled.error, "", "progress is for terminals");

    let listed = podling(&store, &["list", "-o", "json"]).json();
    assert_eq!(listed[0]["references"][0], reference);
    assert_eq!(listed[0]["digest"], image.digest());
    assert_eq!(listed[0]["in_use"], false);
    let table = podling(&store, &["list"]).out;
    assert!(
        table.contains(&reference) && table.contains("linux/amd64"),
        "{table}"
    );

    assert_eq!(podling(&store, &["verify"]).code, Some(0));
    let layer = std::fs::read_dir(store.join("layers"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    std::fs::write(layer.join("fs/f"), "Content").unwrap();
    let damaged = podling(&store, &["verify", &reference]);
    assert_eq!(damaged.code, Some(1));
    assert!(
        damaged.out.contains("\"./f\" is not as it was unpacked"),
        "{}",
        damaged.out
    );

    let removed = podling(&store, &["rm", &image.digest(), "-o", "json"]);
    assert_eq!(removed.code, Some(0), "{}", removed.error);
    assert_eq!(std::fs::read_dir(store.join("layers")).unwrap().count(), 0);
    let unknown = podling(&store, &["rm", &reference]);
    assert_eq!(unknown.code, Some(1));
    assert!(unknown.error.contains("there is no image"), "{}", unknown.error);
}

#[test]
fn a_pull_that_fails_says_why_and_wrong_use_is_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("store");
    let registry = DockerRegistry::start();
    let missing = podling(&store, &["pull", &format!("{}/no/such:image", registry.address)]);
    assert_eq!(missing.code, Some(1));
    assert!(
        missing.error.contains("404") && missing.error.lines().count() == 1,
        "{}",
        missing.error
    );
    for wrong in [
        &["pull", "Not/A//Reference"][..],
        &["pull"],
        &["pull", "a", "--platform", "linux"],
        &["pull", "a", "--authfile", "/nonexistent"],
        &["list", "--config", "/nonexistent"],
        &["gc", "--all", "--keep-mb", "1"],
        &["unknown"],
    ] {
        assert_eq!(podling(&store, wrong).code, Some(2), "{wrong:?}");
    }
}

#[test]
fn gc_keeps_what_the_operator_wants() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("store");
    for name in ["one", "two"] {
        let layout = directory.path().join(name);
        let layer = Layer::new().file(name, vec![b'x'; 3 << 20]).tar();
        TestImage::oci(vec![layer], Packing::Zstd).write_layout(&layout, "x");
        let pulled = podling(&store, &["pull", &format!("oci:{}", layout.display())]);
        assert_eq!(pulled.code, Some(0), "{}", pulled.error);
    }
    let config = directory.path().join("executor.toml");
    std::fs::write(&config, "log = \"info\"\nimages_quota = 4194304\n").unwrap();
    let collect = |more: &[&str]| {
        let arguments = [&["gc", "-o", "json", "--config", config.to_str().unwrap()], more].concat();
        podling(&store, &arguments).json()
    };
    assert_eq!(collect(&["--keep-mb", "100"])["images"], 0);
    assert_eq!(collect(&[])["images"], 1);
    assert_eq!(collect(&["--all"])["images"], 1);
    assert_eq!(
        podling(&store, &["list", "-o", "json"]).json(),
        serde_json::json!([])
    );
}
