//! Wrong files, wrong flags, wrong places: one sentence, the right exit code, nothing half done.

use std::net::TcpListener;

use crate::cluster::{Up, output, podling, write};

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
        stdout.contains("valid, 1 container(s), 1 instance(s), 1.100 cpus and 160 MiB each"),
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
