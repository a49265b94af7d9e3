//! Files with holes, in all four forms there have been.

use std::io::{self, BufRead, Read};

use tar::{GnuExtSparseHeader, Header};

use super::{Archive, ArchiveError, BLOCK, Entry, Malformed, OverBudget, Segment};

#[derive(Default)]
pub(super) struct SparseRecords {
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<u64>,
    /// Formats 0.0 and 0.1: offset, length, offset, length …
    pub(super) map: Vec<u64>,
    pub(super) present: bool,
}

impl<R: BufRead> Archive<R> {
    pub(super) fn gnu_sparse(&mut self, header: &Header, entry: &mut Entry) -> Result<(), ArchiveError> {
        let gnu = header
            .as_gnu()
            .ok_or_else(|| self.malformed(Malformed::EntryType(b'S')))?;
        let mut map = SparseMap::default();
        let mut read = 0;
        let add = |archive: &Self, blocks: &[tar::GnuSparseHeader], map: &mut SparseMap| {
            for block in blocks.iter().filter(|block| !block.is_empty()) {
                map.push(
                    archive.unsigned(&block.offset)?,
                    archive.unsigned(&block.numbytes)?,
                );
            }
            Ok::<_, ArchiveError>(())
        };
        add(self, &gnu.sparse, &mut map)?;
        let mut more = gnu.is_extended();
        let (data, padding) = (self.remaining, self.padding);
        while more {
            read += BLOCK;
            if read > self.limits.header {
                return Err(OverBudget::Header(self.limits.header).into());
            }
            let mut extension = GnuExtSparseHeader::new();
            let mut block = [0; 512];
            if !self.block(&mut block)? {
                return Err(self.malformed(Malformed::Truncated));
            }
            extension.as_mut_bytes().copy_from_slice(&block);
            add(self, &extension.sparse, &mut map)?;
            more = extension.is_extended();
        }
        (self.remaining, self.padding) = (data, padding);
        let real_size = self.unsigned(&gnu.realsize)?;
        self.finish_sparse(map, real_size, entry)
    }

    pub(super) fn pax_sparse(
        &mut self,
        records: &SparseRecords,
        entry: &mut Entry,
    ) -> Result<(), ArchiveError> {
        let real_size = records
            .real_size
            .ok_or_else(|| self.malformed(Malformed::SparseMap))?;
        let mut map = SparseMap::default();
        match (records.major.unwrap_or(0), records.minor.unwrap_or(0)) {
            (0, _) => {
                let pairs = records.map.chunks_exact(2);
                if !pairs.remainder().is_empty() {
                    return Err(self.malformed(Malformed::SparseMap));
                }
                for pair in pairs {
                    if let [offset, length] = pair {
                        map.push(*offset, *length);
                    }
                }
            }
            (1, 0) => self.sparse_map_in_data(&mut map)?,
            _ => return Err(self.malformed(Malformed::SparseMap)),
        }
        self.finish_sparse(map, real_size, entry)
    }

    /// Format 1.0: decimal lines at the start of the data, filled up to a whole block.
    fn sparse_map_in_data(&mut self, map: &mut SparseMap) -> Result<(), ArchiveError> {
        let before = self.offset;
        let count = self.decimal_line(before)?;
        for _ in 0..count {
            let offset = self.decimal_line(before)?;
            let length = self.decimal_line(before)?;
            map.push(offset, length);
        }
        let used = self.offset - before;
        let fill = used.wrapping_neg() % BLOCK;
        let skipped = io::copy(&mut self.data().take(fill), &mut io::sink()).map_err(ArchiveError::Read)?;
        if skipped == fill {
            Ok(())
        } else {
            Err(self.malformed(Malformed::SparseMap))
        }
    }

    fn decimal_line(&mut self, start: u64) -> Result<u64, ArchiveError> {
        let mut value = 0u64;
        for digits in 0..=20 {
            let mut byte = [0];
            if self.data().read(&mut byte).map_err(ArchiveError::Read)? != 1 {
                return Err(self.malformed(Malformed::SparseMap));
            }
            if self.offset - start > self.limits.header {
                return Err(OverBudget::Header(self.limits.header).into());
            }
            match byte {
                [b'\n'] if digits > 0 => return Ok(value),
                [digit @ b'0'..=b'9'] => {
                    value = value
                        .checked_mul(10)
                        .and_then(|value| value.checked_add(u64::from(digit - b'0')))
                        .ok_or_else(|| self.malformed(Malformed::SparseMap))?;
                }
                _ => break,
            }
        }
        Err(self.malformed(Malformed::SparseMap))
    }

    fn finish_sparse(&self, map: SparseMap, real_size: u64, entry: &mut Entry) -> Result<(), ArchiveError> {
        if real_size > self.limits.bytes {
            return Err(OverBudget::Bytes(self.limits.bytes).into());
        }
        entry.segments = Some(
            map.check(real_size, self.remaining)
                .ok_or_else(|| self.malformed(Malformed::SparseMap))?,
        );
        entry.size = real_size;
        Ok(())
    }
}

#[derive(Default)]
struct SparseMap(Vec<Segment>);

impl SparseMap {
    fn push(&mut self, offset: u64, length: u64) {
        self.0.push(Segment { offset, length });
    }

    /// In order, without overlap, inside the file, and exactly as long as the data.
    fn check(self, real_size: u64, data: u64) -> Option<Vec<Segment>> {
        let (mut end, mut sum) = (0u64, 0u64);
        for segment in &self.0 {
            if segment.offset < end {
                return None;
            }
            end = segment.offset.checked_add(segment.length)?;
            sum = sum.checked_add(segment.length)?;
        }
        (end <= real_size && sum == data).then_some(self.0)
    }
}
