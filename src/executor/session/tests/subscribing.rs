//! Subscribing, refusals, and coming back.

use super::*;

#[tokio::test]
async fn s_02_subscribe_goes_out_as_soon_as_both_connections_stand() {
    let agent = Agent::listen().await;
    let environment = agent.environment(&[("MESOS_EXECUTOR_AUTHENTICATION_TOKEN", "a.b.c")]);
    let mut shell = Shell::start(&environment, &Config::default());
    let unacknowledged = wire::call::Subscribe {
        unacknowledged_updates: vec![wire::call::Update {
            status: v1::TaskStatus::clone(&status("t")),
        }],
        ..Default::default()
    };
    shell.connected().await;
    shell.calls.subscribe(unacknowledged.clone());
    let (_events, mut calls, request) = agent.subscription().await;
    assert_eq!(request.call.executor_id.value, "e");
    assert_eq!(request.call.framework_id.value, "f");
    assert_eq!(request.call.subscribe, Some(unacknowledged));
    assert!(
        request
            .head
            .starts_with("POST /slave(3)/api/v1/executor HTTP/1.1\r\n"),
        "{}",
        request.head
    );
    let head = request.head.to_ascii_lowercase();
    assert!(head.contains(&format!("host: {}\r\n", agent.address())), "{head}");
    assert!(
        head.contains("content-type: application/x-protobuf\r\n"),
        "{head}"
    );
    assert!(head.contains("accept: application/x-protobuf\r\n"), "{head}");
    assert!(head.contains("authorization: bearer a.b.c\r\n"), "{head}");
    assert_eq!(shell.event().await, wire::event::Type::Subscribed);

    shell.calls.update(status("t"));
    let request = calls.request().await;
    assert_eq!(request.call.r#type(), wire::call::Type::Update);
    assert!(
        request.head.contains("Authorization: Bearer a.b.c\r\n"),
        "{}",
        request.head
    );
}

#[tokio::test]
async fn updates_do_not_wait_for_each_others_answers_and_keep_their_order() {
    let agent = Agent::listen().await;
    let environment = agent.checkpointing();
    let (shell, _events, mut calls) = subscribed_shell(&agent, &environment, &quick()).await;
    for number in 0..100 {
        shell.calls.update(status(&format!("t{number}")));
    }
    for number in 0..100 {
        // No answer has been given to any of them.
        let update = calls.request().await.call.update.expect("an update");
        assert_eq!(update.status.task_id.value, format!("t{number}"));
    }
    calls.send(&ACCEPTED.repeat(100)).await;
    shell.calls.update(status("last"));
    let update = calls.request().await.call.update.expect("an update");
    assert_eq!(update.status.task_id.value, "last");
}

#[tokio::test]
async fn s_02_s_03_an_agent_that_is_not_ready_is_asked_again() {
    let agent = Agent::listen().await;
    let mut shell = Shell::start(&agent.environment(&[]), &Config::default());
    for refusal in ["503 Service Unavailable", "404 Not Found"] {
        let ((mut events, _calls, _), ()) = tokio::join!(agent.accept_pair(), shell.subscribe());
        events.refuse(refusal, "Agent has not finished recovery").await;
    }
    let ((_events, _calls, _), ()) = tokio::join!(agent.subscription(), shell.subscribe());
    assert_eq!(shell.event().await, wire::event::Type::Subscribed);
}

#[tokio::test]
async fn s_03_any_other_refusal_is_final() {
    for refusal in [
        "400 Bad Request",
        "401 Unauthorized",
        "403 Forbidden",
        "500 Internal Server Error",
    ] {
        let agent = Agent::listen().await;
        let mut shell = Shell::start(&agent.checkpointing(), &quick());
        let ((mut events, _calls, _), ()) = tokio::join!(agent.accept_pair(), shell.subscribe());
        events.refuse(refusal, "Executor is unknown").await;
        let text = shell.failure().await;
        assert!(
            text.contains(&refusal[..3]) && text.contains("Executor is unknown"),
            "{text}"
        );
        shell.over().await;
    }
}

#[tokio::test]
async fn s_04_an_agent_that_starts_slowly_is_waited_for() {
    let agent = Agent::listen().await;
    let environment = agent.environment(&[]);
    let address = agent.address();
    drop(agent);
    let mut shell = Shell::start(&environment, &quick());
    tokio::time::sleep(Duration::from_millis(30)).await;
    let listener = TcpListener::bind(address).await.expect("the port again");
    let agent = Agent { listener };
    let ((_events, _calls, _), ()) = tokio::join!(agent.subscription(), shell.subscribe());
    assert_eq!(shell.event().await, wire::event::Type::Subscribed);
}

#[tokio::test]
async fn s_04_but_not_longer_than_the_registration_timeout() {
    let agent = Agent::listen().await;
    let environment = agent.environment(&[]);
    let address = agent.address();
    drop(agent);
    let config = Config {
        registration_timeout: Duration::from_millis(40),
        ..quick()
    };
    let text = Shell::start(&environment, &config).failure().await;
    assert!(
        text.contains(&address.to_string()) && text.contains("refused"),
        "{text}"
    );
}

#[tokio::test]
async fn s_05_without_checkpoint_a_lost_stream_is_final() {
    let agent = Agent::listen().await;
    let environment = agent.environment(&[]);
    let (mut shell, events, _calls) = subscribed_shell(&agent, &environment, &quick()).await;
    drop(events);
    let (_, comes_back) = shell.disconnected().await;
    assert!(!comes_back);
    shell.over().await;
}

#[tokio::test]
async fn s_06_s_16_losing_either_connection_drops_both_and_starts_over() {
    let agent = Agent::listen().await;
    let environment = agent.checkpointing();
    let (mut shell, mut events, mut calls) = subscribed_shell(&agent, &environment, &quick()).await;
    for round in 0..6 {
        if round % 2 == 0 {
            drop(events);
            calls.closed().await;
        } else {
            drop(calls);
            events.closed().await;
        }
        let (_, comes_back) = shell.disconnected().await;
        assert!(comes_back);
        // An update of the ended subscription does not travel on the new one: SUBSCRIBE carries it.
        shell.calls.update(status("stale"));
        let ((new_events, new_calls, _), ()) = tokio::join!(agent.subscription(), shell.subscribe());
        (events, calls) = (new_events, new_calls);
        assert_eq!(shell.event().await, wire::event::Type::Subscribed);
        shell.calls.update(status("fresh"));
        let update = calls.request().await.call.update.expect("an update");
        assert_eq!(update.status.task_id.value, "fresh");
        calls.send(ACCEPTED).await;
    }
}

#[tokio::test]
async fn s_10_the_first_attempt_to_come_back_is_immediate() {
    let agent = Agent::listen().await;
    let environment = agent.checkpointing();
    let config = Config {
        reconnect_pause: LIMIT * 100,
        ..Config::default()
    };
    let (mut shell, events, _calls) = subscribed_shell(&agent, &environment, &config).await;
    drop(events);
    shell.disconnected().await;
    let ((_events, _calls, _), ()) = tokio::join!(agent.subscription(), shell.subscribe());
    assert_eq!(shell.event().await, wire::event::Type::Subscribed);
}

#[tokio::test]
async fn s_17_a_shutdown_instead_of_subscribed_is_a_dismissal() {
    let agent = Agent::listen().await;
    let mut shell = Shell::start(&agent.checkpointing(), &quick());
    let ((mut events, _calls, _), ()) = tokio::join!(agent.accept_pair(), shell.subscribe());
    events.open_stream().await;
    events.event(&event(wire::event::Type::Shutdown)).await;
    drop(events);
    assert_eq!(shell.event().await, wire::event::Type::Shutdown);
    let (_, comes_back) = shell.disconnected().await;
    assert!(!comes_back);
    shell.over().await;
}
