//! The cgroups of an executor: one above all members, one for each member below it.
//!
//! What would outlive us is written down in the register of executors before it is made, so that the next start on
//! this node finds and removes what a crash of ours leaves (N3).

use std::{collections::HashMap, io, path::Path, sync::Arc};

use crate::{
    container::{
        cgroup::{
            Bound, CgroupError, Config, GroupCgroup, Layout, MemberCgroup, Request, View, group_limits,
            oom_score_adj,
        },
        janitor::{Claim, ClaimedGroupError, Leftover, Register},
    },
    group::MemberId,
    mesos::v1,
    sys::held::Held,
};

#[derive(Debug, thiserror::Error)]
pub enum CgroupsError {
    #[error(transparent)]
    Group(#[from] ClaimedGroupError),
    #[error(transparent)]
    Member(#[from] CgroupError),
}

#[derive(Debug)]
pub struct Cgroups {
    layout: Layout,
    name: String,
    /// Says that we are alive; none where the register cannot be written.
    claim: Option<Claim>,
    /// Made with the first launch, when it is known what it has to hold.
    group: Option<GroupCgroup>,
    requests: HashMap<MemberId, Request>,
    node_memory: u64,
    /// We may not make cgroups here, which was told.
    forbidden: bool,
}

impl Cgroups {
    /// Looks at the machine and enters us into the register. Never fails: what cannot be had is logged and done
    /// without.
    pub fn open(name: &str, config: &Config, run: &Path) -> Self {
        let layout = Layout::detect(config);
        for missing in layout.missing() {
            tracing::info!("{}: {}", missing.what, missing.consequence);
        }
        let claim = Register::open(run).and_then(|register| register.claim(name));
        let claim = claim.inspect_err(|error| {
            let error = super::sentence(error);
            tracing::warn!("nobody will clean up after us if we crash: {error}");
        });
        let info = rustix::system::sysinfo();
        Cgroups {
            layout,
            name: name.to_owned(),
            claim: claim.ok(),
            group: None,
            requests: HashMap::new(),
            node_memory: u64::from(info.mem_unit).saturating_mul(info.totalram as u64),
            forbidden: false,
        }
    }

    /// Makes room for members that arrive together, before the first of them is made.
    pub fn expect<'a>(
        &mut self,
        members: impl Iterator<Item = (MemberId, &'a v1::TaskInfo)>,
    ) -> Result<(), CgroupsError> {
        self.requests
            .extend(members.map(|(member, task)| (member, request(task))));
        let all: Vec<Request> = self.requests.values().cloned().collect();
        if all.is_empty() || self.forbidden {
            return Ok(());
        }
        let limits = group_limits(&all, self.layout.policy());
        if let Some(group) = &self.group {
            return Ok(group.raise(&limits)?);
        }
        let made = match &self.claim {
            Some(claim) => claim.group(&self.layout, &self.name, &limits),
            None => self
                .layout
                .group(&self.name, &limits)
                .map_err(ClaimedGroupError::from),
        };
        match made {
            Ok(group) => {
                for note in group.notes() {
                    tracing::info!("{note}");
                }
                self.group = Some(group);
                Ok(())
            }
            // W-05: no rights, no limits, but members all the same.
            Err(error) if is_forbidden(&error) => {
                tracing::warn!(
                    "members are neither limited nor accounted: {}",
                    super::sentence(&error)
                );
                self.forbidden = true;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The limits that cannot be held here, in a sentence.
    pub fn lesser(&self) -> Option<String> {
        let missing = self.layout.unheld();
        if missing.is_empty() {
            return None;
        }
        let why = match rustix::process::geteuid() {
            uid if uid.is_root() => "`podling node check` says why".to_owned(),
            uid => format!(
                "the executor runs as user {} and may not make cgroups",
                uid.as_raw()
            ),
        };
        Some(format!("not held here: limits of {} ({why})", missing.join(", ")))
    }

    /// A member's own cgroup, below the one above all.
    pub fn member(&self, member: MemberId, container: &str) -> Result<Place, CgroupsError> {
        let request = self.requests.get(&member);
        let cgroup = match (&self.group, request) {
            (Some(group), Some(request)) => Some(Arc::new(
                group.member(container, &request.limits(self.layout.policy()))?,
            )),
            _ => None,
        };
        Ok(Place {
            view: self.layout.view(cgroup.as_deref()).map(Arc::new),
            cgroup,
            oom_score_adj: request.and_then(|request| oom_score_adj(request, self.node_memory)),
        })
    }

    /// Writes down a directory that a crash of ours would leave, for whoever cleans up then.
    pub fn note_directory(&self, directory: &Held) {
        let Some(claim) = &self.claim else { return };
        let why = match directory.identity() {
            Ok(identity) => match claim.note(Leftover::held(directory.path(), identity)) {
                Ok(()) => return,
                Err(error) => super::sentence(&error),
            },
            Err(error) => super::sentence(&error),
        };
        tracing::warn!(
            "nobody will clean up {} if we crash: {why}",
            directory.path().display()
        );
    }

    pub fn forget(&mut self, member: MemberId) {
        self.requests.remove(&member);
    }

    /// The executor ends in an orderly way, after all its members.
    pub fn release(self) {
        drop(self.group);
        if let Some(claim) = self.claim
            && let Err(error) = claim.release()
        {
            tracing::warn!("{}", super::sentence(&error));
        }
    }
}

/// What a member's plan needs to know.
#[derive(Debug)]
pub struct Place {
    pub cgroup: Option<Arc<MemberCgroup>>,
    pub view: Option<Arc<View>>,
    pub oom_score_adj: Option<i32>,
}

fn is_forbidden(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
            );
        }
        cause = error.source();
    }
    false
}

/// What a task asks for (R-01…R-05). Pure.
fn request(task: &v1::TaskInfo) -> Request {
    let of = |name: &'static str| {
        task.resources
            .iter()
            .filter(move |resource| resource.name == name)
    };
    let sum = |name| {
        of(name)
            .filter_map(|resource| Some(resource.scalar?.value))
            .sum::<f64>()
    };
    let limit = |name: &str| task.limits.get(name).map(|scalar| scalar.value);
    let linux = task
        .container
        .as_ref()
        .and_then(|container| container.linux_info.as_ref());
    Request {
        cpus: sum("cpus").max(0.0),
        revocable: of("cpus").any(|resource| resource.revocable.is_some()),
        cpu_limit: limit("cpus").map(|cpus| bound(cpus, cpus)),
        memory: bytes(sum("mem")),
        memory_limit: limit("mem").map(|megabytes| bound(megabytes, bytes(megabytes))),
        share: linux.and_then(|linux| linux.share_cgroups).unwrap_or(true),
        pids: None,
    }
}

fn bound<T>(asked: f64, value: T) -> Bound<T> {
    if asked.is_finite() {
        Bound::At(value)
    } else {
        Bound::Infinite
    }
}

/// Mesos counts memory in units of 2²⁰ bytes. The conversion saturates, and nonsense is nothing.
fn bytes(megabytes: f64) -> u64 {
    (megabytes * f64::from(1 << 20)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(resources: &[(&str, f64)], limits: &[(&str, f64)]) -> v1::TaskInfo {
        let scalar = |value: f64| v1::value::Scalar { value };
        v1::TaskInfo {
            resources: resources
                .iter()
                .map(|(name, value)| v1::Resource {
                    name: (*name).to_owned(),
                    scalar: Some(scalar(*value)),
                    ..Default::default()
                })
                .collect(),
            limits: limits
                .iter()
                .map(|(name, value)| ((*name).to_owned(), scalar(*value)))
                .collect(),
            ..Default::default()
        }
    }

    #[test]
    fn r_01_r_03_requests_and_limits_are_read() {
        let resources = [("cpus", 0.5), ("mem", 64.0), ("cpus", 0.25), ("disk", 10.0)];
        let plain = request(&task(&resources, &[]));
        assert_eq!((plain.cpus, plain.memory), (0.75, 64 << 20));
        assert_eq!((plain.cpu_limit, plain.memory_limit), (None, None));
        assert!(plain.share && !plain.revocable);
        let limited = request(&task(&resources, &[("cpus", 2.0), ("mem", f64::INFINITY)]));
        assert_eq!(limited.cpu_limit, Some(Bound::At(2.0)));
        assert_eq!(limited.memory_limit, Some(Bound::Infinite));
    }

    #[test]
    fn l_07_nonsense_is_nothing() {
        for nonsense in [f64::NAN, -1.0, f64::NEG_INFINITY] {
            let request = request(&task(&[("cpus", nonsense), ("mem", nonsense)], &[]));
            assert_eq!((request.cpus, request.memory), (0.0, 0));
        }
        assert_eq!(request(&task(&[("mem", 1e300)], &[])).memory, u64::MAX);
    }
}
