//! Which system calls this kernel, and whatever filter we are under ourselves, lets us use.
#![allow(unsafe_code)]

use std::io;

/// Calls that nix and rustix do not offer, or only do for real.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Clone3,
    MountSetattr,
    Bpf,
}

/// Tries a call with arguments that can do nothing. True: it is there and may be used.
pub fn answers(call: Call) -> bool {
    // SAFETY: every variant passes a length of zero or an impossible descriptor and null pointers, which the kernel
    // refuses before it reads or changes anything.
    let result = unsafe {
        match call {
            Call::Clone3 => libc::syscall(libc::SYS_clone3, std::ptr::null::<u8>(), 0usize),
            Call::MountSetattr => libc::syscall(
                libc::SYS_mount_setattr,
                -1i32,
                std::ptr::null::<u8>(),
                0u32,
                std::ptr::null::<u8>(),
                0usize,
            ),
            Call::Bpf => libc::syscall(libc::SYS_bpf, -1i32, std::ptr::null::<u8>(), 0u32),
        }
    };
    if result >= 0 {
        return true;
    }
    // EINVAL, E2BIG, EBADF: it looked at the arguments.
    !matches!(
        io::Error::last_os_error().raw_os_error(),
        Some(libc::ENOSYS | libc::EPERM)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_every_supported_kernel_has_answers() {
        assert!(answers(Call::Clone3));
    }
}
