//! The HTTP rules, as `executor_http_api_tests` of Mesos has them (the names are theirs).

use std::{collections::BTreeMap, time::Duration};

use podling::{
    loopback::agent::{Agent, Phase, Violation, What},
    mesos::{
        codec::Encoding,
        v1::{
            ExecutorId, FrameworkId, TaskState,
            executor::{call, event},
        },
    },
};

use crate::{
    Body,
    client::{Connection, Peer, Response},
    group,
};

const ENCODINGS: [Encoding; 2] = [Encoding::Protobuf, Encoding::Json];

/// One request, on a connection of its own.
fn ask(agent: &Agent, method: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
    let peer = Peer::new(agent, Encoding::Json);
    Connection::tcp(agent.facts()).exchange(method, &peer.path(), headers, body)
}

fn agent() -> (Body, Agent) {
    let body = Body::new();
    let agent = body.agent().start().unwrap();
    (body, agent)
}

const JSON: (&str, &str) = ("Content-Type", "application/json");

#[test]
fn no_content_type() {
    let (_body, agent) = agent();
    let peer = Peer::new(&agent, Encoding::Json);
    let call = peer.bytes(&peer.subscribe_call(call::Subscribe::default()));
    let response = ask(&agent, "POST", &[], &call);
    assert_eq!(response.status, 400);
    assert!(response.body.contains("Content-Type"), "{}", response.body);
}

#[test]
fn valid_json_but_invalid_protobuf() {
    let (_body, agent) = agent();
    let response = ask(&agent, "POST", &[JSON], br#"{"string":"foo"}"#);
    assert_eq!(response.status, 400);
    assert!(
        response.body.contains("executor_id"),
        "names what is missing: {}",
        response.body
    );
    assert!(response.headers["content-type"].starts_with("text/plain"));
}

#[test]
fn malformed_content() {
    let (_body, agent) = agent();
    for content_type in ["application/json", "application/x-protobuf"] {
        let response = ask(
            &agent,
            "POST",
            &[("Content-Type", content_type)],
            b"MALFORMED_CONTENT",
        );
        assert_eq!(response.status, 400, "{content_type}");
        assert!(!response.body.is_empty());
    }
}

#[test]
fn unsupported_content_media_type() {
    let (_body, agent) = agent();
    let peer = Peer::new(&agent, Encoding::Json);
    let call = peer.bytes(&peer.subscribe_call(call::Subscribe::default()));
    for content_type in [
        "application/unknown-media-type",
        "application/json; charset=utf-8",
    ] {
        assert_eq!(
            ask(&agent, "POST", &[("Content-Type", content_type)], &call).status,
            415
        );
    }
}

#[test]
fn message_from_unknown_framework() {
    let (_body, agent) = agent();
    for encoding in ENCODINGS {
        let peer = Peer::new(&agent, encoding);
        let mut call = peer.call(call::Type::Message);
        call.message = Some(call::Message {
            data: b"hello".to_vec(),
        });
        call.framework_id = FrameworkId {
            value: "dummy_framework_id".into(),
        };
        let response = peer.post(&mut peer.connect(), &call);
        assert_eq!(
            (response.status, &*response.body),
            (400, "Framework cannot be found")
        );
        call.framework_id.value = peer.facts.framework_id.clone();
        call.executor_id = ExecutorId {
            value: "nobody".into(),
        };
        let response = peer.post(&mut peer.connect(), &call);
        assert_eq!(
            (response.status, &*response.body),
            (400, "Executor cannot be found")
        );
    }
}

#[test]
fn get_request() {
    let (_body, agent) = agent();
    for method in ["GET", "PUT", "DELETE"] {
        let response = ask(&agent, method, &[], b"");
        assert_eq!(response.status, 405, "{method}");
        assert_eq!(response.headers["allow"], "POST");
    }
}

#[test]
fn default_accept_and_no_accept_header() {
    for accept in [
        Some("*/*"),
        None,
        Some("application/x-protobuf, application/json"),
    ] {
        let (_body, agent) = agent();
        let peer = Peer::new(&agent, Encoding::Protobuf);
        let call = peer.bytes(&peer.subscribe_call(call::Subscribe::default()));
        let mut headers = vec![("Content-Type", "application/x-protobuf")];
        headers.extend(accept.map(|accept| ("Accept", accept)));
        let head = peer.connect().start("POST", &peer.path(), &headers, &call);
        assert_eq!(head.status, 200);
        assert_eq!(head.headers["content-type"], "application/json", "{accept:?}");
    }
}

#[test]
fn not_acceptable() {
    let (_body, agent) = agent();
    let peer = Peer::new(&agent, Encoding::Json);
    let call = peer.bytes(&peer.subscribe_call(call::Subscribe::default()));
    assert_eq!(ask(&agent, "POST", &[JSON, ("Accept", "foo")], &call).status, 406);
    // On other calls the header is not looked at.
    let heartbeat = peer.bytes(&peer.call(call::Type::Heartbeat));
    assert_eq!(
        ask(&agent, "POST", &[JSON, ("Accept", "foo")], &heartbeat).status,
        202
    );
}

#[test]
fn valid_protobuf_invalid_call() {
    let (_body, agent) = agent();
    for encoding in ENCODINGS {
        let peer = Peer::new(&agent, encoding);
        // SUBSCRIBE, UPDATE and MESSAGE without their parts.
        for kind in [call::Type::Subscribe, call::Type::Update, call::Type::Message] {
            let response = peer.post(&mut peer.connect(), &peer.call(kind));
            assert_eq!(response.status, 400, "{kind:?}");
            assert!(response.body.contains("to be present"), "{}", response.body);
        }
    }
}

#[test]
fn an_unknown_call_is_not_implemented() {
    let (_body, agent) = agent();
    let peer = Peer::new(&agent, Encoding::Protobuf);
    assert_eq!(
        peer.post(&mut peer.connect(), &peer.call(call::Type::Unknown))
            .status,
        501
    );
}

#[test]
fn status_update_call_failed_validation() {
    let (_body, agent) = agent();
    let peer = Peer::new(&agent, Encoding::Json);
    let _stream = peer.subscribed();
    let mut calls = peer.connect();
    let broken = |change: fn(&mut podling::mesos::v1::TaskStatus)| {
        let mut call = peer.update_call("a", TaskState::TaskRunning, 1);
        change(&mut call.update.as_mut().unwrap().status);
        call
    };
    for call in [
        broken(|status| status.uuid = None),
        broken(|status| status.uuid = Some(vec![1; 3])),
        broken(|status| status.source = None),
        broken(|status| status.state = TaskState::TaskStaging as i32),
        broken(|status| {
            status.executor_id = Some(ExecutorId {
                value: "other".into(),
            })
        }),
        broken(|status| status.check_status = Some(Default::default())),
    ] {
        let response = peer.post(&mut calls, &call);
        assert_eq!(response.status, 400, "{call:?}");
        assert!(
            response.body.starts_with("Failed to validate"),
            "{}",
            response.body
        );
    }
    // Each was noted against the executor.
    let violations = agent.history().violations().len();
    assert_eq!(violations, 6);
}

#[test]
fn subscribe_before_containerizer_recovery() {
    let body = Body::new();
    let agent = body.agent().checkpoint().start().unwrap();
    agent.stop();
    for (phase, status) in [(Phase::Absent, 404), (Phase::Starting, 503)] {
        agent.come_back(phase).unwrap();
        for encoding in ENCODINGS {
            let peer = Peer::new(&agent, encoding);
            let refused = peer.try_subscribe(call::Subscribe::default()).err().unwrap();
            assert_eq!(refused.status, status);
        }
    }
    // Nothing of this is the executor's fault; what it asked for is on record.
    let history = agent.history();
    assert!(history.violations().is_empty());
    let told =
        |what: &What| matches!(what, What::Refused { call: Some(call), .. } if call.subscribe.is_some());
    assert_eq!(
        history.entries().iter().filter(|entry| told(&entry.what)).count(),
        4
    );
}

#[test]
fn subscribe() {
    for encoding in ENCODINGS {
        let (_body, agent) = agent();
        let peer = Peer::new(&agent, encoding);
        let mut stream = peer.subscribe();
        assert_eq!(stream.head.headers["content-type"], encoding.media_type());
        assert_eq!(stream.head.headers["transfer-encoding"], "chunked");
        let subscribed = stream.next().subscribed.unwrap();
        assert_eq!(subscribed.executor_info, agent.facts().executor);
        assert_eq!(
            subscribed.framework_info.id.unwrap().value,
            agent.facts().framework_id
        );
        assert_eq!(subscribed.agent_info.id.unwrap().value, agent.facts().agent_id);
        assert_eq!(subscribed.container_id.unwrap().value, agent.facts().container_id);
    }
}

#[test]
fn call_and_event_encodings_may_differ() {
    let (_body, agent) = agent();
    let peer = Peer::new(&agent, Encoding::Protobuf);
    let call = peer.bytes(&peer.subscribe_call(call::Subscribe::default()));
    let headers = [
        ("Content-Type", "application/x-protobuf"),
        ("Accept", "application/json"),
    ];
    let mut connection = peer.connect();
    let head = connection.start("POST", &peer.path(), &headers, &call);
    let mut stream = crate::client::Stream::new(connection, head, Encoding::Json);
    assert_eq!(stream.next().r#type(), event::Type::Subscribed);
}

#[test]
fn heartbeat_events() {
    let body = Body::new();
    let agent = body
        .agent()
        .heartbeat_every(Duration::from_millis(5))
        .start()
        .unwrap();
    let mut stream = Peer::new(&agent, Encoding::Protobuf).subscribed();
    for _ in 0..3 {
        assert_eq!(stream.next().r#type(), event::Type::Heartbeat);
    }
}

#[test]
fn heartbeat_calls_are_accepted_whoever_sends_them() {
    let (_body, agent) = agent();
    let peer = Peer::new(&agent, Encoding::Json);
    let mut heartbeat = peer.call(call::Type::Heartbeat);
    assert_eq!(peer.post(&mut peer.connect(), &heartbeat).status, 202);
    heartbeat.framework_id.value = "stranger".into();
    assert_eq!(peer.post(&mut peer.connect(), &heartbeat).status, 202);
}

#[test]
fn calls_before_subscription_are_forbidden() {
    let body = Body::new();
    let agent = body.agent().task_group(group(&["a"])).start().unwrap();
    let peer = Peer::new(&agent, Encoding::Protobuf);
    let call = peer.update_call("a", TaskState::TaskRunning, 1);
    assert_eq!(peer.post(&mut peer.connect(), &call).status, 403);
    assert!(agent.history().violations().is_empty(), "a race, not an error");
}

#[test]
fn accepted_calls_are_answered_202_without_body() {
    let (_body, agent) = agent();
    let peer = Peer::new(&agent, Encoding::Json);
    let _stream = peer.subscribed();
    let mut call = peer.call(call::Type::Message);
    call.message = Some(call::Message { data: b"x".to_vec() });
    let response = peer.post(&mut peer.connect(), &call);
    assert_eq!((response.status, &*response.body), (202, ""));
    assert_eq!(response.headers["content-length"], "0");
}

#[test]
fn the_short_path_is_served_over_tcp_but_not_over_the_domain_socket() {
    let body = Body::new();
    let agent = body.agent().domain_socket().name("slave(7)").start().unwrap();
    let mut peer = Peer::new(&agent, Encoding::Json);
    let heartbeat = peer.bytes(&peer.call(call::Type::Heartbeat));
    for (domain, path, status) in [
        (false, "/slave(7)/api/v1/executor", 202),
        (false, "/api/v1/executor", 202),
        (false, "/slave(1)/api/v1/executor", 404),
        (true, "/slave(7)/api/v1/executor", 202),
        (true, "/api/v1/executor", 403),
        (true, "/anything", 403),
    ] {
        peer.domain = domain;
        let response = peer.connect().exchange("POST", path, &[JSON], &heartbeat);
        assert_eq!(response.status, status, "domain socket: {domain}, {path}");
    }
}

#[test]
fn pipelined_calls_are_answered_in_order() {
    let body = Body::new();
    let agent = body.agent().task_group(group(&["a"])).start().unwrap();
    let peer = Peer::new(&agent, Encoding::Protobuf);
    let _stream = peer.subscribed();
    let states = [
        TaskState::TaskStarting,
        TaskState::TaskRunning,
        TaskState::TaskFinished,
    ];
    let mut requests = Vec::new();
    for (uuid, state) in states.into_iter().enumerate() {
        let call = peer.bytes(&peer.update_call("a", state, uuid as u8));
        requests.extend(crate::client::request(
            "POST",
            &peer.path(),
            &peer.headers(),
            &call,
        ));
    }
    let mut calls = peer.connect();
    calls.write(&requests);
    for _ in states {
        assert_eq!(calls.response().unwrap().status, 202);
    }
    assert_eq!(agent.history().states("a"), states);
}

/// The variables of the executor's process, by way of its own `/proc` entry.
fn environment(agent: &Agent) -> BTreeMap<String, String> {
    // Until its exec the process shows another environment, or none.
    let path = format!("/proc/{}/environ", agent.facts().pid);
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(30);
    let environ = loop {
        let environ = std::fs::read_to_string(&path).unwrap();
        if environ.contains("MESOS_SANDBOX=") || std::time::Instant::now() > patience {
            break environ;
        }
        std::thread::yield_now();
    };
    let variables = environ
        .split_terminator('\0')
        .filter_map(|variable| variable.split_once('='));
    variables
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn authentication_wants_the_token_of_this_very_executor() {
    let body = Body::new();
    let agent = body.agent().authentication().start().unwrap();
    let mut peer = Peer::new(&agent, Encoding::Json);

    let refused = peer.try_subscribe(call::Subscribe::default()).err().unwrap();
    assert_eq!(refused.status, 401);
    assert!(refused.headers["www-authenticate"].starts_with("Bearer"));

    let token = environment(&agent)["MESOS_EXECUTOR_AUTHENTICATION_TOKEN"].clone();
    peer.token = Some(format!("Bearer {token}"));
    let _stream = peer.subscribed();
    let mut call = peer.call(call::Type::Message);
    call.message = Some(call::Message::default());
    assert_eq!(peer.post(&mut peer.connect(), &call).status, 202);
    call.executor_id.value = "other".into();
    assert_eq!(peer.post(&mut peer.connect(), &call).status, 403);

    peer.token = Some(format!("Bearer {}x", &token[..token.len() - 1]));
    assert_eq!(
        peer.try_subscribe(call::Subscribe::default())
            .err()
            .unwrap()
            .status,
        401
    );

    // Another executor's token is a good one, but not for this executor.
    let refusals = agent.history();
    let refused = |status| {
        let of_status = |what: &What| matches!(what, What::Violation(Violation::Refused { status: s, .. }) if *s == status);
        refusals
            .entries()
            .iter()
            .filter(|entry| of_status(&entry.what))
            .count()
    };
    assert_eq!(refused(401), 2);
}

#[test]
fn the_executor_inherits_nothing() {
    let (_body, agent) = agent();
    let environment = environment(&agent);
    let ours: Vec<String> = std::env::vars()
        .map(|(name, _)| name)
        .filter(|name| name != "PATH")
        .collect();
    assert!(!ours.is_empty());
    assert!(
        !ours.iter().any(|name| environment.contains_key(name)),
        "{environment:?}"
    );
    assert_eq!(environment["MESOS_SLAVE_PID"], agent.facts().agent_pid);
    assert_eq!(
        environment["MESOS_AGENT_ENDPOINT"],
        agent.facts().endpoint.to_string()
    );
    assert_eq!(
        environment["MESOS_SANDBOX"],
        agent.sandbox().display().to_string()
    );
}

#[test]
fn ipv6_addresses_stand_in_brackets() {
    let body = Body::new();
    let Ok(agent) = body.agent().ipv6().start() else {
        eprintln!("skipped: no IPv6 loopback address here");
        return;
    };
    assert!(agent.facts().agent_pid.starts_with("slave(1)@[::1]:"));
    assert!(environment(&agent)["MESOS_AGENT_ENDPOINT"].starts_with("[::1]:"));
    Peer::new(&agent, Encoding::Json).subscribed();
}
