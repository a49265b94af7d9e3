//! Cpu while members are being made ready.
//!
//! A member's processes are in its cgroup from their first instruction. With the weight of a small member, everything
//! else on a busy node would come before our own few milliseconds of setting it up. So a member gets its share of the
//! cpu, and its quota, only when it is released; until then the group above it counts as a big one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::{CgroupError, branches::Cgroup, limits::Limits};

/// Cpus that a group weighs as much as while one of its members is being made ready.
const IN_A_HURRY: f64 = 64.0;

/// A group's cgroup, and what it is held to.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) cgroup: Cgroup,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    limits: Limits,
    /// Members made, and neither released nor given up.
    launching: usize,
    /// Those that show limits of the group as their own.
    showing: Vec<(Weak<Cgroup>, Limits)>,
}

impl Group {
    /// The limits have been applied.
    pub(super) fn new(cgroup: Cgroup, limits: Limits) -> Group {
        Group {
            cgroup,
            state: Mutex::new(State {
                limits,
                launching: 0,
                showing: Vec::new(),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn raise(&self, limits: &Limits) -> Result<(), CgroupError> {
        let mut state = self.state();
        let (v1, v2) = (
            state.limits.raised(limits, false),
            state.limits.raised(limits, true),
        );
        self.cgroup.write_settings(&v1, &v2)?;
        let before = state.limits.clone();
        state.limits = before.after(limits);
        state.showing.retain(|(member, _)| member.strong_count() > 0);
        for (member, own) in &state.showing {
            let (from, to) = (own.within(&before), own.within(&state.limits));
            if let Some(member) = member.upgrade() {
                member.write_settings(&from.raised(&to, false), &from.raised(&to, true))?;
            }
        }
        match state.launching {
            0 => Ok(()),
            _ => self.hurry(&state),
        }
    }

    /// What a member with these limits is to be held to, now and whenever the group's are raised.
    pub(super) fn show(&self, member: &Arc<Cgroup>, own: &Limits) -> Limits {
        let mut state = self.state();
        let shown = own.within(&state.limits);
        if shown != *own {
            state.showing.push((Arc::downgrade(member), own.clone()));
        }
        shown
    }

    /// The same, later.
    pub(super) fn shown(&self, own: &Limits) -> Limits {
        own.within(&self.state().limits)
    }

    fn hurry(&self, state: &State) -> Result<(), CgroupError> {
        self.weigh(state.limits.weight.map(|weight| weight.max(IN_A_HURRY)))
    }

    fn weigh(&self, weight: Option<f64>) -> Result<(), CgroupError> {
        self.cgroup.apply(&Limits {
            weight,
            ..Limits::default()
        })
    }
}

/// One member is being made ready.
#[derive(Debug)]
pub(super) struct Launching(Arc<Group>);

impl Launching {
    pub(super) fn begin(group: &Arc<Group>) -> Result<Launching, CgroupError> {
        let mut state = group.state();
        state.launching += 1;
        // From here on dropping undoes it.
        let launching = Launching(Arc::clone(group));
        match state.launching {
            1 => {
                let begun = group.hurry(&state);
                drop(state);
                begun.map(|()| launching)
            }
            _ => Ok(launching),
        }
    }
}

impl Drop for Launching {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.launching = state.launching.saturating_sub(1);
        if state.launching == 0 {
            // It has been written before; what could fail now is that the cgroup is gone.
            let _ = self.0.weigh(state.limits.weight);
        }
    }
}

/// What waits for the release, and what does not.
pub(super) fn halves(limits: &Limits) -> (Limits, Limits) {
    let cpu = Limits {
        weight: limits.weight,
        quota: limits.quota,
        ..Limits::default()
    };
    let rest = Limits {
        weight: None,
        quota: None,
        ..limits.clone()
    };
    (cpu, rest)
}
