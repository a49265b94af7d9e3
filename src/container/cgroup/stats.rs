//! What a cgroup has used.

use std::time::Duration;

use serde::Serialize;

use super::{branches::Cgroup, layout::Controller, tree::Node};

/// Parts are `None` where this machine has no controller that counts them.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Stats {
    pub cpu: Option<CpuStats>,
    pub memory: Option<MemoryStats>,
    pub pids: Option<PidsStats>,
    pub cpu_pressure: Option<Pressure>,
    pub memory_pressure: Option<Pressure>,
    pub io_pressure: Option<Pressure>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CpuStats {
    pub usage: Duration,
    pub user: Duration,
    pub system: Duration,
    /// Scheduling periods with a quota, and how many of them were cut short.
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled: Duration,
}

/// Bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MemoryStats {
    pub usage: u64,
    /// Highest usage ever; the kernel tells it from 5.19 on in version 2.
    pub peak: Option<u64>,
    pub limit: Option<u64>,
    pub requested: Option<u64>,
    pub anonymous: u64,
    pub file: u64,
    pub kernel: u64,
    pub swap: u64,
    /// How often the limit was met. Some kernels (6.18) have stopped counting it in version 1.
    pub limit_hits: u64,
    /// Processes killed for want of memory.
    pub oom_kills: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PidsStats {
    pub current: u64,
    pub limit: Option<u64>,
    /// Forks refused.
    pub refused: u64,
}

/// Share of time, in percent over the last 10, 60 and 300 seconds, in which some or all had to wait.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Pressure {
    pub some: Stall,
    pub full: Option<Stall>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Stall {
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
    pub total: Duration,
}

impl MemoryStats {
    /// The limit, if it was reached. Memory is charged in batches of up to a huge page, so the peak may stay that much
    /// below it.
    pub(super) fn limit_reached(&self) -> Option<u64> {
        const BATCH: u64 = 2 << 20;
        let limit = self.limit?;
        let near = self.peak.is_some_and(|peak| peak.saturating_add(BATCH) >= limit);
        (self.limit_hits > 0 || near).then_some(limit)
    }
}

pub(super) fn read(cgroup: &Cgroup) -> Stats {
    let v2 = cgroup.v2();
    let pressure = |file| {
        v2.and_then(|node| node.read_opt(file))
            .and_then(|text| pressure(&text))
    };
    Stats {
        cpu: cpu(cgroup),
        memory: memory(cgroup),
        pids: cgroup
            .v1(Controller::Pids)
            .or(v2)
            .filter(|node| node.has("pids.current"))
            .map(pids),
        cpu_pressure: pressure("cpu.pressure"),
        memory_pressure: pressure("memory.pressure"),
        io_pressure: pressure("io.pressure"),
    }
}

fn cpu(cgroup: &Cgroup) -> Option<CpuStats> {
    let mut stats = CpuStats::default();
    let v2 = cgroup.v2().and_then(|node| node.read_opt("cpu.stat"));
    if let Some(text) = &v2 {
        let micros = |key| Duration::from_micros(field(text, key).unwrap_or(0));
        stats.usage = micros("usage_usec");
        stats.user = micros("user_usec");
        stats.system = micros("system_usec");
        stats.periods = field(text, "nr_periods").unwrap_or(0);
        stats.throttled_periods = field(text, "nr_throttled").unwrap_or(0);
        stats.throttled = micros("throttled_usec");
    } else {
        let node = cgroup.v1(Controller::Cpuacct)?;
        let nanos = |file| Duration::from_nanos(number(node, file).unwrap_or(0));
        stats.usage = nanos("cpuacct.usage");
        stats.user = nanos("cpuacct.usage_user");
        stats.system = nanos("cpuacct.usage_sys");
    }
    if let Some(text) = cgroup
        .v1(Controller::Cpu)
        .and_then(|node| node.read_opt("cpu.stat"))
    {
        stats.periods = field(&text, "nr_periods").unwrap_or(0);
        stats.throttled_periods = field(&text, "nr_throttled").unwrap_or(0);
        stats.throttled = Duration::from_nanos(field(&text, "throttled_time").unwrap_or(0));
    }
    Some(stats)
}

pub(super) fn memory(cgroup: &Cgroup) -> Option<MemoryStats> {
    if let Some(node) = cgroup.v1(Controller::Memory) {
        let stat = node.read_opt("memory.stat").unwrap_or_default();
        let of = |key| field(&stat, key).unwrap_or(0);
        return Some(MemoryStats {
            usage: number(node, "memory.usage_in_bytes").unwrap_or(0),
            peak: number(node, "memory.max_usage_in_bytes"),
            limit: number(node, "memory.limit_in_bytes").filter(is_limit),
            requested: number(node, "memory.soft_limit_in_bytes").filter(is_limit),
            anonymous: of("total_rss"),
            file: of("total_cache"),
            kernel: number(node, "memory.kmem.usage_in_bytes").unwrap_or(0),
            swap: of("total_swap"),
            limit_hits: number(node, "memory.failcnt").unwrap_or(0),
            oom_kills: node
                .read_opt("memory.oom_control")
                .and_then(|text| field(&text, "oom_kill"))
                .unwrap_or(0),
        });
    }
    let node = cgroup.v2().filter(|node| node.has("memory.current"))?;
    let stat = node.read_opt("memory.stat").unwrap_or_default();
    let of = |key| field(&stat, key).unwrap_or(0);
    let events = node.read_opt("memory.events").unwrap_or_default();
    Some(MemoryStats {
        usage: number(node, "memory.current").unwrap_or(0),
        peak: number(node, "memory.peak"),
        limit: number(node, "memory.max"),
        requested: number(node, "memory.low").filter(|low| *low > 0),
        anonymous: of("anon"),
        file: of("file"),
        kernel: of("kernel"),
        swap: number(node, "memory.swap.current").unwrap_or(0),
        limit_hits: field(&events, "max").unwrap_or(0),
        oom_kills: field(&events, "oom_kill").unwrap_or(0),
    })
}

fn pids(node: &Node) -> PidsStats {
    PidsStats {
        current: number(node, "pids.current").unwrap_or(0),
        limit: number(node, "pids.max"),
        refused: node
            .read_opt("pids.events")
            .and_then(|text| field(&text, "max"))
            .unwrap_or(0),
    }
}

/// Version 1 writes "no limit" as the largest number of pages.
fn is_limit(bytes: &u64) -> bool {
    *bytes < (i64::MAX as u64 & !0xffff)
}

/// A file with a single number; `max` is none.
fn number(node: &Node, file: &str) -> Option<u64> {
    node.read_opt(file)?.trim().parse().ok()
}

/// The number behind `key` in a file of lines "key number".
pub(super) fn field(text: &str, key: &str) -> Option<u64> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == key)?
        .1
        .trim()
        .parse()
        .ok()
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and the same for `full`.
pub(super) fn pressure(text: &str) -> Option<Pressure> {
    let line = |kind: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(kind))?;
        let of = |key: &str| {
            rest.split_ascii_whitespace()
                .find_map(|part| part.strip_prefix(key)?.strip_prefix('='))
        };
        Some(Stall {
            avg10: of("avg10")?.parse().ok()?,
            avg60: of("avg60")?.parse().ok()?,
            avg300: of("avg300")?.parse().ok()?,
            total: Duration::from_micros(of("total")?.parse().ok()?),
        })
    };
    Some(Pressure {
        some: line("some ")?,
        full: line("full "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n";
        assert_eq!(field(text, "oom_kill"), Some(7));
        assert_eq!(field(text, "oom"), None);
        assert_eq!(field("oom_kill", "oom_kill"), None);
        assert_eq!(field("oom_kill x\n", "oom_kill"), None);
    }

    #[test]
    fn pressure_is_read_with_and_without_full() {
        let both = "some avg10=1.50 avg60=0.20 avg300=0.03 total=123456\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9\n";
        let read = pressure(both).unwrap();
        assert_eq!(read.some.avg10, 1.5);
        assert_eq!(read.some.total, Duration::from_micros(123_456));
        assert_eq!(read.full.unwrap().total, Duration::from_micros(9));
        assert_eq!(
            pressure("some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n")
                .unwrap()
                .full,
            None
        );
        assert_eq!(pressure("nothing"), None);
    }

    #[test]
    fn no_limit_is_told_from_a_large_one() {
        assert!(!is_limit(&9_223_372_036_854_771_712));
        assert!(is_limit(&(1 << 50)));
    }
}
