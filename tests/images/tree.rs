//! What a directory tree looks like, down to the last attribute, as text that can be compared.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsString,
    fs,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use podling::image::Digest;

/// One line for each path: kind, mode, owner, size, time, content or target, attributes, and what it is linked with.
pub fn tree(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut lines = BTreeMap::new();
    let mut linked = HashMap::new();
    walk(root, Path::new(""), &mut lines, &mut linked);
    lines
}

fn walk(
    root: &Path,
    path: &Path,
    lines: &mut BTreeMap<PathBuf, String>,
    linked: &mut HashMap<(u64, u64), PathBuf>,
) {
    let full = root.join(path);
    let metadata = fs::symlink_metadata(&full).unwrap();
    let kind = metadata.file_type();
    let what = if kind.is_dir() {
        "directory".to_owned()
    } else if kind.is_file() {
        let content = fs::read(&full).unwrap();
        format!("file {} {}", content.len(), Digest::of(&content))
    } else if kind.is_symlink() {
        format!("link to {:?}", fs::read_link(&full).unwrap())
    } else if kind.is_fifo() {
        "fifo".to_owned()
    } else {
        let letter = if kind.is_block_device() { 'b' } else { 'c' };
        format!("{letter} {:#x}", metadata.rdev())
    };
    let mut line = format!(
        "{what} mode={:o} owner={}:{} time={}.{:09}",
        metadata.mode() & 0o7777,
        metadata.uid(),
        metadata.gid(),
        metadata.mtime(),
        metadata.mtime_nsec()
    );
    for (name, value) in xattrs(&full) {
        line.push_str(&format!(" {name}={value:02x?}"));
    }
    if metadata.nlink() > 1 && !kind.is_dir() {
        let first = linked
            .entry((metadata.dev(), metadata.ino()))
            .or_insert_with(|| path.to_owned());
        if first != path {
            line.push_str(&format!(" same as {first:?}"));
        }
    }
    lines.insert(path.to_owned(), line);
    if kind.is_dir() {
        let mut names: Vec<OsString> = fs::read_dir(&full)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        names.sort();
        for name in names {
            walk(root, &path.join(name), lines, linked);
        }
    }
}

fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut list = vec![0; 65536];
    let length = rustix::fs::llistxattr(path, &mut list[..]).unwrap_or(0);
    list[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0; 65536];
            let name = OsString::from_vec(name.to_vec());
            let length = rustix::fs::lgetxattr(path, name.as_bytes(), &mut value[..]).unwrap();
            value.truncate(length);
            (name.to_string_lossy().into_owned(), value)
        })
        .collect()
}

/// The paths where two trees differ, with both lines.
pub fn differences(ours: &BTreeMap<PathBuf, String>, theirs: &BTreeMap<PathBuf, String>) -> Vec<String> {
    let paths: std::collections::BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    paths
        .into_iter()
        .filter(|path| ours.get(*path) != theirs.get(*path))
        .map(|path| {
            format!(
                "{path:?}\n  ours:   {:?}\n  theirs: {:?}",
                ours.get(path),
                theirs.get(path)
            )
        })
        .collect()
}
