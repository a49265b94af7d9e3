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
