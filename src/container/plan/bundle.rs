//! A plan in the words of the OCI runtime specification, so that any other runtime can start the same member: for
//! the conformance test and for `podling node bundle`. The executor itself has no use for it.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use serde_json::{Value, json};

use super::{
    CapabilitySet, IpcNamespace, Mount, MountSource, Network, PidNamespace, Plan, Rootfs, SANDBOX_IN_IMAGE,
    Seccomp, Target,
};
use crate::container::{
    seccomp::{Action, ArgTest, Comparison, Env, Profile, caps},
    users::Identity,
};

/// What a plan says and a bundle cannot.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    #[error("{0} has no equal in an OCI bundle")]
    Inexpressible(String),
    #[error("cannot write the bundle")]
    Form(#[from] serde_json::Error),
}

/// What the executor would look up or make, and a bundle has to name.
#[derive(Debug, Clone)]
pub struct Surroundings<'a> {
    pub identity: &'a Identity,
    pub executor_sandbox: &'a Path,
    /// The default profile, or the named one, and what it is compiled for.
    pub seccomp: Option<(&'a Profile, Env)>,
}

/// Writes a plan as a bundle's `config.json`.
pub fn bundle(plan: &Plan, around: &Surroundings<'_>) -> Result<Spec, BundleError> {
    let inexpressible = |what: &str| Err(BundleError::Inexpressible(what.to_owned()));
    let (root, read_only) = match &plan.rootfs {
        Rootfs::Directory { path, read_only } => (path.clone(), *read_only),
        // To be mounted there by whoever runs the bundle.
        Rootfs::Mounted { read_only, .. } => (PathBuf::from("rootfs"), *read_only),
        Rootfs::Host => return inexpressible("the host's root file system"),
    };
    if plan.command.arguments.first() != Some(&plan.command.program) {
        return inexpressible("an argv[0] that is not the program");
    }
    let mut namespaces = vec![
        json!({"type": "mount"}),
        json!({"type": "uts"}),
        json!({"type": "cgroup"}),
    ];
    match plan.namespaces.pid {
        PidNamespace::Own => namespaces.push(json!({"type": "pid"})),
        PidNamespace::Shared(_) => return inexpressible("a pod's processes"),
    }
    // Whoever runs the bundle starts one member; who else is to share it is not for the bundle to say.
    if let IpcNamespace::Private { .. } | IpcNamespace::Shared(_) = plan.namespaces.ipc {
        namespaces.push(json!({"type": "ipc"}));
    }
    if let Network::Join(_) = plan.namespaces.network {
        return inexpressible("a network that has no name");
    }
    if plan.namespaces.users.is_some() {
        return inexpressible("a user namespace that owns nothing else");
    }
    let mut mounts = base_mounts(plan);
    for mount in &plan.mounts {
        mounts.push(volume(mount, plan, around)?);
    }
    let rlimits = plan.rlimits.iter().map(|limit| {
        json!({"type": rlimit_name(limit.resource), "soft": limit.soft.unwrap_or(u64::MAX), "hard": limit.hard.unwrap_or(u64::MAX)})
    });
    let caps = &plan.capabilities;
    let paths = |paths: &[PathBuf]| {
        paths
            .iter()
            .map(|path| Path::new("/").join(path))
            .collect::<Vec<_>>()
    };
    let mut spec = json!({
        "ociVersion": "1.0.2",
        "root": {"path": root, "readonly": read_only},
        "process": {
            "terminal": plan.terminal.is_some(),
            "user": {
                "uid": around.identity.uid, "gid": around.identity.gid,
                "additionalGids": around.identity.groups, "umask": plan.umask,
            },
            "args": plan.command.arguments,
            "env": plan.environment.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
            "cwd": plan.cwd,
            "capabilities": {
                "bounding": names(caps.bounding), "effective": names(caps.effective), "permitted": names(caps.permitted),
                "inheritable": names(caps.inheritable), "ambient": names(caps.ambient),
            },
            "rlimits": rlimits.collect::<Vec<_>>(),
            "noNewPrivileges": plan.no_new_privileges,
        },
        "mounts": mounts,
        "linux": {
            "namespaces": namespaces,
            "maskedPaths": paths(&plan.masked_paths),
            "readonlyPaths": paths(&plan.read_only_paths),
            "rootfsPropagation": "rslave",
        },
    });
    let set = |spec: &mut Value, at: &str, key: &str, value: Value| {
        if let Some(object) = spec.pointer_mut(at).and_then(Value::as_object_mut) {
            object.insert(key.to_owned(), value);
        }
    };
    if let Some(hostname) = &plan.hostname {
        set(&mut spec, "", "hostname", json!(hostname));
    }
    if let Some(score) = plan.oom_score_adj {
        set(&mut spec, "/process", "oomScoreAdj", json!(score));
    }
    if let (Some((profile, env)), true) = (&around.seccomp, plan.seccomp != Seccomp::Unconfined) {
        set(&mut spec, "/linux", "seccomp", filter(profile, env));
    }
    Ok(serde_json::from_value(spec)?)
}

fn base_mounts(plan: &Plan) -> Vec<Value> {
    let mount = |target: &str, kind: &str, options: &[&str]| json!({"destination": target, "type": kind, "source": kind, "options": options});
    vec![
        mount("/proc", "proc", &["nosuid", "nodev", "noexec"]),
        mount("/sys", "sysfs", &["nosuid", "nodev", "noexec", "ro"]),
        mount(
            "/sys/fs/cgroup",
            "tmpfs",
            &["nosuid", "nodev", "noexec", "ro", "mode=755", "size=4k"],
        ),
        mount("/dev", "tmpfs", &["nosuid", "mode=755", "size=64k"]),
        mount(
            "/dev/pts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        ),
        mount("/dev/mqueue", "mqueue", &["nosuid", "nodev", "noexec"]),
        json!({"destination": SANDBOX_IN_IMAGE, "type": "bind", "source": plan.sandbox, "options": ["rbind", "rslave"]}),
    ]
}

fn volume(mount: &Mount, plan: &Plan, around: &Surroundings<'_>) -> Result<Value, BundleError> {
    let target = match &mount.target {
        Target::Root(path) => Path::new("/").join(path),
        Target::Sandbox(path) => Path::new(SANDBOX_IN_IMAGE).join(path),
    };
    let mut options = vec![if mount.read_only {
        "ro".to_owned()
    } else {
        "rw".to_owned()
    }];
    let (kind, source) = match &mount.source {
        MountSource::OwnSandbox(path) => ("bind", plan.sandbox.join(path)),
        MountSource::ExecutorSandbox(path) => ("bind", around.executor_sandbox.join(path)),
        MountSource::Host(path) => ("bind", path.clone()),
        MountSource::SharedMemory => {
            options.extend(["nosuid", "nodev", "noexec", "mode=1777"].map(str::to_owned));
            ("tmpfs", PathBuf::from("tmpfs"))
        }
        MountSource::Tmpfs { size, mode } => {
            options.extend(["nosuid", "nodev", "noexec"].map(str::to_owned));
            options.push(format!("mode={mode:o}"));
            options.extend(size.map(|size| format!("size={size}")));
            ("tmpfs", PathBuf::from("tmpfs"))
        }
        MountSource::Opened(_) | MountSource::Detached(_) | MountSource::Secret(_) => {
            return Err(BundleError::Inexpressible(mount.field.clone()));
        }
    };
    if kind == "bind" {
        options.extend(["rbind", "rslave"].map(str::to_owned));
    }
    Ok(json!({"destination": target, "type": kind, "source": source, "options": options}))
}

fn names(set: CapabilitySet) -> Vec<&'static str> {
    set.numbers().filter_map(caps::name).collect()
}

fn rlimit_name(resource: u32) -> &'static str {
    const NAMES: [&str; 16] = [
        "RLIMIT_CPU",
        "RLIMIT_FSIZE",
        "RLIMIT_DATA",
        "RLIMIT_STACK",
        "RLIMIT_CORE",
        "RLIMIT_RSS",
        "RLIMIT_NPROC",
        "RLIMIT_NOFILE",
        "RLIMIT_MEMLOCK",
        "RLIMIT_AS",
        "RLIMIT_LOCKS",
        "RLIMIT_SIGPENDING",
        "RLIMIT_MSGQUEUE",
        "RLIMIT_NICE",
        "RLIMIT_RTPRIO",
        "RLIMIT_RTTIME",
    ];
    NAMES.get(resource as usize).copied().unwrap_or("RLIMIT_?")
}

/// The profile as it is for this member. An OCI filter has no order of its own and no conditions beyond arguments.
fn filter(profile: &Profile, env: &Env) -> Value {
    let rules: Vec<_> = profile
        .rules
        .iter()
        .filter(|rule| rule.when.holds(env))
        .map(|rule| {
            let (action, errno) = word(rule.action);
            let mut value = json!({"names": rule.syscalls, "action": action, "args": rule.args.iter().map(argument).collect::<Vec<_>>()});
            if let (Some(errno), Some(object)) = (errno, value.as_object_mut()) {
                object.insert("errnoRet".into(), json!(errno));
            }
            value
        })
        .collect();
    let (action, errno) = word(profile.default);
    let mut value = json!({"defaultAction": action, "syscalls": rules});
    if let (Some(errno), Some(object)) = (errno, value.as_object_mut()) {
        object.insert("defaultErrnoRet".into(), json!(errno));
    }
    value
}

fn argument(test: &ArgTest) -> Value {
    let (op, value, second) = match test.comparison {
        Comparison::Equal => ("SCMP_CMP_EQ", test.value, 0),
        Comparison::NotEqual => ("SCMP_CMP_NE", test.value, 0),
        Comparison::Less => ("SCMP_CMP_LT", test.value, 0),
        Comparison::LessOrEqual => ("SCMP_CMP_LE", test.value, 0),
        Comparison::Greater => ("SCMP_CMP_GT", test.value, 0),
        Comparison::GreaterOrEqual => ("SCMP_CMP_GE", test.value, 0),
        Comparison::MaskedEqual { mask } => ("SCMP_CMP_MASKED_EQ", mask, test.value),
    };
    json!({"index": test.index, "op": op, "value": value, "valueTwo": second})
}

fn word(action: Action) -> (&'static str, Option<u16>) {
    match action {
        Action::Allow => ("SCMP_ACT_ALLOW", None),
        Action::Log => ("SCMP_ACT_LOG", None),
        Action::Errno(errno) => ("SCMP_ACT_ERRNO", Some(errno)),
        Action::Trap(_) => ("SCMP_ACT_TRAP", None),
        Action::Trace(value) => ("SCMP_ACT_TRACE", Some(value)),
        Action::KillThread => ("SCMP_ACT_KILL_THREAD", None),
        Action::KillProcess => ("SCMP_ACT_KILL_PROCESS", None),
    }
}
