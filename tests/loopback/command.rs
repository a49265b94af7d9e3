//! `podling loopback agent` as scripts see it. The executor is the stranger: it shares no code with us.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Output, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::Scratch;

const PODLING: &str = env!("CARGO_BIN_EXE_podling");

fn stranger() -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/loopback/stranger.py");
    // The path may have any characters in it.
    format!("exec python3 '{}'", script.display())
}

fn group(commands: &[(&str, &str)]) -> String {
    let tasks = commands.iter().map(|(id, command)| {
        json!({"name": id, "task_id": {"value": id}, "command": {"shell": true, "value": command}})
    });
    json!({"tasks": tasks.collect::<Vec<_>>()}).to_string()
}

fn agent(scratch: &Scratch, group: &str) -> Command {
    let mut command = Command::new(PODLING);
    command.args([
        "loopback",
        "agent",
        "--task-group",
        &scratch.file("group.json", group),
    ]);
    command.args(["--timeout", "30"]);
    command
}

fn run(group: &str, arguments: &[&str]) -> (Option<i32>, Vec<Value>, String) {
    let scratch = Scratch::new();
    let mut command = agent(&scratch, group);
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .args(["--executor", &stranger()])
        .args(arguments)
        .output()
        .unwrap();
    let lines = String::from_utf8(stdout).unwrap();
    let lines = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    (status.code(), lines, String::from_utf8(stderr).unwrap())
}

fn states<'l>(lines: &'l [Value], task: &str) -> Vec<&'l str> {
    let updates = lines
        .iter()
        .filter(|l| l["dir"] == "call" && l["type"] == "UPDATE" && l["task"] == task);
    updates.map(|line| line["state"].as_str().unwrap()).collect()
}

#[test]
fn a_good_run_is_told_line_by_line_and_ends_with_0() {
    let (code, lines, stderr) = run(&group(&[("a", "exit 0"), ("b", "exit 0")]), &[]);
    assert_eq!((code, &*stderr), (Some(0), ""));
    for task in ["a", "b"] {
        assert_eq!(
            states(&lines, task),
            ["TASK_STARTING", "TASK_RUNNING", "TASK_FINISHED"]
        );
    }
    assert_eq!(lines[0]["type"], "SUBSCRIBE");
    assert_eq!(lines[1]["type"], "SUBSCRIBED");
    assert_eq!(lines[2]["type"], "LAUNCH_GROUP");
    assert!(lines.is_sorted_by_key(|line| line["t_us"].as_u64().unwrap()));
    let launch = &lines[2]["body"]["launch_group"]["task_group"]["tasks"];
    assert_eq!(launch[0]["task_id"]["value"], "a");
    assert!(launch[0]["agent_id"]["value"].is_string());
    let update = lines.iter().find(|line| line["type"] == "UPDATE").unwrap();
    assert_eq!(update["body"]["update"]["status"]["source"], "SOURCE_EXECUTOR");
    let acknowledged = lines.iter().filter(|line| line["type"] == "ACKNOWLEDGED").count();
    assert_eq!(acknowledged, 6);
}

#[test]
fn kill_and_shutdown_come_at_their_time() {
    let (code, lines, _) = run(
        &group(&[("a", "sleep 1000"), ("b", "sleep 1000")]),
        &["--kill", "a@0.3", "--shutdown", "0.6"],
    );
    assert_eq!(code, Some(0));
    assert_eq!(states(&lines, "a").last(), Some(&"TASK_KILLED"));
    let at = |kind: &str| lines.iter().position(|line| line["type"] == kind).unwrap();
    assert_eq!(lines[at("KILL")]["task"], "a");
    assert!(at("KILL") < at("SHUTDOWN"));
}

#[test]
fn an_executor_that_fails_its_tasks_ends_with_1() {
    let scratch = Scratch::new();
    let output = agent(&scratch, &group(&[("a", "true")]))
        .args(["--executor", "exit 0"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("task a"), "{stderr}");

    let output = agent(&scratch, &group(&[("a", "true")]))
        .args(["--executor", "exit 7"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("exit status: 7")
    );
}

#[test]
fn a_time_out_kills_the_executor_and_ends_with_1() {
    let scratch = Scratch::new();
    let mut command = Command::new(PODLING);
    command.args([
        "loopback",
        "agent",
        "--task-group",
        &scratch.file("g", &group(&[("a", "true")])),
    ]);
    let output = command
        .args(["--executor", "/bin/sleep 1000", "--timeout", "0.2"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("had not ended after 200ms")
    );
}

#[test]
fn the_agent_can_restart_under_an_executor_that_does_not_survive_it() {
    let (code, lines, _) = run(&group(&[("a", "sleep 1000")]), &["--restart-agent", "0.5"]);
    assert_eq!(code, Some(1));
    assert!(lines.iter().all(|line| line["state"] != "TASK_FINISHED"));
}

#[test]
fn an_executor_info_brings_its_own_command_environment_and_ids() {
    let scratch = Scratch::new();
    let info = json!({
        "type": "CUSTOM", "executor_id": {"value": "mine"},
        "command": {"shell": true, "value": format!("echo $GREETING; {}", stranger()),
                    "environment": {"variables": [{"name": "GREETING", "value": "hello"}]}},
    });
    let info = scratch.file("info.json", &info.to_string());
    let work_dir = scratch.0.join("work");
    let output = agent(&scratch, &group(&[("a", "true")]))
        .args([
            "--executor-info",
            &info,
            "--encoding",
            "json",
            "--domain-socket",
            "--checkpoint",
            "--work-dir",
        ])
        .arg(&work_dir)
        .output()
        .unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains(r#""executor_id":{"value":"mine"}"#)
    );

    // The sandbox stays, where a real agent would have it.
    let stdout = find(&work_dir, "stdout").expect("a sandbox");
    assert_eq!(std::fs::read_to_string(&stdout).unwrap(), "hello\n");
    assert!(stdout.to_string_lossy().contains("/executors/mine/runs/"));
}

fn find(below: &Path, name: &str) -> Option<std::path::PathBuf> {
    std::fs::read_dir(below).ok()?.flatten().find_map(|entry| {
        let kind = entry.file_type().ok()?;
        match kind.is_dir() {
            true => find(&entry.path(), name),
            false => (entry.file_name() == name).then(|| entry.path()),
        }
    })
}

#[test]
fn wrong_use_ends_with_2_and_a_sentence() {
    let scratch = Scratch::new();
    let good = scratch.file("good", &group(&[("a", "true")]));
    let bad = |content: &str, name: &str| scratch.file(name, content);
    let cases: Vec<(Vec<String>, &str)> = vec![
        (vec![], "--task-group"),
        (
            vec!["--task-group".into(), "/no/such/file".into()],
            "/no/such/file",
        ),
        (vec!["--task-group".into(), bad("{", "1")], "EOF"),
        (vec!["--task-group".into(), bad("{}", "2")], "at least one task"),
        (
            vec!["--task-group".into(), bad(r#"{"tasks":[{"name":"a"}]}"#, "3")],
            "task_id",
        ),
        (
            vec!["--task-group".into(), bad(&group(&[("a/b", "")]), "4")],
            "tasks[0].task_id",
        ),
        (
            vec!["--task-group".into(), bad(&group(&[("a", ""), ("a", "")]), "5")],
            "tasks[1].task_id: a is there twice",
        ),
        (
            vec!["--task-group".into(), good.clone(), "--kill".into(), "b@1".into()],
            "no task b",
        ),
        (
            vec!["--task-group".into(), good.clone(), "--kill".into(), "a".into()],
            "TASK@SECONDS",
        ),
        (
            vec![
                "--task-group".into(),
                good.clone(),
                "--timeout".into(),
                "soon".into(),
            ],
            "seconds",
        ),
        (
            vec![
                "--task-group".into(),
                good.clone(),
                "--encoding".into(),
                "xml".into(),
            ],
            "xml",
        ),
        (
            vec![
                "--task-group".into(),
                good.clone(),
                "--executor-info".into(),
                bad("[]", "6"),
            ],
            "6",
        ),
        (vec!["--nonsense".into()], "--nonsense"),
    ];
    for (arguments, sentence) in cases {
        let output = Command::new(PODLING)
            .args(["loopback", "agent"])
            .args(&arguments)
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(sentence), "{arguments:?}: {stderr}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn an_executor_that_cannot_be_started_ends_with_1() {
    let scratch = Scratch::new();
    let output = agent(&scratch, &group(&[("a", "true")]))
        .args(["--executor", "/no/such/executor"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        stderr,
        "podling: cannot start the executor /no/such/executor: No such file or directory (os error 2)\n"
    );
}

#[test]
fn a_signal_ends_everything_in_order() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let scratch = Scratch::new();
        let mut command = agent(&scratch, &group(&[("a", "sleep 1000")]));
        command
            .args(["--executor", &stranger()])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let temporary = scratch.0.join("tmp");
        std::fs::create_dir(&temporary).unwrap();
        let mut child = command.env("TMPDIR", &temporary).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // What it prints comes as it happens.
        for line in lines {
            if line.unwrap().contains("TASK_RUNNING") {
                kill(Pid::from_raw(child.id() as i32), signal).unwrap();
                break;
            }
        }
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8(output.stderr).unwrap().contains("interrupted"));
        assert_eq!(
            std::fs::read_dir(&temporary).unwrap().count(),
            0,
            "the work directory is gone"
        );
    }
}

#[test]
fn a_relative_executor_is_meant_from_where_the_command_was_typed() {
    let scratch = Scratch::new();
    std::fs::create_dir(scratch.0.join("tools")).unwrap();
    let executor = scratch.0.join("tools/mine");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_podling-executor"), executor).unwrap();
    for typed in ["tools/mine", "./tools/mine --some-flag=1"] {
        let output = agent(&scratch, &group(&[("a", "exit 0")]))
            .args(["--executor", typed])
            .current_dir(&scratch.0)
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{typed}: {stderr}");
    }
}

#[test]
fn podlings_own_executor_is_the_default() {
    let scratch = Scratch::new();
    for encoding in ["protobuf", "json"] {
        let group = group(&[("a", "exit 0"), ("b", "sleep 1000")]);
        let mut command = agent(&scratch, &group);
        let output = command
            .args(["--encoding", encoding, "--shutdown", "3"])
            .output()
            .unwrap();
        let lines = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<Value> = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{stderr}\n{lines:#?}");
        assert_eq!(
            states(&lines, "a"),
            ["TASK_STARTING", "TASK_RUNNING", "TASK_FINISHED"]
        );
        assert_eq!(
            states(&lines, "b"),
            ["TASK_STARTING", "TASK_RUNNING", "TASK_KILLING", "TASK_KILLED"]
        );
    }
}
