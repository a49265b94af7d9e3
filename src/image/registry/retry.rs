//! When to try again, and when that is in vain.

use std::time::{Duration, SystemTime};

use hyper::{HeaderMap, header};

use super::RegistryError;

/// When to try again.
#[derive(Debug, Clone)]
pub struct Retry {
    /// Attempts without any progress before giving up.
    pub attempts: u32,
    pub first_delay: Duration,
    pub max_delay: Duration,
}

impl Default for Retry {
    fn default() -> Retry {
        Retry {
            attempts: 6,
            first_delay: Duration::from_millis(200),
            max_delay: Duration::from_secs(20),
        }
    }
}

/// Counts attempts and waits between them.
pub(super) struct Attempts<'a> {
    retry: &'a Retry,
    without_progress: u32,
    in_all: u32,
}

impl<'a> Attempts<'a> {
    pub(super) fn new(retry: &'a Retry) -> Attempts<'a> {
        Attempts {
            retry,
            without_progress: 0,
            in_all: 0,
        }
    }

    /// Waits before the next attempt, or gives the error back if there should be none. Progress earns patience, but
    /// not without end: a registry that sends a few bytes and breaks off is not worth a thousand connections.
    pub(super) async fn again(&mut self, error: RegistryError, progress: bool) -> Result<(), RegistryError> {
        self.without_progress = if progress { 0 } else { self.without_progress };
        self.without_progress += 1;
        self.in_all += 1;
        if !error.is_transient()
            || self.without_progress >= self.retry.attempts
            || self.in_all >= self.retry.attempts.saturating_mul(8)
        {
            return Err(error);
        }
        let doubled = 1u32 << (self.without_progress - 1).min(16);
        let delay = self
            .retry
            .first_delay
            .saturating_mul(doubled)
            .min(self.retry.max_delay);
        let delay = match error.retry_after() {
            // Who asks for more patience than we have is told so by giving up.
            Some(told) if told > self.retry.max_delay.saturating_mul(3) => return Err(error),
            Some(told) => told.max(delay),
            None => jittered(delay),
        };
        tracing::debug!(%error, ?delay, "trying again");
        tokio::time::sleep(delay).await;
        Ok(())
    }
}

/// Between half and the whole delay, so that pods started together do not come back together.
fn jittered(delay: Duration) -> Duration {
    let random = (uuid::Uuid::new_v4().as_u128() & 0xff) as u32;
    delay / 2 + delay.saturating_mul(random) / 512
}

/// Seconds, or a date.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = http_date(text)?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`, the one form in use.
fn http_date(text: &str) -> Option<SystemTime> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let mut words = text.split_once(", ")?.1.split_ascii_whitespace();
    let day: u64 = words.next()?.parse().ok().filter(|day| (1..=31).contains(day))?;
    let month_name = words.next()?;
    let month = MONTHS.iter().position(|month| *month == month_name)? as u64 + 1;
    let year: u64 = words
        .next()?
        .parse()
        .ok()
        .filter(|year| (1970..10_000).contains(year))?;
    let mut clock = words.next()?.split(':').map(|part| part.parse::<u64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    // Days since 1970 by counting leap days, with the year starting in March.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    let days = days.checked_sub(719_468)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(
        days * 86_400 + hour * 3600 + minute * 60 + second,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_in_both_forms() {
        let headers = |text: &'static str| {
            HeaderMap::from_iter([(header::RETRY_AFTER, header::HeaderValue::from_static(text))])
        };
        assert_eq!(retry_after(&headers("7")), Some(Duration::from_secs(7)));
        assert_eq!(
            retry_after(&headers("Sun, 06 Nov 1994 08:49:37 GMT")),
            Some(Duration::ZERO)
        );
        assert_eq!(retry_after(&headers("soon")), None);
        let at = http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        assert_eq!(
            at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs(),
            784_111_777
        );
        let leap = http_date("Thu, 29 Feb 2024 00:00:00 GMT").unwrap();
        assert_eq!(
            leap.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs(),
            1_709_164_800
        );
    }
}
