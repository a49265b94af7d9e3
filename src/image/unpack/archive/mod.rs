//! Reads tar archives as layers use them: v7, ustar, GNU and PAX headers, all four sparse formats.
//!
//! The header blocks are the `tar` crate's. Its entry iterator is not used, because it reads extension headers of any
//! size into memory, splits PAX records at newlines (which binary attributes contain), and lets a global header
//! swallow the records meant for the next file. Wherever two common readers would see different trees in the same
//! bytes, this one refuses: a layer that is two things at once is no accident.

mod numbers;
mod pax;
mod sparse;

use std::io::{self, BufRead, Read};

use tar::{EntryType, Header};

use self::{numbers::number, pax::Pax};
use super::budget::{Budget, OverBudget};

const BLOCK: u64 = 512;

/// What an entry is. The data of a file follows its header in the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    Fifo,
    CharDevice { major: u32, minor: u32 },
    BlockDevice { major: u32, minor: u32 },
}

/// A point in time, before or after 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timestamp {
    pub seconds: i64,
    pub nanoseconds: u32,
}

/// A run of data in a sparse file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    pub offset: u64,
    pub length: u64,
}

/// One member of an archive, all header forms resolved.
#[derive(Debug, Clone)]
pub struct Entry {
    pub name: Vec<u8>,
    /// Target of a symbolic or hard link.
    pub link: Vec<u8>,
    pub kind: Kind,
    /// The twelve permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Timestamp,
    /// Size of the file once written; with holes it is larger than the data in the archive.
    pub size: u64,
    /// Where the data goes, if the file has holes.
    pub segments: Option<Vec<Segment>>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The bytes could not be had: connection, decompression, file.
    #[error(transparent)]
    Read(io::Error),
    #[error("the archive is malformed at byte {offset}: {problem}")]
    Malformed { offset: u64, problem: Malformed },
    #[error(transparent)]
    OverBudget(#[from] OverBudget),
}

/// What is wrong with the bytes, or what makes them readable in more than one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("it ends in the middle of an entry")]
    Truncated,
    #[error("a header checksum is wrong")]
    Checksum,
    #[error("a numeric field is not a number or out of range")]
    Number,
    #[error("a single zero block stands between entries")]
    LoneZeroBlock,
    #[error("an extension header describes no entry")]
    DanglingExtension,
    #[error("one entry has two extension headers of the same kind")]
    RepeatedExtension,
    #[error("a PAX record is malformed")]
    PaxRecord,
    #[error("two PAX records or headers contradict each other")]
    Contradiction,
    #[error("a global PAX header changes names, sizes or attributes of later entries")]
    GlobalPax,
    #[error("a name contains a NUL byte")]
    NulInName,
    #[error("an entry that cannot have data has a size")]
    DataWithoutFile,
    #[error("the entry type {0:#04x} is unknown")]
    EntryType(u8),
    #[error("a sparse map is out of order, overlaps, or does not add up")]
    SparseMap,
}

/// Reads an archive entry by entry. After [`Archive::next`] gave a file, [`Archive::data`] gives its bytes.
#[derive(Debug)]
pub struct Archive<R> {
    input: R,
    limits: Limits,
    offset: u64,
    /// Data bytes of the present entry that were not read yet, and the padding after them.
    remaining: u64,
    padding: u64,
}

#[derive(Debug)]
struct Limits {
    path: usize,
    header: u64,
    xattrs: usize,
    bytes: u64,
}

/// What extension headers said about the entry that follows them.
#[derive(Default)]
struct Extensions {
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    pax: Option<Pax>,
    /// Bytes read for this entry so far.
    used: u64,
}

impl Extensions {
    fn is_empty(&self) -> bool {
        self.long_name.is_none() && self.long_link.is_none() && self.pax.is_none()
    }
}

impl<R: BufRead> Archive<R> {
    pub fn new(input: R, budget: &Budget) -> Archive<R> {
        Archive {
            input,
            limits: Limits {
                path: budget.path,
                header: budget.header,
                xattrs: budget.xattrs,
                bytes: budget.bytes,
            },
            offset: 0,
            remaining: 0,
            padding: 0,
        }
    }

    pub fn into_inner(self) -> R {
        self.input
    }

    /// How far into the archive reading has come.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next entry, or `None` at the end of the archive. Data of the entry before that nobody read is skipped.
    pub fn next(&mut self) -> Result<Option<Entry>, ArchiveError> {
        self.skip_rest()?;
        let mut extensions = Extensions::default();
        loop {
            let Some(header) = self.header()? else {
                if extensions.is_empty() {
                    return Ok(None);
                }
                return Err(self.malformed(Malformed::DanglingExtension));
            };
            let size = self.unsigned(&header.as_old().size)?;
            let extended = header.as_gnu().is_some() || header.as_ustar().is_some();
            match header.entry_type() {
                EntryType::GNULongName if extended => {
                    let name = self.extension(size, &mut extensions)?;
                    self.once(&mut extensions.long_name, until_nul(name))?;
                }
                EntryType::GNULongLink if extended => {
                    let link = self.extension(size, &mut extensions)?;
                    self.once(&mut extensions.long_link, until_nul(link))?;
                }
                EntryType::XHeader => {
                    let records = self.extension(size, &mut extensions)?;
                    let pax = self.pax(&records)?;
                    self.once(&mut extensions.pax, pax)?;
                }
                EntryType::XGlobalHeader => {
                    // Readers disagree on what happens to extensions already read.
                    if !extensions.is_empty() {
                        return Err(self.malformed(Malformed::DanglingExtension));
                    }
                    let records = self.extension(size, &mut extensions)?;
                    self.check_global(&records)?;
                    extensions.used = 0;
                }
                _ => return self.entry(&header, size, extensions).map(Some),
            }
        }
    }

    /// The data of the entry last read, run by run as it lies in the archive.
    pub fn data(&mut self) -> Data<'_, R> {
        Data { archive: self }
    }

    fn header(&mut self) -> Result<Option<Header>, ArchiveError> {
        let mut header = Header::new_old();
        if !self.block(header.as_mut_bytes())? {
            return Ok(None);
        }
        if is_zero(header.as_bytes()) {
            // Two zero blocks end an archive; one at the very end of the file will do.
            return match self.block(header.as_mut_bytes())? {
                true if !is_zero(header.as_bytes()) => Err(self.malformed(Malformed::LoneZeroBlock)),
                _ => Ok(None),
            };
        }
        self.check_sum(&header)?;
        Ok(Some(header))
    }

    /// Old writers summed signed bytes.
    fn check_sum(&self, header: &Header) -> Result<(), ArchiveError> {
        let told = self.unsigned(&header.as_old().cksum)?;
        let (mut unsigned, mut signed) = (0u64, 0i64);
        for (at, byte) in header.as_bytes().iter().enumerate() {
            let byte = if (148..156).contains(&at) { b' ' } else { *byte };
            unsigned += u64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
        if told == unsigned || i64::try_from(told) == Ok(signed) {
            Ok(())
        } else {
            Err(self.malformed(Malformed::Checksum))
        }
    }

    /// Fills a block; `false` at a clean end of the input.
    fn block(&mut self, block: &mut [u8; 512]) -> Result<bool, ArchiveError> {
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.input.read(rest) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(self.malformed(Malformed::Truncated)),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ArchiveError::Read(error)),
            }
        }
        self.offset += BLOCK;
        Ok(true)
    }

    /// Reads the whole body of an extension header, within the budget for one entry.
    fn extension(&mut self, size: u64, extensions: &mut Extensions) -> Result<Vec<u8>, ArchiveError> {
        extensions.used = extensions.used.saturating_add(size).saturating_add(BLOCK);
        if extensions.used > self.limits.header {
            return Err(OverBudget::Header(self.limits.header).into());
        }
        self.announce(size)?;
        let mut body = Vec::new();
        self.data().read_to_end(&mut body).map_err(ArchiveError::Read)?;
        if body.len() as u64 != size {
            return Err(self.malformed(Malformed::Truncated));
        }
        self.skip_rest()?;
        Ok(body)
    }

    fn once<T>(&self, slot: &mut Option<T>, value: T) -> Result<(), ArchiveError> {
        match slot.replace(value) {
            None => Ok(()),
            Some(_) => Err(self.malformed(Malformed::RepeatedExtension)),
        }
    }

    fn announce(&mut self, size: u64) -> Result<(), ArchiveError> {
        if size > self.limits.bytes {
            return Err(OverBudget::Bytes(self.limits.bytes).into());
        }
        self.remaining = size;
        self.padding = size.wrapping_neg() % BLOCK;
        Ok(())
    }

    /// Goes to the end of the entry. Some writers (umoci's `insert`) leave out the padding after the last one and the
    /// blocks that end an archive, which every reader takes for the end; data that is missing is something else.
    fn skip_rest(&mut self) -> Result<(), ArchiveError> {
        let padding = std::mem::take(&mut self.padding);
        let mut left = std::mem::take(&mut self.remaining) + padding;
        while left > 0 {
            let available = match self.input.fill_buf() {
                Ok([]) if left <= padding => return Ok(()),
                Ok([]) => return Err(self.malformed(Malformed::Truncated)),
                Ok(buffer) => buffer.len(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(ArchiveError::Read(error)),
            };
            let step = left.min(available as u64);
            // `step` is at most `available`, so it fits.
            self.input.consume(step as usize);
            self.offset += step;
            left -= step;
        }
        Ok(())
    }

    fn entry(&mut self, header: &Header, size: u64, extensions: Extensions) -> Result<Entry, ArchiveError> {
        let mut pax = extensions.pax.unwrap_or_default();
        let name = self.agree(extensions.long_name, pax.path)?;
        let name = match pax.sparse.name.take() {
            Some(name) => name,
            None => name.unwrap_or_else(|| header.path_bytes().into_owned()),
        };
        let link = self
            .agree(extensions.long_link, pax.linkpath)?
            .or_else(|| header.link_name_bytes().map(|link| link.into_owned()))
            .unwrap_or_default();
        for text in [&name, &link] {
            if text.contains(&0) {
                return Err(self.malformed(Malformed::NulInName));
            }
            if text.len() > self.limits.path {
                return Err(OverBudget::Path(self.limits.path).into());
            }
        }
        let kind = self.kind(header, &name)?;
        // A PAX size stands for a header field that could not hold it, so it wins.
        let size = pax.size.unwrap_or(size);
        let data = match kind {
            Kind::File => size,
            // Hard links repeat the size of their target, and no reader takes that for data.
            Kind::HardLink => 0,
            _ if size == 0 => 0,
            _ => return Err(self.malformed(Malformed::DataWithoutFile)),
        };
        self.announce(data)?;
        let old = header.as_old();
        let id = |from_pax: Option<u32>, field: &[u8]| match from_pax {
            Some(id) => Ok(id),
            None => self.id(self.unsigned(field)?),
        };
        let mut entry = Entry {
            kind,
            mode: (self.unsigned(&old.mode)? & 0o7777) as u32,
            uid: id(pax.uid, &old.uid)?,
            gid: id(pax.gid, &old.gid)?,
            mtime: match pax.mtime {
                Some(mtime) => mtime,
                None => Timestamp {
                    seconds: number(&old.mtime).ok_or_else(|| self.malformed(Malformed::Number))?,
                    nanoseconds: 0,
                },
            },
            size: data,
            segments: None,
            xattrs: pax.xattrs,
            name,
            link,
        };
        if header.entry_type() == EntryType::GNUSparse {
            self.gnu_sparse(header, &mut entry)?;
        } else if pax.sparse.present && kind == Kind::File {
            self.pax_sparse(&pax.sparse, &mut entry)?;
        }
        Ok(entry)
    }

    /// A GNU long name and a PAX path may both be there if they say the same.
    fn agree(&self, gnu: Option<Vec<u8>>, pax: Option<Vec<u8>>) -> Result<Option<Vec<u8>>, ArchiveError> {
        match (gnu, pax) {
            (Some(gnu), Some(pax)) if gnu != pax => Err(self.malformed(Malformed::Contradiction)),
            (gnu, pax) => Ok(gnu.or(pax)),
        }
    }

    fn kind(&self, header: &Header, name: &[u8]) -> Result<Kind, ArchiveError> {
        let device = || -> Result<(u32, u32), ArchiveError> {
            let (major, minor) = match (header.as_ustar(), header.as_gnu()) {
                (Some(ustar), _) => (&ustar.dev_major, &ustar.dev_minor),
                (None, Some(gnu)) => (&gnu.dev_major, &gnu.dev_minor),
                (None, None) => return Ok((0, 0)),
            };
            let part = |field: &[u8]| {
                u32::try_from(self.unsigned(field)?).map_err(|_| self.malformed(Malformed::Number))
            };
            Ok((part(major)?, part(minor)?))
        };
        Ok(match header.entry_type() {
            // Before there were types a directory was told by its slash, and writers still do it.
            EntryType::Regular if name.ends_with(b"/") => Kind::Directory,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink,
            EntryType::Link => Kind::HardLink,
            EntryType::Fifo => Kind::Fifo,
            EntryType::Char => {
                let (major, minor) = device()?;
                Kind::CharDevice { major, minor }
            }
            EntryType::Block => {
                let (major, minor) = device()?;
                Kind::BlockDevice { major, minor }
            }
            other => return Err(self.malformed(Malformed::EntryType(other.as_byte()))),
        })
    }

    /// The last id means "leave it" to the kernel, so it cannot be an owner.
    fn id(&self, id: u64) -> Result<u32, ArchiveError> {
        match u32::try_from(id) {
            Ok(id) if id != u32::MAX => Ok(id),
            _ => Err(self.malformed(Malformed::Number)),
        }
    }

    fn unsigned(&self, field: &[u8]) -> Result<u64, ArchiveError> {
        number(field)
            .and_then(|number| u64::try_from(number).ok())
            .ok_or_else(|| self.malformed(Malformed::Number))
    }

    fn malformed(&self, problem: Malformed) -> ArchiveError {
        ArchiveError::Malformed {
            offset: self.offset,
            problem,
        }
    }
}

/// The data of one entry.
#[derive(Debug)]
pub struct Data<'a, R> {
    archive: &'a mut Archive<R>,
}

impl<R: BufRead> Data<'_, R> {
    /// The next run of bytes, straight from the input's buffer; empty when the entry is done. What was used is told
    /// with [`Data::consume`].
    pub fn run(&mut self) -> Result<&[u8], ArchiveError> {
        let archive = &mut *self.archive;
        if archive.remaining == 0 {
            return Ok(&[]);
        }
        let offset = archive.offset;
        loop {
            match archive.input.fill_buf() {
                Ok([]) => {
                    return Err(ArchiveError::Malformed {
                        offset,
                        problem: Malformed::Truncated,
                    });
                }
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ArchiveError::Read(error)),
            }
        }
        // Asked again because a borrow kept across the loop would outlive it; the buffer is filled by now.
        let buffer = archive.input.fill_buf().map_err(ArchiveError::Read)?;
        let length = archive.remaining.min(buffer.len() as u64) as usize;
        Ok(buffer.get(..length).unwrap_or_default())
    }

    pub fn consume(&mut self, used: usize) {
        self.archive.input.consume(used);
        self.archive.remaining = self.archive.remaining.saturating_sub(used as u64);
        self.archive.offset += used as u64;
    }
}

impl<R: BufRead> Read for Data<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let run = self.run().map_err(|error| match error {
            ArchiveError::Read(error) => error,
            other => io::Error::new(io::ErrorKind::UnexpectedEof, other),
        })?;
        let length = run.len().min(into.len());
        if let (Some(into), Some(run)) = (into.get_mut(..length), run.get(..length)) {
            into.copy_from_slice(run);
        }
        self.consume(length);
        Ok(length)
    }
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(nul) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(nul);
    }
    bytes
}

fn is_zero(block: &[u8]) -> bool {
    block.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            let mut archive = Archive::new(&bytes[..], &Budget::default());
            while let Ok(Some(_)) = archive.next() {}
        }

        /// Damage in a real archive: never a panic, and what is read stays within the file.
        #[test]
        fn damaged_archives_are_read_or_refused(at in 0usize..4096, with in any::<u8>()) {
            let mut builder = tar::Builder::new(Vec::new());
            let mut header = Header::new_gnu();
            header.set_size(700);
            header.set_mode(0o644);
            let long = "long/".repeat(40);
            builder.append_data(&mut header, &long[..199], &[7u8; 700][..]).unwrap();
            builder.append_data(&mut header, "short", &[8u8; 700][..]).unwrap();
            let mut bytes = builder.into_inner().unwrap();
            if let Some(byte) = bytes.get_mut(at) {
                *byte = with;
            }
            let mut archive = Archive::new(&bytes[..], &Budget::default());
            let mut sum = 0;
            while let Ok(Some(_)) = archive.next() {
                sum += io::copy(&mut archive.data(), &mut io::sink()).unwrap_or(0);
            }
            prop_assert!(sum <= bytes.len() as u64);
        }
    }
}
