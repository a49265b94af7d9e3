//! Which offer can hold an instance, and why another cannot (mapping reference, section 14).

use std::{collections::BTreeSet, fmt, sync::Arc};

use serde::Serialize;

pub use self::shape::Shape;
use crate::{
    mesos::v1,
    pod::{
        InstanceId,
        model::{Container, Pod},
        task_group::{Allocation, HostPorts},
    },
};

/// Why an offer was not used, in the order of Marathon's funnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Reason {
    UnfulfilledRole,
    UnfulfilledConstraint,
    NoCorrespondingReservationFound,
    AgentMaintenance,
    InsufficientCpus,
    InsufficientMemory,
    InsufficientDisk,
    InsufficientGpus,
    InsufficientPorts,
    DeclinedScarceResources,
}

impl Reason {
    /// All, in the order of the funnel.
    pub const ALL: [Reason; 10] = [
        Reason::UnfulfilledRole,
        Reason::UnfulfilledConstraint,
        Reason::NoCorrespondingReservationFound,
        Reason::AgentMaintenance,
        Reason::InsufficientCpus,
        Reason::InsufficientMemory,
        Reason::InsufficientDisk,
        Reason::InsufficientGpus,
        Reason::InsufficientPorts,
        Reason::DeclinedScarceResources,
    ];
}

/// A reason with its figures, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub reason: Reason,
    pub detail: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.reason, self.detail)
    }
}

/// Mesos counts in thousandths; so do we, exactly.
type Milli = i64;

fn milli(value: f64) -> Milli {
    (value * 1000.0).round() as Milli
}

fn scalar(amount: Milli) -> v1::value::Scalar {
    v1::value::Scalar {
        value: amount as f64 / 1000.0,
    }
}

/// What is left of an offer while instances are placed on it.
#[derive(Debug, Clone)]
pub struct Pool {
    pub offer: v1::OfferId,
    pub agent: v1::AgentId,
    pub hostname: String,
    /// Executors of ours that the agent still has.
    executors: BTreeSet<String>,
    role: String,
    attributes: Arc<[v1::Attribute]>,
    /// Counted once for all who compare.
    room: (Milli, Milli),
    scalars: Vec<Scalar>,
    ports: Vec<Ports>,
}

/// What an offer had of one resource when it was looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct Offered {
    pub name: String,
    pub role: String,
    pub amount: Amount,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Amount {
    Scalar(f64),
    /// Inclusive.
    Ranges(Vec<(u16, u16)>),
}

#[derive(Debug, Clone)]
struct Scalar {
    left: Milli,
    /// The entry of the offer, for its role and reservation.
    entry: v1::Resource,
}

#[derive(Debug, Clone)]
struct Ports {
    /// Inclusive, and disjoint.
    ranges: Vec<(u16, u16)>,
    entry: v1::Resource,
}

/// Who gets a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Executor,
    Container(usize),
}

/// What was cut from one entry.
#[derive(Debug, Clone, Copy)]
struct Piece {
    owner: Owner,
    source: usize,
    amount: Milli,
}

/// The role an entry is reserved for; `*` when for nobody.
fn reserved_for(entry: &v1::Resource) -> &str {
    entry
        .reservations
        .last()
        .and_then(|reservation| reservation.role.as_deref())
        .unwrap_or("*")
}

impl Pool {
    pub fn new(offer: &v1::Offer) -> Self {
        let mut scalars = Vec::new();
        let mut ports = Vec::new();
        // Reserved before unreserved: what only we can use is used first.
        let mut entries: Vec<&v1::Resource> = offer
            .resources
            .iter()
            .filter(|entry| entry.revocable.is_none())
            .collect();
        entries.sort_by_key(|entry| reserved_for(entry) == "*");
        for entry in entries {
            if let Some(value) = &entry.scalar {
                scalars.push(Scalar {
                    left: milli(value.value),
                    entry: entry.clone(),
                });
            }
            if let Some(ranges) = entry.ranges.as_ref().filter(|_| entry.name == "ports") {
                let port = |value: u64| u16::try_from(value).unwrap_or(u16::MAX);
                let ranges = ranges
                    .range
                    .iter()
                    .map(|range| (port(range.begin), port(range.end)));
                let ranges = ranges.filter(|(begin, end)| begin <= end).collect();
                ports.push(Ports {
                    ranges,
                    entry: entry.clone(),
                });
            }
        }
        let role = offer.allocation_info.as_ref().and_then(|info| info.role.clone());
        Pool {
            offer: offer.id.clone(),
            agent: offer.agent_id.clone(),
            hostname: offer.hostname.clone(),
            executors: offer.executor_ids.iter().map(|id| id.value.clone()).collect(),
            role: role.unwrap_or_else(|| "*".to_owned()),
            attributes: offer.attributes.as_slice().into(),
            room: (0, 0),
            scalars,
            ports,
        }
        .measured()
    }

    /// Why this instance cannot come here yet, if the executor of its last run has not ended. The id stays the same over
    /// all runs, so the agent would bring the new tasks to the old executor.
    pub fn still_has(&self, instance: &InstanceId) -> Option<Refused> {
        let executor = instance.executor_id();
        self.executors.contains(&executor).then(|| Refused {
            reason: Reason::UnfulfilledConstraint,
            detail: format!("executor {executor} of the last run has not ended yet"),
        })
    }

    pub fn attributes(&self) -> &Arc<[v1::Attribute]> {
        &self.attributes
    }

    /// What is left, entry by entry.
    pub fn offered(&self) -> Vec<Offered> {
        let entry = |entry: &v1::Resource, amount| Offered {
            name: entry.name.clone(),
            role: reserved_for(entry).to_owned(),
            amount,
        };
        let scalars = self.scalars.iter().map(|source| {
            let amount = Amount::Scalar(scalar(source.left).value);
            entry(&source.entry, amount)
        });
        let ports = self
            .ports
            .iter()
            .map(|source| entry(&source.entry, Amount::Ranges(source.ranges.clone())));
        scalars.chain(ports).collect()
    }

    /// How much is left of what runs out first: cpus, then memory.
    pub fn room(&self) -> (i64, i64) {
        self.room
    }

    fn measure(&mut self) {
        let left = |name: &str| {
            self.scalars
                .iter()
                .filter(|source| source.entry.name == name)
                .fold(0, |sum: Milli, source| sum.saturating_add(source.left))
        };
        self.room = (left("cpus"), left("mem"));
    }

    fn measured(mut self) -> Self {
        self.measure();
        self
    }

    /// Why nothing of it may be used for this pod, if that is so.
    fn wrong_role(&self, pod: &Pod, accepted: &BTreeSet<&str>) -> Option<Refused> {
        let refused = |detail| Refused {
            reason: Reason::UnfulfilledRole,
            detail,
        };
        if self.role != pod.role {
            let detail = format!("offered to role {}, the pod's is {}", self.role, pod.role);
            return Some(refused(detail));
        }
        let entries = self.scalars.iter().map(|source| &source.entry);
        let entries = entries.chain(self.ports.iter().map(|source| &source.entry));
        let there: BTreeSet<&str> = entries.map(reserved_for).collect();
        (there.is_disjoint(accepted) && !there.is_empty()).then(|| {
            let names = |roles: &BTreeSet<&str>| roles.iter().copied().collect::<Vec<_>>().join(", ");
            refused(format!(
                "its resources are of role {}, acceptedResourceRoles wants {}",
                names(&there),
                names(accepted)
            ))
        })
    }

    /// What is missing of a resource, in words.
    fn shortage(&self, name: &str, pieces: &[Milli], accepted: &BTreeSet<&str>) -> String {
        let amount = |milli: Milli| scalar(milli).value;
        let (usable, others): (Vec<&Scalar>, Vec<&Scalar>) = self
            .scalars
            .iter()
            .filter(|source| source.entry.name == name)
            .partition(|source| accepted.contains(reserved_for(&source.entry)));
        let sum = |sources: &[&Scalar]| sources.iter().map(|source| source.left).sum::<Milli>();
        let wanted: Milli = pieces.iter().sum();
        let mut words = format!(
            "needs {} {name}, {} offered",
            amount(wanted),
            amount(sum(&usable))
        );
        if wanted <= sum(&usable) {
            let join = |amounts: &mut dyn Iterator<Item = Milli>| {
                let words: Vec<String> = amounts.map(|milli| amount(milli).to_string()).collect();
                words.join(" + ")
            };
            words.push_str(&format!(
                " in parts of {}, into which its pieces of {} do not fit",
                join(&mut usable.iter().map(|source| source.left)),
                join(&mut pieces.iter().copied().filter(|piece| *piece > 0))
            ));
        }
        if !others.is_empty() {
            words.push_str(&format!(" ({} more for other roles)", amount(sum(&others))));
        }
        words
    }

    /// Takes what one instance needs, or leaves the pool as it is and says everything that is missing.
    pub fn take(&mut self, pod: &Pod, chance: &mut Chance) -> Result<Allocation, Vec<Refused>> {
        let accepted = accepted_roles(pod);
        if let Some(refused) = self.wrong_role(pod, &accepted) {
            return Err(vec![refused]);
        }
        let executor = &pod.executor_resources;
        let mut pieces = Vec::new();
        let mut short = Vec::new();
        for (name, reason, own) in [
            ("cpus", Reason::InsufficientCpus, executor.cpus),
            ("mem", Reason::InsufficientMemory, executor.mem),
            ("disk", Reason::InsufficientDisk, executor.disk),
            ("gpus", Reason::InsufficientGpus, 0.0),
        ] {
            let of = |container: &Container| match name {
                "cpus" => container.resources.cpus,
                "mem" => container.resources.mem,
                "disk" => container.resources.disk,
                _ => f64::from(container.resources.gpus),
            };
            let containers = pod.containers.iter().enumerate();
            let asked = containers.map(|(index, container)| (Owner::Container(index), of(container)));
            let asked = std::iter::once((Owner::Executor, own)).chain(asked);
            let asked = asked.map(|(owner, amount)| (owner, milli(amount)));
            let all = asked.clone().fold(true, |all, (owner, amount)| {
                let found = amount <= 0 || self.cut(name, owner, amount, &accepted, &mut pieces);
                all && found
            });
            if !all {
                short.push((name, reason, asked.map(|(_, amount)| amount).collect::<Vec<_>>()));
            }
        }
        if !short.is_empty() {
            self.put_back(&pieces);
            let refused = short.into_iter().map(|(name, reason, asked)| Refused {
                reason,
                detail: self.shortage(name, &asked, &accepted),
            });
            return Err(refused.collect());
        }
        // Ports last: they cost the most to look for and are rarely what is missing.
        let (host_ports, ports) = match self.take_ports(pod, &accepted, chance) {
            Ok(taken) => taken,
            Err(refused) => {
                self.put_back(&pieces);
                return Err(vec![refused]);
            }
        };
        self.measure();
        Ok(self.allocation(pod, &pieces, host_ports, ports))
    }

    /// Cuts a piece of one entry: nothing is composed of two. False when no entry has so much left.
    fn cut(
        &mut self,
        name: &str,
        owner: Owner,
        amount: Milli,
        accepted: &BTreeSet<&str>,
        pieces: &mut Vec<Piece>,
    ) -> bool {
        let fits = |(_, source): &(usize, &mut Scalar)| {
            source.entry.name == name
                && source.left >= amount
                && accepted.contains(reserved_for(&source.entry))
        };
        let Some((source, scalar)) = self.scalars.iter_mut().enumerate().find(fits) else {
            return false;
        };
        scalar.left -= amount;
        pieces.push(Piece {
            owner,
            source,
            amount,
        });
        true
    }

    fn put_back(&mut self, pieces: &[Piece]) {
        for piece in pieces {
            if let Some(scalar) = self.scalars.get_mut(piece.source) {
                scalar.left += piece.amount;
            }
        }
    }

    fn allocation(
        &self,
        pod: &Pod,
        pieces: &[Piece],
        host_ports: HostPorts,
        ports: Vec<v1::Resource>,
    ) -> Allocation {
        let of = |owner: Owner| -> Vec<v1::Resource> {
            let pieces = pieces.iter().filter(|piece| piece.owner == owner);
            let resource = |piece: &Piece| {
                let source = self.scalars.get(piece.source)?;
                Some(v1::Resource {
                    scalar: Some(scalar(piece.amount)),
                    ..source.entry.clone()
                })
            };
            pieces.filter_map(resource).collect()
        };
        Allocation {
            executor: of(Owner::Executor),
            containers: (0..pod.containers.len())
                .map(|index| of(Owner::Container(index)))
                .collect(),
            ports,
            host_ports,
        }
    }

    fn take_ports(
        &mut self,
        pod: &Pod,
        accepted: &BTreeSet<&str>,
        chance: &mut Chance,
    ) -> Result<(HostPorts, Vec<v1::Resource>), Refused> {
        let endpoints = || pod.containers.iter().flat_map(|container| &container.endpoints);
        let explicit: BTreeSet<u16> = endpoints()
            .filter_map(|endpoint| endpoint.host_port)
            .filter(|p| *p != 0)
            .collect();
        let mut taken: Vec<Vec<u16>> = vec![Vec::new(); self.ports.len()];
        let before: Vec<_> = match endpoints().any(|endpoint| endpoint.host_port.is_some()) {
            true => self.ports.iter().map(|source| source.ranges.clone()).collect(),
            false => Vec::new(),
        };
        let mut by_name = HostPorts::new();
        for endpoint in endpoints() {
            let Some(wish) = endpoint.host_port else { continue };
            let found = match wish {
                0 => self.any_port(accepted, &explicit, chance),
                port => self.this_port(port, accepted),
            };
            let Some((source, port)) = found else {
                let detail = match wish {
                    0 => format!("no port left for endpoint {}", endpoint.name),
                    port => format!("port {port} of endpoint {} is not offered", endpoint.name),
                };
                for (source, ranges) in self.ports.iter_mut().zip(before) {
                    source.ranges = ranges;
                }
                return Err(Refused {
                    reason: Reason::InsufficientPorts,
                    detail,
                });
            };
            if let Some(ports) = taken.get_mut(source) {
                ports.push(port);
            }
            by_name.insert(endpoint.name.clone(), port);
        }
        let range = |port: &u16| v1::value::Range {
            begin: u64::from(*port),
            end: u64::from(*port),
        };
        let resources = self
            .ports
            .iter()
            .zip(&taken)
            .filter(|(_, ports)| !ports.is_empty())
            .map(|(source, ports)| {
                let ranges = v1::value::Ranges {
                    range: ports.iter().map(range).collect(),
                };
                v1::Resource {
                    ranges: Some(ranges),
                    ..source.entry.clone()
                }
            });
        Ok((by_name, resources.collect()))
    }

    fn this_port(&mut self, port: u16, accepted: &BTreeSet<&str>) -> Option<(usize, u16)> {
        let holds = |source: &Ports| {
            accepted.contains(reserved_for(&source.entry))
                && source
                    .ranges
                    .iter()
                    .any(|(begin, end)| (*begin..=*end).contains(&port))
        };
        let index = self.ports.iter().position(holds)?;
        self.ports.get_mut(index)?.remove(port);
        Some((index, port))
    }

    /// A random free port, so that a port is not at once given to the next who asks after its owner died.
    fn any_port(
        &mut self,
        accepted: &BTreeSet<&str>,
        not: &BTreeSet<u16>,
        chance: &mut Chance,
    ) -> Option<(usize, u16)> {
        for (index, source) in self.ports.iter_mut().enumerate() {
            if !accepted.contains(reserved_for(&source.entry)) {
                continue;
            }
            let count: u64 = source
                .ranges
                .iter()
                .map(|(begin, end)| u64::from(end - begin) + 1)
                .sum();
            let Some(start) = chance.below(count) else {
                continue;
            };
            let nth = |mut position: u64| {
                source.ranges.iter().find_map(|(begin, end)| {
                    let size = u64::from(end - begin) + 1;
                    if position < size {
                        return begin.checked_add(u16::try_from(position).ok()?);
                    }
                    position -= size;
                    None
                })
            };
            let walk = (0..count).filter_map(|step| nth((start + step) % count));
            if let Some(port) = walk.take(not.len() + 1).find(|port| !not.contains(port)) {
                source.remove(port);
                return Some((index, port));
            }
        }
        None
    }
}

impl Ports {
    fn remove(&mut self, port: u16) {
        self.ranges = self
            .ranges
            .iter()
            .flat_map(|&(begin, end)| {
                if !(begin..=end).contains(&port) {
                    return vec![(begin, end)];
                }
                let below = (begin < port).then(|| (begin, port - 1));
                let above = (port < end).then(|| (port + 1, end));
                below.into_iter().chain(above).collect()
            })
            .collect();
    }
}

/// What a pod may use: what it says, else its own role and what is nobody's.
fn accepted_roles(pod: &Pod) -> BTreeSet<&str> {
    let said = &pod.scheduling.placement.accepted_resource_roles;
    if said.is_empty() {
        BTreeSet::from(["*", pod.role.as_str()])
    } else {
        said.iter().map(String::as_str).collect()
    }
}

/// A stream of pseudo-random numbers from the entropy of a [`Stamp`](super::Stamp) (SplitMix64).
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    pub fn new(entropy: u128) -> Self {
        Chance((entropy as u64) ^ ((entropy >> 64) as u64))
    }

    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> Option<u64> {
        self.next_u64().checked_rem(bound)
    }

    pub fn uuid(&mut self) -> uuid::Uuid {
        let bits = u128::from(self.next_u64()) << 64 | u128::from(self.next_u64());
        uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid()
    }
}

mod shape;

#[cfg(test)]
mod tests;
