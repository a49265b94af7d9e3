//! What can be said of a member's program without running it: whether there is room for its arguments, and in words
//! what is wrong with its file.

use std::{io, path::Path};

use rustix::fs::{CWD, Dir, Mode, OFlags};

use super::plan::{Command, Rlimit};
use crate::sys::init_program::Flaw;

/// The C libraries do not agree on its type.
const RLIMIT_STACK: u32 = 3;
/// `MAX_ARG_STRLEN`: the longest argument or variable, with its NUL.
const LONGEST: usize = 32 * 4096;
/// `ARG_MAX`: what there is always room for, all together.
const LEAST_ROOM: u64 = 128 << 10;
/// Three quarters of the stack that a program is given at first; no limit makes more room.
const MOST_ROOM: u64 = 6 << 20;

/// E2BIG, before it is too late for the others of a group: the kernel's own arithmetic. It may need a little more for
/// a script, so the exec has the last word. Variables are named, their values never.
pub(super) fn fits(command: &Command, environment: &[(String, String)], stack: u64) -> Result<(), String> {
    let too_long = |what: String, length: usize| {
        let most = LONGEST - 1;
        Err(format!(
            "{what} has {length} bytes; the kernel takes at most {most} in one"
        ))
    };
    for (number, argument) in command.arguments.iter().enumerate() {
        if argument.len() >= LONGEST {
            return too_long(format!("argument {number} of the command"), argument.len());
        }
    }
    for (name, value) in environment {
        let length = name.len() + 1 + value.len();
        if length >= LONGEST {
            let name: String = name.chars().take(64).collect();
            return too_long(format!("environment variable `{}`", name.escape_debug()), length);
        }
    }
    let room = (stack / 4).clamp(LEAST_ROOM, MOST_ROOM);
    let arguments = command.arguments.iter().map(|argument| argument.len() + 1);
    let variables = environment
        .iter()
        .map(|(name, value)| name.len() + value.len() + 2);
    const POINTER: usize = size_of::<usize>();
    let taken: usize = arguments.chain(variables).map(|length| length + POINTER).sum();
    // The program's own name is there as well.
    let taken = (taken + command.program.len() + 1) as u64;
    match taken > room {
        false => Ok(()),
        true => Err(format!(
            "arguments and environment take {taken} bytes; the kernel takes at most {room} here (a quarter of the \
             stack limit, 6 MiB at most)"
        )),
    }
}

/// The soft stack limit that a command will have: its plan's, else ours, which it inherits.
pub(super) fn stack_limit(limits: &[Rlimit]) -> u64 {
    match limits.iter().find(|limit| limit.resource == RLIMIT_STACK) {
        Some(limit) => limit.soft,
        None => rustix::process::getrlimit(rustix::process::Resource::Stack).current,
    }
    .unwrap_or(u64::MAX)
}

/// Somebody has taught this kernel formats of programs that it does not know by itself (`binfmt_misc`): then nothing
/// can be told from a file. The directory is looked at without having it mounted by that.
pub(super) fn runs_other_formats() -> bool {
    const BINFMT_MISC: i64 = 0x4249_4e4d;
    let path = Path::new("/proc/sys/fs/binfmt_misc");
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let looked = || -> rustix::io::Result<bool> {
        let place = rustix::fs::openat(CWD, path, flags | OFlags::PATH, Mode::empty())?;
        if rustix::fs::fstatfs(&place)?.f_type as i64 != BINFMT_MISC {
            return Ok(false);
        }
        let opened = rustix::fs::openat(place, ".", flags, Mode::empty())?;
        for entry in Dir::new(opened)? {
            let own: [&[u8]; 4] = [b".", b"..", b"register", b"status"];
            if !own.contains(&entry?.file_name().to_bytes()) {
                return Ok(true);
            }
        }
        Ok(false)
    };
    // What cannot be looked at is left to the exec.
    !matches!(looked(), Ok(false) | Err(rustix::io::Errno::NOENT))
}

/// What is wrong with a program, completing "find what runs `x`: …".
pub(super) fn describe(flaw: Flaw, named: &str, error: &io::Error) -> String {
    match flaw {
        Flaw::Empty => "the file is empty".into(),
        Flaw::NoFormat => {
            "it is neither a program nor a script (the first line of a script names what runs it, as \
                           in #!/bin/sh)"
                .into()
        }
        Flaw::Processor(number) => match processor(number) {
            Some(name) => format!("it is made for another processor ({name})"),
            None => format!("it is made for another processor (number {number} in ELF)"),
        },
        Flaw::NoProgram => "it is an ELF file, but no program".into(),
        Flaw::CutOff => "the file is cut off: less of it is there than its headers say".into(),
        Flaw::NoInterpreter => "its first line names nothing that runs it".into(),
        Flaw::Interpreter => format!("`{named}`, which its first line names: {error}"),
        Flaw::Loader => format!("`{named}`, the loader that it needs: {error}"),
        Flaw::BadLoader if named.is_empty() => "what it names as its loader is no name".into(),
        Flaw::BadLoader => format!("`{named}`, the loader that it needs, is none for this processor"),
    }
}

/// The usual ones, by their number in ELF files.
fn processor(number: u16) -> Option<&'static str> {
    Some(match number {
        8 => "MIPS",
        20 => "PowerPC",
        21 => "64-bit PowerPC",
        22 => "IBM Z",
        40 => "32-bit ARM",
        183 => "64-bit ARM",
        243 => "RISC-V",
        258 => "LoongArch",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(arguments: Vec<String>) -> Command {
        Command {
            program: "true".into(),
            arguments,
        }
    }

    fn variable(value: String) -> Vec<(String, String)> {
        vec![("SECRET".into(), value)]
    }

    /// What the kernel says to it.
    fn executes(command: &Command, environment: &[(String, String)]) -> bool {
        let started = std::process::Command::new("/bin/true")
            .args(command.arguments.iter().skip(1))
            .env_clear()
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .status();
        match started {
            Ok(_) => true,
            Err(error) if error.raw_os_error() == Some(libc::E2BIG) => false,
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn l_1_what_is_too_much_is_what_the_kernel_finds_too_much() {
        let stack = stack_limit(&[]);
        let of = |length: usize| "x".repeat(length);
        let cases = [
            (command(vec!["true".into(), of(LONGEST - 1)]), vec![]),
            (command(vec!["true".into(), of(LONGEST)]), vec![]),
            (command(vec!["true".into()]), variable(of(LONGEST - 8))),
            (command(vec!["true".into()]), variable(of(LONGEST - 7))),
            (command(vec![of(1000); 2000]), vec![]),
            (command(vec![of(100_000); 80]), vec![]),
            (command(vec![of(0); 900_000]), vec![]),
        ];
        for (number, (command, environment)) in cases.iter().enumerate() {
            let fits = fits(command, environment, stack);
            assert_eq!(fits.is_ok(), executes(command, environment), "{number}: {fits:?}");
        }
        let told = fits(&cases[3].0, &cases[3].1, stack).unwrap_err();
        assert!(
            told.starts_with("environment variable `SECRET` has ") && !told.contains("xxx"),
            "{told}"
        );
    }

    #[test]
    fn l_1_a_small_stack_leaves_less_room() {
        let given = command(vec!["x".repeat(100_000); 5]);
        assert_eq!(fits(&given, &[], 8 << 20), Ok(()));
        assert_eq!(fits(&given, &[], u64::MAX), Ok(()));
        let told = fits(&given, &[], 1 << 20).unwrap_err();
        assert!(told.contains("at most 262144 here"), "{told}");
        // There is always so much.
        assert_eq!(fits(&command(vec!["x".repeat(100_000)]), &[], 0), Ok(()));
        let limit = Rlimit {
            resource: RLIMIT_STACK,
            soft: Some(5),
            hard: None,
        };
        assert_eq!(stack_limit(&[limit]), 5);
    }
}
