//! Wrong files, wrong flags, wrong places: one sentence, the right exit code, nothing half done.

use std::net::TcpListener;

use crate::{
    cluster::{Up, output, podling, write},
    node::on_a_node,
};

/// Exit code and the sentence for one definition file.
fn up(name: &str, text: &str) -> (i32, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = write(directory.path(), name, text);
    let (code, stdout, stderr) = output(
        podling()
            .args(["up", "--once", "--listen", "127.0.0.1:0"])
            .arg(file),
    );
    assert_eq!(stdout, "", "nothing is started");
    (code, stderr)
}

#[test]
fn files_that_are_no_pods_are_wrong_use_and_say_where() {
    for (name, text, words) in [
        ("a.json", "{", "a.json: EOF"),
        ("a.yaml", "id: [", "a.yaml: "),
        (
            "a.json",
            r#"{"id": "/a", "containers": []}"#,
            "a.json: containers: must not be empty",
        ),
        (
            "a.json",
            r#"{"id": "/a", "containers": [{"name": "c", "resources": {}, "exec": {"command": {"shell": "x"}},
                "endpoints": [{"name": "e", "hostPort": 70000}]}]}"#,
            "a.json: containers[0].endpoints[0].hostPort: 70000 is above 65535",
        ),
        (
            "a.yaml",
            "id: /a\ncontainers:\n- name: c\n  resources: {gpus: 1}\n  exec: {command: {shell: x}}\n",
            "a.yaml: containers[0].resources.gpus: gpus are not supported by this version of podling",
        ),
    ] {
        let (code, stderr) = up(name, text);
        assert_eq!(code, 2, "{text}: {stderr}");
        assert!(stderr.contains(words), "{words} is not in {stderr}");
    }
}

#[test]
fn a_missing_file_and_missing_files_are_wrong_use() {
    let (code, _, stderr) = output(podling().args(["up", "/no/such/pod.json"]));
    assert_eq!(
        (code, stderr.contains("/no/such/pod.json: No such file")),
        (2, true),
        "{stderr}"
    );
    let (code, _, stderr) = output(podling().args(["up", "--once"]));
    assert_eq!(
        (code, stderr.contains("--once needs a pod definition")),
        (2, true),
        "{stderr}"
    );
    assert_eq!(output(podling().args(["up", "--agents", "0"])).0, 2);
    assert_eq!(output(podling().args(["up", "--listen", "nowhere"])).0, 2);
}

#[test]
fn a_port_in_use_is_a_failure_that_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, stdout, stderr) = output(podling().args(["up", "--listen", &address]));
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(
        stderr.starts_with(&format!("podling: cannot listen on {address}: ")),
        "{stderr}"
    );
}

#[test]
fn a_definition_is_validated_without_a_scheduler() {
    let directory = tempfile::tempdir().unwrap();
    let good =
        "id: /a\ncontainers:\n- name: c\n  resources: {}\n  exec: {command: {shell: x}}\n  colour: red\n";
    let file = write(directory.path(), "a.yaml", good);
    let (code, stdout, stderr) = output(podling().args(["pod", "validate"]).arg(&file));
    assert_eq!(code, 0, "{stderr}");
    assert!(
        stdout.contains("valid, 1 container, 1 instance, 1.100 cpus and 160 MiB each"),
        "{stdout}"
    );
    assert!(
        stderr.contains("containers[0].colour is not a field of a pod and has no effect"),
        "{stderr}"
    );
    let (_, json, _) = output(podling().args(["pod", "validate", "-o", "json"]).arg(&file));
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&json).unwrap()["scaling"]["instances"],
        1
    );
    let (_, yaml, _) = output(podling().args(["pod", "validate", "-o", "yaml"]).arg(&file));
    assert!(yaml.contains("instances: 1"), "{yaml}");
}

#[test]
fn what_the_scheduler_refuses_is_told_in_its_words() {
    let up = Up::start(&[]);
    let directory = tempfile::tempdir().unwrap();
    let file = write(
        directory.path(),
        "a.json",
        r#"{"id": "relative", "containers": []}"#,
    );
    let (code, _, stderr) = up.pod(&["add", file.to_str().unwrap()]);
    assert_eq!(code, 2);
    assert!(
        stderr.contains("/id: Path needs to be absolute") && stderr.contains("/containers: must not"),
        "{stderr}"
    );
    let (code, _, stderr) = up.pod(&["status", "nothing"]);
    assert_eq!(
        (code, stderr.contains("Pod '/nothing' does not exist")),
        (1, true),
        "{stderr}"
    );
    let url = up.url.clone();
    assert_eq!(up.stop(), 0);
    let (code, _, stderr) = output(podling().args(["pod", "list", "--url", &url]));
    assert_eq!((code, stderr.contains("no scheduler at")), (1, true), "{stderr}");
}

/// What is read from no regular file, or says nothing.
#[test]
fn files_of_every_other_kind_are_wrong_use() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    let big = place.join("big.json");
    std::fs::File::create(&big).unwrap().set_len(100 << 20).unwrap();
    let twice = "id: /a\ncontainers: [{name: c, resources: {}, exec: {command: {shell: x}}}]\n---\nid: /b\ncontainers: []\n";
    for (file, words) in [
        (place.to_path_buf(), "Is a directory"),
        (
            write(place, "empty.json", ""),
            "is empty: expected a pod definition",
        ),
        (
            write(place, "blank.yaml", " \n\n"),
            "is empty: expected a pod definition",
        ),
        (big, "is larger than 4 MiB"),
        (
            write(place, "twice.yaml", twice),
            "twice.yaml, document 2: containers: must not be empty",
        ),
        (write(place, "list.json", "[1]"), "list.json: "),
        (write(place, "word.yaml", "hello"), "word.yaml: "),
        (
            write(place, "place.json", "{\n  \"id\": \"/a\",\n  \"containers\" [\n"),
            "at line 3 column 16",
        ),
        (
            write(place, "place.yaml", "id: /a\ncontainers:\n  - {name: c\n"),
            "line ",
        ),
        (
            write(place, "tab.yaml", "id: /a\n\tcontainers: []\n"),
            "line 1 column 5",
        ),
        (write(place, "bomb.yaml", &bomb()), "bomb.yaml: "),
    ] {
        let (code, stdout, stderr) = output(podling().args(["up", "--listen", "127.0.0.1:0"]).arg(&file));
        assert_eq!((code, stdout.as_str()), (2, ""), "{stderr}");
        assert!(stderr.contains(words), "{words} is not in {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
    let bytes = place.join("bytes.json");
    std::fs::write(&bytes, b"\xff\xfe{}").unwrap();
    let (code, _, stderr) = output(podling().arg("up").arg(&bytes));
    assert!(code == 2 && stderr.contains("valid UTF-8"), "{stderr}");
}

/// Aliases of aliases: a gigabyte if somebody believed them.
fn bomb() -> String {
    let mut text = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..9 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(",");
        text.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    text
}

#[test]
fn an_unreadable_file_and_a_directory_that_cannot_be_used_are_told() {
    on_a_node(|node| {
        let file = node.file("secret.json", "{}");
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let (code, _, stderr) = output(&mut node.up(true, &[&file]));
        assert_eq!(code, 2, "{stderr}");
        assert!(
            stderr.ends_with("secret.json: Permission denied (os error 13)\n"),
            "{stderr}"
        );

        let hello = node.file("hello.json", include_str!("../../examples/hello.json"));
        for place in ["/etc/podling-state", "/proc/nowhere", "/dev/null"] {
            let (code, stdout, stderr) = output(&mut node.up(true, &["--state", place, &hello]));
            assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
            assert!(
                stderr.starts_with(&format!("podling: cannot use {place}: ")),
                "{stderr}"
            );
        }
        let mut command = node.up(true, &[&hello]);
        let (code, _, stderr) = output(command.env("TMPDIR", "/etc"));
        assert!(
            code == 1 && stderr.starts_with("podling: cannot use /etc/podling-"),
            "{stderr}"
        );
        let (code, _, stderr) = output(command.env("TMPDIR", "/tmp").env("PODLING_PIDS_LIMIT", "many"));
        assert!(code == 2 && stderr.contains("PODLING_PIDS_LIMIT"), "{stderr}");
    });
}

#[test]
fn two_do_not_share_a_state_directory() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().to_str().unwrap();
    let up = Up::start(&["--state", state]);
    let (code, stdout, stderr) = output(podling().args(["up", "--listen", "127.0.0.1:0", "--state", state]));
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.ends_with("is in use by another podling\n"), "{stderr}");
    assert_eq!(up.stop(), 0);
}

#[test]
fn what_nobody_knows_is_wrong_use() {
    for arguments in [
        &["up", "--colour"][..],
        &["pod", "lst"],
        &["pod", "status"],
        &["pod", "list", "-o", "xml"],
        &["pod", "list", "--url", "ftp://x"],
        &["pod", "list", "--url", "http://"],
        &["pod", "status", "/Up_per"],
        &["pod", "explain", "web/web.instance-17"],
        &["pod", "kill", "web", "not-an-instance"],
        &["pod", "add", "/no/such/file"],
        &["upp"],
    ] {
        let (code, stdout, stderr) = output(podling().args(arguments));
        assert_eq!((code, stdout.as_str()), (2, ""), "{arguments:?}: {stderr}");
        assert!(!stderr.is_empty());
    }
}

/// A server that answers every connection with the same bytes.
fn answering(bytes: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = std::io::Read::read(&mut stream, &mut [0; 4096]);
            let _ = std::io::Write::write_all(&mut stream, bytes);
        }
    });
    format!("http://{address}")
}

#[test]
fn a_server_that_is_no_scheduler_is_told_from_one() {
    for (bytes, words) in [
        (&b"220 mail.example ESMTP\r\n"[..], "is no scheduler: "),
        (b"", "is no scheduler: "),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>",
            "is no scheduler: its answer is no JSON: ",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n[", "broke off"),
        (
            b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 6\r\n\r\n<html>",
            "no reason given (HTTP 502)",
        ),
        (
            b"HTTP/1.1 503 X\r\nContent-Length: 27\r\n\r\n{\"message\":\"\\u001b[2Jbusy\"}",
            "busy (HTTP 503)",
        ),
    ] {
        let url = answering(bytes);
        for command in [
            &["list"][..],
            &["status", "a"],
            &["explain", "a"],
            &["versions", "a"],
            &["remove", "a"],
        ] {
            let (code, stdout, stderr) = output(podling().arg("pod").args(command).args(["--url", &url]));
            assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
            assert!(stderr.contains(words), "{words} is not in {stderr}");
            assert!(
                stderr.lines().count() == 1 && !stderr.contains('\u{1b}'),
                "{stderr:?}"
            );
        }
    }
    // JSON of another kind is not believed either.
    let url = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n[1,null]");
    for command in [
        &["list"][..],
        &["status", "a"],
        &["explain", "a"],
        &["versions", "a"],
        &["show", "a"],
    ] {
        let (code, stdout, stderr) = output(podling().arg("pod").args(command).args(["--url", &url]));
        assert_eq!((code, stdout.as_str()), (1, ""), "{command:?}: {stderr}");
        assert!(stderr.contains("is no scheduler"), "{command:?}: {stderr}");
    }
}
