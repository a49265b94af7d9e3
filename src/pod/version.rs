//! The version of a definition: the instant it was made.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An instant in UTC with millisecond precision, written `2017-01-03T18:21:19.310Z`.
///
/// It names a version of a definition and marks every other time the API shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(jiff::Timestamp);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an ISO-8601 date and time with an offset, such as 2017-01-03T18:21:19.310Z")]
pub struct BadVersion(String);

impl Version {
    pub const EPOCH: Version = Version(jiff::Timestamp::UNIX_EPOCH);

    /// `None` outside the years a timestamp can name.
    pub fn from_millis(millis: i64) -> Option<Self> {
        jiff::Timestamp::from_millisecond(millis).ok().map(Version)
    }

    /// Milliseconds since the epoch.
    pub fn millis(self) -> i64 {
        self.0.as_millisecond()
    }

    /// The next instant; keeps versions of one pod unique when two updates fall into one millisecond.
    pub fn next(self) -> Self {
        Version::from_millis(self.millis().saturating_add(1)).unwrap_or(self)
    }
}

impl FromStr for Version {
    type Err = BadVersion;

    fn from_str(text: &str) -> Result<Self, BadVersion> {
        let bad = || BadVersion(text.chars().take(64).collect());
        // A longer text is no date; the cap keeps the parser off hostile input.
        if text.len() > 64 {
            return Err(bad());
        }
        let instant: jiff::Timestamp = text.parse().map_err(|_| bad())?;
        Version::from_millis(instant.as_millisecond()).ok_or_else(bad)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.0)
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_offset_and_fraction_is_read_and_milliseconds_in_utc_are_written() {
        for (read, written) in [
            ("2017-01-03T18:21:19.31Z", "2017-01-03T18:21:19.310Z"),
            ("2017-01-03T18:21:19.310Z", "2017-01-03T18:21:19.310Z"),
            ("2017-01-03T20:21:19+02:00", "2017-01-03T18:21:19.000Z"),
            ("2017-01-03T18:21:19.123456789Z", "2017-01-03T18:21:19.123Z"),
            ("1969-12-31T23:59:59.5Z", "1969-12-31T23:59:59.500Z"),
        ] {
            assert_eq!(read.parse::<Version>().unwrap().to_string(), written, "{read}");
        }
    }

    #[test]
    fn what_is_no_date_time_is_refused() {
        for text in [
            "",
            "latest",
            "2017-01-03",
            "2017-13-03T00:00:00Z",
            "2017-01-03T18:21:19",
            &"9".repeat(10_000),
        ] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_next_version_is_later() {
        let version = Version::from_millis(0).unwrap();
        assert!(version.next() > version);
    }
}
