//! PAX headers: records that stand for header fields of the next entry.

use super::{
    Archive, ArchiveError, Malformed, OverBudget, Timestamp,
    numbers::{decimal, timestamp},
    sparse::SparseRecords,
};

#[derive(Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) linkpath: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<Timestamp>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: SparseRecords,
}

impl<R: std::io::BufRead> Archive<R> {
    pub(super) fn pax(&self, records: &[u8]) -> Result<Pax, ArchiveError> {
        let mut pax = Pax::default();
        let number_error = || self.malformed(Malformed::Number);
        for record in PaxRecords(records) {
            let (key, value) = record.ok_or_else(|| self.malformed(Malformed::PaxRecord))?;
            if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                if pax.xattrs.len() >= self.limits.xattrs {
                    return Err(OverBudget::Xattrs(self.limits.xattrs).into());
                }
                if name.is_empty() || name.contains(&0) {
                    return Err(self.malformed(Malformed::PaxRecord));
                }
                pax.xattrs.push((name.to_vec(), value.to_vec()));
                continue;
            }
            if key.starts_with(b"GNU.sparse.") {
                self.sparse_record(key, value, &mut pax.sparse)?;
                continue;
            }
            // An empty value takes the record back to what the header says.
            if value.is_empty() {
                continue;
            }
            match key {
                b"path" => self.set(&mut pax.path, value.to_vec())?,
                b"linkpath" => self.set(&mut pax.linkpath, value.to_vec())?,
                b"size" => self.set(&mut pax.size, decimal(value).ok_or_else(number_error)?)?,
                b"uid" => self.set(&mut pax.uid, self.id(decimal(value).ok_or_else(number_error)?)?)?,
                b"gid" => self.set(&mut pax.gid, self.id(decimal(value).ok_or_else(number_error)?)?)?,
                b"mtime" => self.set(&mut pax.mtime, timestamp(value).ok_or_else(number_error)?)?,
                _ => {}
            }
        }
        Ok(pax)
    }

    /// Some readers take the first of two records and some the last.
    fn set<T: PartialEq>(&self, slot: &mut Option<T>, value: T) -> Result<(), ArchiveError> {
        match slot {
            Some(before) if *before != value => Err(self.malformed(Malformed::Contradiction)),
            _ => {
                *slot = Some(value);
                Ok(())
            }
        }
    }

    fn sparse_record(
        &self,
        key: &[u8],
        value: &[u8],
        sparse: &mut SparseRecords,
    ) -> Result<(), ArchiveError> {
        sparse.present = true;
        let error = || self.malformed(Malformed::SparseMap);
        let number = || decimal(value).ok_or_else(error);
        match key {
            b"GNU.sparse.major" => self.set(&mut sparse.major, number()?),
            b"GNU.sparse.minor" => self.set(&mut sparse.minor, number()?),
            b"GNU.sparse.name" => self.set(&mut sparse.name, value.to_vec()),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.set(&mut sparse.real_size, number()?),
            b"GNU.sparse.offset" if sparse.map.len().is_multiple_of(2) => {
                sparse.map.push(number()?);
                Ok(())
            }
            b"GNU.sparse.numbytes" if !sparse.map.len().is_multiple_of(2) => {
                sparse.map.push(number()?);
                Ok(())
            }
            b"GNU.sparse.map" if sparse.map.is_empty() => {
                for part in value.split(|byte| *byte == b',') {
                    sparse.map.push(decimal(part).ok_or_else(error)?);
                }
                Ok(())
            }
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" | b"GNU.sparse.map" => Err(error()),
            _ => Ok(()),
        }
    }

    /// Readers disagree about global headers, so only those that change nothing are let through.
    pub(super) fn check_global(&self, records: &[u8]) -> Result<(), ArchiveError> {
        for record in PaxRecords(records) {
            let (key, value) = record.ok_or_else(|| self.malformed(Malformed::PaxRecord))?;
            let matters = matches!(
                key,
                b"path" | b"linkpath" | b"size" | b"uid" | b"gid" | b"mtime" | b"hdrcharset"
            ) || key.starts_with(b"SCHILY.xattr.")
                || key.starts_with(b"GNU.sparse.");
            if matters && !value.is_empty() {
                return Err(self.malformed(Malformed::GlobalPax));
            }
        }
        Ok(())
    }
}

/// Walks `LENGTH KEY=VALUE\n` records by their lengths; a malformed one yields `None` once.
struct PaxRecords<'a>(&'a [u8]);

impl<'a> Iterator for PaxRecords<'a> {
    type Item = Option<(&'a [u8], &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let record = self.split();
        if record.is_none() {
            self.0 = &[];
        }
        Some(record)
    }
}

impl<'a> PaxRecords<'a> {
    fn split(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let space = self.0.iter().take(20).position(|byte| *byte == b' ')?;
        let length = usize::try_from(decimal(self.0.get(..space)?)?).ok()?;
        let (record, rest) = self.0.split_at_checked(length)?;
        let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        self.0 = rest;
        let key = record.get(..equals).filter(|key| !key.is_empty())?;
        Some((key, record.get(equals + 1..)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pax_records_are_taken_by_length() {
        let read = |bytes: &'static [u8]| PaxRecords(bytes).collect::<Option<Vec<_>>>();
        // A newline inside a value is part of it.
        assert_eq!(
            read(b"10 a=\n\n=\n\n6 b=c\n"),
            Some(vec![(&b"a"[..], &b"\n\n=\n"[..]), (b"b", b"c")])
        );
        for odd in [
            &b"5 a=b\n"[..],
            b"7 a=b\n",
            b"6 a=b",
            b"6 a+b\n",
            b"x a=b\n",
            b"0 a=b\n",
            b"5 =b\n",
            b"99999999999999999999999 a=b\n",
        ] {
            assert_eq!(read(odd), None, "{odd:?}");
        }
    }
}
