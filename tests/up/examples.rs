//! The files in `examples/`, and what the README says of each.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
};

use nix::mount::{MsFlags, mount};

use crate::{
    cluster::Up,
    layout,
    node::{Node, on_a_node},
};

fn example(name: &str) -> String {
    format!("{}/examples/{name}.json", env!("CARGO_MANIFEST_DIR"))
}

/// Runs an example to its end; gives what members wrote, with their names.
#[track_caller]
fn once(node: &Node, ordinary: bool, name: &str) -> Vec<String> {
    // An ordinary user may not be allowed to look where this is checked out.
    let file = node.file("example.json", &fs::read_to_string(example(name)).unwrap());
    let output = node.up(ordinary, &["--once", &file]).output().unwrap();
    let (text, complaints) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{name}: {text}{complaints}");
    assert_eq!(complaints, "", "{name}");
    let lines = text.lines().filter_map(|line| line.split_once(" | "));
    lines
        .map(|(label, words)| format!("{}: {words}", label.trim_end()))
        .collect()
}

/// The layout that the README tells how to make, at the place it names. `/var/tmp` is this node's own.
fn busybox() {
    mount(
        Some("tmpfs"),
        "/var/tmp",
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=1777"),
    )
    .unwrap();
    layout::busybox(Path::new("/var/tmp"), "busybox", &["--config.cmd=sh"]);
}

#[test]
fn hello_and_the_volumes_run_for_root_and_for_an_ordinary_user() {
    on_a_node(|node| {
        let before = node.look();
        for ordinary in [false, true] {
            let hello = once(node, ordinary, "hello");
            assert_eq!(
                hello.iter().filter(|line| line.contains("from greeter")).count(),
                3,
                "{hello:?}"
            );
            assert_eq!(hello.last().unwrap(), "/hello listener: I heard 3 greetings");
            assert_eq!(
                once(node, ordinary, "shared-volume"),
                ["line 1", "line 2", "line 3", "I can only read"]
                    .map(|line| format!("/shared reader: {line}"))
            );
            let host = once(node, ordinary, "host-volume");
            assert!(
                host[0].starts_with("/host visitor: This machine has "),
                "{host:?}"
            );
            assert_eq!(host[1], "/host visitor: I can only read");
            node.nothing_left(&before, "examples");
        }
    });
}

#[test]
fn ten_times_three_sleepers_sleep() {
    on_a_node(|node| {
        let before = node.look();
        let mut up = Up::of(node.up(false, &[&example("sleepers")]));
        up.wait_for("is as it should be");
        let status = up.json(&["status", "sleepers"]);
        let instances = status["instances"].as_array().unwrap();
        assert!(instances.len() == 10 && instances.iter().all(|instance| instance["status"] == "STABLE"));
        assert!(
            up.seen.iter().any(|line| line == "/sleepers[10] three · RUNNING"),
            "{:#?}",
            up.seen
        );
        assert_eq!(up.stop(), 0);
        node.nothing_left(&before, "sleepers");
    });
}

#[test]
fn the_image_is_a_root_of_its_own() {
    on_a_node(|node| {
        busybox();
        let before = node.look();
        let lines = once(node, false, "image");
        assert!(lines[0].starts_with("/image busybox: My root has "), "{lines:?}");
        assert!(lines[0].ends_with(" of my own"), "{lines:?}");
        assert_eq!(lines[1], "/image busybox: BusyBox");
        node.nothing_left(&before, "image");
    });
}

#[test]
fn h_14_checks_look_inside_the_pods_own_network_and_all_have_to_be_well() {
    on_a_node(|node| {
        busybox();
        let before = node.look();
        let mut up = Up::of(node.up(false, &["--follow", &example("health")]));
        up.wait_for("is as it should be");
        let status = up.json(&["status", "healthy"]);
        assert_eq!(status["status"], "STABLE", "{status}");
        for container in status["instances"][0]["containers"].as_array().unwrap() {
            assert_eq!(container["conditions"][0]["value"], "true", "{container}");
        }
        for words in [
            "RUNNING, healthy: GET /ping on port 80 → 200",
            "RUNNING, healthy: command → status 0",
        ] {
            assert!(
                up.seen.iter().any(|line| line.contains(words)),
                "{words}: {:#?}",
                up.seen
            );
        }
        assert_eq!(up.stop(), 0);
        node.nothing_left(&before, "health");
    });
}

#[test]
fn the_published_port_answers() {
    on_a_node(|node| {
        busybox();
        let before = node.look();
        let mut up = Up::of(node.up(false, &["--follow", &example("network")]));
        up.wait_for("/web client | Hello from the pod");
        let mut client = TcpStream::connect("127.0.0.1:31080").unwrap();
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("Hello from the pod\n"), "{answer}");
        // By another program, and by the pod's own address.
        let status = up.json(&["status", "web"]);
        let address = status["instances"][0]["networks"][0]["addresses"][0]
            .as_str()
            .unwrap();
        for place in ["127.0.0.1:31080", address] {
            assert_eq!(
                crate::node::sh(&format!("curl -sS http://{place}/")),
                "Hello from the pod\n"
            );
        }
        assert_eq!(up.stop(), 0);
        node.nothing_left(&before, "network");
    });
}
