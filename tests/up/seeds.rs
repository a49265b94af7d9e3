//! The pod definitions that users brought with them, posted as they are.

use std::{fs, path::Path};

use serde_json::Value;

use crate::{
    cluster::{Up, fixture},
    layout::{self, Registry},
    node::{Node, on_a_node, sh},
};

/// Adds a definition, waits until it is stable, lets `look` look, and removes it again.
fn live(up: &mut Up, name: &str, look: impl FnOnce(&mut Up, &Value)) {
    let file = fixture(name);
    let id = serde_json::from_str::<Value>(&fs::read_to_string(&file).unwrap()).unwrap()["id"].clone();
    let id = id.as_str().unwrap();
    let (code, stdout, stderr) = up.pod(&["add", file.to_str().unwrap()]);
    assert_eq!(code, 0, "{name}: {stderr}");
    assert!(stdout.starts_with("Created deployment "), "{stdout}");
    up.wait_for(&format!("{id} "));
    while up.json(&["status", id])["status"] != "STABLE" {
        up.wait_for(id);
    }
    let status = up.json(&["status", id]);
    let wanted = status["spec"]["scaling"]["instances"].as_u64().unwrap();
    let instances = status["instances"].as_array().unwrap();
    assert_eq!(instances.len() as u64, wanted, "{name}");
    assert!(
        instances.iter().all(|instance| instance["status"] == "STABLE"),
        "{name}"
    );
    look(up, &status);
    let (code, _, stderr) = up.pod(&["remove", "--force", id]);
    assert_eq!(code, 0, "{name}: {stderr}");
    up.wait_for("is gone");
    let (code, _, stderr) = up.pod(&["show", id]);
    assert!(code == 1 && stderr.contains("does not exist"), "{stderr}");
}

/// `podling up` whose executors find Docker Hub on loopback: an operator's mirror, no word of the definitions changed.
fn with_hub(node: &Node, registry: &Registry) -> Up {
    let mut command = node.up(false, &["--agents", "2", "--follow"]);
    command
        .env("PODLING_IMAGES_STORE", node.tmp.path().join("store"))
        .env("PODLING_IMAGES_INSECURE", &registry.address)
        .env(
            "PODLING_IMAGES_MIRRORS",
            format!("docker.io={}", registry.address),
        );
    Up::of(command)
}

fn hub(node: &Node) -> Registry {
    let place: &Path = node.tmp.path();
    let registry = Registry::start(place);
    layout::busybox(
        place,
        "python",
        &["--config.env=PYTHON_VERSION=3.5.2", "--config.cmd=sh"],
    );
    registry.push(&place.join("python"), "library/python:3.5.2-alpine");
    let serve = [
        "--config.entrypoint=/bin/sh",
        "--config.entrypoint=-c",
        "--config.cmd=echo nginx > /index.html; exec httpd -f -p 80 -h /",
    ];
    layout::busybox(place, "nginx", &serve);
    registry.push(&place.join("nginx"), "library/nginx:latest");
    registry
}

#[test]
fn every_image_less_pod_of_the_seeds_becomes_stable_and_goes_away_cleanly() {
    on_a_node(|node| {
        let before = node.look();
        let mut up = Up::of(node.up(false, &["--agents", "2", "--follow"]));
        live(&mut up, "seed-simplepod", |_, _| {});
        live(&mut up, "seed-simplepod2", |_, _| {});
        live(&mut up, "seed-pod-with-multiple-containers", |_, _| {});
        live(&mut up, "seed-with-ephemeral-vol", |up, _| {
            let said = up.wait_for("| the current time is ");
            assert!(said.contains(" ct2"), "ct2 reads what ct1 writes: {said}");
        });
        live(&mut up, "seed-pod-with-virtual-network", |_, status| {
            let network = &status["instances"][0]["networks"][0];
            assert_eq!(network["name"], "dcos", "{network}");
            assert!(
                network["addresses"][0].as_str().unwrap().starts_with("10.168."),
                "{network}"
            );
        });
        assert_eq!(up.stop(), 0);
        node.nothing_left(&before, "seeds");
    });
}

#[test]
fn the_seeds_images_come_from_wherever_the_operator_says() {
    on_a_node(|node| {
        let registry = hub(node);
        let before = node.look();
        let mut up = with_hub(node, &registry);
        live(&mut up, "seed-simple-pod-2", |up, _| {
            up.wait_for("| PYTHON_VERSION=3.5.2");
        });
        live(&mut up, "seed-pod-with-endpoint", |_, status| {
            let address = status["instances"][0]["networks"][0]["addresses"][0]
                .as_str()
                .unwrap();
            assert_eq!(
                sh(&format!(
                    "curl -sS --retry 20 --retry-connrefused --retry-delay 0 http://{address}/"
                )),
                "nginx\n"
            );
        });
        live(&mut up, "seed-pod-with-healthcheck", |up, status| {
            let container = &status["instances"][0]["containers"][0];
            let condition = &container["conditions"][0];
            assert_eq!(
                (&condition["name"], &condition["value"], &condition["reason"]),
                (
                    &"healthy".into(),
                    &"true".into(),
                    &"health-reported-by-mesos".into()
                ),
                "{container}"
            );
            assert_eq!(container["endpoints"][0]["healthy"], true, "{container}");
            let told = "RUNNING, healthy: GET / on port 80 → 200 after ";
            assert!(up.seen.iter().any(|line| line.contains(told)), "{:#?}", up.seen);
        });
        assert_eq!(up.stop(), 0);
        node.nothing_left(&before, "seeds with images");
    });
}

/// What this build cannot do yet is named, never ignored.
#[test]
fn a_seed_that_needs_more_is_refused_by_name() {
    let up = Up::start(&[]);
    for (name, missing) in [
        ("seed-simple-pod", &["/secrets: secrets are not supported"][..]),
        (
            "seed-complete-pod",
            &["/containers(0)/artifacts: artifacts are not supported"],
        ),
        (
            "seed-test-pod",
            &["/containers(1)/artifacts: artifacts are not supported"],
        ),
    ] {
        let (code, _, stderr) = up.pod(&["add", fixture(name).to_str().unwrap()]);
        assert_eq!(code, 2, "{name}: {stderr}");
        for words in missing {
            assert!(stderr.contains(words), "{name}: {words} is not in {stderr}");
        }
    }
    assert_eq!(up.stop(), 0);
}
