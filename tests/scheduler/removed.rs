//! A master that says one thing and another, scripted, as real ones only do after a week.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::Duration,
};

use podling::mesos::{
    codec::{self, Encoding},
    recordio,
    v1::{
        FrameworkId,
        scheduler::{Call, Event, call, event},
    },
};

use crate::process::Scheduler;

/// What the master answers to one SUBSCRIBE after the other.
enum Answer {
    /// Registered under this id; then the stream ends.
    Subscribed(&'static str),
    Error(&'static str),
}

struct Master {
    address: SocketAddr,
    /// The framework id of each SUBSCRIBE.
    subscribes: mpsc::Receiver<Option<String>>,
}

impl Master {
    fn start(script: Vec<Answer>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, subscribes) = mpsc::channel();
        thread::spawn(move || {
            let mut script = script.into_iter();
            for socket in listener.incoming() {
                let mut socket = BufReader::new(socket.unwrap());
                // A connection for calls says nothing before it is subscribed.
                let Some(call) = read(&mut socket) else { continue };
                if call.r#type() != call::Type::Subscribe {
                    continue;
                }
                let Some(answer) = script.next() else { return };
                if sender.send(call.framework_id.map(|id| id.value)).is_err() {
                    return;
                }
                reply(socket.into_inner(), &answer);
            }
        });
        Master { address, subscribes }
    }

    fn next_subscribe(&self) -> Option<String> {
        self.subscribes.recv_timeout(Duration::from_secs(30)).unwrap()
    }
}

fn read(socket: &mut BufReader<TcpStream>) -> Option<Call> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if socket.read_line(&mut line).unwrap_or(0) == 0 {
            return None;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body).ok()?;
    Some(codec::decode(&body, Encoding::Protobuf).unwrap())
}

fn reply(mut socket: TcpStream, answer: &Answer) {
    let event = match answer {
        Answer::Subscribed(id) => Event {
            r#type: Some(event::Type::Subscribed as i32),
            subscribed: Some(event::Subscribed {
                framework_id: FrameworkId { value: (*id).into() },
                ..Default::default()
            }),
            ..Default::default()
        },
        Answer::Error(message) => Event {
            r#type: Some(event::Type::Error as i32),
            error: Some(event::Error {
                message: (*message).into(),
            }),
            ..Default::default()
        },
    };
    let record = recordio::frame(&codec::encode(&event, Encoding::Protobuf));
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nMesos-Stream-Id: s\r\nTransfer-Encoding: chunked";
    let mut bytes = format!("{head}\r\n\r\n{:x}\r\n", record.len()).into_bytes();
    bytes.extend_from_slice(&record);
    bytes.extend_from_slice(b"\r\n0\r\n\r\n");
    socket.write_all(&bytes).unwrap();
}

#[test]
fn a_framework_that_was_removed_registers_anew() {
    let master = Master::start(vec![
        Answer::Subscribed("first"),
        Answer::Error("Framework has been removed"),
        Answer::Subscribed("second"),
        Answer::Error("something else is wrong"),
    ]);
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("state.db");
    let mut scheduler = Scheduler::start(master.address, &store);
    assert_eq!(master.next_subscribe(), None, "a newcomer");
    assert_eq!(master.next_subscribe().as_deref(), Some("first"));
    assert_eq!(master.next_subscribe(), None, "a newcomer again");
    // Any other complaint is no reason to give the id, and with it what runs, away.
    assert_eq!(master.next_subscribe().as_deref(), Some("second"));
    scheduler.kill();
}

#[test]
fn two_schedulers_with_one_id_do_not_evict_each_other_without_end() {
    let master = Master::start(vec![
        Answer::Subscribed("shared"),
        Answer::Error("Framework failed over"),
        // Would be the answer to an eviction.
        Answer::Subscribed("shared"),
    ]);
    let directory = tempfile::tempdir().unwrap();
    let scheduler = Scheduler::start(master.address, &directory.path().join("state.db"));
    assert_eq!(master.next_subscribe(), None);
    assert_eq!(master.next_subscribe().as_deref(), Some("shared"));
    let (code, said) = scheduler.ended();
    assert_eq!(code, Some(2), "a restart heals nothing: {said}");
    assert!(
        said.contains("another scheduler has subscribed as framework shared"),
        "{said}"
    );
    assert!(master.subscribes.try_recv().is_err(), "it did not come back");
}
