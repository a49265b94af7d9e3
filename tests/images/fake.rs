//! A registry that misbehaves as told. It speaks over raw sockets, so that nothing is too broken to be sent.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use super::build::{TestImage, digest};

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// What part of a pull this is.
    pub fn part(&self, content: &Content) -> Option<Part> {
        let key = self.target.rsplit('/').next()?;
        if self.target.contains("/manifests/") {
            return Some(if key.starts_with("sha256:") {
                Part::Manifest
            } else {
                Part::Tag
            });
        }
        if key == digest(&content.config) {
            return Some(Part::Config);
        }
        self.target.contains("/blobs/").then_some(Part::Layer)
    }
}

/// The requests of a pull by tag, through an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Tag,
    Manifest,
    Config,
    Layer,
}

pub const PARTS: [Part; 4] = [Part::Tag, Part::Manifest, Part::Config, Part::Layer];

/// What a well-behaved registry would have.
#[derive(Clone)]
pub struct Content {
    pub index: Vec<u8>,
    pub index_type: &'static str,
    pub image: TestImage,
    pub config: Vec<u8>,
}

impl Content {
    pub fn of(image: TestImage) -> Content {
        let manifest: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap();
        let config = image.blobs[manifest["config"]["digest"].as_str().unwrap()].clone();
        Content {
            index: super::build::index(&[("amd64", &image)], super::build::OCI_INDEX),
            index_type: super::build::OCI_INDEX,
            image,
            config,
        }
    }

    /// The right answer to a request: type and body.
    pub fn answer(&self, request: &Request) -> Option<(&str, Vec<u8>)> {
        let key = request.target.split('?').next()?.rsplit('/').next()?;
        if request.target.contains("/manifests/") {
            if key == "tag" {
                return Some((self.index_type, self.index.clone()));
            }
            return (key == self.image.digest())
                .then(|| (self.image.media_type, self.image.manifest.clone()));
        }
        let blob = self.image.blobs.get(key)?;
        Some(("application/octet-stream", blob.clone()))
    }
}

/// How a connection ends after what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The next request may come.
    Keep,
    Close,
    Reset,
    /// Nothing more happens.
    Stall,
}

/// What is sent, and what then.
#[derive(Clone, Debug)]
pub struct Reply {
    pub bytes: Vec<u8>,
    pub end: End,
}

impl Reply {
    pub fn new(head: &str, body: &[u8]) -> Reply {
        let mut bytes = head.replace('\n', "\r\n").into_bytes();
        bytes.extend_from_slice(body);
        Reply {
            bytes,
            end: End::Keep,
        }
    }

    pub fn end(self, end: End) -> Reply {
        Reply { end, ..self }
    }

    pub fn ok(media_type: &str, body: &[u8]) -> Reply {
        let length = body.len();
        Reply::new(
            &format!("HTTP/1.1 200 OK\nContent-Type: {media_type}\nContent-Length: {length}\n\n"),
            body,
        )
    }

    pub fn status(line: &str, headers: &str) -> Reply {
        Reply::new(&format!("HTTP/1.1 {line}\n{headers}Content-Length: 0\n\n"), b"")
    }

    /// A good answer, for a range too.
    pub fn good(content: &Content, request: &Request) -> Reply {
        let Some((media_type, body)) = content.answer(request) else {
            return Reply::status("404 Not Found", "");
        };
        let start = request.header("range").and_then(|range| {
            range
                .strip_prefix("bytes=")?
                .strip_suffix('-')?
                .parse::<usize>()
                .ok()
        });
        match start {
            Some(start) if start < body.len() => {
                let (length, last, whole) = (body.len() - start, body.len() - 1, body.len());
                Reply::new(
                    &format!(
                        "HTTP/1.1 206 Partial Content\nContent-Range: bytes {start}-{last}/{whole}\nContent-Length: {length}\n\n"
                    ),
                    &body[start..],
                )
            }
            _ => Reply::ok(media_type, &body),
        }
    }
}

/// Decides the reply to a request; the number counts requests from 0.
pub type Behaviour = Arc<dyn Fn(&Request, usize) -> Reply + Send + Sync>;

pub struct FakeRegistry {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
}

impl FakeRegistry {
    pub fn start(behaviour: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> FakeRegistry {
        FakeRegistry::start_at("127.0.0.1", behaviour)
    }

    pub fn start_at(
        address: &str,
        behaviour: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static,
    ) -> FakeRegistry {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let behaviour: Behaviour = Arc::new(behaviour);
        let (log, stopped) = (seen.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut connections = Vec::new();
            while let Ok((stream, _)) = listener.accept() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let (log, behaviour) = (log.clone(), behaviour.clone());
                // Weak, since a connection is only reset when its last descriptor is closed.
                let stream = Arc::new(stream);
                let held = Arc::downgrade(&stream);
                connections.push((held, std::thread::spawn(move || serve(&stream, &log, &behaviour))));
            }
            for (stream, thread) in connections {
                // Those that stall wait for this.
                if let Some(stream) = stream.upgrade() {
                    let _ = stream.shutdown(std::net::Shutdown::Both);
                }
                let _ = thread.join();
            }
        });
        FakeRegistry {
            address,
            seen,
            stop,
            listener: Some(thread),
        }
    }

    pub fn requests(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.listener.take() {
            let _ = thread.join();
        }
    }
}

fn serve(stream: &TcpStream, log: &Mutex<Vec<Request>>, behaviour: &Behaviour) {
    let mut reader = BufReader::new(stream);
    while let Ok(Some(request)) = read_request(&mut reader) {
        let number = {
            let mut log = log.lock().unwrap();
            log.push(request.clone());
            log.len() - 1
        };
        let reply = behaviour(&request, number);
        let mut out = stream;
        if out.write_all(&reply.bytes).and_then(|()| out.flush()).is_err() {
            return;
        }
        match reply.end {
            End::Keep => {}
            End::Close => {
                let _ = stream.shutdown(std::net::Shutdown::Both);
                return;
            }
            End::Reset => {
                // What was sent must have arrived before it is taken back.
                std::thread::sleep(Duration::from_millis(20));
                let _ = rustix::net::sockopt::set_socket_linger(stream.as_fd(), Some(Duration::ZERO));
                return;
            }
            End::Stall => {
                let _ = io::copy(&mut reader, &mut io::sink());
                return;
            }
        }
    }
}

pub fn read_request(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_ascii_whitespace().map(str::to_owned);
    let target = words.nth(1).unwrap_or_default();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.push((name.to_owned(), value.trim().to_owned())),
            None => break,
        }
    }
    let mut request = Request {
        target,
        headers,
        body: Vec::new(),
    };
    let length = request
        .header("content-length")
        .and_then(|length| length.parse().ok())
        .unwrap_or(0);
    request.body = vec![0; length];
    reader.read_exact(&mut request.body)?;
    Ok(Some(request))
}
