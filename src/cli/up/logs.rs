//! What members write, as they write it.
//!
//! Members write to files in their sandboxes; inotify tells when there is more.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read as _},
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
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
        let file = File::open(path)?;
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

    /// Hands over every whole line there is by now.
    pub fn read(&mut self, mut line: impl FnMut(&str, &str)) {
        for tail in self.files.values_mut() {
            tail.read(&mut line);
        }
    }

    /// Hands over the rest of the files below a path, and lets go of them.
    pub fn finish(&mut self, below: &Path, mut line: impl FnMut(&str, &str)) {
        let over: Vec<i32> = self
            .files
            .iter()
            .filter(|(_, tail)| tail.path.starts_with(below))
            .map(|(watch, _)| *watch)
            .collect();
        for watch in over {
            // Fails if the file is gone, and the watch with it.
            let _ = inotify::remove_watch(&self.inotify, watch);
            if let Some(mut tail) = self.files.remove(&watch) {
                while tail.read(&mut line) {}
                if !tail.partial.is_empty() {
                    line(&tail.label, &String::from_utf8_lossy(&tail.partial));
                }
            }
        }
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
}
