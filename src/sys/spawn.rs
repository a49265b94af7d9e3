//! Starting the init: one `clone3` straight into new namespaces, and an exec.
//!
//! The child shares our memory until its exec and we wait for that (`CLONE_VM | CLONE_VFORK`), so the price does not
//! grow with our memory, and nothing of it is copied to where a member could see it. Between clone and exec the
//! child makes raw system calls only, on a stack of its own, with all signals blocked.

#![allow(unsafe_code)]

use std::{
    arch::asm,
    ffi::{CStr, c_char, c_int, c_void},
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    ptr,
};

/// What to start, and into what.
#[derive(Debug)]
pub struct Spawn<'a> {
    /// The program, by descriptor.
    pub program: BorrowedFd<'a>,
    pub arguments: &'a [&'a CStr],
    /// `CLONE_NEW*` flags.
    pub namespaces: u64,
    /// The version 2 cgroup to be born in.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Text to write to files first: who is who in a user namespace has to be known before an exec in it, or the
    /// exec gives up all rights.
    pub write: &'a [(&'a CStr, &'a CStr)],
    /// Descriptors above 2 that survive the exec, under the same number. Nothing else does.
    pub keep: &'a [RawFd],
}

/// A started child, not yet waited for.
#[derive(Debug)]
pub struct Child {
    pub pidfd: OwnedFd,
    pub pid: i32,
}

/// All that the child needs, in memory it shares with us.
struct Shared {
    program: RawFd,
    arguments: *const *const c_char,
    environment: *const *const c_char,
    write: *const (*const c_char, *const c_char, usize),
    write_count: usize,
    keep: *const RawFd,
    keep_count: usize,
    /// Why the exec failed; written by the child.
    errno: c_int,
}

const STACK_WORDS: usize = 1024;

/// Starts it. When this returns, the exec has happened.
pub fn spawn(spawn: &Spawn<'_>) -> io::Result<Child> {
    let mut arguments: Vec<*const c_char> = spawn.arguments.iter().map(|text| text.as_ptr()).collect();
    arguments.push(ptr::null());
    let environment = [ptr::null()];
    let write: Vec<_> = spawn
        .write
        .iter()
        .map(|(path, text)| (path.as_ptr(), text.as_ptr(), text.to_bytes().len()))
        .collect();
    let mut shared = Shared {
        write: write.as_ptr(),
        write_count: write.len(),
        program: spawn.program.as_raw_fd(),
        arguments: arguments.as_ptr(),
        environment: environment.as_ptr(),
        keep: spawn.keep.as_ptr(),
        keep_count: spawn.keep.len(),
        errno: 0,
    };
    let mut stack = vec![0u128; STACK_WORDS];
    let mut pidfd: c_int = -1;
    let mut flags = spawn.namespaces | (libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD) as u64;
    if spawn.cgroup.is_some() {
        flags |= CLONE_INTO_CGROUP;
    }
    // SAFETY: `clone_args` is plain integers; zero means absent.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags;
    args.pidfd = &raw mut pidfd as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    args.stack = stack.as_mut_ptr() as u64;
    args.stack_size = size_of_val(stack.as_slice()) as u64;
    args.cgroup = spawn.cgroup.map_or(0, |cgroup| cgroup.as_raw_fd() as u64);

    let blocked = BlockedSignals::new()?;
    // SAFETY: the child runs `child` on `stack` with `shared`; all three outlive it, because CLONE_VFORK keeps us
    // in the call until it has made its exec or ended. It touches nothing else of our memory.
    let result = unsafe { clone3(&args, &raw mut shared) };
    drop(blocked);
    drop(stack);
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result as i32));
    }
    // SAFETY: the kernel has put a fresh descriptor there.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let child = Child {
        pidfd,
        pid: result as i32,
    };
    // SAFETY: a plain read of what the child may have written before it ended; volatile, for the compiler has not
    // seen that write.
    match unsafe { ptr::read_volatile(&raw const shared.errno) } {
        0 => Ok(child),
        errno => {
            let _ = super::pidfd::wait(std::os::fd::AsFd::as_fd(&child.pidfd));
            Err(io::Error::from_raw_os_error(errno))
        }
    }
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// # Safety
/// `args` must name a stack and have CLONE_VM and CLONE_VFORK set.
unsafe fn clone3(args: &libc::clone_args, shared: *mut Shared) -> i64 {
    let result: i64;
    // SAFETY: the child comes back from the system call on its own, empty, 16-byte aligned stack with the registers
    // of the caller, calls `child` and never returns; the caller goes on at the label.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") args as *const libc::clone_args,
            in("rsi") size_of::<libc::clone_args>(),
            in("r12") shared,
            in("r13") child as unsafe extern "C" fn(*mut Shared) -> !,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    result
}

/// # Safety
/// Runs in the child, in our memory: raw system calls only, not even `errno` may be touched.
unsafe extern "C" fn child(shared: *mut Shared) -> ! {
    // SAFETY: `shared` and what it points to live until our exec. The calls take numbers and those addresses.
    unsafe {
        let given = &*shared;
        // Belt and braces: everything we open is close-on-exec already.
        raw(
            libc::SYS_close_range,
            [3, u32::MAX as u64, libc::CLOSE_RANGE_CLOEXEC as u64, 0, 0],
        );
        let mut result = 0;
        for i in 0..given.write_count {
            let (path, text, length) = *given.write.add(i);
            let flags = (libc::O_WRONLY | libc::O_CLOEXEC) as u64;
            let file = raw(
                libc::SYS_openat,
                [libc::AT_FDCWD as u64, path as u64, flags, 0, 0],
            );
            result = if file < 0 {
                file
            } else {
                raw(libc::SYS_write, [file as u64, text as u64, length as u64, 0, 0])
            };
            if result < 0 {
                break;
            }
            raw(libc::SYS_close, [file as u64, 0, 0, 0, 0]);
        }
        for i in 0..given.keep_count {
            if result < 0 {
                break;
            }
            let fd = *given.keep.add(i);
            result = raw(libc::SYS_fcntl, [fd as u64, libc::F_SETFD as u64, 0, 0, 0]);
        }
        if result >= 0 {
            result = raw(
                libc::SYS_execveat,
                [
                    given.program as u64,
                    c"".as_ptr() as u64,
                    given.arguments as u64,
                    given.environment as u64,
                    libc::AT_EMPTY_PATH as u64,
                ],
            );
        }
        ptr::write_volatile(&raw mut (*shared).errno, -result as c_int);
        loop {
            raw(libc::SYS_exit, [127, 0, 0, 0, 0]);
        }
    }
}

/// # Safety
/// The arguments must be what that call expects.
unsafe fn raw(number: i64, a: [u64; 5]) -> i64 {
    let result: i64;
    // SAFETY: the convention of x86-64 Linux.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a[0], in("rsi") a[1], in("rdx") a[2], in("r10") a[3], in("r8") a[4],
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// All signals of this thread, blocked until it is dropped: a handler of ours must not run in the child.
struct BlockedSignals(libc::sigset_t);

impl BlockedSignals {
    fn new() -> io::Result<Self> {
        // SAFETY: both sets live until the calls return; `sigfillset` makes the first one valid.
        unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            let mut before: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&raw mut all);
            match libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before) {
                0 => Ok(Self(before)),
                errno => Err(io::Error::from_raw_os_error(errno)),
            }
        }
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // SAFETY: the set is the one that was valid before.
        unsafe {
            libc::pthread_sigmask(
                libc::SIG_SETMASK,
                &raw const self.0,
                ptr::null_mut::<c_void>().cast(),
            )
        };
    }
}
