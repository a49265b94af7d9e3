//! A checksum of every file of a layer, taken while it is written, so that damage on the disk can be found later.
//! Files are named by inode: entries of an archive replace each other, inodes say which one is left.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufWriter, Read, Write},
    os::fd::BorrowedFd,
};

use flate2::Crc;

/// What a file was when it was written: its content, and what else a damaged inode would change.
#[derive(Debug, Default)]
pub(in crate::image) struct Sum(Crc);

impl Sum {
    pub fn update(&mut self, content: &[u8]) {
        self.0.update(content);
    }

    /// Takes a run of zeros into account. The time for it is bounded by the budget for a file's size.
    pub fn hole(&mut self, mut length: u64) {
        const ZEROS: [u8; 16 << 10] = [0; 16 << 10];
        while length > 0 {
            let step = length.min(ZEROS.len() as u64);
            // `step` is at most the size of the array.
            self.0.update(ZEROS.get(..step as usize).unwrap_or_default());
            length -= step;
        }
    }

    /// Closes the sum with the attributes of the file as the kernel has them.
    pub fn finish(mut self, stat: &rustix::fs::Stat) -> u32 {
        for number in [
            u64::from(stat.st_mode),
            u64::from(stat.st_uid),
            u64::from(stat.st_gid),
        ] {
            self.0.update(&number.to_le_bytes());
        }
        self.0.update(&stat.st_size.to_le_bytes());
        self.0.update(&stat.st_mtime.to_le_bytes());
        self.0.sum()
    }
}

/// Takes sums down in the order in which files are written.
#[derive(Debug)]
pub(super) struct SumWriter {
    out: BufWriter<File>,
}

impl SumWriter {
    pub(super) fn new(file: File) -> SumWriter {
        SumWriter {
            out: BufWriter::new(file),
        }
    }

    pub(super) fn push(&mut self, file: BorrowedFd<'_>, sum: Sum) -> io::Result<()> {
        let stat = rustix::fs::fstat(file)?;
        self.out.write_all(&stat.st_ino.to_le_bytes())?;
        self.out.write_all(&sum.finish(&stat).to_le_bytes())
    }

    pub(super) fn finish(mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Reads what a [`SumWriter`] wrote: of two sums of one inode the later one counts.
pub(in crate::image) fn read_sums(from: impl Read) -> io::Result<HashMap<u64, u32>> {
    let mut reader = io::BufReader::new(from);
    let mut sums = HashMap::new();
    let (mut inode, mut sum) = ([0; 8], [0; 4]);
    loop {
        match reader.read_exact(&mut inode) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(sums),
            Err(error) => return Err(error),
        }
        reader.read_exact(&mut sum)?;
        sums.insert(u64::from_le_bytes(inode), u32::from_le_bytes(sum));
    }
}
