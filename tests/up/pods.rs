//! The life of a pod: scaled, changed, failing, found again.

use crate::cluster::{Up, await_processes, fixture, processes, write};

#[test]
fn scaling_and_changing_a_pod_does_what_it_says() {
    let directory = tempfile::tempdir().unwrap();
    let definition = |instances: u32, seconds: &str| {
        let text = format!(
            r#"{{"id": "/web", "scaling": {{"kind": "fixed", "instances": {instances}}}, "containers": [{{"name": "c",
            "resources": {{"cpus": 0.1, "mem": 32}}, "exec": {{"command": {{"shell": "exec sleep {seconds}"}}}}}}]}}"#
        );
        write(directory.path(), "web.json", &text)
            .to_str()
            .unwrap()
            .to_owned()
    };
    let mut up = Up::start(&[&definition(1, "1000.21")]);
    up.wait_for("is as it should be");
    let ids = |up: &Up| -> Vec<String> {
        let status = up.json(&["status", "web"]);
        status["instances"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| i["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let first = ids(&up);

    assert_eq!(up.pod(&["update", &definition(3, "1000.21")]).0, 0);
    up.wait_for("is as it should be");
    let three = ids(&up);
    assert!(three.len() == 3 && three.contains(&first[0]));
    await_processes("sleep\u{0}1000.21", 3);

    assert_eq!(up.pod(&["update", &definition(2, "1000.22")]).0, 0);
    up.wait_for("is as it should be");
    let changed = ids(&up);
    assert!(changed.len() == 2 && changed.iter().all(|id| !three.contains(id)));
    assert_eq!(
        (processes("sleep\u{0}1000.21"), processes("sleep\u{0}1000.22")),
        (0, 2)
    );
    assert_eq!(up.json(&["versions", "web"]).as_array().unwrap().len(), 3);

    // Killed without wipe, the same instance comes back as its next incarnation.
    assert_eq!(up.pod(&["kill", "web", &changed[0]]).0, 0);
    up.wait_for("KILLED");
    up.wait_for("RUNNING");
    assert_eq!(ids(&up), changed);

    assert_eq!(up.stop(), 0);
    assert_eq!(processes("sleep\u{0}1000.22"), 0);
}

#[test]
fn a_failing_member_takes_its_pod_with_it_and_the_pod_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    // Fails the first time only: the volume outlives the incarnation because it is the host's.
    let flag = directory.path().join("flag");
    let text = format!(
        r#"{{"id": "/flaky", "volumes": [{{"name": "v", "host": "{0}"}}], "containers": [
        {{"name": "a", "resources": {{"cpus": 0.1, "mem": 32}}, "volumeMounts": [{{"name": "v", "mountPath": "v"}}],
          "exec": {{"command": {{"shell": "[ -e v/flag ] && exec sleep 1000.23; touch v/flag; exit 7"}}}}}},
        {{"name": "b", "resources": {{"cpus": 0.1, "mem": 32}}, "exec": {{"command": {{"shell": "exec sleep 1000.24"}}}}}}]}}"#,
        directory.path().display()
    );
    let file = write(directory.path(), "flaky.json", &text);
    let mut up = Up::start(&[file.to_str().unwrap()]);
    up.wait_for("a · FAILED: Command exited with status 7");
    up.wait_for("is launched again in ");
    up.wait_for("RUNNING");
    up.wait_for("RUNNING");
    assert!(flag.exists());
    // One, and not two: the first incarnation's sibling is gone.
    await_processes("sleep\u{0}1000.24", 1);
    let status = up.json(&["status", "flaky"]);
    let task = status["instances"][0]["containers"][0]["containerId"]
        .as_str()
        .unwrap();
    assert!(task.ends_with(".a.2"), "{task}");
    assert_eq!(status["terminationHistory"].as_array().unwrap().len(), 1);
    assert_eq!(up.stop(), 0);
}

#[test]
fn pods_are_found_again_where_state_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state").to_str().unwrap().to_owned();
    let file = fixture("seed-simplepod");
    let mut up = Up::start(&["--state", &state, file.to_str().unwrap()]);
    up.wait_for("is as it should be");
    let before = up.json(&["show", "simplepod"]);
    assert_eq!(up.stop(), 0);

    let mut up = Up::start(&["--state", &state]);
    up.wait_for("RUNNING");
    assert_eq!(up.json(&["show", "simplepod"]), before);
    assert_eq!(up.stop(), 0);
}
