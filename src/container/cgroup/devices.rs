//! Which device nodes a member may make and use.
//!
//! Version 1 has lists to write to. Version 2 asks a small BPF program, which we make from the same rules.

use super::{CgroupError, branches::Cgroup, layout::Controller};
use crate::sys::bpf::{self, Instruction};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    Char,
    Block,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    pub read: bool,
    pub write: bool,
    pub mknod: bool,
}

/// Devices a member may use; an absent number stands for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRule {
    pub kind: DeviceKind,
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub access: Access,
}

const ALL: Access = Access {
    read: true,
    write: true,
    mknod: true,
};

/// What Docker allows every container: to make any node, and to use those that give nothing away.
pub fn default_devices() -> Vec<DeviceRule> {
    let mknod = Access {
        read: false,
        write: false,
        mknod: true,
    };
    let any = |kind| DeviceRule {
        kind,
        major: None,
        minor: None,
        access: mknod,
    };
    let char = |major, minor| DeviceRule {
        kind: DeviceKind::Char,
        major: Some(major),
        minor,
        access: ALL,
    };
    vec![
        any(DeviceKind::Char),
        any(DeviceKind::Block),
        char(1, Some(3)), // null
        char(1, Some(5)), // zero
        char(1, Some(7)), // full
        char(1, Some(8)), // random
        char(1, Some(9)), // urandom
        char(5, Some(0)), // tty
        char(5, Some(1)), // console
        char(5, Some(2)), // ptmx
        char(136, None),  // pts
    ]
}

/// `Ok(false)`: nothing here can restrict devices.
pub(super) fn restrict(cgroup: &Cgroup, rules: &[DeviceRule]) -> Result<bool, CgroupError> {
    if let Some(node) = cgroup.v1(Controller::Devices) {
        node.write("devices.deny", "a")?;
        node.write_each("devices.allow", rules.iter().map(DeviceRule::v1))?;
        return Ok(true);
    }
    let Some(node) = cgroup.v2() else { return Ok(false) };
    let failed = |source| CgroupError::DeviceFilter {
        path: node.path().into(),
        source,
    };
    match bpf::load_device_filter(&program(rules)) {
        Ok(program) => {
            bpf::attach_device_filter(node.fd(), &program).map_err(failed)?;
            Ok(true)
        }
        // No BPF in this kernel, or not for us.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

impl DeviceRule {
    fn v1(&self) -> String {
        let kind = match self.kind {
            DeviceKind::Char => 'c',
            DeviceKind::Block => 'b',
        };
        let number = |number: Option<u32>| number.map_or("*".into(), |number| number.to_string());
        let mut text = format!("{kind} {}:{} ", number(self.major), number(self.minor));
        for (allowed, letter) in [
            (self.access.read, 'r'),
            (self.access.write, 'w'),
            (self.access.mknod, 'm'),
        ] {
            if allowed {
                text.push(letter);
            }
        }
        text
    }
}

// The kernel shows the program one access as three words: `access << 16 | kind`, major, minor.
const KIND_BLOCK: i32 = 1;
const KIND_CHAR: i32 = 2;
const ACCESS_MKNOD: i32 = 1;
const ACCESS_READ: i32 = 2;
const ACCESS_WRITE: i32 = 4;
const ACCESS_ALL: i32 = ACCESS_MKNOD | ACCESS_READ | ACCESS_WRITE;

/// Returns 1 if some rule of the same kind and numbers allows all that is asked for, else 0.
fn program(rules: &[DeviceRule]) -> Vec<Instruction> {
    // r1: context, r2: kind, r3: access, r4: major, r5: minor
    let mut out = vec![
        Instruction::load_word(2, 1, 0),
        Instruction::load_word(4, 1, 4),
        Instruction::load_word(5, 1, 8),
        Instruction::copy(3, 2),
        Instruction::shift_right(3, 16),
        Instruction::and(2, 0xffff),
    ];
    for rule in rules {
        let kind = match rule.kind {
            DeviceKind::Char => KIND_CHAR,
            DeviceKind::Block => KIND_BLOCK,
        };
        let allowed = [
            (rule.access.mknod, ACCESS_MKNOD),
            (rule.access.read, ACCESS_READ),
            (rule.access.write, ACCESS_WRITE),
        ];
        let allowed = allowed
            .iter()
            .filter(|(on, _)| *on)
            .fold(0, |bits, (_, bit)| bits | bit);
        // Each block ends in "allow"; a test that fails skips the rest of its block.
        let mut block = vec![Instruction::exit(), Instruction::set(0, 1)];
        let mut test = |make: &dyn Fn(i16) -> Instruction| {
            let skip = i16::try_from(block.len()).unwrap_or(i16::MAX);
            block.push(make(skip));
        };
        if let Some(minor) = rule.minor {
            test(&|skip| Instruction::jump_unless_equal(5, minor.cast_signed(), skip));
        }
        if let Some(major) = rule.major {
            test(&|skip| Instruction::jump_unless_equal(4, major.cast_signed(), skip));
        }
        if allowed != ACCESS_ALL {
            test(&|skip| Instruction::jump_unless_same(6, 3, skip));
            block.push(Instruction::and(6, allowed));
            block.push(Instruction::copy(6, 3));
        }
        let skip = i16::try_from(block.len()).unwrap_or(i16::MAX);
        block.push(Instruction::jump_unless_equal(2, kind, skip));
        out.extend(block.into_iter().rev());
    }
    out.push(Instruction::set(0, 0));
    out.push(Instruction::exit());
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the kernel's own verifier and machine would make of it, for the few operations we use.
    fn run(program: &[Instruction], words: [u32; 3]) -> u64 {
        let mut r = [0u64; 11];
        let mut pc = 0usize;
        loop {
            let i = program[pc];
            pc += 1;
            let (dst, src) = (usize::from(i.registers & 15), usize::from(i.registers >> 4));
            match i.code {
                0x61 => r[dst] = u64::from(words[usize::try_from(i.offset).unwrap() / 4]),
                0xbc => r[dst] = r[src] & 0xffff_ffff,
                0xb4 => r[dst] = u64::from(i.immediate.cast_unsigned()),
                0x54 => r[dst] &= u64::from(i.immediate.cast_unsigned()),
                0x74 => r[dst] = (r[dst] as u32 >> i.immediate) as u64,
                0x56 if r[dst] as u32 != i.immediate.cast_unsigned() => {
                    pc += usize::try_from(i.offset).unwrap();
                }
                0x5e if r[dst] as u32 != r[src] as u32 => pc += usize::try_from(i.offset).unwrap(),
                0x56 | 0x5e => {}
                0x95 => return r[0],
                code => panic!("opcode {code:#x}"),
            }
        }
    }

    fn allowed(rules: &[DeviceRule], kind: DeviceKind, access: i32, major: u32, minor: u32) -> bool {
        rules.iter().any(|rule| {
            let bits = i32::from(rule.access.mknod)
                | i32::from(rule.access.read) << 1
                | i32::from(rule.access.write) << 2;
            rule.kind == kind
                && bits & access == access
                && rule.major.is_none_or(|own| own == major)
                && rule.minor.is_none_or(|own| own == minor)
        })
    }

    fn any_rule() -> impl Strategy<Value = DeviceRule> {
        let number = || proptest::option::of(0u32..4);
        (any::<bool>(), number(), number(), 1u8..8).prop_map(|(char, major, minor, bits)| DeviceRule {
            kind: if char { DeviceKind::Char } else { DeviceKind::Block },
            major,
            minor,
            access: Access {
                mknod: bits & 1 != 0,
                read: bits & 2 != 0,
                write: bits & 4 != 0,
            },
        })
    }

    proptest! {
        #[test]
        fn z_09_the_v2_program_means_what_the_rules_say(rules in proptest::collection::vec(any_rule(), 0..12)) {
            let program = program(&rules);
            for (kind, number) in [(DeviceKind::Char, 2u32), (DeviceKind::Block, 1)] {
                for access in 1..8 {
                    for major in 0..5 {
                        for minor in 0..5 {
                            let words = [(access as u32) << 16 | number, major, minor];
                            prop_assert_eq!(
                                run(&program, words) == 1,
                                allowed(&rules, kind, access, major, minor)
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn z_09_the_kernels_verifier_takes_the_v2_program() {
        match bpf::load_device_filter(&program(&default_devices())) {
            Ok(_) => {}
            Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) => {
                eprintln!("skipped: no BPF here ({error})");
            }
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn z_09_version_1_rules_are_written_as_the_kernel_reads_them() {
        let text: Vec<String> = default_devices().iter().map(DeviceRule::v1).collect();
        assert_eq!(text[0], "c *:* m");
        assert_eq!(text[1], "b *:* m");
        assert_eq!(text[2], "c 1:3 rwm");
        assert_eq!(text.last().unwrap(), "c 136:* rwm");
    }
}
