//! Small files of the store: written beside and renamed, never seen half-written.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// Writes a file so that others see the old content or the new. What must survive a loss of power is made durable by
/// whoever needs that; a document here is checked against its digest whenever it is read.
pub(super) fn write_whole(path: &Path, bytes: &[u8], scratch: &Path) -> io::Result<()> {
    let beside = unique(scratch, "file");
    let result = create_private(&beside)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(&beside, path));
    if result.is_err() {
        let _ = fs::remove_file(&beside);
    }
    result
}

/// Creates a file that only we may read, on threads without a umask too.
pub(super) fn create_private(path: &Path) -> io::Result<File> {
    File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

/// Reads a file of at most `limit` bytes; `None` if it is not there.
pub(super) fn read_whole(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "larger than it can be",
        ));
    }
    Ok(Some(bytes))
}

/// A name nobody else uses: other processes have another id, and names left by a dead one are cleared away.
pub(super) fn unique(directory: &Path, what: &str) -> PathBuf {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    directory.join(format!("{what}-{}-{number}", std::process::id()))
}
