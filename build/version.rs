//! What this build is: from which commit, for which machine, with which C library.

use std::{env, path::Path, process::Command};

/// Leaves `BUILT_AS` for `--version`; not named like our settings, since `cargo run` hands it to what it runs.
///
/// Only builds that people are handed name their commit: a developer's would be made anew after every one. Packagers
/// without a repository can say it in `PODLING_COMMIT`.
pub fn tell() {
    println!("cargo::rerun-if-changed=build/version.rs");
    println!("cargo::rerun-if-env-changed=PODLING_COMMIT");
    let variable = |name: &str| env::var(name).unwrap_or_default();
    let mut parts = Vec::new();
    let given = variable("PODLING_COMMIT");
    match (given.as_str(), variable("PROFILE").as_str()) {
        ("", "release") => parts.extend(commit().map(|commit| format!("commit {commit}"))),
        ("", _) => parts.push("development build".to_owned()),
        (given, _) => parts.push(format!("commit {}", given.lines().next().unwrap_or_default())),
    }
    parts.push(variable("TARGET"));
    let mut library = match variable("CARGO_CFG_TARGET_ENV").as_str() {
        "gnu" => "glibc".to_owned(),
        other => other.to_owned(),
    };
    if variable("CARGO_CFG_TARGET_FEATURE")
        .split(',')
        .any(|feature| feature == "crt-static")
    {
        library.push_str(", static");
    }
    parts.push(library);
    println!("cargo::rustc-env=BUILT_AS={}", parts.join(", "));
}

/// Of the repository that this package is the top of; a copy inside another one is not of that one's commits.
fn commit() -> Option<String> {
    let here = env::var("CARGO_MANIFEST_DIR").ok()?;
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .arg("-C")
            .arg(&here)
            .args(arguments)
            .output()
            .ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let top = git(&["rev-parse", "--show-toplevel"])?;
    if Path::new(&top).canonicalize().ok()? != Path::new(&here).canonicalize().ok()? {
        return None;
    }
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    // What is not there is not named: cargo would take it for changed every time.
    for name in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--path-format=absolute", "--git-path", name])
            && Path::new(&path).exists()
        {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    // Whether the sources are the commit's can change with each of them.
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rerun-if-changed=Cargo.lock");
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(match changed.is_empty() {
        true => commit,
        false => format!("{commit} and changes"),
    })
}
