//! The settings, one by one.

use std::fmt;

use super::{
    Config, NetworkSetting,
    words::{
        absolute, capabilities, devices, filters, host_volumes, list, number, or_policy, positive,
        show_capabilities, show_devices, show_filters, show_host_volumes, show_or_policy, truth,
    },
};
use crate::{
    container::{
        IdRange,
        cgroup::{Bound, Placement},
        policy::{Policy, Preset},
    },
    executor::logging,
    image::{DevicePolicy, Quota, Reserve},
    mesos::{codec::Encoding, duration},
    network,
};

/// One setting: the single source for the file, the variables and the documentation.
pub struct Key {
    pub name: &'static str,
    /// A sentence for operators.
    pub about: &'static str,
    pub(super) read: fn(&mut Config, &str) -> Result<(), String>,
    /// The present value in the form in which it is written.
    pub show: fn(&Config) -> String,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Key {
    /// Its variable: `PODLING_RECORD_LIMIT` for `record_limit`.
    pub fn variable(&self) -> String {
        format!("PODLING_{}", self.name.to_ascii_uppercase())
    }
}

fn policy(config: &mut Config) -> &mut Policy {
    &mut config.members.defaults.policy
}

pub static KEYS: &[Key] = &[
    Key {
        name: "encoding",
        about: "How we talk to the agent: protobuf or json.",
        read: |config, text| {
            config.encoding = match text {
                "protobuf" => Encoding::Protobuf,
                "json" => Encoding::Json,
                _ => return Err("is neither `protobuf` nor `json`".to_owned()),
            };
            Ok(())
        },
        show: |config| match config.encoding {
            Encoding::Protobuf => "protobuf".to_owned(),
            Encoding::Json => "json".to_owned(),
        },
    },
    Key {
        name: "log",
        about: "What to log to stderr: off, error, warn, info, debug or trace, also by module (`info,podling::executor=debug`).",
        read: |config, text| {
            logging::filter(text)?;
            config.log = text.to_owned();
            Ok(())
        },
        show: |config| config.log.clone(),
    },
    Key {
        name: "ca_file",
        about: "PEM file with the authorities we trust for an https agent; else SSL_CA_FILE, else the system's.",
        read: |config, text| {
            config.ca_file = Some(absolute(text)?);
            Ok(())
        },
        show: |config| {
            config
                .ca_file
                .as_ref()
                .map_or(String::new(), |path| path.display().to_string())
        },
    },
    Key {
        name: "agent_name",
        about: "A name that the agent's certificate may carry besides its IP address and this host's name.",
        read: |config, text| {
            config.agent_name = Some(text.to_owned());
            Ok(())
        },
        show: |config| config.agent_name.clone().unwrap_or_default(),
    },
    Key {
        name: "registration_timeout",
        about: "How long to try for the first subscription; keep it at the agent's executor_registration_timeout.",
        read: |config, text| {
            config.registration_timeout = positive(text)?;
            Ok(())
        },
        show: |config| duration::format(config.registration_timeout),
    },
    Key {
        name: "reconnect_pause",
        about: "The longest pause between two attempts to reach a lost agent; MESOS_SUBSCRIPTION_BACKOFF_MAX caps it.",
        read: |config, text| {
            config.reconnect_pause = positive(text)?;
            Ok(())
        },
        show: |config| duration::format(config.reconnect_pause),
    },
    Key {
        name: "heartbeat_interval",
        about: "How often to send the agent a HEARTBEAT call.",
        read: |config, text| {
            config.heartbeat_interval = positive(text)?;
            Ok(())
        },
        show: |config| duration::format(config.heartbeat_interval),
    },
    Key {
        name: "answer_timeout",
        about: "How long a checkpointing agent may take to answer a call before the connection counts as dead.",
        read: |config, text| {
            config.answer_timeout = positive(text)?;
            Ok(())
        },
        show: |config| duration::format(config.answer_timeout),
    },
    Key {
        name: "record_limit",
        about: "The longest event in bytes that we take from the agent.",
        read: |config, text| {
            config.record_limit = number(text, 1 << 16, 1 << 30)? as usize;
            Ok(())
        },
        show: |config| config.record_limit.to_string(),
    },
    Key {
        name: "launch_deadline",
        about: "How long a group may take from its arrival to its start.",
        read: |config, text| {
            config.launch_deadline = positive(text)?;
            Ok(())
        },
        show: |config| duration::format(config.launch_deadline),
    },
    Key {
        name: "black_box_limit",
        about: "Bytes of the executor's history, `blackbox.jsonl` in its sandbox; twice as much is kept at most.",
        read: |config, text| {
            config.black_box_limit = number(text, 1 << 12, 1 << 30)?;
            Ok(())
        },
        show: |config| config.black_box_limit.to_string(),
    },
    Key {
        name: "images_store",
        about: "The node's image store, shared by all executors.",
        read: |config, text| {
            config.images.store = absolute(text)?;
            Ok(())
        },
        show: |config| config.images.store.display().to_string(),
    },
    Key {
        name: "images_quota",
        about: "Bytes of layers to keep in the store when they are not in use, or a share of its file system as `25%`, \
                or `unlimited`.",
        read: |config, text| {
            config.images.quota = match (text, text.strip_suffix('%')) {
                ("unlimited", _) => Quota::Unlimited,
                (_, Some(share)) => Quota::Share(number(share, 0, 100)?),
                _ => Quota::Bytes(number(text, 0, u64::MAX)?),
            };
            Ok(())
        },
        show: |config| match config.images.quota {
            Quota::Unlimited => "unlimited".to_owned(),
            Quota::Bytes(bytes) => bytes.to_string(),
            Quota::Share(share) => format!("{share}%"),
        },
    },
    Key {
        name: "images_reserve",
        about: "What a pull leaves free of the store's file system, as `5%`; `0%`: it is not looked at before the disk is full.",
        read: |config, text| {
            let share = text.strip_suffix('%').unwrap_or(text);
            config.images.reserve = Reserve(number(share, 0, 100)?);
            Ok(())
        },
        show: |config| format!("{}%", config.images.reserve.0),
    },
    Key {
        name: "images_insecure",
        about: "Registries that are spoken to without TLS: `host[:port]`, separated by commas.",
        read: |config, text| {
            config.images.insecure = list(text);
            Ok(())
        },
        show: |config| config.images.insecure.join(","),
    },
    Key {
        name: "images_mirrors",
        about: "What is asked before a registry: `docker.io=mirror:5000,other quay.io=mirror:5000`.",
        read: |config, text| {
            config.images.mirrors = text
                .split_whitespace()
                .map(|entry| match entry.split_once('=') {
                    Some((registry, mirrors)) if !registry.is_empty() && !list(mirrors).is_empty() => {
                        Ok((registry.to_owned(), list(mirrors)))
                    }
                    _ => Err(format!("has `{entry}`, which is not `registry=mirror,mirror`")),
                })
                .collect::<Result<_, _>>()?;
            Ok(())
        },
        show: |config| {
            let mirrors = config.images.mirrors.iter();
            let mut shown: Vec<String> = mirrors
                .map(|(registry, mirrors)| format!("{registry}={}", mirrors.join(",")))
                .collect();
            shown.sort();
            shown.join(" ")
        },
    },
    Key {
        name: "images_credentials",
        about: "A docker config.json with credentials for registries; a pod's own take their place.",
        read: |config, text| {
            config.images.credentials = Some(absolute(text)?);
            Ok(())
        },
        show: |config| {
            let path = config.images.credentials.as_ref();
            path.map_or(String::new(), |path| path.display().to_string())
        },
    },
    Key {
        name: "images_authorities",
        about: "PEM files with the authorities that registries are trusted by, separated by commas; else the system's.",
        read: |config, text| {
            let paths = list(text)
                .into_iter()
                .map(|path| absolute(&path).map_err(|problem| format!("has `{path}`, which {problem}")));
            config.images.authorities = paths.collect::<Result<_, _>>()?;
            Ok(())
        },
        show: |config| {
            let paths = config.images.authorities.iter();
            let shown: Vec<String> = paths.map(|path| path.display().to_string()).collect();
            shown.join(",")
        },
    },
    Key {
        name: "images_token_services",
        about: "Hosts that may be shown a registry's credentials though they are of another domain, separated by commas.",
        read: |config, text| {
            config.images.token_services = list(text);
            Ok(())
        },
        show: |config| config.images.token_services.join(","),
    },
    Key {
        name: "images_devices",
        about: "Device nodes in images: `drop`, `keep`, or `refuse` the image.",
        read: |config, text| {
            config.images.devices = match text {
                "drop" => DevicePolicy::Drop,
                "keep" => DevicePolicy::Keep,
                "refuse" => DevicePolicy::Refuse,
                _ => return Err("is none of `drop`, `keep` and `refuse`".to_owned()),
            };
            Ok(())
        },
        show: |config| match config.images.devices {
            DevicePolicy::Drop => "drop".to_owned(),
            DevicePolicy::Keep => "keep".to_owned(),
            DevicePolicy::Refuse => "refuse".to_owned(),
        },
    },
    Key {
        name: "images_layer_limit",
        about: "Bytes that one layer may take when it is unpacked.",
        read: |config, text| {
            config.images.layer_limit = number(text, 1 << 20, i64::MAX as u64)?;
            Ok(())
        },
        show: |config| config.images.layer_limit.to_string(),
    },
    Key {
        name: "images_stall",
        about: "How long a transfer may stand still before it is tried again or given up.",
        read: |config, text| {
            config.images.stall = positive(text)?;
            Ok(())
        },
        show: |config| duration::format(config.images.stall),
    },
    Key {
        name: "images_read_only",
        about: "Keeps members from writing to their images; volumes and sandboxes stay as they are: true or false.",
        read: |config, text| {
            config.images.read_only = truth(text)?;
            Ok(())
        },
        show: |config| config.images.read_only.to_string(),
    },
    Key {
        name: "network",
        about: "The node's networks as a table (in a variable as an inline one): default_network, networks, dns, cni, ….",
        read: |config, text| {
            let parsed = network::Config::read(text).map_err(|error| format!("is wrong: {error}"))?;
            config.network = NetworkSetting {
                text: text.to_owned(),
                config: parsed,
            };
            Ok(())
        },
        show: |config| config.network.text.clone(),
    },
    Key {
        name: "cgroups",
        about: "Where members' cgroups go: `own`, below the executor's, `none`, or a path in every hierarchy. \
                Only in `own` does the agent end members that outlive us.",
        read: |config, text| {
            config.cgroups.placement = match text {
                "own" => Placement::BelowOwn,
                "none" => Placement::None,
                path => Placement::Root(
                    absolute(path).map_err(|problem| problem + " and neither `own` nor `none`")?,
                ),
            };
            Ok(())
        },
        show: |config| match &config.cgroups.placement {
            Placement::BelowOwn => "own".to_owned(),
            Placement::None => "none".to_owned(),
            Placement::Root(path) => path.display().to_string(),
        },
    },
    Key {
        name: "cpu_quota",
        about: "Holds members without a cpu limit to their request, as the agent's cgroups_enable_cfs does: true or false.",
        read: |config, text| {
            config.cgroups.policy.always_quota = truth(text)?;
            Ok(())
        },
        show: |config| config.cgroups.policy.always_quota.to_string(),
    },
    Key {
        name: "swap",
        about: "Lets members use swap: true or false.",
        read: |config, text| {
            config.cgroups.policy.limit_swap = !truth(text)?;
            Ok(())
        },
        show: |config| (!config.cgroups.policy.limit_swap).to_string(),
    },
    Key {
        name: "pids_limit",
        about: "Processes and threads that a member may have: a number, or `unlimited`.",
        read: |config, text| {
            config.cgroups.policy.pids = match text {
                "unlimited" => Bound::Infinite,
                // A shell with one child is the least that is of use.
                text => Bound::At(number(text, 8, 1 << 22)?),
            };
            Ok(())
        },
        show: |config| match config.cgroups.policy.pids {
            Bound::Infinite => "unlimited".to_owned(),
            Bound::At(number) => number.to_string(),
        },
    },
    Key {
        name: "capabilities",
        about: "What root of a member may, unless its task asks for capabilities: names separated by commas; `policy`: Docker's set, as far as the policy goes.",
        read: |config, text| {
            config.members.defaults.capabilities = or_policy(text, capabilities)?;
            Ok(())
        },
        show: |config| {
            show_or_policy(config.members.defaults.capabilities.as_ref(), |set| {
                show_capabilities(*set)
            })
        },
    },
    Key {
        name: "policy",
        about: "What a task may ask for at most on this node: `mesos` (everything), `standard`, or `strict`; each item has a key of its own, which is `policy` where this one decides.",
        read: |config, text| {
            let preset = Preset::ALL.into_iter().find(|preset| preset.name() == text);
            policy(config).preset = preset.ok_or("is none of `mesos`, `standard` and `strict`")?;
            Ok(())
        },
        show: |config| config.members.defaults.policy.preset.name().to_owned(),
    },
    Key {
        name: "allowed_capabilities",
        about: "What a task may ask for at most: names, or `all`. By policy: all; Docker's; those without NET_RAW and MKNOD.",
        read: |config, text| {
            policy(config).capabilities = or_policy(text, capabilities)?;
            Ok(())
        },
        show: |config| {
            show_or_policy(config.members.defaults.policy.capabilities.as_ref(), |set| {
                show_capabilities(*set)
            })
        },
    },
    Key {
        name: "allowed_seccomp",
        about: "The filters of system calls that a task may choose: `any` (also none), `profiles` (those of `seccomp_profiles`), or `default` (no choice). By policy: in this order.",
        read: |config, text| {
            policy(config).filters = or_policy(text, filters)?;
            Ok(())
        },
        show: |config| {
            show_or_policy(config.members.defaults.policy.filters.as_ref(), |filters| {
                show_filters(*filters)
            })
        },
    },
    Key {
        name: "allowed_host_volumes",
        about: "Places of the host that volumes may show: `/srv,/data:ro,/data/keys:none`; the deepest counts, and what is below a volume, too. By policy: `/`; `/,/proc:ro,/sys:ro,/dev:ro,/dev/shm`; `none`.",
        read: |config, text| {
            policy(config).host_volumes = or_policy(text, host_volumes)?;
            Ok(())
        },
        show: |config| {
            show_or_policy(
                config.members.defaults.policy.host_volumes.as_ref(),
                show_host_volumes,
            )
        },
    },
    Key {
        name: "allow_host_network",
        about: "Whether pods may be on the host's network: true or false. By policy: true, true, false.",
        read: |config, text| {
            policy(config).host_network = or_policy(text, truth)?;
            Ok(())
        },
        show: |config| {
            show_or_policy(
                config.members.defaults.policy.host_network.as_ref(),
                bool::to_string,
            )
        },
    },
    Key {
        name: "allow_host_ipc",
        about: "Whether members may share the host's IPC: true or false. By policy: true, true, false.",
        read: |config, text| {
            policy(config).host_ipc = or_policy(text, truth)?;
            Ok(())
        },
        show: |config| show_or_policy(config.members.defaults.policy.host_ipc.as_ref(), bool::to_string),
    },
    Key {
        name: "allow_shared_pid",
        about: "Whether members of a pod may share their processes: true or false. By policy: true, true, false.",
        read: |config, text| {
            policy(config).shared_pid = or_policy(text, truth)?;
            Ok(())
        },
        show: |config| {
            show_or_policy(
                config.members.defaults.policy.shared_pid.as_ref(),
                bool::to_string,
            )
        },
    },
    Key {
        name: "allow_root",
        about: "Whether members may be user 0 of the host (see `user_namespace`): true or false. By policy: true, true, false.",
        read: |config, text| {
            policy(config).root = or_policy(text, truth)?;
            Ok(())
        },
        show: |config| show_or_policy(config.members.defaults.policy.root.as_ref(), bool::to_string),
    },
    Key {
        name: "no_new_privileges",
        about: "Set-user-id programs and file capabilities give members nothing: true or false.",
        read: |config, text| {
            config.members.defaults.no_new_privileges = truth(text)?;
            Ok(())
        },
        show: |config| config.members.defaults.no_new_privileges.to_string(),
    },
    Key {
        name: "seccomp",
        about: "Filters the system calls of members whose task names no profile: true or false.",
        read: |config, text| {
            config.members.defaults.seccomp = truth(text)?;
            Ok(())
        },
        show: |config| config.members.defaults.seccomp.to_string(),
    },
    Key {
        name: "seccomp_profiles",
        about: "Directory of profiles in Docker's JSON form that tasks may name; `default.json` in it takes the place of the built-in one, which is Docker's.",
        read: |config, text| {
            config.members.seccomp_profiles = absolute(text)?;
            Ok(())
        },
        show: |config| config.members.seccomp_profiles.display().to_string(),
    },
    Key {
        name: "user_namespace",
        about: "Host users that members' users 0, 1, 2, … are, as `first:count` (`100000:65536`): root of a member is nobody on the host. `off`: they are themselves.",
        read: |config, text| {
            config.members.users = match text {
                "off" => None,
                text => Some(text.parse::<IdRange>()?),
            };
            Ok(())
        },
        show: |config| {
            let users = config.members.users;
            users.map_or("off".to_owned(), |users| users.to_string())
        },
    },
    Key {
        name: "image_user",
        about: "An image's USER counts where the command names none: true or false (Mesos ignores it).",
        read: |config, text| {
            config.members.defaults.image_user = truth(text)?;
            Ok(())
        },
        show: |config| config.members.defaults.image_user.to_string(),
    },
    Key {
        name: "image_stop_signal",
        about: "An image's STOPSIGNAL is what its members are stopped with: true or false (Mesos always sends SIGTERM).",
        read: |config, text| {
            config.members.defaults.image_stop_signal = truth(text)?;
            Ok(())
        },
        show: |config| config.members.defaults.image_stop_signal.to_string(),
    },
    Key {
        name: "umask",
        about: "What members begin with, in octal.",
        read: |config, text| {
            let mask = u32::from_str_radix(text, 8).ok().filter(|mask| *mask <= 0o777);
            config.members.defaults.umask = mask.ok_or("is not an octal number up to 777")?;
            Ok(())
        },
        show: |config| format!("{:03o}", config.members.defaults.umask),
    },
    Key {
        name: "devices",
        about: "Devices beyond the usual ones in members with an image: `fuse=10:229,kvm=10:232`.",
        read: |config, text| {
            config.members.defaults.devices = devices(text)?;
            Ok(())
        },
        show: |config| show_devices(&config.members.defaults.devices),
    },
    Key {
        name: "oom_group",
        about: "Where one process of a member is killed for want of memory all of it is, by the kernel and at once (cgroup version 2): true or false.",
        read: |config, text| {
            config.cgroups.policy.oom_group = truth(text)?;
            Ok(())
        },
        show: |config| config.cgroups.policy.oom_group.to_string(),
    },
    Key {
        name: "io_weight",
        about: "Share of the disk of each member against its siblings, 1 to 10000, where the disk's scheduler knows shares; `none` leaves it.",
        read: |config, text| {
            config.cgroups.policy.io_weight = match text {
                "none" => None,
                text => Some(number(text, 1, 10_000)? as u16),
            };
            Ok(())
        },
        show: |config| {
            let weight = config.cgroups.policy.io_weight;
            weight.map_or("none".to_owned(), |weight| weight.to_string())
        },
    },
    Key {
        name: "run_dir",
        about: "Where executors of this node enter themselves, so that what a dead one leaves can be removed.",
        read: |config, text| {
            config.run_dir = absolute(text)?;
            Ok(())
        },
        show: |config| config.run_dir.display().to_string(),
    },
];
