//! Clients that mean no good, or are merely broken.

use serde_json::json;

use super::{Home, JSON, PATH, info};
use crate::client::{Connection, request};

#[test]
fn a_body_that_is_too_long_is_refused_before_it_is_sent() {
    let home = Home::new(1);
    let mut connection = home.connect();
    connection
        .write(b"POST /api/v1/scheduler HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n");
    assert_eq!(connection.response().unwrap().status, 413);
    home.still_serves();
}

#[test]
fn bodies_that_break_off_hurt_nobody() {
    let home = Home::new(1);
    let whole = request(
        "POST",
        PATH,
        &[JSON],
        br#"{"type": "SUBSCRIBE", "subscribe": {}}"#,
    );
    for length in [1, 20, whole.len() - 10, whole.len() - 1] {
        let mut connection = home.connect();
        connection.write(&whole[..length]);
        drop(connection);
    }
    home.still_serves();
}

#[test]
fn requests_that_are_not_http_end_the_connection() {
    let home = Home::new(1);
    for garbage in [
        b"\0\x01\x02\x03\r\n\r\n".as_slice(),
        b"POST\r\n\r\n",
        b"POST / HTTP/9.9\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    ] {
        let mut connection = home.connect();
        connection.write(garbage);
        connection.wait_closed();
    }
    home.still_serves();
}

#[test]
fn nested_and_random_bodies_are_refused() {
    let home = Home::new(1);
    let deep = "[".repeat(100_000);
    assert_eq!(home.exchange("POST", PATH, &[JSON], deep.as_bytes()).status, 400);
    let protobuf = ("Content-Type", "application/x-protobuf");
    let mut noise = 0x9e37_79b9_u32;
    for length in [1_usize, 7, 100, 10_000] {
        let body: Vec<u8> = std::iter::repeat_with(|| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (noise >> 24) as u8
        })
        .take(length)
        .collect();
        assert_eq!(home.exchange("POST", PATH, &[protobuf], &body).status, 400);
    }
    home.still_serves();
}

#[test]
fn absurd_amounts_are_refused_and_nothing_is_lost() {
    let home = Home::new(1);
    let mut framework = home.subscribe(info(60.0));
    for (cpus, ports) in [
        (json!(1e308), json!([])),
        (json!("Infinity"), json!([])),
        (json!(-1), json!([])),
        (json!(0.1), json!([{"begin": 0, "end": u64::MAX}])),
        (json!(0.1), json!([{"begin": 9, "end": 3}])),
        (
            json!(0.1),
            (0..5000).map(|n| json!({"begin": 2 * n, "end": 2 * n})).collect(),
        ),
    ] {
        let offer = framework.next_offer();
        let mut resources = super::scalars(0.1);
        resources[0]["scalar"]["value"] = cpus.clone();
        resources
            .as_array_mut()
            .unwrap()
            .push(json!({"name": "ports", "type": "RANGES", "ranges": {"range": ports}}));
        let task = json!({"name": "a", "task_id": {"value": "a"}, "agent_id": offer["agent_id"],
            "resources": resources, "command": {"value": "true"}});
        let executor =
            json!({"type": "DEFAULT", "executor_id": {"value": "e"}, "resources": super::scalars(0.1)});
        let operation = json!({"type": "LAUNCH_GROUP",
            "launch_group": {"executor": executor, "task_group": {"tasks": [task]}}});
        let accept = json!({"offer_ids": [offer["id"]], "operations": [operation],
            "filters": {"refuse_seconds": 0.0}});
        framework.call("ACCEPT", Some(accept));
        framework.next_state("a", "TASK_ERROR");
    }
    let offer = framework.next_offer();
    assert_eq!(offer["resources"][0]["scalar"]["value"], 2.0, "{offer}");
}

#[test]
fn many_idle_connections_keep_nobody_out() {
    let home = Home::new(1);
    let idle: Vec<Connection> = (0..200).map(|_| home.connect()).collect();
    home.still_serves();
    drop(idle);
}

#[test]
fn another_user_is_no_scheduler() {
    let home = Home::new(1);
    let address = home.cluster.address();
    assert_eq!(crate::hostile::another_user(address, PATH, &[]), "401");
    assert_eq!(
        crate::hostile::another_user(address, PATH, &["Authorization: Bearer x"]),
        "401"
    );
    // Which tells nothing.
    assert_eq!(crate::hostile::another_user(address, "/health", &[]), "200");
    assert_eq!(
        home.exchange("POST", PATH, &[JSON, ("Origin", "http://evil.example")], b"{}")
            .status,
        403
    );
    home.still_serves();
}
