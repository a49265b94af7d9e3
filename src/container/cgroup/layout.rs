//! Where this machine keeps its control groups, and where in them we are. Pure: text in, paths out.
//!
//! Three arrangements are found in the field. *Unified*: version 2 carries all. *Legacy*: several version 1
//! hierarchies, each with one or more controllers. *Hybrid*: version 1 as before, and a version 2 hierarchy beside
//! them which carries few controllers or none, but tracks, freezes and kills as well as any.

use std::{
    ffi::OsString,
    os::unix::ffi::OsStringExt,
    path::{Component, Path, PathBuf},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    Unified,
    Legacy,
    Hybrid,
    None,
}

/// The controllers we have a use for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Controller {
    Cpu,
    Cpuacct,
    /// Only where it shares a hierarchy with one we need: a new version 1 cgroup takes no process before it is set.
    Cpuset,
    Memory,
    Devices,
    Freezer,
    Pids,
    /// `blkio` in version 1.
    Io,
}

impl Controller {
    pub fn v1_name(self) -> &'static str {
        match self {
            Controller::Cpu => "cpu",
            Controller::Cpuacct => "cpuacct",
            Controller::Cpuset => "cpuset",
            Controller::Memory => "memory",
            Controller::Devices => "devices",
            Controller::Freezer => "freezer",
            Controller::Pids => "pids",
            Controller::Io => "blkio",
        }
    }

    /// `None`: built into version 2 itself, or done there without a controller.
    pub fn v2_name(self) -> Option<&'static str> {
        match self {
            Controller::Cpu => Some("cpu"),
            Controller::Memory => Some("memory"),
            Controller::Pids => Some("pids"),
            Controller::Io => Some("io"),
            Controller::Cpuacct | Controller::Cpuset | Controller::Devices | Controller::Freezer => None,
        }
    }

    const ALL: [Controller; 8] = [
        Controller::Cpu,
        Controller::Cpuacct,
        Controller::Cpuset,
        Controller::Memory,
        Controller::Devices,
        Controller::Freezer,
        Controller::Pids,
        Controller::Io,
    ];
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Version {
    V1(Vec<Controller>),
    V2,
}

/// One hierarchy that is mounted here and that we are in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    pub version: Version,
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Our own cgroup, relative to the mount.
    pub own: PathBuf,
    /// Mounted read-only.
    pub read_only: bool,
}

impl Hierarchy {
    pub fn has(&self, controller: Controller) -> bool {
        match &self.version {
            Version::V1(controllers) => controllers.contains(&controller),
            Version::V2 => false,
        }
    }
}

/// The hierarchies found, version 2 last, and what was mounted but cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchies {
    pub mode: Mode,
    pub found: Vec<Hierarchy>,
    pub unusable: Vec<String>,
}

/// Reads `/proc/self/mountinfo` and `/proc/self/cgroup`.
pub fn hierarchies(mountinfo: &[u8], membership: &str) -> Hierarchies {
    let memberships: Vec<Membership<'_>> = membership.lines().filter_map(Membership::parse).collect();
    let mut found: Vec<Hierarchy> = Vec::new();
    let mut unusable = Vec::new();
    for mount in mountinfo.split(|byte| *byte == b'\n').filter_map(Mount::parse) {
        let Some(member) = memberships.iter().find(|member| member.is_of(&mount)) else {
            continue;
        };
        let version = match mount.v2 {
            true => Version::V2,
            false => Version::V1(
                Controller::ALL
                    .into_iter()
                    .filter(|controller| member.controllers.contains(&controller.v1_name()))
                    .collect(),
            ),
        };
        // Named and unknown hierarchies: our members stay in them where we are.
        if version == Version::V1(Vec::new()) {
            continue;
        }
        let Some(own) = inside(&mount.root, Path::new(member.path)) else {
            unusable.push(format!(
                "{}: shows {} of its hierarchy, we are in {}",
                mount.target.display(),
                mount.root.display(),
                member.path
            ));
            continue;
        };
        // A hierarchy mounted twice is the same: the first one will do, but rather one that can be written.
        match found.iter_mut().find(|other| other.version == version) {
            Some(other) if other.read_only && !mount.read_only => {
                *other = Hierarchy {
                    version,
                    own,
                    mount: mount.target,
                    read_only: false,
                }
            }
            Some(_) => {}
            None => found.push(Hierarchy {
                version,
                own,
                mount: mount.target,
                read_only: mount.read_only,
            }),
        }
    }
    found.sort_by_key(|hierarchy| hierarchy.version == Version::V2);
    let v2 = found.iter().any(|hierarchy| hierarchy.version == Version::V2);
    let v1 = found.iter().any(|hierarchy| hierarchy.version != Version::V2);
    let mode = match (v1, v2) {
        (false, false) => Mode::None,
        (false, true) => Mode::Unified,
        (true, false) => Mode::Legacy,
        (true, true) => Mode::Hybrid,
    };
    Hierarchies {
        mode,
        found,
        unusable,
    }
}

/// `path` as seen through a mount that shows `root`. Paths that climb (seen from inside a cgroup namespace whose
/// root is elsewhere) cannot be reached.
fn inside(root: &Path, path: &Path) -> Option<PathBuf> {
    let below = path.strip_prefix(root).ok()?;
    below
        .components()
        .all(|part| matches!(part, Component::Normal(_)))
        .then(|| below.to_path_buf())
}

/// One line of `/proc/PID/cgroup`: `4:cpu,cpuacct:/path`, version 2 as `0::/path`.
struct Membership<'a> {
    controllers: Vec<&'a str>,
    path: &'a str,
}

impl<'a> Membership<'a> {
    fn parse(line: &'a str) -> Option<Membership<'a>> {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        // The mark of a cgroup that was removed under its last, dying process.
        let path = path.strip_suffix(" (deleted)").unwrap_or(path);
        Some(Membership {
            controllers: controllers.split(',').filter(|name| !name.is_empty()).collect(),
            path,
        })
    }

    fn is_of(&self, mount: &Mount) -> bool {
        match self.controllers.as_slice() {
            [] => mount.v2,
            names => {
                !mount.v2
                    && names
                        .iter()
                        .all(|name| mount.options.iter().any(|option| option == name))
            }
        }
    }
}

/// One cgroup line of mountinfo.
struct Mount {
    v2: bool,
    root: PathBuf,
    target: PathBuf,
    options: Vec<String>,
    read_only: bool,
}

impl Mount {
    /// `31 23 0:28 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu`
    fn parse(line: &[u8]) -> Option<Mount> {
        let mut fields = line.split(|byte| *byte == b' ');
        let root = unescape(fields.nth(3)?);
        let target = unescape(fields.next()?);
        let own_options = fields.next()?;
        let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
        let v2 = match fields.next()? {
            b"cgroup" => false,
            b"cgroup2" => true,
            _ => return None,
        };
        let super_options = fields.nth(1)?;
        let read_only = [own_options, super_options]
            .iter()
            .any(|options| options.split(|byte| *byte == b',').any(|option| option == b"ro"));
        Some(Mount {
            v2,
            root,
            target,
            options: String::from_utf8_lossy(super_options)
                .split(',')
                .map(str::to_owned)
                .collect(),
            read_only,
        })
    }
}

/// Blanks and backslashes in mountinfo are written as three octal digits.
pub(in crate::container) fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let code = match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..]) => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        match code {
            Some(byte) => {
                out.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(out))
}

/// A directory name for something of ours. Starts with `prefix`, so that it is neither `mesos` (W-01: the agent's
/// separator) nor the name of a kernel file; distinct names stay distinct.
pub fn directory_name(prefix: &str, name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if !name.is_empty() && name.len() <= 100 && name.chars().all(plain) {
        return format!("{prefix}-{name}");
    }
    let cleaned: String = name
        .chars()
        .take(60)
        .map(|c| if plain(c) { c } else { '_' })
        .collect();
    // FNV-1a: stable over versions, which the janitor relies on.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    format!("{prefix}-{cleaned}~{hash:016x}")
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
