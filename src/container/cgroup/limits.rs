//! From what members ask for to what is written into which file, in the right order. Pure.

use super::layout::Controller;

/// Below this the kernel's own bookkeeping eats the limit.
const MIN_MEMORY: u64 = 32 << 20;
/// Length of a scheduling period in microseconds.
const PERIOD: u64 = 100_000;
const MIN_QUOTA: u64 = 1_000;
const MAX_SHARES: u64 = 262_144;

/// An upper bound that may be absent on purpose.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound<T> {
    At(T),
    Infinite,
}

/// What one member asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub cpus: f64,
    /// The cpus may be taken back at any time: a hundredth of the weight.
    pub revocable: bool,
    pub cpu_limit: Option<Bound<f64>>,
    /// Bytes.
    pub memory: u64,
    pub memory_limit: Option<Bound<u64>>,
    /// `LinuxInfo.share_cgroups`, true if absent: only the sum over the group is a hard limit.
    pub share: bool,
    /// Processes and threads; `None`: the operator's default.
    pub pids: Option<Bound<u64>>,
}

/// What the operator has decided for this node.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// A cpu quota also for members that have no cpu limit: their request (the agent's `cgroups_enable_cfs`, R-02).
    pub always_quota: bool,
    /// Members get no swap.
    pub limit_swap: bool,
    /// Processes and threads of a member that says nothing.
    pub pids: Bound<u64>,
    /// The kernel kills all of a member when one of its processes is killed for want of memory (version 2 only).
    /// Off: as version 1 does, it kills one process and the member may survive that.
    pub oom_group: bool,
    /// Share of the disk of each member against its siblings, 1 to 10000, where the disk's scheduler knows shares; 100
    /// is what a cgroup has that nobody set.
    pub io_weight: Option<u16>,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            always_quota: false,
            limit_swap: true,
            pids: Bound::At(4096),
            oom_group: false,
            io_weight: None,
        }
    }
}

/// What one cgroup, of a member or of a group, is held to. Absent means: left as the kernel makes it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Limits {
    /// Cpus, as a weight against siblings.
    pub weight: Option<f64>,
    pub quota: Option<Bound<f64>>,
    /// Bytes; what is below it is reclaimed last.
    pub soft_memory: Option<u64>,
    pub memory: Option<Bound<u64>>,
    pub no_swap: bool,
    pub pids: Option<Bound<u64>>,
    pub oom_group: bool,
    pub io_weight: Option<u16>,
}

impl Request {
    /// What the member's own cgroup is held to.
    pub fn limits(&self, policy: &Policy) -> Limits {
        let hard = !self.share;
        Limits {
            weight: Some(self.weight()),
            quota: self.quota(policy).filter(|_| hard),
            soft_memory: Some(self.memory.max(MIN_MEMORY)),
            memory: hard.then(|| self.memory_bound()),
            no_swap: hard && policy.limit_swap,
            pids: Some(self.pids.unwrap_or(policy.pids)),
            oom_group: policy.oom_group,
            io_weight: policy.io_weight,
        }
    }

    fn weight(&self) -> f64 {
        match self.revocable {
            true => self.cpus * 10.0 / 1024.0,
            false => self.cpus,
        }
    }

    fn quota(&self, policy: &Policy) -> Option<Bound<f64>> {
        self.cpu_limit
            .or_else(|| policy.always_quota.then_some(Bound::At(self.cpus)))
    }

    fn memory_bound(&self) -> Bound<u64> {
        match self.memory_limit {
            Some(Bound::At(bytes)) => Bound::At(bytes.max(MIN_MEMORY)),
            Some(Bound::Infinite) => Bound::Infinite,
            None => Bound::At(self.memory.max(MIN_MEMORY)),
        }
    }
}

/// What the cgroup above all members of a group is held to: the sum. Infinite wins.
pub fn group_limits(members: &[Request], policy: &Policy) -> Limits {
    let quota = members
        .iter()
        .any(|member| member.quota(policy).is_some())
        .then(|| {
            sum(members
                .iter()
                .map(|member| member.quota(policy).unwrap_or(Bound::At(member.cpus))))
        });
    let soft = members.iter().fold(0u64, |sum, member| {
        sum.saturating_add(member.memory.max(MIN_MEMORY))
    });
    let memory = members
        .iter()
        .map(Request::memory_bound)
        .fold(Bound::At(0u64), |sum, bound| match (sum, bound) {
            (Bound::At(a), Bound::At(b)) => Bound::At(a.saturating_add(b)),
            _ => Bound::Infinite,
        });
    Limits {
        weight: Some(members.iter().map(Request::weight).sum()),
        quota,
        soft_memory: Some(soft),
        memory: Some(memory),
        no_swap: policy.limit_swap,
        pids: None,
        oom_group: false,
        io_weight: None,
    }
}

fn sum(bounds: impl Iterator<Item = Bound<f64>>) -> Bound<f64> {
    bounds.fold(Bound::At(0.0), |sum, bound| match (sum, bound) {
        (Bound::At(a), Bound::At(b)) => Bound::At(a + b),
        _ => Bound::Infinite,
    })
}

/// How the kernel's killer should see a member that may use more than it asked for: the less it asked for,
/// the earlier. `None` for members held to their request.
pub fn oom_score_adj(request: &Request, node_memory: u64) -> Option<i32> {
    let burstable = match request.memory_limit? {
        Bound::At(limit) => limit > request.memory,
        Bound::Infinite => true,
    };
    if !burstable || node_memory == 0 {
        return None;
    }
    let share = (u128::from(request.memory) * 1000 / u128::from(node_memory)).min(1000) as i32;
    Some((1000 - share).clamp(2, 999))
}

/// One write into a file of a cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    pub controller: Controller,
    pub file: &'static str,
    pub value: String,
    /// Without it the cgroup does not hold what was promised. Others depend on how the kernel was built.
    pub required: bool,
}

fn required(controller: Controller, file: &'static str, value: impl ToString) -> Setting {
    Setting {
        controller,
        file,
        value: value.to_string(),
        required: true,
    }
}

fn optional(controller: Controller, file: &'static str, value: impl ToString) -> Setting {
    Setting {
        required: false,
        ..required(controller, file, value)
    }
}

fn shares(cpus: f64) -> u64 {
    ((cpus * 1024.0) as u64).clamp(2, MAX_SHARES)
}

/// One cpu weighs 100, which is what a cgroup has that nobody set.
fn weight(cpus: f64) -> u64 {
    ((cpus * 100.0) as u64).clamp(1, 10_000)
}

fn quota(cpus: f64) -> u64 {
    ((cpus * PERIOD as f64) as u64).max(MIN_QUOTA)
}

impl Limits {
    /// These, and where they hold nothing what the group above is held to anyway: so that a member that looks at its own
    /// cgroup finds the limit that counts for it.
    pub fn within(&self, group: &Limits) -> Limits {
        let finite = |memory: &Bound<u64>| matches!(memory, Bound::At(_));
        let memory = group.memory.filter(finite).filter(|_| self.memory.is_none());
        Limits {
            quota: self.quota.or(group.quota),
            memory: self.memory.or(memory),
            no_swap: self.no_swap || memory.is_some() && group.no_swap,
            ..self.clone()
        }
    }

    /// For a new version 1 cgroup.
    pub fn v1(&self) -> Vec<Setting> {
        use Controller::{Cpu, Io, Memory, Pids};
        let mut out = Vec::new();
        if let Some(cpus) = self.weight {
            out.push(required(Cpu, "cpu.shares", shares(cpus)));
        }
        if let Some(bound) = self.quota {
            out.push(required(Cpu, "cpu.cfs_period_us", PERIOD));
            out.push(required(Cpu, "cpu.cfs_quota_us", v1_quota(bound)));
        }
        if let Some(bytes) = self.soft_memory {
            out.push(optional(Memory, "memory.soft_limit_in_bytes", bytes));
        }
        // Memory alone may never exceed memory and swap together, and both start unlimited: the smaller one first.
        if let Some(bound) = self.memory {
            out.push(required(Memory, "memory.limit_in_bytes", v1_bytes(bound)));
            if self.no_swap {
                out.push(optional(Memory, "memory.memsw.limit_in_bytes", v1_bytes(bound)));
            }
        }
        if self.no_swap {
            // For kernels that do not account for swap.
            out.push(optional(Memory, "memory.swappiness", 0));
        }
        if let Some(bound) = self.pids {
            out.push(required(Pids, "pids.max", max_or(bound)));
        }
        if let Some(weight) = self.io_weight {
            // One file or the other, by the kernel's age; their scales end at 1000.
            out.push(optional(Io, "blkio.bfq.weight", weight.clamp(1, 1000)));
            out.push(optional(Io, "blkio.weight", weight.clamp(10, 1000)));
        }
        out
    }

    /// For a new version 2 cgroup.
    pub fn v2(&self) -> Vec<Setting> {
        use Controller::{Cpu, Io, Memory, Pids};
        let mut out = Vec::new();
        if let Some(cpus) = self.weight {
            out.push(required(Cpu, "cpu.weight", weight(cpus)));
        }
        if let Some(bound) = self.quota {
            out.push(required(Cpu, "cpu.max", v2_quota(bound)));
        }
        if let Some(bytes) = self.soft_memory {
            out.push(optional(Memory, "memory.low", bytes));
        }
        if let Some(bound) = self.memory {
            out.push(required(Memory, "memory.max", max_or(bound)));
        }
        if self.no_swap {
            out.push(optional(Memory, "memory.swap.max", 0));
        }
        if self.oom_group {
            out.push(optional(Memory, "memory.oom.group", 1));
        }
        if let Some(bound) = self.pids {
            out.push(required(Pids, "pids.max", max_or(bound)));
        }
        if let Some(weight) = self.io_weight {
            out.push(optional(
                Io,
                "io.weight",
                format!("default {}", weight.clamp(1, 10_000)),
            ));
            out.push(optional(Io, "io.bfq.weight", weight.clamp(1, 1000)));
        }
        out
    }

    /// From these limits to `to`, for a cgroup in use: hard limits only go up.
    pub fn raised(&self, to: &Limits, v2: bool) -> Vec<Setting> {
        use Controller::{Cpu, Memory};
        let grown = Limits {
            weight: to.weight.filter(|_| to.weight != self.weight),
            quota: to
                .quota
                .filter(|to| self.quota.is_some_and(|from| above(*to, from))),
            soft_memory: to.soft_memory.filter(|_| to.soft_memory != self.soft_memory),
            memory: to
                .memory
                .filter(|to| self.memory.is_some_and(|from| above(*to, from))),
            ..Limits::default()
        };
        if v2 {
            return grown.v2();
        }
        // Here memory and swap together go up first; and a quota shortly without its period would be another one.
        let mut out = grown.v1();
        out.retain(|setting| setting.file != "memory.limit_in_bytes" && setting.controller != Cpu);
        if let Some(bound) = grown.memory {
            if self.no_swap {
                out.push(optional(Memory, "memory.memsw.limit_in_bytes", v1_bytes(bound)));
            }
            out.push(required(Memory, "memory.limit_in_bytes", v1_bytes(bound)));
        }
        if let Some(cpus) = grown.weight {
            out.push(required(Cpu, "cpu.shares", shares(cpus)));
        }
        if let Some(bound) = grown.quota {
            out.push(required(Cpu, "cpu.cfs_quota_us", v1_quota(bound)));
        }
        out
    }

    /// These limits after `raised` has been written.
    pub fn after(&self, to: &Limits) -> Limits {
        let higher = |from, to| match (from, to) {
            (Some(from), Some(to)) if above(to, from) => Some(to),
            (from, _) => from,
        };
        Limits {
            weight: to.weight.or(self.weight),
            quota: match (self.quota, to.quota) {
                (Some(from), Some(to)) if above(to, from) => Some(to),
                (from, _) => from,
            },
            soft_memory: to.soft_memory.or(self.soft_memory),
            memory: higher(self.memory, to.memory),
            ..self.clone()
        }
    }
}

fn above<T: PartialOrd>(a: Bound<T>, b: Bound<T>) -> bool {
    match (a, b) {
        (Bound::At(a), Bound::At(b)) => a > b,
        (Bound::Infinite, Bound::At(_)) => true,
        (_, Bound::Infinite) => false,
    }
}

fn v1_quota(bound: Bound<f64>) -> String {
    match bound {
        Bound::At(cpus) => quota(cpus).to_string(),
        Bound::Infinite => "-1".into(),
    }
}

fn v2_quota(bound: Bound<f64>) -> String {
    match bound {
        Bound::At(cpus) => format!("{} {PERIOD}", quota(cpus)),
        Bound::Infinite => format!("max {PERIOD}"),
    }
}

fn v1_bytes(bound: Bound<u64>) -> String {
    match bound {
        Bound::At(bytes) => bytes.to_string(),
        Bound::Infinite => "-1".into(),
    }
}

fn max_or(bound: Bound<u64>) -> String {
    match bound {
        Bound::At(value) => value.to_string(),
        Bound::Infinite => "max".into(),
    }
}

#[cfg(test)]
#[path = "limits_tests.rs"]
mod tests;
