//! Loading the small BPF programs that decide over device access, and attaching them to cgroups.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

/// One instruction as the kernel reads it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    pub code: u8,
    /// Destination in the low half, source in the high half.
    pub registers: u8,
    pub offset: i16,
    pub immediate: i32,
}

/// All arithmetic is on 32-bit halves: that is all the kernel shows of a device.
impl Instruction {
    const fn new(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> Instruction {
        Instruction {
            code,
            registers: src << 4 | dst,
            offset,
            immediate,
        }
    }

    pub const fn load_word(dst: u8, src: u8, offset: i16) -> Instruction {
        Instruction::new(0x61, dst, src, offset, 0)
    }

    pub const fn copy(dst: u8, src: u8) -> Instruction {
        Instruction::new(0xbc, dst, src, 0, 0)
    }

    pub const fn set(dst: u8, value: i32) -> Instruction {
        Instruction::new(0xb4, dst, 0, 0, value)
    }

    pub const fn and(dst: u8, value: i32) -> Instruction {
        Instruction::new(0x54, dst, 0, 0, value)
    }

    pub const fn shift_right(dst: u8, bits: i32) -> Instruction {
        Instruction::new(0x74, dst, 0, 0, bits)
    }

    pub const fn jump_unless_equal(dst: u8, value: i32, skip: i16) -> Instruction {
        Instruction::new(0x56, dst, 0, skip, value)
    }

    pub const fn jump_unless_same(dst: u8, src: u8, skip: i16) -> Instruction {
        Instruction::new(0x5e, dst, src, skip, 0)
    }

    pub const fn exit() -> Instruction {
        Instruction::new(0x95, 0, 0, 0, 0)
    }
}

const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
/// Filters of cgroups above stay in force as well.
const ALLOW_MULTI: u32 = 2;

/// The head of `union bpf_attr` for loading; the kernel takes what lies beyond as zero.
#[repr(C)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

/// The head of `union bpf_attr` for attaching.
#[repr(C)]
struct Attach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<libc::c_long> {
    // SAFETY: `attributes` is a plain C structure of the size given, alive over the call; the commands used here only
    // read it and what it points to.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    match result {
        -1 => Err(io::Error::last_os_error()),
        done => Ok(done),
    }
}

pub fn load_device_filter(program: &[Instruction]) -> io::Result<OwnedFd> {
    let license = c"Apache-2.0";
    let attributes = Load {
        prog_type: TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        insns: program.as_ptr().expose_provenance() as u64,
        license: license.as_ptr().expose_provenance() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
    };
    let fd = bpf(PROG_LOAD, &attributes)?;
    let fd = i32::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: the kernel has just made this descriptor for us, close-on-exec, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The filter stays for as long as the cgroup.
pub fn attach_device_filter(cgroup: BorrowedFd<'_>, program: &OwnedFd) -> io::Result<()> {
    let attributes = Attach {
        target_fd: cgroup.as_raw_fd().cast_unsigned(),
        attach_bpf_fd: program.as_raw_fd().cast_unsigned(),
        attach_type: ATTACH_CGROUP_DEVICE,
        attach_flags: ALLOW_MULTI,
    };
    bpf(PROG_ATTACH, &attributes).map(|_| ())
}
