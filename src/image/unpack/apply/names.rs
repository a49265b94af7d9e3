//! Names of entries, which may be any bytes.

use std::ffi::{CStr, CString};

use super::{Refusal, Step, refuse};
use crate::image::unpack::archive::Entry;

/// A name as components, without `.`, doubled and leading slashes.
pub(super) fn clean(name: &[u8]) -> Result<Vec<&[u8]>, Refusal> {
    if name.is_empty() {
        return Err(Refusal::EmptyName);
    }
    let mut components = Vec::new();
    for component in name.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => return Err(Refusal::ParentTraversal),
            component => components.push(component),
        }
    }
    Ok(components)
}

pub(super) fn join(parents: &[&[u8]], name: &CStr) -> Vec<u8> {
    let mut path = parents.join(&b'/');
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name.to_bytes());
    path
}

/// Components hold no NUL: [`Archive`] refused those names.
pub(super) fn path_of(parents: &[&[u8]]) -> Vec<u8> {
    match parents {
        [] => b".".to_vec(),
        parents => parents.join(&b'/'),
    }
}

pub(super) fn c_name(entry: &Entry, name: &[u8]) -> Step<CString> {
    CString::new(name).map_err(|_| refuse(entry, Refusal::EmptyName))
}

/// A hostile name is shown shortened and without control characters.
pub(in crate::image::unpack) fn printable(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    let mut shown: String = name.chars().take(200).flat_map(char::escape_debug).collect();
    if name.chars().count() > 200 {
        shown.push('…');
    }
    shown
}
