//! What must hold for any bytes at all: the bodies of the fuzz targets in `fuzz/`, which the unit tests run as well.
//! Each takes bytes and panics if the property does not hold.
#![allow(clippy::panic)]

use bytes::Bytes;

use super::{
    codec::{self, DecodeError, Encoding, Message},
    recordio::{Decoder, RecordError, frame},
    table::{Field, Kind, Label, MessageTable},
    v1,
    wire::Writer,
};

include!(concat!(env!("OUT_DIR"), "/mesos.each.rs"));
#[cfg(test)]
pub(crate) use each_message;

/// The longest record in these tests.
const MAX_RECORD: usize = 1 << 12;

/// However a stream is cut into chunks, it gives the same records and ends in the same way; and what it gives is what
/// was framed. The first two bytes say how to cut.
pub fn recordio(data: &[u8]) {
    let Some(([small, large], stream)) = data.split_first_chunk() else {
        return;
    };
    let whole = records(&[stream]);
    let chunks = |size: u8| stream.chunks(usize::from(size).max(1)).collect::<Vec<_>>();
    assert_eq!(records(&chunks(1)), whole);
    assert_eq!(records(&chunks(*small)), whole);
    assert_eq!(records(&chunks(*large)), whole);

    let framed: Vec<u8> = whole.0.iter().flat_map(|record| frame(record)).collect();
    assert_eq!(records(&[&framed]), (whole.0, Ok(())));
}

fn records(chunks: &[&[u8]]) -> (Vec<Bytes>, Result<(), RecordError>) {
    let mut decoder = Decoder::new(MAX_RECORD);
    let mut records = Vec::new();
    for chunk in chunks {
        decoder.push(chunk);
        loop {
            match decoder.next_record() {
                Ok(Some(record)) => records.push(record),
                Ok(None) => break,
                Err(error) => return (records, Err(error)),
            }
        }
    }
    (records, decoder.finish())
}

/// Whatever protobuf is accepted survives both encodings, as any of the messages that cross a border.
pub fn protobuf(data: &[u8]) {
    let _ = accepted::<v1::executor::Call>(data, Encoding::Protobuf);
    let _ = accepted::<v1::executor::Event>(data, Encoding::Protobuf);
    let _ = accepted::<v1::scheduler::Call>(data, Encoding::Protobuf);
    let _ = accepted::<v1::scheduler::Event>(data, Encoding::Protobuf);
    let _ = accepted::<v1::agent::Call>(data, Encoding::Protobuf);
    let _ = accepted::<v1::agent::Response>(data, Encoding::Protobuf);
}

/// Whatever JSON is accepted survives both encodings.
pub fn json(data: &[u8]) {
    let _ = accepted::<v1::executor::Call>(data, Encoding::Json);
    let _ = accepted::<v1::executor::Event>(data, Encoding::Json);
    let _ = accepted::<v1::scheduler::Call>(data, Encoding::Json);
    let _ = accepted::<v1::scheduler::Event>(data, Encoding::Json);
    let _ = accepted::<v1::TaskGroupInfo>(data, Encoding::Json);
    let _ = accepted::<v1::ExecutorInfo>(data, Encoding::Json);
}

/// A property of bytes.
type Target = fn(&[u8]);

/// A valid message of any type, made from the bytes as entropy, loses nothing in either encoding.
pub fn any_message(data: &[u8]) {
    let mut entropy = Entropy(data);
    let mut types: Vec<(&MessageTable, Target)> = Vec::new();
    macro_rules! collect {
        ($message:ty) => {
            types.push((<$message>::TABLE, survives::<$message>));
        };
    }
    each_message!(collect);
    let chosen = usize::from(entropy.byte()) << 8 | usize::from(entropy.byte());
    let (table, survives) = types[chosen % types.len()];
    survives(&arbitrary(table, &mut entropy));
}

/// Checks that a message comes through unchanged: to its Rust type, to JSON with and without defaults, and back.
pub fn survives<M: Message>(wire: &[u8]) {
    let message = accepted::<M>(wire, Encoding::Protobuf).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(
        codec::encode(&message, Encoding::Protobuf),
        wire,
        "{} lost something",
        M::NAME
    );
}

fn accepted<M: Message>(bytes: &[u8], encoding: Encoding) -> Result<M, DecodeError> {
    let message: M = codec::decode(bytes, encoding)?;
    let wire = codec::encode(&message, Encoding::Protobuf);
    let again = |bytes: &[u8], encoding| match codec::decode::<M>(bytes, encoding) {
        Ok(message) => message,
        Err(error) => panic!("{error} in {:?}", String::from_utf8_lossy(bytes)),
    };
    let unchanged = again(&wire, Encoding::Protobuf);
    assert_eq!(codec::encode(&unchanged, Encoding::Protobuf), wire);

    let text = codec::encode(&message, Encoding::Json);
    let back = again(&text, Encoding::Json);
    assert_eq!(codec::encode(&back, Encoding::Json), text);

    // With defaults printed, unset and default become one; apart from that nothing changes.
    let full = codec::encode_with_defaults(&message, Encoding::Json);
    let back = again(&full, Encoding::Json);
    let members = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).ok();
    assert_eq!(
        members(&codec::encode_with_defaults(&back, Encoding::Json)),
        members(&full)
    );
    Ok(message)
}

/// A supply of choices. When it runs dry every choice is the smallest one, so that what is made of it ends.
#[derive(Debug)]
pub struct Entropy<'e>(pub &'e [u8]);

impl Entropy<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::from(self.byte()) % limit
    }

    /// Small, any, or near a border.
    fn number(&mut self) -> u64 {
        match self.below(4) {
            0 => self.byte().into(),
            1 => u64::from_le_bytes(std::array::from_fn(|_| self.byte())),
            2 => (1u64 << self.below(64)).wrapping_sub(1),
            _ => !u64::from(self.byte()),
        }
    }

    fn double(&mut self) -> f64 {
        match self.below(4) {
            0 => self.byte().into(),
            1 => f64::from(self.byte()) / 8.0 - 16.0,
            2 => [
                f64::INFINITY,
                f64::NEG_INFINITY,
                f64::NAN,
                f64::MIN_POSITIVE,
                f64::MAX,
            ][self.below(5)],
            // The bits of NaN are not kept by JSON, nor does prost keep the sign of a zero in a map.
            _ => match f64::from_bits(self.number()) {
                odd if odd.is_nan() || odd == 0.0 => 0.1,
                value => value,
            },
        }
    }

    fn text(&mut self) -> String {
        const AWKWARD: [char; 12] = [
            '"',
            '\\',
            '\n',
            '\0',
            '/',
            '\u{7f}',
            'é',
            '\u{2028}',
            '\u{feff}',
            '😀',
            '\u{10ffff}',
            '\u{1b}',
        ];
        let length = self.below(12);
        (0..length)
            .map(|_| match self.byte() {
                plain @ 0x20..=0xef => char::from(plain),
                awkward => AWKWARD[usize::from(awkward) % AWKWARD.len()],
            })
            .collect()
    }
}

/// The protobuf bytes of a valid message, in the form in which prost writes them.
pub fn arbitrary(table: &'static MessageTable, entropy: &mut Entropy<'_>) -> Vec<u8> {
    let mut wire = Writer::default();
    fill(table, entropy, 20, &mut wire);
    wire.0
}

fn fill(table: &'static MessageTable, entropy: &mut Entropy<'_>, depth: usize, wire: &mut Writer) {
    let mut oneofs = Vec::new();
    for field in table.fields {
        let count = match field.label {
            Label::Required => 1,
            _ if depth == 0 => 0,
            Label::Repeated => entropy.below(4),
            Label::Optional => entropy.below(2),
        };
        if let Some(oneof) = field.oneof {
            if count == 0 || oneofs.contains(&oneof) {
                continue;
            }
            oneofs.push(oneof);
        }
        if let Kind::Map(entry) = field.kind {
            fill_map(field, entry, entropy, depth.saturating_sub(1), count, wire);
        } else {
            (0..count).for_each(|_| fill_value(field, entropy, depth.saturating_sub(1), wire));
        }
    }
}

fn fill_value(field: &'static Field, entropy: &mut Entropy<'_>, depth: usize, wire: &mut Writer) {
    let number = field.number;
    match field.kind {
        Kind::Bool => wire.varint_field(number, entropy.below(2) as u64),
        Kind::Int32 => wire.varint_field(number, entropy.number() as i32 as u64),
        Kind::Uint32 => wire.varint_field(number, (entropy.number() as u32).into()),
        Kind::Int64 | Kind::Uint64 => wire.varint_field(number, entropy.number()),
        Kind::Double => wire.double_field(number, entropy.double()),
        Kind::String => wire.bytes_field(number, entropy.text().as_bytes()),
        Kind::Bytes => {
            let length = entropy.below(20);
            wire.bytes_field(number, &(0..length).map(|_| entropy.byte()).collect::<Vec<_>>());
        }
        Kind::Enum(values) => {
            let (_, value) = values.values[entropy.below(values.values.len())];
            wire.varint_field(number, value as u64);
        }
        Kind::Message(table) => {
            let mut inner = Writer::default();
            fill(table, entropy, depth, &mut inner);
            wire.bytes_field(number, &inner.0);
        }
        Kind::Map(_) => unreachable!("a map is not one value"),
    }
}

fn fill_map(
    field: &'static Field,
    entry: &'static MessageTable,
    entropy: &mut Entropy<'_>,
    depth: usize,
    count: usize,
    wire: &mut Writer,
) {
    let (_, value) = entry.by_number(2).expect("an entry has a value");
    let zero = {
        let mut zero = Writer::default();
        fill_value(value, &mut Entropy(&[]), 0, &mut zero);
        zero.0
    };
    let entries: std::collections::BTreeMap<String, Vec<u8>> = (0..count)
        .map(|_| {
            let mut written = Writer::default();
            fill_value(value, entropy, depth, &mut written);
            (entropy.text(), written.0)
        })
        .collect();
    for (key, value) in entries {
        let mut inner = Writer::default();
        // What is zero is left out.
        if !key.is_empty() {
            inner.bytes_field(1, key.as_bytes());
        }
        if value != zero {
            inner.0.extend_from_slice(&value);
        }
        wire.bytes_field(field.number, &inner.0);
    }
}
