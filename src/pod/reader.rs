//! A lenient reader of JSON values that reports everything it stumbles over, with its place.
//!
//! Marathon's rules (API reference, section 1.5): unknown fields are ignored, `null` is absence, enumerations are
//! read without regard to case, `1.0` is an integer and `1` a double. Unknown fields are remembered, so that a
//! command line can point at a misspelt one.

use std::{cell::RefCell, collections::BTreeMap};

use serde_json::{Map, Value};

use super::{
    Ignored,
    violation::{Place, Violations},
};
use crate::suggest;

/// What one reading collects.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub violations: Violations,
    pub ignored: Vec<Ignored>,
}

/// A value at its place.
#[derive(Debug, Clone)]
pub(super) struct Node<'a> {
    value: &'a Value,
    pub place: Place,
    findings: &'a RefCell<Findings>,
}

/// The fields of an object; every one asked for counts as known.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    map: &'a Map<String, Value>,
    known: Vec<&'static str>,
    pub node: Node<'a>,
}

fn shorten(text: &str) -> String {
    const SHOWN: usize = 60;
    match text.char_indices().nth(SHOWN) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

impl<'a> Node<'a> {
    pub fn root(value: &'a Value, findings: &'a RefCell<Findings>) -> Self {
        Node {
            value,
            place: Place::root(),
            findings,
        }
    }

    fn at(&self, value: &'a Value, place: Place) -> Self {
        Node {
            value,
            place,
            findings: self.findings,
        }
    }

    /// Records that the value does not have the right shape.
    pub fn wrong(&self, key: &'static str, message: impl Into<String>) {
        self.findings
            .borrow_mut()
            .violations
            .shape(&self.place, key, message);
    }

    /// Records that the value breaks a rule although its shape is right.
    pub fn rule(&self, message: impl Into<String>) {
        self.findings.borrow_mut().violations.rule(&self.place, message);
    }

    fn expected<T>(&self, key: &'static str, what: &str) -> Option<T> {
        self.wrong(key, format!("expected {what}, got {}", kind_of(self.value)));
        None
    }

    pub fn raw(&self) -> &'a Value {
        self.value
    }

    pub fn object(&self) -> Option<Fields<'a>> {
        match self.value {
            Value::Object(map) => Some(Fields {
                map,
                known: Vec::new(),
                node: self.clone(),
            }),
            _ => self.expected("error.expected.jsobject", "an object"),
        }
    }

    /// Reads each item; an item that is wrong is reported and left out.
    pub fn list<T>(&self, mut read: impl FnMut(Node<'a>) -> Option<T>) -> Option<Vec<T>> {
        match self.value {
            Value::Array(items) => {
                let item = |(index, value)| read(self.at(value, self.place.item(index)));
                Some(items.iter().enumerate().filter_map(item).collect())
            }
            _ => self.expected("error.expected.jsarray", "a list"),
        }
    }

    /// Reads each entry of an object used as a map; `null` entries are absent.
    pub fn map<T>(&self, mut read: impl FnMut(&str, Node<'a>) -> Option<T>) -> Option<BTreeMap<String, T>> {
        match self.value {
            Value::Object(map) => Some(
                map.iter()
                    .filter(|(_, value)| !value.is_null())
                    .filter_map(|(key, value)| {
                        let node = self.at(value, self.place.field(key));
                        if key.contains('\0') {
                            node.wrong("error.pattern", "a key cannot hold a NUL byte");
                            return None;
                        }
                        Some((key.clone(), read(key, node)?))
                    })
                    .collect(),
            ),
            _ => self.expected("error.expected.jsobject", "an object"),
        }
    }

    pub fn boolean(&self) -> Option<bool> {
        self.value
            .as_bool()
            .or_else(|| self.expected("error.expected.jsboolean", "true or false"))
    }

    /// Any text but one with a NUL: no argument, variable, path or label can hold it.
    pub fn string(&self) -> Option<String> {
        match self.value {
            Value::String(text) if text.contains('\0') => {
                self.wrong("error.pattern", "cannot hold a NUL byte");
                None
            }
            Value::String(text) => Some(text.clone()),
            _ => self.expected("error.expected.jsstring", "a string"),
        }
    }

    /// A string of so many characters.
    pub fn text(&self, least: usize, most: usize) -> Option<String> {
        let text = self.string()?;
        let length = text.chars().count();
        if length < least {
            self.wrong(
                "error.minLength",
                format!("must have at least {least} character(s), has {length}"),
            );
            return None;
        }
        if length > most {
            self.wrong(
                "error.maxLength",
                format!("must have at most {most} characters, has {length}"),
            );
            return None;
        }
        Some(text)
    }

    /// A string that is a name in the sense of `accepts`, which `rule` puts into words.
    pub fn name(&self, most: usize, accepts: impl Fn(&str) -> bool, rule: &str) -> Option<String> {
        let text = self.text(1, most)?;
        if !accepts(&text) {
            self.wrong("error.pattern", format!("`{}`: {rule}", shorten(&text)));
            return None;
        }
        Some(text)
    }

    pub fn integer(&self, least: i64, most: i64) -> Option<i64> {
        let Value::Number(number) = self.value else {
            return self.expected("error.expected.jsnumber", "a number");
        };
        let whole = number.as_i64().or_else(|| {
            let float = number.as_f64()?;
            // Beyond 2^53 a double no longer says which integer was meant.
            (float.fract() == 0.0 && float.abs() < 9_007_199_254_740_992.0).then_some(float as i64)
        });
        let Some(whole) = whole else {
            self.wrong(
                "error.expected.int",
                format!("expected a whole number, got {number}"),
            );
            return None;
        };
        if whole < least {
            self.wrong("error.min", format!("{whole} is below {least}"));
            return None;
        }
        if whole > most {
            self.wrong("error.max", format!("{whole} is above {most}"));
            return None;
        }
        Some(whole)
    }

    pub fn number(&self, least: f64, most: f64) -> Option<f64> {
        let Some(number) = self.value.as_f64() else {
            return self.expected("error.expected.jsnumber", "a number");
        };
        if number < least {
            self.wrong("error.min", format!("{number} is below {least}"));
            return None;
        }
        if number > most {
            self.wrong("error.max", format!("{number} is above {most}"));
            return None;
        }
        Some(number)
    }

    /// One of a list of words, read without regard to case.
    pub fn one_of<T: Copy>(&self, words: &[(&'static str, T)]) -> Option<T> {
        let text = self.string()?;
        let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(&text));
        if found.is_none() {
            let allowed: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.wrong(
                "error.unknown.enum.literal",
                format!("`{}` is not one of {}", shorten(&text), allowed.join(", ")),
            );
        }
        found.map(|(_, value)| *value)
    }
}

impl<'a> Fields<'a> {
    /// The field, if it is there and not null.
    pub fn optional(&mut self, name: &'static str) -> Option<Node<'a>> {
        self.known.push(name);
        let value = self.map.get(name).filter(|value| !value.is_null())?;
        Some(self.node.at(value, self.node.place.field(name)))
    }

    /// The field, which must be there.
    pub fn required(&mut self, name: &'static str) -> Option<Node<'a>> {
        let node = self.optional(name);
        if node.is_none() {
            let place = self.node.place.field(name);
            self.node
                .findings
                .borrow_mut()
                .violations
                .shape(&place, "error.path.missing", "is required");
        }
        node
    }

    /// Reads a field that may be absent; what is wrong is reported and counts as absent.
    pub fn read<T>(&mut self, name: &'static str, read: impl FnOnce(Node<'a>) -> Option<T>) -> Option<T> {
        self.optional(name).and_then(read)
    }

    /// A list that may be absent, which is the same as empty.
    pub fn items<T>(&mut self, name: &'static str, read: impl FnMut(Node<'a>) -> Option<T>) -> Vec<T> {
        self.read(name, |node| node.list(read)).unwrap_or_default()
    }

    /// A string map that may be absent.
    pub fn strings(&mut self, name: &'static str) -> BTreeMap<String, String> {
        self.read(name, |node| node.map(|_, value| value.string()))
            .unwrap_or_default()
    }
}

/// Fields nobody asked for are ignored, but remembered.
impl Drop for Fields<'_> {
    fn drop(&mut self) {
        let unknown = self.map.keys().filter(|key| !self.known.contains(&key.as_str()));
        // What is there as well was not meant.
        let missing = || {
            self.known
                .iter()
                .copied()
                .filter(|name| !self.map.contains_key(*name))
        };
        let ignored = unknown.map(|key| Ignored {
            place: self.node.place.field(key),
            meant: suggest::nearest(key, missing()),
        });
        self.node.findings.borrow_mut().ignored.extend(ignored);
    }
}
