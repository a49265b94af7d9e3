//! What members write, as they write it.
//!
//! Members write to files in their sandboxes; inotify tells when there is more. What is not read yet waits there, so
//! memory holds no more than a turn of each file.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read as _, Seek as _},
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::fs::{
    self, Mode, OFlags,
    inotify::{self, CreateFlags, Reader, WatchFlags},
};
use tokio::io::{Interest, unix::AsyncFd};

use crate::sys;

/// A line longer than this is shown in pieces.
const LONGEST_LINE: usize = 16 << 10;
/// Read from one file before others have their turn.
const TURN: usize = 256 << 10;

/// Follows any number of files.
#[derive(Debug)]
pub(super) struct Follower {
    inotify: AsyncFd<OwnedFd>,
    /// By watch descriptor.
    files: HashMap<i32, Tail>,
}

/// One followed file.
#[derive(Debug)]
struct Tail {
    file: File,
    path: PathBuf,
    label: String,
    /// What was read of a line that has not ended yet.
    partial: Vec<u8>,
}

impl Follower {
    pub fn new() -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        Ok(Follower {
            inotify: sys::ready::watch(inotify, Interest::READABLE)?,
            files: HashMap::new(),
        })
    }

    /// Follows a file from its beginning.
    pub fn add(&mut self, path: &Path, label: &str) -> io::Result<()> {
        // The member may have put something else in its place by now: a link to what it cannot read itself, or a pipe
        // that would hold us up.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(fs::open(path, flags, Mode::empty())?);
        if !file.metadata()?.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let watch = inotify::add_watch(&self.inotify, path, WatchFlags::MODIFY)?;
        let tail = Tail {
            file,
            path: path.to_owned(),
            label: label.to_owned(),
            partial: Vec::new(),
        };
        self.files.entry(watch).or_insert(tail);
        Ok(())
    }

    /// Waits until some file has grown. May be dropped and called again.
    pub async fn grown(&self) {
        match self.inotify.readable().await {
            Ok(mut ready) => {
                // What exactly has grown is found by reading; the events only wake us.
                let mut buffer = [MaybeUninit::uninit(); 4096];
                let mut events = Reader::new(self.inotify.get_ref(), &mut buffer);
                while events.next().is_ok() {}
                ready.clear_ready();
            }
            Err(_) => std::future::pending().await,
        }
    }

    /// Hands over whole lines, a turn of each file. True if there may be more.
    pub fn read(&mut self, mut line: impl FnMut(&str, &str)) -> bool {
        let mut more = false;
        for tail in self.files.values_mut() {
            more |= tail.read(&mut line);
        }
        more
    }

    /// Hands over a turn of the rest of the files below a path, and lets go of those that have been read to their end.
    /// True if there is more.
    pub fn finish(&mut self, below: &Path, mut line: impl FnMut(&str, &str)) -> bool {
        let over: Vec<i32> = self
            .files
            .iter()
            .filter(|(_, tail)| tail.path.starts_with(below))
            .map(|(watch, _)| *watch)
            .collect();
        let mut more = false;
        for watch in over {
            if self
                .files
                .get_mut(&watch)
                .is_some_and(|tail| tail.read(&mut line))
            {
                more = true;
                continue;
            }
            // Fails if the file is gone, and the watch with it.
            let _ = inotify::remove_watch(&self.inotify, watch);
            if let Some(tail) = self.files.remove(&watch)
                && !tail.partial.is_empty()
            {
                line(&tail.label, &String::from_utf8_lossy(&tail.partial));
            }
        }
        more
    }
}

impl Tail {
    /// True if there may be more.
    fn read(&mut self, line: &mut impl FnMut(&str, &str)) -> bool {
        let before = self.partial.len();
        let read = self
            .file
            .by_ref()
            .take(TURN as u64)
            .read_to_end(&mut self.partial)
            .unwrap_or(0);
        if read == 0 {
            self.begin_again_if_cut();
            return false;
        }
        let mut rest = self.partial.as_slice();
        // Only what is new can hold the end of the line that was begun before.
        let mut searched = before.min(rest.len());
        loop {
            let end = rest
                .get(searched..)
                .and_then(|new| new.iter().position(|byte| *byte == b'\n'));
            let (text, next) = match end {
                Some(end) => (rest.get(..searched + end), rest.get(searched + end + 1..)),
                None if rest.len() > LONGEST_LINE => (rest.get(..LONGEST_LINE), rest.get(LONGEST_LINE..)),
                None => break,
            };
            let (Some(text), Some(next)) = (text, next) else {
                break;
            };
            line(&self.label, &String::from_utf8_lossy(text));
            rest = next;
            searched = 0;
        }
        self.partial = rest.to_vec();
        read == TURN
    }

    /// A member may empty its file and start anew.
    fn begin_again_if_cut(&mut self) {
        let length = self.file.metadata().map_or(u64::MAX, |metadata| metadata.len());
        if self
            .file
            .stream_position()
            .is_ok_and(|position| position > length)
        {
            let _ = self.file.rewind();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _};

    use super::*;

    /// What is read of a file, turn by turn.
    fn all(follower: &mut Follower) -> Vec<String> {
        let mut seen = Vec::new();
        while follower.read(|label, text| seen.push(format!("{label}|{text}"))) {}
        seen
    }

    #[tokio::test]
    async fn lines_come_whole_and_long_ones_in_pieces() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("stdout");
        let mut file = File::create(&path).unwrap();
        let mut follower = Follower::new().unwrap();
        follower.add(&path, "m").unwrap();
        file.write_all(b"one\ntw").unwrap();
        assert_eq!(all(&mut follower), ["m|one"]);
        file.write_all(b"o\n\xff\n").unwrap();
        assert_eq!(all(&mut follower), ["m|two", "m|\u{fffd}"]);
        file.write_all(&vec![b'x'; 3 * TURN]).unwrap();
        let pieces = all(&mut follower);
        assert!(pieces.len() > 1 && pieces.iter().all(|piece| piece.len() <= LONGEST_LINE + 2));
        file.write_all(b"end").unwrap();
        let mut last = Vec::new();
        while follower.finish(place.path(), |_, text| last.push(text.to_owned())) {}
        let total: usize = pieces.iter().map(|piece| piece.len() - 2).sum();
        assert_eq!(total + last.concat().len(), 3 * TURN + 3);
        assert!(follower.files.is_empty());
    }

    #[tokio::test]
    async fn a_file_that_is_cut_is_read_from_its_new_beginning() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("stdout");
        fs::write(&path, "a long first line\n").unwrap();
        let mut follower = Follower::new().unwrap();
        follower.add(&path, "m").unwrap();
        assert_eq!(all(&mut follower), ["m|a long first line"]);
        fs::write(&path, "").unwrap();
        assert_eq!(all(&mut follower), [""; 0]);
        fs::write(&path, "new\n").unwrap();
        assert_eq!(all(&mut follower), ["m|new"]);
    }

    #[tokio::test]
    async fn only_real_files_are_followed() {
        let place = tempfile::tempdir().unwrap();
        let mut follower = Follower::new().unwrap();
        let link = place.path().join("link");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        follower.add(&link, "m").unwrap_err();
        let pipe = place.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        follower.add(&pipe, "m").unwrap_err();
        follower.add(place.path(), "m").unwrap_err();
    }
}
