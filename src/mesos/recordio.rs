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

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::mesos::{
        codec::{Encoding, decode, encode},
        fuzz,
        v1::executor::Event,
    };

    fn all(decoder: &mut Decoder, chunk: &[u8]) -> Result<Vec<Bytes>, RecordError> {
        decoder.push(chunk);
        std::iter::from_fn(|| decoder.next_record().transpose()).collect()
    }

    #[test]
    fn a_real_agents_stream_gives_its_events_wherever_it_is_cut() {
        for (folder, encoding) in [("protobuf", Encoding::Protobuf), ("json", Encoding::Json)] {
            let folder = format!("{}/tests/fixtures/wire/{folder}", env!("CARGO_MANIFEST_DIR"));
            let stream = std::fs::read(format!("{folder}/stream.recordio")).unwrap();
            let whole = all(&mut Decoder::new(1 << 20), &stream).unwrap();
            let events: Vec<Event> = whole
                .iter()
                .map(|record| decode(record, encoding).unwrap())
                .collect();
            let types: Vec<_> = events.iter().map(|event| event.r#type().as_str_name()).collect();
            assert_eq!(
                types,
                [
                    "SUBSCRIBED",
                    "LAUNCH_GROUP",
                    "ACKNOWLEDGED",
                    "ACKNOWLEDGED",
                    "ACKNOWLEDGED",
                    "ACKNOWLEDGED",
                    "MESSAGE",
                    "KILL",
                    "ACKNOWLEDGED",
                    "ACKNOWLEDGED",
                    "SHUTDOWN",
                    "ACKNOWLEDGED",
                    "ACKNOWLEDGED"
                ]
            );
            for cut in 0..=stream.len() {
                let mut decoder = Decoder::new(1 << 20);
                let (first, second) = stream.split_at(cut);
                let mut records = all(&mut decoder, first).unwrap();
                records.extend(all(&mut decoder, second).unwrap());
                assert_eq!(records, whole, "cut at {cut}");
                assert_eq!(decoder.finish(), Ok(()));
            }
            if encoding == Encoding::Protobuf {
                // All but the first, which holds a field that v1 does not have.
                let again: Vec<u8> = events
                    .iter()
                    .skip(1)
                    .flat_map(|event| frame(&encode(event, encoding)))
                    .collect();
                assert!(stream.ends_with(&again));
            }
        }
    }

    #[test]
    fn a_broken_length_ends_the_stream() {
        for (stream, error) in [
            (&b"5x"[..], RecordError::NotADigit(b'x')),
            (b"-5\n", RecordError::NotADigit(b'-')),
            (b"+5\n", RecordError::NotADigit(b'+')),
            (b" 5\n", RecordError::NotADigit(b' ')),
            (b"5\r\n", RecordError::NotADigit(b'\r')),
            (b"0x5\n", RecordError::NotADigit(b'x')),
            (b"\n", RecordError::NoLength),
            (b"101\n", RecordError::TooLong { limit: 100 }),
            (b"18446744073709551616\n", RecordError::TooLong { limit: 100 }),
            (b"000000000000000000005\nhello", RecordError::EndlessLength),
        ] {
            let mut decoder = Decoder::new(100);
            assert_eq!(all(&mut decoder, stream), Err(error.clone()), "{stream:?}");
            // And stays ended.
            assert_eq!(all(&mut decoder, b"2\nok"), Err(error.clone()));
            assert_eq!(decoder.finish(), Err(error));
        }
        let mut unlimited = Decoder::new(usize::MAX);
        assert_eq!(all(&mut unlimited, b"18446744073709551615\n"), Ok(vec![]));
        assert_eq!(all(&mut unlimited, b"abc"), Ok(vec![]));
        assert_eq!(unlimited.finish(), Err(RecordError::Truncated));
        assert!(
            unlimited.buffer.capacity() < 4096,
            "memory follows what came, not what is announced"
        );
    }

    #[test]
    fn the_longest_and_the_shortest_record_pass() {
        let mut decoder = Decoder::new(5);
        let records = all(&mut decoder, b"5\nhello0\n00000000000000000002\nhi").unwrap();
        assert_eq!(records, [&b"hello"[..], b"", b"hi"]);
        for (stream, ended) in [
            (&b""[..], true),
            (b"5", false),
            (b"5\n", false),
            (b"5\nhell", false),
            (b"5\nhello", true),
        ] {
            let mut decoder = Decoder::new(5);
            all(&mut decoder, stream).unwrap();
            assert_eq!(decoder.finish().is_ok(), ended, "{stream:?}");
        }
    }

    #[test]
    fn a_long_record_is_not_copied_again_for_every_byte() {
        let record = vec![b'x'; 4 << 20];
        let stream = frame(&record);
        let mut decoder = Decoder::new(8 << 20);
        let mut places = std::collections::HashSet::new();
        let mut records = Vec::new();
        for byte in stream.chunks(1) {
            decoder.push(byte);
            places.insert(decoder.buffer.as_ptr());
            records.extend(decoder.next_record().unwrap());
        }
        assert_eq!(records, [record]);
        assert!(places.len() < 64, "the buffer was in {} places", places.len());
    }

    proptest! {
        #[test]
        fn any_stream_gives_the_same_records_in_any_chunks(
            records in vec(vec(any::<u8>(), 0..300), 0..20),
            cuts: [u8; 2],
            tail in vec(any::<u8>(), 0..20),
        ) {
            let stream = records.iter().flat_map(|record| frame(record)).chain(tail).collect::<Vec<u8>>();
            fuzz::recordio(&[&cuts[..], &stream].concat());
            let mut decoder = Decoder::new(1000);
            decoder.push(&stream);
            for record in records {
                prop_assert_eq!(decoder.next_record().unwrap().unwrap(), record);
            }
        }

        #[test]
        fn hostile_streams_end_alike_in_any_chunks(stream in "[0-9]{0,4}\n{0,2}[0-9x\n]{0,40}") {
            fuzz::recordio(&[&[2, 7], stream.as_bytes()].concat());
        }
    }
}
