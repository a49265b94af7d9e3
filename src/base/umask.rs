//! What others may do with files that we make.

use rustix::{fs::Mode, process::umask};

/// Nothing, unless whoever makes a file says otherwise. Called at the start of every program but those that stand in
/// for an agent: what is to be read by others, such as members' sandboxes and logs, is given its mode explicitly.
pub fn close() {
    umask(Mode::RWXG | Mode::RWXO);
}
