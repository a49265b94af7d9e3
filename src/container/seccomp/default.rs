//! The profile a member gets unless it asks for another: what Docker's default allows, as data.
//!
//! Calls of 32-bit and foreign architectures are left out, as our filters refuse those wholesale.

use std::borrow::Cow;

use super::{
    caps,
    profile::{Action, ArgTest, Comparison, Condition, Profile, Rule},
    syscalls::Arch,
};

/// Harmless for a member whatever its capabilities: the kernel's own checks are enough.
const ALWAYS: &[&str] = &[
    // files
    "access chdir chmod chown close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 fadvise64",
    "fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync flock fstat fstatfs fsync",
    "ftruncate getcwd getdents getdents64 inotify_add_watch inotify_init inotify_init1 inotify_rm_watch ioctl lchown",
    "link linkat lseek lstat mkdir mkdirat mknod mknodat name_to_handle_at newfstatat open openat openat2 pread64 preadv",
    "preadv2 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv rename renameat renameat2 rmdir sendfile",
    "splice stat statfs statx symlink symlinkat sync sync_file_range syncfs tee truncate umask unlink unlinkat",
    "utime utimensat utimes futimesat vmsplice write writev listmount statmount",
    // extended attributes
    "fgetxattr flistxattr fremovexattr fsetxattr getxattr getxattrat lgetxattr listxattr listxattrat llistxattr",
    "lremovexattr lsetxattr removexattr removexattrat setxattr setxattrat",
    // memory
    "brk cachestat madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap",
    "mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect remap_file_pages",
    // processes and threads
    "execve execveat exit exit_group fork vfork wait4 waitid getpgid getpgrp getpid getppid getsid gettid setpgid setsid",
    "pidfd_open pidfd_send_signal process_mrelease prctl rseq set_tid_address get_robust_list set_robust_list",
    "get_thread_area set_thread_area restart_syscall getrusage times uretprobe",
    "futex futex_requeue futex_wait futex_waitv futex_wake",
    "getpriority setpriority ioprio_get ioprio_set getcpu sched_getaffinity sched_getattr sched_getparam",
    "sched_get_priority_max sched_get_priority_min sched_getscheduler sched_rr_get_interval sched_setaffinity",
    "sched_setattr sched_setparam sched_setscheduler sched_yield getrlimit setrlimit prlimit64",
    // identity
    "capget capset getegid geteuid getgid getgroups getresgid getresuid getuid setfsgid setfsuid setgid setgroups",
    "setregid setresgid setresuid setreuid setuid",
    // signals
    "kill tkill tgkill pause rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend",
    "rt_sigtimedwait rt_tgsigqueueinfo sigaltstack signalfd signalfd4",
    // waiting and time
    "epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd",
    "eventfd2 poll ppoll pselect6 select pipe pipe2 alarm getitimer setitimer nanosleep gettimeofday time adjtimex",
    "clock_adjtime clock_getres clock_gettime clock_nanosleep timer_create timer_delete timer_getoverrun timer_gettime",
    "timer_settime timerfd_create timerfd_gettime timerfd_settime",
    // sockets (which families may be opened: below)
    "accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg recvmsg sendmmsg sendmsg",
    "sendto setsockopt shutdown socketpair",
    // queues, semaphores, shared memory, asynchronous I/O
    "mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink msgctl msgget msgrcv msgsnd semctl semget",
    "semop semtimedop shmat shmctl shmdt shmget io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit",
    // the system and its own confinement
    "getrandom sysinfo uname seccomp landlock_add_rule landlock_create_ruleset landlock_restrict_self",
];

/// Allowed to who holds the capability.
const BY_CAPABILITY: &[(u64, &str)] = &[
    (caps::DAC_READ_SEARCH, "open_by_handle_at"),
    (
        caps::SYS_ADMIN,
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr \
         lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl \
         quotactl_fd setdomainname sethostname setns syslog umount2 unshare",
    ),
    (caps::SYS_BOOT, "reboot"),
    (caps::SYS_CHROOT, "chroot"),
    (caps::SYS_MODULE, "delete_module init_module finit_module"),
    (caps::SYS_PACCT, "acct"),
    (
        caps::SYS_PTRACE,
        "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    ),
    (caps::SYS_RAWIO, "iopl ioperm"),
    (caps::SYS_TIME, "settimeofday clock_settime"),
    (caps::SYS_TTY_CONFIG, "vhangup"),
    (
        caps::SYS_NICE,
        "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    ),
    (caps::SYSLOG, "syslog"),
    (caps::BPF, "bpf"),
    (caps::PERFMON, "perf_event_open"),
];

/// Tracing one's own processes: before Linux 4.8 it was a way round seccomp.
const SINCE_4_8: &str = "process_vm_readv process_vm_writev ptrace";

const X86_ONLY: &str = "arch_prctl modify_ldt";

/// Address families whose sockets may be opened: first and last of each run. Left out are families that are dead,
/// dangerous, or reach round the network namespace (12 DECnet, 19 Econet, 20 ATM, 23 IrDA, 25 Wanpipe, 34 IUCV,
/// 37 CAIF, 38 the kernel's crypto, 40 the hypervisor's).
const FAMILIES: &[(u64, u64)] = &[
    (0, 11),
    (13, 18),
    (21, 22),
    (24, 24),
    (26, 33),
    (35, 36),
    (39, 39),
    (41, 45),
];

/// Personalities a program may ask for: plain Linux, a 32-bit machine name, a 2.6 kernel version, both of these, and
/// "tell me which I have".
const PERSONALITIES: &[u64] = &[0x0, 0x8, 0x20000, 0x20008, 0xffff_ffff];

/// Namespace flags of `clone`: a member without CAP_SYS_ADMIN makes threads and processes, not namespaces.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

const EPERM: u16 = 1;
const ENOSYS: u16 = 38;

impl Profile {
    /// Docker's default.
    pub fn docker_default() -> Profile {
        let mut rules: Vec<Rule> = ALWAYS
            .iter()
            .map(|names| allow(names, Condition::default()))
            .collect();
        rules.push(allow(
            SINCE_4_8,
            Condition {
                min_kernel: Some((4, 8)),
                ..Condition::default()
            },
        ));
        rules.push(allow(
            X86_ONLY,
            Condition {
                arches: Some(vec![Arch::X86_64]),
                ..Condition::default()
            },
        ));
        rules.extend(BY_CAPABILITY.iter().map(|(caps, names)| {
            allow(
                names,
                Condition {
                    caps: *caps,
                    ..Condition::default()
                },
            )
        }));
        rules.extend(FAMILIES.iter().map(|(first, last)| Rule {
            args: vec![
                test(0, Comparison::GreaterOrEqual, *first),
                test(0, Comparison::LessOrEqual, *last),
            ],
            ..allow("socket", Condition::default())
        }));
        rules.extend(PERSONALITIES.iter().map(|persona| Rule {
            args: vec![test(0, Comparison::Equal, *persona)],
            ..allow("personality", Condition::default())
        }));
        let unprivileged = Condition {
            no_caps: caps::SYS_ADMIN,
            ..Condition::default()
        };
        rules.push(Rule {
            args: vec![test(0, Comparison::MaskedEqual { mask: NEW_NAMESPACES }, 0)],
            ..allow("clone", unprivileged.clone())
        });
        // A filter cannot look at clone3's flags, which lie in memory. ENOSYS makes C libraries fall back to clone.
        rules.push(Rule {
            action: Action::Errno(ENOSYS),
            ..allow("clone3", unprivileged)
        });
        Profile {
            default: Action::Errno(EPERM),
            rules,
            log: false,
        }
    }
}

fn allow(names: &'static str, when: Condition) -> Rule {
    Rule {
        syscalls: names.split_ascii_whitespace().map(Cow::Borrowed).collect(),
        action: Action::Allow,
        args: Vec::new(),
        when,
    }
}

fn test(index: u8, comparison: Comparison, value: u64) -> ArgTest {
    ArgTest {
        index,
        comparison,
        value,
    }
}
