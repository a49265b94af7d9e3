//! Calls and events once there is a subscription, and streams that are not what they should be.

use super::*;

#[tokio::test]
async fn a_refused_call_ends_the_subscription_only_if_subscribing_helps() {
    let agent = Agent::listen().await;
    let environment = agent.checkpointing();
    let (mut shell, mut events, mut calls) = subscribed_shell(&agent, &environment, &quick()).await;
    shell.calls.update(status("bad"));
    calls.request().await;
    calls.refuse("400 Bad Request", "no such task").await;
    events.event(&event(wire::event::Type::Heartbeat)).await;
    assert_eq!(shell.event().await, wire::event::Type::Heartbeat);
    shell.calls.update(status("early"));
    calls.request().await;
    calls.refuse("403 Forbidden", "Executor is not subscribed").await;
    let (cause, comes_back) = shell.disconnected().await;
    assert!(cause.contains("not subscribed") && comes_back, "{cause}");
}

#[tokio::test]
async fn our_heartbeats_go_out_and_find_a_dead_agent() {
    let agent = Agent::listen().await;
    let config = Config {
        heartbeat_interval: Duration::from_millis(5),
        answer_timeout: Duration::from_millis(50),
        ..quick()
    };
    let environment = agent.checkpointing();
    let (mut shell, _events, mut calls) = subscribed_shell(&agent, &environment, &config).await;
    for _ in 0..3 {
        assert_eq!(calls.request().await.call.r#type(), wire::call::Type::Heartbeat);
        calls.send(ACCEPTED).await;
    }
    // From now on it is half-open: connected, and nobody there.
    let (cause, comes_back) = shell.disconnected().await;
    assert!(cause.contains("did not answer") && comes_back, "{cause}");
}

#[tokio::test]
async fn without_checkpoint_a_slow_agent_is_not_a_dead_one() {
    let agent = Agent::listen().await;
    let config = Config {
        heartbeat_interval: Duration::from_millis(5),
        answer_timeout: Duration::from_millis(5),
        ..quick()
    };
    let environment = agent.environment(&[]);
    let (mut shell, mut events, mut calls) = subscribed_shell(&agent, &environment, &config).await;
    for _ in 0..10 {
        calls.request().await;
    }
    events.event(&event(wire::event::Type::Heartbeat)).await;
    assert_eq!(shell.event().await, wire::event::Type::Heartbeat);
}

#[tokio::test]
async fn events_may_be_cut_anywhere() {
    let agent = Agent::listen().await;
    let environment = agent.checkpointing();
    let (mut shell, mut events, _calls) = subscribed_shell(&agent, &environment, &quick()).await;
    let frame = recordio::frame(&codec::encode(
        &event(wire::event::Type::Heartbeat),
        Encoding::Protobuf,
    ));
    let several = frame.repeat(3);
    for cut in 1..several.len() {
        let (one, other) = several.split_at(cut);
        events.chunk(one).await;
        events.chunk(other).await;
        for _ in 0..3 {
            assert_eq!(shell.event().await, wire::event::Type::Heartbeat);
        }
    }
}

#[tokio::test]
async fn a_damaged_stream_is_a_disconnection() {
    let huge = format!("{}\n", 65 << 20);
    let cases: [&[u8]; 4] = [b"not a length\n", huge.as_bytes(), b"4\n\xff\xff\xff\xff", b"\n"];
    for bytes in cases {
        let agent = Agent::listen().await;
        let environment = agent.checkpointing();
        let (mut shell, mut events, _calls) = subscribed_shell(&agent, &environment, &quick()).await;
        events.chunk(bytes).await;
        let (cause, comes_back) = shell.disconnected().await;
        assert!(comes_back && !cause.is_empty());
        let ((_events, _calls, _), ()) = tokio::join!(agent.subscription(), shell.subscribe());
        assert_eq!(shell.event().await, wire::event::Type::Subscribed);
    }
}

#[tokio::test]
async fn what_is_not_http_does_not_make_it_panic() {
    let agent = Agent::listen().await;
    let config = Config {
        registration_timeout: Duration::from_millis(200),
        ..quick()
    };
    let mut shell = Shell::start(&agent.environment(&[]), &config);
    let talk = async {
        loop {
            let (mut first, mut second) = (agent.accept().await, agent.accept().await);
            let _ = first.stream.write_all(b"220 mail ESMTP\r\n").await;
            let _ = second.stream.write_all(b"220 mail ESMTP\r\n").await;
        }
    };
    tokio::select! {
        text = shell.failure() => assert!(text.contains("no subscription"), "{text}"),
        () = talk => {}
    }
}

#[tokio::test]
async fn the_last_calls_leave_before_the_end() {
    let agent = Agent::listen().await;
    let environment = agent.checkpointing();
    let (shell, _events, mut calls) = subscribed_shell(&agent, &environment, &quick()).await;
    for number in 0..50 {
        shell.calls.update(status(&format!("t{number}")));
    }
    let answer = async {
        for _ in 0..50 {
            calls.request().await;
            calls.send(ACCEPTED).await;
        }
        calls.closed().await;
    };
    tokio::join!(shell.calls.finish(), answer);
}

#[tokio::test]
async fn domain_sockets_work_at_any_depth() {
    let dir = tempfile::tempdir().expect("dir");
    let deep = dir.path().join("d".repeat(120));
    std::fs::create_dir(&deep).expect("dir");
    // Bound through a short way, as an agent would have to.
    let short = dir.path().join("short");
    std::os::unix::fs::symlink(&deep, &short).expect("link");
    let listener = tokio::net::UnixListener::bind(short.join("a.sock")).expect("bound");
    let socket = deep.join("a.sock");
    let environment = Agent::listen()
        .await
        .environment(&[("MESOS_DOMAIN_SOCKET", socket.to_str().expect("text"))]);
    let mut shell = Shell::start(&environment, &quick());
    let (accepted, ()) = tokio::join!(
        async {
            (
                listener.accept().await.expect("first"),
                listener.accept().await.expect("second"),
            )
        },
        shell.subscribe()
    );
    let ((mut first, _), (mut second, _)) = accepted;
    let (mut one, mut other) = (BytesMut::new(), BytesMut::new());
    let head = tokio::select! {
        _ = first.read_buf(&mut one) => one,
        _ = second.read_buf(&mut other) => other,
    };
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    assert!(
        head.starts_with("post /slave(3)/api/v1/executor http/1.1\r\nhost: \r\n"),
        "{head}"
    );
}
