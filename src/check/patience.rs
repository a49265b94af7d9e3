//! A time-out that is the member's, not the machine's.

use std::{pin::pin, time::Duration};

use tokio::time::Instant;

/// A timer is never more exact than that.
const EXACT: Duration = Duration::from_millis(5);
/// So often the time is made good that we were kept waiting ourselves.
const MOST: u32 = 5;

/// Waits for the work no longer than that; `None`: its time is over. When nobody let us run while an answer may have
/// come, that time is given back: a busy machine makes no member sick.
pub(super) async fn within<T>(timeout: Duration, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    let mut deadline = Instant::now() + timeout;
    let mut given_back = 0;
    loop {
        tokio::select! {
            biased;
            done = &mut work => return Some(done),
            () = tokio::time::sleep_until(deadline) => {}
        }
        let now = Instant::now();
        let late = now.saturating_duration_since(deadline);
        if late < EXACT || given_back == MOST {
            return None;
        }
        given_back += 1;
        deadline = now + late.min(timeout);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn h_03_what_takes_too_long_is_given_up() {
        let begun = Instant::now();
        assert_eq!(
            within(Duration::from_millis(50), std::future::pending::<()>()).await,
            None
        );
        assert!(begun.elapsed() >= Duration::from_millis(50));
        assert_eq!(within(Duration::from_millis(50), async { 7 }).await, Some(7));
    }

    #[tokio::test]
    async fn time_in_which_we_could_not_run_is_no_time_of_the_member() {
        // Two steps that each need us: nobody lets us run in between.
        let two_steps = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            std::thread::sleep(Duration::from_millis(200));
            tokio::time::sleep(Duration::from_millis(1)).await;
            7
        };
        assert_eq!(within(Duration::from_millis(50), two_steps).await, Some(7));
    }
}
