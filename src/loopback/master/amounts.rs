//! Arithmetic on resources as Mesos does it: scalars in thousandths, ports as single numbers in ranges.
//!
//! The loopback cluster knows neither reservations nor revocable resources, so names are all there is to tell apart.

use std::{collections::BTreeMap, fmt};

use crate::mesos::v1;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Amounts {
    scalars: BTreeMap<String, i64>,
    ranges: BTreeMap<String, Ranges>,
}

/// Sorted, disjoint, inclusive, never touching.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    fn add(&mut self, ranges: impl IntoIterator<Item = (u64, u64)>) {
        self.0.extend(ranges);
        self.0.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::with_capacity(self.0.len());
        for &(begin, end) in &self.0 {
            match merged.last_mut() {
                Some(last) if begin <= last.1.saturating_add(1) => last.1 = last.1.max(end),
                _ => merged.push((begin, end)),
            }
        }
        self.0 = merged;
    }

    fn contains(&self, begin: u64, end: u64) -> bool {
        self.0.iter().any(|range| range.0 <= begin && end <= range.1)
    }

    fn remove(&mut self, begin: u64, end: u64) {
        let cut = |&(from, to): &(u64, u64)| {
            if to < begin || end < from {
                return vec![(from, to)];
            }
            let below = (from < begin).then(|| (from, begin - 1));
            let above = (end < to).then(|| (end + 1, to));
            below.into_iter().chain(above).collect()
        };
        self.0 = self.0.iter().flat_map(cut).collect();
    }
}

impl Amounts {
    pub fn of(resources: &[v1::Resource]) -> Self {
        let mut amounts = Amounts::default();
        for resource in resources {
            if let Some(scalar) = &resource.scalar {
                let milli = (scalar.value * 1000.0).round() as i64;
                let sum = amounts.scalars.entry(resource.name.clone()).or_default();
                *sum = sum.saturating_add(milli.max(0));
            }
            if let Some(ranges) = &resource.ranges {
                let sound = ranges.range.iter().filter(|range| range.begin <= range.end);
                let sum = amounts.ranges.entry(resource.name.clone()).or_default();
                sum.add(sound.map(|range| (range.begin, range.end)));
            }
        }
        amounts
    }

    /// Whether all of `other` is here.
    pub fn hold(&self, other: &Amounts) -> bool {
        let scalars = other
            .scalars
            .iter()
            .all(|(name, amount)| self.scalars.get(name).unwrap_or(&0) >= amount);
        let held = |name: &String, (begin, end): (u64, u64)| {
            self.ranges
                .get(name)
                .is_some_and(|ranges| ranges.contains(begin, end))
        };
        scalars
            && other
                .ranges
                .iter()
                .all(|(name, ranges)| ranges.0.iter().all(|range| held(name, *range)))
    }

    pub fn add(&mut self, other: &Amounts) {
        for (name, amount) in &other.scalars {
            let sum = self.scalars.entry(name.clone()).or_default();
            *sum = sum.saturating_add(*amount);
        }
        for (name, ranges) in &other.ranges {
            let own = self.ranges.entry(name.clone()).or_default();
            own.add(ranges.0.iter().copied());
        }
    }

    /// Takes away what is there of `other`.
    pub fn take(&mut self, other: &Amounts) {
        for (name, amount) in &other.scalars {
            if let Some(own) = self.scalars.get_mut(name) {
                *own = (*own - amount).max(0);
            }
        }
        for (name, ranges) in &other.ranges {
            if let Some(own) = self.ranges.get_mut(name) {
                ranges.0.iter().for_each(|(begin, end)| own.remove(*begin, *end));
            }
        }
    }

    /// How many single numbers of this name there are.
    #[cfg(test)]
    pub fn count(&self, name: &str) -> u64 {
        let ranges = self.ranges.get(name).into_iter().flat_map(|ranges| &ranges.0);
        ranges.map(|(begin, end)| end - begin + 1).sum()
    }

    /// Nothing that is worth an offer.
    pub fn is_empty(&self) -> bool {
        self.scalars.values().all(|amount| *amount == 0)
            && self.ranges.values().all(|ranges| ranges.0.is_empty())
    }

    /// As the resources of an offer or a task, allocated to a role.
    pub fn resources(&self, role: &str) -> Vec<v1::Resource> {
        let blank = |name: &String, kind: v1::value::Type| v1::Resource {
            name: name.clone(),
            r#type: kind as i32,
            allocation_info: Some(v1::resource::AllocationInfo {
                role: Some(role.to_owned()),
            }),
            ..Default::default()
        };
        let scalars = self
            .scalars
            .iter()
            .filter(|(_, amount)| **amount > 0)
            .map(|(name, amount)| v1::Resource {
                scalar: Some(v1::value::Scalar {
                    value: *amount as f64 / 1000.0,
                }),
                ..blank(name, v1::value::Type::Scalar)
            });
        let range = |&(begin, end): &(u64, u64)| v1::value::Range { begin, end };
        let ranges = self
            .ranges
            .iter()
            .filter(|(_, ranges)| !ranges.0.is_empty())
            .map(|(name, ranges)| v1::Resource {
                ranges: Some(v1::value::Ranges {
                    range: ranges.0.iter().map(range).collect(),
                }),
                ..blank(name, v1::value::Type::Ranges)
            });
        scalars.chain(ranges).collect()
    }
}

/// In the text form, for people.
impl fmt::Display for Amounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (name, amount) in self.scalars.iter().filter(|(_, amount)| **amount > 0) {
            write!(f, "{separator}{name}:{}", *amount as f64 / 1000.0)?;
            separator = ";";
        }
        for (name, ranges) in self.ranges.iter().filter(|(_, ranges)| !ranges.0.is_empty()) {
            let list: Vec<String> = ranges
                .0
                .iter()
                .map(|(begin, end)| format!("{begin}-{end}"))
                .collect();
            write!(f, "{separator}{name}:[{}]", list.join(","))?;
            separator = ";";
        }
        Ok(())
    }
}

/// Why a text is no list of resources.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a resource; write them as cpus:4;mem:8192;disk:10240;ports:[31000-32000]")]
pub struct BadResources(String);

/// Mesos' text form: `cpus:4;mem:8192;ports:[31000-32000,33000-33010]`.
pub(super) fn parse(text: &str) -> Result<Vec<v1::Resource>, BadResources> {
    text.split(';')
        .filter(|part| !part.trim().is_empty())
        .map(parse_one)
        .collect()
}

fn parse_one(part: &str) -> Result<v1::Resource, BadResources> {
    let bad = || BadResources(part.chars().take(60).collect());
    let (name, value) = part.trim().split_once(':').ok_or_else(bad)?;
    let mut resource = v1::Resource {
        name: name.trim().to_owned(),
        ..Default::default()
    };
    match value.trim().strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
        None => {
            let value: f64 = value.trim().parse().map_err(|_| bad())?;
            if !(0.0..=1e12).contains(&value) {
                return Err(bad());
            }
            resource.r#type = v1::value::Type::Scalar as i32;
            resource.scalar = Some(v1::value::Scalar { value });
        }
        Some(None) => return Err(bad()),
        Some(Some(list)) => {
            let range = |item: &str| {
                let (begin, end) = item.split_once('-').unwrap_or((item, item));
                let range = v1::value::Range {
                    begin: begin.trim().parse().ok()?,
                    end: end.trim().parse().ok()?,
                };
                (range.begin <= range.end).then_some(range)
            };
            let range = list
                .split(',')
                .map(|item| range(item).ok_or_else(bad))
                .collect::<Result<_, _>>()?;
            resource.r#type = v1::value::Type::Ranges as i32;
            resource.ranges = Some(v1::value::Ranges { range });
        }
    }
    if resource.name.is_empty() {
        Err(bad())
    } else {
        Ok(resource)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_text_form_is_understood() {
        let resources = parse("cpus:4;mem:8192.5; ports:[31000-31002, 32000]").unwrap();
        let amounts = Amounts::of(&resources);
        assert!(amounts.hold(&Amounts::of(&parse("cpus:3.999;ports:[31001-31002]").unwrap())));
        assert!(!amounts.hold(&Amounts::of(&parse("ports:[31002-31003]").unwrap())));
        assert_eq!(
            amounts.to_string(),
            "cpus:4;mem:8192.5;ports:[31000-31002,32000-32000]"
        );
        for bad in [
            "cpus",
            "cpus:x",
            "cpus:-1",
            "cpus:inf",
            "ports:[1-",
            "ports:[2-1]",
            ":4",
            "ports:[a]",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_and_given_back_is_all_there(
            begin in 0u64..50, size in 1u64..50, picks in prop::collection::vec((0u64..100, 0u64..5), 0..10)
        ) {
            let whole = Amounts::of(&parse(&format!("cpus:4;ports:[{begin}-{}]", begin + size)).unwrap());
            let mut rest = whole.clone();
            let mut taken = Vec::new();
            for (first, more) in picks {
                let part = Amounts::of(&parse(&format!("cpus:0.3;ports:[{first}-{}]", first + more)).unwrap());
                if rest.hold(&part) {
                    rest.take(&part);
                    prop_assert!(!rest.hold(&part));
                    taken.push(part);
                }
            }
            taken.iter().for_each(|part| rest.add(part));
            prop_assert_eq!(rest, whole);
        }
    }
}
