//! A lease says what a living process uses, so that garbage collection leaves it alone. It is a locked file: when its
//! holder dies, the lock goes, and the file means nothing any more.

use std::{
    collections::HashSet,
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::{
    files::{read_whole, unique},
    layout::Layout,
    lock::{Lock, Mode},
};
use crate::image::digest::Digest;

const MAX_LEASE: u64 = 1 << 20;

/// Holds content in the store. Dropping it lets the content go.
#[derive(Debug)]
pub struct Lease(Option<Lock>);

impl Lease {
    /// Takes a lease on content that may or may not be there yet. Once this returns, nothing of it is removed, so
    /// whoever checks for presence afterwards can rely on the answer.
    pub(super) fn take(layout: &Layout, digests: &HashSet<Digest>) -> io::Result<Lease> {
        let text = serde_json::to_vec(digests)?;
        // Collection takes this lock exclusively, so it sees a lease whole or not at all.
        let _guard = Lock::take(&layout.lock(), Mode::Shared)?;
        loop {
            let path = unique(&layout.directory("leases"), "lease");
            // A file of an earlier process with our id may have the name.
            let Some(lock) = Lock::try_take(&path, Mode::Exclusive)? else {
                continue;
            };
            lock.file().set_len(0)?;
            let mut file = lock.file();
            let written = file.write_all(&text);
            let lease = Lease(Some(lock));
            return written.map(|()| lease);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(lock) = self.0.take() {
            // If it cannot be removed, it is at least no longer locked.
            let _ = lock.remove();
        }
    }
}

/// Removes the leases that nobody holds any more: executors that were killed leave theirs. Answers which.
pub(super) fn drop_dead(layout: &Layout) -> io::Result<Vec<PathBuf>> {
    let _guard = Lock::take(&layout.lock(), Mode::Exclusive)?;
    let mut gone = Vec::new();
    for entry in std::fs::read_dir(layout.directory("leases"))? {
        let path = entry?.path();
        if let Some(dead) = Lock::try_take(&path, Mode::Exclusive)? {
            dead.remove()?;
            gone.push(path);
        }
    }
    Ok(gone)
}

/// Everything under lease, and the end of leases nobody holds. To be called under the exclusive store lock.
pub(super) fn leased(layout: &Layout) -> io::Result<HashSet<Digest>> {
    let mut leased = HashSet::new();
    for entry in std::fs::read_dir(layout.directory("leases"))? {
        let path = entry?.path();
        match Lock::try_take(&path, Mode::Exclusive)? {
            Some(stale) => stale.remove()?,
            None => leased.extend(read(&path)?),
        }
    }
    Ok(leased)
}

fn read(path: &Path) -> io::Result<Vec<Digest>> {
    match read_whole(path, MAX_LEASE)? {
        // A lease that cannot be read might hold anything: better collect nothing than too much.
        Some(text) => serde_json::from_slice(&text).map_err(io::Error::from),
        None => Ok(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n3_the_lease_of_a_dead_holder_goes_and_that_of_a_living_one_stays() {
        let place = tempfile::tempdir().unwrap();
        let layout = Layout::open(place.path()).unwrap();
        let living = Lease::take(&layout, &HashSet::new()).unwrap();
        let dead = layout.directory("leases").join("dead");
        std::fs::write(&dead, "[]").unwrap();
        assert_eq!(drop_dead(&layout).unwrap(), [dead]);
        assert_eq!(std::fs::read_dir(layout.directory("leases")).unwrap().count(), 1);
        drop(living);
        assert_eq!(drop_dead(&layout).unwrap(), [] as [PathBuf; 0]);
    }
}
