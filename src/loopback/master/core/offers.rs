//! Who is offered what, until it is used, declined or taken back.

use std::{collections::BTreeMap, time::Duration};

use super::{super::amounts::Amounts, Core, Out, blank, frameworks::Framework, tasks::is_terminal};
use crate::mesos::v1::{
    self,
    scheduler::{Event, call, event},
};

/// As the real master has it, when nothing is said.
const REFUSE_SECONDS: f64 = 5.0;
const LONGEST_REFUSAL: Duration = Duration::from_secs(365 * 24 * 3600);

#[derive(Debug)]
pub(super) struct Offer {
    pub framework: String,
    pub agent: usize,
    pub amounts: Amounts,
}

/// What was refused is not offered again for a while, nor is a part of it; more than that is news.
#[derive(Debug)]
pub(super) struct Filter {
    refused: Amounts,
    pub until: Duration,
}

impl Core {
    /// Takes a framework's offers back.
    pub(super) fn withdraw(&mut self, id: &str) {
        let taken: Vec<String> = self
            .offers
            .iter()
            .filter(|(_, offer)| offer.framework == id)
            .map(|(id, _)| id.clone())
            .collect();
        for offer in taken {
            if let Some(offer) = self.offers.remove(&offer) {
                self.release(offer.agent, &offer.amounts);
            }
        }
    }

    /// Ends an offer that a framework answers; none if it is not its own, or over.
    pub(super) fn claim(&mut self, framework: &str, offer: &str) -> Option<Offer> {
        let own = self.offers.get(offer)?.framework == framework;
        own.then(|| self.offers.remove(offer)).flatten()
    }

    pub(super) fn decline(&mut self, id: &str, decline: &call::Decline) {
        for offer in &decline.offer_ids {
            if let Some(offer) = self.claim(id, &offer.value) {
                self.give_back(id, offer.agent, offer.amounts, decline.filters.as_ref());
            }
        }
    }

    /// What a framework had an offer for and does not use.
    pub(super) fn give_back(
        &mut self,
        framework: &str,
        agent: usize,
        unused: Amounts,
        filters: Option<&v1::Filters>,
    ) {
        self.release(agent, &unused);
        let refuse = filters.map_or(REFUSE_SECONDS, |filters| filters.refuse_seconds());
        // What is no time at all means the default, what is too long a year, as in the real allocator.
        let refuse = match refuse.is_nan() || refuse < 0.0 {
            true => REFUSE_SECONDS,
            false => refuse.min(LONGEST_REFUSAL.as_secs_f64()),
        };
        let refuse = Duration::from_secs_f64(refuse);
        if refuse.is_zero() || unused.is_empty() {
            return;
        }
        let until = self.now.saturating_add(refuse);
        if let Some(framework) = self.frameworks.get_mut(framework) {
            let filters = framework.filters.entry(agent).or_default();
            // A filter that refuses no more, and no longer, than the new one has become pointless.
            filters.retain(|old| old.until > until || !unused.hold(&old.refused));
            filters.push(Filter {
                refused: unused,
                until,
            });
        }
    }

    pub(super) fn revive(&mut self, id: &str) {
        if let Some(framework) = self.frameworks.get_mut(id) {
            framework.suppressed = false;
            framework.filters.clear();
        }
    }

    pub(super) fn suppress(&mut self, id: &str) {
        if let Some(framework) = self.frameworks.get_mut(id) {
            framework.suppressed = true;
        }
    }

    /// Offers everything that is free: each agent whole, to the framework that has least of those that want it.
    pub(super) fn allocate(&mut self, out: &mut Out) {
        let mut offers: BTreeMap<String, Vec<v1::Offer>> = BTreeMap::new();
        for index in 0..self.agents.len() {
            let Some(agent) = self
                .agents
                .get(index)
                .filter(|agent| !agent.away && !agent.free.is_empty())
            else {
                continue;
            };
            let wants =
                |(_, framework): &(&String, &Framework)| framework.wants(index, &agent.free, self.now);
            let poorest = |(id, framework): &(&String, &Framework)| {
                let offered = self
                    .offers
                    .values()
                    .filter(|offer| offer.framework == **id)
                    .count();
                let live = framework
                    .tasks
                    .values()
                    .filter(|task| !is_terminal(task.state))
                    .count();
                (offered, live)
            };
            let mut wanting = self.frameworks.iter().filter(wants);
            // Mostly there is but one, and nothing to compare.
            let chosen = match (wanting.next(), wanting.next()) {
                (first, None) => first,
                (first, second) => first.into_iter().chain(second).chain(wanting).min_by_key(poorest),
            };
            let Some(id) = chosen.map(|(id, _)| id.clone()) else {
                continue;
            };
            if let Some(offer) = self.offer(index, &id) {
                offers.entry(id).or_default().push(offer);
            }
        }
        for (id, offers) in offers {
            let offers = event::Offers { offers };
            out.event(
                &id,
                Event {
                    offers: Some(offers),
                    ..blank(event::Type::Offers)
                },
            );
        }
    }

    /// Makes an offer of all that an agent has free.
    fn offer(&mut self, index: usize, framework: &str) -> Option<v1::Offer> {
        let offer_id = self.fresh("O");
        let known = self.frameworks.get(framework)?;
        let role = known.role();
        let running = known.executors.keys().filter(|(agent, _)| *agent == index);
        let executor_ids = running
            .map(|(_, id)| v1::ExecutorId { value: id.clone() })
            .collect();
        let agent = self.agents.get_mut(index)?;
        let amounts = std::mem::take(&mut agent.free);
        let offer = v1::Offer {
            id: v1::OfferId {
                value: offer_id.clone(),
            },
            framework_id: v1::FrameworkId {
                value: framework.to_owned(),
            },
            agent_id: agent.id.clone(),
            hostname: agent.hostname.clone(),
            resources: amounts.resources(&role),
            allocation_info: Some(v1::resource::AllocationInfo { role: Some(role) }),
            executor_ids,
            ..Default::default()
        };
        self.offers.insert(
            offer_id,
            Offer {
                framework: framework.to_owned(),
                agent: index,
                amounts,
            },
        );
        Some(offer)
    }
}

impl Framework {
    fn wants(&self, agent: usize, free: &Amounts, now: Duration) -> bool {
        let refuses = |filter: &Filter| filter.until > now && filter.refused.hold(free);
        self.stream.is_some()
            && !self.suppressed
            && !self
                .filters
                .get(&agent)
                .is_some_and(|filters| filters.iter().any(refuses))
    }
}
