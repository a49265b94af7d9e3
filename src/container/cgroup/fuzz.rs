//! See `container::fuzz`.
#![allow(clippy::panic)]

use std::path::Component;

use super::{layout, stats};

/// The mount table, our memberships and the kernel's figures, one after the other.
pub fn files(data: &[u8]) {
    let mut parts = data.splitn(3, |byte| *byte == 0);
    let mut part = || parts.next().unwrap_or_default();
    let (mountinfo, membership, figures) = (part(), part(), part());
    let found = layout::hierarchies(mountinfo, &String::from_utf8_lossy(membership));
    for hierarchy in found.found {
        // Nothing that a table says leads out of the hierarchy.
        let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
        assert!(hierarchy.own.components().all(plain));
    }
    let figures = String::from_utf8_lossy(figures);
    let _ = stats::field(&figures, "anon");
    let _ = stats::pressure(&figures);
}
