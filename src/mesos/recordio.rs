//! RecordIO: decimal length, line feed, payload (wire file, section 3).

use bytes::Bytes;

/// Cuts a byte stream into records, whatever the chunks it comes in.
#[derive(Debug)]
pub struct Decoder {}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RecordError(String);

impl Decoder {
    pub fn new(_max_record: usize) -> Self {
        Decoder {}
    }

    pub fn push(&mut self, _chunk: &[u8]) {}

    /// The next whole record, if there is one. After an error the stream is of no use.
    pub fn next_record(&mut self) -> Result<Option<Bytes>, RecordError> {
        Ok(None)
    }
}

/// One record, ready to be sent.
pub fn frame(_payload: &[u8]) -> Bytes {
    Bytes::new()
}
