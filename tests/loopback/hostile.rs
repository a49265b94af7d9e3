//! Clients that mean no good, or are merely broken. The agent refuses them, stays small, and serves the others.

use std::time::Duration;

use podling::{
    loopback::agent::{Agent, What},
    mesos::{codec::Encoding, v1::executor::call},
};

use crate::{
    Body,
    client::{Connection, Peer, request},
};

fn agent() -> (Body, Agent) {
    let body = Body::new();
    let agent = body.agent().max_body(64 << 10).start().unwrap();
    (body, agent)
}

fn still_serves(agent: &Agent) {
    Peer::new(agent, Encoding::Protobuf).subscribed();
}

const JSON: &[(&str, &str)] = &[("Content-Type", "application/json")];
const PATH: &str = "/api/v1/executor";

#[test]
fn a_body_that_is_too_long_is_refused() {
    let (_body, agent) = agent();
    let mut connection = Connection::tcp(agent.facts());
    // It need not even be sent.
    connection
        .write(b"POST /api/v1/executor HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n");
    assert_eq!(connection.response().unwrap().status, 413);
    still_serves(&agent);
}

#[test]
fn a_chunked_body_without_end_is_refused() {
    let (_body, agent) = agent();
    let mut connection = Connection::tcp(agent.facts());
    connection
        .write(b"POST /api/v1/executor HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunk = [b"1000\r\n".as_slice(), &[b' '; 0x1000], b"\r\n"].concat();
    // The agent may have enough of it, and close, before all is written.
    for _ in 0..32 {
        if connection.try_write(&chunk).is_err() {
            break;
        }
    }
    // The answer may get lost when the connection is closed on what was written after it.
    if let Ok(response) = connection.response() {
        assert_eq!(response.status, 413);
    }
    let refused = |what: &What| matches!(what, What::Refused { status: 413, .. });
    agent
        .wait_for("the refusal", |h| {
            h.entries().iter().any(|entry| refused(&entry.what))
        })
        .unwrap();
    still_serves(&agent);
}

#[test]
fn requests_that_are_not_http_end_the_connection() {
    let (_body, agent) = agent();
    for garbage in [
        b"\0\x01\x02\x03\r\n\r\n".as_slice(),
        b"POST\r\n\r\n",
        b"POST / HTTP/9.9\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nno colon\r\n\r\n",
    ] {
        let mut connection = Connection::tcp(agent.facts());
        connection.write(garbage);
        connection.wait_closed();
    }
    still_serves(&agent);
}

#[test]
fn headers_without_end_are_refused() {
    let (_body, agent) = agent();
    let mut connection = Connection::tcp(agent.facts());
    connection.write(b"POST / HTTP/1.1\r\n");
    let line = format!("X: {}\r\n", "x".repeat(8000));
    while connection.try_write(line.as_bytes()).is_ok() {}
    still_serves(&agent);
}

#[test]
fn one_who_never_finishes_a_request_holds_nobody_up() {
    let (_body, agent) = agent();
    let whole = request("POST", PATH, JSON, b"{}");
    let mut slow: Vec<Connection> = [1, 20, whole.len() - 1]
        .into_iter()
        .map(|length| {
            let mut connection = Connection::tcp(agent.facts());
            connection.write(&whole[..length]);
            connection
        })
        .collect();
    still_serves(&agent);
    // And may still finish.
    slow[2].write(b"}");
    assert_eq!(slow[2].response().unwrap().status, 400);
}

#[test]
fn one_who_never_reads_its_stream_holds_nobody_up() {
    let (_body, agent) = agent();
    let peer = Peer::new(&agent, Encoding::Protobuf);
    let _deaf = peer.subscribed();
    for _ in 0..64 {
        agent.message(&[7; 256 << 10]);
    }
    // 16 MB of it wait; calls are still answered, and a new subscription is not behind them.
    assert_eq!(
        peer.post(&mut peer.connect(), &peer.call(call::Type::Heartbeat))
            .status,
        202
    );
    let mut stream = peer.subscribed();
    agent.message(b"x");
    assert_eq!(stream.next().message.unwrap().data, b"x");
}

#[test]
fn connections_are_counted() {
    let (_body, agent) = agent();
    let mut idle: Vec<Connection> = (0..256).map(|_| Connection::tcp(agent.facts())).collect();
    let full = |count| {
        let connected = |what: &What| matches!(what, What::Connected(_));
        let awaited = format!("{count} connections");
        let entries = |h: &podling::loopback::agent::History| {
            h.entries().iter().filter(|entry| connected(&entry.what)).count() == count
        };
        agent.wait_for(&awaited, entries).unwrap();
    };
    full(256);
    Connection::tcp(agent.facts()).wait_closed();
    drop(idle.pop());
    agent
        .wait_for("one to go", |h| {
            h.entries()
                .iter()
                .any(|entry| matches!(entry.what, What::Disconnected(_)))
        })
        .unwrap();
    still_serves(&agent);
}

#[test]
fn calls_of_nonsense_are_told_what_is_wrong_with_them() {
    let (_body, agent) = agent();
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    for body in ["", "null", "[]", "\"x\"", "{", "{\"type\":7}", "\u{0}", &deep] {
        let response = Connection::tcp(agent.facts()).exchange("POST", PATH, JSON, body.as_bytes());
        assert_eq!(response.status, 400, "{}", &body[..body.len().min(20)]);
        assert!(!response.body.is_empty() && response.body.len() < 1000);
    }
    let protobuf = &[("Content-Type", "application/x-protobuf")];
    for body in [
        b"\xff\xff\xff\xff\xff".as_slice(),
        b"",
        b"\x0a\xff\xff\xff\x7f",
        &[0; 100],
    ] {
        let response = Connection::tcp(agent.facts()).exchange("POST", PATH, protobuf, body);
        assert_eq!(response.status, 400);
    }
    still_serves(&agent);
}

#[test]
fn clients_that_go_away_in_the_middle_leave_nothing() {
    let (_body, agent) = agent();
    let whole = request("POST", PATH, JSON, b"{}");
    for length in (0..whole.len()).step_by(7) {
        Connection::tcp(agent.facts()).write(&whole[..length]);
    }
    let counts = |h: &podling::loopback::agent::History| {
        let count = |of: fn(&What) -> bool| h.entries().iter().filter(|entry| of(&entry.what)).count();
        (
            count(|w| matches!(w, What::Connected(_))),
            count(|w| matches!(w, What::Disconnected(_))),
        )
    };
    let all = (0..whole.len()).step_by(7).len();
    agent
        .wait_for("all to be gone", |h| counts(h) == (all, all))
        .unwrap();
    still_serves(&agent);
}

#[test]
fn patience_with_an_executor_that_hangs_has_an_end() {
    let body = Body::new();
    let agent = body.agent().patience(Duration::from_millis(50)).start().unwrap();
    let outcome = agent.finish();
    assert_eq!(outcome.complaints(), ["the executor had to be killed"]);
}

/// The status that somebody else's curl hears of this agent or master.
pub fn another_user(address: std::net::SocketAddr, path: &str, headers: &[&str]) -> String {
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "curl"]);
    command.args([
        "-s",
        "-m",
        "30",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "-d",
        "{}",
    ]);
    for header in [&["Content-Type: application/json"], headers].concat() {
        command.args(["-H", header]);
    }
    let output = command.arg(format!("http://{address}{path}")).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn another_user_is_no_executor_and_no_page_is_one() {
    let (_body, agent) = agent();
    let endpoint = agent.facts().endpoint;
    assert_eq!(another_user(endpoint, "/api/v1/executor", &[]), "401");
    assert_eq!(
        another_user(endpoint, "/api/v1/executor", &["Authorization: Bearer a.b.c"]),
        "401"
    );
    let mut connection = Connection::tcp(agent.facts());
    let page = "POST /api/v1/executor HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 0\r\n\r\n";
    connection.write(page.as_bytes());
    assert_eq!(connection.response().unwrap().status, 403);
    still_serves(&agent);
}
