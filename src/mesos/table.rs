//! What every message consists of, as static tables that `build.rs` writes from `proto/`.
//!
//! One walk over these tables replaces generated JSON code for each of the 250 message types, and is the one
//! place that knows which fields a peer must send (prost fills what is missing with zero and says nothing).

use std::fmt;

use super::{codec::Message, v1};

include!(concat!(env!("OUT_DIR"), "/mesos.tables.rs"));

#[derive(Clone, Copy)]
pub struct MessageTable {
    /// The full protobuf name, such as `mesos.v1.executor.Call`.
    pub name: &'static str,
    /// By ascending number.
    pub fields: &'static [Field],
    /// Places in `fields`, ordered by name.
    by_name: &'static [u8],
    /// Bit `i` is set where `fields[i]` must be present. No message has more than 128 fields.
    pub required: u128,
}

#[derive(Debug, Clone, Copy)]
pub struct Field {
    pub name: &'static str,
    pub number: u32,
    pub label: Label,
    pub kind: Kind,
    /// The declared default, as JSON text.
    pub default: Option<&'static str>,
    pub deprecated: bool,
    /// The group of fields of which at most one is set. JSON knows nothing of it.
    pub oneof: Option<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Label {
    Required,
    Optional,
    Repeated,
}

#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Bool,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Double,
    String,
    Bytes,
    Enum(&'static EnumTable),
    Message(&'static MessageTable),
    /// A map from text; the table is that of its entries: `key` = 1, `value` = 2.
    Map(&'static MessageTable),
}

#[derive(Clone, Copy)]
pub struct EnumTable {
    pub name: &'static str,
    /// In the order of declaration.
    pub values: &'static [(&'static str, i32)],
}

impl MessageTable {
    /// The field with this number, and its place.
    pub fn by_number(&self, number: u32) -> Option<(usize, &'static Field)> {
        // Most messages number their fields 1, 2, 3 …, so the place is known before the search.
        let guess = (number as usize).wrapping_sub(1);
        if let Some(field) = self.fields.get(guess).filter(|field| field.number == number) {
            return Some((guess, field));
        }
        let place = self
            .fields
            .binary_search_by_key(&number, |field| field.number)
            .ok()?;
        Some((place, self.fields.get(place)?))
    }

    /// The field with this name, and its place.
    pub fn by_name(&self, name: &str) -> Option<(usize, &'static Field)> {
        let named = |&place: &u8| self.fields.get(usize::from(place)).map_or("", |field| field.name);
        let found = self
            .by_name
            .binary_search_by(|place| named(place).cmp(name))
            .ok()?;
        let place = usize::from(*self.by_name.get(found)?);
        Some((place, self.fields.get(place)?))
    }

    /// The names of the required fields that are not among the `seen` places.
    pub fn missing(&self, seen: u128) -> Vec<&'static str> {
        let lacking = self.required & !seen;
        let lacks = |(place, field): (usize, &Field)| (lacking >> place & 1 == 1).then_some(field.name);
        if lacking == 0 {
            Vec::new()
        } else {
            self.fields.iter().enumerate().filter_map(lacks).collect()
        }
    }
}

impl EnumTable {
    pub fn number(&self, name: &str) -> Option<i32> {
        self.values
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, number)| *number)
    }

    pub fn name_of(&self, number: i32) -> Option<&'static str> {
        self.values
            .iter()
            .find(|(_, known)| *known == number)
            .map(|(name, _)| *name)
    }
}

// Tables refer to one another in circles, so only the name is shown.
impl fmt::Debug for MessageTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageTable({})", self.name)
    }
}

impl fmt::Debug for EnumTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EnumTable({})", self.name)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// One row of the list of all Mesos v1 fields: package, message, field, number, label, type, default, flags.
    const FIELDS: &str = include_str!("../../tests/fixtures/wire/fields.tsv");

    #[test]
    fn the_tables_are_exactly_the_fields_of_mesos() {
        // Whether a value of an enum is deprecated changes nothing on the wire, so the tables do not say it.
        let unflagged = |row: &str| match row.strip_suffix("deprecated") {
            Some(rest) if row.contains("\tenum_value\t") => rest.into(),
            _ => String::from(row),
        };
        let wanted: BTreeSet<String> = FIELDS.lines().skip(1).map(unflagged).collect();
        let ours: BTreeSet<String> = rows().into_iter().collect();
        let missing: Vec<_> = wanted.difference(&ours).collect();
        let extra: Vec<_> = ours.difference(&wanted).collect();
        assert!(
            missing.is_empty() && extra.is_empty(),
            "missing: {missing:#?}\nextra: {extra:#?}"
        );

        let labelled = |label: &str| {
            ours.iter()
                .filter(|row| row.split('\t').nth(4) == Some(label))
                .count()
        };
        let counts = ["optional", "repeated", "required", "enum_value", "message"].map(labelled);
        assert_eq!(counts, [662, 122, 206, 354, 8]);
    }

    fn rows() -> Vec<String> {
        let entries: BTreeSet<&str> = MESSAGES
            .iter()
            .flat_map(|message| message.fields)
            .filter_map(|field| {
                if let Kind::Map(entry) = field.kind {
                    Some(entry.name)
                } else {
                    None
                }
            })
            .collect();
        let messages = MESSAGES.iter().filter(|message| !entries.contains(message.name));
        let mut rows: Vec<String> = messages.flat_map(|message| message_rows(message)).collect();
        for values in ENUMS {
            let (package, name) = split(values.name);
            rows.extend(values.values.iter().map(|(value, number)| {
                format!("{package}\t{name}\t{value}\t{number}\tenum_value\tenum\t\t")
            }));
        }
        rows
    }

    fn message_rows(message: &MessageTable) -> Vec<String> {
        let (package, name) = split(message.name);
        if message.fields.is_empty() {
            return vec![format!("{package}\t{name}\t-\t-\tmessage\tempty\t\t")];
        }
        let row = |field: &Field| {
            let label = match field.label {
                _ if matches!(field.kind, Kind::Map(_)) => "repeated",
                Label::Required => "required",
                Label::Optional => "optional",
                Label::Repeated => "repeated",
            };
            let flags = match field.oneof {
                Some(oneof) => format!("oneof={oneof}"),
                None if field.deprecated => "deprecated".into(),
                None => String::new(),
            };
            let default = field
                .default
                .unwrap_or_default()
                .trim_matches('"')
                .trim_end_matches(".0");
            let (field, number, kind) = (field.name, field.number, kind(field.kind));
            format!("{package}\t{name}\t{field}\t{number}\t{label}\t{kind}\t{default}\t{flags}")
        };
        message.fields.iter().map(row).collect()
    }

    fn kind(kind: Kind) -> String {
        match kind {
            Kind::Bool => "bool".into(),
            Kind::Int32 => "int32".into(),
            Kind::Int64 => "int64".into(),
            Kind::Uint32 => "uint32".into(),
            Kind::Uint64 => "uint64".into(),
            Kind::Double => "double".into(),
            Kind::String => "string".into(),
            Kind::Bytes => "bytes".into(),
            Kind::Enum(values) => format!("enum:{}", values.name),
            Kind::Message(message) => format!("message:{}", message.name),
            Kind::Map(entry) => {
                let types: Vec<String> = entry
                    .fields
                    .iter()
                    .map(|field| match field.kind {
                        Kind::Message(message) => message.name.into(),
                        other => self::kind(other),
                    })
                    .collect();
                format!("map<{}>", types.join(","))
            }
        }
    }

    /// `mesos.v1.executor.Call.Type` is `Call.Type` in `mesos.v1.executor`.
    fn split(name: &str) -> (&str, &str) {
        let package_end = name.rmatch_indices('.').map(|(at, _)| at).filter(|at| {
            name[..*at]
                .chars()
                .all(|c| c == '.' || c.is_ascii_lowercase() || c.is_ascii_digit())
        });
        let at = package_end.max().unwrap();
        (&name[..at], &name[at + 1..])
    }

    #[test]
    fn every_field_is_found_by_its_number_and_by_its_name() {
        for message in MESSAGES {
            for (place, field) in message.fields.iter().enumerate() {
                assert_eq!(
                    message.by_number(field.number).map(|found| found.0),
                    Some(place),
                    "{field:?}"
                );
                assert_eq!(
                    message.by_name(field.name).map(|found| found.0),
                    Some(place),
                    "{field:?}"
                );
            }
            let last = message.fields.last().map_or(0, |field| field.number);
            for unknown in [0, last + 1, u32::MAX] {
                assert!(message.by_number(unknown).is_none(), "{message:?}");
            }
            for unknown in ["", "zzz", "taskId"] {
                assert!(message.by_name(unknown).is_none(), "{message:?}");
            }
        }
    }
}
