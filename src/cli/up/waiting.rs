//! Pods that wait to be launched, and why.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::{Instant, sleep_until};

use crate::{
    pod::PodId,
    scheduler::{
        core::{Condition, Notice},
        service::{Handle, Unavailable},
    },
};

/// An instance that has waited for so long may not fit at all.
const PATIENCE: Duration = Duration::from_secs(2);

/// What was told already.
#[derive(Debug)]
pub(super) struct Waiting {
    next: Instant,
    told: BTreeMap<PodId, String>,
}

impl Default for Waiting {
    fn default() -> Self {
        Waiting {
            next: Instant::now() + PATIENCE,
            told: BTreeMap::new(),
        }
    }
}

impl Waiting {
    /// May be dropped and called again.
    pub async fn next_look(&self) {
        sleep_until(self.next).await;
    }

    /// Pods that have waited for some time, and what offers lack; each reason is told once.
    pub async fn look(&mut self, scheduler: &Handle) -> Result<Vec<(PodId, String)>, Unavailable> {
        self.next = Instant::now() + PATIENCE;
        let waiting = scheduler.ask(|core, stamp| {
            let all = core.queue(stamp.now).into_iter();
            let stuck = all.filter(|waiting| waiting.delayed.is_none() && waiting.waited >= PATIENCE);
            let reason = |waiting: crate::scheduler::core::status::Waiting| {
                let last = waiting.latest.last()?;
                let details: Vec<&str> = last
                    .refused
                    .iter()
                    .map(|refused| refused.detail.as_str())
                    .collect();
                Some((
                    waiting.pod.id.clone(),
                    format!("{} ({})", details.join("; "), last.host),
                ))
            };
            stuck.filter_map(reason).collect::<BTreeMap<_, _>>()
        });
        let waiting = waiting.await?;
        self.told.retain(|pod, _| waiting.contains_key(pod));
        let mut news = Vec::new();
        for (pod, why) in waiting {
            // Figures change with every instance that comes and goes; that somebody waits is said once.
            if self.told.insert(pod.clone(), why.clone()).is_none() {
                news.push((pod, why));
            }
        }
        Ok(news)
    }

    /// What holds up an instance that is to be launched again, if it is not the want of an offer.
    pub async fn back_off(&self, scheduler: &Handle, notice: &Notice) -> Result<Option<String>, Unavailable> {
        let Notice::InstanceChanged {
            pod,
            condition: Condition::Scheduled,
            ..
        } = notice
        else {
            return Ok(None);
        };
        let pod = pod.clone();
        let delayed = scheduler.ask(move |core, stamp| {
            let mut all = core.queue(stamp.now).into_iter();
            all.find(|waiting| waiting.pod.id == pod)?.delayed
        });
        Ok(delayed
            .await?
            .map(|left| format!("is launched again in {:.1}s", left.as_secs_f64())))
    }
}
