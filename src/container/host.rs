//! What this machine offers to members, and what follows from what it lacks.
//!
//! [`Facts::gather`] looks, [`findings`] judges. Judging is pure, so every lack can be tested without a machine that
//! has it (S8).

use std::{fs, io, path::Path};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags},
    io::Errno,
};
use serde::Serialize;

use super::{
    cgroup::{self, Controller, Layout},
    seccomp::{Arch, caps},
};
use crate::sys::probe::{Call, answers};

/// How well the machine does in one respect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    Good,
    /// Works with less; the consequence says with how much less.
    Lesser,
    /// Members cannot run as asked.
    Missing,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Short and stable, for scripts.
    pub name: &'static str,
    pub grade: Grade,
    /// What was found.
    pub found: String,
    /// What follows, if not all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consequence: Option<&'static str>,
}

/// What was seen of a machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    pub release: String,
    pub kernel: (u32, u32),
    pub arch: Option<Arch>,
    pub uid: u32,
    /// Effective capabilities, one bit each.
    pub capabilities: u64,
    pub clone3: bool,
    pub pidfd: bool,
    pub openat2: bool,
    pub mount_api: bool,
    pub mount_setattr: bool,
    pub bpf: bool,
    pub seccomp: bool,
    pub overlayfs: bool,
    pub user_namespaces: u64,
    pub network_namespaces: bool,
    pub nftables: bool,
    /// IPv4, IPv6; `None` where the kernel does not have the family.
    pub forwarding: (Option<bool>, Option<bool>),
    /// How much tracing Yama forbids, if it is there.
    pub tracing: Option<u64>,
    pub kernel_log: bool,
    pub cgroup_mode: cgroup::Mode,
    pub controllers: Vec<Controller>,
    pub cgroup_missing: Vec<cgroup::Missing>,
    pub pressure: bool,
}

impl Facts {
    /// Looks at this machine. Changes nothing, but may make the kernel load the modules it asks about.
    pub fn gather(config: &cgroup::Config) -> Facts {
        let layout = Layout::detect(config);
        let name = rustix::system::uname();
        let release = name.release().to_string_lossy().into_owned();
        Facts {
            kernel: version(&release),
            release,
            arch: Arch::native(),
            uid: rustix::process::geteuid().as_raw(),
            capabilities: effective_capabilities(&read("/proc/self/status")),
            clone3: answers(Call::Clone3),
            pidfd: rustix::process::pidfd_open(
                rustix::process::getpid(),
                rustix::process::PidfdFlags::empty(),
            )
            .is_ok(),
            openat2: openat2(),
            mount_api: mount_api(),
            mount_setattr: answers(Call::MountSetattr),
            bpf: answers(Call::Bpf),
            seccomp: read("/proc/self/status").contains("\nSeccomp:"),
            overlayfs: read("/proc/filesystems")
                .lines()
                .any(|line| line.split_ascii_whitespace().last() == Some("overlay")),
            user_namespaces: match Path::new("/proc/self/ns/user").exists() {
                true => number("/proc/sys/user/max_user_namespaces").unwrap_or(0),
                false => 0,
            },
            network_namespaces: Path::new("/proc/self/ns/net").exists(),
            nftables: nftables().unwrap_or(false),
            forwarding: (
                number("/proc/sys/net/ipv4/ip_forward").map(|on| on > 0),
                number("/proc/sys/net/ipv6/conf/all/forwarding").map(|on| on > 0),
            ),
            tracing: number("/proc/sys/kernel/yama/ptrace_scope"),
            kernel_log: fs::File::open("/dev/kmsg").is_ok(),
            cgroup_mode: layout.mode(),
            controllers: layout.controllers(),
            cgroup_missing: layout.missing().to_vec(),
            pressure: Path::new("/proc/pressure/cpu").exists(),
        }
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn number(path: &str) -> Option<u64> {
    read(path).trim().parse().ok()
}

fn version(release: &str) -> (u32, u32) {
    let mut parts = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

fn effective_capabilities(status: &str) -> u64 {
    let field = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    field
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0)
}

fn openat2() -> bool {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    rustix::fs::openat2(
        rustix::fs::CWD,
        "/",
        flags,
        Mode::empty(),
        ResolveFlags::NO_MAGICLINKS,
    )
    .is_ok()
}

/// There, though perhaps not for us: what we may do follows from the capabilities.
fn mount_api() -> bool {
    use rustix::mount::{FsOpenFlags, fsopen};
    !matches!(fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC), Err(Errno::NOSYS))
}

/// Asks the kernel's nftables for its generation number.
fn nftables() -> io::Result<bool> {
    use rustix::net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
        sockopt::{Timeout, set_socket_timeout},
    };
    const SUBSYSTEM: u16 = 10 << 8;
    const GET_GENERATION: u16 = SUBSYSTEM | 16;
    const NEW_GENERATION: u16 = SUBSYSTEM | 15;
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(netlink::NETFILTER),
    )?;
    set_socket_timeout(&socket, Timeout::Recv, Some(std::time::Duration::from_secs(1)))?;
    // A header (length, type, "this is a request", sequence, port) and four bytes that say "any family".
    let mut request = Vec::with_capacity(20);
    request.extend_from_slice(&20u32.to_ne_bytes());
    request.extend_from_slice(&GET_GENERATION.to_ne_bytes());
    request.extend_from_slice(&1u16.to_ne_bytes());
    request.extend_from_slice(&[0; 12]);
    send(&socket, &request, SendFlags::empty())?;
    let mut answer = [0u8; 256];
    let (length, _) = recv(&socket, &mut answer[..], RecvFlags::empty())?;
    let kind = answer.get(..length).and_then(|answer| answer.get(4..6));
    Ok(kind == Some(&NEW_GENERATION.to_ne_bytes()[..]))
}

/// Capabilities we use, and what we cannot do without each.
const CAPABILITIES: &[(u64, Grade, &str)] = &[
    (
        caps::SYS_ADMIN,
        Grade::Missing,
        "no namespaces, mounts or cgroups for members; only user-namespace mode is left",
    ),
    (
        caps::SETUID,
        Grade::Missing,
        "members cannot run as the user they ask for",
    ),
    (
        caps::SETGID,
        Grade::Missing,
        "members cannot run with the groups they ask for",
    ),
    (
        caps::SETPCAP,
        Grade::Missing,
        "the capabilities of members cannot be restricted as asked",
    ),
    (
        caps::CHOWN,
        Grade::Lesser,
        "image files and sandboxes keep our own user as owner",
    ),
    (
        caps::DAC_OVERRIDE,
        Grade::Lesser,
        "images with unreadable directories cannot be unpacked",
    ),
    (
        caps::FOWNER,
        Grade::Lesser,
        "modes and times of files owned by others cannot be set when unpacking images",
    ),
    (
        caps::MKNOD,
        Grade::Lesser,
        "device nodes are bound from the host instead of made",
    ),
    (
        caps::SETFCAP,
        Grade::Lesser,
        "files of images lose their capabilities (ping will not work)",
    ),
    (
        caps::NET_ADMIN,
        Grade::Lesser,
        "no pod networks of our own: members share the network the agent gave us",
    ),
    (
        caps::KILL,
        Grade::Lesser,
        "members that run as other users end only with their pid namespace or cgroup",
    ),
    (
        caps::SYS_PTRACE,
        Grade::Lesser,
        "commands cannot be run inside members of other users, and a group may have begun in part when the kernel refuses a program",
    ),
    (
        caps::SYS_RESOURCE,
        Grade::Lesser,
        "resource limits cannot be raised above our own, nor oom scores lowered: members that ask for it fail",
    ),
];

/// Judges a machine, in the order an operator should read it.
pub fn findings(facts: &Facts) -> Vec<Finding> {
    let mut out = Vec::new();
    kernel(facts, &mut out);
    privileges(facts, &mut out);
    cgroups(facts, &mut out);
    network(facts, &mut out);
    out
}

/// The worst grade of all.
pub fn overall(findings: &[Finding]) -> Grade {
    findings
        .iter()
        .map(|finding| finding.grade)
        .max()
        .unwrap_or(Grade::Good)
}

fn good(name: &'static str, found: impl Into<String>) -> Finding {
    Finding {
        name,
        grade: Grade::Good,
        found: found.into(),
        consequence: None,
    }
}

/// Good if `there`, else this grade with this consequence.
fn unless(there: bool, name: &'static str, grade: Grade, consequence: &'static str) -> Finding {
    match there {
        true => good(name, "available"),
        false => Finding {
            name,
            grade,
            found: "not available".into(),
            consequence: Some(consequence),
        },
    }
}

fn kernel(facts: &Facts, out: &mut Vec<Finding>) {
    let version = Finding {
        found: format!("Linux {}", facts.release),
        ..unless(
            facts.kernel >= (5, 10),
            "kernel",
            Grade::Lesser,
            "older than 5.10, the oldest this is meant for",
        )
    };
    out.push(version);
    out.push(unless(
        facts.clone3,
        "clone3",
        Grade::Missing,
        "members cannot be started: needs Linux 5.3, and no filter that refuses the call",
    ));
    out.push(unless(
        facts.pidfd,
        "pidfd",
        Grade::Missing,
        "members cannot be watched: needs Linux 5.3",
    ));
    out.push(unless(
        facts.openat2,
        "openat2",
        Grade::Missing,
        "paths inside images cannot be followed safely: needs Linux 5.6",
    ));
    out.push(unless(
        facts.mount_api,
        "mount-api",
        Grade::Missing,
        "root file systems cannot be made: needs Linux 5.2",
    ));
    out.push(unless(
        facts.mount_setattr,
        "mount-setattr",
        Grade::Lesser,
        "read-only volumes cannot be made read-only throughout: needs Linux 5.12",
    ));
    out.push(unless(
        facts.overlayfs,
        "overlayfs",
        Grade::Missing,
        "images cannot be run: load the overlay module",
    ));
    out.push(match facts.arch {
        None => unless(
            false,
            "seccomp",
            Grade::Lesser,
            "no filters for this processor: members may use every system call",
        ),
        Some(_) => unless(
            facts.seccomp,
            "seccomp",
            Grade::Lesser,
            "members may use every system call; those that name a profile fail",
        ),
    });
    out.push(unless(
        // Below that a parent may trace its child, which is all that is asked for.
        facts.tracing.is_none_or(|scope| scope < 3),
        "tracing",
        Grade::Lesser,
        "a group may have begun in part when the kernel refuses a program (kernel.yama.ptrace_scope is 3)",
    ));
    out.push(unless(
        facts.kernel_log,
        "kernel-log",
        Grade::Lesser,
        "an out-of-memory message cannot name the process that was killed",
    ));
}

fn privileges(facts: &Facts, out: &mut Vec<Finding>) {
    if facts.uid != 0 {
        let (grade, consequence) = match facts.user_namespaces {
            0 => (
                Grade::Missing,
                "nothing can run: the kernel gives ordinary users no user namespaces (user.max_user_namespaces)",
            ),
            _ => (
                Grade::Lesser,
                "members run in a user namespace, on the host's network, with cgroups only where delegated",
            ),
        };
        out.push(Finding {
            name: "privileges",
            grade,
            found: format!("user {}", facts.uid),
            consequence: Some(consequence),
        });
        return;
    }
    out.push(good("privileges", "root"));
    for (bit, grade, consequence) in CAPABILITIES {
        if facts.capabilities & bit == 0 {
            out.push(Finding {
                name: "capability",
                grade: *grade,
                found: format!("no {}", caps::name(bit.trailing_zeros()).unwrap_or("capability")),
                consequence: Some(consequence),
            });
        }
    }
    out.push(unless(
        facts.user_namespaces > 0,
        "user-namespaces",
        Grade::Lesser,
        "members that ask for a user namespace fail",
    ));
}

fn cgroups(facts: &Facts, out: &mut Vec<Finding>) {
    let mode = match facts.cgroup_mode {
        cgroup::Mode::Unified => "version 2",
        cgroup::Mode::Legacy => "version 1",
        cgroup::Mode::Hybrid => "version 1, with version 2 for tracking",
        cgroup::Mode::None => "none",
    };
    if facts.cgroup_mode != cgroup::Mode::None {
        let names: Vec<&str> = facts
            .controllers
            .iter()
            .map(|controller| controller.v1_name())
            .collect();
        out.push(good("cgroups", format!("{mode}: {}", names.join(", "))));
    }
    for missing in &facts.cgroup_missing {
        out.push(Finding {
            name: "cgroups",
            grade: Grade::Lesser,
            found: missing.what.clone(),
            consequence: Some(missing.consequence),
        });
    }
    let into = match facts.cgroup_mode {
        cgroup::Mode::Unified | cgroup::Mode::Hybrid => facts.kernel >= (5, 7),
        _ => true,
    };
    out.push(unless(
        into,
        "clone-into-cgroup",
        Grade::Lesser,
        "each start waits for the kernel to move the process, some milliseconds: needs Linux 5.7",
    ));
    let devices = facts.controllers.contains(&Controller::Devices)
        || (facts.cgroup_mode == cgroup::Mode::Unified
            && facts.bpf
            && facts.capabilities & (caps::BPF | caps::SYS_ADMIN) != 0);
    out.push(unless(
        devices,
        "device-filter",
        Grade::Lesser,
        "members that may make device nodes can use every device of this machine",
    ));
    out.push(unless(
        facts.pressure,
        "pressure",
        Grade::Lesser,
        "statistics do not tell how long members waited for cpu, memory and disk",
    ));
}

fn network(facts: &Facts, out: &mut Vec<Finding>) {
    out.push(unless(
        facts.network_namespaces,
        "network-namespaces",
        Grade::Lesser,
        "pods have no network of their own",
    ));
    out.push(unless(
        facts.nftables,
        "nftables",
        Grade::Lesser,
        "the built-in bridge cannot publish ports or masquerade: load nf_tables, or use a CNI network",
    ));
    for (name, forwarding, consequence) in [
        (
            "ipv4-forwarding",
            facts.forwarding.0,
            "pods on the built-in bridge cannot be reached from outside while it is off (net.ipv4.ip_forward)",
        ),
        (
            "ipv6-forwarding",
            facts.forwarding.1,
            "pods on the built-in bridge cannot be reached from outside over IPv6 while it is off \
             (net.ipv6.conf.all.forwarding)",
        ),
    ] {
        out.push(match forwarding {
            Some(on) => Finding {
                found: if on { "on" } else { "off" }.into(),
                ..unless(on, name, Grade::Lesser, consequence)
            },
            None => unless(false, name, Grade::Lesser, "this kernel does not have the family"),
        });
    }
}

#[cfg(test)]
#[path = "host_tests.rs"]
mod tests;
