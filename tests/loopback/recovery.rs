//! The agent goes and comes back: what it still knows, whom it waits for, what it concludes.

use std::{io::ErrorKind, net::TcpStream, time::Duration};

use nix::sys::signal::Signal;
use podling::{
    loopback::agent::{AgentBuilder, Connections, Killed, Phase, What},
    mesos::{
        codec::Encoding,
        v1::{
            TaskState,
            executor::{call, event},
            framework_info::capability,
            task_status::{Reason, Source},
        },
    },
};

use crate::{
    Body,
    client::{Peer, StreamEnd, update},
    group,
};

use TaskState::{TaskDropped, TaskFailed, TaskFinished, TaskKilled, TaskLost, TaskRunning, TaskStarting};

fn checkpointing(body: &Body) -> AgentBuilder {
    body.agent()
        .checkpoint()
        .reregistration_timeout(Duration::from_millis(200))
}

#[test]
fn s_08_a_restarted_agent_has_kept_its_books() {
    for domain in [false, true] {
        let body = Body::new();
        let builder = checkpointing(&body)
            .task_group(group(&["a", "b"]))
            .never_ack("a", TaskRunning);
        let agent = if domain { builder.domain_socket() } else { builder }
            .start()
            .unwrap();
        let mut peer = Peer::new(&agent, Encoding::Json);
        peer.domain = domain;
        let mut stream = peer.subscribed();
        let launched = stream.next().launch_group.unwrap().task_group.tasks;
        let mut calls = peer.connect();
        peer.update(&mut calls, "a", TaskStarting, 1);
        peer.update(&mut calls, "a", TaskRunning, 2);

        agent.restart().unwrap();
        assert_eq!(stream.end(), StreamEnd::Broken);
        calls.wait_closed();

        // Same address, same ids; both lists arrive as they were sent.
        let mut stream = peer
            .try_subscribe(call::Subscribe {
                unacknowledged_tasks: vec![launched[1].clone()],
                unacknowledged_updates: vec![update("a", TaskRunning, 2), update("a", TaskFinished, 3)],
            })
            .unwrap();
        let agent_info = stream.next().subscribed.unwrap().agent_info;
        assert_eq!(agent_info.id.unwrap().value, agent.facts().agent_id);
        assert_eq!(
            stream.next().acknowledged.unwrap().uuid,
            [3; 16],
            "2 is never acknowledged"
        );

        let history = agent.history();
        assert_eq!(history.states("a"), [TaskStarting, TaskRunning, TaskFinished]);
        assert_eq!(
            history.forwarded("a").len(),
            3,
            "the one that came twice went on once"
        );
        assert!(
            history.forwarded("b").is_empty(),
            "b was listed: nothing is concluded"
        );
        let subscribe = history.subscribes()[1];
        assert_eq!(subscribe.unacknowledged_tasks[0].task_id.value, "b");
        assert_eq!(subscribe.unacknowledged_updates.len(), 2);
        let records = agent.tasks();
        assert_eq!(
            (records[0].updates[1].received, records[0].updates[1].acknowledged),
            (2, 0)
        );
        drop(agent);
    }
}

#[test]
fn s_09_a_staging_task_left_out_is_dropped_or_lost() {
    use capability::Type::PartitionAware;
    for (capabilities, state) in [(&[PartitionAware][..], TaskDropped), (&[][..], TaskLost)] {
        let body = Body::new();
        let agent = checkpointing(&body)
            .capabilities(capabilities)
            .task_group(group(&["started", "forgotten"]))
            .start()
            .unwrap();
        let peer = Peer::new(&agent, Encoding::Protobuf);
        let mut stream = peer.subscribed();
        stream.next();
        peer.update(&mut peer.connect(), "started", TaskStarting, 1);
        agent.restart().unwrap();
        let _stream = peer.subscribed();
        let history = agent.history();
        let status = history.forwarded("forgotten")[0];
        assert_eq!((status.state(), status.reason()), (state, Reason::AgentRestarted));
        assert_eq!(status.source(), Source::Agent);
        assert_eq!(history.forwarded("started").len(), 1);
    }
}

#[test]
fn a_lost_stream_alone_is_healed_the_same_way() {
    let body = Body::new();
    let agent = body.agent().task_group(group(&["a"])).start().unwrap();
    let peer = Peer::new(&agent, Encoding::Protobuf);
    let mut stream = peer.subscribed();
    stream.next();
    assert_eq!(agent.cut(Connections::Stream), 1);
    assert_eq!(stream.end(), StreamEnd::Broken);
    // Without a stream what is sent is lost, as on a real agent.
    agent
        .wait_for("the stream's end", |h| {
            h.entries()
                .iter()
                .any(|entry| matches!(entry.what, What::StreamClosed(_)))
        })
        .unwrap();
    agent.message(b"lost");
    let _stream = peer.subscribed();
    let lost = agent
        .history()
        .entries()
        .iter()
        .any(|entry| matches!(entry.what, What::Lost(_)));
    assert!(lost);
    assert_eq!(
        agent.history().forwarded("a")[0].state(),
        TaskDropped,
        "it was not listed"
    );
}

#[test]
fn connections_are_refused_while_the_agent_is_away() {
    let body = Body::new();
    let agent = checkpointing(&body).domain_socket().start().unwrap();
    let facts = agent.facts().clone();
    agent.stop();
    assert_eq!(
        TcpStream::connect(facts.endpoint).unwrap_err().kind(),
        ErrorKind::ConnectionRefused
    );
    let socket = facts.domain_socket.clone().unwrap();
    let refused = std::os::unix::net::UnixStream::connect(socket).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    agent.come_back(Phase::Recovering).unwrap();
    Peer::new(&agent, Encoding::Json).subscribed();
}

#[test]
fn calls_other_than_subscribe_wait_for_the_end_of_recovery() {
    let body = Body::new();
    let agent = checkpointing(&body).task_group(group(&["a"])).start().unwrap();
    let peer = Peer::new(&agent, Encoding::Protobuf);
    peer.subscribed();
    agent.restart().unwrap();
    let mut stream = peer
        .try_subscribe(call::Subscribe {
            unacknowledged_updates: vec![update("a", TaskStarting, 1)],
            ..Default::default()
        })
        .unwrap();
    stream.next();
    let mut calls = peer.connect();
    let call = peer.update_call("a", TaskRunning, 2);
    assert_eq!(peer.post(&mut calls, &call).status, 503);
    agent
        .wait_for("recovery", |h| {
            h.entries()
                .iter()
                .any(|e| matches!(e.what, What::Agent(Phase::Up)))
        })
        .unwrap();
    assert_eq!(peer.post(&mut calls, &call).status, 202);
    assert!(agent.history().violations().is_empty());
}

#[test]
fn s_10_who_does_not_come_back_in_time_is_destroyed() {
    let body = Body::new();
    let agent = checkpointing(&body).task_group(group(&["a"])).start().unwrap();
    let peer = Peer::new(&agent, Encoding::Protobuf);
    let mut stream = peer.subscribed();
    stream.next();
    peer.update(&mut peer.connect(), "a", TaskRunning, 1);
    agent.restart().unwrap();
    let outcome = agent.finish();
    assert_eq!(outcome.killed, Some(Killed::ReregistrationTimeout));
    let status = outcome.history.forwarded("a")[1];
    assert_eq!(
        (status.state(), status.reason()),
        (TaskFailed, Reason::ExecutorReregistrationTimeout)
    );
}

#[test]
fn an_executor_that_ends_while_the_agent_is_away_is_accounted_for_on_return() {
    let body = Body::new();
    let agent = checkpointing(&body).task_group(group(&["a"])).start().unwrap();
    let mut stream = Peer::new(&agent, Encoding::Protobuf).subscribed();
    stream.next();
    agent.stop();
    agent.signal(Signal::SIGKILL).unwrap();
    agent.wait_for("its end", |h| h.exit().is_some()).unwrap();
    assert!(
        agent.history().forwarded("a").is_empty(),
        "nobody there to say so"
    );
    agent.come_back(Phase::Recovering).unwrap();
    let outcome = agent.finish();
    assert_eq!(
        outcome.history.forwarded("a")[0].reason(),
        Reason::ExecutorTerminated
    );
}

#[test]
fn what_was_not_delivered_before_the_restart_is_dropped() {
    let body = Body::new();
    let agent = checkpointing(&body).task_group(group(&["a"])).start().unwrap();
    agent.restart().unwrap();
    let status = agent.history().forwarded("a")[0].clone();
    assert_eq!((status.state(), status.source()), (TaskDropped, Source::Agent));
}

#[test]
fn s_05_without_checkpoint_the_restarted_agent_knows_nobody() {
    let body = Body::new();
    let agent = body.agent().task_group(group(&["a"])).start().unwrap();
    let peer = Peer::new(&agent, Encoding::Protobuf);
    let mut stream = peer.subscribed();
    stream.next();
    agent.restart().unwrap();
    let refused = peer.try_subscribe(call::Subscribe::default()).err().unwrap();
    assert_eq!(refused.status, 400);
    body.end();
    let outcome = agent.finish();
    assert!(outcome.history.forwarded("a").is_empty());
    assert!(!outcome.is_good(), "a has no terminal state");
}

#[test]
fn a_shutdown_that_nobody_heard_comes_with_the_next_subscription() {
    let body = Body::new();
    let agent = checkpointing(&body).task_group(group(&["a"])).start().unwrap();
    let peer = Peer::new(&agent, Encoding::Protobuf);
    let mut stream = peer.subscribed();
    stream.next();
    agent.cut(Connections::Both);
    stream.end();
    agent
        .wait_for("the stream's end", |h| {
            h.entries()
                .iter()
                .any(|entry| matches!(entry.what, What::StreamClosed(_)))
        })
        .unwrap();
    agent.shutdown();
    let mut stream = peer
        .try_subscribe(call::Subscribe {
            unacknowledged_updates: vec![update("a", TaskKilled, 1)],
            ..Default::default()
        })
        .unwrap();
    assert_eq!(stream.next().r#type(), event::Type::Shutdown);
}
