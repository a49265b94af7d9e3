//! The update stream: what was told, and what of it the agent has not taken charge of yet.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{event::MemberId, wire::Wire};
use crate::mesos::v1;

/// Fresh, distinct ids out of the entropy of one event.
#[derive(Debug)]
pub struct Chance {
    seed: u128,
    drawn: u64,
}

impl Chance {
    pub fn new(entropy: [u8; 16]) -> Self {
        Chance {
            seed: u128::from_le_bytes(entropy),
            drawn: 0,
        }
    }

    /// A version 4 UUID. Two of one event differ for certain: the mixing is a bijection for each half.
    pub fn uuid(&mut self) -> uuid::Uuid {
        self.drawn += 1;
        let low = mix((self.seed as u64).wrapping_add(self.drawn.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
        let high = mix(((self.seed >> 64) as u64) ^ low);
        let bits = (u128::from(high) << 64) | u128::from(low);
        uuid::Builder::from_random_bytes(bits.to_le_bytes()).into_uuid()
    }
}

/// The finaliser of SplitMix64.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Updates that are not acknowledged, in the order they were made (R3, U-11).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Outbox {
    pending: VecDeque<Pending>,
    /// Number of the next update.
    next: u64,
    /// Updates below this number travel in the SUBSCRIBE that is under way.
    carried: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Pending {
    number: u64,
    member: MemberId,
    kind: Kind,
    /// The agent may have seen it.
    told: bool,
    status: Wire<v1::TaskStatus>,
}

/// What an update is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A new state of the member.
    Life,
    /// RUNNING again, with another result of a check. A later one says all that an earlier one says (U-03).
    Result,
}

impl Outbox {
    /// Keeps an update until it is acknowledged. `told`: it is being sent as well.
    ///
    /// A check result that nobody has seen makes room for a newer one, so that a long time without an agent cannot
    /// fill the memory (S-11).
    pub fn push(&mut self, member: MemberId, kind: Kind, status: Wire<v1::TaskStatus>, told: bool) {
        if kind == Kind::Result {
            let last = self.pending.iter().rposition(|p| p.member == member);
            if let Some(at) = last
                && let Some(p) = self.pending.get(at)
                && p.kind == Kind::Result
                && !p.told
            {
                self.pending.remove(at);
            }
        }
        self.pending.push_back(Pending {
            number: self.next,
            member,
            kind,
            told,
            status,
        });
        self.next += 1;
    }

    /// Drops an update that the agent has taken charge of; tells whose it was.
    pub fn acknowledge(&mut self, task: &str, uuid: &[u8]) -> Option<MemberId> {
        let at = self
            .pending
            .iter()
            .position(|p| p.status.uuid() == uuid && p.status.task_id.value == task)?;
        self.pending.remove(at).map(|p| p.member)
    }

    /// Every update for a SUBSCRIBE that is written now.
    pub fn carry(&mut self) -> Vec<Wire<v1::TaskStatus>> {
        self.carried = self.next;
        for p in &mut self.pending {
            p.told = true;
        }
        self.pending.iter().map(|p| p.status.clone()).collect()
    }

    /// What the SUBSCRIBE that has just been answered did not carry.
    pub fn left_behind(&mut self) -> Vec<Wire<v1::TaskStatus>> {
        let carried = std::mem::take(&mut self.carried);
        let left = self.pending.iter_mut().filter(|p| p.number >= carried);
        left.map(|p| {
            p.told = true;
            p.status.clone()
        })
        .collect()
    }

    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    pub fn holds(&self, member: MemberId) -> bool {
        self.pending.iter().any(|p| p.member == member)
    }

    pub fn iter(&self) -> impl Iterator<Item = &v1::TaskStatus> {
        self.pending.iter().map(|p| &*p.status)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_of_one_event_and_of_neighbouring_events_differ() {
        let mut seen = HashSet::new();
        for n in 0..100u128 {
            let mut chance = Chance::new(n.to_le_bytes());
            for _ in 0..100 {
                let uuid = chance.uuid();
                assert_eq!(uuid.get_version_num(), 4);
                assert_eq!(uuid.get_variant(), uuid::Variant::RFC4122);
                assert!(seen.insert(uuid));
            }
        }
    }

    #[test]
    fn the_same_entropy_gives_the_same_ids() {
        assert_eq!(Chance::new([7; 16]).uuid(), Chance::new([7; 16]).uuid());
    }
}
