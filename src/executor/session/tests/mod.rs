//! The session against a scripted agent: bytes are read and written by hand, so that every trap can be laid.

mod calls;
mod subscribing;

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
