//! Which request gets which answer (wire file, sections 2 and 15).

use podling::mesos::{
    codec::{self, Encoding},
    v1::{
        FrameworkInfo,
        scheduler::{Call, Event, call, event},
    },
};
use serde_json::json;

use super::{Home, JSON, PATH, info};
use crate::client::{Stream, request};

const PROTOBUF: (&str, &str) = ("Content-Type", "application/x-protobuf");

#[test]
fn requests_that_are_wrong_are_told_so() {
    let home = Home::new(1);
    let subscribe = br#"{"type": "SUBSCRIBE", "subscribe": {"framework_info": {"user": "u", "name": "n"}}}"#;
    let with_ids = |first: &str, second: &str| {
        json!({"type": "SUBSCRIBE", "framework_id": {"value": first},
            "subscribe": {"framework_info": {"user": "u", "name": "n", "id": {"value": second}}}})
        .to_string()
        .into_bytes()
    };
    let charset = ("Content-Type", "application/json; charset=utf-8");
    let html = ("Accept", "text/html");
    let stream = ("Mesos-Stream-Id", "x");
    let long = "x".repeat(200);
    let long = ("Mesos-Stream-Id", long.as_str());
    let revive = br#"{"type": "REVIVE", "framework_id": {"value": "never"}}"#;
    for (method, path, headers, body, status) in [
        ("GET", PATH, &[JSON][..], subscribe.to_vec(), 405),
        ("PUT", PATH, &[JSON], subscribe.to_vec(), 405),
        ("POST", "/api/v1/scheduler/", &[JSON], subscribe.to_vec(), 404),
        ("POST", "/", &[JSON], subscribe.to_vec(), 404),
        ("POST", PATH, &[], subscribe.to_vec(), 400),
        ("POST", PATH, &[charset], subscribe.to_vec(), 415),
        (
            "POST",
            PATH,
            &[("Content-Type", "text/plain")],
            subscribe.to_vec(),
            415,
        ),
        ("POST", PATH, &[JSON, html], subscribe.to_vec(), 406),
        ("POST", PATH, &[JSON, stream], subscribe.to_vec(), 400),
        ("POST", PATH, &[PROTOBUF], subscribe.to_vec(), 400),
        ("POST", PATH, &[JSON], b"".to_vec(), 400),
        ("POST", PATH, &[JSON], b"{".to_vec(), 400),
        ("POST", PATH, &[JSON], b"{}".to_vec(), 400),
        ("POST", PATH, &[JSON], br#"{"type": "SUBSCRIBE"}"#.to_vec(), 400),
        ("POST", PATH, &[JSON], br#"{"type": "NONSENSE"}"#.to_vec(), 400),
        ("POST", PATH, &[JSON], with_ids("a", "b"), 400),
        ("POST", PATH, &[JSON], with_ids("../up", "../up"), 400),
        ("POST", PATH, &[JSON], br#"{"type": "REVIVE"}"#.to_vec(), 400),
        ("POST", PATH, &[JSON], revive.to_vec(), 400),
        ("POST", PATH, &[JSON, long], revive.to_vec(), 400),
        ("POST", PATH, &[JSON, stream], revive.to_vec(), 400),
    ] {
        let response = home.exchange(method, path, headers, &body);
        let text = String::from_utf8_lossy(&body);
        assert_eq!(
            response.status, status,
            "{method} {path} {headers:?} {text}: {}",
            response.body
        );
        if status == 405 {
            assert_eq!(response.headers["allow"], "POST");
        }
    }
    home.still_serves();
}

#[test]
fn it_says_that_it_is_well_and_which_version_it_speaks() {
    let home = Home::new(1);
    assert_eq!(home.exchange("GET", "/health", &[], b"").status, 200);
    let version = home.exchange("GET", "/version", &[], b"");
    assert_eq!(version.body, r#"{"version":"1.11.0"}"#);
}

#[test]
fn a_stream_is_in_the_encoding_that_was_accepted() {
    let home = Home::new(3);
    let framework_info = FrameworkInfo {
        user: "u".into(),
        name: "n".into(),
        ..Default::default()
    };
    let subscribe = Call {
        r#type: Some(call::Type::Subscribe as i32),
        subscribe: Some(call::Subscribe {
            framework_info,
            ..Default::default()
        }),
        ..Default::default()
    };
    for (accept, encoding) in [
        ("application/x-protobuf", Encoding::Protobuf),
        ("application/json", Encoding::Json),
        ("*/*", Encoding::Json),
    ] {
        let mut connection = home.connect();
        let body = codec::encode(&subscribe, Encoding::Protobuf);
        connection.write(&request("POST", PATH, &[PROTOBUF, ("Accept", accept)], &body));
        let head = connection.head().unwrap();
        assert_eq!(head.headers["content-type"], encoding.media_type());
        assert_eq!(head.headers["transfer-encoding"], "chunked");
        assert!(head.headers["mesos-stream-id"].len() <= 128);
        let mut stream = Stream::new(connection, head, encoding);
        let mut next = || codec::decode::<Event>(&stream.next_record().unwrap(), encoding).unwrap();
        let subscribed = next().subscribed.unwrap();
        assert_eq!(subscribed.heartbeat_interval_seconds, Some(15.0));
        assert_ne!(subscribed.master_info.unwrap().port, 0);
        let offers = next();
        assert_eq!(offers.r#type(), event::Type::Offers);
        assert_eq!(offers.offers.unwrap().offers.len(), 3);
    }
}

#[test]
fn calls_need_the_id_of_the_stream_they_belong_to() {
    let home = Home::new(1);
    let mut framework = home.subscribe(info(60.0));
    framework.call("REVIVE", None);
    let missing = framework.post(None, "REVIVE", None);
    assert_eq!(missing.status, 400);
    assert!(missing.body.contains("Mesos-Stream-Id"), "{}", missing.body);
    let wrong = framework.post(Some("another"), "REVIVE", None);
    assert_eq!(wrong.status, 400);
    assert!(wrong.body.contains("didn't match"), "{}", wrong.body);
    framework.call("SUPPRESS", None);
}

#[test]
fn the_newer_of_two_schedulers_wins() {
    let home = Home::new(1);
    let mut old = home.subscribe(info(60.0));
    let mut again = info(60.0);
    again["id"] = json!({"value": old.id});
    let mut new = home.subscribe(again);
    assert_eq!((&new.id, new.stream_id == old.stream_id), (&old.id, false));
    assert_eq!(old.next("ERROR")["error"]["message"], "Framework failed over");
    assert!(old.stream.next_record().is_err(), "the old stream has ended");
    let stale = old.stream_id.clone();
    assert_eq!(old.post(Some(&stale), "TEARDOWN", None).status, 400);
    new.call("REVIVE", None);
    new.next_offer();
}

#[test]
fn a_framework_that_was_removed_is_told_so() {
    let home = Home::new(1);
    let mut framework = home.subscribe(info(60.0));
    framework.call("TEARDOWN", None);
    while framework.stream.next_record().is_ok() {}
    let stream_id = framework.stream_id.clone();
    assert_eq!(framework.post(Some(&stream_id), "REVIVE", None).status, 400);
    let mut again = info(60.0);
    again["id"] = json!({"value": framework.id});
    let call =
        json!({"type": "SUBSCRIBE", "framework_id": again["id"], "subscribe": {"framework_info": again}});
    let mut connection = home.connect();
    connection.write(&request("POST", PATH, &[JSON], call.to_string().as_bytes()));
    let head = connection.head().unwrap();
    let mut stream = Stream::new(connection, head, Encoding::Json);
    let event: serde_json::Value = serde_json::from_slice(&stream.next_record().unwrap()).unwrap();
    assert_eq!(event["error"]["message"], "Framework has been removed");
    assert!(stream.next_record().is_err());
}

#[test]
fn a_framework_that_is_away_is_not_subscribed() {
    let home = Home::new(1);
    let mut framework = home.subscribe(info(60.0));
    let (id, stream_id) = (framework.id.clone(), framework.stream_id.clone());
    let other = home.connect();
    let gone = std::mem::replace(&mut framework.stream.connection, other);
    drop(gone);
    let call = json!({"type": "REVIVE", "framework_id": {"value": id}}).to_string();
    let headers = [JSON, ("Mesos-Stream-Id", stream_id.as_str())];
    let post = || home.exchange("POST", PATH, &headers, call.as_bytes()).status;
    super::eventually("403", || post() == 403);
}
