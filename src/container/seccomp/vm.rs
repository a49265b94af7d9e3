//! A classic BPF machine as the kernel runs it for seccomp: the judge in the tests.

use libc::sock_filter;

/// What the kernel shows a filter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) number: u32,
    pub(super) arch: u32,
    pub(super) args: [u64; 6],
}

impl Call {
    fn word(&self, at: u32) -> u32 {
        match at {
            0 => self.number,
            4 => self.arch,
            16..=60 if at.is_multiple_of(4) => {
                let arg = self.args[(at as usize - 16) / 8];
                if at.is_multiple_of(8) {
                    arg as u32
                } else {
                    (arg >> 32) as u32
                }
            }
            _ => panic!("load from {at}"),
        }
    }
}

/// The returned word, and how many instructions it took.
pub(super) fn run(program: &[sock_filter], call: &Call) -> (u32, usize) {
    let (mut a, mut pc, mut steps) = (0u32, 0usize, 0usize);
    loop {
        let insn = program[pc];
        steps += 1;
        pc += 1;
        let jump = |taken: bool| usize::from(if taken { insn.jt } else { insn.jf });
        match insn.code {
            0x20 => a = call.word(insn.k),
            0x54 => a &= insn.k,
            0x05 => pc += insn.k as usize,
            0x15 => pc += jump(a == insn.k),
            0x25 => pc += jump(a > insn.k),
            0x35 => pc += jump(a >= insn.k),
            0x45 => pc += jump(a & insn.k != 0),
            0x06 => return (insn.k, steps),
            code => panic!("opcode {code:#x} at {}", pc - 1),
        }
    }
}
