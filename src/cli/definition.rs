//! Pod definitions in files: JSON or YAML, one or several, read the same way by every command.

use std::{fs, io::Read as _, path::Path};

use serde_json::Value;

use super::Failure;
use crate::pod::{self, Place, Pod, Profile};

/// A larger file is no pod definition.
const LARGEST_FILE: u64 = 4 << 20;

/// Reads a file as JSON or, by its ending, YAML. `-` is standard input.
pub(super) fn value(path: &Path) -> Result<Value, Failure> {
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
    let yaml = path
        .extension()
        .is_some_and(|ending| ending == "yaml" || ending == "yml");
    if yaml {
        serde_saphyr::from_str(&text).map_err(|error| wrong(&error))
    } else {
        serde_json::from_str(&text).map_err(|error| wrong(&error))
    }
}

/// A definition that may be run, and a warning for each field nobody looks at.
pub(super) fn pod(path: &Path, profile: &Profile) -> Result<(Pod, Vec<Place>), Failure> {
    let value = value(path)?;
    let definition = pod::read(&value, profile).map_err(|violations| {
        let lines: Vec<String> = violations
            .0
            .iter()
            .map(|violation| format!("{}: {violation}", path.display()))
            .collect();
        Failure::usage(lines.join("\n"))
    })?;
    Ok((definition.pod, definition.ignored))
}

/// Reads a file for a command that runs it, and points at fields that have no effect.
pub(super) fn pod_with_warnings(path: &Path, profile: &Profile) -> Result<Pod, Failure> {
    let (pod, ignored) = pod(path, profile)?;
    // An echo of what the server sends, and of the seeds; nobody means anything by it.
    let harmless = |place: &Place| matches!(place.to_string().as_str(), "version" | "scaling.maxInstances");
    for place in ignored.iter().filter(|place| !harmless(place)) {
        eprintln!(
            "podling: {}: {place} is not a field of a pod and has no effect",
            path.display()
        );
    }
    Ok(pod)
}
