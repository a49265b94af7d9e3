//! Checks that what the store has is what was once checked and unpacked.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    os::{
        fd::OwnedFd,
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{self as kernel, FileType, Mode, OFlags, ResolveFlags};
use serde::Serialize;

use super::{Disk, ImageRecord, StoreError};
use crate::image::{
    digest::Digest,
    unpack::{Sum, read_sums},
};

/// More than these are not told apart any more.
const MAX_PROBLEMS: usize = 100;

/// What a check found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Verified {
    /// Files whose content was read and compared.
    pub files: u64,
    pub bytes: u64,
    /// What is wrong, in sentences; empty if nothing is.
    pub problems: Vec<String>,
}

impl Verified {
    pub fn is_whole(&self) -> bool {
        self.problems.is_empty()
    }

    fn problem(&mut self, sentence: impl Into<String>) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(sentence.into());
        }
    }
}

impl Disk {
    /// Checks one image: its documents by their digests, its layers file by file.
    pub(in crate::image) fn verify(&self, manifest: Digest) -> Result<Verified, StoreError> {
        let mut report = Verified::default();
        let Some(record) = self.image(manifest)? else {
            report.problem(format!("the record of image {manifest} is missing"));
            return Ok(report);
        };
        // Held so that collecting cannot look like damage.
        let _lease = self.lease(&record.digests())?;
        self.verify_documents(&record, &mut report)?;
        let mut seen = HashSet::new();
        for layer in record.layers.iter().filter(|layer| seen.insert(**layer)) {
            let Some(record) = self.layer(*layer)? else {
                report.problem(format!(
                    "layer {layer} is missing, or was not on the disk when the power failed"
                ));
                continue;
            };
            let before = report.files;
            let directory = self.layout.layer(*layer);
            if let Err(error) = verify_layer(*layer, &directory, &mut report) {
                report.problem(format!("layer {layer} cannot be read: {error}"));
            }
            let found = report.files - before;
            match record.files.unwrap_or(0).saturating_sub(found) {
                0 => {}
                1 => report.problem(format!("layer {layer}: 1 file is missing")),
                missing => report.problem(format!("layer {layer}: {missing} files are missing")),
            }
        }
        Ok(report)
    }

    fn verify_documents(&self, record: &ImageRecord, report: &mut Verified) -> Result<(), StoreError> {
        for (what, digest) in [("manifest", record.manifest), ("configuration", record.config)] {
            if self.document(digest)?.is_none() {
                report.problem(format!("the {what} {digest} is missing or damaged"));
            }
        }
        Ok(())
    }
}

fn verify_layer(layer: Digest, directory: &Path, report: &mut Verified) -> io::Result<()> {
    let mut sums = read_sums(File::open(directory.join("sums"))?)?;
    let root = File::open(directory.join("fs"))?;
    // Paths, not descriptors: a layer may be as wide and deep as it likes.
    let mut pending = vec![PathBuf::from(".")];
    let mut seen = HashSet::new();
    while let Some(path) = pending.pop() {
        let fd = match open_inside(&root, &path, OFlags::DIRECTORY) {
            Ok(fd) => fd,
            Err(error) => {
                report.problem(format!(
                    "layer {layer}: directory {path:?} cannot be read: {error}"
                ));
                continue;
            }
        };
        for entry in kernel::Dir::read_from(&fd)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let below = path.join(OsStr::from_bytes(name));
            let kind = match entry.file_type() {
                FileType::Unknown => {
                    let stat = kernel::statat(&fd, entry.file_name(), kernel::AtFlags::SYMLINK_NOFOLLOW)?;
                    FileType::from_raw_mode(stat.st_mode)
                }
                kind => kind,
            };
            match kind {
                FileType::Directory => pending.push(below),
                // A hard link needs to be read once.
                FileType::RegularFile if seen.insert(entry.ino()) => {
                    verify_file(layer, &root, below, &mut sums, report);
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn verify_file(
    layer: Digest,
    root: &File,
    path: PathBuf,
    sums: &mut HashMap<u64, u32>,
    report: &mut Verified,
) {
    match sum_of(root, &path) {
        Ok((inode, sum, bytes)) => {
            report.files += 1;
            report.bytes += bytes;
            match sums.remove(&inode) {
                Some(wanted) if wanted == sum => {}
                Some(_) => report.problem(format!("layer {layer}: file {path:?} is not as it was unpacked")),
                None => report.problem(format!("layer {layer}: file {path:?} was not in the layer")),
            }
        }
        Err(error) => report.problem(format!("layer {layer}: file {path:?} cannot be read: {error}")),
    }
}

fn sum_of(root: &File, path: &Path) -> io::Result<(u64, u32, u64)> {
    let mut file = File::from(open_inside(root, path, OFlags::NOFOLLOW)?);
    let mut sum = Sum::default();
    let mut buffer = vec![0; 128 << 10];
    let mut bytes = 0;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        sum.update(buffer.get(..read).unwrap_or_default());
        bytes += read as u64;
    }
    let stat = kernel::fstat(&file)?;
    Ok((stat.st_ino, sum.finish(&stat), bytes))
}

fn open_inside(root: &File, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | flags;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let path = std::ffi::CString::new(path.as_os_str().to_owned().into_vec())?;
    Ok(kernel::openat2(root, &*path, flags, Mode::empty(), resolve)?)
}
