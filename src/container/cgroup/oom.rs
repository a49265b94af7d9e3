//! Deaths for want of memory: noticing them, and telling them from a plain exit.
//!
//! The kernel kills one process of a member, not the member: a child may die so while its parent carries on. So an
//! OOM kill is an event to log when it happens, and the *reason* of a member's end only if the member then ends badly
//! soon after. Who the victim was stands only in the kernel's log, which we read if we may.

use std::{
    io,
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, Instant},
};

use rustix::{
    event::{EventfdFlags, eventfd},
    fs::{Mode, OFlags},
    io::Errno,
};
use tokio::io::{Interest, unix::AsyncFd};

use super::{
    CgroupError, MemberCgroup,
    branches::Cgroup,
    layout::Controller,
    stats::{self, MemoryStats},
    tree::Node,
    watch::Notice,
};
use crate::{
    group::{ExitStatus, Limit},
    sys::ready,
};

/// A member that ends badly within this time of an OOM kill is taken to have ended by it: parents need a moment to
/// notice what befell their child.
const AFTERMATH: Duration = Duration::from_secs(10);
/// The kernel tells of the want before it kills.
const KILL_FOLLOWS: Duration = Duration::from_millis(200);

/// Counts the OOM kills in a member's cgroup.
#[derive(Debug)]
pub struct OomWatch {
    counter: OwnedFd,
    notice: Source,
    kills: u64,
    last: Option<Instant>,
}

#[derive(Debug)]
enum Source {
    V1(AsyncFd<OwnedFd>),
    V2(Notice),
}

impl OomWatch {
    pub(super) fn new(cgroup: &Cgroup) -> Result<Option<OomWatch>, CgroupError> {
        let (node, file, notice) = if let Some(node) = cgroup.v1(Controller::Memory) {
            (node, "memory.oom_control", Source::V1(register(node)?))
        } else if let Some(node) = cgroup.v2().filter(|node| node.has("memory.events")) {
            (
                node,
                "memory.events",
                Source::V2(Notice::on(node, "memory.events")?),
            )
        } else {
            return Ok(None);
        };
        Ok(Some(OomWatch {
            counter: node.open_file(file, OFlags::RDONLY)?,
            notice,
            kills: 0,
            last: None,
        }))
    }

    /// Resolves at the next OOM kill; gives how many there were by now.
    pub async fn next(&mut self) -> io::Result<u64> {
        loop {
            match &mut self.notice {
                Source::V1(fd) => {
                    let mut ready = fd.readable().await?;
                    let mut count = [0u8; 8];
                    match rustix::io::read(fd.get_ref(), &mut count) {
                        Ok(_) => {}
                        Err(Errno::AGAIN) => {
                            ready.clear_ready();
                            continue;
                        }
                        Err(errno) => return Err(errno.into()),
                    }
                }
                Source::V2(notice) => notice.changed().await?,
            }
            let told = Instant::now();
            loop {
                if self.look()? {
                    return Ok(self.kills);
                }
                // Version 2 tells of many things; version 1 of the want that leads to the kill.
                if matches!(self.notice, Source::V2(_)) || told.elapsed() > KILL_FOLLOWS {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }

    /// Reads the counter. True if it has grown.
    fn look(&mut self) -> io::Result<bool> {
        let mut text = [0u8; 512];
        let length = rustix::io::pread(&self.counter, &mut text, 0)?;
        let text = String::from_utf8_lossy(text.get(..length).unwrap_or_default()).into_owned();
        let kills = stats::field(&text, "oom_kill").unwrap_or(0);
        let grown = kills > self.kills;
        if grown {
            self.kills = kills;
            self.last = Some(Instant::now());
        }
        Ok(grown)
    }
}

/// An eventfd that the kernel raises when this cgroup, or one above, runs out of memory.
fn register(node: &Node) -> Result<AsyncFd<OwnedFd>, CgroupError> {
    use std::os::fd::AsRawFd;
    let failed = |source: io::Error| CgroupError::Open {
        path: node.path().join("memory.oom_control"),
        source,
    };
    let event =
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|errno| failed(errno.into()))?;
    let control = node.open_file("memory.oom_control", OFlags::RDONLY)?;
    let request = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
    node.write("cgroup.event_control", &request)?;
    ready::watch(event, Interest::READABLE).map_err(failed)
}

/// Was it want of memory that ended this member? To be asked once it has ended. `watch` says when the last kill was;
/// without one any kill counts.
pub fn oom_verdict(member: &MemberCgroup, watch: Option<&mut OomWatch>, status: ExitStatus) -> Option<Limit> {
    let mut used = stats::memory(&member.cgroup)?;
    let since = watch.and_then(|watch| {
        // A kill we have not been told of yet is a fresh one.
        let _ = watch.look();
        watch.last.map(|last| last.elapsed())
    });
    if !ended_by_it(used.oom_kills, since, status) {
        return None;
    }
    let group = stats::memory(&member.group.cgroup).unwrap_or_default();
    let mut victim = victim(&member.path());
    // What it shows as its own limit is its group's then.
    if member.limits.memory.is_none() {
        used.limit = None;
        if let Some(victim) = &mut victim
            && victim.limit_of == LimitOf::Member
        {
            victim.limit_of = LimitOf::Group;
        }
    }
    Some(limit(&used, &group, victim.as_ref()))
}

fn ended_by_it(kills: u64, since_last: Option<Duration>, status: ExitStatus) -> bool {
    let badly = match status {
        ExitStatus::Code(code) => code != 0,
        ExitStatus::Signal(_) => true,
    };
    kills > 0 && badly && since_last.is_none_or(|since| since <= AFTERMATH)
}

fn limit(used: &MemoryStats, group: &MemoryStats, victim: Option<&Victim>) -> Limit {
    let of = match (victim, used.limit_reached(), group.limit_reached()) {
        // The kernel says it in its log; without that, by who is at its limit.
        // (A group of one has its member's limit and meets it first.)
        (Some(victim), ..) if victim.limit_of == LimitOf::Group && used.limit == group.limit => {
            LimitOf::Member
        }
        (Some(victim), ..) => victim.limit_of,
        (None, Some(_), _) => LimitOf::Member,
        (None, None, Some(_)) => LimitOf::Group,
        (None, None, None) => LimitOf::Above,
    };
    let whose = match of {
        LimitOf::Member => used.limit.map(|bytes| (bytes, "the member's memory limit")),
        LimitOf::Group => group.limit.map(|bytes| (bytes, "the memory limit of its group")),
        LimitOf::Above => None,
    };
    let process = match victim {
        Some(victim) => format!("process `{}` (pid {})", victim.name, victim.pid),
        None => "a process".into(),
    };
    let cause = match whose {
        Some((bytes, what)) => format!("{what}, {}, was reached", mib(bytes)),
        None => "the node, or the cgroup we were started in, ran out of memory".into(),
    };
    let mut message = format!("Out of memory: the kernel killed {process} as {cause}; ");
    if let Some(requested) = used.requested {
        message.push_str(&format!("requested {}, ", mib(requested)));
    }
    if let Some(peak) = used.peak {
        message.push_str(&format!("peak {}, ", mib(peak)));
    }
    message.push_str(&format!(
        "now anonymous {}, files {}, kernel {}, swap {}",
        mib(used.anonymous),
        mib(used.file),
        mib(used.kernel),
        mib(used.swap)
    ));
    let limit_bytes = whose
        .map(|(bytes, _)| bytes)
        .or(used.limit)
        .or(group.limit)
        .or(used.requested)
        .unwrap_or(0);
    Limit::Memory { limit_bytes, message }
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Victim {
    name: String,
    pid: i32,
    limit_of: LimitOf,
}

/// Whose limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LimitOf {
    Member,
    Group,
    /// The cgroup we were started in, one above it, or the node itself.
    Above,
}

/// The last process the kernel killed for want of memory in this cgroup, if its log can be read.
fn victim(path: &Path) -> Option<Victim> {
    // The log gives paths from the root of the hierarchy, which need not be the root we see: compare the end.
    let mut names = path
        .components()
        .rev()
        .filter_map(|part| part.as_os_str().to_str());
    let member = names.next()?;
    let group = format!("/{}", names.next()?);
    let member = format!("{group}/{member}");
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let log = rustix::fs::open("/dev/kmsg", flags, Mode::empty()).ok()?;
    let mut record = [0u8; 8192];
    let mut found = None;
    // Far more than the kernel keeps.
    for _ in 0..200_000 {
        match rustix::io::read(&log, &mut record) {
            Ok(0) => break,
            Ok(length) => {
                let text = String::from_utf8_lossy(record.get(..length)?);
                found = parse_victim(&text, &group, &member).or(found);
            }
            // Overwritten while we read: go on with the next.
            Err(Errno::PIPE) => {}
            Err(_) => break,
        }
    }
    found
}

/// `6,1234,5678,-;oom-kill:constraint=…,oom_memcg=/a,task_memcg=/a/b,task=name,pid=42,uid=0`
fn parse_victim(record: &str, group: &str, member: &str) -> Option<Victim> {
    let (_, message) = record.split_once(';')?;
    let message = message.lines().next()?.strip_prefix("oom-kill:")?;
    let (head, rest) = message.split_once(",task_memcg=")?;
    let (task_memcg, rest) = rest.split_once(",task=")?;
    if !task_memcg.ends_with(member) {
        return None;
    }
    let limit_of = match head.split_once(",oom_memcg=") {
        Some((_, memcg)) if memcg.ends_with(member) => LimitOf::Member,
        Some((_, memcg)) if memcg.ends_with(group) => LimitOf::Group,
        _ => LimitOf::Above,
    };
    let (name, rest) = rest.rsplit_once(",pid=")?;
    Some(Victim {
        name: name.into(),
        pid: rest.split(',').next()?.parse().ok()?,
        limit_of,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r_06_the_victim_is_read_from_the_kernels_log() {
        let (group, member) = ("/podling-a", "/podling-a/member-web");
        let record = |oom: &str| {
            format!(
                "6,731,9021,-;oom-kill:constraint=X,nodemask=(null),cpuset=/,mems_allowed=0{oom},\
                 task_memcg=/mesos/x/podling-a/member-web,task=odd, pid=1,pid=42,uid=0\n SUBSYSTEM=memory\n"
            )
        };
        for (oom, limit_of) in [
            (",oom_memcg=/mesos/x/podling-a/member-web", LimitOf::Member),
            (",oom_memcg=/mesos/x/podling-a", LimitOf::Group),
            (",oom_memcg=/mesos/x", LimitOf::Above),
            (",global_oom", LimitOf::Above),
        ] {
            let expected = Victim {
                name: "odd, pid=1".into(),
                pid: 42,
                limit_of,
            };
            assert_eq!(parse_victim(&record(oom), group, member), Some(expected), "{oom}");
        }
        let record = record(",global_oom");
        assert_eq!(parse_victim(&record, "/podling-b", "/podling-b/member-web"), None);
        assert_eq!(parse_victim("6,1,1,-;usb 1-1: new device", group, member), None);
        for cut in 0..record.len() {
            let _ = record.get(..cut).map(|part| parse_victim(part, group, member));
        }
    }

    #[test]
    fn r_06_an_oom_kill_long_survived_is_not_the_reason_of_an_end() {
        use ExitStatus::{Code, Signal};
        let soon = Some(Duration::from_secs(1));
        let late = Some(Duration::from_secs(3600));
        for (kills, since, status, expected) in [
            (0, None, Signal(9), false),
            (1, soon, Signal(9), true),
            (1, soon, Code(137), true),
            (1, soon, Code(1), true),
            (1, soon, Code(0), false),
            (1, late, Code(1), false),
            (1, late, Signal(9), false),
            (1, None, Code(1), true),
        ] {
            assert_eq!(
                ended_by_it(kills, since, status),
                expected,
                "{kills} {since:?} {status:?}"
            );
        }
    }

    #[test]
    fn r_06_the_message_names_process_limit_and_peak() {
        let used = MemoryStats {
            peak: Some(64 << 20),
            limit: Some(64 << 20),
            requested: Some(32 << 20),
            oom_kills: 1,
            ..MemoryStats::default()
        };
        let victim = Victim {
            name: "hog".into(),
            pid: 7,
            limit_of: LimitOf::Member,
        };
        let Limit::Memory { limit_bytes, message } = limit(&used, &MemoryStats::default(), Some(&victim));
        assert_eq!(limit_bytes, 64 << 20);
        for part in [
            "`hog` (pid 7)",
            "the member's memory limit, 64.0 MiB",
            "requested 32.0 MiB",
            "peak 64.0",
        ] {
            assert!(message.contains(part), "{part:?} not in {message:?}");
        }

        // Without the log: whoever is at its limit.
        let roomy = MemoryStats {
            limit: None,
            ..used.clone()
        };
        let full = MemoryStats {
            limit: Some(128 << 20),
            peak: Some(127 << 20),
            ..MemoryStats::default()
        };
        let Limit::Memory { limit_bytes, message } = limit(&roomy, &full, None);
        assert_eq!(limit_bytes, 128 << 20);
        assert!(
            message.contains("a process as the memory limit of its group, 128.0 MiB"),
            "{message}"
        );
        let Limit::Memory { message, .. } = limit(&roomy, &MemoryStats::default(), None);
        assert!(
            message.contains("the node, or the cgroup we were started in"),
            "{message}"
        );
    }
}
