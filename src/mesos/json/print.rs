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
    let mut members = Members {
        out,
        empty: true,
        list: None,
    };
    let mut seen = 0u128;
    let mut reader = Reader(wire);
    while let Ok(Some((number, value))) = reader.field() {
        let Some((place, field)) = table.by_number(number) else {
            continue;
        };
        if is_nameless(field, value) {
            continue;
        }
        seen |= 1 << place;
        members.begin_value(field);
        one(field, value, defaults, members.out);
    }
    members.end_list();
    if defaults == Defaults::Printed {
        for (place, field) in table.fields.iter().enumerate() {
            if let Some(default) = field
                .default
                .filter(|_| !field.deprecated && seen >> place & 1 == 0)
            {
                members.name(field);
                members.out.extend_from_slice(default.as_bytes());
            }
        }
    }
    out.push(b'}');
}

/// An enum's number that the table does not have counts as unset.
fn is_nameless(field: &Field, value: Value<'_>) -> bool {
    matches!((field.kind, value), (Kind::Enum(values), Value::Varint(number)) if values.name_of(number as i32).is_none())
}

/// What stands between the braces of an object, and between its values.
struct Members<'o> {
    out: &'o mut Vec<u8>,
    empty: bool,
    /// The repeated field whose values are being printed, and its closing bracket.
    list: Option<(u32, u8)>,
}

impl Members<'_> {
    /// Everything up to the value itself.
    fn begin_value(&mut self, field: &Field) {
        if self.list.is_some_and(|(number, _)| number == field.number) {
            self.out.push(b',');
            return;
        }
        self.end_list();
        self.name(field);
        match (field.label, field.kind) {
            (Label::Repeated, Kind::Map(_)) => self.begin_list(field, b'{', b'}'),
            (Label::Repeated, _) => self.begin_list(field, b'[', b']'),
            _ => {}
        }
    }

    fn name(&mut self, field: &Field) {
        self.out
            .extend_from_slice(if self.empty { b"\"" } else { b",\"" });
        self.out.extend_from_slice(field.name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.empty = false;
    }

    fn begin_list(&mut self, field: &Field, open: u8, close: u8) {
        self.out.push(open);
        self.list = Some((field.number, close));
    }

    fn end_list(&mut self) {
        self.out.extend(self.list.take().map(|(_, close)| close));
    }
}

/// One value.
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
