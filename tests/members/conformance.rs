//! S1: a member starts with exactly the identity and surroundings it was planned with, and with those that crun gives
//! it on the same bundle.
//!
//! The probe is a shell script of busybox, which knows nothing of us. `PODLING_PLANS=1000` makes it look at more plans,
//! `PODLING_SEED` at others.
//!
//! | differs from crun | why |
//! |---|---|
//! | the task is process 2, a session leader, its parent our init | an init reaps and forwards (Z-01) |
//! | masked files show our own null device, read-write, crun's the host's, read-only | nothing of the host is needed |
//! | `/dev/core` is missing | it leads to a masked file |
//! | read-only paths of `/proc` keep nosuid, nodev, noexec; crun's lose them | nothing there needs them |
//! | `/dev/null` belongs to root; crun gives it to the user if it is the user's stdin | it is everybody's |
//! | signals 32 and 33 are not ignored; crun hands on what it was started with | nothing is inherited |

use std::{
    collections::BTreeMap,
    fs::File,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::Command as Process,
};

use podling::container::{
    plan::{
        Capabilities, CapabilitySet, IpcNamespace, Mount, MountSource, Plan, Rlimit, Rootfs, Seccomp, Target,
        UserSpec,
        bundle::{Surroundings, bundle},
    },
    seccomp::{Arch, Env, Profile},
    users::{Accounts, Identity},
};
use proptest::{
    prelude::*,
    strategy::{Strategy, ValueTree},
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};

use crate::support::{World, exec};

const PROBE: &str = r#"P=/proc/$$
for f in status limits mountinfo environ cgroup oom_score_adj; do echo "@@$f"; cat $P/$f; echo; done
for n in cgroup ipc mnt net pid user uts; do echo "@@ns $n"; readlink $P/ns/$n; done
echo @@cwd; readlink $P/cwd; echo @@root; readlink $P/root
echo @@fds; ls $P/fd; echo @@hostname; hostname; echo @@devices; ls -l /dev; echo @@end"#;

/// What a probe saw, by name; things that no two runs share are left out.
type Seen = BTreeMap<String, String>;

fn parse(said: &str) -> Seen {
    let mut seen = Seen::new();
    for section in format!("\n{said}").split("\n@@").skip(1) {
        let (name, text) = section.split_once('\n').unwrap_or((section, ""));
        let text = text.trim_end_matches('\n');
        match name {
            "status" => {
                for line in text.lines() {
                    let (key, value) = line.split_once(':').unwrap();
                    let kept = [
                        "Uid",
                        "Gid",
                        "Groups",
                        "NoNewPrivs",
                        "Seccomp",
                        "Umask",
                        "SigIgn",
                        "SigBlk",
                    ];
                    if kept.contains(&key) || key.starts_with("Cap") {
                        seen.insert(key.into(), value.split_whitespace().collect::<Vec<_>>().join(" "));
                    }
                }
            }
            "limits" => {
                for line in text.lines().skip(1) {
                    let fields: Vec<_> = line[26..].split_whitespace().take(2).collect();
                    seen.insert(format!("limit {}", line[..26].trim()), fields.join(" "));
                }
            }
            "mountinfo" => mounts(text, &mut seen),
            "devices" => devices(text, &mut seen),
            "end" => {}
            name => {
                seen.insert(name.into(), text.into());
            }
        }
    }
    seen
}

fn mounts(text: &str, seen: &mut Seen) {
    for line in text.lines() {
        let (left, right) = line.split_once(" - ").unwrap();
        let left: Vec<_> = left.split(' ').collect();
        let kind = right.split(' ').next().unwrap();
        let mut flags: Vec<_> = left[5].split(',').filter(|flag| *flag != "relatime").collect();
        flags.sort_unstable();
        let shown = match (left[3], kind) {
            ("/null", _) => "masked file".into(),
            ("/", "tmpfs") if left[4].starts_with("/proc/") || left[4] == "/sys/firmware" => {
                "masked directory".into()
            }
            (root, "ext4") => format!("ext4 {root} {}", flags.join(",")),
            _ => format!("{kind} {}", flags.join(",")),
        };
        seen.insert(format!("mount {}", left[4]), shown);
        assert!(
            !left[6..].iter().any(|field| field.starts_with("shared:")),
            "{line}"
        );
    }
}

/// Name, mode, owner and number or target.
fn devices(text: &str, seen: &mut Seen) {
    for line in text.lines().filter(|line| !line.starts_with("total")) {
        let fields: Vec<_> = line.split_whitespace().collect();
        let (head, tail) = match fields[0].as_bytes()[0] {
            b'c' => (&fields[..6], &fields[9..]),
            b'l' => (&fields[..1], &fields[8..]),
            _ => (&fields[..1], &fields[8..]),
        };
        if tail[0] != "core" {
            seen.insert(
                format!("device {}", tail[0]),
                [head, &tail[1..]].concat().join(" "),
            );
        }
    }
}

/// What is chosen at random of a plan.
#[derive(Debug, Clone)]
struct Choice {
    user: String,
    caps: [u64; 5],
    no_new_privileges: bool,
    filtered: bool,
    private_ipc: bool,
    read_only_root: bool,
    umask: u32,
    cwd: &'static str,
    hostname: Option<String>,
    environment: BTreeMap<String, String>,
    rlimits: BTreeMap<u32, (u64, u64)>,
    oom_score: Option<i32>,
    mounts: Vec<(u8, bool)>,
}

fn choice() -> impl Strategy<Value = Choice> {
    let user = prop_oneof![
        Just("0".to_owned()),
        Just("root".to_owned()),
        Just("app".to_owned()),
        (0u32..70000).prop_map(|uid| uid.to_string()),
        (0u32..u32::MAX, 0u32..u32::MAX).prop_map(|(uid, gid)| format!("{uid}:{gid}")),
    ];
    let limits = prop::collection::btree_map(
        prop::sample::select(vec![
            libc::RLIMIT_CPU,
            libc::RLIMIT_CORE,
            libc::RLIMIT_NOFILE,
            libc::RLIMIT_MEMLOCK,
            libc::RLIMIT_SIGPENDING,
            libc::RLIMIT_MSGQUEUE,
        ]),
        (100u64..1000, 0u64..100).prop_map(|(soft, more)| (soft, soft + more)),
        0..4,
    );
    let first = (
        user,
        any::<[u64; 5]>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        0u32..0o777,
        prop::sample::select(vec!["/", "/mnt/mesos/sandbox", "/made/for/it", "/tmp"]),
    );
    let second = (
        prop::option::of("[a-z][a-z0-9-]{0,20}"),
        prop::collection::btree_map("[A-Z_][A-Z0-9_]{0,8}", "[ -~]{0,30}", 0..6),
        limits,
        prop::option::of(-900i32..1000),
        prop::collection::vec((0u8..4, any::<bool>()), 0..4),
    );
    (first, second).prop_map(|(first, second)| {
        let (user, caps, no_new_privileges, filtered, private_ipc, read_only_root, umask, cwd) = first;
        let (hostname, environment, rlimits, oom_score, mounts) = second;
        Choice {
            user,
            caps,
            no_new_privileges,
            filtered,
            private_ipc,
            read_only_root,
            umask,
            cwd,
            hostname,
            environment,
            rlimits,
            oom_score,
            mounts,
        }
    })
}

fn own_status(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap()
}

fn own_oom_score() -> i32 {
    std::fs::read_to_string("/proc/self/oom_score_adj")
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

fn plan(world: &World, choice: &Choice) -> Plan {
    let mut plan = world.rooted_plan(&exec(&["/bin/sh", "-c", PROBE]));
    let Rootfs::Directory { path, read_only } = &mut plan.rootfs else {
        unreachable!()
    };
    *read_only = choice.read_only_root;
    std::fs::create_dir_all(path.join("tmp")).unwrap();
    let sandbox = world.sandbox().join("host");
    std::fs::create_dir_all(sandbox.join("below")).unwrap();
    std::fs::write(sandbox.join("file"), "").unwrap();

    let [bounding, permitted, effective, inheritable, ambient] = choice.caps.map(CapabilitySet);
    let mut caps = Capabilities {
        bounding: bounding.and(CapabilitySet(own_status("CapPrm"))),
        ..Capabilities::default()
    };
    caps.permitted = match choice.no_new_privileges {
        true => permitted.and(caps.bounding),
        // A root whose exec gains capabilities may not look at itself.
        false => caps.bounding,
    };
    caps.effective = effective.and(caps.permitted);
    caps.inheritable = inheritable.and(caps.bounding);
    caps.ambient = ambient.and(caps.permitted).and(caps.inheritable);
    plan.capabilities = caps;
    plan.user = UserSpec::Named {
        text: choice.user.clone(),
        host_too: false,
    };
    plan.no_new_privileges = choice.no_new_privileges;
    plan.seccomp = if choice.filtered {
        Seccomp::Default
    } else {
        Seccomp::Unconfined
    };
    if choice.private_ipc {
        plan.namespaces.ipc = IpcNamespace::Private { shm_size: None };
    }
    plan.umask = choice.umask;
    plan.cwd = choice.cwd.into();
    plan.hostname = choice.hostname.clone();
    plan.environment = vec![("PATH".into(), "/bin".into()), ("HOME".into(), "/".into())];
    plan.environment.extend(
        choice
            .environment
            .clone()
            .into_iter()
            .filter(|(name, _)| name != "PATH" && name != "HOME"),
    );
    plan.rlimits = choice
        .rlimits
        .iter()
        .map(|(&resource, &(soft, hard))| Rlimit {
            resource,
            soft: Some(soft),
            hard: Some(hard),
        })
        .collect();
    // Only root of the machine could lower it.
    plan.oom_score_adj = choice.oom_score.map(|score| score.max(own_oom_score()));
    for (number, &(kind, read_only)) in choice.mounts.iter().enumerate() {
        let source = match kind {
            0 => MountSource::Host(sandbox.join("file")),
            1 => MountSource::Host(sandbox.clone()),
            2 => MountSource::Tmpfs {
                size: Some(1 << 20),
                mode: 0o1777,
            },
            _ => MountSource::Host(sandbox.join("below")),
        };
        plan.mounts.push(Mount {
            source,
            target: Target::Root(format!("mounts/at{number}").into()),
            read_only,
            field: format!("volume {number}"),
        });
    }
    plan
}

fn identity(plan: &Plan, root: &Path) -> Identity {
    let UserSpec::Named { text, .. } = &plan.user else {
        unreachable!()
    };
    Accounts::read(File::open(root).unwrap().as_fd())
        .unwrap()
        .find(text)
        .unwrap()
}

fn check_request(plan: &Plan, identity: &Identity, seen: &Seen) {
    let expect = |key: &str, value: &str| {
        assert_eq!(seen.get(key).map(String::as_str), Some(value), "{key} {seen:#?}")
    };
    let four = |id: u32| [id; 4].map(|id| id.to_string()).join(" ");
    expect("Uid", &four(identity.uid));
    expect("Gid", &four(identity.gid));
    let mut groups: Vec<_> = identity.groups.clone();
    groups.sort_unstable();
    expect(
        "Groups",
        &groups.iter().map(u32::to_string).collect::<Vec<_>>().join(" "),
    );

    // What an exec makes of the five sets, by capabilities(7).
    let caps = plan.capabilities;
    let after = match identity.uid {
        0 if plan.no_new_privileges => {
            (caps.inheritable.0 | caps.bounding.0) & caps.permitted.0 | caps.ambient.0
        }
        0 => caps.inheritable.0 | caps.bounding.0,
        _ => caps.ambient.0,
    };
    let hex = |set: u64| format!("{set:016x}");
    expect("CapInh", &hex(caps.inheritable.0));
    expect("CapPrm", &hex(after));
    expect("CapEff", &hex(after));
    expect("CapBnd", &hex(caps.bounding.0));
    expect("CapAmb", &hex(caps.ambient.0));
    expect("NoNewPrivs", if plan.no_new_privileges { "1" } else { "0" });
    expect(
        "Seccomp",
        if plan.seccomp == Seccomp::Unconfined {
            "0"
        } else {
            "2"
        },
    );
    expect("Umask", &format!("{:04o}", plan.umask));
    // (What is ignored is compared with crun only: this shell ignores SIGQUIT by itself.)
    expect("SigBlk", &hex(0));
    for limit in &plan.rlimits {
        let name = match limit.resource {
            libc::RLIMIT_CPU => "Max cpu time",
            libc::RLIMIT_CORE => "Max core file size",
            libc::RLIMIT_NOFILE => "Max open files",
            libc::RLIMIT_MEMLOCK => "Max locked memory",
            libc::RLIMIT_SIGPENDING => "Max pending signals",
            _ => "Max msgqueue size",
        };
        expect(
            &format!("limit {name}"),
            &format!("{} {}", limit.soft.unwrap(), limit.hard.unwrap()),
        );
    }
    let environment: String = plan
        .environment
        .iter()
        .map(|(name, value)| format!("{name}={value}\0"))
        .collect();
    expect("environ", &environment);
    expect("cwd", plan.cwd.to_str().unwrap());
    expect("root", "/");
    expect("fds", "0\n1\n2");
    let own_name = rustix::system::uname().nodename().to_str().unwrap().to_owned();
    expect("hostname", plan.hostname.as_ref().unwrap_or(&own_name));
    expect(
        "oom_score_adj",
        &plan.oom_score_adj.unwrap_or_else(own_oom_score).to_string(),
    );
    for name in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
        let ours = std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        let shared = match name {
            "net" | "user" => true,
            "ipc" => plan.namespaces.ipc == IpcNamespace::Parent,
            _ => false,
        };
        let same = seen[&format!("ns {name}")] == ours.to_str().unwrap();
        assert_eq!(same, shared, "namespace {name}");
    }
    let Rootfs::Directory { read_only, .. } = &plan.rootfs else {
        unreachable!()
    };
    assert_eq!(seen["mount /"].ends_with(" ro"), *read_only);
    for mount in &plan.mounts {
        let Target::Root(target) = &mount.target else {
            continue;
        };
        let shown = &seen[&format!("mount /{}", target.display())];
        assert_eq!(
            shown.split([' ', ',']).any(|flag| flag == "ro"),
            mount.read_only,
            "{shown}"
        );
    }
}

/// Runs crun on the bundle, where it can: it refuses machines with both kinds of cgroups.
fn crun(directory: &Path, number: usize) -> String {
    let line = "umount /sys/fs/cgroup/unified 2>/dev/null; exec crun --cgroup-manager=disabled --root \"$1\" run -b \"$2\" \"$3\"";
    let name = format!("podling-conformance-{}-{number}", std::process::id());
    let output = Process::new("unshare")
        .args(["-m", "sh", "-c", line, "sh"])
        .args([directory.join("state"), directory.to_owned(), PathBuf::from(name)])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The table above.
fn explained(key: &str, ours: &Seen, theirs: &Seen) -> bool {
    let (Some(ours), Some(theirs)) = (ours.get(key), theirs.get(key)) else {
        return false;
    };
    match key {
        "device null" => ours.starts_with("crw-rw-rw- 1 root root") && theirs.ends_with("1, 3"),
        "SigIgn" => {
            let number = |hex: &str| u64::from_str_radix(hex, 16).unwrap();
            number(ours) == number(theirs) & !0x1_8000_0000
        }
        key if key.starts_with("mount /proc/") => {
            let flags = |shown: &str| shown.replace("nodev,noexec,nosuid,", "");
            flags(ours) == flags(theirs) && ours.contains("nosuid")
        }
        _ => false,
    }
}

#[tokio::test]
async fn s1_z_11_members_are_as_requested_and_as_crun_makes_them() {
    let number = |variable| -> Option<u64> { std::env::var(variable).ok()?.parse().ok() };
    let (count, seed) = (
        number("PODLING_PLANS").unwrap_or(60),
        number("PODLING_SEED").unwrap_or(1),
    );
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(
        Default::default(),
        TestRng::from_seed(RngAlgorithm::ChaCha, &bytes),
    );
    for number in 0..count as usize {
        let world = World::new();
        let choice = choice().new_tree(&mut runner).unwrap().current();
        let plan = plan(&world, &choice);
        let Rootfs::Directory { path: root, .. } = plan.rootfs.clone() else {
            unreachable!()
        };
        let identity = identity(&plan, &root);

        let done = world.run(plan.clone()).await;
        let ours = parse(done.said());
        check_request(&plan, &identity, &ours);

        let profile = Profile::docker_default();
        let env = Env {
            arch: Arch::native().unwrap(),
            caps: plan.capabilities.bounding.0,
            kernel: (6, 1),
        };
        let around = Surroundings {
            identity: &identity,
            executor_sandbox: world.sandbox(),
            seccomp: Some((&profile, env)),
        };
        let directory = world.sandbox().join("bundle");
        std::fs::create_dir_all(&directory).unwrap();
        bundle(&plan, &around)
            .unwrap()
            .save(directory.join("config.json"))
            .unwrap();
        let mut theirs = parse(&crun(&directory, number));
        for name in ["cgroup", "ipc", "mnt", "pid", "uts"] {
            // Each is its own; that it is one is checked above.
            let key = format!("ns {name}");
            if theirs[&key] != ours[&key] {
                theirs.insert(key.clone(), ours[&key].clone());
            }
        }
        let differences: Vec<_> = ours
            .keys()
            .chain(theirs.keys())
            .filter(|key| ours.get(*key) != theirs.get(*key) && !explained(key, &ours, &theirs))
            .map(|key| format!("{key}: ours {:?}, crun's {:?}", ours.get(key), theirs.get(key)))
            .collect();
        assert!(
            differences.is_empty(),
            "seed {seed}, plan {number}: {differences:#?} {choice:#?}"
        );
    }
}
