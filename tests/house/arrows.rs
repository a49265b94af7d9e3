//! Dependencies point downwards only, and the rooms that decide touch nothing.

use std::collections::BTreeMap;

use super::source::Source;

/// From the ground up. A room leans on floors below its own, on nothing else; no room leans on its neighbour.
const FLOORS: [&[&str]; 6] = [
    &["sys", "base", "mesos", "suggest", "version"],
    &["group", "pod"],
    &["door", "container", "image", "network", "volume", "fetch", "logs"],
    &["settings", "check"],
    // The loopback meets executors and schedulers as processes, so that those of strangers can be tried too.
    &["executor", "loopback", "scheduler"],
    &["cli"],
];

/// Rooms that decide: what each may lean on besides itself.
const PURE: [(&str, &[&str]); 3] = [
    ("group", &["group", "mesos"]),
    ("pod", &["pod", "mesos", "suggest"]),
    ("scheduler/core", &["scheduler", "pod", "mesos"]),
];

/// What a room that decides has no use for: clocks, chance, I/O, threads.
const IMPURE: [&str; 16] = [
    "tokio",
    "hyper",
    "axum",
    "nix",
    "rustix",
    "libc",
    "rusqlite",
    "fs",
    "File",
    "process",
    "thread",
    "env",
    "Instant",
    "SystemTime",
    "TcpStream",
    "new_v4",
];

#[test]
fn no_arrow_runs_up_a_floor() {
    let floor: BTreeMap<&str, usize> = FLOORS
        .iter()
        .enumerate()
        .flat_map(|(floor, rooms)| rooms.iter().map(move |room| (*room, floor)))
        .collect();
    let mut wrong = Vec::new();
    for source in Source::all() {
        let room = source.room();
        if room == "lib" || room == "bin" {
            continue;
        }
        let Some(own) = floor.get(room.as_str()) else {
            wrong.push(format!("{}: this room has no floor yet", source.path.display()));
            continue;
        };
        for (line, other) in source.arrows() {
            let Some(below) = floor.get(other.as_str()) else {
                wrong.push(format!("{}:{line}: no such room: {other}", source.path.display()));
                continue;
            };
            if other != room && below >= own {
                wrong.push(format!(
                    "{}:{line}: {room} leans on {other}",
                    source.path.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn rooms_that_decide_touch_nothing() {
    let sources = Source::all();
    let mut wrong = Vec::new();
    for (room, allowed) in PURE {
        let mut files = 0;
        for source in sources.iter().filter(|source| source.path.starts_with(room)) {
            files += 1;
            for (line, other) in source.arrows() {
                if !allowed.contains(&other.as_str()) {
                    wrong.push(format!(
                        "{}:{line}: {room} leans on {other}",
                        source.path.display()
                    ));
                }
            }
            for word in IMPURE {
                if let Some(line) = source.line_with(word) {
                    wrong.push(format!("{}:{line}: {word}", source.path.display()));
                }
            }
        }
        assert!(files > 3, "{room} has {files} files");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
