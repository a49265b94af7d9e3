//! `--once`: a pod as a job.

use crate::cluster::{output, podling, processes, write};

pub fn job(commands: &[&str]) -> String {
    let containers: Vec<String> = commands
        .iter()
        .enumerate()
        .map(|(index, command)| {
            let command = serde_json::to_string(command).unwrap();
            format!(
                r#"{{"name": "c{index}", "resources": {{"cpus": 0.1, "mem": 32}}, "exec": {{"command": {{"shell": {command}}}}}}}"#
            )
        })
        .collect();
    format!(r#"{{"id": "/job", "containers": [{}]}}"#, containers.join(","))
}

fn once(definition: &str) -> (i32, String, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = write(directory.path(), "job.json", definition);
    output(
        podling()
            .args(["up", "--once", "--listen", "127.0.0.1:0"])
            .arg(file),
    )
}

/// Every line of it, in any order but that of one member's own.
#[test]
fn the_example_of_the_readme_runs_and_says_what_the_readme_says() {
    let readme = include_str!("../../README.md");
    let (_, block) = readme
        .split_once("$ podling up examples/hello.json --once\n")
        .unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let hello = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/hello.json");
    let (code, stdout, stderr) = output(podling().args(["up", "--once", "--listen", "127.0.0.1:0", hello]));
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().skip(1).map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert!(stdout.starts_with("pods API at http://127.0.0.1:"), "{stdout}");
    assert_eq!(sorted(&stdout), sorted(block));
}

#[test]
fn the_exit_code_is_the_pods() {
    assert_eq!(once(&job(&["exit 0", "exit 0"])).0, 0);
    let (code, stdout, _) = once(&job(&["exit 3", "sleep 1000.17"]));
    assert_eq!(code, 1);
    assert!(
        stdout.contains("c0 · FAILED: Command exited with status 3"),
        "{stdout}"
    );
    assert!(stdout.contains("c1 · KILLED"), "{stdout}");
    assert_eq!(processes("sleep 1000.17"), 0);
}

#[test]
fn a_pod_without_instances_is_done_at_once() {
    let none = job(&["exit 1"]).replace(
        r#"{"id": "/job","#,
        r#"{"id": "/job", "scaling": {"kind": "fixed", "instances": 0},"#,
    );
    assert_eq!(once(&none).0, 0);
}

#[test]
fn what_a_member_writes_last_is_not_lost() {
    let (code, stdout, _) = once(&job(&["seq 1 2000; printf 'no newline'"]));
    assert_eq!(code, 0);
    let numbers = stdout
        .lines()
        .filter_map(|line| line.strip_prefix("/job c0 | "))
        .filter(|l| l.parse::<u32>().is_ok());
    assert_eq!(numbers.count(), 2000);
    assert!(stdout.contains("| no newline\n"), "{stdout}");
}
