//! Pod definitions in files: JSON or YAML, one or several, read the same way by every command.

use std::{fs, io::Read as _, path::Path};

use serde_json::Value;

use super::{Failure, failure};
use crate::pod::{self, Place, Pod, Profile};

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
pub(super) fn value(path: &Path) -> Result<Value, Failure> {
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

/// Definitions that may be run. Points at fields that have no effect.
pub(super) fn pods_with_warnings(path: &Path, profile: &Profile) -> Result<Vec<Pod>, Failure> {
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
        for place in definition.ignored.iter().filter(|place| !is_harmless(place)) {
            failure::complain(format_args!(
                "{name}: {place} is not a field of a pod and has no effect"
            ));
        }
        pods.push(definition.pod);
    }
    Ok(pods)
}

/// An echo of what the server sends, and of the seeds; nobody means anything by it.
fn is_harmless(place: &Place) -> bool {
    matches!(place.to_string().as_str(), "version" | "scaling.maxInstances")
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
