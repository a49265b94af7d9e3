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

use serde_json::Value;

pub use self::{
    id::{InstanceId, PodId, TaskName},
    model::Pod,
    support::Support,
    version::Version,
    violation::{Kind, Place, Violation, Violations},
};

/// Defaults and switches of the scheduler that decide how a definition is read.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Role of a pod that names none.
    pub role: String,
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

/// A definition that may be run, and the fields of its JSON that nobody looks at.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    pub pod: Pod,
    pub ignored: Vec<Place>,
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
