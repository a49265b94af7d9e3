use super::*;

fn request(cpus: f64, mib: u64) -> Request {
    Request {
        cpus,
        revocable: false,
        cpu_limit: None,
        memory: mib << 20,
        memory_limit: None,
        share: false,
        pids: None,
    }
}

fn written(settings: &[Setting]) -> Vec<(&str, &str)> {
    settings
        .iter()
        .map(|setting| (setting.file, setting.value.as_str()))
        .collect()
}

#[test]
fn r_01_r_03_r_04_r_12_a_member_on_version_1() {
    let limits = request(0.5, 128).limits(&Policy::default());
    assert_eq!(
        written(&limits.v1()),
        [
            ("cpu.shares", "512"),
            ("memory.soft_limit_in_bytes", "134217728"),
            // in this order, or the kernel refuses the second
            ("memory.limit_in_bytes", "134217728"),
            ("memory.memsw.limit_in_bytes", "134217728"),
            ("memory.swappiness", "0"),
            ("pids.max", "4096"),
        ]
    );
}

#[test]
fn r_01_r_03_r_04_r_12_a_member_on_version_2() {
    let limits = request(0.5, 128).limits(&Policy::default());
    assert_eq!(
        written(&limits.v2()),
        [
            ("cpu.weight", "50"),
            ("memory.low", "134217728"),
            ("memory.max", "134217728"),
            ("memory.swap.max", "0"),
            ("pids.max", "4096"),
        ]
    );
}

#[test]
fn r_01_shares_have_a_floor_and_revocable_cpus_weigh_little() {
    let first = |request: Request| request.limits(&Policy::default()).v1()[0].value.clone();
    assert_eq!(first(request(0.0001, 32)), "2");
    assert_eq!(first(request(f64::NAN, 32)), "2");
    assert_eq!(first(request(1e12, 32)), "262144");
    let revocable = Request {
        revocable: true,
        ..request(4.0, 32)
    };
    assert_eq!(first(revocable), "40");
}

#[test]
fn r_02_a_quota_comes_from_the_limit_or_the_policy() {
    let quota = |request: &Request, policy: &Policy| request.limits(policy).quota;
    let plain = Policy::default();
    let always = Policy {
        always_quota: true,
        ..Policy::default()
    };
    assert_eq!(quota(&request(0.5, 32), &plain), None);
    assert_eq!(quota(&request(0.5, 32), &always), Some(Bound::At(0.5)));
    let limited = Request {
        cpu_limit: Some(Bound::At(2.0)),
        ..request(0.5, 32)
    };
    assert_eq!(quota(&limited, &always), Some(Bound::At(2.0)));
    let v1 = limited.limits(&plain).v1();
    assert!(written(&v1).contains(&("cpu.cfs_period_us", "100000")));
    assert!(written(&v1).contains(&("cpu.cfs_quota_us", "200000")));
    assert!(written(&limited.limits(&plain).v2()).contains(&("cpu.max", "200000 100000")));

    let tiny = Request {
        cpu_limit: Some(Bound::At(0.000_1)),
        ..request(0.1, 32)
    };
    assert!(written(&tiny.limits(&plain).v1()).contains(&("cpu.cfs_quota_us", "1000")));
    let free = Request {
        cpu_limit: Some(Bound::Infinite),
        ..request(0.1, 32)
    };
    assert!(written(&free.limits(&always).v1()).contains(&("cpu.cfs_quota_us", "-1")));
    assert!(written(&free.limits(&always).v2()).contains(&("cpu.max", "max 100000")));
}

#[test]
fn r_03_memory_has_a_floor_and_may_be_infinite() {
    let policy = Policy::default();
    let limits = request(1.0, 4).limits(&policy);
    assert_eq!(limits.soft_memory, Some(32 << 20));
    assert_eq!(limits.memory, Some(Bound::At(32 << 20)));
    let free = Request {
        memory_limit: Some(Bound::Infinite),
        ..request(1.0, 64)
    };
    let limits = free.limits(&policy);
    assert!(written(&limits.v1()).contains(&("memory.limit_in_bytes", "-1")));
    assert!(written(&limits.v2()).contains(&("memory.max", "max")));
}

#[test]
fn r_05_a_sharing_member_has_no_hard_limit_of_its_own() {
    let sharing = Request {
        share: true,
        cpu_limit: Some(Bound::At(1.0)),
        ..request(0.5, 64)
    };
    let limits = sharing.limits(&Policy::default());
    assert_eq!((limits.memory, limits.quota, limits.no_swap), (None, None, false));
    assert_eq!(limits.soft_memory, Some(64 << 20));
    assert_eq!(
        limits.pids,
        Some(Bound::At(4096)),
        "its processes are limited all the same"
    );
}

#[test]
fn r_14_a_group_is_held_to_the_sum_and_infinite_wins() {
    let policy = Policy::default();
    let limited = Request {
        cpu_limit: Some(Bound::At(2.0)),
        memory_limit: Some(Bound::At(256 << 20)),
        ..request(0.5, 64)
    };
    let sum = group_limits(&[limited.clone(), request(0.25, 64)], &policy);
    assert_eq!(sum.weight, Some(0.75));
    assert_eq!(sum.quota, Some(Bound::At(2.25)));
    assert_eq!(sum.memory, Some(Bound::At(320 << 20)));
    assert_eq!(sum.soft_memory, Some(128 << 20));
    let free = Request {
        memory_limit: Some(Bound::Infinite),
        cpu_limit: Some(Bound::Infinite),
        ..request(0.1, 32)
    };
    let sum = group_limits(&[limited, free], &policy);
    assert_eq!(
        (sum.quota, sum.memory),
        (Some(Bound::Infinite), Some(Bound::Infinite))
    );
    assert_eq!(group_limits(&[request(1.0, 32)], &policy).quota, None);
    let huge = Request {
        memory: u64::MAX,
        ..request(1.0, 32)
    };
    assert_eq!(
        group_limits(&[huge.clone(), huge], &policy).memory,
        Some(Bound::At(u64::MAX))
    );
}

#[test]
fn r_03_raising_goes_up_in_the_right_order_and_never_down() {
    let policy = Policy::default();
    let one = group_limits(&[request(1.0, 64)], &policy);
    let two = group_limits(&[request(1.0, 64), request(1.0, 64)], &policy);
    let up = one.raised(&two, false);
    let files: Vec<&str> = up.iter().map(|setting| setting.file).collect();
    let at = |name| files.iter().position(|file| *file == name).unwrap();
    assert!(
        at("memory.memsw.limit_in_bytes") < at("memory.limit_in_bytes"),
        "{files:?}"
    );
    let down = two.raised(&one, false);
    assert!(
        !written(&down)
            .iter()
            .any(|(file, _)| file.contains("limit_in_bytes") && *file != "memory.soft_limit_in_bytes"),
        "{down:?}"
    );
    assert!(
        !written(&two.raised(&one, true))
            .iter()
            .any(|(file, _)| *file == "memory.max")
    );
    assert_eq!(one.after(&two).memory, two.memory);
    assert_eq!(two.after(&one).memory, two.memory);
    assert!(
        one.raised(&one, false).is_empty(),
        "nothing to do: {:?}",
        one.raised(&one, false)
    );
}

#[test]
fn r_07_the_less_a_burstable_member_asked_for_the_earlier_it_is_killed() {
    let node = 16u64 << 30;
    let burstable = |mib: u64| Request {
        memory_limit: Some(Bound::Infinite),
        ..request(1.0, mib)
    };
    assert_eq!(oom_score_adj(&request(1.0, 64), node), None);
    let equal = Request {
        memory_limit: Some(Bound::At(64 << 20)),
        ..request(1.0, 64)
    };
    assert_eq!(oom_score_adj(&equal, node), None);
    assert_eq!(oom_score_adj(&burstable(8 << 10), node), Some(500));
    assert_eq!(oom_score_adj(&burstable(1), node), Some(999));
    assert_eq!(oom_score_adj(&burstable(64 << 10), node), Some(2));
    assert_eq!(oom_score_adj(&burstable(64), 0), None);
}

#[test]
fn shares_of_the_disk_are_written_where_the_operator_wants_them() {
    let policy = Policy {
        io_weight: Some(5000),
        ..Policy::default()
    };
    let limits = request(1.0, 64).limits(&policy);
    assert!(written(&limits.v2()).contains(&("io.weight", "default 5000")));
    assert!(written(&limits.v1()).contains(&("blkio.bfq.weight", "1000")));
    // Not every disk's scheduler has them: no reason to fail.
    assert!(
        limits
            .v2()
            .iter()
            .filter(|setting| setting.controller == Controller::Io)
            .all(|setting| !setting.required)
    );
}
