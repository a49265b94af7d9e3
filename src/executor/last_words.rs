//! What a member said last: mostly the very reason why it failed, and the first thing that people look for.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use rustix::fs::{self, Mode, OFlags};

use crate::{
    container::plan::{Output, Plan},
    group::{Exit, ExitStatus},
};

/// The last line is looked for in so many bytes at the end.
const TAIL: u64 = 2048;
/// No more of it is told.
const LONGEST: usize = 200;

/// Where a member writes.
#[derive(Debug)]
pub struct Streams {
    /// Standard error first: that is where reasons are given.
    files: Vec<PathBuf>,
    /// Lines that are ours, not the member's.
    notes: Vec<String>,
}

impl Streams {
    pub fn of(plan: &Plan) -> Self {
        let file = |output: &Output| match output {
            Output::File(name) => Some(plan.sandbox.join(name)),
            Output::Descriptor(_) | Output::Null => None,
        };
        Streams {
            files: [&plan.stderr, &plan.stdout]
                .into_iter()
                .filter_map(file)
                .collect(),
            notes: plan.notes.clone(),
        }
    }

    /// Nothing of a member that did well, or that was ended for a reason of its own.
    pub fn last_words(&self, exit: &Exit) -> Option<String> {
        if exit.status == ExitStatus::Code(0) || exit.limit.is_some() {
            return None;
        }
        self.files.iter().find_map(|file| self.last_line(file))
    }

    fn last_line(&self, path: &Path) -> Option<String> {
        // The member may have put anything in its place.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut file = File::from(fs::open(path, flags, Mode::empty()).ok()?);
        let metadata = file.metadata().ok()?;
        if !metadata.is_file() {
            return None;
        }
        file.seek(SeekFrom::Start(metadata.len().saturating_sub(TAIL)))
            .ok()?;
        let mut tail = Vec::new();
        file.take(TAIL).read_to_end(&mut tail).ok()?;
        let text = String::from_utf8_lossy(&tail);
        let mut lines = text.lines().rev().map(str::trim);
        let line =
            lines.find(|line| !line.is_empty() && !self.notes.iter().any(|note| note.trim() == *line))?;
        let plain: String = line
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let mut words: String = plain.trim().chars().take(LONGEST).collect();
        if words.chars().count() == LONGEST {
            words.push('…');
        }
        Some(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(stderr: &[u8], stdout: &[u8], exit: ExitStatus) -> Option<String> {
        let place = tempfile::tempdir().unwrap();
        let files: Vec<PathBuf> = ["stderr", "stdout"]
            .iter()
            .map(|name| place.path().join(name))
            .collect();
        std::fs::write(&files[0], stderr).unwrap();
        std::fs::write(&files[1], stdout).unwrap();
        let notes = vec!["podling: no swap limit here".to_owned()];
        let exit = Exit {
            status: exit,
            limit: None,
            words: None,
        };
        Streams { files, notes }.last_words(&exit)
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
        assert_eq!(long.chars().count(), LONGEST + 1);
        assert_eq!(said(b"fine\n", b"", ExitStatus::Code(0)), None);
        assert_eq!(
            said(b"ouch\n", b"", ExitStatus::Signal(11)).as_deref(),
            Some("ouch")
        );
    }

    #[test]
    fn no_link_is_followed() {
        let place = tempfile::tempdir().unwrap();
        let link = place.path().join("stderr");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        let streams = Streams {
            files: vec![link],
            notes: Vec::new(),
        };
        let exit = Exit {
            status: ExitStatus::Code(1),
            limit: None,
            words: None,
        };
        assert_eq!(streams.last_words(&exit), None);
    }
}
