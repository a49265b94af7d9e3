//! Pod definitions in files: JSON or YAML, one or several, read the same way by every command.

use std::{fs, io::Read as _, path::Path};

use serde_json::Value;

use super::{Failure, failure};
use crate::pod::{self, Ignored, Pod, Profile};

/// A larger file is no pod definition.
const LARGEST_FILE: u64 = 4 << 20;

/// Reads the definitions in a file: one as JSON, any number of documents as YAML. `-` is standard input.
pub(super) fn values(path: &Path) -> Result<Vec<Value>, Failure> {
    let wrong = |why: &dyn std::fmt::Display| Failure::usage(format!("{}: {why}", path.display()));
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().take(LARGEST_FILE + 1).read_to_string(&mut text)
    } else {
        fs::File::open(path).and_then(|file| file.take(LARGEST_FILE + 1).read_to_string(&mut text))
    };
    let length = read.map_err(|error| wrong(&error))?;
    if length as u64 > LARGEST_FILE {
        return Err(wrong(&"is larger than 4 MiB, which no pod definition is"));
    }
    if text.trim().is_empty() {
        return Err(wrong(&"is empty: expected a pod definition"));
    }
    let values = match is_yaml(path, &text) {
        true => serde_saphyr::from_multiple(&text).map_err(|error| wrong(&one_line(&error)))?,
        false => vec![serde_json::from_str(&text).map_err(|error| wrong(&error))?],
    };
    match values.is_empty() {
        true => Err(wrong(&"holds no document: expected a pod definition")),
        false => Ok(values),
    }
}

/// By the ending of its name; without one that says so, by its first character.
fn is_yaml(path: &Path, text: &str) -> bool {
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("yaml" | "yml") => true,
        Some("json") => false,
        _ => !text.trim_start().starts_with(['{', '[']),
    }
}

/// The sentence with its place, without the drawing of the place below it.
fn one_line(error: &serde_saphyr::Error) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}

/// The only definition in a file.
fn value(path: &Path) -> Result<Value, Failure> {
    let mut values = values(path)?;
    match (values.pop(), values.len()) {
        (Some(value), 0) => Ok(value),
        (_, more) => Err(Failure::usage(format!(
            "{}: holds {} definitions; this takes one at a time",
            path.display(),
            more + 1
        ))),
    }
}

/// What is done about fields that have no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unknown {
    /// They are pointed at.
    Warn,
    /// They are wrong use.
    Refuse,
}

/// Definitions that may be run.
pub(super) fn pods(path: &Path, profile: &Profile, unknown: Unknown) -> Result<Vec<Pod>, Failure> {
    let values = values(path)?;
    let several = values.len() > 1;
    let mut pods = Vec::new();
    for (index, value) in values.iter().enumerate() {
        let name = match several {
            true => format!("{}, document {}", path.display(), index + 1),
            false => path.display().to_string(),
        };
        let definition = pod::read(value, profile).map_err(|violations| {
            let lines = violations
                .0
                .iter()
                .map(|violation| format!("{name}: {violation}"));
            Failure::usage(lines.collect::<Vec<_>>().join("\n"))
        })?;
        point_at(&name, &definition.ignored, unknown)?;
        pods.push(definition.pod);
    }
    Ok(pods)
}

/// The only definition in a file, as it will be sent. What is wrong with it is the server's to say; it cannot tell
/// of fields that it never looks at.
pub(super) fn value_to_send(path: &Path, unknown: Unknown) -> Result<Value, Failure> {
    let value = value(path)?;
    // What this machine can run is of no matter.
    if let Ok(definition) = pod::read(&value, &Profile::anything()) {
        point_at(&path.display().to_string(), &definition.ignored, unknown)?;
    }
    Ok(value)
}

fn point_at(name: &str, ignored: &[Ignored], unknown: Unknown) -> Result<(), Failure> {
    let lines: Vec<String> = ignored
        .iter()
        .filter(|ignored| !ignored.is_harmless())
        .map(|ignored| format!("{name}: {ignored}"))
        .collect();
    match unknown {
        Unknown::Refuse if !lines.is_empty() => return Err(Failure::usage(lines.join("\n"))),
        _ => lines.iter().for_each(failure::complain),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_decides_and_else_the_first_character() {
        for (name, text, yaml) in [
            ("a.yaml", "{}", true),
            ("a.yml", "", true),
            ("a.json", "id: x", false),
            ("-", " {}", false),
            ("-", "id: x", true),
            ("/dev/fd/63", "[]", false),
        ] {
            assert_eq!(is_yaml(Path::new(name), text), yaml, "{name} {text}");
        }
    }
}
