//! The same on other machines: in a mount namespace of their own, other arrangements of cgroups can be had (W-05, S8).

use std::process::{Command, Stdio};

use podling::{
    container::cgroup::{Config, Layout, Mode, Placement, Policy, group_limits, oom_verdict},
    group::ExitStatus,
};

use crate::support::{EXPECTED_MODE, request, run, unique};

/// Runs some tests of this binary after `change` was made to what it sees.
fn again(change: &str, mode: &str, tests: &[&str]) {
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-ec"])
        .arg(format!("{change}\nexec \"$@\""))
        .arg("sh")
        .arg(std::env::current_exe().unwrap())
        .args(tests)
        .env(EXPECTED_MODE, mode)
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{told}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(!told.contains("running 0 tests"), "{told}");
}

fn here() -> Mode {
    Layout::detect(&Config::default()).mode()
}

#[test]
fn w_05_without_version_2_the_freezer_and_the_other_hierarchies_do_all() {
    if here() != Mode::Hybrid {
        eprintln!("skipped: needs a hybrid host to make a legacy one of");
        return;
    }
    let change = "for at in $(awk '/ - cgroup2 / { print $5 }' /proc/self/mountinfo); do umount $at; done";
    again(change, "Legacy", &["kill::", "limits::", "janitor::"]);
}

#[test]
fn z_09_without_the_old_controller_a_program_restricts_devices() {
    if here() != Mode::Hybrid {
        eprintln!("skipped: elsewhere the other tests show it");
        return;
    }
    let change = "for at in $(awk '/ - cgroup / && $NF ~ /devices/ { print $5 }' /proc/self/mountinfo); do umount $at; done";
    again(change, "Hybrid", &["limits::z_09"]);
}

#[test]
fn s_08_without_any_cgroup_members_run_without_limits() {
    let change =
        "for at in $(awk '/ - cgroup2? / { print $5 }' /proc/self/mountinfo); do umount -l $at; done";
    again(change, "None", &["--exact", "hosts::lesser", "--ignored"]);
}

#[test]
fn s_08_read_only_cgroups_are_told_and_not_used() {
    let change = "for at in $(awk '/ - cgroup2? / { print $5 }' /proc/self/mountinfo); do mount -o remount,bind,ro $at; done";
    let mode = format!("{:?}", here());
    again(change, &mode, &["--exact", "hosts::lesser", "--ignored"]);
}

#[test]
#[ignore = "run by the tests above on a machine made lesser"]
fn lesser() {
    let layout = Layout::detect(&Config::default());
    lesser_layout(&layout);
}

#[test]
fn w_05_an_operator_can_do_without() {
    let layout = Layout::detect(&Config {
        placement: Placement::None,
        ..Config::default()
    });
    assert_eq!(layout.mode(), Mode::None);
    lesser_layout(&layout);
}

/// Everything works, and does nothing; and that is told.
fn lesser_layout(layout: &Layout) {
    assert!(layout.controllers().is_empty());
    let told = format!("{:?}", layout.missing());
    assert!(told.contains("members have no limits"), "{told}");
    let policy = Policy::default();
    let group = layout
        .group(&unique("lesser"), &group_limits(&[request()], &policy))
        .unwrap();
    let member = group.member("web", &request().limits(&policy)).unwrap();
    assert!(member.clone_into().is_none());
    assert!(member.join(false).unwrap().as_raw_fds().is_empty());
    assert!(!member.restrict_devices(&[]).unwrap());
    assert!(!member.populated().unwrap());
    run(member.destroy()).unwrap();
    run(async { assert!(member.oom_watch().unwrap().is_none()) });
    assert_eq!(oom_verdict(&member, None, ExitStatus::Signal(9)), None);
    assert_eq!(member.stats(), Default::default());
}

#[test]
fn w_05_an_operator_can_name_another_place() {
    let place = unique("place");
    let config = Config {
        placement: Placement::Root(format!("/{place}/inner").into()),
        ..Config::default()
    };
    let layout = Layout::detect(&config);
    assert!(!layout.controllers().is_empty(), "{:?}", layout.missing());
    let policy = Policy::default();
    let name = unique("group");
    let group = layout.group(&name, &group_limits(&[request()], &policy)).unwrap();
    let paths = layout.paths(&name);
    let member = group.member("web", &request().limits(&policy)).unwrap();
    assert!(paths.iter().all(|path| {
        path.to_string_lossy()
            .contains(&format!("/{place}/inner/podling-"))
    }));
    let mut child = crate::support::shell(&member, "echo up; sleep 600");
    assert_eq!(crate::support::line(&mut child), "up\n");
    run(member.destroy()).unwrap();
    child.wait().unwrap();
    drop((member, group));
    // The place itself is the operator's, and stays.
    for path in paths
        .iter()
        .filter(|path| !path.to_string_lossy().ends_with(".executor"))
    {
        let inner = path.parent().unwrap();
        std::fs::remove_dir(inner).unwrap();
        std::fs::remove_dir(inner.parent().unwrap()).unwrap();
    }
}

/// Run in a virtual machine (`make test-vm`) by itself, in a cgroup that is not the root, once alone in it and once not.
#[test]
#[ignore = "needs version 2 only, and to be the one process in its cgroup"]
fn w_03_the_executor_moves_to_a_leaf_of_its_own() {
    let own = || {
        let text = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        text.trim().strip_prefix("0::").unwrap().to_owned()
    };
    let before = own();
    let alone = std::env::var("ALONE_IN_CGROUP").is_ok();
    let layout = crate::support::layout();
    let policy = Policy::default();
    let name = unique("leaf");
    let group = layout.group(&name, &group_limits(&[request()], &policy)).unwrap();
    assert_eq!(own(), format!("{before}/podling-{name}.executor"));
    let member = group.member("web", &request().limits(&policy)).unwrap();
    if alone {
        assert_eq!(group.notes(), Vec::<String>::new());
        assert_eq!(member.stats().memory.unwrap().limit, Some(32 << 20));
        assert_eq!(member.stats().pids.unwrap().limit, Some(4096));
    } else {
        // Degraded knowingly: no limits, but tracked and killed all the same.
        assert!(
            group.notes().iter().any(|note| note.contains("memory")),
            "{:?}",
            group.notes()
        );
        assert_eq!(member.stats().memory, None);
    }
    let mut child = crate::support::shell(&member, "setsid sleep 600 & echo up; sleep 600");
    assert_eq!(crate::support::line(&mut child), "up\n");
    run(member.destroy()).unwrap();
    child.wait().unwrap();
    // A second group of the same executor does not move it again.
    let second = layout
        .group(&unique("second"), &group_limits(&[request()], &policy))
        .unwrap();
    assert_eq!(own(), format!("{before}/podling-{name}.executor"));
    drop((member, group, second));
}
