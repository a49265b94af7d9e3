//! Each of the agent's traps (wire file, section 18; the number stands in the name) is shown to be one.

use std::time::Duration;

use podling::{
    loopback::agent::{AgentBuilder, Chunks, Connections, What},
    mesos::{
        codec::Encoding,
        v1::{
            TaskId, TaskState,
            executor::{Event, call, event},
        },
    },
};

use crate::{
    Body,
    client::{Peer, StreamEnd},
    group,
};

use TaskState::{TaskFinished, TaskRunning, TaskStarting};

const ENCODINGS: [Encoding; 2] = [Encoding::Protobuf, Encoding::Json];

#[test]
fn trap_1_subscribe_is_put_off() {
    let body = Body::new();
    let agent = body
        .agent()
        .answer_subscribe_with([503, 503, 404])
        .start()
        .unwrap();
    let peer = Peer::new(&agent, Encoding::Protobuf);
    for status in [503, 503, 404] {
        assert_eq!(
            peer.try_subscribe(call::Subscribe::default())
                .err()
                .unwrap()
                .status,
            status
        );
    }
    peer.subscribed();
    let refused = |what: &What| matches!(what, What::Refused { call: Some(_), .. });
    let history = agent.history();
    assert_eq!(
        history
            .entries()
            .iter()
            .filter(|entry| refused(&entry.what))
            .count(),
        3
    );
    assert_eq!(history.subscribes().len(), 1, "the refused ones do not count");
    assert!(history.violations().is_empty());
}

/// SUBSCRIBED and LAUNCH_GROUP, and the chunks they came in.
fn chunks(encoding: Encoding, cut: impl FnOnce(AgentBuilder) -> AgentBuilder) -> Vec<usize> {
    let body = Body::new();
    let agent = cut(body.agent().task_group(group(&["a"]))).start().unwrap();
    let mut stream = Peer::new(&agent, encoding).subscribed();
    assert!(stream.next().launch_group.is_some());
    stream.chunks
}

#[test]
fn trap_2_records_and_chunks_have_nothing_to_do_with_each_other() {
    for encoding in ENCODINGS {
        let honest = chunks(encoding, |agent| agent);
        assert_eq!(honest.len(), 2, "one chunk for each record");
        let total: usize = honest.iter().sum();

        let bytewise = chunks(encoding, |agent| agent.chunk_every(1));
        assert!(bytewise.iter().all(|size| *size == 1));
        assert_eq!(
            chunks(encoding, |agent| agent.chunk_every(7))
                .iter()
                .filter(|size| **size != 7)
                .count(),
            1
        );
        assert_eq!(chunks(encoding, AgentBuilder::coalesce_records), [total]);
    }
    assert_eq!(Chunks::default(), Chunks::OnePerRecord);
}

#[test]
fn trap_2_bytes_may_come_one_by_one() {
    // That each write is but a byte is shown beside the tap on the socket; here that nothing gets lost by it.
    for encoding in ENCODINGS {
        assert_eq!(chunks(encoding, |agent| agent.segment_every(1)).len(), 2);
    }
}

#[test]
fn trap_3_only_the_connection_for_calls_breaks() {
    let body = Body::new();
    let agent = body.agent().task_group(group(&["a"])).start().unwrap();
    let peer = Peer::new(&agent, Encoding::Protobuf);
    let mut stream = peer.subscribed();
    stream.next();
    let mut calls = peer.connect();
    peer.update(&mut calls, "a", TaskStarting, 1);
    assert_eq!(agent.cut(Connections::Calls), 1);
    calls.wait_closed();
    stream.next_of(event::Type::Acknowledged);
    agent.message(b"the stream lives");
    assert!(stream.next().message.is_some());
}

#[test]
fn trap_3_the_connection_for_calls_breaks_instead_of_an_answer() {
    let body = Body::new();
    let agent = body
        .agent()
        .task_group(group(&["a"]))
        .drop_call_connection_after(2)
        .start()
        .unwrap();
    let peer = Peer::new(&agent, Encoding::Protobuf);
    let mut stream = peer.subscribed();
    stream.next();
    let mut calls = peer.connect();
    peer.update(&mut calls, "a", TaskStarting, 1);
    let call = peer.update_call("a", TaskRunning, 2);
    calls.write(&crate::client::request(
        "POST",
        &peer.path(),
        &peer.headers(),
        &peer.bytes(&call),
    ));
    calls.wait_closed();
    // It was processed: its acknowledgement comes, and it is a duplicate when it comes again.
    for uuid in [1, 2] {
        assert_eq!(stream.next().acknowledged.unwrap().uuid, [uuid; 16]);
    }
    peer.update(&mut peer.connect(), "a", TaskRunning, 2);
    assert_eq!(stream.next().acknowledged.unwrap().uuid, [2; 16]);
    assert_eq!(agent.history().forwarded("a").len(), 2);
}

#[test]
fn trap_3_both_connections_break() {
    let body = Body::new();
    let agent = body.agent().start().unwrap();
    let peer = Peer::new(&agent, Encoding::Protobuf);
    let mut stream = peer.subscribed();
    let mut calls = peer.connect();
    peer.post(&mut calls, &peer.call(call::Type::Heartbeat));
    assert_eq!(agent.cut(Connections::Both), 2);
    assert_eq!(stream.end(), StreamEnd::Broken);
    calls.wait_closed();
}

#[test]
fn trap_3_half_open_connections_neither_speak_nor_close() {
    let body = Body::new();
    let agent = body.agent().start().unwrap();
    let peer = Peer::new(&agent, Encoding::Protobuf);
    let mut stream = peer.subscribed();
    let mut calls = peer.connect();
    peer.post(&mut calls, &peer.call(call::Type::Heartbeat));
    assert_eq!(agent.freeze(Connections::Both), 2);
    agent.message(b"never to arrive");
    let request = crate::client::request("POST", &peer.path(), &peer.headers(), b"");
    calls.write(&request);
    for connection in [&mut stream.connection, &mut calls] {
        connection.set_patience(Duration::from_millis(100));
        assert!(connection.is_silent());
    }
    // A new subscription does not mind the old one.
    let mut stream = peer.subscribed();
    agent.message(b"x");
    assert!(stream.next().message.is_some());
}

#[test]
fn trap_3_a_stream_may_break_in_the_middle_of_a_record() {
    let body = Body::new();
    let agent = body.agent().start().unwrap();
    let mut stream = Peer::new(&agent, Encoding::Json).subscribed();
    agent.send_raw_and_cut(b"20\n{\"type\":");
    assert_eq!(stream.try_next().unwrap_err(), StreamEnd::Broken);
    assert_eq!(stream.chunks.last(), Some(&11), "what there was of it arrived");
}

#[test]
fn trap_5_acknowledgements_get_lost() {
    let body = Body::new();
    let agent = body
        .agent()
        .task_group(group(&["a"]))
        .lose_first_ack("a", TaskRunning)
        .start()
        .unwrap();
    let peer = Peer::new(&agent, Encoding::Protobuf);
    let mut stream = peer.subscribed();
    stream.next();
    let mut calls = peer.connect();
    peer.update(&mut calls, "a", TaskStarting, 1);
    peer.update(&mut calls, "a", TaskRunning, 2);
    peer.update(&mut calls, "a", TaskRunning, 3);
    // Every first one of this state gets lost, whatever its uuid.
    agent.message(b"no acknowledgement of RUNNING so far");
    assert_eq!(stream.next().acknowledged.unwrap().uuid, [1; 16]);
    assert!(stream.next().message.is_some());
    peer.update(&mut calls, "a", TaskRunning, 2);
    assert_eq!(stream.next().acknowledged.unwrap().uuid, [2; 16]);
}

#[test]
fn trap_5_acknowledgements_come_late_or_twice() {
    let body = Body::new();
    let agent = body
        .agent()
        .task_group(group(&["a"]))
        .withhold_acks()
        .ack_twice()
        .start()
        .unwrap();
    let peer = Peer::new(&agent, Encoding::Protobuf);
    let mut stream = peer.subscribed();
    stream.next();
    let mut calls = peer.connect();
    peer.update(&mut calls, "a", TaskStarting, 1);
    peer.update(&mut calls, "a", TaskRunning, 2);
    agent.message(b"nothing so far");
    assert!(stream.next().message.is_some());
    agent.release_acks();
    for uuid in [1, 1, 2, 2] {
        assert_eq!(stream.next().acknowledged.unwrap().uuid, [uuid; 16]);
    }
    peer.update(&mut calls, "a", TaskFinished, 3);
    assert_eq!(stream.next().acknowledged.unwrap().uuid, [3; 16]);
}

#[test]
fn trap_6_json_has_defaults_unless_bare_and_things_of_tomorrow_on_request() {
    let subscribed = |change: fn(AgentBuilder) -> AgentBuilder| {
        let body = Body::new();
        let agent = change(body.agent()).start().unwrap();
        let record = Peer::new(&agent, Encoding::Json)
            .subscribe()
            .next_record()
            .unwrap();
        String::from_utf8(record).unwrap()
    };
    assert!(subscribed(|agent| agent).contains("\"checkpoint\":false"));
    assert!(!subscribed(AgentBuilder::bare_json).contains("\"checkpoint\""));
    assert!(subscribed(AgentBuilder::unknown_fields).contains("\"field_of_tomorrow\""));
    assert!(subscribed(AgentBuilder::unknown_enum).contains("\"SOMETHING_OF_TOMORROW\""));
}

#[test]
fn trap_6_events_of_unknown_type_come_between() {
    for encoding in ENCODINGS {
        let body = Body::new();
        let agent = body
            .agent()
            .unknown_events()
            .unknown_fields()
            .unknown_enum()
            .task_group(group(&["a"]))
            .start()
            .unwrap();
        let mut stream = Peer::new(&agent, encoding).subscribe();
        for kind in [
            event::Type::Unknown,
            event::Type::Subscribed,
            event::Type::Unknown,
            event::Type::LaunchGroup,
        ] {
            assert_eq!(stream.next().r#type(), kind);
        }
    }
}

#[test]
fn trap_7_any_event_at_any_time() {
    let body = Body::new();
    let agent = body.agent().start().unwrap();
    let mut stream = Peer::new(&agent, Encoding::Json).subscribed();
    agent.send(Event {
        r#type: Some(event::Type::Kill as i32),
        kill: Some(event::Kill {
            task_id: TaskId {
                value: "nobody".into(),
            },
            kill_policy: None,
        }),
        ..Default::default()
    });
    assert_eq!(stream.next().kill.unwrap().task_id.value, "nobody");
}

#[test]
fn trap_13_terminal_updates_are_never_acknowledged() {
    let body = Body::new();
    let agent = body
        .agent()
        .task_group(group(&["a"]))
        .never_ack_terminal()
        .start()
        .unwrap();
    let peer = Peer::new(&agent, Encoding::Protobuf);
    let mut stream = peer.subscribed();
    stream.next();
    let mut calls = peer.connect();
    peer.update(&mut calls, "a", TaskRunning, 1);
    peer.update(&mut calls, "a", TaskFinished, 2);
    peer.update(&mut calls, "a", TaskFinished, 2);
    agent.message(b"end");
    assert!(stream.next().acknowledged.is_some());
    assert!(stream.next().message.is_some());
    assert_eq!(agent.history().forwarded("a").len(), 2);
}
