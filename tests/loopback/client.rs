//! A client of the executor API on plain sockets, so that nothing but the protocol is tested: it sees status lines,
//! chunks and records as they come.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    time::Duration,
};

use podling::{
    loopback::agent::{Agent, Facts},
    mesos::{
        codec::{self, Encoding},
        recordio::Decoder,
        v1::{
            ExecutorId, FrameworkId, TaskId, TaskState, TaskStatus,
            executor::{Call, Event, call, event},
            task_status::Source,
        },
    },
};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

pub trait Socket: Read + Write + Send {
    fn set_patience(&self, patience: Duration) -> io::Result<()>;
}

impl Socket for TcpStream {
    fn set_patience(&self, patience: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(patience))
    }
}

impl Socket for UnixStream {
    fn set_patience(&self, patience: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(patience))
    }
}

/// One connection to the agent.
pub struct Connection {
    socket: Box<dyn Socket>,
    /// Read but not used.
    ahead: Vec<u8>,
}

#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: HashMap<String, String>,
    pub body: String,
}

impl Connection {
    pub fn tcp(facts: &Facts) -> Self {
        Connection::to(facts.endpoint)
    }

    pub fn to(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        Connection {
            socket: Box::new(socket),
            ahead: Vec::new(),
        }
    }

    pub fn domain(facts: &Facts) -> Self {
        let socket = UnixStream::connect(facts.domain_socket.as_ref().unwrap()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Connection {
            socket: Box::new(socket),
            ahead: Vec::new(),
        }
    }

    pub fn set_patience(&self, patience: Duration) {
        self.socket.set_patience(patience).unwrap();
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes)
    }

    /// Sends a request and reads the head of the response.
    pub fn start(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        self.write(&request(method, path, headers, body));
        self.head().unwrap()
    }

    /// A whole exchange.
    pub fn exchange(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        self.write(&request(method, path, headers, body));
        self.response().unwrap()
    }

    pub fn response(&mut self) -> io::Result<Response> {
        let mut response = self.head()?;
        let length = response
            .headers
            .get("content-length")
            .map_or(0, |length| length.parse().unwrap());
        while self.ahead.len() < length {
            self.fill()?;
        }
        response.body = String::from_utf8(self.ahead.drain(..length).collect()).unwrap();
        Ok(response)
    }

    pub fn head(&mut self) -> io::Result<Response> {
        let end = loop {
            if let Some(end) = self.ahead.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end;
            }
            self.fill()?;
        };
        let head: Vec<u8> = self.ahead.drain(..end + 4).collect();
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        Ok(Response {
            status,
            headers,
            body: String::new(),
        })
    }

    /// Reads some more; the end of the connection is an error.
    fn fill(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 << 10];
        match self.socket.read(&mut buffer)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            length => {
                self.ahead.extend_from_slice(&buffer[..length]);
                Ok(())
            }
        }
    }

    /// Waits for the agent to close; anything else it sends is lost.
    pub fn wait_closed(&mut self) {
        loop {
            match self.fill() {
                Ok(()) => self.ahead.clear(),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    panic!("the connection stayed open");
                }
                Err(_) => return,
            }
        }
    }

    /// Whether nothing comes and nothing is closed for a moment.
    pub fn is_silent(&mut self) -> bool {
        matches!(
            self.fill().unwrap_err().kind(),
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
        )
    }
}

pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    request += &format!("Content-Length: {}\r\n\r\n", body.len());
    [request.as_bytes(), body].concat()
}

/// The protocol side of an executor.
pub struct Peer {
    pub facts: Facts,
    pub encoding: Encoding,
    pub domain: bool,
    pub token: Option<String>,
}

impl Peer {
    pub fn new(agent: &Agent, encoding: Encoding) -> Self {
        Peer {
            facts: agent.facts().clone(),
            encoding,
            domain: false,
            token: None,
        }
    }

    pub fn connect(&self) -> Connection {
        match self.domain {
            true => Connection::domain(&self.facts),
            false => Connection::tcp(&self.facts),
        }
    }

    pub fn path(&self) -> String {
        format!(
            "/{}/api/v1/executor",
            self.facts.agent_pid.split('@').next().unwrap()
        )
    }

    pub fn call(&self, kind: call::Type) -> Call {
        Call {
            executor_id: ExecutorId {
                value: self.facts.executor.executor_id.value.clone(),
            },
            framework_id: FrameworkId {
                value: self.facts.framework_id.clone(),
            },
            r#type: Some(kind as i32),
            ..Default::default()
        }
    }

    pub fn subscribe_call(&self, subscribe: call::Subscribe) -> Call {
        Call {
            subscribe: Some(subscribe),
            ..self.call(call::Type::Subscribe)
        }
    }

    pub fn update_call(&self, task: &str, state: TaskState, uuid: u8) -> Call {
        Call {
            update: Some(update(task, state, uuid)),
            ..self.call(call::Type::Update)
        }
    }

    pub fn bytes(&self, call: &Call) -> Vec<u8> {
        codec::encode(call, self.encoding).to_vec()
    }

    pub fn headers(&self) -> Vec<(&str, &str)> {
        let media = self.encoding.media_type();
        let mut headers = vec![("Content-Type", media), ("Accept", media)];
        headers.extend(self.token.as_deref().map(|token| ("Authorization", token)));
        headers
    }

    /// Sends a call on this connection and takes the answer.
    pub fn post(&self, connection: &mut Connection, call: &Call) -> Response {
        connection.exchange("POST", &self.path(), &self.headers(), &self.bytes(call))
    }

    pub fn update(&self, connection: &mut Connection, task: &str, state: TaskState, uuid: u8) {
        let response = self.post(connection, &self.update_call(task, state, uuid));
        assert_eq!(response.status, 202, "{}", response.body);
    }

    pub fn try_subscribe(&self, subscribe: call::Subscribe) -> Result<Stream, Response> {
        let mut connection = self.connect();
        let call = self.bytes(&self.subscribe_call(subscribe));
        connection.write(&request("POST", &self.path(), &self.headers(), &call));
        let head = connection.head().unwrap();
        match head.status {
            200 => Ok(Stream::new(connection, head, self.encoding)),
            _ => Err(head),
        }
    }

    pub fn subscribe(&self) -> Stream {
        self.try_subscribe(call::Subscribe::default()).unwrap()
    }

    /// Subscribes and skips SUBSCRIBED.
    pub fn subscribed(&self) -> Stream {
        let mut stream = self.subscribe();
        assert_eq!(stream.next().r#type(), event::Type::Subscribed);
        stream
    }
}

pub fn update(task: &str, state: TaskState, uuid: u8) -> call::Update {
    call::Update {
        status: TaskStatus {
            task_id: TaskId { value: task.into() },
            state: state as i32,
            source: Some(Source::Executor as i32),
            uuid: Some(vec![uuid; 16]),
            ..Default::default()
        },
    }
}

/// The response to SUBSCRIBE.
pub struct Stream {
    pub connection: Connection,
    pub head: Response,
    encoding: Encoding,
    decoder: Decoder,
    /// Length of each chunk so far.
    pub chunks: Vec<usize>,
    ended: bool,
}

/// How a stream ended.
#[derive(Debug, PartialEq, Eq)]
pub enum StreamEnd {
    /// By its last chunk.
    Proper,
    /// By the end of the connection.
    Broken,
}

impl Stream {
    pub fn new(connection: Connection, head: Response, encoding: Encoding) -> Self {
        Stream {
            connection,
            head,
            encoding,
            decoder: Decoder::new(64 << 20),
            chunks: Vec::new(),
            ended: false,
        }
    }

    pub fn next(&mut self) -> Event {
        self.try_next().expect("another event")
    }

    /// The next event of this kind; others are skipped.
    pub fn next_of(&mut self, kind: event::Type) -> Event {
        loop {
            let event = self.next();
            if event.r#type() == kind {
                return event;
            }
        }
    }

    pub fn try_next(&mut self) -> Result<Event, StreamEnd> {
        let record = self.next_record()?;
        Ok(codec::decode(&record, self.encoding).unwrap())
    }

    pub fn next_record(&mut self) -> Result<Vec<u8>, StreamEnd> {
        loop {
            if let Some(record) = self.decoder.next_record().unwrap() {
                return Ok(record.to_vec());
            }
            if self.ended {
                return Err(StreamEnd::Proper);
            }
            self.next_chunk().map_err(|_| StreamEnd::Broken)?;
        }
    }

    fn next_chunk(&mut self) -> io::Result<()> {
        let line = loop {
            if let Some(line) = self
                .connection
                .ahead
                .windows(2)
                .position(|bytes| bytes == b"\r\n")
            {
                break line;
            }
            self.connection.fill()?;
        };
        let size: Vec<u8> = self.connection.ahead.drain(..line + 2).collect();
        let size = usize::from_str_radix(std::str::from_utf8(&size).unwrap().trim(), 16).unwrap();
        while self.connection.ahead.len() < size + 2 {
            self.connection.fill()?;
        }
        let chunk: Vec<u8> = self.connection.ahead.drain(..size).collect();
        self.connection.ahead.drain(..2);
        match size {
            0 => self.ended = true,
            _ => {
                self.chunks.push(size);
                self.decoder.push(&chunk);
            }
        }
        Ok(())
    }

    /// Reads to the end.
    pub fn end(&mut self) -> StreamEnd {
        loop {
            if let Err(end) = self.try_next() {
                return end;
            }
        }
    }
}
