//! Plays what a real agent once streamed to its executor, byte for byte, and takes the answers. Raw TCP: nothing of the
//! loopback agent is in here.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::Duration,
};

use bytes::Bytes;
use podling::mesos::recordio::{Decoder, frame};

/// How long the executor may take for anything.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct RecordedAgent {
    pub address: SocketAddr,
    /// The records of the stream, in order.
    pub records: Vec<Bytes>,
    stream: Option<TcpStream>,
    headers: String,
    requests: Receiver<(Request, TcpStream)>,
}

/// What the executor posted.
#[derive(Debug)]
pub struct Request {
    pub line: String,
    pub headers: Vec<String>,
    pub body: Vec<u8>,
}

impl RecordedAgent {
    /// The recording in `tests/fixtures/wire/<folder>`.
    pub fn start(folder: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures/wire")
            .join(folder);
        let mut decoder = Decoder::new(1 << 20);
        decoder.push(&std::fs::read(folder.join("stream.recordio")).unwrap());
        let records = std::iter::from_fn(|| decoder.next_record().unwrap()).collect();
        let headers = std::fs::read_to_string(folder.join("response-headers.txt")).unwrap();

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, requests) = channel();
        // Ends with the test's process: there is no more of it than a blocked accept.
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let sender = sender.clone();
                thread::spawn(move || take_requests(connection, &sender));
            }
        });
        RecordedAgent {
            address,
            records,
            stream: None,
            headers,
            requests,
        }
    }

    /// The next request. SUBSCRIBE gets the recorded header and keeps its connection, all others 202.
    pub fn next(&mut self) -> Request {
        let (request, mut connection) = self
            .requests
            .recv_timeout(PATIENCE)
            .expect("a call from the executor");
        if self.stream.is_none() {
            let header = self.headers.trim_end().replace('\n', "\r\n");
            write!(connection, "{header}\r\n\r\n").unwrap();
            self.stream = Some(connection);
        } else {
            connection
                .write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
                .unwrap();
        }
        request
    }

    /// Streams a record as one chunk, as the real agent did.
    pub fn play(&mut self, record: &[u8]) {
        let (framed, stream) = (frame(record), self.stream.as_mut().expect("subscribed"));
        let chunk = [format!("{:x}\r\n", framed.len()).as_bytes(), &framed, b"\r\n"].concat();
        // The executor may have ended already.
        let _ = stream.write_all(&chunk);
    }
}

fn take_requests(connection: TcpStream, sender: &Sender<(Request, TcpStream)>) {
    let mut reader = BufReader::new(connection.try_clone().unwrap());
    while let Some(line) = next_line(&mut reader) {
        let headers: Vec<_> = std::iter::from_fn(|| next_line(&mut reader))
            .take_while(|line| !line.is_empty())
            .collect();
        let length = |header: &String| {
            header
                .to_lowercase()
                .strip_prefix("content-length: ")?
                .parse()
                .ok()
        };
        let mut body = vec![0; headers.iter().find_map(length).expect("a length")];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let _ = sender.send((Request { line, headers, body }, connection.try_clone().unwrap()));
    }
}

fn next_line(reader: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
    Some(line.trim_end().to_owned())
}
