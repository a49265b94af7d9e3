//! What a member sees of the limits that it is held to: what Java, Node and others read to find out.

use std::{path::Path, process::Command, sync::Arc};

use podling::container::{
    cgroup::{Bound, Config, GroupCgroup, Layout, Limits, Mode},
    plan::Plan,
};

use crate::support::{Outcome, World, exec, shell};

const LIMIT: u64 = 200 << 20;

/// Finds the memory limit as Java does: the first mount that has the controller, in it the place that
/// `/proc/self/cgroup` says if the mount shows the root, and the mount's own otherwise only if they are the same.
/// Only with what every shell has.
const AS_JAVA: &str = r#"
while read -r _ _ _ root at rest; do
    case "$rest" in
        *" - cgroup "*memory*) file=memory.limit_in_bytes; key=memory; break ;;
        *" - cgroup2 "*) file=memory.max; key=; break ;;
    esac
done < /proc/self/mountinfo
while IFS=: read -r _ names path; do
    case ",$names," in *",$key,"*) break ;; esac
done < /proc/self/cgroup
case "$root" in
    /) at=$at${path%/} ;;
    "$path") ;;
    *) echo "$at shows $root, not $path"; exit ;;
esac
read -r limit < "$at/$file"; echo "$limit"
(echo 1 > "$at/cgroup.procs") 2>/dev/null && echo writable
(: > /sys/fs/cgroup/new) 2>/dev/null && echo open
exit 0"#;

/// Held to [`LIMIT`], and shown that.
fn held(group: &GroupCgroup, mut plan: Plan) -> Plan {
    let limits = Limits {
        memory: Some(Bound::At(LIMIT)),
        ..Limits::default()
    };
    let name = plan.sandbox.file_name().unwrap().display().to_string();
    let cgroup = group.member(&name, &limits).unwrap();
    plan.cgroup_view = Layout::detect(&Config::default())
        .view(Some(&cgroup))
        .map(Arc::new);
    plan.cgroup = Some(Arc::new(cgroup));
    plan
}

fn memory_is_counted() -> bool {
    use podling::container::cgroup::Controller;
    Layout::detect(&Config::default())
        .controllers()
        .contains(&Controller::Memory)
}

#[tokio::test]
async fn r_05_a_member_finds_its_memory_limit_where_programs_look() {
    if !memory_is_counted() {
        return;
    }
    let world = World::new();
    let group = world.group();
    for plan in [world.plan(&shell(AS_JAVA)), world.rooted_plan(&shell(AS_JAVA))] {
        let done = world.run(held(&group, plan)).await;
        assert_eq!(done.said(), LIMIT.to_string(), "{done:?}");
    }
    // With the host's mounts only covered, a list of mounts shows both, and on older kernels the host's first.
    let count = async |world: &World| {
        let plan = world.plan(&shell("grep -c ' /sys/fs/cgroup' /proc/self/mountinfo"));
        let done = world.run(held(&group, plan)).await;
        done.said().parse::<u32>().unwrap()
    };
    let weak = World::weakened(&["let go of the host's cgroups"]);
    assert!(count(&weak).await > count(&world).await);
}

/// Every hierarchy is there once, read-only, with the member's own cgroup as its root.
#[tokio::test]
async fn r_05_all_of_sys_fs_cgroup_is_the_member_s_own() {
    let world = World::new();
    let group = world.group();
    let layout = Layout::detect(&Config::default());
    let task = exec(&["/bin/cat", "/proc/self/mountinfo"]);
    for plan in [world.plan(&task), world.rooted_plan(&task)] {
        let done = world.run(held(&group, plan)).await;
        let mounts: Vec<Vec<&str>> = done
            .said()
            .lines()
            .map(|line| line.split(' ').collect())
            .filter(|fields: &Vec<&str>| fields[4].starts_with("/sys/fs/cgroup"))
            .collect();
        let (top, hierarchies) = match layout.mode() {
            Mode::Unified => (None, &mounts[..]),
            _ => (Some(&mounts[0]), &mounts[1..]),
        };
        assert!(!hierarchies.is_empty(), "{mounts:?}");
        for fields in hierarchies.iter().chain(top) {
            assert_eq!(fields[3], "/", "{fields:?}");
            assert!(fields[5].starts_with("ro,nosuid,nodev,noexec"), "{fields:?}");
        }
        let mut places: Vec<_> = mounts.iter().map(|fields| fields[4]).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), mounts.len(), "{mounts:?}");
    }
}

/// Without a cgroup of its own it sees those that the executor is in, by the names that fit.
#[tokio::test]
async fn r_05_a_member_without_a_cgroup_sees_where_the_executor_is() {
    let world = World::new();
    let look = "cat /proc/self/cgroup";
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    // Nothing is shown: the host's names for the host's mounts.
    assert_eq!(world.shell(look).await.said(), own.trim_end());
    let mut plan = world.plan(&shell(look));
    plan.cgroup_view = Layout::detect(&Config::default()).view(None).map(Arc::new);
    let done = world.run(plan).await;
    assert!(done.stdout.lines().any(|line| line.ends_with(":/")), "{done:?}");
}

async fn program(name: &str, arguments: &[&str]) -> Option<Outcome> {
    let program = ["/usr/bin", "/usr/local/bin"].map(|place| format!("{place}/{name}"));
    let program = program.iter().find(|path| Path::new(path).exists());
    let (Some(program), true) = (program, memory_is_counted()) else {
        eprintln!("{name} is not here: left out");
        return None;
    };
    let world = World::new();
    let group = world.group();
    let argv: Vec<&str> = [program.as_str()]
        .into_iter()
        .chain(arguments.iter().copied())
        .collect();
    Some(world.run(held(&group, world.plan(&exec(&argv)))).await)
}

#[tokio::test]
async fn r_05_java_takes_the_member_s_memory_for_its_own() {
    let arguments = ["-Xlog:os+container=trace", "-XX:+PrintFlagsFinal", "-version"];
    let Some(done) = program("java", &arguments).await else {
        return;
    };
    let all = done.said();
    let heap = all.lines().find(|line| line.contains(" MaxHeapSize "));
    let heap = heap.and_then(|line| line.split_ascii_whitespace().nth(3)?.parse::<u64>().ok());
    // A quarter, or half of small ones.
    assert!(heap.is_some_and(|heap| heap <= LIMIT / 2), "{heap:?}: {all}");
}

#[tokio::test]
async fn r_05_node_takes_the_member_s_memory_for_its_own() {
    let arguments = ["-e", "console.log(process.constrainedMemory())"];
    if let Some(done) = program("node", &arguments).await {
        assert_eq!(done.said(), LIMIT.to_string());
    }
}

/// The same where version 2 is all there is, and where there is none of it.
#[test]
fn r_05_on_other_machines() {
    if !rustix::process::geteuid().is_root() || std::env::var_os("PODLING_TEST_ELSEWHERE").is_some() {
        return;
    }
    for left in ["cgroup", "cgroup2"] {
        let change = format!(
            "for at in $(awk '/ - {left} / {{ print $5 }}' /proc/self/mountinfo); do umount $at; done; exec \"$@\""
        );
        let output = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-ec", &change, "sh"])
            .arg(std::env::current_exe().unwrap())
            .args(["seen::r_05", "--test-threads=1"])
            .env("PODLING_TEST_ELSEWHERE", "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.contains("6 passed"),
            "without {left}: {said}"
        );
    }
}
