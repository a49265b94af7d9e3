//! What a member writes to its image, and where that goes.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use nix::sys::signal::Signal;
use podling::mesos::v1::{TaskInfo, TaskState::TaskRunning};
use serde_json::json;

use super::{
    build::{Layer, Packing, TestImage, digest},
    support::*,
};

/// Every directory called `rootfs` among our private ones below a work directory.
fn writes(work: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![work.to_owned()];
    while let Some(directory) = directories.pop() {
        for path in below(&directory)
            .into_iter()
            .filter(|path| path.is_dir() && !path.is_symlink())
        {
            match path.ends_with(".podling/rootfs") {
                true => found.extend(below(&path)),
                false => directories.push(path),
            }
        }
    }
    found
}

fn member(script: &str, place: &Place) -> TaskInfo {
    let reference = place.layout("layout", &image(&json!({}), Layer::new().file("kept", "kept")));
    from_image(task("web", Some(script)), &reference)
}

#[test]
fn i_21_writes_are_in_the_sandbox_while_the_member_runs_and_gone_after() {
    let place = Place::new();
    let work = tempfile::tempdir().unwrap();
    let agent = started(
        place.agent(),
        work.path(),
        [member("echo new >/new; rm /kept; echo done; sleep 1000", &place)],
    );
    agent.wait_told(&["web"], TaskRunning).unwrap();
    until("what it writes", || {
        stdout(work.path(), "web").is_some_and(|text| text == "done\n")
    });
    let [own] = &writes(agent.sandbox())[..] else {
        panic!("{:?}", writes(agent.sandbox()))
    };
    assert_eq!(fs::read_to_string(own.join("upper/new")).unwrap(), "new\n");
    // Nobody else on the node is to look into it.
    assert_eq!(fs::metadata(own).unwrap().mode() & 0o777, 0o700);
    agent.kill("web").unwrap();
    let outcome = agent.finish();
    assert!(outcome.is_good(), "{outcome}");
    assert_eq!(writes(work.path()), [] as [PathBuf; 0]);
}

#[test]
fn i_21_a_deep_and_a_wide_tree_go_at_the_end() {
    let place = Place::new();
    // Deeper than any path can say: trees as deep as one can, each moved to the end of the next.
    let script = "busybox seq 3000 | while read n; do : >/tmp/file$n; done; p=d; \
                  while [ ${#p} -lt 3900 ]; do p=$p/dddddddddddddddddddd; done; mkdir -p /t0/$p; \
                  for n in $(busybox seq 30); do mkdir -p /t$n/$p; busybox mv /t$((n-1)) /t$n/$p/ || exit 1; done; \
                  mkdir -m 0 /tmp/closed; echo made";
    let mut web = member(script, &place);
    web.command.as_mut().unwrap().user = Some("root".to_owned());
    let run_dir = tempfile::tempdir().unwrap();
    let run_dir = run_dir.path().to_str().unwrap();
    let done = run(place.agent().env("PODLING_RUN_DIR", run_dir), [web]);
    assert_eq!(said(&done, "web"), "made\n");
    // An executor does not stay for ever to see the last of it; what it has no time for is written down.
    collect(&place, run_dir);
    assert_eq!(writes(done.1.path()), [] as [PathBuf; 0]);
}

/// Cleans up after executors that are gone.
fn collect(place: &Place, run_dir: &str) {
    let collected = Command::new(PODLING)
        .args(["node", "gc", "--run-dir", run_dir])
        .env("PODLING_IMAGES_STORE", place.path("store"))
        .output()
        .unwrap();
    assert!(
        collected.status.success(),
        "{}",
        String::from_utf8_lossy(&collected.stderr)
    );
}

#[test]
fn r3_i_21_what_a_killed_executor_leaves_is_removed() {
    let place = Place::new();
    let (work, run_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let run_dir = run_dir.path().to_str().unwrap();
    let agent = started(
        place.agent().env("PODLING_RUN_DIR", run_dir),
        work.path(),
        [member("echo new >/new; echo done; sleep 1000", &place)],
    );
    until("what it writes", || {
        stdout(work.path(), "web").is_some_and(|text| text == "done\n")
    });
    agent.signal(Signal::SIGKILL).unwrap();
    agent.abandon();
    assert_eq!(writes(work.path()).len(), 1);
    collect(&place, run_dir);
    assert_eq!(writes(work.path()), [] as [PathBuf; 0]);
}

#[test]
fn read_only_roots_keep_members_from_writing_but_not_to_their_volumes() {
    let place = Place::new();
    let config = json!({"Volumes": {"/data": {}}, "WorkingDir": "/not/there"});
    let reference = place.layout("layout", &image(&config, Layer::new()));
    let script = "pwd; echo x 2>/dev/null >/x || echo refused; echo x >/data/x && echo x >/mnt/mesos/sandbox/x && \
                  echo x >/dev/shm/x && echo fine";
    let agent = place.agent().env("PODLING_IMAGES_READ_ONLY", "true");
    let done = run(agent, [from_image(task("web", Some(script)), &reference)]);
    assert_eq!(said(&done, "web"), "/not/there\nrefused\nfine\n");
}

#[test]
fn p_09_a_member_of_130_layers() {
    let place = Place::new();
    let mut layers = vec![shell().tar()];
    layers.extend((0..129).map(|n| {
        Layer::new()
            .file("which", n.to_string())
            .file(&format!("only{n}"), "")
            .tar()
    }));
    let diff_ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "config": {"Cmd": ["/bin/sh", "-c", "cat /which; ls / | grep -c only"]},
    });
    let packed = layers.iter().map(|layer| Packing::Zstd.pack(layer)).collect();
    let reference = place.layout(
        "layout",
        &TestImage::from_parts(config, packed, Packing::Zstd, false),
    );
    let mut web = from_image(
        task("web", Some("cat /which; echo; set -- /only*; echo $#")),
        &reference,
    );
    web.command.as_mut().unwrap().user = Some("root".to_owned());
    assert_eq!(said(&run(place.agent(), [web]), "web"), "128\n129\n");
}

#[test]
fn i7_an_image_is_kept_while_a_member_runs_in_it() {
    let place = Place::new();
    let work = tempfile::tempdir().unwrap();
    let agent = started(place.agent(), work.path(), [member("sleep 1000", &place)]);
    agent.wait_told(&["web"], TaskRunning).unwrap();
    let podling = |arguments: &[&str]| {
        let output = Command::new(PODLING)
            .arg("image")
            .args(arguments)
            .args(["-o", "json"])
            .env("PODLING_IMAGES_STORE", place.path("store"))
            .output()
            .unwrap();
        (
            output.status.code(),
            serde_json::from_slice(&output.stdout).unwrap_or(serde_json::Value::Null),
        )
    };
    assert_eq!(podling(&["gc", "--all"]).1["images"], 0);
    let listed = podling(&["list"]).1;
    assert_eq!(listed[0]["in_use"], true, "{listed}");
    let digest = listed[0]["digest"].as_str().unwrap().to_owned();
    assert_eq!(podling(&["rm", &digest]).0, Some(1));
    agent.kill("web").unwrap();
    assert!(agent.finish().is_good());
    assert_eq!(podling(&["gc", "--all"]).1["images"], 1);
}
