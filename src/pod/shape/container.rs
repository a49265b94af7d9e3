//! One container: what it runs, what it may use, what it offers.

use serde_json::Value;

use super::{
    super::{Profile, model::*, reader::Node},
    bounded,
    check::{check, health_check},
    environment, linux_info, name,
};

pub(super) fn container(node: Node<'_>, profile: &Profile) -> Option<Container> {
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

pub(super) fn command(node: Node<'_>) -> Option<Option<Command>> {
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
            Some((!text.is_empty()).then_some(Command::Shell(text)))
        }
        (None, Some(argv)) => {
            let items = argv.list(|item| item.string())?;
            if items.is_empty() {
                argv.wrong("error.minLength", "must have at least 1 item");
                return None;
            }
            Some(Some(Command::Argv(items)))
        }
    }
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

fn volume_mount(node: Node<'_>) -> Option<VolumeMount> {
    let mut fields = node.object()?;
    let volume = fields.required("name").and_then(name);
    let path = fields.required("mountPath").and_then(|node| node.text(1, 1024));
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
