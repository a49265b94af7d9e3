//! JSON text to protobuf bytes.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::de::{
    DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor,
};

use crate::mesos::{
    table::{EnumTable, Field, Kind, Label, MessageTable},
    wire::{Fault, MAX_DEPTH, MAX_MESSAGES, Path, Step, Writer},
};

/// Reads a message and writes its protobuf bytes; on an error `path` tells the place.
///
/// Tolerant as Mesos is: unknown fields and null count as absent, an unknown name in an optional enum as unset; whole
/// numbers may come as text or as `5.0`. A known field that is given twice is an error: readers disagree on which
/// one counts, and that is how one message comes to mean two things.
pub fn read(
    table: &'static MessageTable,
    text: &[u8],
    path: &mut Path,
) -> Result<Vec<u8>, serde_json::Error> {
    let writer = Writer(Vec::with_capacity(text.len()));
    let mut context = Context {
        writer,
        path,
        messages: 0,
    };
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    Body {
        table,
        context: &mut context,
        depth: MAX_DEPTH,
    }
    .deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(context.writer.0)
}

struct Context<'p> {
    writer: Writer,
    path: &'p mut Path,
    messages: usize,
}

/// The fields of one message, between its braces.
struct Body<'c, 'p> {
    table: &'static MessageTable,
    context: &'c mut Context<'p>,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Body<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Body<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        if self.depth == 0 {
            return Err(A::Error::custom(Fault::TooDeep));
        }
        self.context.messages += 1;
        if self.context.messages > MAX_MESSAGES {
            return Err(A::Error::custom(Fault::TooMany));
        }
        let (mut named, mut present) = (0u128, 0u128);
        while let Some(known) = members.next_key_seed(Name(self.table))? {
            let Some((place, field)) = known else {
                members.next_value::<IgnoredAny>()?;
                continue;
            };
            self.context.path.push(Step::Field(field.name));
            if named >> place & 1 == 1 {
                return Err(A::Error::custom("given twice"));
            }
            named |= 1 << place;
            let value = Slot {
                field,
                context: self.context,
                depth: self.depth,
                in_list: false,
            };
            if members.next_value_seed(value)? {
                present |= 1 << place;
            }
            self.context.path.pop();
        }
        match self.table.missing(present) {
            missing if missing.is_empty() => Ok(()),
            missing => Err(A::Error::custom(Fault::Missing(missing))),
        }
    }
}

/// The name of a field: its place in the table, if the table has it.
struct Name(&'static MessageTable);

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Option<(usize, &'static Field)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Option<(usize, &'static Field)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.by_name(name))
    }
}

/// Where the value of a field goes; says whether there was one.
struct Slot<'c, 'p> {
    field: &'static Field,
    context: &'c mut Context<'p>,
    depth: usize,
    /// One value of a repeated field, already inside the brackets.
    in_list: bool,
}

impl Slot<'_, '_> {
    fn wants_list(&self) -> bool {
        self.field.label == Label::Repeated && !self.in_list && !matches!(self.field.kind, Kind::Map(_))
    }

    /// The kind a single value must have here; none where only an array will do.
    fn kind(&self) -> Option<Kind> {
        (!self.wants_list()).then_some(self.field.kind)
    }

    fn integer<E: Error>(self, value: i128, found: Unexpected<'_>) -> Result<bool, E> {
        let fits = match self.kind() {
            Some(Kind::Int32) => i32::try_from(value).is_ok(),
            Some(Kind::Int64) => i64::try_from(value).is_ok(),
            Some(Kind::Uint32) => u32::try_from(value).is_ok(),
            Some(Kind::Uint64) => u64::try_from(value).is_ok(),
            Some(Kind::Double) => {
                self.context.writer.double_field(self.field.number, value as f64);
                return Ok(true);
            }
            _ => return Err(E::invalid_type(found, &self)),
        };
        if !fits {
            return Err(E::invalid_value(found, &self));
        }
        // Negative numbers of either width go out as 64 bits.
        self.context.writer.varint_field(self.field.number, value as u64);
        Ok(true)
    }

    fn enum_name<E: Error>(self, values: &'static EnumTable, name: &str) -> Result<bool, E> {
        match values.number(name) {
            Some(number) => {
                self.context
                    .writer
                    .varint_field(self.field.number, i64::from(number) as u64);
                Ok(true)
            }
            None if self.field.label == Label::Required => Err(E::custom(format_args!(
                "`{name}` is not a value of {}",
                values.name
            ))),
            None => Ok(false),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Slot<'_, '_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Slot<'_, '_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.wants_list() {
            f.write_str("an array")
        } else {
            f.write_str(self.field.kind.noun())
        }
    }

    /// null.
    fn visit_unit<E: Error>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<bool, E> {
        match self.kind() {
            Some(Kind::Bool) => {
                self.context.writer.varint_field(self.field.number, value.into());
                Ok(true)
            }
            _ => Err(E::invalid_type(Unexpected::Bool(value), &self)),
        }
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<bool, E> {
        self.integer(value.into(), Unexpected::Unsigned(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<bool, E> {
        self.integer(value.into(), Unexpected::Signed(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<bool, E> {
        match self.kind() {
            Some(Kind::Double) => {
                self.context.writer.double_field(self.field.number, value);
                Ok(true)
            }
            // The conversion saturates far beyond what any field holds.
            Some(_) if value.fract() == 0.0 => self.integer(value as i128, Unexpected::Float(value)),
            _ => Err(E::invalid_type(Unexpected::Float(value), &self)),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<bool, E> {
        let number = self.field.number;
        match self.kind() {
            Some(Kind::String) => self.context.writer.bytes_field(number, text.as_bytes()),
            Some(Kind::Bytes) => match STANDARD.decode(text) {
                Ok(bytes) => self.context.writer.bytes_field(number, &bytes),
                Err(error) => return Err(E::custom(format_args!("not base64 with padding: {error}"))),
            },
            Some(Kind::Enum(values)) => return self.enum_name(values, text),
            Some(Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64) => {
                return match text.parse() {
                    Ok(value) => self.integer(value, Unexpected::Str(text)),
                    Err(_) => Err(E::invalid_value(Unexpected::Str(text), &self)),
                };
            }
            Some(Kind::Double) => {
                let value = match text {
                    "Infinity" => f64::INFINITY,
                    "-Infinity" => f64::NEG_INFINITY,
                    "NaN" => f64::NAN,
                    _ => return Err(E::invalid_type(Unexpected::Str(text), &self)),
                };
                self.context.writer.double_field(number, value);
            }
            _ => return Err(E::invalid_type(Unexpected::Str(text), &self)),
        }
        Ok(true)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<bool, A::Error> {
        if !self.wants_list() {
            return Err(A::Error::invalid_type(Unexpected::Seq, &self));
        }
        for index in 0.. {
            self.context.path.push(Step::Index(index));
            let item = Slot {
                field: self.field,
                context: self.context,
                depth: self.depth,
                in_list: true,
            };
            if items.next_element_seed(item)?.is_none() {
                self.context.path.pop();
                break;
            }
            self.context.path.pop();
        }
        Ok(true)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<bool, A::Error> {
        match self.kind() {
            Some(Kind::Message(table)) => {
                let start = self.context.writer.open(self.field.number);
                Body {
                    table,
                    context: self.context,
                    depth: self.depth - 1,
                }
                .visit_map(members)?;
                self.context.writer.close(start);
            }
            Some(Kind::Map(entry)) => {
                let Some((_, value)) = entry.by_number(2) else {
                    return Err(A::Error::custom("no value in the table of this map"));
                };
                while let Some(key) = members.next_key::<String>()? {
                    let before = self.context.writer.0.len();
                    let start = self.context.writer.open(self.field.number);
                    self.context.writer.bytes_field(1, key.as_bytes());
                    self.context.path.push(Step::Key(key));
                    // An entry is a message of its own on the wire, and counts as one.
                    let Some(depth) = self.depth.checked_sub(1).filter(|depth| *depth > 0) else {
                        return Err(A::Error::custom(Fault::TooDeep));
                    };
                    let slot = Slot {
                        field: value,
                        context: self.context,
                        depth,
                        in_list: false,
                    };
                    let present = members.next_value_seed(slot)?;
                    self.context.writer.close(start);
                    if !present {
                        self.context.writer.0.truncate(before);
                    }
                    self.context.path.pop();
                }
            }
            _ => return Err(A::Error::invalid_type(Unexpected::Map, &self)),
        }
        Ok(true)
    }
}
