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
mod tests {
    use super::*;
    use crate::mesos::{
        table::Kind,
        v1::executor::{Call, Event},
        wire::{Reader, Value, Writer},
    };

    /// What the real agent sent and was sent, under `tests/fixtures/wire`.
    fn samples(folder: &str, prefix: &str) -> Vec<(String, Vec<u8>)> {
        let folder = format!("{}/tests/fixtures/wire/{folder}", env!("CARGO_MANIFEST_DIR"));
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix))
            .map(|path| (path.to_string_lossy().into_owned(), std::fs::read(&path).unwrap()))
            .collect();
        files.sort();
        assert!(!files.is_empty());
        files
    }

    fn protobuf_sample_survives<M: Message + PartialEq + std::fmt::Debug>(name: &str, bytes: &[u8]) {
        let message: M = decode(bytes, Encoding::Protobuf).unwrap();
        assert_eq!(
            encode(&message, Encoding::Protobuf),
            known_fields(M::TABLE, bytes),
            "{name}"
        );
        let json = encode(&message, Encoding::Json);
        assert_eq!(decode::<M>(&json, Encoding::Json).unwrap(), message, "{name}");
    }

    /// The bytes without the one field that agents send though v1 does not have it (an old AgentInfo.checkpoint).
    fn known_fields(table: &'static MessageTable, bytes: &[u8]) -> Vec<u8> {
        let (mut reader, mut known) = (Reader(bytes), Writer::default());
        while let Some((number, value)) = reader.field().unwrap() {
            let kind = table.by_number(number).map(|(_, field)| field.kind);
            match (kind, value) {
                (None, Value::Varint(1)) if (table.name, number) == ("mesos.v1.AgentInfo", 7) => {}
                (Some(Kind::Message(inner)), Value::Bytes(bytes)) => {
                    known.bytes_field(number, &known_fields(inner, bytes))
                }
                (Some(_), Value::Bytes(bytes)) => known.bytes_field(number, bytes),
                (Some(_), Value::Varint(value)) => known.varint_field(number, value),
                (Some(_), Value::Fixed64(bits)) => known.double_field(number, f64::from_bits(bits)),
                unexpected => panic!("{}: field {number}: {unexpected:?}", table.name),
            }
        }
        known.0
    }

    /// Compared as JSON values: order of members and spaces carry no meaning.
    fn json_sample_survives<M: Message + PartialEq + std::fmt::Debug>(
        name: &str,
        text: &[u8],
        defaults: bool,
    ) {
        let message: M = decode(text, Encoding::Json).unwrap();
        let printed = if defaults {
            encode_with_defaults(&message, Encoding::Json)
        } else {
            encode(&message, Encoding::Json)
        };
        let mut original: serde_json::Value = serde_json::from_slice(text).unwrap();
        drop_empty_lists(&mut original);
        assert_eq!(
            serde_json::from_slice::<serde_json::Value>(&printed).unwrap(),
            original,
            "{name}"
        );
        let wire = encode(&message, Encoding::Protobuf);
        assert_eq!(decode::<M>(&wire, Encoding::Protobuf).unwrap(), message, "{name}");
    }

    fn drop_empty_lists(value: &mut serde_json::Value) {
        if let serde_json::Value::Object(members) = value {
            members.retain(|_, member| *member != serde_json::json!([]));
            members.values_mut().for_each(drop_empty_lists);
        }
    }

    #[test]
    fn what_a_real_agent_sent_and_took_is_not_changed() {
        for (name, bytes) in samples("protobuf", "call-") {
            protobuf_sample_survives::<Call>(&name, &bytes);
        }
        for (name, bytes) in samples("protobuf", "event-") {
            protobuf_sample_survives::<Event>(&name, &bytes);
        }
        for (name, text) in samples("json", "call-") {
            json_sample_survives::<Call>(&name, &text, false);
        }
        for (name, text) in samples("json", "event-") {
            json_sample_survives::<Event>(&name, &text, true);
        }
    }
}
