//! Mapped users: root of a member is nobody on the host (Z-10).
//!
//! All namespaces that are not about users stay the host's, and everything is made with the host's rights; it is the
//! task, at the very end, that enters a user namespace in which it can be root. So its capabilities count for files
//! of its own users and for nothing else. File systems that came from elsewhere (images, volumes) are shown with
//! mapped owners, by mounts that translate.

use std::{fmt, os::fd::OwnedFd, str::FromStr, sync::Arc};

/// Users and groups of the host that stand for 0, 1, 2, …
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    first: u32,
    count: u32,
}

impl IdRange {
    /// `None` if the host's root, or a number that is none, were among them.
    pub fn new(first: u32, count: u32) -> Option<Self> {
        let last = first.checked_add(count.checked_sub(1)?)?;
        (first > 0 && last < u32::MAX).then_some(Self { first, count })
    }

    /// The host's number of root.
    pub fn root(self) -> u32 {
        self.first
    }

    pub fn count(self) -> u32 {
        self.count
    }

    /// The host's number of a member's user or group, if it has one.
    pub fn outside(self, inside: u32) -> Option<u32> {
        (inside < self.count).then(|| self.first + inside)
    }
}

impl fmt::Display for IdRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.first, self.count)
    }
}

impl FromStr for IdRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text
            .split_once(':')
            .and_then(|(first, count)| Self::new(first.parse().ok()?, count.parse().ok()?));
        parsed
            .ok_or_else(|| "is not `first:count`, such as `100000:65536`, without the host's root".to_owned())
    }
}

/// A user namespace with nothing but that mapping, held by its descriptor.
#[derive(Debug)]
pub struct MappedUsers {
    pub range: IdRange,
    pub(super) namespace: Arc<OwnedFd>,
}

impl MappedUsers {
    pub fn namespace(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn z_10_ranges_never_hold_the_hosts_root_nor_wrap() {
        let range: IdRange = "100000:65536".parse().unwrap();
        assert_eq!(range.to_string(), "100000:65536");
        assert_eq!(
            (range.outside(0), range.outside(65_535)),
            (Some(100_000), Some(165_535))
        );
        assert_eq!(range.outside(65_536), None);
        for text in [
            "",
            "1",
            "0:10",
            "5:0",
            "4294967295:1",
            "4294967290:6",
            "1:4294967295",
            "-1:5",
            "1:2:3",
        ] {
            assert!(text.parse::<IdRange>().is_err(), "{text}");
        }
        assert!("4294967290:5".parse::<IdRange>().is_ok());
    }
}
