//! The protobuf wire format, as far as the tables need it: reading tags and values, and checking a whole message.

use std::fmt;

use super::table::{Field, Kind, Label, MessageTable};

/// How deep messages may nest; Mesos's own parser draws the same line.
pub const MAX_DEPTH: usize = 100;

/// How many embedded messages one message may hold. Two bytes on the wire can become hundreds in memory.
pub const MAX_MESSAGES: usize = 4 << 20;

/// A value as it is on the wire.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'w> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'w [u8]),
    Fixed32(u32),
}

/// Why bytes are not a protobuf message, or not the one they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("the message ends too early")]
    Truncated,
    #[error("a number has more than 64 bits")]
    Overlong,
    #[error("wire type {0} is not in use")]
    WireType(u8),
    #[error("field number {0} is not possible")]
    FieldNumber(u64),
    #[error("expected {expected}, but the wire type does not fit")]
    Mismatch { expected: &'static str },
    #[error("the text is not UTF-8")]
    NotUtf8,
    #[error("missing required {}", Names(.0))]
    Missing(Vec<&'static str>),
    #[error("nested more than {MAX_DEPTH} deep")]
    TooDeep,
    #[error("more than {MAX_MESSAGES} messages inside one")]
    TooMany,
}

/// `a, b, c`, in backquotes, after the right noun.
struct Names<'n>(&'n [&'static str]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.len() == 1 { "field " } else { "fields " })?;
        for (place, name) in self.0.iter().enumerate() {
            write!(f, "{}`{name}`", if place == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// Takes the fields of one message from the front of its bytes.
#[derive(Debug, Clone)]
pub struct Reader<'w>(pub &'w [u8]);

impl<'w> Reader<'w> {
    /// The next field's number and value; `None` at the end.
    pub fn field(&mut self) -> Result<Option<(u32, Value<'w>)>, Fault> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = match u32::try_from(tag >> 3) {
            Ok(number @ 1..=0x1fff_ffff) => number,
            _ => return Err(Fault::FieldNumber(tag >> 3)),
        };
        let value = match (tag & 7) as u8 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(usize::try_from(length).map_err(|_| Fault::Truncated)?)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.array()?)),
            // 3 and 4 are groups, which no message here has ever had.
            other => return Err(Fault::WireType(other)),
        };
        Ok(Some((number, value)))
    }

    pub fn varint(&mut self) -> Result<u64, Fault> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(Fault::Truncated)?;
            self.0 = rest;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(Fault::Overlong);
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Fault::Overlong)
    }

    fn take(&mut self, length: usize) -> Result<&'w [u8], Fault> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Fault::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Fault::Truncated)?;
        self.0 = rest;
        Ok(*taken)
    }
}

/// Where in a message we are. Steps are left in place when something fails, so the walker need not carry them back.
#[derive(Debug, Default)]
pub struct Path(Vec<Step>);

#[derive(Debug)]
pub enum Step {
    Field(&'static str),
    Index(usize),
    Key(String),
}

/// How many bytes of a map's key an error shows.
const SHOWN_KEY: usize = 64;

impl Path {
    pub fn push(&mut self, step: Step) {
        self.0.push(step);
    }

    pub fn pop(&mut self) {
        self.0.pop();
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.0 {
            match step {
                Step::Field(name) => write!(f, ".{name}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) => {
                    let shown: String = key.chars().take(SHOWN_KEY).collect();
                    write!(f, "[{shown:?}{}]", if shown.len() < key.len() { "…" } else { "" })?;
                }
            }
        }
        Ok(())
    }
}

/// Checks that `bytes` are a whole message of this kind: well formed, every value of its field's type, text in UTF-8,
/// and everything `required` there, at every level. Unknown fields are passed over. On a fault `path` tells the place.
///
/// An embedded message that comes in two pieces is checked piece by piece; nobody sends that.
pub fn check(table: &'static MessageTable, bytes: &[u8], path: &mut Path) -> Result<(), Fault> {
    Checker { path, messages: 0 }.message(table, bytes, MAX_DEPTH)
}

struct Checker<'p> {
    path: &'p mut Path,
    messages: usize,
}

impl Checker<'_> {
    fn message(&mut self, table: &'static MessageTable, bytes: &[u8], depth: usize) -> Result<(), Fault> {
        if depth == 0 {
            return Err(Fault::TooDeep);
        }
        self.messages += 1;
        if self.messages > MAX_MESSAGES {
            return Err(Fault::TooMany);
        }
        let mut reader = Reader(bytes);
        let mut seen = 0u128;
        // Repeated fields come in one run, so counting anew at each change of number gives the index.
        let (mut run, mut index) = (0, 0);
        while let Some((number, value)) = reader.field()? {
            let Some((place, field)) = table.by_number(number) else {
                continue;
            };
            index = if run == number { index + 1 } else { 0 };
            run = number;
            self.path.push(Step::Field(field.name));
            if field.label == Label::Repeated && !matches!(field.kind, Kind::Map(_)) {
                self.path.push(Step::Index(index));
            }
            if self.value(field, value, depth)? {
                seen |= 1 << place;
            } else if field.label != Label::Repeated {
                // Of several values the last one counts, also if nobody knows it.
                seen &= !(1 << place);
            }
            if field.label == Label::Repeated && !matches!(field.kind, Kind::Map(_)) {
                self.path.pop();
            }
            self.path.pop();
        }
        match table.missing(seen) {
            missing if missing.is_empty() => Ok(()),
            missing => Err(Fault::Missing(missing)),
        }
    }

    /// Whether the value counts as present: an enum's number that nobody knows does not.
    fn value(&mut self, field: &'static Field, value: Value<'_>, depth: usize) -> Result<bool, Fault> {
        match (field.kind, value) {
            (Kind::Enum(values), Value::Varint(number)) => {
                return Ok(values.name_of(number as i32).is_some());
            }
            (Kind::Bool | Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64, Value::Varint(_)) => {}
            (Kind::Double, Value::Fixed64(_)) | (Kind::Bytes, Value::Bytes(_)) => {}
            (Kind::String, Value::Bytes(text)) => {
                std::str::from_utf8(text).map_err(|_| Fault::NotUtf8)?;
            }
            (Kind::Message(table) | Kind::Map(table), Value::Bytes(bytes)) => {
                self.message(table, bytes, depth - 1)?;
            }
            // Several values packed into one field: the other legal form of repeated numbers.
            (Kind::Double, Value::Bytes(packed)) if field.label == Label::Repeated => {
                if packed.len() % 8 != 0 {
                    return Err(Fault::Truncated);
                }
            }
            (kind, Value::Bytes(packed)) if field.label == Label::Repeated && kind.is_varint() => {
                let mut reader = Reader(packed);
                while !reader.0.is_empty() {
                    reader.varint()?;
                }
            }
            (kind, _) => {
                return Err(Fault::Mismatch {
                    expected: kind.noun(),
                });
            }
        }
        Ok(true)
    }
}

impl Kind {
    fn is_varint(self) -> bool {
        !matches!(
            self,
            Kind::Double | Kind::String | Kind::Bytes | Kind::Message(_) | Kind::Map(_)
        )
    }

    /// What a value of this kind is called in a sentence.
    pub fn noun(self) -> &'static str {
        match self {
            Kind::Bool => "true or false",
            Kind::Int32 => "a whole number of 32 bits",
            Kind::Int64 => "a whole number of 64 bits",
            Kind::Uint32 => "a whole number of 32 bits, not negative",
            Kind::Uint64 => "a whole number of 64 bits, not negative",
            Kind::Double => "a number",
            Kind::String => "a string",
            Kind::Bytes => "bytes",
            Kind::Enum(_) => "the name of an enum's value",
            Kind::Message(_) | Kind::Map(_) => "an object",
        }
    }
}

/// Appends to a message.
#[derive(Debug, Default)]
pub struct Writer(pub Vec<u8>);

/// How many bytes are kept for a length that is not known yet.
const LENGTH_ROOM: usize = 5;

impl Writer {
    pub fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    pub fn varint_field(&mut self, number: u32, value: u64) {
        self.tag(number, 0);
        self.varint(value);
    }

    pub fn double_field(&mut self, number: u32, value: f64) {
        self.tag(number, 1);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub fn bytes_field(&mut self, number: u32, value: &[u8]) {
        self.tag(number, 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    /// Begins an embedded message of unknown length; what is returned belongs to `close`.
    pub fn open(&mut self, number: u32) -> usize {
        self.tag(number, 2);
        self.0.extend_from_slice(&[0; LENGTH_ROOM]);
        self.0.len()
    }

    /// Ends the embedded message that began at `start`. Its length takes a fixed five bytes, which protobuf allows:
    /// moving the body up to save some would cost a copy for each level of nesting.
    pub fn close(&mut self, start: usize) {
        let length = self.0.len().saturating_sub(start);
        if let Some(room) = start
            .checked_sub(LENGTH_ROOM)
            .and_then(|room| self.0.get_mut(room..start))
        {
            for (place, byte) in room.iter_mut().enumerate() {
                let more = if place + 1 < LENGTH_ROOM { 0x80 } else { 0 };
                *byte = (length >> (7 * place)) as u8 & 0x7f | more;
            }
        }
    }

    fn tag(&mut self, number: u32, wire_type: u8) {
        self.varint(u64::from(number) << 3 | u64::from(wire_type));
    }
}
