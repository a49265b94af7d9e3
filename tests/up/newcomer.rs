//! What somebody reads who runs this for the first time.

use std::net::TcpListener;

use crate::{
    cluster::{Up, output, podling, write},
    once::job,
};

fn published(port: u16) -> String {
    format!(
        r#"{{"id": "/web", "networks": [{{"mode": "host"}}], "containers": [{{"name": "server",
        "resources": {{"cpus": 0.1, "mem": 32}}, "exec": {{"command": {{"shell": "exec sleep 1000.31"}}}},
        "endpoints": [{{"name": "http", "hostPort": {port}, "protocol": ["tcp"]}}]}}]}}"#
    )
}

#[test]
fn up_says_what_can_be_done_next_and_where_pods_answer() {
    let place = tempfile::tempdir().unwrap();
    let file = write(place.path(), "web.json", &published(31007));
    let mut up = Up::start(&[file.to_str().unwrap()]);
    let way = up.wait_for("Ctrl-C ends everything");
    assert!(
        way.contains(&format!("PODLING_URL={} podling pod list", up.url)),
        "{way}"
    );
    let kind = up.wait_for("pods are services");
    assert!(kind.contains("--once"), "{kind}");
    let endpoint = up.wait_for("endpoint http of server");
    assert_eq!(
        endpoint,
        "/web        · endpoint http of server: http://127.0.0.1:31007/"
    );
    assert_eq!(up.stop(), 0);
}

#[test]
fn a_pod_that_ends_the_same_way_again_is_told_of_in_short() {
    let place = tempfile::tempdir().unwrap();
    let mut definition: serde_json::Value = serde_json::from_str(&job(&["exit 7"])).unwrap();
    definition["scheduling"] =
        serde_json::json!({"backoff": {"backoff": 0.01, "backoffFactor": 1.0, "maxLaunchDelay": 1}});
    let file = write(place.path(), "job.json", &definition.to_string());
    let mut up = Up::start(&[file.to_str().unwrap()]);
    up.wait_for("FAILED: Command exited with status 7");
    up.wait_for("FAILED, 2 times in a row with the same cause");
    up.wait_for("FAILED, 4 times in a row with the same cause");
    let count = |words: &str| up.seen.iter().filter(|line| line.contains(words)).count();
    assert_eq!(count("Command exited with status 7"), 1, "{:#?}", up.seen);
    assert_eq!(count("goes to agent1"), 2, "{:#?}", up.seen);
    assert_eq!(up.stop(), 0);
}

#[test]
fn a_pod_whose_members_ended_well_is_not_told_as_failed() {
    let place = tempfile::tempdir().unwrap();
    let mut definition: serde_json::Value = serde_json::from_str(&job(&["exit 0"])).unwrap();
    definition["scheduling"] =
        serde_json::json!({"backoff": {"backoff": 60, "backoffFactor": 1.0, "maxLaunchDelay": 60}});
    let file = write(place.path(), "job.json", &definition.to_string());
    let mut up = Up::start(&[file.to_str().unwrap()]);
    up.wait_for("is launched again in");
    for asked in ["status", "explain"] {
        let (code, told, _) = up.pod(&[asked, "job"]);
        assert_eq!(code, 0);
        assert!(told.starts_with("/job is RESTARTING"), "{told}");
        assert!(
            !told.contains("failure") && told.contains("last end, by itself and well"),
            "{told}"
        );
    }
    assert_eq!(up.stop(), 0);
}

#[test]
fn a_taken_port_that_was_typed_is_refused_with_who_has_it_and_what_is_free() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, _, stderr) = output(podling().args(["up", "--listen", &address]));
    assert_eq!(code, 1);
    let us = format!("cannot listen on {address}: process {} (", std::process::id());
    assert!(stderr.contains(&us) && stderr.contains(" is free"), "{stderr}");
}

#[test]
fn help_begins_with_what_is_needed_first_and_is_as_wide_as_the_terminal() {
    let help = |arguments: &[&str], columns: &str| {
        let (code, text, _) = output(podling().args(arguments).env("COLUMNS", columns));
        assert_eq!(code, 0, "{arguments:?}");
        text
    };
    let text = help(&["--help"], "100");
    let place = |word: &str| {
        text.find(&format!("\n  {word} "))
            .unwrap_or_else(|| panic!("{word}: {text}"))
    };
    assert!(place("up") < place("pod") && place("pod") < place("scheduler"));
    for command in ["up", "pod", "scheduler", "node", "image", "loopback"] {
        assert!(
            help(&[command, "--help"], "100").contains("Examples:"),
            "{command}"
        );
    }
    let (code, version, _) = output(podling().arg("--version"));
    assert_eq!(code, 0);
    assert_eq!(version.trim(), format!("podling {}", podling::version::VERSION));
}

#[test]
fn slips_in_variables_and_values_are_answered_with_what_was_meant() {
    let (code, _, stderr) = output(
        podling()
            .args(["up", "--listen", "127.0.0.1:0"])
            .env("PODLING_LOG", "loud"),
    );
    assert_eq!(code, 2);
    assert!(stderr.contains("`loud` is no level"), "{stderr}");
    let (_, told, _) = output(podling().args(["node", "check"]).env("PODLING_IMAGES_QOUTA", "1"));
    assert!(
        told.contains("PODLING_IMAGES_QOUTA means nothing; did you mean PODLING_IMAGES_QUOTA?"),
        "{told}"
    );
    let (code, _, stderr) = output(podling().args([
        "loopback",
        "master",
        "--resources",
        "cpu:4;mem:x",
        "--listen",
        "127.0.0.1:0",
    ]));
    assert_eq!(code, 2, "{stderr}");
    assert!(
        stderr.contains("--resources: no pod asks for cpu; did you mean cpus?"),
        "{stderr}"
    );
}
