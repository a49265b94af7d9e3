//! Nothing survives: whatever a member has forked, stopped, frozen or ignored.

use std::{
    os::unix::process::ExitStatusExt,
    time::{Duration, Instant},
};

use crate::support::{World, layout, line, pids, request, run, shell};

#[test]
fn l_03_a_member_that_ignores_term_is_killed() {
    let world = World::new("term");
    let member = world.member(&request());
    let mut child = shell(
        &member,
        "trap '' TERM INT HUP; echo up; while :; do sleep 60; done",
    );
    assert_eq!(line(&mut child), "up\n");
    run(member.destroy()).unwrap();
    assert_eq!(member.procs().unwrap(), Vec::<i32>::new());
    assert_eq!(child.wait().unwrap().signal(), Some(9));
}

#[test]
fn l_03_daemons_that_left_their_parent_are_killed() {
    let world = World::new("daemon");
    let member = world.member(&request());
    let mut child = shell(
        &member,
        "setsid sh -c 'setsid sleep 600 & setsid sleep 600 & exit 0' >/dev/null; echo up; exit 0",
    );
    assert_eq!(line(&mut child), "up\n");
    assert!(child.wait().unwrap().success());
    assert!(member.populated().unwrap(), "the daemons are still there");
    run(member.destroy()).unwrap();
    assert!(!member.populated().unwrap());
}

#[test]
fn l_03_stopped_and_frozen_processes_are_killed() {
    let world = World::new("stopped");
    let member = world.member(&request());
    let mut child = shell(&member, "sleep 600 & kill -STOP $!; echo up; kill -STOP $$");
    assert_eq!(line(&mut child), "up\n");
    member.freeze().unwrap();
    run(member.destroy()).unwrap();
    assert!(!member.populated().unwrap());
    child.wait().unwrap();
}

#[test]
fn l_03_a_fork_bomb_is_held_and_killed() {
    let world = World::new("bomb");
    let member = world.group.member("bomb", &pids(64)).unwrap();
    let mut child = shell(&member, "f() { f | f & }; echo up; f; f; wait");
    assert_eq!(line(&mut child), "up\n");
    // It is at its limit when forks are refused.
    let start = Instant::now();
    while member.stats().pids.unwrap().refused == 0 {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "the bomb never met its limit"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(member.stats().pids.unwrap().current <= 64);
    run(member.destroy()).unwrap();
    assert!(!member.populated().unwrap());
    child.wait().unwrap();
    drop(member);
    let World { layout, name, group } = world;
    drop(group);
    assert_eq!(World::left(&layout, &name), Vec::<std::path::PathBuf>::new());
}

#[test]
fn n_01_groups_and_members_leave_no_directory() {
    for round in 0..20 {
        let world = World::new("leak");
        let members: Vec<_> = (0..3)
            .map(|at| {
                world
                    .group
                    .member(&format!("m{at}"), &request().limits(world.layout.policy()))
                    .unwrap()
            })
            .collect();
        let mut child = (round % 2 == 0).then(|| shell(&members[0], "sleep 600"));
        assert!(!World::left(&world.layout, &world.name).is_empty());
        let World { layout, name, group } = world;
        // A launch given up half-way: dropped with a process still inside, the group before its members.
        drop(group);
        drop(members);
        if let Some(child) = &mut child {
            assert_eq!(child.wait().unwrap().signal(), Some(9));
        }
        assert_eq!(World::left(&layout, &name), Vec::<std::path::PathBuf>::new());
    }
}

#[test]
fn l_03_empty_is_told_when_the_last_process_ends() {
    let world = World::new("empty");
    let member = world.member(&request());
    run(member.empty()).unwrap();
    let mut child = shell(&member, "sleep 600 & echo up; wait");
    assert_eq!(line(&mut child), "up\n");
    run(async {
        let early = tokio::time::timeout(Duration::from_millis(50), member.empty()).await;
        assert!(early.is_err(), "told although two processes are inside");
        let (told, ()) = tokio::join!(member.empty(), async {
            tokio::task::yield_now().await;
            member.kill().unwrap();
        });
        told.unwrap();
    });
    assert!(!member.populated().unwrap());
    child.wait().unwrap();
}

#[test]
fn a_frozen_member_stands_still_until_it_is_thawed() {
    let world = World::new("frozen");
    let member = world.member(&request());
    let mut child = shell(&member, "echo up; while :; do :; done");
    assert_eq!(line(&mut child), "up\n");
    member.freeze().unwrap();
    // Freezing takes effect when the process next leaves user space.
    let settled = |pause: u64| {
        let before = member.stats().cpu.unwrap().usage;
        std::thread::sleep(Duration::from_millis(pause));
        member.stats().cpu.unwrap().usage - before
    };
    let start = Instant::now();
    while settled(50) > Duration::ZERO {
        assert!(start.elapsed() < Duration::from_secs(10), "still running");
    }
    member.thaw().unwrap();
    let start = Instant::now();
    while settled(50) == Duration::ZERO {
        assert!(start.elapsed() < Duration::from_secs(10), "still frozen");
    }
    run(member.destroy()).unwrap();
    child.wait().unwrap();
}

#[test]
fn w_01_names_are_never_the_separator_of_the_agent() {
    let layout = layout();
    for path in layout.paths("mesos") {
        let last = path.file_name().unwrap().to_str().unwrap();
        assert!(last.starts_with("podling-mesos"), "{}", path.display());
    }
    let world = World::new("names");
    let policy = world.layout.policy();
    let odd = ["mesos", "tasks", "cgroup.procs", "a/b", "a_b", "..", ""];
    let members: Vec<_> = odd
        .iter()
        .map(|name| world.group.member(name, &request().limits(policy)).unwrap())
        .collect();
    for member in &members {
        let below = member.path();
        let last = below.file_name().unwrap().to_str().unwrap();
        assert!(last.starts_with("member-"), "{last}");
    }
}

#[test]
fn a_name_in_use_is_refused() {
    let world = World::new("twice");
    let error = world
        .layout
        .group(&world.name, &request().limits(world.layout.policy()))
        .unwrap_err();
    assert!(error.to_string().contains("exists already"), "{error}");
    // The refusal has not harmed the first.
    world.member(&request());
}

/// The long form (L3): `cargo test --test cgroup -- --ignored l_03_long --nocapture`.
#[test]
#[ignore = "takes a minute"]
fn l_03_long_run_of_all_kinds_leaves_no_survivor() {
    let kinds = [
        (
            "ignores TERM",
            "trap '' TERM INT HUP; echo up; while :; do sleep 60; done",
        ),
        (
            "daemons",
            "setsid sh -c 'setsid sleep 600 & setsid sleep 600 &' >/dev/null; echo up; exit 0",
        ),
        ("stopped", "sleep 600 & kill -STOP $!; echo up; kill -STOP $$"),
        ("bomb", "f() { f | f & }; echo up; f; f; wait"),
    ];
    let world = World::new("long");
    for (kind, script) in kinds {
        let mut late = Vec::new();
        for round in 0..250 {
            let member = world.group.member(&format!("m{round}"), &pids(64)).unwrap();
            let mut child = shell(&member, script);
            assert_eq!(line(&mut child), "up\n");
            if round % 2 == 0 {
                member.freeze().unwrap();
            }
            let start = Instant::now();
            run(member.destroy()).unwrap();
            late.push(start.elapsed());
            assert_eq!(
                member.procs().unwrap(),
                Vec::<i32>::new(),
                "{kind}, round {round}"
            );
            child.wait().unwrap();
        }
        late.sort();
        println!(
            "{kind}: gone after p50 {:?}, p99 {:?}, max {:?}",
            late[125], late[247], late[249]
        );
    }
}
