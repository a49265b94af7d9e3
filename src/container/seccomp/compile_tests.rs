use std::collections::BTreeMap;

use proptest::prelude::*;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use super::{
    super::{
        Arch, Condition, Rule, caps,
        vm::{Call, run},
    },
    *,
};

const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const NO_SUCH_CALL: u32 = 0x0005_0026;
const KILL: u32 = 0x8000_0000;

/// Docker's default capability set.
const USUAL: u64 = caps::CHOWN
    | caps::DAC_OVERRIDE
    | caps::FOWNER
    | caps::FSETID
    | caps::KILL
    | caps::SETGID
    | caps::SETUID
    | caps::SETPCAP
    | caps::NET_BIND_SERVICE
    | caps::NET_RAW
    | caps::SYS_CHROOT
    | caps::MKNOD
    | caps::AUDIT_WRITE
    | caps::SETFCAP;

fn env(arch: Arch, caps: u64) -> Env {
    Env {
        arch,
        caps,
        kernel: (6, 1),
    }
}

/// What a profile says of a call, read straight from its rules.
fn said(profile: &Profile, env: &Env, call: &Call) -> u32 {
    profile
        .rules
        .iter()
        .filter(|rule| rule.when.holds(env))
        .find(|rule| {
            rule.syscalls
                .iter()
                .any(|name| syscalls::number(name, env.arch) == Some(call.number))
                && rule
                    .args
                    .iter()
                    .all(|test| test.holds(call.args[usize::from(test.index)]))
        })
        .map_or(profile.default, |rule| rule.action)
        .word()
}

/// The same profile through somebody else's compiler: what it lets through.
fn oracle(profile: &Profile, env: &Env) -> BpfProgram {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let mut always = Vec::new();
    for rule in profile
        .rules
        .iter()
        .filter(|rule| rule.when.holds(env) && rule.action == Action::Allow)
    {
        for number in rule
            .syscalls
            .iter()
            .filter_map(|name| syscalls::number(name, env.arch))
        {
            let conditions: Vec<SeccompCondition> = rule
                .args
                .iter()
                .map(|test| {
                    let op = match test.comparison {
                        Comparison::Equal => SeccompCmpOp::Eq,
                        Comparison::NotEqual => SeccompCmpOp::Ne,
                        Comparison::Less => SeccompCmpOp::Lt,
                        Comparison::LessOrEqual => SeccompCmpOp::Le,
                        Comparison::Greater => SeccompCmpOp::Gt,
                        Comparison::GreaterOrEqual => SeccompCmpOp::Ge,
                        Comparison::MaskedEqual { mask } => SeccompCmpOp::MaskedEq(mask),
                    };
                    SeccompCondition::new(test.index, SeccompCmpArgLen::Qword, op, test.value).unwrap()
                })
                .collect();
            let list = rules.entry(i64::from(number)).or_default();
            match conditions.is_empty() {
                true => always.push(i64::from(number)),
                false => list.push(SeccompRule::new(conditions).unwrap()),
            }
        }
    }
    for number in always {
        rules.insert(number, Vec::new());
    }
    let target = match env.arch {
        Arch::X86_64 => TargetArch::x86_64,
        Arch::Aarch64 => TargetArch::aarch64,
    };
    SeccompFilter::new(rules, SeccompAction::Errno(1), SeccompAction::Allow, target)
        .unwrap()
        .try_into()
        .unwrap()
}

fn oracle_says(program: &BpfProgram, call: &Call) -> u32 {
    let program: Vec<sock_filter> = program
        .iter()
        .map(|i| sock_filter {
            code: i.code,
            jt: i.jt,
            jf: i.jf,
            k: i.k,
        })
        .collect();
    run(&program, call).0
}

fn interesting_args() -> Vec<u64> {
    let mut values: Vec<u64> = (0..64).collect();
    values.extend([0x11, 0x3d0f00, 0x1200011, 0x7e02_0000, 0x8000_0000]);
    values.extend((16..33).map(|bit| 1u64 << bit));
    values.extend([
        0x20000,
        0x20007,
        0x20008,
        0x20009,
        0xffff_fffe,
        0xffff_ffff,
        0x1_0000_0000,
    ]);
    values.extend([0x1_0000_0001, 0x1_0000_0008, u64::MAX, u64::MAX - 1, 1 << 63]);
    values
}

fn capability_sets() -> Vec<u64> {
    // DAC_READ_SEARCH, the SYS_ ones, and what was later split off from SYS_ADMIN
    let mut sets = vec![0, USUAL, u64::MAX];
    sets.extend([2, 16, 17, 18, 19, 20, 21, 22, 23, 25, 26, 34, 38, 39].map(|number| USUAL ^ (1 << number)));
    sets
}

#[test]
fn the_default_program_agrees_with_its_profile_and_with_seccompiler_on_every_number() {
    let profile = Profile::docker_default();
    for arch in [Arch::X86_64, Arch::Aarch64] {
        for caps in capability_sets() {
            let env = env(arch, caps);
            let program = Program::compile(&profile, &env).unwrap();
            let oracle = oracle(&profile, &env);
            let known: std::collections::BTreeSet<u32> = syscalls::numbers(arch).collect();
            let newest = syscalls::number("removexattrat", arch).unwrap();
            let numbers = (0..600).chain([4095, X32_BIT - 1, X32_BIT, X32_BIT + 1, X32_BIT + 513, u32::MAX]);
            for number in numbers {
                let by_args = ["socket", "personality", "clone"]
                    .iter()
                    .any(|name| syscalls::number(name, arch) == Some(number));
                let args = if by_args {
                    interesting_args()
                } else {
                    vec![0, u64::MAX]
                };
                for arg in args {
                    let call = Call {
                        number,
                        arch: arch.audit_word(),
                        args: [arg; 6],
                    };
                    let (got, _) = run(program.instructions(), &call);
                    assert_eq!(
                        got == ALLOW,
                        oracle_says(&oracle, &call) == ALLOW,
                        "{arch:?} caps {caps:#x} call {number} arg {arg:#x}: {got:#x}"
                    );
                    if known.contains(&number) && number <= newest {
                        assert_eq!(got, said(&profile, &env, &call), "{arch:?} {number} {arg:#x}");
                    } else {
                        assert_eq!(got, NO_SUCH_CALL, "{arch:?} {number}");
                    }
                }
            }
        }
    }
}

#[test]
fn calls_of_another_architecture_kill() {
    let profile = Profile::docker_default();
    for arch in [Arch::X86_64, Arch::Aarch64] {
        let program = Program::compile(&profile, &env(arch, USUAL)).unwrap();
        // i386, arm, x86_64 on aarch64 and the other way round, nothing, everything
        for word in [0x4000_0003, 0x4000_0028, 0xC000_003E, 0xC000_00B7, 0, u32::MAX] {
            let call = Call {
                number: 1,
                arch: word,
                args: [0; 6],
            };
            let expected = if word == arch.audit_word() {
                run(program.instructions(), &call).0
            } else {
                KILL
            };
            assert_eq!(run(program.instructions(), &call).0, expected);
            assert!(word == arch.audit_word() || expected == KILL);
        }
    }
}

#[test]
fn the_default_program_is_compact() {
    for arch in [Arch::X86_64, Arch::Aarch64] {
        let program = Program::compile(&Profile::docker_default(), &env(arch, USUAL)).unwrap();
        let longest = (0..600)
            .map(|number| {
                let call = Call {
                    number,
                    arch: arch.audit_word(),
                    args: [44; 6],
                };
                run(program.instructions(), &call).1
            })
            .max()
            .unwrap();
        let length = program.instructions().len();
        println!("{arch:?}: {length} instructions, longest path {longest}");
        assert!(length <= 110, "{arch:?}: {length}");
        assert!(longest <= 20, "{arch:?}: {longest}");
    }
}

#[test]
fn well_known_calls_get_well_known_answers() {
    let arch = Arch::X86_64;
    let usual = Program::compile(&Profile::docker_default(), &env(arch, USUAL)).unwrap();
    let admin = Program::compile(&Profile::docker_default(), &env(arch, USUAL | caps::SYS_ADMIN)).unwrap();
    let ask = |program: &Program, name: &str, arg: u64| {
        let call = Call {
            number: syscalls::number(name, arch).unwrap(),
            arch: arch.audit_word(),
            args: [arg; 6],
        };
        run(program.instructions(), &call).0
    };
    for name in [
        "read",
        "execve",
        "exit_group",
        "openat2",
        "ptrace",
        "chroot",
        "mseal",
    ] {
        assert_eq!(ask(&usual, name, 0), ALLOW, "{name}");
    }
    for name in [
        "mount",
        "bpf",
        "keyctl",
        "add_key",
        "userfaultfd",
        "io_uring_setup",
        "unshare",
        "setns",
        "kexec_load",
        "init_module",
        "perf_event_open",
        "open_by_handle_at",
        "pivot_root",
        "swapon",
    ] {
        assert_eq!(ask(&usual, name, 0), EPERM, "{name}");
    }
    assert_eq!(ask(&usual, "clone3", 0), NO_SUCH_CALL);
    assert_eq!(ask(&admin, "clone3", 0), ALLOW);
    assert_eq!(ask(&usual, "clone", 0x1000_0000), EPERM, "a user namespace");
    assert_eq!(ask(&usual, "clone", 0x3d0f00), ALLOW, "a thread");
    assert_eq!(ask(&admin, "mount", 0), ALLOW);
    assert_eq!(ask(&usual, "socket", 38), EPERM, "AF_ALG");
    assert_eq!(ask(&usual, "socket", 40), EPERM, "AF_VSOCK");
    assert_eq!(ask(&usual, "socket", 16), ALLOW, "AF_NETLINK");
    assert_eq!(
        ask(&usual, "socket", 0x1_0000_0002),
        EPERM,
        "only the whole register counts"
    );
}

#[test]
fn a_profile_that_lets_everything_else_through_still_refuses_x32() {
    let profile = Profile {
        default: Action::Allow,
        rules: vec![Rule {
            syscalls: vec!["reboot".into()],
            action: Action::Errno(1),
            args: vec![],
            when: Condition::default(),
        }],
        log: false,
    };
    let env = env(Arch::X86_64, USUAL);
    let program = Program::compile(&profile, &env).unwrap();
    let ask = |number| {
        let call = Call {
            number,
            arch: env.arch.audit_word(),
            args: [0; 6],
        };
        run(program.instructions(), &call).0
    };
    assert_eq!(ask(169), EPERM);
    assert_eq!(ask(5000), ALLOW);
    assert_eq!(ask(X32_BIT + 1), NO_SUCH_CALL);
}

fn any_action() -> impl Strategy<Value = Action> {
    prop_oneof![
        Just(Action::Allow),
        Just(Action::Log),
        (1u16..200).prop_map(Action::Errno),
        Just(Action::Trap(0)),
        Just(Action::KillThread),
        Just(Action::KillProcess),
    ]
}

fn any_value() -> impl Strategy<Value = u64> {
    prop_oneof![
        0u64..8,
        Just(u64::from(u32::MAX)),
        Just(1 << 32),
        any::<u32>().prop_map(u64::from),
        any::<u64>()
    ]
}

fn any_test(index: impl Strategy<Value = u8>) -> impl Strategy<Value = ArgTest> {
    let comparison = prop_oneof![
        Just(Comparison::Equal),
        Just(Comparison::NotEqual),
        Just(Comparison::Less),
        Just(Comparison::LessOrEqual),
        Just(Comparison::Greater),
        Just(Comparison::GreaterOrEqual),
        any_value().prop_map(|mask| Comparison::MaskedEqual { mask }),
    ];
    (index, comparison, any_value()).prop_map(|(index, comparison, value)| ArgTest {
        index,
        comparison,
        value,
    })
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let names: Vec<&'static str> = vec![
        "read", "write", "open", "mmap", "clone", "socket", "bpf", "mseal", "ipc",
    ];
    let one_index = (0u8..6).prop_flat_map(|index| proptest::collection::vec(any_test(Just(index)), 0..3));
    let many = proptest::collection::vec(any_test(0u8..6), 0..4);
    (
        proptest::sample::subsequence(names, 1..4),
        any_action(),
        prop_oneof![one_index, many],
    )
        .prop_map(|(names, action, args)| Rule {
            syscalls: names.into_iter().map(Into::into).collect(),
            action,
            args,
            when: Condition::default(),
        })
}

proptest! {
    /// Any profile means in the kernel what its rules say, for values round each of its constants.
    #[test]
    fn a_program_means_what_its_profile_says(
        default in any_action(),
        rules in proptest::collection::vec(any_rule(), 0..40),
    ) {
        let profile = Profile { default, rules, log: false };
        let env = env(Arch::X86_64, USUAL);
        let program = Program::compile(&profile, &env).unwrap();
        let mut values: Vec<u64> = profile
            .rules
            .iter()
            .flat_map(|rule| &rule.args)
            .flat_map(|test| [test.value, test.value.wrapping_add(1), test.value.wrapping_sub(1)])
            .chain([0, 1, u64::MAX, 1 << 32])
            .collect();
        values.sort_unstable();
        values.dedup();
        let named = ["read", "write", "open", "mmap", "clone", "socket", "bpf", "mseal"];
        for number in named.iter().filter_map(|name| syscalls::number(name, env.arch)) {
            for (at, value) in values.iter().enumerate() {
                let mut args = [*value; 6];
                args[at % 6] = values[(at * 7 + 3) % values.len()];
                let call = Call { number, arch: env.arch.audit_word(), args };
                let mentioned = profile.rules.iter().any(|rule| {
                    rule.syscalls.iter().any(|name| syscalls::number(name, env.arch) >= Some(number))
                });
                if mentioned || default.lets_through() {
                    prop_assert_eq!(run(program.instructions(), &call).0, said(&profile, &env, &call));
                }
            }
        }
    }
}

#[test]
fn long_programs_jump_far_and_too_long_ones_are_refused() {
    let rule = |mask: u64| Rule {
        syscalls: vec!["read".into(), "mseal".into()],
        action: Action::Errno((mask % 7 + 1) as u16),
        args: vec![ArgTest {
            index: (mask % 6) as u8,
            comparison: Comparison::MaskedEqual {
                mask: mask << 20 | 0xf,
            },
            value: 5,
        }],
        when: Condition::default(),
    };
    let env = env(Arch::X86_64, USUAL);
    let mut profile = Profile {
        default: Action::Allow,
        rules: (1..200).map(rule).collect(),
        log: false,
    };
    let program = Program::compile(&profile, &env).unwrap();
    assert!(program.instructions().len() > 1000);
    for value in [0u64, 5, 5 | 1 << 20, 5 | 1 << 24, 21, u64::MAX] {
        for number in [0, 1, 300, 462, 463] {
            let call = Call {
                number,
                arch: env.arch.audit_word(),
                args: [value; 6],
            };
            assert_eq!(
                run(program.instructions(), &call).0,
                said(&profile, &env, &call),
                "{number} {value}"
            );
        }
    }
    profile.rules = (1..2000).map(rule).collect();
    assert!(matches!(
        Program::compile(&profile, &env),
        Err(CompileError::TooLong { .. })
    ));
}
