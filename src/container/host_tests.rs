use super::*;

/// A machine that has everything.
fn complete() -> Facts {
    Facts {
        release: "6.1.0-test".into(),
        kernel: (6, 1),
        arch: Some(Arch::X86_64),
        uid: 0,
        capabilities: u64::MAX,
        clone3: true,
        pidfd: true,
        openat2: true,
        mount_api: true,
        mount_setattr: true,
        bpf: true,
        seccomp: true,
        overlayfs: true,
        user_namespaces: 10_000,
        network_namespaces: true,
        nftables: true,
        forwarding: (Some(true), Some(true)),
        tracing: Some(2),
        kernel_log: true,
        cgroup_mode: cgroup::Mode::Unified,
        controllers: vec![
            Controller::Cpu,
            Controller::Memory,
            Controller::Pids,
            Controller::Io,
        ],
        cgroup_missing: Vec::new(),
        pressure: true,
    }
}

fn lacks(change: impl FnOnce(&mut Facts)) -> Vec<Finding> {
    let mut facts = complete();
    change(&mut facts);
    let findings = findings(&facts);
    for finding in &findings {
        assert_eq!(
            finding.grade != Grade::Good,
            finding.consequence.is_some(),
            "{finding:?}"
        );
    }
    findings
        .into_iter()
        .filter(|finding| finding.grade != Grade::Good)
        .collect()
}

#[test]
fn s_08_a_complete_machine_has_nothing_to_complain_about() {
    assert_eq!(lacks(|_| {}), Vec::new());
    assert_eq!(overall(&findings(&complete())), Grade::Good);
}

#[test]
fn s_08_each_capability_dropped_in_turn_is_named_with_its_consequence() {
    for (bit, grade, consequence) in CAPABILITIES {
        let found = lacks(|facts| facts.capabilities &= !bit);
        let name = caps::name(bit.trailing_zeros()).unwrap();
        let named = found
            .iter()
            .find(|finding| finding.found == format!("no {name}"))
            .unwrap();
        assert_eq!((named.grade, named.consequence), (*grade, Some(*consequence)));
    }
    // Others are not asked for.
    assert_eq!(lacks(|facts| facts.capabilities &= !caps::SYS_TIME), Vec::new());
}

#[test]
fn s_08_an_ordinary_user_is_told_what_is_left() {
    let found = lacks(|facts| {
        facts.uid = 1000;
        facts.capabilities = 0;
        facts.controllers.push(Controller::Devices);
    });
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].grade, Grade::Lesser);
    let found = lacks(|facts| {
        facts.uid = 1000;
        facts.user_namespaces = 0;
    });
    assert_eq!(found[0].grade, Grade::Missing);
    assert!(found[0].consequence.unwrap().contains("user.max_user_namespaces"));
}

#[test]
fn s_08_every_cgroup_arrangement_is_told() {
    let told = |mode, controllers: Vec<Controller>, missing: Vec<cgroup::Missing>| {
        let mut facts = complete();
        (facts.cgroup_mode, facts.controllers, facts.cgroup_missing) = (mode, controllers, missing);
        findings(&facts)
            .into_iter()
            .filter(|finding| finding.name == "cgroups")
            .map(|finding| finding.found)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        told(cgroup::Mode::Hybrid, vec![Controller::Memory], vec![]),
        ["version 1, with version 2 for tracking: memory"]
    );
    assert_eq!(
        told(cgroup::Mode::Legacy, vec![Controller::Cpu], vec![]),
        ["version 1: cpu"]
    );
    let none = cgroup::Missing {
        what: "no cgroups".into(),
        consequence: "members have no limits",
    };
    assert_eq!(told(cgroup::Mode::None, vec![], vec![none]), ["no cgroups"]);
}

#[test]
fn s_08_each_kernel_feature_lacking_is_told() {
    type Change = fn(&mut Facts);
    let changes: [(&str, Grade, Change); 13] = [
        ("clone3", Grade::Missing, |facts| facts.clone3 = false),
        ("pidfd", Grade::Missing, |facts| facts.pidfd = false),
        ("openat2", Grade::Missing, |facts| facts.openat2 = false),
        ("mount-api", Grade::Missing, |facts| facts.mount_api = false),
        ("overlayfs", Grade::Missing, |facts| facts.overlayfs = false),
        ("seccomp", Grade::Lesser, |facts| facts.seccomp = false),
        ("seccomp", Grade::Lesser, |facts| facts.arch = None),
        ("device-filter", Grade::Lesser, |facts| facts.bpf = false),
        ("tracing", Grade::Lesser, |facts| facts.tracing = Some(3)),
        ("clone-into-cgroup", Grade::Lesser, |facts| facts.kernel = (5, 6)),
        ("nftables", Grade::Lesser, |facts| facts.nftables = false),
        ("ipv4-forwarding", Grade::Lesser, |facts| {
            facts.forwarding.0 = Some(false)
        }),
        ("ipv6-forwarding", Grade::Lesser, |facts| {
            facts.forwarding.1 = None
        }),
    ];
    for (name, grade, change) in changes {
        let found = lacks(change);
        assert!(
            found
                .iter()
                .any(|finding| finding.name == name && finding.grade == grade),
            "{name}: {found:?}"
        );
    }
}

#[test]
fn this_machine_can_be_looked_at() {
    let facts = Facts::gather(&cgroup::Config::default());
    assert!(facts.kernel >= (4, 0), "{:?}", facts.release);
    assert!(!findings(&facts).is_empty());
}
