//! What a container finds in its environment (mapping reference, section 6).

use std::collections::BTreeMap;

use super::{Launch, network, pod_id};
use crate::{
    mesos::v1,
    pod::model::{Container, Endpoint, Environment, Variable},
};

/// Labels beyond these do not become variables.
const LONGEST_KEY: usize = 493;
const LONGEST_VALUE: usize = 512;

/// Later groups win, so that nobody overrides what the system says.
pub(super) fn of(launch: &Launch<'_>, container: &Container) -> v1::Environment {
    let mut all = BTreeMap::new();
    plain(&launch.pod.environment, &mut all);
    plain(&container.environment, &mut all);
    all.insert("HOST".to_owned(), launch.target.hostname.clone());
    context(launch, container, &mut all);
    labels(launch, container, &mut all);
    for endpoint in launch
        .pod
        .containers
        .iter()
        .flat_map(|container| &container.endpoints)
    {
        ports(launch, endpoint, &mut all);
    }
    let variable = |(name, value)| v1::environment::Variable {
        name,
        value: Some(value),
        r#type: Some(v1::environment::variable::Type::Value as i32),
        secret: None,
    };
    v1::Environment {
        variables: all.into_iter().map(variable).collect(),
    }
}

fn plain(environment: &Environment, all: &mut BTreeMap<String, String>) {
    for (name, variable) in environment {
        if let Variable::Value(value) = variable {
            all.insert(name.clone(), value.clone());
        }
    }
}

fn context(launch: &Launch<'_>, container: &Container, all: &mut BTreeMap<String, String>) {
    let resources = &container.resources;
    let enforced = launch.pod.id.as_str().split('/').nth(1) == Some(&launch.pod.role);
    let task = launch.instance.task_id(&container.name, launch.incarnation);
    for (name, value) in [
        ("MESOS_TASK_ID", task),
        ("MESOS_EXECUTOR_ID", launch.instance.executor_id()),
        ("MARATHON_APP_ID", pod_id(launch).to_string()),
        ("MARATHON_APP_VERSION", launch.version.to_string()),
        ("MARATHON_CONTAINER_ID", container.name.clone()),
        (
            "MARATHON_APP_ENFORCE_GROUP_ROLE",
            if enforced { "TRUE" } else { "FALSE" }.to_owned(),
        ),
        (
            "MARATHON_CONTAINER_RESOURCE_CPUS",
            format!("{:?}", resources.cpus),
        ),
        ("MARATHON_CONTAINER_RESOURCE_MEM", format!("{:?}", resources.mem)),
        (
            "MARATHON_CONTAINER_RESOURCE_DISK",
            format!("{:?}", resources.disk),
        ),
        ("MARATHON_CONTAINER_RESOURCE_GPUS", resources.gpus.to_string()),
    ] {
        all.insert(name.to_owned(), value);
    }
}

/// Upper case, with every run of other characters than letters, digits and underscores made one underscore.
fn escape(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for c in name.chars() {
        if c.is_ascii_alphanumeric() || c == '_' {
            text.push(c.to_ascii_uppercase());
        } else if !text.ends_with(REPLACED) {
            text.push(REPLACED);
        }
    }
    text.replace(REPLACED, "_")
}

/// Marks a run of replaced characters while a name is escaped; it cannot stand in the name itself.
const REPLACED: char = '\0';

fn labels(launch: &Launch<'_>, container: &Container, all: &mut BTreeMap<String, String>) {
    let mut labels = launch.pod.labels.clone();
    labels.extend(container.labels.clone());
    labels.retain(|key, value| key.len() < LONGEST_KEY && value.len() < LONGEST_VALUE);
    let keys: Vec<String> = labels.keys().map(|key| escape(key)).collect();
    all.insert("MARATHON_APP_LABELS".to_owned(), keys.join(" "));
    for (key, value) in keys.iter().zip(labels.values()) {
        all.insert(format!("MARATHON_APP_LABEL_{key}"), value.clone());
    }
}

fn ports(launch: &Launch<'_>, endpoint: &Endpoint, all: &mut BTreeMap<String, String>) {
    let prefix = &launch.options.variable_prefix;
    let name = escape(&endpoint.name);
    let host_port = launch.target.allocation.host_ports.get(&endpoint.name).copied();
    let reached_at = network::port_inside(launch, endpoint);
    for (kind, port) in [
        ("ENDPOINT", reached_at),
        ("EP_HOST", host_port),
        ("EP_CONTAINER", endpoint.container_port),
    ] {
        if let Some(port) = port {
            all.insert(format!("{prefix}{kind}_{name}"), port.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn names_become_variable_names() {
        for (name, variable) in [
            ("http-endpoint", "HTTP_ENDPOINT"),
            ("a--b", "A_B"),
            ("a_-b", "A__B"),
            ("é.x", "_X"),
            ("", ""),
        ] {
            assert_eq!(escape(name), variable);
        }
    }
}
