//! RecordIO: decimal length, line feed, payload (wire file, section 3).

use bytes::{Buf, Bytes, BytesMut};

/// Cuts a byte stream into records, whatever the chunks it comes in.
///
/// The work is linear in the bytes pushed even if they come one by one: a length is read digit by digit and never
/// again, and a payload is cut out of the buffer without a copy.
#[derive(Debug)]
pub struct Decoder {
    buffer: BytesMut,
    state: State,
    max_record: usize,
}

#[derive(Debug, Clone)]
enum State {
    /// Inside the length; so many digits of it were read.
    Length { so_far: usize, digits: usize },
    /// Waiting for this many bytes of payload.
    Payload(usize),
    /// The stream is of no use any more.
    Failed(RecordError),
}

const START: State = State::Length { so_far: 0, digits: 0 };

/// More digits than any 64-bit length has.
const MAX_DIGITS: usize = 20;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("the record stream is broken: a record's length holds the byte {0:#04x} instead of a digit")]
    NotADigit(u8),
    #[error("the record stream is broken: a record has no length")]
    NoLength,
    #[error("the record stream is broken: a record's length has more than {MAX_DIGITS} digits")]
    EndlessLength,
    #[error("a record is longer than the {limit} bytes allowed here")]
    TooLong { limit: usize },
    #[error("the record stream ended inside a record")]
    Truncated,
}

impl Decoder {
    /// A decoder that refuses records of more than `max_record` bytes.
    pub fn new(max_record: usize) -> Self {
        Decoder {
            buffer: BytesMut::new(),
            state: START,
            max_record,
        }
    }

    /// Takes in the next bytes of the stream.
    pub fn push(&mut self, chunk: &[u8]) {
        if matches!(self.state, State::Failed(_)) {
            return;
        }
        if self.buffer.capacity() - self.buffer.len() < chunk.len() {
            // At least doubles, or a backlog would be copied for every chunk. Never reserves what a length merely
            // announces: memory follows the bytes that came.
            self.buffer.reserve(chunk.len().max(self.buffer.len()));
        }
        self.buffer.extend_from_slice(chunk);
    }

    /// The next whole record, if there is one. After an error the stream is of no use, and the error stays.
    pub fn next_record(&mut self) -> Result<Option<Bytes>, RecordError> {
        match self.advance() {
            Ok(record) => Ok(record),
            Err(error) => {
                self.buffer = BytesMut::new();
                self.state = State::Failed(error.clone());
                Err(error)
            }
        }
    }

    /// Says whether the stream may end here: only between records.
    pub fn finish(&self) -> Result<(), RecordError> {
        match &self.state {
            State::Failed(error) => Err(error.clone()),
            State::Length { digits: 0, .. } if self.buffer.is_empty() => Ok(()),
            _ => Err(RecordError::Truncated),
        }
    }

    fn advance(&mut self) -> Result<Option<Bytes>, RecordError> {
        loop {
            match &mut self.state {
                State::Length { so_far, digits } => {
                    let Some(&byte) = self.buffer.first() else {
                        return Ok(None);
                    };
                    self.buffer.advance(1);
                    match byte {
                        b'0'..=b'9' if *digits == MAX_DIGITS => return Err(RecordError::EndlessLength),
                        b'0'..=b'9' => {
                            *digits += 1;
                            *so_far = so_far
                                .checked_mul(10)
                                .and_then(|tens| tens.checked_add(usize::from(byte - b'0')))
                                .filter(|length| *length <= self.max_record)
                                .ok_or(RecordError::TooLong {
                                    limit: self.max_record,
                                })?;
                        }
                        b'\n' if *digits == 0 => return Err(RecordError::NoLength),
                        b'\n' => self.state = State::Payload(*so_far),
                        other => return Err(RecordError::NotADigit(other)),
                    }
                }
                State::Payload(length) if self.buffer.len() >= *length => {
                    let record = self.buffer.split_to(*length).freeze();
                    self.state = START;
                    return Ok(Some(record));
                }
                State::Payload(_) => return Ok(None),
                State::Failed(error) => return Err(error.clone()),
            }
        }
    }
}

/// One record, ready to be sent.
pub fn frame(payload: &[u8]) -> Bytes {
    let length = payload.len().to_string();
    let mut record = BytesMut::with_capacity(length.len() + 1 + payload.len());
    record.extend_from_slice(length.as_bytes());
    record.extend_from_slice(b"\n");
    record.extend_from_slice(payload);
    record.freeze()
}
