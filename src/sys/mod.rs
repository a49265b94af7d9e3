//! The one door to the kernel: every unsafe block and every raw system call is below here.

pub mod bpf;
pub mod environ;
pub mod held;
pub mod inherit;
#[path = "init/format.rs"]
pub mod init_format;
#[path = "init/program.rs"]
pub mod init_program;
pub mod ipc;
pub mod memory;
pub mod mount;
pub mod netlink;
pub mod netns;
pub mod overlay;
pub mod peer;
pub mod pidfd;
pub mod probe;
pub mod ready;
pub mod seccomp;
pub mod socket;
pub mod spawn;

/// The members' init: a static program of a few kilobytes, see `src/sys/init/main.rs`.
pub static INIT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/podling-init"));
