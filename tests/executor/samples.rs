//! A real agent's bytes drive our executor: recorded traffic, replayed to it.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
};

use podling::mesos::{
    codec::{self, Encoding},
    v1::{TaskState, executor as wire},
};

use crate::support::*;

fn sample(encoding: Encoding, name: &str) -> Vec<u8> {
    let folder = match encoding {
        Encoding::Protobuf => "protobuf",
        Encoding::Json => "json",
    };
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/fixtures/wire", folder, name]
        .iter()
        .collect();
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Reads requests off a connection, gives the calls away, and answers them.
fn serve(mut connection: TcpStream, encoding: Encoding, calls: &mpsc::Sender<wire::Call>) {
    let mut buffer = Vec::new();
    let mut chunk = [0; 16384];
    while let Ok(read @ 1..) = connection.read(&mut chunk) {
        buffer.extend_from_slice(&chunk[..read]);
        while let Some((call, length)) = request(&buffer, encoding) {
            buffer.drain(..length);
            let subscribes = call.r#type() == wire::call::Type::Subscribe;
            calls.send(call).unwrap();
            let answer = if subscribes {
                stream(encoding)
            } else {
                b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n".to_vec()
            };
            connection.write_all(&answer).unwrap();
        }
    }
}

/// The stream as it was recorded, up to and with the LAUNCH_GROUP: what follows answers another executor's updates.
fn stream(encoding: Encoding) -> Vec<u8> {
    let mut records = podling::mesos::recordio::Decoder::new(1 << 24);
    records.push(&sample(encoding, "stream.recordio"));
    let mut answer = format!(
        "HTTP/1.1 200 OK\r\nDate: Sat, 21 Nov 2026 10:00:44 GMT\r\nTransfer-Encoding: chunked\r\nContent-Type: {}\r\n\r\n",
        encoding.media_type()
    )
    .into_bytes();
    while let Some(record) = records.next_record().unwrap() {
        let frame = podling::mesos::recordio::frame(&record);
        answer.extend_from_slice(format!("{:x}\r\n", frame.len()).as_bytes());
        answer.extend_from_slice(&frame);
        answer.extend_from_slice(b"\r\n");
    }
    answer
}

fn request(buffer: &[u8], encoding: Encoding) -> Option<(wire::Call, usize)> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut headers);
    let head = match request.parse(buffer).unwrap() {
        httparse::Status::Complete(head) => head,
        httparse::Status::Partial => return None,
    };
    assert_eq!(request.path, Some("/slave(1)/api/v1/executor"));
    let length = request
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .unwrap();
    let length: usize = std::str::from_utf8(length.value).unwrap().parse().unwrap();
    let body = buffer.get(head..head + length)?;
    Some((codec::decode(body, encoding).unwrap(), head + length))
}

#[test]
fn a_real_agents_traffic_is_understood() {
    for (encoding, name) in [(Encoding::Json, "json"), (Encoding::Protobuf, "protobuf")] {
        let place = Place::new();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = listener.local_addr().unwrap();
        // As recorded, but for what names that machine.
        let recorded = String::from_utf8(sample(encoding, "environment.txt")).unwrap();
        let recorded = recorded
            .lines()
            .filter_map(|line| line.split_once('='))
            .filter(|(name, _)| *name != "PWD");
        let mut child = Command::new(EXECUTOR)
            .env_clear()
            .envs(recorded)
            .env("MESOS_SANDBOX", place.path())
            .env("MESOS_DIRECTORY", place.path())
            .env("MESOS_SLAVE_PID", format!("slave(1)@{endpoint}"))
            .env("MESOS_AGENT_ENDPOINT", endpoint.to_string())
            .env("PODLING_ENCODING", name)
            .current_dir(place.path())
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (calls, seen) = mpsc::channel();
        for _ in 0..2 {
            let (connection, _) = listener.accept().unwrap();
            let calls = calls.clone();
            thread::spawn(move || serve(connection, encoding, &calls));
        }
        drop(calls);
        // The recorded scheduler kills one task and shuts the executor down; nothing of ours is acknowledged.
        let seen: Vec<wire::Call> = seen.iter().collect();
        let status = child.wait().unwrap();
        assert!(status.success(), "{name}: {status}");
        let told = |task: &str| -> Vec<TaskState> {
            let updates = seen.iter().filter_map(|call| call.update.as_ref());
            updates
                .filter(|update| update.status.task_id.value == task)
                .map(|update| update.status.state())
                .collect()
        };
        for task in ["probe-task-0", "probe-task-1"] {
            let states = told(task);
            assert_eq!(
                states.first(),
                Some(&TaskState::TaskStarting),
                "{name} {task}: {states:?}"
            );
            assert_eq!(
                states.last(),
                Some(&TaskState::TaskKilled),
                "{name} {task}: {states:?}"
            );
        }
    }
}
