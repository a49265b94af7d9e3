//! Limits hold, and an OOM is told as one (S4, R-01 to R-06).

use std::os::unix::process::ExitStatusExt;

use podling::{
    container::cgroup::{Bound, CpuStats, Policy, Request, default_devices, oom_verdict},
    group::{ExitStatus, Limit},
};

use crate::support::{World, line, request, run, shell};

/// Touches more memory than any limit here, then says that it lived.
const HOG: &str = "awk 'BEGIN { s = \"x\"; while (length(s) < 400000000) s = s s; print length(s) }'";

fn status(child: &mut std::process::Child) -> ExitStatus {
    let status = child.wait().unwrap();
    match (status.code(), status.signal()) {
        (Some(code), _) => ExitStatus::Code(code),
        (None, Some(signal)) => ExitStatus::Signal(signal),
        (None, None) => unreachable!(),
    }
}

#[test]
fn r_06_a_hog_of_memory_is_told_with_its_name_and_limit() {
    let world = World::new("hog");
    let member = world.member(&request());
    let mut child = shell(&member, &format!("exec {HOG}"));
    let status = status(&mut child);
    assert_eq!(status, ExitStatus::Signal(9));
    run(member.destroy()).unwrap();
    let Some(Limit::Memory { limit_bytes, message }) = oom_verdict(&member, None, status) else {
        panic!("the OOM was taken for a plain exit");
    };
    assert_eq!(limit_bytes, 32 << 20);
    for part in [
        "the member's memory limit, 32.0 MiB",
        "peak 3",
        "requested 32.0 MiB",
    ] {
        assert!(message.contains(part), "{part:?} not in {message:?}");
    }
    if std::fs::File::open("/dev/kmsg").is_ok() {
        assert!(message.contains("process `awk` (pid "), "{message}");
    }
}

#[test]
fn r_06_a_child_only_oom_is_seen_at_once_and_its_member_may_survive_it() {
    let world = World::new("child");
    let member = world.member(&request());
    run(async {
        let mut watch = member.oom_watch().unwrap().unwrap();
        let mut child = shell(&member, &format!("{HOG}; echo lived; read more; exit 0"));
        assert_eq!(watch.next().await.unwrap(), 1);
        let line = tokio::task::spawn_blocking(move || (line(&mut child), child));
        let (line, mut child) = line.await.unwrap();
        assert_eq!(line, "lived\n", "only the child was killed");
        let status = status(&mut child);
        member.destroy().await.unwrap();
        assert_eq!(oom_verdict(&member, Some(&mut watch), ExitStatus::Code(0)), None);
        // Had it given up because of its child, that would be the reason.
        assert!(oom_verdict(&member, Some(&mut watch), ExitStatus::Code(1)).is_some());
        let _ = status;
    });
}

#[test]
fn r_05_members_that_share_are_held_to_the_sum() {
    let half = Request {
        share: true,
        ..request()
    };
    let world = World::with("sum", &[half.clone(), half.clone()]);
    let policy = Policy::default();
    let idle = world.group.member("idle", &half.limits(&policy)).unwrap();
    let greedy = world.group.member("greedy", &half.limits(&policy)).unwrap();
    // What it shows is what counts for it.
    assert_eq!(greedy.stats().memory.unwrap().limit, Some(64 << 20));
    // 48 MiB fit into the sum of 64, though not into one half; 400 do not.
    let mut child = shell(
        &greedy,
        "awk 'BEGIN { s = \"x\"; while (length(s) < 12000000) s = s s; print 1 }'",
    );
    assert_eq!(line(&mut child), "1\n");
    assert_eq!(status(&mut child), ExitStatus::Code(0));
    assert!(greedy.stats().memory.unwrap().peak.unwrap() > 16 << 20);
    let mut child = shell(&greedy, &format!("exec {HOG}"));
    let status = status(&mut child);
    run(greedy.destroy()).unwrap();
    let Some(Limit::Memory { limit_bytes, message }) = oom_verdict(&greedy, None, status) else {
        panic!("the OOM was taken for a plain exit");
    };
    assert_eq!(limit_bytes, 64 << 20);
    assert!(
        message.contains("the memory limit of its group, 64.0 MiB"),
        "{message}"
    );
    assert_eq!(
        oom_verdict(&idle, None, ExitStatus::Code(1)),
        None,
        "the sibling is not blamed"
    );
}

#[test]
fn r_02_a_cpu_quota_is_held() {
    // A thousandth of a second in each tenth, which a busy loop wants even on a crowded machine.
    let limited = Request {
        cpus: 16.0,
        cpu_limit: Some(Bound::At(0.01)),
        ..request()
    };
    let world = World::with("cpu", std::slice::from_ref(&limited));
    let member = world.member(&limited);
    let mut child = shell(&member, "while :; do :; done");
    let start = std::time::Instant::now();
    // The time is counted when it runs again.
    let throttled = |cpu: CpuStats| cpu.throttled_periods >= 5 && cpu.throttled > std::time::Duration::ZERO;
    while !throttled(member.stats().cpu.unwrap()) {
        assert!(
            start.elapsed() < std::time::Duration::from_secs(30),
            "never throttled"
        );
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let (cpu, elapsed) = (member.stats().cpu.unwrap(), start.elapsed());
    // Ten times as much as it may have, for the kernel takes its time to notice.
    assert!(
        cpu.usage.as_secs_f64() < 0.1 * elapsed.as_secs_f64() + 0.05,
        "{:?} of cpu in {elapsed:?}",
        cpu.usage
    );
    run(member.destroy()).unwrap();
    child.wait().unwrap();
}

#[test]
fn r_03_a_groups_limits_are_raised_and_never_lowered() {
    let small = request();
    let large = Request {
        memory: 96 << 20,
        cpu_limit: Some(Bound::At(1.0)),
        ..request()
    };
    let world = World::with("raise", std::slice::from_ref(&small));
    let policy = Policy::default();
    let limit = || world.group.stats().memory.unwrap().limit;
    assert_eq!(limit(), Some(32 << 20));
    let both = podling::container::cgroup::group_limits(&[small.clone(), large], &policy);
    world.group.raise(&both).unwrap();
    assert_eq!(limit(), Some(128 << 20));
    world
        .group
        .raise(&podling::container::cgroup::group_limits(&[small], &policy))
        .unwrap();
    assert_eq!(limit(), Some(128 << 20));
}

#[test]
fn z_09_devices_outside_the_list_cannot_be_opened() {
    let world = World::new("devices");
    let member = world.member(&request());
    if !member.restrict_devices(&default_devices()).unwrap() {
        eprintln!("skipped: nothing here can restrict devices");
        return;
    }
    // Making a node is allowed, as Docker does; opening it is not.
    let node = std::env::temp_dir().join(crate::support::unique("mem"));
    let node = node.display();
    let mut child = shell(
        &member,
        &format!(
            "mknod {node} c 1 1 && (exec 3<{node}) 2>/dev/null; echo $?; rm -f {node}; exec 3</dev/null 4</dev/zero && exit 7"
        ),
    );
    assert_ne!(line(&mut child), "0\n", "/dev/mem was opened");
    assert_eq!(status(&mut child), ExitStatus::Code(7));
    run(member.empty()).unwrap();
}

#[test]
fn statistics_count_what_a_member_did() {
    let world = World::new("stats");
    let member = world.member(&request());
    let mut child = shell(
        &member,
        "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo up; read more",
    );
    assert_eq!(line(&mut child), "up\n");
    child.wait().unwrap();
    run(member.empty()).unwrap();
    let stats = member.stats();
    assert!(stats.cpu.unwrap().usage > std::time::Duration::from_millis(1));
    let memory = stats.memory.unwrap();
    assert!(memory.peak.is_none_or(|peak| peak > 100_000));
    assert_eq!((memory.limit, memory.oom_kills), (Some(32 << 20), 0));
    let pids = stats.pids.unwrap();
    assert_eq!((pids.current, pids.limit), (0, Some(4096)));
}

#[test]
fn r_01_a_member_in_the_making_is_not_slowed_by_the_share_it_asked_for() {
    let small = Request {
        cpus: 0.1,
        cpu_limit: Some(Bound::At(0.1)),
        ..request()
    };
    let world = World::with("hurry", &[small.clone(), small.clone()]);
    // The group's own weight, and that of a member, as the kernel has it now.
    let weight = |member: Option<&str>| -> u64 {
        let name = world.layout.paths(&world.name);
        let files = name.iter().flat_map(|path| {
            let path = member.map_or(path.clone(), |member| path.join(format!("member-{member}")));
            [path.join("cpu.shares"), path.join("cpu.weight")]
        });
        let text = files
            .filter_map(|file| std::fs::read_to_string(file).ok())
            .next()
            .unwrap();
        text.trim().parse().unwrap()
    };
    let quiet = weight(None);
    let limits = small.limits(&Policy::default());
    let one = world.group.member("one", &limits).unwrap();
    let two = world.group.member("two", &limits).unwrap();
    let hurry = weight(None);
    assert!(hurry > 50 * quiet, "{hurry} {quiet}");
    let fresh = weight(Some("one"));
    one.hold_cpu().unwrap();
    assert!(weight(Some("one")) < fresh);
    assert_eq!(weight(Some("two")), fresh);
    assert_eq!(weight(None), hurry, "the other one is still being made ready");
    drop(two);
    assert_eq!(weight(None), quiet, "given up counts as done");
    one.hold_cpu().unwrap();
    assert_eq!(weight(None), quiet);
    // A second launch while the first one runs, with room made for it.
    world
        .group
        .raise(&podling::container::cgroup::group_limits(
            &[small.clone(), small.clone(), small.clone()],
            &Policy::default(),
        ))
        .unwrap();
    let three = world.group.member("three", &limits).unwrap();
    assert_eq!(weight(None), hurry);
    three.hold_cpu().unwrap();
    assert!(weight(None) > quiet && weight(None) < hurry);
}
