//! `podling pod` and definitions: what has no effect is pointed at, and what answers has to be a scheduler.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    thread,
};

use serde_json::Value;

use crate::cluster::{Up, output, podling, write};

const MISSPELT: &str = r#"{"id": "/a", "enviroment": {"A": "b"}, "scaling": {"kind": "fixed", "instances": 0},
    "containers": [{"name": "c", "resources": {}, "exec": {"command": {"shell": "x"}}}]}"#;
const WARNING: &str = "enviroment is not a field of a pod and has no effect; did you mean `environment`?";

#[test]
fn fields_without_effect_are_pointed_at_by_every_command_and_refused_by_strict() {
    let directory = tempfile::tempdir().unwrap();
    let file = write(directory.path(), "a.json", MISSPELT);
    let up = Up::start(&[]);
    let pod = |arguments: &[&str]| {
        output(
            podling()
                .args(["pod", "--url", &up.url])
                .args(arguments)
                .arg(&file),
        )
    };
    for command in ["add", "update", "validate"] {
        let (code, stdout, stderr) = pod(&[command, "--strict"]);
        assert_eq!((code, stdout.as_str()), (2, ""), "{command}: {stderr}");
        assert!(stderr.contains(WARNING), "{command}: {stderr}");
    }
    for command in ["validate", "add", "update"] {
        let (code, stdout, stderr) = pod(&[command, "-o", "json"]);
        assert_eq!(code, 0, "{command}: {stderr}");
        assert!(stderr.contains(WARNING), "{command}: {stderr}");
        let answer: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(answer["id"], "/a", "{command}");
        assert_eq!(
            answer["deploymentId"].is_string(),
            command != "validate",
            "{answer:#}"
        );
    }
    assert_eq!(up.stop(), 0);
}

#[test]
fn a_pod_of_a_role_that_nobody_offers_is_wrong_use() {
    let directory = tempfile::tempdir().unwrap();
    let text = MISSPELT.replace("\"enviroment\": {\"A\": \"b\"}", "\"role\": \"dev\"");
    let file = write(directory.path(), "a.json", &text);
    let (code, stdout, stderr) = output(
        podling()
            .args(["up", "--once", "--listen", "127.0.0.1:0"])
            .arg(file),
    );
    assert_eq!((code, stdout.as_str()), (2, ""), "{stderr}");
    assert!(stderr.contains("role: got dev, expected one of: [*]"), "{stderr}");
}

/// Answers everything with these words.
fn server(answer: &'static str) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = BufReader::new(socket.unwrap());
            let (mut line, mut body) = (String::new(), 0);
            while socket.read_line(&mut line).unwrap_or(0) > 0 && line != "\r\n" {
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    body = value.trim().parse().unwrap();
                }
                line.clear();
            }
            let _ = socket.read_exact(&mut vec![0; body]);
            let length = answer.len();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
            let _ = socket.get_mut().write_all(format!("{head}{answer}").as_bytes());
        }
    });
    url
}

#[test]
fn a_server_of_another_kind_is_not_believed() {
    let directory = tempfile::tempdir().unwrap();
    let file = write(
        directory.path(),
        "a.json",
        &MISSPELT.replace("enviroment", "environment"),
    );
    let file = file.to_str().unwrap();
    for answer in ["{}", "[{}]", "true", r#"{"status": "ok", "id": 7}"#] {
        let url = server(answer);
        for arguments in [
            &["list"][..],
            &["status", "a"],
            &["show", "a"],
            &["explain", "a"],
            &["add", file],
            &["update", file],
            &["remove", "a"],
            &["kill", "a"],
        ] {
            let (code, stdout, stderr) = output(podling().args(["pod", "--url", &url]).args(arguments));
            assert_eq!(
                (code, stdout.as_str()),
                (1, ""),
                "{answer} {arguments:?}: {stderr}"
            );
            assert!(
                stderr.contains("is no scheduler"),
                "{answer} {arguments:?}: {stderr}"
            );
        }
    }
}
