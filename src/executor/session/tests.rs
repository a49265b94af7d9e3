//! The session against a scripted agent: bytes are read and written by hand, so that every trap can be laid.

use std::{ffi::OsString, net::SocketAddr};

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::mesos::recordio;

/// Far longer than anything here takes; a test that waits this long has failed.
const LIMIT: Duration = Duration::from_secs(20);

const ACCEPTED: &str = "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n";

pub(super) struct Agent {
    listener: TcpListener,
}

/// One accepted connection.
pub(super) struct Peer {
    stream: TcpStream,
    buffer: BytesMut,
}

pub(super) struct Request {
    head: String,
    pub(super) call: wire::Call,
}

impl Agent {
    pub(super) async fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        Agent { listener }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("bound")
    }

    pub(super) fn environment(&self, more: &[(&str, &str)]) -> Environment {
        let base = [
            ("MESOS_FRAMEWORK_ID", "f".to_owned()),
            ("MESOS_EXECUTOR_ID", "e".to_owned()),
            ("MESOS_SLAVE_PID", format!("slave(3)@{}", self.address())),
            ("MESOS_SANDBOX", "/sandbox".to_owned()),
        ];
        let more = more.iter().map(|(name, value)| (*name, (*value).to_owned()));
        let all = base.into_iter().chain(more);
        Environment::parse(all.map(|(name, value)| (OsString::from(name), OsString::from(value))))
            .expect("valid")
    }

    fn checkpointing(&self) -> Environment {
        self.environment(&[
            ("MESOS_CHECKPOINT", "1"),
            ("MESOS_RECOVERY_TIMEOUT", "15mins"),
            ("MESOS_SUBSCRIPTION_BACKOFF_MAX", "2secs"),
        ])
    }

    pub(super) async fn accept(&self) -> Peer {
        let accepted = tokio::time::timeout(LIMIT, self.listener.accept()).await;
        let (stream, _) = accepted.expect("a connection in time").expect("accepted");
        Peer {
            stream,
            buffer: BytesMut::new(),
        }
    }

    /// Both connections of a subscription: the one with SUBSCRIBE and the other.
    async fn accept_pair(&self) -> (Peer, Peer, Request) {
        let (mut first, mut second) = (self.accept().await, self.accept().await);
        tokio::select! {
            () = first.arrival() => {}
            () = second.arrival() => std::mem::swap(&mut first, &mut second),
        }
        let request = first.request().await;
        assert_eq!(request.call.r#type(), wire::call::Type::Subscribe);
        (first, second, request)
    }

    pub(super) async fn subscription(&self) -> (Peer, Peer, Request) {
        let (mut events, calls, request) = self.accept_pair().await;
        events.open_stream().await;
        events.event(&subscribed()).await;
        (events, calls, request)
    }
}

impl Peer {
    async fn arrival(&mut self) {
        let _ = self.stream.peek(&mut [0]).await;
    }

    pub(super) async fn request(&mut self) -> Request {
        tokio::time::timeout(LIMIT, self.read_request())
            .await
            .expect("a request in time")
    }

    async fn read_request(&mut self) -> Request {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; 32];
            let mut request = httparse::Request::new(&mut headers);
            if let httparse::Status::Complete(head) = request.parse(&self.buffer).expect("HTTP") {
                let length = request
                    .headers
                    .iter()
                    .find(|header| header.name.eq_ignore_ascii_case("content-length"));
                let length = std::str::from_utf8(length.expect("a length").value).expect("text");
                let length: usize = length.parse().expect("a number");
                if self.buffer.len() >= head + length {
                    let head = self.buffer.split_to(head);
                    let body = self.buffer.split_to(length);
                    return Request {
                        head: String::from_utf8(head.to_vec()).expect("text"),
                        call: codec::decode(&body, Encoding::Protobuf).expect("a call"),
                    };
                }
            }
            assert_ne!(
                self.stream.read_buf(&mut self.buffer).await.expect("read"),
                0,
                "closed early"
            );
        }
    }

    async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.expect("written");
    }

    pub(super) async fn refuse(&mut self, status: &str, text: &str) {
        self.send(&format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{text}",
            text.len()
        ))
        .await;
    }

    async fn open_stream(&mut self) {
        self.send(
            "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nTransfer-Encoding: chunked\r\n\r\n",
        )
        .await;
    }

    async fn chunk(&mut self, bytes: &[u8]) {
        let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
        chunk.extend_from_slice(bytes);
        chunk.extend_from_slice(b"\r\n");
        self.stream.write_all(&chunk).await.expect("written");
    }

    async fn event(&mut self, event: &wire::Event) {
        self.chunk(&recordio::frame(&codec::encode(event, Encoding::Protobuf)))
            .await;
    }

    /// The other side has hung up.
    async fn closed(&mut self) {
        let read = async {
            while self
                .stream
                .read_buf(&mut self.buffer)
                .await
                .is_ok_and(|read| read > 0)
            {}
        };
        tokio::time::timeout(LIMIT, read).await.expect("closed in time");
    }
}

fn event(kind: wire::event::Type) -> wire::Event {
    wire::Event {
        r#type: Some(kind.into()),
        ..wire::Event::default()
    }
}

fn subscribed() -> wire::Event {
    wire::Event {
        subscribed: Some(wire::event::Subscribed::default()),
        ..event(wire::event::Type::Subscribed)
    }
}

pub(super) fn status(task: &str) -> Arc<v1::TaskStatus> {
    Arc::new(v1::TaskStatus {
        task_id: v1::TaskId {
            value: task.to_owned(),
        },
        state: v1::TaskState::TaskRunning.into(),
        ..v1::TaskStatus::default()
    })
}

pub(super) struct Shell {
    pub(super) calls: Calls,
    notices: mpsc::Receiver<Notice>,
}

impl Shell {
    pub(super) fn start(environment: &Environment, config: &Config) -> Self {
        let (calls, notices) = Session::start(environment, config).expect("a session");
        Shell { calls, notices }
    }

    async fn next(&mut self) -> Notice {
        let notice = tokio::time::timeout(LIMIT, self.notices.recv()).await;
        notice
            .expect("a notice in time")
            .expect("a session that is not over")
    }

    async fn connected(&mut self) {
        let notice = self.next().await;
        assert!(matches!(notice, Notice::Connected), "{notice:?}");
    }

    pub(super) async fn subscribe(&mut self) {
        self.connected().await;
        self.calls.subscribe(wire::call::Subscribe::default());
    }

    pub(super) async fn event(&mut self) -> wire::event::Type {
        match self.next().await {
            Notice::Event(event) => event.r#type(),
            other => panic!("an event, not {other:?}"),
        }
    }

    pub(super) async fn failure(&mut self) -> String {
        loop {
            match self.next().await {
                Notice::Failed(error) => return error.to_string(),
                Notice::Connected => self.calls.subscribe(wire::call::Subscribe::default()),
                other => panic!("a failure, not {other:?}"),
            }
        }
    }

    async fn disconnected(&mut self) -> (String, bool) {
        match self.next().await {
            Notice::Disconnected { cause, comes_back } => (cause, comes_back),
            other => panic!("the end of the subscription, not {other:?}"),
        }
    }

    async fn over(mut self) {
        let end = tokio::time::timeout(LIMIT, self.notices.recv())
            .await
            .expect("an end in time");
        assert!(end.is_none(), "{end:?}");
    }
}

pub(super) fn quick() -> Config {
    Config {
        reconnect_pause: Duration::from_millis(5),
        ..Config::default()
    }
}

/// A shell that is subscribed, with both connections of its agent.
async fn subscribed_shell(agent: &Agent, environment: &Environment, config: &Config) -> (Shell, Peer, Peer) {
    let mut shell = Shell::start(environment, config);
    let ((events, calls, _), ()) = tokio::join!(agent.subscription(), shell.subscribe());
    assert_eq!(shell.event().await, wire::event::Type::Subscribed);
    (shell, events, calls)
}

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
