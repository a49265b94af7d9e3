//! Directory attributes wait for the end of a layer, because every entry put into a directory changes its times. A
//! layer can have millions of directories, so they wait in a file once they are many.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, Write},
    os::fd::BorrowedFd,
};

use rustix::fs::{Mode, OFlags};

use super::archive::Timestamp;

const IN_MEMORY: usize = 256 << 10;

/// What a directory is to look like in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryRecord {
    pub path: Vec<u8>,
    /// The inode it was; if another one stands there by then, the record is void.
    pub inode: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Timestamp,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Records in the order they were pushed; constant memory.
#[derive(Debug)]
pub struct Spill<'dir> {
    dir: BorrowedFd<'dir>,
    buffer: Vec<u8>,
    file: Option<File>,
}

impl<'dir> Spill<'dir> {
    /// `dir` is where a nameless file is made if it comes to that.
    pub fn new(dir: BorrowedFd<'dir>) -> Spill<'dir> {
        Spill {
            dir,
            buffer: Vec::new(),
            file: None,
        }
    }

    pub fn push(&mut self, record: &DirectoryRecord) -> io::Result<()> {
        record.encode(&mut self.buffer);
        if self.buffer.len() < IN_MEMORY {
            return Ok(());
        }
        if self.file.is_none() {
            let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
            let file = rustix::fs::openat(self.dir, ".", flags, Mode::RUSR | Mode::WUSR)?;
            self.file = Some(file.into());
        }
        if let Some(file) = &mut self.file {
            file.write_all(&self.buffer)?;
        }
        self.buffer.clear();
        Ok(())
    }

    /// Gives the records back, oldest first.
    pub fn replay(self, mut each: impl FnMut(DirectoryRecord) -> io::Result<()>) -> io::Result<()> {
        if let Some(mut file) = self.file {
            file.rewind()?;
            let mut reader = BufReader::new(file);
            while let Some(record) = DirectoryRecord::decode(&mut reader)? {
                each(record)?;
            }
        }
        let mut rest = self.buffer.as_slice();
        while let Some(record) = DirectoryRecord::decode(&mut rest)? {
            each(record)?;
        }
        Ok(())
    }
}

impl DirectoryRecord {
    fn encode(&self, out: &mut Vec<u8>) {
        let bytes = |out: &mut Vec<u8>, bytes: &[u8]| {
            out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            out.extend_from_slice(bytes);
        };
        bytes(out, &self.path);
        out.extend_from_slice(&self.inode.to_le_bytes());
        for small in [self.mode, self.uid, self.gid, self.mtime.nanoseconds] {
            out.extend_from_slice(&small.to_le_bytes());
        }
        out.extend_from_slice(&self.mtime.seconds.to_le_bytes());
        out.extend_from_slice(&(self.xattrs.len() as u64).to_le_bytes());
        for (name, value) in &self.xattrs {
            bytes(out, name);
            bytes(out, value);
        }
    }

    fn decode(from: &mut impl Read) -> io::Result<Option<DirectoryRecord>> {
        let mut length = [0; 8];
        if from.read(length.split_at_mut(1).0)? == 0 {
            return Ok(None);
        }
        from.read_exact(length.split_at_mut(1).1)?;
        let path = read_bytes(from, u64::from_le_bytes(length))?;
        let inode = u64::from_le_bytes(read_array(from)?);
        let [mode, uid, gid, nanoseconds] = [
            u32::from_le_bytes(read_array(from)?),
            u32::from_le_bytes(read_array(from)?),
            u32::from_le_bytes(read_array(from)?),
            u32::from_le_bytes(read_array(from)?),
        ];
        let seconds = i64::from_le_bytes(read_array(from)?);
        let mut xattrs = Vec::new();
        for _ in 0..u64::from_le_bytes(read_array(from)?) {
            let mut field = || {
                let length = u64::from_le_bytes(read_array(from)?);
                read_bytes(from, length)
            };
            xattrs.push((field()?, field()?));
        }
        Ok(Some(DirectoryRecord {
            path,
            inode,
            mode,
            uid,
            gid,
            mtime: Timestamp { seconds, nanoseconds },
            xattrs,
        }))
    }
}

fn read_array<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut array = [0; N];
    from.read_exact(&mut array)?;
    Ok(array)
}

fn read_bytes(from: &mut impl Read, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if from.take(length).read_to_end(&mut bytes)? as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn records_come_back_in_order_from_memory_and_file() {
        let dir = tempfile::tempdir().unwrap();
        let fd = File::open(dir.path()).unwrap();
        let record = |at: u64| DirectoryRecord {
            path: format!("a/directory/number/{at}").into_bytes(),
            inode: at,
            mode: 0o755,
            uid: 1,
            gid: 2,
            mtime: Timestamp {
                seconds: -5,
                nanoseconds: 9,
            },
            xattrs: vec![(b"user.a".to_vec(), vec![0, 10])],
        };
        for count in [0, 1, 20_000] {
            let mut spill = Spill::new(fd.as_fd());
            for at in 0..count {
                spill.push(&record(at)).unwrap();
            }
            assert!(spill.buffer.len() <= IN_MEMORY);
            let mut next = 0;
            spill
                .replay(|read| {
                    assert_eq!(read, record(next));
                    next += 1;
                    Ok(())
                })
                .unwrap();
            assert_eq!(next, count);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
