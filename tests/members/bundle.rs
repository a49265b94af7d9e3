//! `podling node bundle`: a task as other runtimes understand it.

use std::{path::Path, process::Command};

use crate::support::make_root;

fn podling(arguments: &[&str], directory: &Path) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_podling"))
        .args(["node", "bundle"])
        .args(arguments)
        .env("PODLING_CAPABILITIES", "CHOWN,NET_RAW")
        .current_dir(directory)
        .output()
        .unwrap()
}

#[test]
fn a_task_written_as_a_bundle_is_what_crun_starts() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    std::fs::create_dir(at.join("bundle")).unwrap();
    let group = r#"{"tasks": [
        {"name": "other", "task_id": {"value": "other"}, "command": {"value": "true"}},
        {"name": "web", "task_id": {"value": "web"},
         "command": {"value": "id -u; grep CapBnd /proc/self/status; echo $GREETING; pwd", "user": "app",
                     "environment": {"variables": [{"name": "GREETING", "value": "hello"}]}}}]}"#;
    std::fs::write(at.join("group.json"), group).unwrap();
    let refused = |arguments: &[&str], sentence: &str| {
        let output = podling(arguments, at);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(sentence), "{said}");
    };
    refused(
        &["group.json", "-o", "bundle"],
        "has 2 tasks; name one with --task: other, web",
    );
    refused(
        &["group.json", "-o", "bundle", "--task", "x"],
        "has no task x; there are: other, web",
    );
    refused(
        &["group.json", "-o", "bundle", "--task", "web"],
        "unpack the task's image there first",
    );
    make_root(&at.join("bundle/rootfs"));
    let output = podling(&["group.json", "-o", "bundle", "--task", "web"], at);
    assert!(output.status.success(), "{output:?}");

    let line = "umount /sys/fs/cgroup/unified 2>/dev/null; exec crun --cgroup-manager=disabled --root \"$1\" run -b \"$2\" \"$3\"";
    let name = format!("podling-bundle-{}", std::process::id());
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", line, "sh"])
        .args([at.join("state"), at.join("bundle"), name.into()])
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "1234\nCapBnd:\t0000000000002001\nhello\n/mnt/mesos/sandbox\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
