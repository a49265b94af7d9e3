//! What must hold between the values of a pod (API reference, section 6), and its canonical form (section 7).

use std::collections::{BTreeMap, BTreeSet};

use super::{
    InstanceId, Profile,
    model::*,
    violation::{Place, Violations},
};

/// Fills in what the rest of the definition decides.
pub(super) fn normalise(pod: &mut Pod, profile: &Profile) {
    for network in &mut pod.networks {
        if network.mode == NetworkMode::Container && network.name.is_none() {
            network.name.clone_from(&profile.default_network);
        }
    }
    // On the host's network, and behind its bridge, an endpoint without a host port gets one from the offer.
    if pod
        .networks
        .iter()
        .all(|network| network.mode != NetworkMode::Container)
    {
        for endpoint in pod
            .containers
            .iter_mut()
            .flat_map(|container| &mut container.endpoints)
        {
            endpoint.host_port.get_or_insert(0);
        }
    }
}

pub(super) fn check(pod: &Pod, profile: &Profile, out: &mut Violations) {
    check_id(pod, out);
    check_roles(pod, profile, out);
    let root = Place::root();
    if pod.user.as_deref() == Some("") {
        out.rule(&root.field("user"), "must not be empty");
    }
    let (instances, most) = (pod.scaling.instances, profile.most_instances);
    if instances > most {
        let rule = format!("got {instances}, expected {most} or fewer (the scheduler's --max-instances)");
        out.rule(&root.field("scaling").field("instances"), rule);
    }
    check_names(pod, out);
    check_volumes(pod, out);
    check_environment(&pod.environment, pod, &root.field("environment"), out);
    check_networks(pod, out);
    check_scheduling(pod, out);
    if pod.linux_info.as_ref().is_some_and(|info| info.seccomp.is_some()) {
        out.rule(
            &root.field("linuxInfo"),
            "Seccomp configuration on executor level is not supported",
        );
    }
    if let Some(info) = &pod.linux_info {
        check_ipc(info, &root.field("linuxInfo"), out);
    }
    for (index, container) in pod.containers.iter().enumerate() {
        check_container(container, pod, &root.field("containers").item(index), out);
    }
}

/// Whether no two of these are equal.
fn distinct<T: Ord>(items: impl IntoIterator<Item = T>) -> bool {
    let mut seen = BTreeSet::new();
    items.into_iter().all(|item| seen.insert(item))
}

fn endpoints(pod: &Pod) -> impl Iterator<Item = &Endpoint> {
    pod.containers.iter().flat_map(|container| &container.endpoints)
}

/// The most bytes of an id in Mesos.
const LONGEST_ID: usize = 255;

/// Mesos takes no longer ids of tasks, and these hold the pod's id and the container's name.
fn check_id(pod: &Pod, out: &mut Violations) {
    let instance = InstanceId::new(&pod.id, uuid::Uuid::nil());
    let longest = pod
        .containers
        .iter()
        .map(|container| instance.task_id(&container.name, u32::MAX).len())
        .max()
        .unwrap_or(0);
    if let Some(over) = longest.checked_sub(LONGEST_ID).filter(|over| *over > 0) {
        let rule = format!(
            "is {over} too long: the longest id of a task, made of it and a container's name, has {longest} \
             characters, and Mesos takes {LONGEST_ID}"
        );
        out.rule(&Place::root().field("id"), rule);
    }
}

/// What is offered to another role never comes to us.
fn check_roles(pod: &Pod, profile: &Profile, out: &mut Violations) {
    if let Some(roles) = &profile.roles
        && !roles.contains(&pod.role)
    {
        out.rule(
            &Place::root().field("role"),
            format!("got {}, expected one of: [{}]", pod.role, roles.join(", ")),
        );
    }
}

fn check_names(pod: &Pod, out: &mut Violations) {
    let root = Place::root();
    let containers = root.field("containers");
    if pod.containers.is_empty() {
        out.rule(&containers, "must not be empty");
    }
    if !distinct(pod.containers.iter().map(|container| &container.name)) {
        out.rule(&containers, "container names must be unique");
    }
    if !distinct(endpoints(pod).map(|endpoint| &endpoint.name)) {
        out.rule(&root, "endpoint names must be unique across all containers");
    }
    if !distinct(endpoints(pod).filter_map(|endpoint| endpoint.container_port)) {
        out.rule(&root, "container ports must be unique across all containers");
    }
    if !distinct(
        endpoints(pod)
            .filter_map(|endpoint| endpoint.host_port)
            .filter(|port| *port != 0),
    ) {
        out.rule(&root, "host ports must be unique across all containers");
    }
}

fn check_volumes(pod: &Pod, out: &mut Violations) {
    let volumes = Place::root().field("volumes");
    if !distinct(pod.volumes.iter().map(|volume| &volume.name)) {
        out.rule(&volumes, "volume names must be unique");
    }
    let mounted: BTreeSet<&String> = pod
        .containers
        .iter()
        .flat_map(|c| &c.volume_mounts)
        .map(|mount| &mount.name)
        .collect();
    for (index, volume) in pod.volumes.iter().enumerate() {
        if !mounted.contains(&volume.name) {
            out.rule(
                &volumes.item(index),
                "volume must be referenced by at least one container",
            );
        }
        if let VolumeKind::Secret { secret } = &volume.kind
            && !pod.secrets.contains_key(secret)
        {
            out.rule(
                &volumes.item(index),
                "volume.secret must refer to an existing secret",
            );
        }
    }
}

fn check_environment(environment: &Environment, pod: &Pod, place: &Place, out: &mut Violations) {
    for (name, variable) in environment {
        if let Variable::Secret { secret } = variable
            && !pod.secrets.contains_key(secret)
        {
            out.rule(
                &place.field(name).field("secret"),
                "references an undefined secret",
            );
        }
    }
}

fn check_networks(pod: &Pod, out: &mut Violations) {
    let place = Place::root().field("networks");
    let of = |mode| pod.networks.iter().filter(move |network| network.mode == mode);
    let (hosts, bridges, containers) = (
        of(NetworkMode::Host).count(),
        of(NetworkMode::Bridge).count(),
        of(NetworkMode::Container).count(),
    );
    if of(NetworkMode::Host).any(|network| network.name.is_some() || !network.labels.is_empty()) {
        out.rule(&place, "Host networks may not have names or labels");
    }
    if of(NetworkMode::Bridge).any(|network| network.name.is_some()) {
        out.rule(&place, "Bridge networks may not have names");
    }
    if !distinct(of(NetworkMode::Container).map(|network| &network.name)) {
        out.rule(&place, "Duplicate networks are not allowed");
    }
    if of(NetworkMode::Container).any(|network| network.name.is_none()) {
        out.rule(
            &place,
            "Network name must be specified when container network is selected.",
        );
    }
    let kinds = [hosts, bridges, containers]
        .iter()
        .filter(|count| **count > 0)
        .count();
    if kinds > 1 || hosts > 1 || bridges > 1 {
        let rule =
            "May specify a single host network, single bridge network, or else 1-to-n container networks";
        out.rule(&place, rule);
    }
}

fn check_scheduling(pod: &Pod, out: &mut Violations) {
    let place = Place::root().field("scheduling");
    if let UnreachableStrategy::Replace {
        inactive_after_seconds,
        expunge_after_seconds,
    } = pod.scheduling.unreachable_strategy
        && expunge_after_seconds < inactive_after_seconds
    {
        out.rule(
            &place.field("unreachableStrategy").field("expungeAfterSeconds"),
            format!("{expunge_after_seconds} is below inactiveAfterSeconds, {inactive_after_seconds}"),
        );
    }
    let constraints = place.field("placement").field("constraints");
    if !distinct(
        pod.scheduling
            .placement
            .constraints
            .iter()
            .map(|c| (&c.field_name, c.operator as u8, &c.value)),
    ) {
        out.rule(&constraints, "constraints must be unique");
    }
    for (index, constraint) in pod.scheduling.placement.constraints.iter().enumerate() {
        if let Err(rule) = check_constraint(constraint) {
            out.rule(&constraints.item(index), rule);
        }
    }
    // An item's place has no `scheduling/placement` in it: Marathon's clients look for this one.
    let roles = Place::root().field("acceptedResourceRoles");
    for role in &pod.scheduling.placement.accepted_resource_roles {
        if !is_role(role) {
            out.rule(&roles, format!("`{role}` is not the name of a role"));
        }
    }
}

/// Whether Mesos takes this for the name of a role.
pub fn is_role(role: &str) -> bool {
    let forbidden = |c: char| matches!(c, '\t' | '\n' | '\x0b' | '\x0c' | '\r' | ' ' | '/' | '\x7f');
    !matches!(role, "" | "." | "..") && !role.starts_with('-') && !role.contains(forbidden)
}

fn check_constraint(constraint: &Constraint) -> Result<(), &'static str> {
    if constraint.field_name.is_empty() {
        return Err("missing field for constraint declaration");
    }
    let value = constraint.value.as_deref();
    let integer = value.is_some_and(|value| value.parse::<u32>().is_ok());
    match constraint.operator {
        Operator::Unique if value.is_some() => Err("UNIQUE does not accept a value"),
        Operator::GroupBy if value.is_some() && !integer => {
            Err("GROUP BY must define an integer value or else no value at all")
        }
        Operator::MaxPer if !integer => Err("MAX_PER requires an integer value"),
        Operator::Like | Operator::Unlike if value.is_none_or(str::is_empty) => {
            Err("LIKE and UNLIKE require a non-empty, regular expression value")
        }
        Operator::Is
            if !value
                .unwrap_or_default()
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "_/.-".contains(c)) =>
        {
            Err("IS only supports Mesos text and float values (letters, digits, _, -, / and .)")
        }
        _ => Ok(()),
    }
}

fn check_ipc(info: &LinuxInfo, place: &Place, out: &mut Violations) {
    if info
        .ipc_info
        .as_ref()
        .is_some_and(|ipc| ipc.mode == IpcMode::ShareParent && ipc.shm_size.is_some())
    {
        out.rule(place, "ipcInfo shmSize can NOT be set when mode is SHARE_PARENT");
    }
}

fn check_container(container: &Container, pod: &Pod, place: &Place, out: &mut Violations) {
    if container.name == "_app" {
        out.rule(&place.field("name"), "must not be `_app`");
    }
    if container.user.as_deref() == Some("") {
        out.rule(&place.field("user"), "must not be empty");
    }
    if container.exec.is_none() && container.image.is_none() {
        out.rule(
            place,
            "there is nothing to run: give it an `exec.command` or an `image`",
        );
    }
    check_environment(&container.environment, pod, &place.field("environment"), out);
    check_limits(container, pod, place, out);
    if let Some(image) = &container.image
        && let Some(config) = &image.pull_config
        && !pod.secrets.contains_key(&config.secret)
    {
        let place = place.field("image").field("pullConfig");
        out.rule(&place, "pullConfig.secret must refer to an existing secret");
    }
    check_mounts(container, pod, place, out);
    if let Some(check) = &container.health_check {
        let place = place.field("healthCheck");
        check_timing(check.timeout_seconds, check.interval_seconds, &place, out);
        check_probe(&check.probe, container, pod, &place, out);
    }
    if let Some(check) = &container.check {
        let place = place.field("check");
        check_timing(check.timeout_seconds, check.interval_seconds, &place, out);
        check_probe(&check.probe, container, pod, &place, out);
        if let Probe::Http {
            scheme: Scheme::Https,
            ..
        } = check.probe
        {
            let rule = "a check is made by HTTP only; healthCheck knows HTTPS";
            out.rule(&place.field("http").field("scheme"), rule);
        }
    }
    for (index, endpoint) in container.endpoints.iter().enumerate() {
        check_endpoint(endpoint, pod, &place.field("endpoints").item(index), out);
    }
    if let Some(info) = &container.linux_info {
        let place = place.field("linuxInfo");
        check_ipc(info, &place, out);
        match &info.seccomp {
            Some(Seccomp {
                profile_name: Some(_),
                unconfined: true,
            }) => {
                out.rule(
                    &place,
                    "Seccomp unconfined can NOT be true when Profile is defined",
                );
            }
            Some(Seccomp {
                profile_name: None,
                unconfined: false,
            }) => {
                out.rule(
                    &place,
                    "Seccomp unconfined must be true when Profile is NOT defined",
                );
            }
            _ => {}
        }
    }
}

fn check_limits(container: &Container, pod: &Pod, place: &Place, out: &mut Violations) {
    let Some(limits) = &container.resource_limits else {
        return;
    };
    let place = place.field("resourceLimits");
    if pod.legacy_shared_cgroups {
        out.rule(
            &place,
            "resourceLimits cannot be defined if legacySharedCgroups is enabled",
        );
    }
    let asked = [
        ("cpus", limits.cpus, container.resources.cpus),
        ("mem", limits.mem, container.resources.mem),
    ];
    for (name, ceiling, request) in asked {
        if let Some(Ceiling::At(limit)) = ceiling
            && limit < request
        {
            out.rule(
                &place.field(name),
                format!("resource limit must be greater than or equal to requested resource ({request:?})"),
            );
        }
    }
}

fn check_mounts(container: &Container, pod: &Pod, place: &Place, out: &mut Violations) {
    let mut paths: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, mount) in container.volume_mounts.iter().enumerate() {
        let place = place.field("volumeMounts").item(index);
        if pod.volume(&mount.name).is_none() {
            out.rule(
                &place.field("name"),
                "Referenced Volume in VolumeMount should exist",
            );
        }
        if mount.mount_path.split('/').any(|part| part == "..") {
            out.rule(&place.field("mountPath"), "must not contain `..`");
        }
        if let Some(first) = paths.insert(mount.mount_path.trim_end_matches('/'), index) {
            out.rule(
                &place.field("mountPath"),
                format!("is used by volumeMounts[{first}] as well"),
            );
        }
    }
}

fn check_timing(timeout: u32, interval: u32, place: &Place, out: &mut Violations) {
    if timeout >= interval {
        out.rule(
            &place.field("timeoutSeconds"),
            format!("got {timeout}, expected less than {interval}"),
        );
    }
}

fn check_probe(probe: &Probe, container: &Container, pod: &Pod, place: &Place, out: &mut Violations) {
    let (kind, endpoint) = match probe {
        Probe::Http { endpoint, .. } => ("http", endpoint),
        Probe::Tcp { endpoint } => ("tcp", endpoint),
        Probe::Exec { .. } => return,
    };
    let named = container
        .endpoints
        .iter()
        .find(|candidate| candidate.name == *endpoint);
    let problem = match named {
        None => Some("must be contained in the container endpoints"),
        // Marathon leaves out such a check without a word.
        Some(named)
            if named.host_port.is_none() && (pod.on_host_network() || named.container_port.is_none()) =>
        {
            Some("has no port that could be checked")
        }
        Some(_) => None,
    };
    if let Some(problem) = problem {
        out.rule(
            &place.field(kind).field("endpoint"),
            format!("`{endpoint}` {problem}"),
        );
    }
    if let Probe::Http { path: Some(path), .. } = probe
        && !path.starts_with('/')
    {
        out.rule(&place.field(kind).field("path"), "must begin with a slash");
    }
}

fn check_endpoint(endpoint: &Endpoint, pod: &Pod, place: &Place, out: &mut Violations) {
    let names: Vec<&str> = pod
        .networks
        .iter()
        .filter(|network| network.mode == NetworkMode::Container)
        .filter_map(|network| network.name.as_deref())
        .collect();
    if pod.on_host_network() && endpoint.container_port.is_some() {
        out.rule(
            &place.field("containerPort"),
            "is not allowed when using host-mode networking",
        );
    }
    if !names.is_empty() && endpoint.container_port.is_none() {
        out.rule(
            &place.field("containerPort"),
            "is required when using container-mode networking",
        );
    }
    if !distinct(&endpoint.protocol) {
        out.rule(
            &place.field("protocol"),
            "Duplicate protocols within the same endpoint are not allowed",
        );
    }
    for (index, name) in endpoint.network_names.iter().enumerate() {
        if !names.contains(&name.as_str()) {
            out.rule(
                &place.field("networkNames").item(index),
                format!("is not one of ({})", names.join(", ")),
            );
        }
    }
    if !distinct(&endpoint.network_names) {
        out.rule(&place.field("networkNames"), "names a network twice");
    }
    if names.len() > 1 && endpoint.host_port.is_some() && endpoint.network_names.len() != 1 {
        out.rule(
            place,
            "networkNames must be a single item list when hostPort is specified and more than 1 container network is \
             defined",
        );
    }
}
