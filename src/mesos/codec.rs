//! The two encodings of a message: protobuf and Mesos-style JSON.

use bytes::Bytes;

/// How a message is written on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Protobuf,
    Json,
}

impl Encoding {
    /// The media type, exactly as Mesos compares it.
    pub fn media_type(self) -> &'static str {
        match self {
            Encoding::Protobuf => "application/x-protobuf",
            Encoding::Json => "application/json",
        }
    }
}

/// A message with a place in the descriptor tables.
pub trait Message: prost::Message + Default {
    /// Its full protobuf name, such as `mesos.v1.executor.Call`.
    const NAME: &'static str;
}

/// Why bytes are not the message they should be; names the place.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DecodeError(String);

pub fn encode<M: Message>(_message: &M, _encoding: Encoding) -> Bytes {
    Bytes::new()
}

pub fn decode<M: Message>(_bytes: &[u8], _encoding: Encoding) -> Result<M, DecodeError> {
    Err(DecodeError("under construction".into()))
}
