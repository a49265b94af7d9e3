//! What members write, as they write it.
//!
//! Members write to files in their sandboxes; inotify tells when there is more. What is not read yet waits there, so
//! memory holds no more than a turn of each file. A turn is short, whatever there is to read: others wait meanwhile. A
//! member that writes faster than anybody reads is shown in parts, and how much is left out is said.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
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
/// Shown in one turn, of all files together: lines and bytes.
const TURN: Share = Share {
    lines: 1000,
    bytes: 256 << 10,
};
/// Of that, what one file may have.
const SHARE: Share = Share {
    lines: 250,
    bytes: 64 << 10,
};
/// A member that is further ahead of its reader than this is not shown whole.
pub(super) const FURTHEST: u64 = 4 << 20;
/// Shown of what it wrote last, then.
const LATEST: u64 = 64 << 10;

#[derive(Debug, Clone, Copy)]
struct Share {
    lines: usize,
    bytes: usize,
}

/// What is told of a member's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said<'t> {
    Line(&'t str),
    /// So many bytes were left out.
    LeftOut(u64),
}

/// Follows any number of files.
#[derive(Debug)]
pub(super) struct Follower {
    inotify: AsyncFd<OwnedFd>,
    /// By watch descriptor.
    files: BTreeMap<i32, Tail>,
    /// Whose turn it is next.
    next: i32,
}

/// One followed file.
#[derive(Debug)]
struct Tail {
    file: File,
    path: PathBuf,
    label: String,
    /// Read and not yet told: at most a share, and a line that has not ended.
    unread: Vec<u8>,
    /// How much of it holds no end of a line.
    searched: usize,
    /// In the middle of a line whose beginning was left out.
    inside: bool,
    /// Set when the writer has ended: what comes after is nobody's.
    end: Option<u64>,
}

impl Follower {
    pub fn new() -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        Ok(Follower {
            inotify: sys::ready::watch(inotify, Interest::READABLE)?,
            files: BTreeMap::new(),
            next: 0,
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
            unread: Vec::new(),
            searched: 0,
            inside: false,
            end: None,
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

    /// Hands over whole lines, of one file after the other, as many as fit into a turn. A file that is
    /// further ahead than `furthest` bytes is shown from near its end. True if there may be more.
    pub fn read(&mut self, furthest: u64, mut say: impl FnMut(&str, Said<'_>)) -> bool {
        let from_next = self.files.range(self.next..).chain(self.files.range(..self.next));
        let watches: Vec<i32> = from_next.map(|(watch, _)| *watch).collect();
        let mut left = TURN;
        let mut more = false;
        for watch in watches {
            if left.lines == 0 || left.bytes == 0 {
                self.next = watch;
                return true;
            }
            if let Some(tail) = self.files.get_mut(&watch) {
                more |= tail.turn(&mut left, furthest, &mut say);
            }
        }
        more
    }

    /// Hands over a turn of the rest of the files below a path, and lets go of those that have been read to their end.
    /// Of those whose rest is longer than `furthest` only the end is shown. True if there is more.
    pub fn finish(&mut self, below: &Path, furthest: u64, mut say: impl FnMut(&str, Said<'_>)) -> bool {
        let over: Vec<i32> = self
            .files
            .iter()
            .filter(|(_, tail)| tail.path.starts_with(below))
            .map(|(watch, _)| *watch)
            .collect();
        let mut left = TURN;
        for watch in over {
            let Some(tail) = self.files.get_mut(&watch) else {
                continue;
            };
            tail.end_here();
            while tail.turn(&mut left, furthest, &mut say) {
                if left.lines == 0 || left.bytes == 0 {
                    return true;
                }
            }
            // Fails if the file is gone, and the watch with it.
            let _ = inotify::remove_watch(&self.inotify, watch);
            if let Some(tail) = self.files.remove(&watch)
                && !tail.unread.is_empty()
            {
                say(&tail.label, Said::Line(&String::from_utf8_lossy(&tail.unread)));
            }
        }
        false
    }

    /// How many files below a path are followed.
    pub fn count(&self, below: &Path) -> usize {
        self.files
            .values()
            .filter(|tail| tail.path.starts_with(below))
            .count()
    }
}

impl Tail {
    /// Takes its share of what is left of a turn. True if there may be more.
    fn turn(&mut self, left: &mut Share, furthest: u64, say: &mut impl FnMut(&str, Said<'_>)) -> bool {
        self.skip_ahead(furthest, say);
        let mut lines = SHARE.lines.min(left.lines);
        let given = lines;
        let told = self.tell(&mut lines, say);
        // Only what is new is read when all that was read before has been told.
        let mut more = true;
        if told {
            let wanted = SHARE.bytes.min(left.bytes);
            let read = self.read(wanted);
            left.bytes = left.bytes.saturating_sub(read);
            if read == 0 {
                self.begin_again_if_cut();
            }
            more = !self.tell(&mut lines, say) || read == wanted;
        }
        left.lines = left.lines.saturating_sub(given - lines);
        more
    }

    fn read(&mut self, wanted: usize) -> usize {
        let position = self.file.stream_position().unwrap_or(u64::MAX);
        let rest = self.end.map_or(u64::MAX, |end| end.saturating_sub(position));
        let mut limited = self.file.by_ref().take(rest.min(wanted as u64));
        limited.read_to_end(&mut self.unread).unwrap_or(0)
    }

    /// Tells whole lines of what has been read, as long as there are `lines` left to tell. True if none is left over.
    fn tell(&mut self, lines: &mut usize, say: &mut impl FnMut(&str, Said<'_>)) -> bool {
        let mut rest = self.unread.as_slice();
        let mut searched = self.searched.min(rest.len());
        let all = loop {
            // Only what is new can hold the end of the line that was begun before.
            let end = rest
                .get(searched..)
                .and_then(|new| new.iter().position(|byte| *byte == b'\n'));
            let (text, next) = match end {
                Some(end) => (rest.get(..searched + end), rest.get(searched + end + 1..)),
                None if rest.len() > LONGEST_LINE => (rest.get(..LONGEST_LINE), rest.get(LONGEST_LINE..)),
                None => (None, None),
            };
            let (Some(text), Some(next)) = (text, next) else {
                searched = rest.len();
                break true;
            };
            if *lines == 0 {
                break false;
            }
            if !self.inside {
                say(&self.label, Said::Line(&String::from_utf8_lossy(text)));
                *lines -= 1;
            }
            self.inside &= end.is_none();
            rest = next;
            searched = 0;
        };
        self.unread = rest.to_vec();
        self.searched = searched;
        all
    }

    /// Leaves out what nobody could read anyway.
    fn skip_ahead(&mut self, furthest: u64, say: &mut impl FnMut(&str, Said<'_>)) {
        let length = self.file.metadata().map_or(0, |metadata| metadata.len());
        let length = self.end.map_or(length, |end| end.min(length));
        let Ok(position) = self.file.stream_position() else {
            return;
        };
        if length.saturating_sub(position) <= furthest {
            return;
        }
        let latest = length.saturating_sub(LATEST.min(furthest));
        if self.file.seek(SeekFrom::Start(latest)).is_ok() {
            let left_out = latest - position + self.unread.len() as u64;
            self.unread.clear();
            self.searched = 0;
            self.inside = true;
            say(&self.label, Said::LeftOut(left_out));
        }
    }

    fn end_here(&mut self) {
        if self.end.is_none() {
            self.end = self.file.metadata().ok().map(|metadata| metadata.len());
        }
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
        while follower.read(FURTHEST, |label, said| seen.push(shown(label, said))) {}
        seen
    }

    fn shown(label: &str, said: Said<'_>) -> String {
        match said {
            Said::Line(text) => format!("{label}|{text}"),
            Said::LeftOut(bytes) => format!("{label}…{bytes}"),
        }
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
        file.write_all(&vec![b'x'; 300_000]).unwrap();
        let pieces = all(&mut follower);
        assert!(pieces.len() > 1 && pieces.iter().all(|piece| piece.len() <= LONGEST_LINE + 2));
        file.write_all(b"end").unwrap();
        let mut last = Vec::new();
        while follower.finish(place.path(), FURTHEST, |label, said| {
            last.push(shown(label, said))
        }) {}
        let total: usize = pieces.iter().map(|piece| piece.len() - 2).sum();
        assert_eq!(total + last.concat().len() - 2 * last.len(), 300_000 + 3);
        assert!(follower.files.is_empty());
    }

    /// Most of one member's flood is left out, the rest comes in short turns, and nobody waits for it.
    #[tokio::test]
    async fn a_flood_is_cut_short_and_holds_nobody_up() {
        let place = tempfile::tempdir().unwrap();
        let flood = File::create(place.path().join("flood")).unwrap();
        let mut quiet = File::create(place.path().join("quiet")).unwrap();
        let mut follower = Follower::new().unwrap();
        follower.add(&place.path().join("flood"), "flood").unwrap();
        follower.add(&place.path().join("quiet"), "quiet").unwrap();
        // Not a byte of it is written: a file as long as all of a disk.
        flood.set_len(1 << 40).unwrap();
        quiet.write_all(b"I am here\n").unwrap();
        let mut seen = Vec::new();
        follower.read(FURTHEST, |label, said| seen.push(shown(label, said)));
        assert_eq!(seen.first().unwrap(), &format!("flood…{}", (1u64 << 40) - LATEST));
        assert_eq!(seen.last().unwrap(), "quiet|I am here", "in the same turn");
        // The shortest lines are the most work.
        let mut flood = File::create(place.path().join("lines")).unwrap();
        follower.add(&place.path().join("lines"), "lines").unwrap();
        flood.write_all(&b"y\n".repeat(50_000)).unwrap();
        let mut turns = 0;
        let mut lines = 0;
        loop {
            turns += 1;
            let mut now = 0;
            let more = follower.read(FURTHEST, |label, said| {
                now += usize::from(shown(label, said) == "lines|y")
            });
            assert!(now <= SHARE.lines);
            lines += now;
            if !more {
                break;
            }
        }
        assert_eq!(lines, 50_000);
        assert!(turns >= 50_000 / SHARE.lines);
    }

    /// What is written by whoever has the file still open, after its member ended, is nobody's word.
    #[tokio::test]
    async fn last_words_have_an_end() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("stdout");
        let mut file = File::create(&path).unwrap();
        let mut follower = Follower::new().unwrap();
        follower.add(&path, "m").unwrap();
        file.write_all(&b"word\n".repeat(10_000)).unwrap();
        let mut words = 0;
        while follower.finish(place.path(), FURTHEST, |_, _| words += 1) {
            file.write_all(&b"more\n".repeat(10_000)).unwrap();
        }
        assert_eq!(words, 10_000);
        assert_eq!(follower.count(place.path()), 0);
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
