//! What unit tests of several rooms share.

use proptest::prelude::*;

/// Something that starts like the real thing and goes wrong somewhere.
pub(crate) fn nearly(valid: impl Into<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let valid = valid.into();
    let length = valid.len();
    let changes = proptest::collection::vec((0..length, any::<u8>()), 0..8);
    (changes, 0..=length).prop_map(move |(changes, cut)| {
        let mut bytes = valid.clone();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        bytes.truncate(cut.max(length / 2));
        bytes
    })
}
