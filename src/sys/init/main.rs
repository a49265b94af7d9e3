//! The init of a member: the first process of its container, and the only code of ours that a member shares a pid
//! namespace with.
//!
//! The executor starts it from a sealed, anonymous file with nothing of its own memory in it. It reads a script,
//! carries out one system call after the other, becomes two processes where the script says so, and then only
//! reaps, forwards signals and passes on how its child ended. All decisions were made by the executor; what can go
//! wrong here is told as (operation, errno).
//!
//! Not part of the library: `build.rs` compiles it alone, without `std`, allocation or panics with text.

#![no_std]
#![no_main]
#![allow(unsafe_code)]
#![deny(clippy::undocumented_unsafe_blocks)]

#[allow(dead_code)] // the other half is the writer's
mod format;
#[allow(dead_code)] // so it is here
mod program;

use core::{arch::asm, ffi::CStr, mem::size_of, ptr};

use format::*;
use program::{Flaw, Kind};

#[cfg(not(target_arch = "x86_64"))]
compile_error!("podling's init knows the system call convention of x86-64 only");

// System call numbers of x86-64.
const READ: i64 = 0;
const WRITE: i64 = 1;
const CLOSE: i64 = 3;
const FSTAT: i64 = 5;
const LSEEK: i64 = 8;
const MMAP: i64 = 9;
const MUNMAP: i64 = 11;
const RT_SIGACTION: i64 = 13;
const PREAD64: i64 = 17;
const ACCESS: i64 = 21;
const DUP2: i64 = 33;
const CLONE: i64 = 56;
const WAIT4: i64 = 61;
const KILL: i64 = 62;
const GETCWD: i64 = 79;
const FCHMOD: i64 = 91;
const PTRACE: i64 = 101;
const RT_SIGTIMEDWAIT: i64 = 128;
const EXIT_GROUP: i64 = 231;
const OPENAT: i64 = 257;
const MKDIRAT: i64 = 258;
const NEWFSTATAT: i64 = 262;
const CLOSE_RANGE: i64 = 436;
const OPENAT2: i64 = 437;

const EINTR: i64 = 4;
const ENOENT: i64 = 2;
const ENOEXEC: i64 = 8;
const ENOMEM: i64 = 12;
const EACCES: i64 = 13;
const EEXIST: i64 = 17;
const ENOTDIR: i64 = 20;
const EINVAL: i64 = 22;
const ELOOP: i64 = 40;
const EXDEV: i64 = 18;

const SIGCHLD: i64 = 17;
const CLONE_PARENT: i64 = 0x8000;
const AT_FDCWD: i64 = -100;

core::arch::global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {start}",
    "ud2",
    start = sym start,
);

/// One system call.
///
/// # Safety
/// The arguments must be what that call expects: valid addresses where it reads or writes memory.
unsafe fn call(number: i64, a: [u64; 6]) -> i64 {
    let result;
    // SAFETY: the convention of x86-64 Linux; the kernel clobbers rcx and r11 only. Memory is covered by the
    // caller's promise.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a[0], in("rsi") a[1], in("rdx") a[2], in("r10") a[3], in("r8") a[4], in("r9") a[5],
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    result
}

macro_rules! sys {
    ($number:expr $(, $arg:expr)*) => {{
        let given = [$($arg as u64),*];
        let mut all = [0u64; 6];
        let mut i = 0;
        while i < given.len() && i < 6 {
            all[i] = given[i];
            i += 1;
        }
        call($number, all)
    }};
}

/// # Safety
/// Called once by `_start`, with the stack as the kernel made it.
unsafe extern "C" fn start(stack: *const usize) -> ! {
    // SAFETY: at the top of a new stack lie argc, the argv pointers, and a null; argv strings end with NUL.
    unsafe {
        if *stack < 2 {
            exit(125);
        }
        let mut fd = 0i64;
        for digit in CStr::from_ptr(*stack.add(2) as *const core::ffi::c_char).to_bytes() {
            fd = fd
                .wrapping_mul(10)
                .wrapping_add((*digit).wrapping_sub(b'0') as i64);
        }
        let length = sys!(LSEEK, fd, 0, 2);
        if length < size_of::<Header>() as i64 {
            exit(125);
        }
        // Private and writable: addresses are filled in, and nobody else sees it.
        let base = sys!(MMAP, 0, length, 3, 2, fd, 0);
        if base < 0 {
            exit(125);
        }
        sys!(CLOSE, fd);
        let header = *(base as *const Header);
        if header.magic != MAGIC {
            exit(125);
        }
        run(&header, base as *mut u8, length as u64)
    }
}

fn exit(code: u64) -> ! {
    loop {
        // SAFETY: takes no address and does not return.
        unsafe { sys!(EXIT_GROUP, code) };
    }
}

/// # Safety
/// `base` is a mapped, well-formed script: made by `container::script`, which checks every offset.
unsafe fn run(header: &Header, base: *mut u8, length: u64) -> ! {
    let mut registers = [0u64; REGISTERS];
    // SAFETY: offsets, counts and alignment are the builder's promise.
    unsafe {
        let places = base.add(header.places as usize) as *const u32;
        for i in 0..header.place_count as usize {
            let word = base.add(*places.add(i) as usize) as *mut u64;
            *word = (*word).wrapping_add(base as u64);
        }
        let ops = base.add(header.ops as usize) as *const Op;
        let (mut at, mut end) = (0u32, header.op_count);
        let (mut task, mut hands_over) = (0i64, false);
        let mut seized = false;
        while at < end {
            let op = &*ops.add(at as usize);
            let mut args = op.args;
            for (kind, arg) in op.kinds.iter().zip(args.iter_mut()) {
                if *kind == REGISTER {
                    *arg = registers[*arg as usize % REGISTERS];
                }
            }
            let result = match op.number {
                // An ordinary fork.
                FORK => match sys!(CLONE, SIGCHLD) {
                    0 => {
                        at += args[0] as u32;
                        0
                    }
                    child => {
                        if child > 0 {
                            (task, hands_over) = (child, args[1] != 0);
                            end = at + 1 + args[0] as u32;
                        }
                        child
                    }
                },
                HAND_OVER => hand_over(header, args[0] as u32),
                CLOSE_REST => close_rest(header),
                WAIT => wait(header, args[0]),
                TELL => tell(header, REACHED, args[0] as u32, args[1] as u32),
                TARGET => target(args),
                RESOLVE => resolve(args[0] as *const *const u8),
                CHECK_CWD => check_cwd(),
                CHECK_PROGRAM => check_program(header, at, args[0] as *const u8),
                SEIZE => {
                    let result = seize(header, task, hands_over, args[0] as u32);
                    seized = result == 0;
                    0
                }
                HOLD if seized => match hold(header, task, hands_over, args[0] as u32, args[1]) {
                    held if held > 0 => stay(header, base, length, held, false, true),
                    error => error,
                },
                HOLD => 0,
                STAY => stay(header, base, length, -1, false, false),
                DEFAULT_SIGNALS => default_signals(),
                STORE => {
                    *(args[0] as *mut u32) = args[1] as u32;
                    0
                }
                number => call(number as i64, args),
            };
            if result < 0 && result > -4096 {
                let errno = (-result) as u16;
                if !op.tolerated.contains(&errno) {
                    tell(header, FAILED, at, errno as u32);
                    exit(127);
                }
                at += op.skip as u32;
            } else if op.out != NO_REGISTER {
                registers[op.out as usize % REGISTERS] = result as u64;
            }
            at += 1;
        }
        match task {
            0 => exit(125),
            task => stay(header, base, length, task, hands_over, false),
        }
    }
}

/// # Safety
/// `header` describes open descriptors or ones that may be written to in vain.
unsafe fn tell(header: &Header, kind: u32, step: u32, value: u32) -> i64 {
    let record = Record { kind, step, value };
    // SAFETY: the record lives until the call returns.
    unsafe { sys!(WRITE, header.report as i64, &raw const record, RECORD_SIZE) }
}

/// Only what is in a process namespace from its birth is ever seen in it: so this process, which is not, has given up
/// all that the task must not have, and its sibling starts from there. Nobody in there ever saw more of us than that.
///
/// # Safety
/// See [`tell`].
unsafe fn hand_over(header: &Header, tell_as: u32) -> i64 {
    // SAFETY: a fork, only that the parent of the new process is ours.
    match unsafe { sys!(CLONE, CLONE_PARENT | SIGCHLD) } {
        child if child > 0 => {
            // SAFETY: as for any record.
            unsafe { tell(header, REACHED, tell_as, child as u32) };
            exit(0)
        }
        other => other,
    }
}

/// # Safety
/// The script needs no other descriptors any more.
unsafe fn close_rest(header: &Header) -> i64 {
    let (a, b) = (header.report as u32, header.gate as u32);
    let mut first = 3;
    for kept in [a.min(b), a.max(b), u32::MAX] {
        // SAFETY: numbers only.
        let result = match kept > first {
            true => unsafe { sys!(CLOSE_RANGE, first, kept - 1, 0) },
            false => 0,
        };
        if result < 0 {
            return result;
        }
        first = first.max(kept.saturating_add(1));
    }
    0
}

/// From here on the task does not outlive us, and stops at the end of its exec, before the first instruction of what
/// it runs. It comes before we give up the right to it: what is remembered is who we are now, and whoever is traced by
/// somebody of little rights gains none from a set-user-id program.
unsafe fn seize(header: &Header, task: i64, hands_over: bool, tell_as: u32) -> i64 {
    const PTRACE_SEIZE: i64 = 0x4206;
    // Whoever the first child makes is traced from its birth, by whom the first child is.
    const TRACEFORK: u64 = 1 << 1;
    const TRACEEXEC: u64 = 1 << 4;
    const EXITKILL: u64 = 1 << 20;
    let options = TRACEEXEC | EXITKILL | if hands_over { TRACEFORK } else { 0 };
    // SAFETY: numbers only.
    let result = unsafe { sys!(PTRACE, PTRACE_SEIZE, task, 0, options) };
    // SAFETY: as for any record.
    unsafe { tell(header, REACHED, tell_as, -result as u32) };
    result
}

/// Waits for the task's exec, tells of it, and comes back with its number when that byte is at the gate.
unsafe fn hold(header: &Header, first: i64, hands_over: bool, tell_as: u32, expected: u64) -> i64 {
    const PTRACE_CONT: i64 = 7;
    const EVENT_EXEC: i32 = 4;
    let task = loop {
        let mut status = 0i32;
        // SAFETY: the kernel writes four bytes to `status`, which lives until it is told.
        unsafe {
            let pid = sys!(WAIT4, -1i64, &raw mut status, 0x4000_0000, 0);
            if pid == -EINTR {
                continue;
            }
            if pid < 0 {
                return pid;
            }
            if status & 0x7f != 0x7f {
                // It has handed over.
                if pid == first && hands_over && status == 0 {
                    continue;
                }
                sys!(WRITE, header.status as i64, &raw const status, 4);
                exit(0);
            }
            let (event, signal) = (status >> 16, status >> 8 & 0xff);
            if event == EVENT_EXEC {
                break pid;
            }
            // Signals from elsewhere are its own affair; other stops are over before it begins.
            sys!(PTRACE, PTRACE_CONT, pid, 0, if event == 0 { signal } else { 0 });
        }
    };
    // SAFETY: as for any record.
    unsafe {
        tell(header, REACHED, tell_as, 0);
        match wait(header, expected) {
            0 => task,
            error => error,
        }
    }
}

/// Waits for one given byte. The end of the gate means the executor gave us up: then nothing of ours may go on.
unsafe fn wait(header: &Header, expected: u64) -> i64 {
    let mut byte = 0u8;
    loop {
        // SAFETY: one byte into a byte that lives until the call returns.
        match unsafe { sys!(READ, header.gate as i64, &raw mut byte, 1) } {
            1 if byte as u64 == expected => return 0,
            1 => return -EINVAL,
            result if result == -EINTR => {}
            result if result < 0 => return result,
            _ => exit(0),
        }
    }
}

/// The init's own life: reap everything, forward signals, and end with the task. If that is what a first child
/// hands over to, its number is not known here: signals are not for us to forward then, and what ends is the task
/// unless it is that first child, which ends well once there is a task. One that is held begins now.
unsafe fn stay(header: &Header, base: *mut u8, length: u64, task: i64, hands_over: bool, held: bool) -> ! {
    const PTRACE_DETACH: i64 = 17;
    // SAFETY: descriptors by number; the script is not used again after it is unmapped (the header is a copy).
    unsafe {
        // What was needed to start the task, secrets in its environment among it, is not kept here.
        sys!(DUP2, header.status as i64, 0);
        sys!(CLOSE_RANGE, 1, u32::MAX, 0);
        sys!(MUNMAP, base, length);
        if held {
            // If it is not there any more, that is seen below.
            sys!(PTRACE, PTRACE_DETACH, task, 0, 0);
        }
    }
    let all = u64::MAX;
    loop {
        // SAFETY: the set is eight bytes and lives on; the information is not asked for.
        let signal = unsafe { sys!(RT_SIGTIMEDWAIT, &raw const all, 0, 0, 8) };
        if signal == SIGCHLD {
            loop {
                let mut status = 0i32;
                // SAFETY: the kernel writes four bytes to `status`.
                let pid = unsafe { sys!(WAIT4, -1i64, &raw mut status, 1 | 0x4000_0000, 0) };
                if pid <= 0 {
                    break;
                }
                if pid == task && hands_over && status == 0 {
                    continue;
                }
                if pid == task || hands_over {
                    // SAFETY: four bytes that live until the call returns.
                    unsafe { sys!(WRITE, 0, &raw const status, 4) };
                    exit(0);
                }
            }
        } else if signal > 0 && task > 0 && !hands_over {
            // SAFETY: numbers only.
            unsafe { sys!(KILL, task, signal) };
        }
    }
}

/// Signals that the executor ignores would stay ignored over an exec.
unsafe fn default_signals() -> i64 {
    let default = [0u64; 4];
    for signal in 1..=64u64 {
        // SAFETY: the kernel's form of a default action is 32 bytes of zeros. SIGKILL and SIGSTOP refuse; no matter.
        unsafe { sys!(RT_SIGACTION, signal, &raw const default, 0, 8) };
    }
    0
}

#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

const O_PATH: u64 = 0o10000000;
const O_CLOEXEC: u64 = 0o2000000;
const O_CREAT: u64 = 0o100;
const O_EXCL: u64 = 0o200;
const O_NONBLOCK: u64 = 0o4000;
const O_NOFOLLOW: u64 = 0o400000;
const O_DIRECTORY: u64 = 0o200000;
const O_WRONLY: u64 = 1;
const RESOLVE_NO_MAGICLINKS: u64 = 2;
const RESOLVE_NO_SYMLINKS: u64 = 4;
const RESOLVE_IN_ROOT: u64 = 16;

unsafe fn open_in_root(root: u64, path: *const u8, flags: u64, plain: bool) -> i64 {
    let links = if plain { RESOLVE_NO_SYMLINKS } else { 0 };
    let how = OpenHow {
        flags: flags | O_CLOEXEC,
        mode: 0,
        resolve: RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | links,
    };
    // SAFETY: `path` ends with NUL by the caller's promise; `how` lives until the call returns.
    unsafe { sys!(OPENAT2, root, path, &raw const how, size_of::<OpenHow>()) }
}

/// Opens `path` below `root`, one component after the other, and makes what is missing. Every step is taken from a
/// descriptor and resolved in the root, so that it does not matter who renames what inside meanwhile.
unsafe fn target([root, path, kind, mode, ..]: [u64; 6]) -> i64 {
    let path = path as *mut u8;
    let plain = kind == TARGET_PLAIN_DIRECTORY;
    let mut parent = root;
    let mut begin = 0usize;
    // SAFETY: the path is in our private mapping, writable, ends with NUL, is relative, and has neither empty nor
    // dot components; the builder made it so. It is cut after a component while that one is looked at.
    unsafe {
        loop {
            let mut end = begin;
            while *path.add(end) != 0 && *path.add(end) != b'/' {
                end += 1;
            }
            let separator = *path.add(end);
            *path.add(end) = 0;
            let name = path.add(begin);
            let last = separator == 0;
            let directory = !last || kind != TARGET_FILE;
            // All of the path so far, from the root: a link inside it may lead elsewhere, but not out.
            let flags = O_PATH | if directory { O_DIRECTORY } else { 0 };
            let mut found = open_in_root(root, path, flags, plain);
            if found == -ENOENT {
                let made = if directory {
                    sys!(MKDIRAT, parent, name, mode)
                } else {
                    let how = OpenHow {
                        flags: O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC,
                        mode: 0o644,
                        resolve: RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
                    };
                    let file = sys!(OPENAT2, parent, name, &raw const how, size_of::<OpenHow>());
                    if file >= 0 {
                        sys!(FCHMOD, file, 0o644);
                        sys!(CLOSE, file);
                    }
                    file
                };
                if made < 0 && made != -EEXIST {
                    return made;
                }
                found = open_in_root(root, path, flags, plain);
                // A link that leads nowhere: neither there nor to be made.
                if found == -ENOENT && made == -EEXIST {
                    return -ELOOP;
                }
            }
            if parent != root {
                sys!(CLOSE, parent);
            }
            if found < 0 {
                return found;
            }
            if last {
                return found;
            }
            *path.add(end) = separator;
            parent = found as u64;
            begin = end + 1;
        }
    }
}

/// Like a shell: the first candidate that is an executable file; else "permission denied" if one came near, else
/// the last error.
unsafe fn resolve(list: *const *const u8) -> i64 {
    let mut worst = -ENOENT;
    let mut i = 0;
    loop {
        // SAFETY: the list ends with a null; the builder made it so.
        let candidate = unsafe { *list.add(i) };
        if candidate.is_null() {
            return worst;
        }
        let mut status = [0u64; 18];
        // SAFETY: `struct stat` is 144 bytes on x86-64; the path ends with NUL.
        let result = unsafe { sys!(NEWFSTATAT, AT_FDCWD, candidate, &raw mut status, 0) };
        if result == 0 {
            // st_mode is the 32-bit word at offset 24.
            let regular = status[3] as u32 & 0o170000 == 0o100000;
            // SAFETY: as above.
            match unsafe { sys!(ACCESS, candidate, 1) } {
                0 if regular => return candidate as i64,
                0 => worst = -EACCES,
                error if worst != -EACCES => worst = error,
                _ => {}
            }
        } else if worst != -EACCES && result != -ENOTDIR {
            worst = result;
        }
        i += 1;
    }
}

/// The kernel finds out only in the exec what cannot be run; some of that can be told before, and better. What cannot
/// be read cannot be checked.
unsafe fn check_program(header: &Header, step: u32, path: *const u8) -> i64 {
    let mut head = [0u8; program::HEAD];
    // SAFETY: the path ends with NUL; reads go to buffers of the lengths given.
    unsafe {
        let file = sys!(OPENAT, AT_FDCWD, path, O_CLOEXEC | O_NONBLOCK, 0);
        if file < 0 {
            return 0;
        }
        let found = flaw_of(header, file, &mut head);
        sys!(CLOSE, file);
        match found {
            None => 0,
            Some((flaw, errno)) => {
                tell(header, FAILED, step, flaw.word(errno as u32));
                exit(127)
            }
        }
    }
}

/// Its flaw, and the error that goes with it.
unsafe fn flaw_of(header: &Header, file: i64, head: &mut [u8; program::HEAD]) -> Option<(Flaw, i64)> {
    // SAFETY: as for all reads: into buffers of the lengths given. Names end with NUL, and are told with the lengths
    // that they have.
    unsafe {
        let mut status = [0u64; 18];
        if sys!(FSTAT, file, &raw mut status) < 0 {
            return None;
        }
        let length = sys!(PREAD64, file, head.as_mut_ptr(), program::HEAD, 0);
        if length < 0 {
            return None;
        }
        // st_size is the word at offset 48.
        let size = status[6];
        let (segments, count) = match program::look(head.get(..length as usize)?, size) {
            Err(flaw) => return Some((flaw, ENOEXEC)),
            Ok(Kind::Uncertain) => return None,
            Ok(Kind::Script { begin, end }) => {
                *head.get_mut(end)? = 0;
                let name = head.get(begin..end)?;
                return match sys!(ACCESS, name.as_ptr(), 1) {
                    error if error < 0 => {
                        name_it(header, name);
                        Some((Flaw::Interpreter, -error))
                    }
                    _ => None,
                };
            }
            Ok(Kind::Program { segments, count }) => (segments, count),
        };
        let mut name = None;
        for number in 0..count as u64 {
            let mut segment = [0u8; program::SEGMENT];
            let at = segments.wrapping_add(number.wrapping_mul(program::SEGMENT as u64));
            if sys!(PREAD64, file, segment.as_mut_ptr(), program::SEGMENT, at) != program::SEGMENT as i64 {
                return None;
            }
            match program::segment(&segment, size) {
                Err(flaw) => return Some((flaw, ENOEXEC)),
                // The kernel takes the first.
                Ok(Some(place)) if name.is_none() => name = Some(place),
                Ok(_) => {}
            }
        }
        match name {
            Some((offset, length)) => flaw_of_loader(header, file, offset, length),
            None => None,
        }
    }
}

unsafe fn flaw_of_loader(header: &Header, file: i64, offset: u64, length: u64) -> Option<(Flaw, i64)> {
    let mut name = [0u8; program::LOADER_NAME];
    // SAFETY: as above.
    unsafe {
        let name = name.get_mut(..length as usize)?;
        if sys!(PREAD64, file, name.as_mut_ptr(), length, offset) != length as i64 {
            return None;
        }
        let [text @ .., 0] = &*name else {
            return Some((Flaw::BadLoader, ENOEXEC));
        };
        let error = sys!(ACCESS, text.as_ptr(), 1);
        if error < 0 {
            name_it(header, text);
            return Some((Flaw::Loader, -error));
        }
        let loader = sys!(OPENAT, AT_FDCWD, text.as_ptr(), O_CLOEXEC | O_NONBLOCK, 0);
        if loader < 0 {
            return None;
        }
        let mut head = [0u8; 64];
        let length = sys!(PREAD64, loader, head.as_mut_ptr(), 64, 0);
        sys!(CLOSE, loader);
        match program::loader(head.get(..length as usize)?) {
            Ok(()) => None,
            Err(flaw) => {
                name_it(header, text);
                Some((flaw, ENOEXEC))
            }
        }
    }
}

/// Tells the name that the next failure is about. In one piece: somebody else may be telling something, too.
unsafe fn name_it(header: &Header, name: &[u8]) {
    let name = match name.get(..NAME_LENGTH) {
        Some(begin) => begin,
        None => name,
    };
    let mut told = [0u8; RECORD_SIZE + NAME_LENGTH];
    for (at, word) in [NAMED, 0, name.len() as u32].iter().enumerate() {
        if let Some(place) = told.get_mut(4 * at..4 * at + 4) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
    }
    if let Some(place) = told.get_mut(RECORD_SIZE..RECORD_SIZE + name.len()) {
        place.copy_from_slice(name);
    }
    // SAFETY: what is told lives until the call returns.
    unsafe { sys!(WRITE, header.report as i64, told.as_ptr(), RECORD_SIZE + name.len()) };
}

/// A working directory outside the root reads "(unreachable)/…": then some descriptor or link led out.
unsafe fn check_cwd() -> i64 {
    let mut path = [0u8; 4096];
    // SAFETY: the kernel writes at most the given length.
    let length = unsafe { sys!(GETCWD, &raw mut path, 4096) };
    match length {
        error if error < 0 => error,
        0 => -ENOMEM,
        _ if path[0] == b'/' => 0,
        _ => -EXDEV,
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    exit(125)
}

// The compiler may ask for these; there is no C library here.

/// # Safety
/// As in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    // SAFETY: the caller's promise; `rep movsb` needs the direction flag clear, which the ABI guarantees.
    unsafe {
        asm!("rep movsb", inout("rcx") length => _, inout("rdi") to => _, inout("rsi") from => _,
             options(nostack, preserves_flags));
    }
    to
}

/// # Safety
/// As in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memset(to: *mut u8, byte: i32, length: usize) -> *mut u8 {
    // SAFETY: as for `memcpy`.
    unsafe {
        asm!("rep stosb", inout("rcx") length => _, inout("rdi") to => _, in("al") byte as u8,
             options(nostack, preserves_flags));
    }
    to
}

/// # Safety
/// As in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut length = 0;
    // SAFETY: the caller's promise: NUL-terminated. Volatile, so that this is not compiled into a call of itself.
    while unsafe { ptr::read_volatile(text.add(length)) } != 0 {
        length += 1;
    }
    length
}
