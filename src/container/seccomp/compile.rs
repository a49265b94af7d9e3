//! From a profile to a classic BPF program.
//!
//! Three steps: which rules count for this member and what they say of each number ([`Fate`]); runs of numbers with
//! the same fate; the program, written from its end to its start so that every jump knows its target.

use std::collections::{BTreeMap, HashMap};

use libc::sock_filter;

use super::{
    profile::{Action, ArgTest, Comparison, Env, Profile},
    syscalls,
};

/// The kernel refuses longer programs.
const MAX_INSTRUCTIONS: usize = 4096;
/// On x86_64 numbers from here on are calls of the x32 variant.
const X32_BIT: u32 = 0x4000_0000;
const ENOSYS: Action = Action::Errno(38);

#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    #[error("it needs {count} instructions, the kernel takes {MAX_INSTRUCTIONS}")]
    TooLong { count: usize },
}

/// A filter ready for the kernel.
#[derive(Clone)]
pub struct Program {
    instructions: Vec<sock_filter>,
    /// Calls named by the profile that this architecture does not have: old, foreign, or misspelt.
    pub unknown: Vec<String>,
    /// Refused calls go to the audit log.
    pub log: bool,
    /// It lets through all that is still to be done when one of our processes goes on as another one.
    pub lets_hand_over: bool,
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Program({} instructions)", self.instructions.len())
    }
}

impl Program {
    pub fn compile(profile: &Profile, env: &Env) -> Result<Program, CompileError> {
        let (fates, unknown) = fates(profile, env);
        let runs = runs(profile, env, fates);
        let mut writer = Writer::default();
        let tree = writer.tree(&runs, |writer, fate| writer.fate(fate, profile.default));
        writer.prologue(tree, env);
        let instructions = writer.finish();
        if instructions.len() > MAX_INSTRUCTIONS {
            return Err(CompileError::TooLong {
                count: instructions.len(),
            });
        }
        Ok(Program {
            instructions,
            unknown,
            log: profile.log,
            lets_hand_over: HANDING_OVER
                .iter()
                .all(|(name, args)| passes(profile, env, name, args)),
        })
    }

    /// For [`crate::sys::seccomp::install`].
    pub fn instructions(&self) -> &[sock_filter] {
        &self.instructions
    }
}

/// From the process that hands over to the exec of its heir; see `container::setup::task`.
const HANDING_OVER: [(&str, [u64; 6]); 10] = [
    (
        "clone",
        [(libc::CLONE_PARENT | libc::SIGCHLD) as u64, 0, 0, 0, 0, 0],
    ),
    ("write", [0; 6]),
    ("exit_group", [0; 6]),
    ("setsid", [0; 6]),
    ("ioctl", [0, libc::TIOCSCTTY, 0, 0, 0, 0]),
    (
        "prctl",
        [libc::PR_SET_PDEATHSIG as u64, libc::SIGKILL as u64, 0, 0, 0, 0],
    ),
    ("read", [0; 6]),
    ("close_range", [0; 6]),
    ("rt_sigprocmask", [0; 6]),
    ("execve", [0; 6]),
];

/// Whether the profile lets a call with these arguments through.
fn passes(profile: &Profile, env: &Env, name: &str, args: &[u64; 6]) -> bool {
    let met = |test: &ArgTest| {
        args.get(usize::from(test.index))
            .is_some_and(|&arg| test.holds(arg))
    };
    let rule = profile.rules.iter().find(|rule| {
        rule.when.holds(env) && rule.syscalls.iter().any(|given| given == name) && rule.args.iter().all(met)
    });
    let action = rule.map_or(profile.default, |rule| rule.action);
    matches!(action, Action::Allow | Action::Log)
}

/// What happens to one call: the first alternative whose tests all hold decides, else the profile's default.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Fate {
    Always(Action),
    ByArgs(Vec<(Vec<ArgTest>, Action)>),
}

fn fates(profile: &Profile, env: &Env) -> (BTreeMap<u32, Fate>, Vec<String>) {
    let mut alternatives: BTreeMap<u32, Vec<(Vec<ArgTest>, Action)>> = BTreeMap::new();
    let mut unknown = Vec::new();
    for rule in profile.rules.iter().filter(|rule| rule.when.holds(env)) {
        for name in &rule.syscalls {
            match syscalls::number(name, env.arch) {
                Some(number) => {
                    let list = alternatives.entry(number).or_default();
                    // Nothing comes after a rule without tests.
                    if list.last().is_none_or(|(tests, _)| !tests.is_empty()) {
                        list.push((rule.args.clone(), rule.action));
                    }
                }
                None => unknown.push(name.to_string()),
            }
        }
    }
    let fates = alternatives
        .into_iter()
        .map(|(number, mut list)| match list.as_slice() {
            [(tests, action)] if tests.is_empty() => (number, Fate::Always(*action)),
            _ => {
                // Alternatives that end as the rest does need no test.
                while list.last().is_some_and(|(_, action)| *action == profile.default) {
                    list.pop();
                }
                match list.is_empty() {
                    true => (number, Fate::Always(profile.default)),
                    false => (number, Fate::ByArgs(list)),
                }
            }
        })
        .collect();
    (fates, unknown)
}

/// Numbers from `start` to the next run's start share a value. The first run starts at 0.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Run<T> {
    start: u32,
    value: T,
}

fn push_run<T: PartialEq>(runs: &mut Vec<Run<T>>, start: u32, value: T) {
    match runs.last_mut() {
        Some(last) if last.value == value => {}
        Some(last) if last.start == start => last.value = value,
        _ => runs.push(Run { start, value }),
    }
}

fn runs(profile: &Profile, env: &Env, mut fates: BTreeMap<u32, Fate>) -> Vec<Run<Fate>> {
    // A number that does not exist, or is newer than all the profile speaks of, is answered as an older kernel
    // would. A profile that lets through what it does not know says so on purpose.
    let closed = !profile.default.lets_through();
    let newest = profile
        .rules
        .iter()
        .flat_map(|rule| &rule.syscalls)
        .filter_map(|name| syscalls::number(name, env.arch))
        .max()
        .unwrap_or(0);
    for number in syscalls::numbers(env.arch).filter(|number| !closed || *number <= newest) {
        fates.entry(number).or_insert(Fate::Always(profile.default));
    }
    let gap = Fate::Always(if closed { ENOSYS } else { profile.default });
    let mut runs = Vec::new();
    let mut next = 0;
    for (number, fate) in fates {
        if number > next {
            push_run(&mut runs, next, gap.clone());
        }
        push_run(&mut runs, number, fate);
        next = number + 1;
    }
    push_run(&mut runs, next, gap);
    push_run(&mut runs, X32_BIT, Fate::Always(ENOSYS));
    runs
}

// Opcodes of classic BPF, and where the kernel puts the words of `struct seccomp_data`.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;
const NUMBER_AT: u32 = 0;
const ARCH_AT: u32 = 4;

const fn arg_at(index: u8) -> (u32, u32) {
    let low = 16 + 8 * index as u32;
    (low, low + 4)
}

/// A place in the program, counted from its end: writing more in front does not move it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Label(usize);

/// Holds the program last instruction first.
#[derive(Default)]
struct Writer {
    reversed: Vec<sock_filter>,
    returns: HashMap<u32, Label>,
}

impl Writer {
    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Label {
        self.reversed.push(sock_filter { code, jt, jf, k });
        Label(self.reversed.len() - 1)
    }

    fn finish(mut self) -> Vec<sock_filter> {
        self.reversed.reverse();
        self.reversed
    }

    fn ret(&mut self, action: Action) -> Label {
        let word = action.word();
        if let Some(label) = self.returns.get(&word) {
            return *label;
        }
        let label = self.push(RETURN, 0, 0, word);
        self.returns.insert(word, label);
        label
    }

    /// How many instructions the one written next has to skip to get to `to`.
    fn distance(&self, to: Label) -> usize {
        self.reversed.len() - 1 - to.0
    }

    /// Same place, but near enough for a conditional jump written within the next few instructions.
    fn near(&mut self, to: Label) -> Label {
        if self.distance(to) < 250 {
            return to;
        }
        match self.reversed.get(to.0) {
            Some(target) if target.code == RETURN => {
                let word = target.k;
                let label = self.push(RETURN, 0, 0, word);
                self.returns.insert(word, label);
                label
            }
            _ => {
                let skip = self.distance(to) as u32;
                self.push(JUMP, 0, 0, skip)
            }
        }
    }

    fn branch(&mut self, code: u16, k: u32, then: Label, otherwise: Label) -> Label {
        if then == otherwise {
            return then;
        }
        let then = self.near(then);
        let otherwise = self.near(otherwise);
        // `near` left at least five instructions of room, and wrote at most one after measuring `then`.
        let (jt, jf) = (self.distance(then) as u8, self.distance(otherwise) as u8);
        self.push(code, jt, jf, k)
    }

    /// An instruction that runs on into `next`.
    fn before(&mut self, next: Label, code: u16, k: u32) -> Label {
        let skip = self.distance(next);
        if skip > 0 {
            self.push(JUMP, 0, 0, skip as u32);
        }
        self.push(code, 0, 0, k)
    }

    /// Binary search for the run that holds the accumulator.
    fn tree<T: PartialEq + Clone>(
        &mut self,
        runs: &[Run<T>],
        mut leaf: impl FnMut(&mut Self, &T) -> Label,
    ) -> Label {
        self.subtree(runs, &mut leaf)
    }

    fn subtree<T: PartialEq + Clone>(
        &mut self,
        runs: &[Run<T>],
        leaf: &mut impl FnMut(&mut Self, &T) -> Label,
    ) -> Label {
        match runs {
            [] => self.ret(ENOSYS),
            [only] => leaf(self, &only.value),
            // One number cut out of a run: one comparison instead of two.
            [before, one, after] if before.value == after.value && after.start - one.start == 1 => {
                let outside = leaf(self, &before.value);
                let inside = leaf(self, &one.value);
                self.branch(JUMP_EQUAL, one.start, inside, outside)
            }
            _ => {
                let (lower, upper) = runs.split_at(runs.len() / 2);
                let start = upper.first().map_or(0, |run| run.start);
                let upper = self.subtree(upper, leaf);
                let lower = self.subtree(lower, leaf);
                self.branch(JUMP_GREATER_OR_EQUAL, start, upper, lower)
            }
        }
    }

    fn fate(&mut self, fate: &Fate, default: Action) -> Label {
        match fate {
            Fate::Always(action) => self.ret(*action),
            Fate::ByArgs(alternatives) => match intervals(alternatives, default) {
                Some((index, runs, above)) => {
                    let (low, high) = arg_at(index);
                    let above = self.ret(above);
                    let tree = self.tree(&runs, |writer, action| writer.ret(*action));
                    let low = self.before(tree, LOAD, low);
                    let small = self.branch(JUMP_EQUAL, 0, low, above);
                    self.before(small, LOAD, high)
                }
                None => {
                    let mut next = self.ret(default);
                    for (tests, action) in alternatives.iter().rev() {
                        let mut held = self.ret(*action);
                        for test in tests.iter().rev() {
                            held = self.test(test, held, next);
                        }
                        next = held;
                    }
                    next
                }
            },
        }
    }

    /// One test of a whole 64-bit argument, in two halves.
    fn test(&mut self, test: &ArgTest, held: Label, failed: Label) -> Label {
        let (low_at, high_at) = arg_at(test.index);
        let (low, high) = (test.value as u32, (test.value >> 32) as u32);
        match test.comparison {
            Comparison::NotEqual => self.equal(test.index, u64::MAX, test.value, failed, held),
            Comparison::Equal => self.equal(test.index, u64::MAX, test.value, held, failed),
            Comparison::MaskedEqual { mask } => self.equal(test.index, mask, test.value, held, failed),
            Comparison::Less => self.test(&inverse(test, Comparison::GreaterOrEqual), failed, held),
            Comparison::LessOrEqual => self.test(&inverse(test, Comparison::Greater), failed, held),
            Comparison::Greater | Comparison::GreaterOrEqual => {
                let code = match test.comparison {
                    Comparison::Greater => JUMP_GREATER,
                    _ => JUMP_GREATER_OR_EQUAL,
                };
                let lower_half = self.branch(code, low, held, failed);
                let lower_half = self.before(lower_half, LOAD, low_at);
                let tie = self.branch(JUMP_EQUAL, high, lower_half, failed);
                let upper_half = self.branch(JUMP_GREATER, high, held, tie);
                self.before(upper_half, LOAD, high_at)
            }
        }
    }

    fn equal(&mut self, index: u8, mask: u64, value: u64, held: Label, failed: Label) -> Label {
        if value & !mask != 0 {
            return failed;
        }
        let (low_at, high_at) = arg_at(index);
        let lower = self.equal_half(low_at, mask as u32, value as u32, held, failed);
        self.equal_half(high_at, (mask >> 32) as u32, (value >> 32) as u32, lower, failed)
    }

    fn equal_half(&mut self, at: u32, mask: u32, value: u32, held: Label, failed: Label) -> Label {
        if mask == 0 {
            return held;
        }
        let mut label = self.branch(JUMP_EQUAL, value, held, failed);
        if mask != u32::MAX {
            label = self.before(label, AND, mask);
        }
        self.before(label, LOAD, at)
    }

    fn prologue(&mut self, tree: Label, env: &Env) {
        let foreign = self.ret(Action::KillProcess);
        let number = self.before(tree, LOAD, NUMBER_AT);
        let arch = self.branch(JUMP_EQUAL, env.arch.audit_word(), number, foreign);
        self.before(arch, LOAD, ARCH_AT);
    }
}

fn inverse(test: &ArgTest, comparison: Comparison) -> ArgTest {
    ArgTest { comparison, ..*test }
}

/// If all alternatives compare one argument with small numbers: that argument, its runs below 2³², and what happens
/// to larger values. A list of allowed socket families is then a search, too.
fn intervals(
    alternatives: &[(Vec<ArgTest>, Action)],
    default: Action,
) -> Option<(u8, Vec<Run<Action>>, Action)> {
    let tests = || alternatives.iter().flat_map(|(tests, _)| tests);
    let index = tests().next()?.index;
    let mut starts = vec![0u64];
    for test in tests() {
        if test.index != index {
            return None;
        }
        let after = test.value.checked_add(1)?;
        match test.comparison {
            Comparison::Equal | Comparison::NotEqual => starts.extend([test.value, after]),
            Comparison::Less | Comparison::GreaterOrEqual => starts.push(test.value),
            Comparison::LessOrEqual | Comparison::Greater => starts.push(after),
            Comparison::MaskedEqual { .. } => return None,
        }
    }
    starts.sort_unstable();
    starts.dedup();
    if starts.last().is_some_and(|last| *last > 1 << 32) {
        return None;
    }
    let decide = |value: u64| {
        alternatives
            .iter()
            .find(|(tests, _)| tests.iter().all(|test| test.holds(value)))
            .map_or(default, |(_, action)| *action)
    };
    let mut runs = Vec::new();
    for start in starts.iter().filter_map(|start| u32::try_from(*start).ok()) {
        push_run(&mut runs, start, decide(u64::from(start)));
    }
    Some((index, runs, decide(1 << 32)))
}

#[cfg(test)]
#[path = "compile_tests.rs"]
mod tests;
