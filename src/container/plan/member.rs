//! From a task to its plan.

use std::{collections::BTreeMap, os::fd::OwnedFd, path::PathBuf, sync::Arc};

use oci_spec::image::ImageConfiguration;

use super::{
    CapabilitySet, Device, IpcNamespace, Mount, MountSource, Output, Plan, PlanError, Rootfs,
    SANDBOX_IN_IMAGE, Seccomp, command, environment, error::no_nul, identity, isolation, volumes,
};
use crate::{
    container::{
        cgroup::{MemberCgroup, View},
        mapped::MappedUsers,
        policy::{self, Policy},
    },
    mesos::v1,
};

/// What was made for this member before it is planned.
#[derive(Debug, Clone)]
pub struct Context {
    /// The member's own sandbox on the host.
    pub sandbox: PathBuf,
    /// Names the group, for what its members share.
    pub group: String,
    pub rootfs: Rootfs,
    /// The group's network namespace, if it has one.
    pub network: Option<Arc<OwnedFd>>,
    /// The executor's own network is not the host's: the agent has put it into another.
    pub network_of_agent: bool,
    /// Users of members' own.
    pub users: Option<Arc<MappedUsers>>,
    pub container_ip: Option<String>,
    pub hostname: Option<String>,
    /// Mounted before the task's volumes: hosts, hostname, resolv.conf.
    pub mounts: Vec<Mount>,
    /// Sources of the volumes that come from images, by index.
    pub image_volumes: BTreeMap<usize, MountSource>,
    pub cgroup: Option<Arc<MemberCgroup>>,
    /// What it sees of cgroups.
    pub cgroup_view: Option<Arc<View>>,
    pub oom_score_adj: Option<i32>,
    pub stdout: Output,
    pub stderr: Output,
}

impl Default for Context {
    fn default() -> Self {
        Self {
            sandbox: PathBuf::new(),
            group: String::new(),
            rootfs: Rootfs::Host,
            network: None,
            network_of_agent: false,
            users: None,
            container_ip: None,
            hostname: None,
            mounts: Vec::new(),
            image_volumes: BTreeMap::new(),
            cgroup: None,
            cgroup_view: None,
            oom_score_adj: None,
            stdout: Output::File("stdout".into()),
            stderr: Output::File("stderr".into()),
        }
    }
}

/// What the operator decides for all members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defaults {
    /// Z-04: for tasks that ask for none in particular; without, Docker's as far as the policy goes.
    pub capabilities: Option<CapabilitySet>,
    /// Z-03 and more: what a task may ask for at most.
    pub policy: Policy,
    /// Z-05
    pub no_new_privileges: bool,
    /// Z-06: filter members that name no profile.
    pub seccomp: bool,
    /// I-13: an image's USER counts when the command names none.
    pub image_user: bool,
    /// I-15, K-13: an image's STOPSIGNAL counts.
    pub image_stop_signal: bool,
    /// Z-09: devices beyond the standard ones.
    pub devices: Vec<Device>,
    pub umask: u32,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            capabilities: None,
            policy: Policy::default(),
            no_new_privileges: true,
            seccomp: true,
            image_user: true,
            image_stop_signal: true,
            devices: Vec::new(),
            umask: 0o022,
        }
    }
}

impl Defaults {
    /// What a member gets whose task asks for no capabilities. What the operator says is given even if no task may
    /// ask for it.
    pub(super) fn given_capabilities(&self) -> CapabilitySet {
        self.capabilities
            .unwrap_or_else(|| CapabilitySet::DOCKER.and(self.policy.capabilities()))
    }
}

/// I-17
const MASKED: [&str; 13] = [
    "proc/acpi",
    "proc/asound",
    "proc/interrupts",
    "proc/kcore",
    "proc/key-users",
    "proc/keys",
    "proc/latency_stats",
    "proc/sched_debug",
    "proc/scsi",
    "proc/timer_list",
    "proc/timer_stats",
    "sys/devices/virtual/powercap",
    "sys/firmware",
];

/// I-16
const READ_ONLY: [&str; 5] = [
    "proc/bus",
    "proc/fs",
    "proc/irq",
    "proc/sys",
    "proc/sysrq-trigger",
];

/// What a member on the host's root may look at only: through these user 0 alone makes the kernel act on the whole
/// machine. Settings of memory and network stay, which people do change.
const READ_ONLY_OF_HOST: [&str; 12] = [
    "proc/acpi",
    "proc/bus",
    "proc/fs",
    "proc/irq",
    "proc/scsi",
    "proc/sys/debug",
    "proc/sys/dev",
    "proc/sys/fs",
    "proc/sys/kernel",
    "proc/sysrq-trigger",
    "sys",
    "dev",
];

/// Who may mount could undo that, and may need what it keeps away.
const SYS_ADMIN: u32 = 21;

/// I-16: name, major, minor.
const DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// Plans one member. Pure: the same task, image, context and defaults give the same plan or the same refusal.
pub fn member(
    task: &v1::TaskInfo,
    image: Option<&ImageConfiguration>,
    context: &Context,
    defaults: &Defaults,
) -> Result<Plan, PlanError> {
    refuse_unsupported(task)?;
    let container = task.container.as_ref();
    let linux = container.and_then(|container| container.linux_info.as_ref());
    let config = image.and_then(|image| image.config().as_ref());

    let sandbox_seen = match context.rootfs {
        Rootfs::Host => context.sandbox.to_string_lossy().into_owned(),
        _ => SANDBOX_IN_IMAGE.to_owned(),
    };
    let environment = environment::plan(task, image, context, &sandbox_seen)?;

    let given = volumes::plan(
        container.map_or(&[], |container| &container.volumes),
        &context.image_volumes,
    )?;
    let declared = config
        .and_then(|config| config.volumes().as_deref())
        .unwrap_or_default();
    let mut mounts = volumes::of_image(declared, &given);
    mounts.extend(context.mounts.iter().cloned());
    mounts.extend(given);

    // I-12
    let working_dir = config
        .and_then(|config| config.working_dir().as_deref())
        .filter(|path| !path.is_empty());
    let cwd = match working_dir {
        Some(path) => {
            no_nul("the image's WorkingDir", path)?;
            PathBuf::from("/").join(path)
        }
        None => PathBuf::from(&sandbox_seen),
    };
    let hostname = context.hostname.clone().or_else(|| container?.hostname.clone());
    if let Some(hostname) = &hostname {
        no_nul("container.hostname", hostname)?;
        if hostname.is_empty() || hostname.len() > 64 {
            return Err(PlanError::new(
                "container.hostname",
                "must have 1 to 64 characters",
            ));
        }
    }
    let stop_signal = match config.and_then(|config| config.stop_signal().as_deref()) {
        Some(name) if defaults.image_stop_signal => signal_number(name)
            .ok_or_else(|| PlanError::new("the image's StopSignal", format!("{name:?} is no signal")))?,
        _ => libc::SIGTERM,
    };
    let own_root = !context.rootfs.is_host();
    let namespaces = isolation::namespaces(linux, context)?;
    if let Some(shm) = shared_memory(&namespaces.ipc, own_root) {
        mounts.insert(0, shm);
    }
    let capabilities = identity::capabilities(linux, defaults)?;
    let read_only: &[&str] = match own_root {
        true => &READ_ONLY,
        false if capabilities.bounding.contains(SYS_ADMIN) => &[],
        false => &READ_ONLY_OF_HOST,
    };
    let devices = DEVICES.iter().map(|&(name, major, minor)| Device {
        name: name.into(),
        major,
        minor,
        mode: 0o666,
    });
    let plan = Plan {
        member: task.name.clone(),
        command: command::plan(task.command.as_ref(), image)?,
        environment: environment.variables,
        cwd,
        user: identity::user(task.command.as_ref(), image, defaults)?,
        capabilities,
        no_new_privileges: defaults.no_new_privileges,
        seccomp: seccomp(linux, defaults)?,
        rlimits: isolation::rlimits(container.and_then(|container| container.rlimit_info.as_ref()))?,
        namespaces,
        hostname,
        rootfs: context.rootfs.clone(),
        sandbox: context.sandbox.clone(),
        mounts,
        masked_paths: MASKED.iter().filter(|_| own_root).map(PathBuf::from).collect(),
        read_only_paths: read_only.iter().map(PathBuf::from).collect(),
        devices: devices
            .filter(|_| own_root)
            .chain(defaults.devices.iter().cloned())
            .collect(),
        umask: defaults.umask & 0o777,
        oom_score_adj: context.oom_score_adj,
        cgroup: context.cgroup.clone(),
        cgroup_view: context.cgroup_view.clone(),
        terminal: isolation::terminal(container.and_then(|container| container.tty_info.as_ref()))?,
        stop_signal,
        stdout: context.stdout.clone(),
        stderr: context.stderr.clone(),
        notes: environment.notes,
        policy: defaults.policy.clone(),
    };
    policy::judge(task, &plan, context, &defaults.policy)?;
    Ok(plan)
}

fn refuse_unsupported(task: &v1::TaskInfo) -> Result<(), PlanError> {
    no_nul("name", &task.name)?;
    // R-09
    if task
        .resources
        .iter()
        .any(|r| r.name == "gpus" && r.scalar.as_ref().is_some_and(|s| s.value > 0.0))
    {
        return Err(PlanError::new("resources", "gpus are not supported"));
    }
    let Some(container) = &task.container else {
        return Ok(());
    };
    // Z-13, before the type, for it says more.
    if container
        .docker
        .as_ref()
        .is_some_and(v1::container_info::DockerInfo::privileged)
    {
        return Err(PlanError::new(
            "container.docker.privileged",
            "privileged members are not supported",
        ));
    }
    if container.r#type() != v1::container_info::Type::Mesos {
        return Err(PlanError::new(
            "container.type",
            "DOCKER is not supported in task groups; use MESOS",
        ));
    }
    // N-02
    if !container.network_infos.is_empty() {
        return Err(PlanError::new(
            "container.network_infos",
            "a member has its group's network; networks are named on the executor or in its data",
        ));
    }
    Ok(())
}

/// Z-06
fn seccomp(linux: Option<&v1::LinuxInfo>, defaults: &Defaults) -> Result<Seccomp, PlanError> {
    const AT: &str = "container.linux_info.seccomp";
    let Some(info) = linux.and_then(|linux| linux.seccomp.as_ref()) else {
        return Ok(if defaults.seccomp {
            Seccomp::Default
        } else {
            Seccomp::Unconfined
        });
    };
    match (info.profile_name.as_deref(), info.unconfined()) {
        (Some(_), true) => Err(PlanError::new(AT, "has both profile_name and unconfined")),
        (None, true) => Ok(Seccomp::Unconfined),
        (Some(""), false) => Err(PlanError::new(format!("{AT}.profile_name"), "is empty")),
        (Some(name), false) => match name.contains(['/', '\0']) || name == ".." || name == "." {
            true => Err(PlanError::new(
                format!("{AT}.profile_name"),
                format!("{name:?} is not a plain file name"),
            )),
            false => Ok(Seccomp::Profile(name.into())),
        },
        (None, false) => Err(PlanError::new(AT, "has neither profile_name nor unconfined")),
    }
}

/// Z-02: the member's `/dev/shm`. Shared with the executor it is the host's, which on the host's root is there.
fn shared_memory(ipc: &IpcNamespace, own_root: bool) -> Option<Mount> {
    let source = match ipc {
        IpcNamespace::Private { shm_size } => MountSource::Tmpfs {
            size: *shm_size,
            mode: 0o1777,
        },
        IpcNamespace::Shared(_) => MountSource::SharedMemory,
        IpcNamespace::Parent if own_root => MountSource::Host("/dev/shm".into()),
        IpcNamespace::Parent => return None,
    };
    Some(Mount {
        source,
        target: super::Target::Root("dev/shm".into()),
        read_only: false,
        field: "/dev/shm".into(),
    })
}

/// `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3` and `RTMAX-1` are all in use.
fn signal_number(name: &str) -> Option<i32> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
        "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
        "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    // As the C libraries number them: the first two of the kernel's are their own.
    const RTMIN: i32 = 34;
    const RTMAX: i32 = 64;
    let upper = name.trim().to_ascii_uppercase();
    if let Ok(number) = upper.parse::<i32>() {
        return (1..=RTMAX).contains(&number).then_some(number);
    }
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |rest: &str, sign: char| match rest {
        "" => Some(0),
        rest => rest.strip_prefix(sign)?.parse::<i32>().ok(),
    };
    let number = if let Some(rest) = bare.strip_prefix("RTMIN") {
        RTMIN.checked_add(offset(rest, '+')?)?
    } else if let Some(rest) = bare.strip_prefix("RTMAX") {
        RTMAX.checked_sub(offset(rest, '-')?)?
    } else {
        return NAMES
            .iter()
            .position(|&known| known == bare)
            .map(|index| index as i32 + 1);
    };
    (RTMIN..=RTMAX).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task() -> v1::TaskInfo {
        v1::TaskInfo {
            name: "web".into(),
            command: Some(v1::CommandInfo {
                value: Some("true".into()),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn refused(task: &v1::TaskInfo) -> String {
        member(task, None, &Context::default(), &Defaults::default())
            .unwrap_err()
            .to_string()
    }

    fn container() -> v1::ContainerInfo {
        v1::ContainerInfo {
            r#type: v1::container_info::Type::Mesos as i32,
            ..Default::default()
        }
    }

    #[test]
    fn e_04_e_11_sandbox_and_cwd_depend_on_the_image() {
        let context = Context {
            sandbox: "/work/own".into(),
            ..Context::default()
        };
        let plan = member(&task(), None, &context, &Defaults::default()).unwrap();
        assert_eq!(plan.cwd, PathBuf::from("/work/own"));
        assert!(
            plan.environment
                .contains(&("MESOS_SANDBOX".into(), "/work/own".into()))
        );
        assert!(plan.masked_paths.is_empty() && plan.devices.is_empty());

        let context = Context {
            rootfs: Rootfs::Directory {
                path: "/r".into(),
                read_only: false,
            },
            ..context
        };
        let plan = member(&task(), None, &context, &Defaults::default()).unwrap();
        assert_eq!(plan.cwd, PathBuf::from(SANDBOX_IN_IMAGE));
        assert!(
            plan.environment
                .contains(&("MESOS_SANDBOX".into(), SANDBOX_IN_IMAGE.into()))
        );
        assert_eq!(plan.devices.len(), 6);
    }

    #[test]
    fn r_09_n_02_z_13_what_is_not_supported_is_refused_by_name() {
        let gpu = v1::TaskInfo {
            resources: vec![v1::Resource {
                name: "gpus".into(),
                scalar: Some(v1::value::Scalar { value: 1.0 }),
                ..Default::default()
            }],
            ..task()
        };
        assert_eq!(refused(&gpu), "resources: gpus are not supported");
        let networks = v1::TaskInfo {
            container: Some(v1::ContainerInfo {
                network_infos: vec![v1::NetworkInfo::default()],
                ..container()
            }),
            ..task()
        };
        assert!(refused(&networks).starts_with("container.network_infos: "));
        let privileged = v1::TaskInfo {
            container: Some(v1::ContainerInfo {
                r#type: v1::container_info::Type::Docker as i32,
                docker: Some(v1::container_info::DockerInfo {
                    privileged: Some(true),
                    ..Default::default()
                }),
                ..container()
            }),
            ..task()
        };
        assert!(refused(&privileged).starts_with("container.docker.privileged: "));
    }

    #[test]
    fn z_06_profile_xor_unconfined() {
        let with = |profile_name: Option<&str>, unconfined| {
            let linux = v1::LinuxInfo {
                seccomp: Some(v1::SeccompInfo {
                    profile_name: profile_name.map(Into::into),
                    unconfined,
                }),
                ..Default::default()
            };
            seccomp(Some(&linux), &Defaults::default()).map_err(|e| e.to_string())
        };
        assert_eq!(
            with(Some("strict.json"), None),
            Ok(Seccomp::Profile("strict.json".into()))
        );
        assert_eq!(with(None, Some(true)), Ok(Seccomp::Unconfined));
        for (name, unconfined) in [
            (Some("x"), Some(true)),
            (None, None),
            (None, Some(false)),
            (Some("../x"), None),
        ] {
            assert!(with(name, unconfined).is_err(), "{name:?} {unconfined:?}");
        }
        assert_eq!(seccomp(None, &Defaults::default()), Ok(Seccomp::Default));
    }

    #[test]
    fn i_15_k_13_stop_signals_in_every_spelling() {
        for (name, number) in [
            ("SIGTERM", 15),
            ("term", 15),
            ("9", 9),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("SIGRTMIN", 34),
            ("SIGSYS", 31),
        ] {
            assert_eq!(signal_number(name), Some(number), "{name}");
        }
        for name in [
            "",
            "SIG",
            "0",
            "65",
            "SIGRTMIN+31",
            "RTMAX+1",
            "NOPE",
            "RTMIN+99999999999",
        ] {
            assert_eq!(signal_number(name), None, "{name}");
        }
    }
}
