//! From JSON to a pod: the structural half of reading a definition, defaults included.

use std::cell::RefCell;

use serde_json::Value;

use super::{
    Profile,
    id::{BadPodId, PodId},
    model::*,
    reader::{Fields, Findings, Node},
    version::Version,
    violation::{Place, Violations},
};

/// The most containers, volumes, endpoints … a definition may list; far above what a node can run.
const MANY: usize = 1_000;
const SECONDS: i64 = u32::MAX as i64;

/// What came of reading a definition: a pod when the shape is right, even if a rule is already known to be broken.
#[derive(Debug)]
pub(super) struct Shaped {
    pub pod: Option<Pod>,
    pub violations: Violations,
    pub ignored: Vec<Place>,
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

fn is_variable(text: &str) -> bool {
    let head = |c: char| c.is_ascii_alphabetic() || c == '_';
    text.starts_with(head) && text.len() <= 255 && text.chars().all(|c| head(c) || c.is_ascii_digit())
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
                "a variable's name holds letters, digits and underscores and begins with no digit",
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
                let value = node.string()?;
                if value.contains('\0') {
                    node.wrong("error.pattern", "a value cannot hold a NUL byte");
                    return None;
                }
                Some(Variable::Value(value))
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

fn scaling(node: Node<'_>) -> Option<Scaling> {
    let mut fields = node.object()?;
    let kind = fields.required("kind")?;
    if kind.string()? != "fixed" {
        kind.wrong("error.unknown.enum.literal", "only `fixed` is a kind of scaling");
        return None;
    }
    // Negative counts are a broken rule in Marathon, not a broken shape.
    let instances = match fields.optional("instances") {
        None => 1,
        Some(node) => {
            let count = node.integer(i64::MIN, i64::from(u32::MAX))?;
            match u32::try_from(count) {
                Ok(count) => count,
                Err(_) => {
                    node.rule(format!("got {count}, expected 0 or more"));
                    0
                }
            }
        }
    };
    // An echo of the seeds: accepted, without effect.
    fields.optional("maxInstances");
    Some(Scaling {
        kind: ScalingKind::Fixed,
        instances,
    })
}

fn default_scheduling(profile: &Profile) -> Scheduling {
    Scheduling {
        backoff: default_backoff(profile),
        upgrade: Upgrade {
            minimum_health_capacity: 1.0,
            maximum_over_capacity: 1.0,
        },
        placement: Placement::default(),
        kill_selection: KillSelection::YoungestFirst,
        unreachable_strategy: default_unreachable(profile),
    }
}

fn default_backoff(profile: &Profile) -> Backoff {
    Backoff {
        backoff: 1.0,
        backoff_factor: 1.15,
        max_launch_delay: profile.max_launch_delay,
    }
}

fn default_unreachable(profile: &Profile) -> UnreachableStrategy {
    UnreachableStrategy::Replace {
        inactive_after_seconds: profile.inactive_after_seconds,
        expunge_after_seconds: profile.expunge_after_seconds,
    }
}

fn scheduling(node: Node<'_>, profile: &Profile) -> Option<Scheduling> {
    let mut fields = node.object()?;
    let default = default_scheduling(profile);
    let backoff = fields.read("backoff", |node| {
        let mut fields = node.object()?;
        let default = default_backoff(profile);
        let mut seconds = |name, default| fields.read(name, |node| node.number(0.0, 1e9)).unwrap_or(default);
        Some(Backoff {
            backoff: seconds("backoff", default.backoff),
            backoff_factor: seconds("backoffFactor", default.backoff_factor),
            max_launch_delay: seconds("maxLaunchDelay", default.max_launch_delay),
        })
    });
    let upgrade = fields.read("upgrade", |node| {
        let mut fields = node.object()?;
        let mut share = |name| fields.read(name, |node| node.number(0.0, 1.0)).unwrap_or(1.0);
        Some(Upgrade {
            minimum_health_capacity: share("minimumHealthCapacity"),
            maximum_over_capacity: share("maximumOverCapacity"),
        })
    });
    let placement = fields.read("placement", |node| {
        let mut fields = node.object()?;
        Some(Placement {
            constraints: bounded(&mut fields, "constraints", constraint),
            accepted_resource_roles: bounded(&mut fields, "acceptedResourceRoles", |node| node.string()),
        })
    });
    let words = [
        ("YOUNGEST_FIRST", KillSelection::YoungestFirst),
        ("OLDEST_FIRST", KillSelection::OldestFirst),
    ];
    let kill_selection = fields.read("killSelection", |node| node.one_of(&words));
    let unreachable = fields.read("unreachableStrategy", |node| unreachable(node, profile));
    Some(Scheduling {
        backoff: backoff.unwrap_or(default.backoff),
        upgrade: upgrade.unwrap_or(default.upgrade),
        placement: placement.unwrap_or_default(),
        kill_selection: kill_selection.unwrap_or(default.kill_selection),
        unreachable_strategy: unreachable.unwrap_or(default.unreachable_strategy),
    })
}

fn unreachable(node: Node<'_>, profile: &Profile) -> Option<UnreachableStrategy> {
    if node.raw().is_string() {
        node.one_of(&[("disabled", ())])?;
        return Some(UnreachableStrategy::Disabled(Disabled::Disabled));
    }
    let mut fields = node.object()?;
    let mut seconds = |name, default| match fields.read(name, |node| node.integer(0, SECONDS)) {
        Some(seconds) => seconds.unsigned_abs(),
        None => default,
    };
    Some(UnreachableStrategy::Replace {
        inactive_after_seconds: seconds("inactiveAfterSeconds", profile.inactive_after_seconds),
        expunge_after_seconds: seconds("expungeAfterSeconds", profile.expunge_after_seconds),
    })
}

const OPERATORS: [(&str, Operator); 7] = [
    ("UNIQUE", Operator::Unique),
    ("CLUSTER", Operator::Cluster),
    ("GROUP_BY", Operator::GroupBy),
    ("LIKE", Operator::Like),
    ("UNLIKE", Operator::Unlike),
    ("MAX_PER", Operator::MaxPer),
    ("IS", Operator::Is),
];

/// An object, or the list form that apps use and the seeds' table names.
fn constraint(node: Node<'_>) -> Option<Constraint> {
    if let Value::Array(items) = node.raw() {
        if !(2..=3).contains(&items.len()) {
            node.wrong(
                "error.pattern",
                "a constraint in list form is [field, operator] or [field, operator, value]",
            );
            return None;
        }
        let mut field_name = None;
        let mut operator = None;
        let mut value = None;
        let mut index = 0;
        node.list(|item| {
            match index {
                0 => field_name = item.string(),
                1 => operator = item.one_of(&OPERATORS),
                _ => value = item.string(),
            }
            index += 1;
            Some(())
        })?;
        return Some(Constraint {
            field_name: field_name?,
            operator: operator?,
            value,
        });
    }
    let mut fields = node.object()?;
    let field_name = fields.required("fieldName").and_then(|node| node.string());
    let operator = fields
        .required("operator")
        .and_then(|node| node.one_of(&OPERATORS));
    let value = fields.read("value", |node| node.string());
    Some(Constraint {
        field_name: field_name?,
        operator: operator?,
        value,
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

fn container(node: Node<'_>, profile: &Profile) -> Option<Container> {
    let mut fields = node.object()?;
    let container_name = fields.required("name").and_then(name);
    let resources = fields.required("resources").and_then(resources);
    let exec = fields.read("exec", exec);
    let resource_limits = fields.read("resourceLimits", resource_limits);
    let image = fields.read("image", image);
    let user = fields.read("user", |node| node.string());
    let environment = fields.read("environment", environment).unwrap_or_default();
    let labels = fields.strings("labels");
    let endpoints = bounded(&mut fields, "endpoints", endpoint);
    let health_check = fields.read("healthCheck", |node| health_check(node, profile));
    let check = fields.read("check", |node| check(node, profile));
    let volume_mounts = bounded(&mut fields, "volumeMounts", volume_mount);
    let artifacts = bounded(&mut fields, "artifacts", artifact);
    let lifecycle = fields.read("lifecycle", |node| {
        let mut fields = node.object()?;
        let seconds = fields.read("killGracePeriodSeconds", |node| node.number(0.0, 1e9));
        Some(Lifecycle {
            kill_grace_period_seconds: seconds,
        })
    });
    let linux_info = fields.read("linuxInfo", linux_info);
    let tty = fields.read("tty", |node| node.boolean());
    Some(Container {
        name: container_name?,
        resources: resources?,
        resource_limits,
        exec: exec.flatten(),
        image,
        user,
        environment,
        labels,
        endpoints,
        health_check,
        check,
        volume_mounts,
        artifacts,
        lifecycle,
        linux_info,
        tty,
    })
}

fn resources(node: Node<'_>) -> Option<Resources> {
    let mut fields = node.object()?;
    let mut amount = |name, least, default| {
        fields
            .read(name, |node| node.number(least, 1e12))
            .unwrap_or(default)
    };
    let (cpus, mem, disk) = (
        amount("cpus", 0.001, 1.0),
        amount("mem", 0.001, 128.0),
        amount("disk", 0.0, 0.0),
    );
    let gpus = fields
        .read("gpus", |node| node.integer(0, 1_000_000))
        .unwrap_or(0);
    Some(Resources {
        cpus,
        mem,
        disk,
        gpus: u32::try_from(gpus).unwrap_or(0),
    })
}

fn resource_limits(node: Node<'_>) -> Option<ResourceLimits> {
    let mut fields = node.object()?;
    let mut ceiling = |name| {
        fields.read(name, |node: Node<'_>| match node.raw() {
            Value::String(word) if word == "unlimited" => Some(Ceiling::Unlimited(Unlimited::Unlimited)),
            Value::String(word) => {
                let word: String = word.chars().take(60).collect();
                node.rule(format!(
                    "'{word}' is an invalid resource limit. It must be 'unlimited' or a number"
                ));
                None
            }
            _ => node.number(0.0, 1e12).map(Ceiling::At),
        })
    };
    Some(ResourceLimits {
        cpus: ceiling("cpus"),
        mem: ceiling("mem"),
    })
}

/// `Some(None)`: an empty shell command, which the seeds use for "run the image's own entrypoint".
fn exec(node: Node<'_>) -> Option<Option<Exec>> {
    let mut fields = node.object()?;
    let command = fields.required("command").and_then(command);
    let override_entrypoint = fields.read("overrideEntrypoint", |node| node.boolean());
    Some(command?.map(|command| Exec {
        command,
        override_entrypoint,
    }))
}

fn command(node: Node<'_>) -> Option<Option<Command>> {
    let mut fields = node.object()?;
    let shell = fields.optional("shell");
    let argv = fields.optional("argv");
    match (shell, argv) {
        (Some(_), Some(_)) => {
            node.wrong("error.pattern", "has both `shell` and `argv`; give one of them");
            None
        }
        (None, None) => {
            node.wrong("error.path.missing", "needs `shell` or `argv`");
            None
        }
        (Some(shell), None) => {
            let text = shell.string()?;
            if no_nul(&shell, &text) {
                Some((!text.is_empty()).then_some(Command::Shell(text)))
            } else {
                None
            }
        }
        (None, Some(argv)) => {
            let items = argv.list(|item| {
                let text = item.string()?;
                no_nul(&item, &text).then_some(text)
            })?;
            if items.is_empty() {
                argv.wrong("error.minLength", "must have at least 1 item");
                return None;
            }
            Some(Some(Command::Argv(items)))
        }
    }
}

fn no_nul(node: &Node<'_>, text: &str) -> bool {
    if text.contains('\0') {
        node.wrong("error.pattern", "cannot hold a NUL byte");
        return false;
    }
    true
}

fn image(node: Node<'_>) -> Option<Image> {
    let mut fields = node.object()?;
    let kind = fields
        .required("kind")
        .and_then(|node| node.one_of(&[("DOCKER", ImageKind::Docker), ("APPC", ImageKind::Appc)]));
    let id = fields.required("id").and_then(|node| node.text(1, 1024));
    let force_pull = fields.read("forcePull", |node| node.boolean());
    let pull_config = fields.read("pullConfig", |node| {
        let mut fields = node.object()?;
        Some(PullConfig {
            secret: fields.required("secret")?.text(1, 1024)?,
        })
    });
    let labels = fields.strings("labels");
    Some(Image {
        kind: kind?,
        id: id?,
        force_pull,
        pull_config,
        labels,
    })
}

fn port(node: &Node<'_>, least: i64) -> Option<u16> {
    u16::try_from(node.integer(least, 65_535)?).ok()
}

fn endpoint(node: Node<'_>) -> Option<Endpoint> {
    let mut fields = node.object()?;
    let endpoint_name = fields.required("name").and_then(name);
    let container_port = fields.read("containerPort", |node| port(&node, 1));
    let host_port = fields.read("hostPort", |node| port(&node, 0));
    let protocol = fields.read("protocol", |node| {
        let protocols = node.list(|node| node.text(1, 63))?;
        if node.raw().as_array().is_some_and(Vec::is_empty) {
            node.wrong("error.minLength", "must have at least 1 item");
        }
        Some(protocols)
    });
    let labels = fields.strings("labels");
    let network_names = bounded(&mut fields, "networkNames", |node| node.string());
    Some(Endpoint {
        name: endpoint_name?,
        container_port,
        host_port,
        protocol: protocol.unwrap_or_default(),
        labels,
        network_names,
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
        let path = node.text(1, 1024)?;
        no_nul(&node, &path).then_some(VolumeKind::Host { host: path })?
    } else {
        VolumeKind::Ephemeral {}
    };
    let name = match kind {
        VolumeKind::Persistent { .. } | VolumeKind::Secret { .. } => named?.text(1, 63)?,
        VolumeKind::Host { .. } | VolumeKind::Ephemeral {} => name(named?)?,
    };
    Some(Volume { name, kind })
}

fn volume_mount(node: Node<'_>) -> Option<VolumeMount> {
    let mut fields = node.object()?;
    let volume = fields.required("name").and_then(name);
    let path = fields.required("mountPath").and_then(|node| {
        let path = node.text(1, 1024)?;
        no_nul(&node, &path).then_some(path)
    });
    let read_only = fields.read("readOnly", |node| node.boolean()).unwrap_or(false);
    Some(VolumeMount {
        name: volume?,
        mount_path: path?,
        read_only,
    })
}

fn artifact(node: Node<'_>) -> Option<Artifact> {
    let mut fields = node.object()?;
    let uri = fields.required("uri").and_then(|node| node.text(1, 1024));
    let mut flag = |name, default| fields.read(name, |node| node.boolean()).unwrap_or(default);
    let (extract, executable, cache) = (
        flag("extract", true),
        flag("executable", false),
        flag("cache", false),
    );
    let dest_path = fields.read("destPath", |node| node.text(1, 1024));
    Some(Artifact {
        uri: uri?,
        extract,
        executable,
        cache,
        dest_path,
    })
}

fn seconds(fields: &mut Fields<'_>, name: &'static str, default: u32) -> u32 {
    let read = fields.read(name, |node| node.integer(0, SECONDS));
    read.and_then(|seconds| u32::try_from(seconds).ok())
        .unwrap_or(default)
}

fn health_check(node: Node<'_>, profile: &Profile) -> Option<HealthCheck> {
    let mut fields = node.object()?;
    let probe = probe(&mut fields);
    let mut period = |name, default| seconds(&mut fields, name, default);
    let (grace_period_seconds, interval_seconds) =
        (period("gracePeriodSeconds", 300), period("intervalSeconds", 60));
    let (max_consecutive_failures, timeout_seconds) =
        (period("maxConsecutiveFailures", 3), period("timeoutSeconds", 20));
    let delay_seconds = period("delaySeconds", profile.health_delay_seconds);
    Some(HealthCheck {
        probe: probe?,
        grace_period_seconds,
        interval_seconds,
        max_consecutive_failures,
        timeout_seconds,
        delay_seconds,
    })
}

fn check(node: Node<'_>, profile: &Profile) -> Option<Check> {
    let mut fields = node.object()?;
    let probe = probe(&mut fields);
    let interval_seconds = seconds(&mut fields, "intervalSeconds", 60);
    let timeout_seconds = seconds(&mut fields, "timeoutSeconds", 20);
    let delay_seconds = seconds(&mut fields, "delaySeconds", profile.health_delay_seconds);
    Some(Check {
        probe: probe?,
        interval_seconds,
        timeout_seconds,
        delay_seconds,
    })
}

/// Exactly one of `http`, `tcp` and `exec`.
fn probe(fields: &mut Fields<'_>) -> Option<Probe> {
    let http = fields.optional("http");
    let tcp = fields.optional("tcp");
    let exec = fields.optional("exec");
    match (http, tcp, exec) {
        (Some(node), None, None) => {
            let mut fields = node.object()?;
            let endpoint = fields.required("endpoint").and_then(|node| node.string());
            let path = fields.read("path", |node| node.text(1, 1024));
            let schemes = [("HTTP", Scheme::Http), ("HTTPS", Scheme::Https)];
            let scheme = fields
                .read("scheme", |node| node.one_of(&schemes))
                .unwrap_or(Scheme::Http);
            Some(Probe::Http {
                endpoint: endpoint?,
                path,
                scheme,
            })
        }
        (None, Some(node), None) => {
            let mut fields = node.object()?;
            Some(Probe::Tcp {
                endpoint: fields.required("endpoint")?.string()?,
            })
        }
        (None, None, Some(node)) => {
            let mut fields = node.object()?;
            let place = fields.required("command")?;
            match command(place.clone())? {
                Some(command) => Some(Probe::Exec { command }),
                None => {
                    place.wrong("error.minLength", "a check needs a command");
                    None
                }
            }
        }
        _ => {
            fields
                .node
                .rule("Only one of http, tcp, or command may be specified");
            None
        }
    }
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
