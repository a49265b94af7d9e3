//! Giving back memory that is not needed for now.

#![allow(unsafe_code)]

use std::{fs, io};

/// Takes the program's own text out of our page tables, and gives free heap back. Whatever runs again is mapped again
/// from the page cache, in pieces; what only ran once, such as all that a start needs, stays out.
pub fn trim() -> io::Result<()> {
    let program = fs::read_link("/proc/self/exe")?;
    let program = program.to_string_lossy();
    for line in fs::read_to_string("/proc/self/maps")?.lines() {
        let Some((start, end)) = text_of(line, &program) else {
            continue;
        };
        // SAFETY: a mapping of a file that is executable and not writable holds what the file holds: it has no pages
        // of its own to lose, and the kernel maps the same bytes again when they are next looked at or run.
        let result = unsafe {
            libc::madvise(
                start as *mut libc::c_void,
                end.saturating_sub(start),
                libc::MADV_DONTNEED,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // Other C libraries give back by themselves.
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number and only touches what the allocator itself has free.
    unsafe {
        libc::malloc_trim(0);
    }
    Ok(())
}

/// Start and end of a line of `/proc/self/maps`, if it is text of that program.
fn text_of(line: &str, program: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (range, mode) = (fields.next()?, fields.next()?);
    let (start, end) = range.split_once('-')?;
    if mode != "r-xp" || !line.ends_with(program) {
        return None;
    }
    let number = |hex| usize::from_str_radix(hex, 16).ok();
    Some((number(start)?, number(end)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_programs_own_text_is_meant() {
        let lines = [
            ("55d0-55f0 r-xp 00001000 08:01 77 /bin/p", Some((0x55d0, 0x55f0))),
            ("55d0-55f0 r--p 00001000 08:01 77 /bin/p", None),
            ("55d0-55f0 rwxp 00001000 08:01 77 /bin/p", None),
            ("55d0-55f0 r-xp 00001000 08:01 77 /lib/libc.so", None),
            ("7ffe-7fff r-xp 00000000 00:00 0 [vdso]", None),
            ("", None),
        ];
        for (line, expected) in lines {
            assert_eq!(text_of(line, "/bin/p"), expected, "{line}");
        }
    }

    #[test]
    fn a_trimmed_program_is_smaller_and_goes_on() {
        let resident = || {
            let status = fs::read_to_string("/proc/self/status").unwrap();
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("RssFile:"))
                .unwrap();
            line.trim_end_matches("kB").trim().parse::<u64>().unwrap()
        };
        // Other tests run beside this one and need their text again at once.
        let shrunk = (0..100).any(|_| {
            let before = resident();
            trim().unwrap();
            resident() < before
        });
        assert!(shrunk);
    }
}
