//! What a member said last: mostly the very reason why it failed, and the first thing that people look for.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    os::fd::OwnedFd,
};

use crate::{
    container::last_line,
    group::{Exit, ExitStatus},
};

/// The last line is looked for in so many bytes at the end.
const TAIL: u64 = 2048;

/// What a member has written.
#[derive(Debug)]
pub struct Streams {
    /// The files that it was given, whatever is found under their names now. Standard error first: that is where
    /// reasons are given.
    files: Vec<OwnedFd>,
    /// Lines that are ours, not the member's.
    notes: Vec<String>,
}

impl Streams {
    pub fn new(files: Vec<OwnedFd>, notes: Vec<String>) -> Self {
        Streams { files, notes }
    }

    /// Nothing of a member that did well, or that was ended for a reason of its own.
    pub fn last_words(&self, exit: &Exit) -> Option<String> {
        if exit.status == ExitStatus::Code(0) || exit.limit.is_some() {
            return None;
        }
        self.files.iter().find_map(|file| self.last_line(file))
    }

    fn last_line(&self, file: &OwnedFd) -> Option<String> {
        let mut file = File::from(file.try_clone().ok()?);
        let length = file.metadata().ok()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL))).ok()?;
        let mut tail = Vec::new();
        file.take(TAIL).read_to_end(&mut tail).ok()?;
        last_line(&tail, &self.notes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(stderr: &[u8], stdout: &[u8], exit: ExitStatus) -> Option<String> {
        let place = tempfile::tempdir().unwrap();
        let files = [("stderr", stderr), ("stdout", stdout)].map(|(name, text)| {
            std::fs::write(place.path().join(name), text).unwrap();
            File::open(place.path().join(name)).unwrap().into()
        });
        let notes = vec!["podling: no swap limit here".to_owned()];
        let exit = Exit {
            status: exit,
            limit: None,
            words: None,
        };
        Streams::new(files.into(), notes).last_words(&exit)
    }

    #[test]
    fn the_last_line_that_says_something() {
        let failed = ExitStatus::Code(1);
        for (stderr, stdout, words) in [
            (
                &b"Traceback\n  x\nKeyError: 'DB'\n\n"[..],
                &b"out\n"[..],
                Some("KeyError: 'DB'"),
            ),
            (b"", b"one\ntwo", Some("two")),
            (b"podling: no swap limit here\n", b"", None),
            (b"\x1b[31mred\xff\r\n", b"", Some("[31mred\u{fffd}")),
            (b"", b"", None),
        ] {
            assert_eq!(said(stderr, stdout, failed).as_deref(), words);
        }
        let long = said(&vec![b'x'; 1 << 20], b"", failed).unwrap();
        assert_eq!(long.chars().count(), 201, "and an ellipsis");
        assert_eq!(said(b"fine\n", b"", ExitStatus::Code(0)), None);
        assert_eq!(
            said(b"ouch\n", b"", ExitStatus::Signal(11)).as_deref(),
            Some("ouch")
        );
    }
}
