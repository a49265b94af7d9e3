//! From JSON to a pod: the structural half of reading a definition, defaults included.

mod check;
mod container;
mod scheduling;

use std::cell::RefCell;

use serde_json::Value;

use super::{
    Ignored, Profile,
    id::{BadPodId, PodId},
    model::*,
    reader::{Fields, Findings, Node},
    version::Version,
    violation::Violations,
};

use self::{
    container::container,
    scheduling::{default_scheduling, scaling, scheduling},
};

/// The most containers, volumes, endpoints … a definition may list; far above what a node can run.
const MANY: usize = 1_000;

const SECONDS: i64 = u32::MAX as i64;

/// What came of reading a definition: a pod when the shape is right, even if a rule is already known to be broken.
#[derive(Debug)]
pub(super) struct Shaped {
    pub pod: Option<Pod>,
    pub violations: Violations,
    pub ignored: Vec<Ignored>,
}

/// Reads everything that can be read; a violation does not hide the next one.
pub(super) fn read(value: &Value, profile: &Profile) -> Shaped {
    let findings = RefCell::new(Findings::default());
    let pod = Node::root(value, &findings)
        .object()
        .and_then(|mut fields| pod(&mut fields, profile));
    let Findings { violations, ignored } = findings.into_inner();
    let pod = pod.filter(|_| !violations.concern_the_shape());
    Shaped {
        pod,
        violations,
        ignored,
    }
}

fn is_name(text: &str, underscores: bool) -> bool {
    let end = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let inner = |c: char| end(c) || c == '-' || (underscores && c == '_');
    text.starts_with(end) && text.ends_with(end) && text.chars().all(inner)
}

const NAME_RULE: &str =
    "a name holds lower-case letters, digits and hyphens, and begins and ends with a letter or digit";

fn name(node: Node<'_>) -> Option<String> {
    node.name(63, |text| is_name(text, false), NAME_RULE)
}

/// Marathon's.
const LONGEST_VARIABLE: usize = 254;

fn is_variable(text: &str) -> bool {
    let head = |c: char| c.is_ascii_alphabetic() || c == '_';
    text.starts_with(head)
        && text.len() <= LONGEST_VARIABLE
        && text.chars().all(|c| head(c) || c.is_ascii_digit())
}

fn bounded<T>(
    fields: &mut Fields<'_>,
    what: &'static str,
    read: impl FnMut(Node<'_>) -> Option<T>,
) -> Vec<T> {
    let items = fields.items(what, read);
    if items.len() > MANY {
        let node = Fields::optional(fields, what);
        if let Some(node) = node {
            node.wrong(
                "error.maxLength",
                format!("must have at most {MANY} entries, has {}", items.len()),
            );
        }
    }
    items
}

fn pod(fields: &mut Fields<'_>, profile: &Profile) -> Option<Pod> {
    let id = fields.required("id").and_then(pod_id);
    fields.read("version", |node| {
        let text = node.string()?;
        if text.parse::<Version>().is_err() {
            node.wrong(
                "error.expected.date.isoformat",
                "expected an ISO-8601 date and time",
            );
        }
        Some(())
    });
    let containers = fields.required("containers").and_then(|node| {
        let containers = node.list(|node| container(node, profile))?;
        if node.raw().as_array().is_some_and(|items| items.len() > MANY) {
            node.wrong("error.maxLength", format!("must have at most {MANY} entries"));
        }
        Some(containers)
    });
    let scaling = fields.read("scaling", scaling);
    let scheduling = fields.read("scheduling", |node| scheduling(node, profile));
    let executor_resources = fields.read("executorResources", executor_resources);
    let labels = fields.strings("labels");
    let user = fields.read("user", |node| node.string());
    let environment = fields.read("environment", environment).unwrap_or_default();
    let secrets = fields
        .read("secrets", |node| node.map(|_, node| secret(node)))
        .unwrap_or_default();
    let volumes = bounded(fields, "volumes", volume);
    let networks = bounded(fields, "networks", network);
    let role = fields.read("role", |node| node.text(1, 255));
    let linux_info = fields.read("linuxInfo", linux_info);
    let legacy_shared_cgroups = fields.read("legacySharedCgroups", |node| node.boolean());

    Some(Pod {
        id: id?,
        version: None,
        labels,
        user,
        environment,
        containers: containers?,
        secrets,
        volumes,
        networks,
        scaling: scaling.unwrap_or(Scaling {
            kind: ScalingKind::Fixed,
            instances: 1,
        }),
        scheduling: scheduling.unwrap_or_else(|| default_scheduling(profile)),
        executor_resources: executor_resources.unwrap_or(ExecutorResources {
            cpus: 0.1,
            mem: 32.0,
            disk: 10.0,
        }),
        role: role.unwrap_or_else(|| profile.role.clone()),
        linux_info,
        legacy_shared_cgroups: legacy_shared_cgroups.unwrap_or(false),
    })
}

/// Only the pattern belongs to the shape; the other faults of an id are rules.
fn pod_id(node: Node<'_>) -> Option<PodId> {
    let text = node.string()?;
    match text.parse::<PodId>() {
        Ok(id) => Some(id),
        Err(error @ (BadPodId::Pattern | BadPodId::TooLong)) => {
            node.wrong("error.pattern", error.to_string());
            None
        }
        Err(error) => {
            node.rule(error.to_string());
            Some(PodId::unusable())
        }
    }
}

fn environment(node: Node<'_>) -> Option<Environment> {
    node.map(|name, node| {
        if !is_variable(name) {
            node.wrong(
                "error.pattern",
                format!(
                    "a variable's name holds letters, digits and underscores, begins with no digit, and is at most \
                     {LONGEST_VARIABLE} characters long"
                ),
            );
            return None;
        }
        match node.raw() {
            Value::Object(_) => {
                let mut fields = node.object()?;
                let secret = fields.required("secret")?.text(1, 1024)?;
                Some(Variable::Secret { secret })
            }
            _ => {
                Some(Variable::Value(node.string()?))
            }
        }
    })
}

fn secret(node: Node<'_>) -> Option<Secret> {
    let mut fields = node.object()?;
    Some(Secret {
        source: fields.required("source")?.text(1, 1024)?,
    })
}

fn executor_resources(node: Node<'_>) -> Option<ExecutorResources> {
    let mut fields = node.object()?;
    let mut amount = |name, least| {
        fields
            .read(name, |node| node.number(least, 1e12))
            .unwrap_or(least)
    };
    Some(ExecutorResources {
        cpus: amount("cpus", 0.1),
        mem: amount("mem", 32.0),
        disk: amount("disk", 10.0),
    })
}

fn network(node: Node<'_>) -> Option<Network> {
    let mut fields = node.object()?;
    let modes = [
        ("container", NetworkMode::Container),
        ("container/bridge", NetworkMode::Bridge),
        ("host", NetworkMode::Host),
    ];
    let mode = fields.optional("mode").map(|node| node.one_of(&modes));
    let name = fields.read("name", |node| {
        node.name(63, |text| is_name(text, true), NAME_RULE)
    });
    let labels = fields.strings("labels");
    Some(Network {
        name,
        mode: mode.unwrap_or(Some(NetworkMode::Container))?,
        labels,
    })
}

/// The kind is decided by which key is there; the first of these wins.
fn volume(node: Node<'_>) -> Option<Volume> {
    let mut fields = node.object()?;
    let persistent = fields.optional("persistent");
    let secret = fields.optional("secret");
    let host = fields.optional("host");
    let named = fields.required("name");
    let kind = if let Some(node) = persistent {
        node.object()?;
        VolumeKind::Persistent {
            persistent: node.raw().as_object().cloned().unwrap_or_default(),
        }
    } else if let Some(node) = secret {
        VolumeKind::Secret {
            secret: node.text(1, 1024)?,
        }
    } else if let Some(node) = host {
        VolumeKind::Host {
            host: node.text(1, 1024)?,
        }
    } else {
        VolumeKind::Ephemeral {}
    };
    let name = match kind {
        VolumeKind::Persistent { .. } | VolumeKind::Secret { .. } => named?.text(1, 63)?,
        VolumeKind::Host { .. } | VolumeKind::Ephemeral {} => name(named?)?,
    };
    Some(Volume { name, kind })
}

fn linux_info(node: Node<'_>) -> Option<LinuxInfo> {
    let mut fields = node.object()?;
    let seccomp = fields.read("seccomp", |node| {
        let mut fields = node.object()?;
        let profile_name = fields.read("profileName", |node| node.text(1, 255));
        let unconfined = fields.read("unconfined", |node| node.boolean()).unwrap_or(false);
        Some(Seccomp {
            profile_name,
            unconfined,
        })
    });
    let ipc_info = fields.read("ipcInfo", |node| {
        let mut fields = node.object()?;
        let modes = [
            ("PRIVATE", IpcMode::Private),
            ("SHARE_PARENT", IpcMode::ShareParent),
        ];
        let mode = fields.required("mode").and_then(|node| node.one_of(&modes));
        let size = fields.read("shmSize", |node| node.integer(0, i64::from(u32::MAX)));
        Some(IpcInfo {
            mode: mode?,
            shm_size: size.and_then(|size| u32::try_from(size).ok()),
        })
    });
    Some(LinuxInfo { seccomp, ipc_info })
}
