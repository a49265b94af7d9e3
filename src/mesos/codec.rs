//! The two encodings of a message: protobuf and Mesos-style JSON.

use bytes::Bytes;

use super::{
    json::{self, Defaults},
    table::MessageTable,
    wire::{self, Path},
};

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

/// A message with a place in the descriptor tables; every generated type is one.
pub trait Message: prost::Message + Default {
    /// Its full protobuf name, such as `mesos.v1.executor.Call`.
    const NAME: &'static str;
    /// Its fields.
    const TABLE: &'static MessageTable;
}

/// The longest message that is looked at. Connections set their own, lower limits.
pub const MAX_MESSAGE: usize = 64 << 20;

/// Why bytes are not the message they should be; names the place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a {message}: {path}{}{reason}", if .path.is_empty() { "" } else { ": " })]
pub struct DecodeError {
    message: &'static str,
    path: String,
    reason: String,
}

impl DecodeError {
    /// The place, such as `.update.status.labels.labels[0].key`; empty if it is the message itself.
    pub fn path(&self) -> &str {
        &self.path
    }

    fn new<M: Message>(path: &Path, reason: impl ToString) -> Self {
        DecodeError {
            message: M::NAME,
            path: path.to_string(),
            reason: shorten(reason.to_string()),
        }
    }
}

/// The message's bytes; in JSON, what is unset is left out.
pub fn encode<M: Message>(message: &M, encoding: Encoding) -> Bytes {
    let wire = message.encode_to_vec();
    match encoding {
        Encoding::Protobuf => wire.into(),
        Encoding::Json => print::<M>(&wire, Defaults::Omitted),
    }
}

/// As agents and masters write it: in JSON, with the declared default for what is unset.
pub fn encode_with_defaults<M: Message>(message: &M, encoding: Encoding) -> Bytes {
    let wire = message.encode_to_vec();
    match encoding {
        Encoding::Protobuf => wire.into(),
        Encoding::Json => print::<M>(&wire, Defaults::Printed),
    }
}

fn print<M: Message>(wire: &[u8], defaults: Defaults) -> Bytes {
    // Names and braces make the text two to three times as long as the wire.
    let mut text = Vec::with_capacity(64 + 3 * wire.len());
    json::print(M::TABLE, wire, defaults, &mut text);
    text.into()
}

/// Reads a whole message: well formed, within the limits, with everything that is `required`.
pub fn decode<M: Message>(bytes: &[u8], encoding: Encoding) -> Result<M, DecodeError> {
    let mut path = Path::default();
    if bytes.len() > MAX_MESSAGE {
        let reason = format!("{} bytes are more than the {MAX_MESSAGE} allowed", bytes.len());
        return Err(DecodeError::new::<M>(&path, reason));
    }
    let decoded = match encoding {
        Encoding::Protobuf => {
            let checked = wire::check(M::TABLE, bytes, &mut path);
            checked.map_err(|fault| DecodeError::new::<M>(&path, fault))?;
            M::decode(bytes)
        }
        Encoding::Json => {
            let wire = json::read(M::TABLE, bytes, &mut path);
            M::decode(
                wire.map_err(|error| DecodeError::new::<M>(&path, error))?
                    .as_slice(),
            )
        }
    };
    decoded.map_err(|error| DecodeError::new::<M>(&path, error))
}

/// How much of a reason is shown. The parser quotes the value it met, however long that is.
const SHOWN: usize = 200;

/// Cuts out the middle of an overlong text: its end says what was expected and where.
fn shorten(text: String) -> String {
    let characters = text.chars().count();
    if characters <= SHOWN {
        return text;
    }
    let head: String = text.chars().take(SHOWN / 2).collect();
    let tail: String = text.chars().skip(characters - SHOWN / 2).collect();
    format!("{head} … {tail}")
}

#[cfg(test)]
mod tests;
