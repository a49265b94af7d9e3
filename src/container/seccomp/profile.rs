//! What a profile says, before it is known which member, kernel and architecture it is for.

use std::borrow::Cow;

use super::syscalls::Arch;

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    Allow,
    /// Let it through and write it to the audit log.
    Log,
    /// Refuse it with this errno.
    Errno(u16),
    /// Raise SIGSYS in the caller.
    Trap(u16),
    /// Ask a tracer; ENOSYS without one.
    Trace(u16),
    KillThread,
    KillProcess,
}

impl Action {
    /// The word a filter returns for it.
    pub(super) const fn word(self) -> u32 {
        match self {
            Action::KillProcess => 0x8000_0000,
            Action::KillThread => 0x0000_0000,
            Action::Trap(data) => 0x0003_0000 | data as u32,
            Action::Errno(errno) => 0x0005_0000 | errno as u32,
            Action::Trace(data) => 0x7ff0_0000 | data as u32,
            Action::Log => 0x7ffc_0000,
            Action::Allow => 0x7fff_0000,
        }
    }

    /// True if the call goes on to the kernel.
    pub(super) const fn lets_through(self) -> bool {
        matches!(self, Action::Allow | Action::Log)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// `argument & mask == value`
    MaskedEqual {
        mask: u64,
    },
}

/// One condition on one argument, compared as an unsigned 64-bit number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ArgTest {
    /// 0 to 5.
    pub index: u8,
    pub comparison: Comparison,
    pub value: u64,
}

impl ArgTest {
    pub(super) fn holds(&self, arg: u64) -> bool {
        match self.comparison {
            Comparison::Equal => arg == self.value,
            Comparison::NotEqual => arg != self.value,
            Comparison::Less => arg < self.value,
            Comparison::LessOrEqual => arg <= self.value,
            Comparison::Greater => arg > self.value,
            Comparison::GreaterOrEqual => arg >= self.value,
            Comparison::MaskedEqual { mask } => arg & mask == self.value,
        }
    }
}

/// When a rule counts at all. The default condition always holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Condition {
    /// Every one of these capabilities (as bits) is in the member's bounding set.
    pub caps: u64,
    /// None of these is.
    pub no_caps: u64,
    /// `Some`: only on these architectures (an empty list: on none that we know).
    pub arches: Option<Vec<Arch>>,
    pub not_arches: Vec<Arch>,
    /// Kernel version at least.
    pub min_kernel: Option<(u32, u32)>,
    /// Kernel version below.
    pub below_kernel: Option<(u32, u32)>,
}

impl Condition {
    pub fn holds(&self, env: &Env) -> bool {
        self.caps & env.caps == self.caps
            && self.no_caps & env.caps == 0
            && self
                .arches
                .as_ref()
                .is_none_or(|arches| arches.contains(&env.arch))
            && !self.not_arches.contains(&env.arch)
            && self.min_kernel.is_none_or(|min| env.kernel >= min)
            && self.below_kernel.is_none_or(|max| env.kernel < max)
    }
}

/// The named calls get this action if all argument tests hold. The first rule that matches decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub syscalls: Vec<Cow<'static, str>>,
    pub action: Action,
    pub args: Vec<ArgTest>,
    pub when: Condition,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// For calls no rule matches.
    pub default: Action,
    pub rules: Vec<Rule>,
    /// Write refused calls to the audit log.
    pub log: bool,
}

/// What a profile is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Env {
    pub arch: Arch,
    /// The member's bounding set, one bit for each capability number.
    pub caps: u64,
    /// Major and minor number of the running kernel.
    pub kernel: (u32, u32),
}
