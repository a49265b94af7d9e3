//! The pod definition: what people write, checked and completed, and what Mesos is told of it.
//!
//! Pure: a definition goes in, a pod or everything that is wrong with it comes out.
//!
//! * [`model`]: the pod with every default filled in; serialising it gives the API's canonical JSON
//! * `shape`: from JSON to the model, with a violation for each value that does not fit
//! * `rules`: what must hold between the values
//! * [`support`]: what this build can run by now; the rest is refused by name
//! * [`task_group`]: from a pod and an offer to the messages that launch an instance

#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod id;
pub mod model;
mod reader;
mod rules;
mod shape;
pub mod support;
pub mod task_group;
pub mod version;
pub mod violation;

use std::fmt;

use serde_json::Value;

pub use self::{
    id::{InstanceId, PodId, TaskName},
    model::Pod,
    rules::is_role,
    support::Support,
    version::Version,
    violation::{Kind, Place, Violation, Violations},
};

/// Defaults and switches of the scheduler that decide how a definition is read.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Role of a pod that names none.
    pub role: String,
    /// The roles in which the scheduler is offered resources; `None`: whoever reads does not know.
    pub roles: Option<Vec<String>>,
    /// Name given to a container network without one.
    pub default_network: Option<String>,
    /// Seconds.
    pub max_launch_delay: f64,
    pub inactive_after_seconds: u64,
    pub expunge_after_seconds: u64,
    pub health_delay_seconds: u32,
    /// More instances than this no pod may ask for.
    pub most_instances: u32,
    pub support: Support,
}

/// A slip of the finger should not be a cluster's memory.
pub const MOST_INSTANCES: u32 = 10_000;

impl Default for Profile {
    /// The seeds' values.
    fn default() -> Self {
        Profile {
            role: "*".to_owned(),
            roles: None,
            default_network: Some("dcos".to_owned()),
            max_launch_delay: 3600.0,
            inactive_after_seconds: 900,
            expunge_after_seconds: 604_800,
            health_delay_seconds: 2,
            most_instances: MOST_INSTANCES,
            support: Support::default(),
        }
    }
}

impl Profile {
    /// Takes whatever has the shape of a pod, for those who do not run it.
    pub fn anything() -> Self {
        Profile {
            support: Support::EVERYTHING,
            ..Profile::default()
        }
    }
}

/// A definition that may be run, and the fields of its JSON that nobody looks at.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    pub pod: Pod,
    pub ignored: Vec<Ignored>,
}

/// A field that nobody looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ignored {
    pub place: Place,
    /// The field that was probably meant.
    pub meant: Option<&'static str>,
}

impl Ignored {
    /// An echo of what the server sends, and of the seeds; nobody means anything by it.
    pub fn is_harmless(&self) -> bool {
        matches!(
            self.place.to_string().as_str(),
            "version" | "scaling.maxInstances"
        )
    }
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not a field of a pod and has no effect", self.place)?;
        match self.meant {
            Some(meant) => write!(f, "; did you mean `{meant}`?"),
            None => Ok(()),
        }
    }
}

/// Reads, completes and checks a definition. All violations of a kind are reported together: those of the shape,
/// or, when the shape is right, those of the rules.
pub fn read(value: &Value, profile: &Profile) -> Result<Definition, Violations> {
    let shape::Shaped {
        pod,
        mut violations,
        ignored,
    } = shape::read(value, profile);
    let Some(mut pod) = pod else {
        return Err(violations);
    };
    rules::normalise(&mut pod, profile);
    rules::check(&pod, profile, &mut violations);
    profile.support.check(&pod, &mut violations);
    if violations.is_empty() {
        Ok(Definition { pod, ignored })
    } else {
        Err(violations)
    }
}

#[cfg(test)]
mod tests;
