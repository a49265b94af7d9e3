//! System call filters: from a profile to the compact program the kernel runs before every call of a member.
//!
//! ```text
//! Docker's default, or an operator's file ──▶ Profile ──(capabilities, kernel, architecture)──▶ Program ──▶ kernel
//! ```
//!
//! The first thing a program looks at is the architecture word: calls of another one (i386 on x86_64) kill the
//! process, as their numbers mean other things. Then it finds the call by binary search over runs of numbers with
//! the same fate, so that the default profile is under a hundred instructions; argument tests are leaves of that
//! tree. Numbers that no kernel had when the profile was written answer ENOSYS, not EPERM: C libraries then fall back.
//!
//! [`Program::instructions`] goes to [`crate::sys::seccomp::install`], which may be called right after `clone`.

mod compile;
mod default;
mod docker;
mod profile;
mod syscalls;
#[cfg(test)]
mod vm;

use std::{io, path::PathBuf};

pub use compile::{CompileError, Program};
pub use docker::{ParseError, load, parse};
pub use profile::{Action, ArgTest, Comparison, Condition, Env, Profile, Rule};
pub use syscalls::Arch;

/// Why there is no filter for a member.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    #[error("seccomp profile name {name:?} is not a plain file name")]
    Name { name: String },
    #[error("seccomp profile {name:?}: cannot read {}: {source}", path.display())]
    Read {
        name: String,
        path: PathBuf,
        source: io::Error,
    },
    #[error("seccomp profile {name:?}: {} is {what}", path.display())]
    NotAFile {
        name: String,
        path: PathBuf,
        what: &'static str,
    },
    #[error("seccomp profile {name:?} is not usable: {source}")]
    Parse { name: String, source: ParseError },
    #[error("seccomp profile {name:?} cannot be compiled: {source}")]
    Compile { name: String, source: CompileError },
}

/// Capability numbers the profiles speak of, as bits.
pub mod caps {
    macro_rules! bits {
        ($($name:ident $number:literal),* $(,)?) => {
            $(pub const $name: u64 = 1 << $number;)*
            /// Bit of a capability by its kernel name (`CAP_SYS_ADMIN`).
            pub fn bit(name: &str) -> Option<u64> {
                let name = name.strip_prefix("CAP_")?;
                $(if name == stringify!($name) { return Some($name); })*
                None
            }
            /// Kernel name of a capability number.
            pub fn name(number: u32) -> Option<&'static str> {
                match number {
                    $($number => Some(concat!("CAP_", stringify!($name))),)*
                    _ => None,
                }
            }
        };
    }
    bits! {
        CHOWN 0, DAC_OVERRIDE 1, DAC_READ_SEARCH 2, FOWNER 3, FSETID 4, KILL 5, SETGID 6, SETUID 7, SETPCAP 8,
        LINUX_IMMUTABLE 9, NET_BIND_SERVICE 10, NET_BROADCAST 11, NET_ADMIN 12, NET_RAW 13, IPC_LOCK 14, IPC_OWNER 15,
        SYS_MODULE 16, SYS_RAWIO 17, SYS_CHROOT 18, SYS_PTRACE 19, SYS_PACCT 20, SYS_ADMIN 21, SYS_BOOT 22,
        SYS_NICE 23, SYS_RESOURCE 24, SYS_TIME 25, SYS_TTY_CONFIG 26, MKNOD 27, LEASE 28, AUDIT_WRITE 29,
        AUDIT_CONTROL 30, SETFCAP 31, MAC_OVERRIDE 32, MAC_ADMIN 33, SYSLOG 34, WAKE_ALARM 35, BLOCK_SUSPEND 36,
        AUDIT_READ 37, PERFMON 38, BPF 39, CHECKPOINT_RESTORE 40,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_takes_the_default_program_and_obeys_it() {
        let env = Env {
            arch: Arch::native().unwrap(),
            caps: caps::SYS_CHROOT,
            kernel: (6, 1),
        };
        let program = Program::compile(&Profile::docker_default(), &env).unwrap();
        // A filter is for good, and for one thread.
        std::thread::spawn(move || {
            rustix::thread::set_no_new_privs(true).unwrap();
            let before = rustix::process::pivot_root("/nonexistent", "/nonexistent");
            assert_eq!(before, Err(rustix::io::Errno::NOENT));
            crate::sys::seccomp::install(program.instructions(), program.log).unwrap();
            let after = rustix::process::pivot_root("/nonexistent", "/nonexistent");
            assert_eq!(after, Err(rustix::io::Errno::PERM));
            assert!(std::fs::read("/proc/self/status").unwrap().len() > 100);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn capability_names_and_bits_agree() {
        for number in 0..=40 {
            assert_eq!(caps::bit(caps::name(number).unwrap()), Some(1 << number));
        }
        assert_eq!(caps::name(41), None);
        assert_eq!(caps::bit("SYS_ADMIN"), None);
    }
}
