//! The one door to the kernel: every unsafe block and raw system call lives here.

pub mod environ;
pub mod seccomp;
