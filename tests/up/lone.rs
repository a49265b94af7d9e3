//! `podling` without `podling-executor` beside it: what `cargo run` builds, or one file that somebody copied.

use std::{fs, path::PathBuf, process::Command};

use serde_json::Value;

use crate::cluster::{output, write};

/// A copy of the program in a directory with nothing else, whose name a shell would take apart.
struct Lone {
    place: tempfile::TempDir,
}

impl Lone {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("my tools")).unwrap();
        // By somebody else: what other tests start must not hold our copy open for writing when it is run.
        let copied = Command::new("cp")
            .arg(env!("CARGO_BIN_EXE_podling"))
            .arg(place.path().join("my tools/podling"))
            .status();
        assert!(copied.unwrap().success());
        Lone { place }
    }

    fn program(&self) -> PathBuf {
        self.place.path().join("my tools/podling")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.program());
        command.current_dir(self.place.path());
        command
    }
}

#[test]
fn a_lone_copy_runs_the_first_example() {
    let lone = Lone::new();
    let hello = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/hello.json");
    let (code, stdout, stderr) =
        output(
            lone.command()
                .args(["up", "--once", "--listen", "127.0.0.1:0", hello]),
        );
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    assert!(
        stdout.contains("/hello listener | I heard 3 greetings"),
        "{stdout}"
    );
}

#[test]
fn a_lone_copy_is_the_loopback_agents_executor() {
    let lone = Lone::new();
    let group = r#"{"tasks": [{"name": "a", "task_id": {"value": "a"}, "agent_id": {"value": "A"}, "resources": [
        {"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.1}},
        {"name": "mem", "type": "SCALAR", "scalar": {"value": 32}}], "command": {"value": "exit 0"}}]}"#;
    let file = write(lone.place.path(), "group.json", group);
    let (code, stdout, stderr) = output(
        lone.command()
            .args(["loopback", "agent", "--task-group"])
            .arg(file),
    );
    assert_eq!(code, 0, "{stderr}");
    let finished = stdout.lines().any(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        line["state"] == "TASK_FINISHED"
    });
    assert!(finished, "{stdout}");
}

/// As the executor that it replaces in an agent's launcher directory is started.
#[test]
fn under_an_executors_name_it_is_one() {
    let lone = Lone::new();
    for name in ["podling-executor", "mesos-default-executor"] {
        let path = lone.place.path().join(name);
        std::os::unix::fs::symlink(lone.program(), &path).unwrap();
        let (code, stdout, _) = output(Command::new(&path).args(["--launcher_dir=/opt", "--version"]));
        assert_eq!(code, 0);
        assert!(stdout.starts_with("podling-executor "), "{stdout}");
    }
    let (code, stdout, _) = output(lone.command().args(["executor", "--version"]));
    assert_eq!(code, 0);
    assert!(stdout.starts_with("podling-executor "), "{stdout}");
    let (_, help, _) = output(lone.command().arg("--help"));
    assert!(!help.contains("executor "), "{help}");
}
