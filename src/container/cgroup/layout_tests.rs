//! Recorded trees of real machines.

use super::*;

fn read(mountinfo: &str, membership: &str) -> Hierarchies {
    hierarchies(mountinfo.as_bytes(), membership)
}

fn places(found: &Hierarchies) -> Vec<(String, String)> {
    found
        .found
        .iter()
        .map(|hierarchy| {
            (
                hierarchy.mount.display().to_string(),
                hierarchy.own.display().to_string(),
            )
        })
        .collect()
}

/// Debian 12 as installed: one version 2 tree, a service with its own cgroup.
const UNIFIED: &str = "\
23 28 0:21 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
28 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
";

#[test]
fn w_05_a_unified_host() {
    let found = read(UNIFIED, "0::/mesos/8b8a/leaf\n");
    assert_eq!(found.mode, Mode::Unified);
    assert_eq!(found.found[0].version, Version::V2);
    assert_eq!(
        places(&found),
        [("/sys/fs/cgroup".into(), "mesos/8b8a/leaf".into())]
    );
}

/// CentOS 7 under a Mesos agent: controllers in pairs, systemd's own hierarchy, no version 2.
const LEGACY: &str = "\
17 40 0:17 / /sys rw,nosuid,nodev,noexec,relatime shared:6 - sysfs sysfs rw
24 17 0:20 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:8 - tmpfs tmpfs ro,mode=755
25 24 0:21 / /sys/fs/cgroup/systemd rw,nosuid,nodev,noexec,relatime shared:9 - cgroup cgroup rw,xattr,release_agent=/usr/lib/systemd/systemd-cgroups-agent,name=systemd
27 24 0:23 / /sys/fs/cgroup/freezer rw,nosuid,nodev,noexec,relatime shared:10 - cgroup cgroup rw,freezer
28 24 0:24 / /sys/fs/cgroup/net_cls,net_prio rw,nosuid,nodev,noexec,relatime shared:11 - cgroup cgroup rw,net_prio,net_cls
29 24 0:25 / /sys/fs/cgroup/memory rw,nosuid,nodev,noexec,relatime shared:12 - cgroup cgroup rw,memory
30 24 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid,nodev,noexec,relatime shared:13 - cgroup cgroup rw,cpuacct,cpu
31 24 0:27 / /sys/fs/cgroup/pids rw,nosuid,nodev,noexec,relatime shared:14 - cgroup cgroup rw,pids
32 24 0:28 / /sys/fs/cgroup/devices rw,nosuid,nodev,noexec,relatime shared:15 - cgroup cgroup rw,devices
";

const IN_LEGACY: &str = "\
11:pids:/mesos/c1
9:devices:/mesos/c1
7:cpuacct,cpu:/mesos/c1
5:memory:/mesos/c1
4:net_prio,net_cls:/
3:freezer:/mesos/c1
1:name=systemd:/system.slice/mesos-agent.service
";

#[test]
fn w_05_a_legacy_host_with_joint_controllers() {
    let found = read(LEGACY, IN_LEGACY);
    assert_eq!(found.mode, Mode::Legacy);
    assert_eq!(
        found.found.len(),
        5,
        "neither systemd's hierarchy nor net_cls: {found:#?}"
    );
    let joint = found
        .found
        .iter()
        .find(|hierarchy| hierarchy.has(Controller::Cpu))
        .unwrap();
    assert!(joint.has(Controller::Cpuacct) && !joint.has(Controller::Memory));
    assert_eq!(joint.mount, Path::new("/sys/fs/cgroup/cpu,cpuacct"));
    assert_eq!(joint.own, Path::new("mesos/c1"));
}

/// Ubuntu 20.04: version 1 with the bare version 2 tree at `unified`.
const HYBRID: &str = "\
25 30 0:23 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
35 25 0:30 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:9 - tmpfs tmpfs ro,mode=755
36 35 0:31 / /sys/fs/cgroup/unified rw,nosuid,nodev,noexec,relatime shared:10 - cgroup2 cgroup2 rw,nsdelegate
37 35 0:32 / /sys/fs/cgroup/systemd rw,nosuid,nodev,noexec,relatime shared:11 - cgroup cgroup rw,xattr,name=systemd
40 35 0:35 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid,nodev,noexec,relatime shared:15 - cgroup cgroup rw,cpu,cpuacct
41 35 0:36 / /sys/fs/cgroup/memory rw,nosuid,nodev,noexec,relatime shared:16 - cgroup cgroup rw,memory
";

#[test]
fn w_05_a_hybrid_host() {
    let found = read(
        HYBRID,
        "4:memory:/user.slice/a b\n3:cpu,cpuacct:/user.slice\n1:name=systemd:/user.slice/x\n0::/user.slice/x\n",
    );
    assert_eq!(found.mode, Mode::Hybrid);
    assert_eq!(
        found.found.last().unwrap().version,
        Version::V2,
        "version 2 comes last"
    );
    assert_eq!(found.found.last().unwrap().own, Path::new("user.slice/x"));
    assert!(places(&found).contains(&("/sys/fs/cgroup/memory".into(), "user.slice/a b".into())));
}

#[test]
fn w_05_no_cgroups_at_all() {
    let found = read("28 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n", "0::/\n");
    assert_eq!((found.mode, found.found.len()), (Mode::None, 0));
    assert_eq!(read("", "").mode, Mode::None);
}

/// Inside a container: the runtime shows the container's own part of the tree, in two ways.
#[test]
fn w_05_inside_a_container() {
    let bound = "30 23 0:26 /docker/abc /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw\n";
    let found = read(bound, "0::/docker/abc/inner\n");
    assert_eq!(places(&found), [("/sys/fs/cgroup".into(), "inner".into())]);
    assert!(
        found.found[0].read_only,
        "its mount is read-only though the file system is not"
    );

    let outside = read(bound, "0::/docker/other\n");
    assert_eq!(outside.mode, Mode::None);
    assert_eq!(outside.unusable.len(), 1, "{:?}", outside.unusable);

    // In a cgroup namespace whose root we have left.
    let climbed = read(UNIFIED, "0::/../sibling\n");
    assert_eq!(climbed.mode, Mode::None);
}

#[test]
fn a_hierarchy_mounted_twice_is_used_once_and_rather_where_it_can_be_written() {
    let twice = "\
40 35 0:35 / /mnt/first ro,nosuid - cgroup cgroup rw,memory
41 35 0:35 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory
";
    let found = read(twice, "5:memory:/x\n");
    assert_eq!(places(&found), [("/sys/fs/cgroup/memory".into(), "x".into())]);
}

#[test]
fn escaped_blanks_and_removed_cgroups_are_understood() {
    let found = read(
        "41 35 0:36 / /mnt/my\\040cgroups\\134x rw - cgroup cgroup rw,pids\n",
        "5:pids:/gone (deleted)\n",
    );
    assert_eq!(places(&found), [("/mnt/my cgroups\\x".into(), "gone".into())]);
}

#[test]
fn odd_lines_are_skipped() {
    for line in [
        "",
        "1",
        "1 2 3",
        "1 2 3 4 5 6 7",
        "1 2 3 / /x rw - cgroup",
        "a b c d e f - cgroup2 g",
    ] {
        read(line, "0::/\n5:memory\n:::\n");
    }
    let found = read(LEGACY, "x\n5:memory:/mesos/c1\n5\n");
    assert_eq!(found.found.len(), 1);
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_fail(mountinfo in ".{0,200}", membership in ".{0,100}") {
        read(&mountinfo, &membership);
    }

    #[test]
    fn w_01_directory_names_are_safe_and_distinct(a in ".{0,120}", b in ".{0,120}") {
        let (one, other) = (directory_name("member", &a), directory_name("member", &b));
        proptest::prop_assert!(one.starts_with("member-") && one.len() <= 108);
        proptest::prop_assert!(!one.contains(['/', '\0', '\n', ' ']));
        proptest::prop_assert_eq!(a == b, one == other);
    }
}
