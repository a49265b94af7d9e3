//! Cuts the answers out of a connection that carries many calls at once.
//!
//! The calls go out without waiting for each other (UPDATE order is the order on the connection), which the HTTP
//! client library does not do; heads are parsed by its parser all the same.

use bytes::{Buf, BytesMut};

/// Bounds of an answer. Real ones are a status line, a few headers and at most a sentence.
const MAX_HEAD: usize = 16 << 10;
const MAX_HEADERS: usize = 64;
const MAX_BODY: u64 = 64 << 10;
/// What we keep of the sentence.
const KEPT_TEXT: usize = 512;

/// What the agent said to one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// The beginning of the body, if there is one.
    pub text: String,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    #[error("the agent's answer is not HTTP: {0}")]
    NotHttp(httparse::Error),
    #[error("the agent's answer has a chunk of invalid size")]
    Chunk,
    #[error("the agent's answer does not say how long it is")]
    NoLength,
    #[error("the agent's answer is longer than it may be")]
    TooLong,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Head,
    Body {
        left: u64,
    },
    ChunkSize,
    /// Its data and the line end behind it.
    Chunk {
        left: u64,
    },
    /// Lines up to an empty one.
    Trailer,
}

/// An incremental decoder of pipelined answers.
#[derive(Debug)]
pub struct Answers {
    pub buffer: BytesMut,
    state: State,
    status: u16,
    text: Vec<u8>,
    body: u64,
}

impl Answers {
    pub fn new() -> Self {
        Answers {
            buffer: BytesMut::new(),
            state: State::Head,
            status: 0,
            text: Vec::new(),
            body: 0,
        }
    }

    /// The next whole answer in the buffer. After an error the connection is of no use.
    pub fn next(&mut self) -> Result<Option<Answer>, AnswerError> {
        loop {
            let done = match self.state {
                State::Head => match self.head()? {
                    Some(next) => next,
                    None => return Ok(None),
                },
                State::Body { left } => match self.take(left) {
                    0 => None,
                    left if self.buffer.is_empty() => {
                        self.state = State::Body { left };
                        return Ok(None);
                    }
                    left => Some(State::Body { left }),
                },
                State::ChunkSize => match httparse::parse_chunk_size(&self.buffer) {
                    Err(_) => return Err(AnswerError::Chunk),
                    Ok(httparse::Status::Partial) if self.buffer.len() > 64 => {
                        return Err(AnswerError::Chunk);
                    }
                    Ok(httparse::Status::Partial) => return Ok(None),
                    Ok(httparse::Status::Complete((length, size))) => {
                        self.buffer.advance(length);
                        self.grow(size)?;
                        Some(if size == 0 {
                            State::Trailer
                        } else {
                            State::Chunk { left: size }
                        })
                    }
                },
                State::Chunk { left: 0 } => match self.buffer.get(..2) {
                    None => return Ok(None),
                    Some(b"\r\n") => {
                        self.buffer.advance(2);
                        Some(State::ChunkSize)
                    }
                    Some(_) => return Err(AnswerError::Chunk),
                },
                State::Chunk { left } => {
                    let left = self.take(left);
                    self.state = State::Chunk { left };
                    if left > 0 {
                        return Ok(None);
                    }
                    continue;
                }
                State::Trailer => match self.buffer.iter().position(|byte| *byte == b'\n') {
                    None if self.buffer.len() > MAX_HEAD => return Err(AnswerError::TooLong),
                    None => return Ok(None),
                    Some(end) => {
                        let empty = matches!(self.buffer.get(..end), Some(b"" | b"\r"));
                        self.buffer.advance(end + 1);
                        if empty { None } else { Some(State::Trailer) }
                    }
                },
            };
            match done {
                Some(state) => self.state = state,
                None => {
                    self.state = State::Head;
                    let text = String::from_utf8_lossy(&self.text).trim().to_owned();
                    self.text.clear();
                    self.body = 0;
                    return Ok(Some(Answer {
                        status: self.status,
                        text,
                    }));
                }
            }
        }
    }

    /// Reads a head: `None` if it is not all there, else what follows it.
    fn head(&mut self) -> Result<Option<Option<State>>, AnswerError> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let length = match response.parse(&self.buffer).map_err(AnswerError::NotHttp)? {
            httparse::Status::Partial if self.buffer.len() > MAX_HEAD => return Err(AnswerError::TooLong),
            httparse::Status::Partial => return Ok(None),
            httparse::Status::Complete(length) => length,
        };
        let status = response.code.unwrap_or(0);
        let value = |name: &str| {
            let header = response
                .headers
                .iter()
                .find(|header| header.name.eq_ignore_ascii_case(name));
            header
                .and_then(|header| std::str::from_utf8(header.value).ok())
                .map(str::trim)
        };
        let chunked = value("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
        let declared: Option<u64> = value("content-length").and_then(|length| length.parse().ok());
        self.buffer.advance(length);
        self.status = status;
        Ok(Some(match (status, chunked, declared) {
            (100..=199, ..) => Some(State::Head),
            (204 | 304, ..) => None,
            (_, true, _) => Some(State::ChunkSize),
            (_, false, Some(left)) => {
                self.grow(left)?;
                if left == 0 {
                    None
                } else {
                    Some(State::Body { left })
                }
            }
            (_, false, None) => return Err(AnswerError::NoLength),
        }))
    }

    fn grow(&mut self, by: u64) -> Result<(), AnswerError> {
        self.body = self.body.saturating_add(by);
        if self.body > MAX_BODY {
            Err(AnswerError::TooLong)
        } else {
            Ok(())
        }
    }

    /// Consumes up to `left` bytes of body and says how many are still to come.
    fn take(&mut self, left: u64) -> u64 {
        let here = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let bytes = self.buffer.split_to(here);
        let room = KEPT_TEXT.saturating_sub(self.text.len()).min(bytes.len());
        self.text.extend(bytes.iter().take(room));
        left - here as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ACCEPTED: &[u8] = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n";

    fn all(answers: &mut Answers) -> Result<Vec<(u16, String)>, AnswerError> {
        let mut found = Vec::new();
        while let Some(answer) = answers.next()? {
            found.push((answer.status, answer.text));
        }
        Ok(found)
    }

    fn decode(bytes: &[u8]) -> Result<Vec<(u16, String)>, AnswerError> {
        let mut answers = Answers::new();
        answers.buffer.extend_from_slice(bytes);
        all(&mut answers)
    }

    fn mixture() -> Vec<u8> {
        [
            ACCEPTED,
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 11\r\n\r\nno such one",
            b"HTTP/1.1 100 Continue\r\n\r\n",
            ACCEPTED,
            b"HTTP/1.1 503 Service Unavailable\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nnot\r\n4\r\n yet\r\n0\r\nX: y\r\n\r\n",
            b"HTTP/1.1 204 No Content\r\n\r\n",
            ACCEPTED,
        ]
        .concat()
    }

    fn expected() -> Vec<(u16, String)> {
        let texts = [
            (202, ""),
            (400, "no such one"),
            (202, ""),
            (503, "not yet"),
            (204, ""),
            (202, ""),
        ];
        texts.map(|(status, text)| (status, text.to_owned())).into()
    }

    #[test]
    fn answers_of_every_kind_are_told_apart() {
        assert_eq!(decode(&mixture()), Ok(expected()));
    }

    #[test]
    fn nonsense_and_excess_are_refused() {
        let long_head = [b"HTTP/1.1 202 Accepted\r\nX: ".as_slice(), &[b'a'; MAX_HEAD]].concat();
        let cases: [(&[u8], AnswerError); 6] = [
            (
                b"220 mail.example ESMTP\r\n",
                AnswerError::NotHttp(httparse::Error::Version),
            ),
            (b"HTTP/1.1 202 Accepted\r\n\r\n", AnswerError::NoLength),
            (
                b"HTTP/1.1 202 A\r\nContent-Length: 99999999\r\n\r\n",
                AnswerError::TooLong,
            ),
            (
                b"HTTP/1.1 202 A\r\nTransfer-Encoding: chunked\r\n\r\nxx\r\n",
                AnswerError::Chunk,
            ),
            (
                b"HTTP/1.1 202 A\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n",
                AnswerError::TooLong,
            ),
            (&long_head, AnswerError::TooLong),
        ];
        for (bytes, error) in cases {
            assert_eq!(decode(bytes), Err(error), "{}", String::from_utf8_lossy(bytes));
        }
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_the_bytes_arrive(cuts in proptest::collection::vec(1usize..9, 1..400)) {
            let bytes = mixture();
            let mut answers = Answers::new();
            let mut found = Vec::new();
            let mut rest = bytes.as_slice();
            let mut cuts = cuts.into_iter().cycle();
            while !rest.is_empty() {
                let (now, later) = rest.split_at(cuts.next().unwrap_or(1).min(rest.len()));
                answers.buffer.extend_from_slice(now);
                found.extend(all(&mut answers).expect("valid"));
                rest = later;
            }
            prop_assert_eq!(found, expected());
        }

        #[test]
        fn l_07_no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes);
            let _ = decode(&[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".as_slice(), &bytes].concat());
        }
    }
}
