//! Durations as Mesos writes them in text: `5secs`, `1.5secs`, `15mins` (wire file, section 7).

use std::time::Duration;

/// Nanoseconds in each unit, longest first.
const UNITS: [(&str, u64); 8] = [
    ("weeks", 604_800_000_000_000),
    ("days", 86_400_000_000_000),
    ("hrs", 3_600_000_000_000),
    ("mins", 60_000_000_000),
    ("secs", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Mesos counts nanoseconds in 64 bits with a sign: about 292 years.
pub const MAX: Duration = Duration::from_nanos(i64::MAX as u64);

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    #[error("`{0}` is not a duration: a number and a unit are wanted, such as `5secs` or `1.5mins`")]
    NoNumber(String),
    #[error("`{0}` is not a duration: the unit is one of ns, us, ms, secs, mins, hrs, days, weeks")]
    Unit(String),
    #[error("the duration `{0}` is longer than Mesos can count (about 292 years)")]
    TooLong(String),
}

/// Reads a duration; what is below a nanosecond is dropped.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let quoted = || text.chars().take(40).collect::<String>();
    let unit_at = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.len() + fraction.len() == 0 || fraction.contains('.') {
        return Err(DurationError::NoNumber(quoted()));
    }
    let Some((_, nanos)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(DurationError::Unit(quoted()));
    };
    // Digit by digit in whole numbers: `0.1secs` is exactly 100 ms, which it would not be as a double.
    let mut total = 0u128;
    for digit in whole.bytes() {
        total = total * 10 + u128::from(digit - b'0') * u128::from(*nanos);
        if total > MAX.as_nanos() {
            return Err(DurationError::TooLong(quoted()));
        }
    }
    let (mut share, mut part) = (u128::from(*nanos) * PRECISION, 0);
    for digit in fraction.bytes() {
        share /= 10;
        part += u128::from(digit - b'0') * share;
    }
    total += part / PRECISION;
    match u64::try_from(total) {
        Ok(nanos) if i64::try_from(nanos).is_ok() => Ok(Duration::from_nanos(nanos)),
        _ => Err(DurationError::TooLong(quoted())),
    }
}

/// How finely fractions are counted: enough for sixteen digits of a week's nanoseconds.
const PRECISION: u128 = 10_u128.pow(16);

/// Writes a duration in the longest unit that makes it a whole number, so nothing is lost: 1.5 s is `1500ms`.
pub fn format(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0ns".into();
    }
    let whole = UNITS
        .iter()
        .find(|(_, unit)| nanos.is_multiple_of(u128::from(*unit)));
    let (name, unit) = whole.unwrap_or(&("ns", 1));
    format!("{}{name}", nanos / u128::from(*unit))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_unit_and_fractions_are_read_exactly() {
        for (text, nanos) in [
            ("5secs", 5_000_000_000),
            ("1.5secs", 1_500_000_000),
            ("15mins", 900_000_000_000),
            ("1hrs", 3_600_000_000_000),
            ("2days", 172_800_000_000_000),
            ("1weeks", 604_800_000_000_000),
            ("250ms", 250_000_000),
            ("7us", 7_000),
            ("3ns", 3),
            ("0.1secs", 100_000_000),
            ("1.01666666666667mins", 61_000_000_000),
            ("1.42857142857143weeks", 864_000_000_000_000),
            (".5secs", 500_000_000),
            ("5.secs", 5_000_000_000),
            ("0secs", 0),
            ("0.9ns", 0),
            ("9223372036854775807ns", i64::MAX as u64),
            ("000000000000000000000000000000000000001secs", 1_000_000_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_duration_is_named() {
        let no_number = [
            "",
            "secs",
            ".secs",
            "1.2.3secs",
            "-5secs",
            " 5secs",
            "+1secs",
            "infinity",
        ];
        for text in no_number {
            assert_eq!(parse(text), Err(DurationError::NoNumber(text.into())), "{text}");
        }
        for text in [
            "5", "5s", "5 secs", "5sec", "5Secs", "1e3secs", "5secs ", "5secs5", "5٣secs", "5minutes",
        ] {
            assert_eq!(parse(text), Err(DurationError::Unit(text.into())), "{text}");
        }
        for text in [
            "9223372036854775808ns",
            "9223372036854775807.0weeks",
            "15251weeks",
            "9223372036854775807secs",
        ] {
            assert_eq!(parse(text), Err(DurationError::TooLong(text.into())), "{text}");
        }
        let hostile = "9".repeat(1 << 20) + "weeks";
        assert_eq!(parse(&hostile), Err(DurationError::TooLong("9".repeat(40))));
    }

    #[test]
    fn the_longest_whole_unit_is_written() {
        for (nanos, text) in [
            (0, "0ns"),
            (1, "1ns"),
            (1_500_000_000, "1500ms"),
            (5_000_000_000, "5secs"),
            (900_000_000_000, "15mins"),
            (864_000_000_000_000, "10days"),
            (604_800_000_000_000, "1weeks"),
        ] {
            assert_eq!(format(Duration::from_nanos(nanos)), text);
        }
    }

    proptest! {
        #[test]
        fn writing_and_reading_loses_nothing(nanos in 0..=i64::MAX as u64) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse(&format(duration)), Ok(duration));
        }

        #[test]
        fn no_text_makes_the_reader_fall_over(text in "[0-9.]{0,30}[a-z]{0,5}|.*") {
            if let Ok(duration) = parse(&text) {
                prop_assert!(duration <= MAX);
            }
        }
    }
}
