//! From a pod and the resources found for it to the messages that launch one instance.

mod checks;
mod discovery;
mod environment;
mod network;
mod resources;

use bytes::Bytes;

pub use self::resources::{Allocation, HostPorts};
use super::{
    id::{InstanceId, PodId},
    model::*,
    version::Version,
};
use crate::mesos::v1;

/// Where an instance goes and what it gets there.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    pub framework: v1::FrameworkId,
    pub agent: v1::AgentId,
    pub hostname: String,
    pub allocation: Allocation,
}

/// How the executor reaches the agent.
#[derive(Debug, Clone, PartialEq)]
pub enum Delivery {
    /// Whatever the agent has as its default executor, which may be ours (design, section 1).
    AgentDefault,
    /// Our binary, by this command; it makes the pod's network itself.
    Own(Box<v1::CommandInfo>),
}

/// Switches of the server that decide what is sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    pub delivery: Delivery,
    /// Put before the names of endpoint variables.
    pub variable_prefix: String,
    /// Name of the network behind `container/bridge`.
    pub bridge_name: String,
}

/// One launch of one instance.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    pub pod: &'a Pod,
    pub version: Version,
    pub instance: &'a InstanceId,
    pub incarnation: u32,
    pub target: &'a Target,
    pub options: &'a Options,
}

impl Launch<'_> {
    /// The LAUNCH_GROUP operation: all containers of the pod at once, under one executor.
    pub fn operation(&self) -> v1::offer::operation::LaunchGroup {
        let tasks = self
            .pod
            .containers
            .iter()
            .enumerate()
            .map(|(index, container)| self.task(index, container))
            .collect();
        v1::offer::operation::LaunchGroup {
            executor: self.executor(),
            task_group: v1::TaskGroupInfo { tasks },
        }
    }

    /// Ids of the tasks, in the order of the containers.
    pub fn task_ids(&self) -> impl Iterator<Item = String> {
        self.pod
            .containers
            .iter()
            .map(|container| self.instance.task_id(&container.name, self.incarnation))
    }

    fn executor(&self) -> v1::ExecutorInfo {
        use v1::executor_info::Type;
        let (kind, command) = match &self.options.delivery {
            Delivery::AgentDefault => (Type::Default, None),
            Delivery::Own(command) => (Type::Custom, Some((**command).clone())),
        };
        let linux_info = v1::LinuxInfo {
            // Whatever the tasks do: a master refuses an executor that shares.
            share_cgroups: Some(false),
            ..ipc(self.pod.linux_info.as_ref())
        };
        let networks = network::infos(self);
        v1::ExecutorInfo {
            r#type: Some(kind as i32),
            executor_id: v1::ExecutorId {
                value: self.instance.executor_id(),
            },
            framework_id: Some(self.target.framework.clone()),
            command,
            container: Some(v1::ContainerInfo {
                r#type: v1::container_info::Type::Mesos as i32,
                network_infos: networks.by_agent,
                linux_info: Some(linux_info),
                ..Default::default()
            }),
            resources: self.target.allocation.for_executor(),
            data: networks.by_executor.map(Bytes::from),
            labels: labels(&self.pod.labels),
            ..Default::default()
        }
    }

    fn task(&self, index: usize, container: &Container) -> v1::TaskInfo {
        v1::TaskInfo {
            name: container.name.clone(),
            task_id: v1::TaskId {
                value: self.instance.task_id(&container.name, self.incarnation),
            },
            agent_id: self.target.agent.clone(),
            resources: self.target.allocation.for_container(index),
            limits: limits(container.resource_limits.as_ref()),
            command: Some(self.command(container)),
            container: Some(self.container(container)),
            kill_policy: container.lifecycle.as_ref().and_then(kill_policy),
            labels: labels(&container.labels),
            discovery: Some(discovery::info(self, container)),
            health_check: container
                .health_check
                .as_ref()
                .map(|check| checks::health_check(self, container, check)),
            check: container
                .check
                .as_ref()
                .map(|check| checks::check(self, container, check)),
            ..Default::default()
        }
    }

    fn command(&self, container: &Container) -> v1::CommandInfo {
        let mut command = v1::CommandInfo {
            user: container.user.clone().or_else(|| self.pod.user.clone()),
            environment: Some(environment::of(self, container)),
            shell: Some(false),
            ..Default::default()
        };
        let Some(exec) = &container.exec else {
            return command;
        };
        match &exec.command {
            Command::Shell(text) => {
                command.shell = Some(true);
                command.value = Some(text.clone());
            }
            Command::Argv(arguments) => {
                // Without an image there is no entrypoint to append to, so the list has to name the program.
                let names_program = exec.override_entrypoint == Some(true) || container.image.is_none();
                command.value = arguments.first().filter(|_| names_program).cloned();
                command.arguments.clone_from(arguments);
            }
        }
        command
    }

    fn container(&self, container: &Container) -> v1::ContainerInfo {
        let mut linux_info = ipc(container.linux_info.as_ref());
        linux_info.share_cgroups = Some(self.pod.legacy_shared_cgroups);
        linux_info.seccomp = container
            .linux_info
            .as_ref()
            .and_then(|info| info.seccomp.as_ref())
            .map(|seccomp| v1::SeccompInfo {
                profile_name: seccomp.profile_name.clone(),
                unconfined: Some(seccomp.unconfined).filter(|unconfined| *unconfined),
            });
        v1::ContainerInfo {
            r#type: v1::container_info::Type::Mesos as i32,
            volumes: container
                .volume_mounts
                .iter()
                .filter_map(|mount| self.volume(mount))
                .collect(),
            mesos: container
                .image
                .as_ref()
                .map(|image| v1::container_info::MesosInfo {
                    image: Some(docker(image)),
                }),
            linux_info: Some(linux_info),
            tty_info: container.tty.filter(|tty| *tty).map(|_| v1::TtyInfo::default()),
            ..Default::default()
        }
    }

    /// `None` for volumes this build refuses before it comes to a launch.
    fn volume(&self, mount: &VolumeMount) -> Option<v1::Volume> {
        use v1::volume::{Mode, Source, source};
        let sandbox = |path: String| {
            let kind = source::sandbox_path::Type::Parent as i32;
            Some(Source {
                r#type: Some(source::Type::SandboxPath as i32),
                sandbox_path: Some(source::SandboxPath {
                    r#type: Some(kind),
                    path,
                }),
                ..Default::default()
            })
        };
        let source = match &self.pod.volume(&mount.name)?.kind {
            VolumeKind::Ephemeral {} => sandbox(format!("volumes/{}", mount.name)),
            VolumeKind::Host { host } if host.starts_with('/') => Some(Source {
                r#type: Some(source::Type::HostPath as i32),
                host_path: Some(source::HostPath {
                    path: host.clone(),
                    mount_propagation: None,
                }),
                ..Default::default()
            }),
            // The seeds' words: "the relative path of the directory in the executor's sandbox".
            VolumeKind::Host { host } => sandbox(host.clone()),
            VolumeKind::Persistent { .. } | VolumeKind::Secret { .. } => return None,
        };
        let mode = if mount.read_only { Mode::Ro } else { Mode::Rw };
        Some(v1::Volume {
            mode: mode as i32,
            container_path: mount.mount_path.clone(),
            source,
            ..Default::default()
        })
    }
}

fn docker(image: &Image) -> v1::Image {
    v1::Image {
        r#type: v1::image::Type::Docker as i32,
        docker: Some(v1::image::Docker {
            name: image.id.clone(),
            ..Default::default()
        }),
        cached: image.force_pull.map(|force| !force),
        ..Default::default()
    }
}

fn ipc(info: Option<&LinuxInfo>) -> v1::LinuxInfo {
    use v1::linux_info::IpcMode as Mode;
    let ipc = info.and_then(|info| info.ipc_info.as_ref());
    let mode = |mode| match mode {
        IpcMode::Private => Mode::Private as i32,
        IpcMode::ShareParent => Mode::ShareParent as i32,
    };
    v1::LinuxInfo {
        ipc_mode: ipc.map(|ipc| mode(ipc.mode)),
        shm_size: ipc.and_then(|ipc| ipc.shm_size),
        ..Default::default()
    }
}

fn kill_policy(lifecycle: &Lifecycle) -> Option<v1::KillPolicy> {
    let seconds = lifecycle.kill_grace_period_seconds?;
    let nanoseconds = (seconds * 1e9).round() as i64;
    Some(v1::KillPolicy {
        grace_period: Some(v1::DurationInfo { nanoseconds }),
    })
}

fn limits(limits: Option<&ResourceLimits>) -> std::collections::BTreeMap<String, v1::value::Scalar> {
    let value = |ceiling| match ceiling {
        Ceiling::At(limit) => limit,
        Ceiling::Unlimited(_) => f64::INFINITY,
    };
    let Some(limits) = limits else {
        return Default::default();
    };
    [("cpus", limits.cpus), ("mem", limits.mem)]
        .into_iter()
        .filter_map(|(name, ceiling)| {
            Some((
                name.to_owned(),
                v1::value::Scalar {
                    value: value(ceiling?),
                },
            ))
        })
        .collect()
}

fn labels(labels: &Labels) -> Option<v1::Labels> {
    let label = |(key, value): (&String, &String)| v1::Label {
        key: key.clone(),
        value: Some(value.clone()),
    };
    (!labels.is_empty()).then(|| v1::Labels {
        labels: labels.iter().map(label).collect(),
    })
}

/// The pod's id as environment variables and discovery show it.
fn pod_id<'a>(launch: &Launch<'a>) -> &'a PodId {
    &launch.pod.id
}

#[cfg(test)]
mod tests;
