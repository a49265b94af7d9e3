//! Protobuf bytes to JSON text.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::mesos::{
    table::{Field, Kind, Label, MessageTable},
    wire::{Reader, Value, Writer},
};

/// What is printed for an optional field that is unset but has a declared default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defaults {
    /// The default, unless the field is deprecated: what agents and masters do.
    Printed,
    Omitted,
}

/// Appends the JSON of a message.
///
/// `wire` is what prost wrote, and the walk relies on that: it is well formed, and a field's values stand together.
pub fn print(table: &'static MessageTable, wire: &[u8], defaults: Defaults, out: &mut Vec<u8>) {
    out.push(b'{');
    let mut members = Members { out, first: true };
    let mut seen = 0u128;
    let mut open: Option<&'static Field> = None;
    let mut reader = Reader(wire);
    while let Ok(Some((number, value))) = reader.field() {
        let Some((place, field)) = table.by_number(number) else {
            continue;
        };
        let first = seen >> place & 1 == 0;
        if let Some(enclosing) = open.filter(|_| first) {
            members.out.push(closing(enclosing));
            open = None;
        }
        match (field.label, field.kind) {
            (Label::Repeated, kind) => {
                if first {
                    members.name(field.name);
                    members
                        .out
                        .push(if matches!(kind, Kind::Map(_)) { b'{' } else { b'[' });
                    open = Some(field);
                }
                let before = members.out.len();
                if !first && !matches!(members.out.last(), Some(b'[' | b'{')) {
                    members.out.push(b',');
                }
                let start = members.out.len();
                one(field, value, defaults, members.out);
                if members.out.len() == start {
                    members.out.truncate(before);
                }
            }
            (_, Kind::Enum(values)) => match value {
                // A number without a name counts as unset.
                Value::Varint(number) if values.name_of(number as i32).is_none() => continue,
                _ => {
                    members.name(field.name);
                    one(field, value, defaults, members.out);
                }
            },
            _ => {
                members.name(field.name);
                one(field, value, defaults, members.out);
            }
        }
        seen |= 1 << place;
    }
    if let Some(enclosing) = open {
        members.out.push(closing(enclosing));
    }
    if defaults == Defaults::Printed {
        for (place, field) in table.fields.iter().enumerate() {
            if let Some(default) = field
                .default
                .filter(|_| !field.deprecated && seen >> place & 1 == 0)
            {
                members.name(field.name);
                members.out.extend_from_slice(default.as_bytes());
            }
        }
    }
    out.push(b'}');
}

fn closing(field: &Field) -> u8 {
    if matches!(field.kind, Kind::Map(_)) {
        b'}'
    } else {
        b']'
    }
}

struct Members<'o> {
    out: &'o mut Vec<u8>,
    first: bool,
}

impl Members<'_> {
    fn name(&mut self, name: &str) {
        self.out
            .extend_from_slice(if self.first { b"\"" } else { b",\"" });
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.first = false;
    }
}

/// One value; nothing at all for an enum's number without a name.
fn one(field: &'static Field, value: Value<'_>, defaults: Defaults, out: &mut Vec<u8>) {
    match (field.kind, value) {
        (Kind::Bool, Value::Varint(value)) => {
            out.extend_from_slice(if value == 0 { b"false" } else { b"true" })
        }
        (Kind::Int32, Value::Varint(value)) => scalar(out, &(value as i32)),
        (Kind::Int64, Value::Varint(value)) => scalar(out, &(value as i64)),
        (Kind::Uint32, Value::Varint(value)) => scalar(out, &(value as u32)),
        (Kind::Uint64, Value::Varint(value)) => scalar(out, &value),
        (Kind::Double, Value::Fixed64(bits)) => double(out, f64::from_bits(bits)),
        (Kind::String, Value::Bytes(text)) => scalar(out, &String::from_utf8_lossy(text)),
        (Kind::Bytes, Value::Bytes(bytes)) => {
            out.push(b'"');
            out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
            out.push(b'"');
        }
        (Kind::Enum(values), Value::Varint(number)) => {
            if let Some(name) = values.name_of(number as i32) {
                scalar(out, name);
            }
        }
        (Kind::Message(table), Value::Bytes(wire)) => print(table, wire, defaults, out),
        (Kind::Map(entry), Value::Bytes(wire)) => map_entry(entry, wire, defaults, out),
        // Not what prost writes for this kind.
        _ => {}
    }
}

/// `"key":value`. Prost leaves out a key or a value that is its type's zero.
fn map_entry(table: &'static MessageTable, wire: &[u8], defaults: Defaults, out: &mut Vec<u8>) {
    let (Some((_, key)), Some((_, value))) = (table.by_number(1), table.by_number(2)) else {
        return;
    };
    let zero = zero(value.kind);
    let (mut key_found, mut value_found) = (Value::Bytes(b""), zero.as_value());
    let mut reader = Reader(wire);
    while let Ok(Some((number, found))) = reader.field() {
        match number {
            1 => key_found = found,
            2 => value_found = found,
            _ => {}
        }
    }
    one(key, key_found, defaults, out);
    out.push(b':');
    one(value, value_found, defaults, out);
}

/// What prost means by leaving a value of this kind out of a map.
enum Zero {
    Varint,
    Double,
    Bytes(Vec<u8>),
}

impl Zero {
    fn as_value(&self) -> Value<'_> {
        match self {
            Zero::Varint => Value::Varint(0),
            Zero::Double => Value::Fixed64(0),
            Zero::Bytes(bytes) => Value::Bytes(bytes),
        }
    }
}

fn zero(kind: Kind) -> Zero {
    match kind {
        Kind::Double => Zero::Double,
        Kind::Message(table) => {
            let mut wire = Writer::default();
            for field in table.fields.iter().filter(|field| field.label == Label::Required) {
                match zero(field.kind) {
                    Zero::Varint => wire.varint_field(field.number, 0),
                    Zero::Double => wire.double_field(field.number, 0.0),
                    Zero::Bytes(bytes) => wire.bytes_field(field.number, &bytes),
                }
            }
            Zero::Bytes(wire.0)
        }
        Kind::String | Kind::Bytes | Kind::Map(_) => Zero::Bytes(Vec::new()),
        Kind::Bool | Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64 | Kind::Enum(_) => Zero::Varint,
    }
}

fn double(out: &mut Vec<u8>, value: f64) {
    match value {
        f64::INFINITY => out.extend_from_slice(b"\"Infinity\""),
        f64::NEG_INFINITY => out.extend_from_slice(b"\"-Infinity\""),
        value if value.is_nan() => out.extend_from_slice(b"\"NaN\""),
        value => scalar(out, &value),
    }
}

fn scalar<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    // Text and numbers have no way to fail when they are written to memory.
    let _ = serde_json::to_writer(out, value);
}
