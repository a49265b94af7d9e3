//! Room on the file system of the store: a pull does not take the last of it.

use std::path::Path;

/// What is left for everybody else, of the file system in hundredths. With 0 nobody looks: a disk that is full says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reserve(pub u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "it needs at least {needed} bytes, and the image store's file system has {free} free, of which {reserve} are \
     not for images (`images_reserve`); make room there, or let `images_store` name another place"
)]
pub struct NoRoom {
    needed: u64,
    free: u64,
    reserve: u64,
}

impl Reserve {
    /// Whether so many bytes more still leave it. File systems that do not say how large they are have room.
    pub(super) fn check(self, store: &Path, needed: u64) -> Result<(), NoRoom> {
        if self.0 == 0 {
            return Ok(());
        }
        let Ok(found) = rustix::fs::statvfs(store) else {
            return Ok(());
        };
        self.judge(
            needed,
            found.f_bavail.saturating_mul(found.f_frsize),
            found.f_blocks.saturating_mul(found.f_frsize),
        )
    }

    fn judge(self, needed: u64, free: u64, all: u64) -> Result<(), NoRoom> {
        let reserve = all / 100 * self.0;
        match all == 0 || free >= needed.saturating_add(reserve) {
            true => Ok(()),
            false => Err(NoRoom {
                needed,
                free,
                reserve,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_left_to_others() {
        assert_eq!(Reserve(5).judge(0, 0, 0), Ok(()));
        assert_eq!(Reserve(5).judge(95, 100, 100), Ok(()));
        let full = Reserve(5).judge(96, 100, 100).unwrap_err();
        assert!(full.to_string().contains("at least 96 bytes"), "{full}");
        assert!(full.to_string().contains("has 100 free, of which 5"), "{full}");
        // Nothing more is needed, but somebody else has taken what was there.
        assert!(Reserve(5).judge(0, 4, 100).is_err());
        assert!(Reserve(5).judge(u64::MAX, 1, u64::MAX).is_err());
    }
}
