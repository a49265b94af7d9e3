//! What the kernel will make of a program, as far as its first bytes tell. Pure, and shared by the init, which reads
//! the bytes, and the executor, which words what is wrong; so it uses `core` only.
//!
//! Only what no kernel would run is called a flaw. Whatever is uncertain (a 32-bit program, a loader's own needs) is
//! left to the exec itself, which a member's siblings wait for anyhow.

/// As much of a file as the kernel looks at to tell what it is.
pub const HEAD: usize = 256;
/// A program header of a 64-bit file.
pub const SEGMENT: usize = 56;
/// The longest name of a loader, with the NUL that must end it.
pub const LOADER_NAME: usize = 4096;

const PAGE: u64 = 4096;
const X86_64: u16 = 62;
const I386: u16 = 3;

/// Why it cannot be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    Empty,
    /// Neither a script nor anything the kernel knows.
    NoFormat,
    /// Made for another processor, by its number in ELF files.
    Processor(u16),
    /// An ELF file, but a library's part or a core: nothing to start.
    NoProgram,
    /// The file ends before what it says that it holds.
    CutOff,
    /// The first line of a script names nothing.
    NoInterpreter,
    /// What the script names, or the ELF file, is not there or cannot be run; the error tells.
    Interpreter,
    Loader,
    /// What it names as its loader is not a name, or no loader for this processor.
    BadLoader,
}

impl Flaw {
    /// One word for the report: the error in the low 12 bits, then the flaw, then what there is to say of it.
    pub fn word(self, errno: u32) -> u32 {
        let (code, more) = match self {
            Flaw::Empty => (1, 0),
            Flaw::NoFormat => (2, 0),
            Flaw::Processor(number) => (3, number),
            Flaw::NoProgram => (4, 0),
            Flaw::CutOff => (5, 0),
            Flaw::NoInterpreter => (6, 0),
            Flaw::Interpreter => (7, 0),
            Flaw::Loader => (8, 0),
            Flaw::BadLoader => (9, 0),
        };
        errno & 0xfff | code << 12 | (more as u32) << 16
    }

    /// The other way: error, and flaw if there is one.
    pub fn of_word(word: u32) -> (u32, Option<Flaw>) {
        let flaw = match word >> 12 & 0xf {
            1 => Some(Flaw::Empty),
            2 => Some(Flaw::NoFormat),
            3 => Some(Flaw::Processor((word >> 16) as u16)),
            4 => Some(Flaw::NoProgram),
            5 => Some(Flaw::CutOff),
            6 => Some(Flaw::NoInterpreter),
            7 => Some(Flaw::Interpreter),
            8 => Some(Flaw::Loader),
            9 => Some(Flaw::BadLoader),
            _ => None,
        };
        (word & 0xfff, flaw)
    }
}

/// What a file is, and where to look next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A script: its interpreter's name, as a range of the head.
    Script { begin: usize, end: usize },
    /// A 64-bit program of this processor: offset and number of its program headers.
    Program { segments: u64, count: u16 },
    /// For the kernel to tell.
    Uncertain,
}

/// From the first bytes of a file, and its size.
pub fn look(head: &[u8], size: u64) -> Result<Kind, Flaw> {
    match head {
        [] => Err(Flaw::Empty),
        [b'#', b'!', ..] => script(head),
        [0x7f, b'E', b'L', b'F', ..] => program(head, size),
        _ => Err(Flaw::NoFormat),
    }
}

fn script(head: &[u8]) -> Result<Kind, Flaw> {
    let is_space = |byte: u8| matches!(byte, b' ' | b'\t');
    let mut begin = 2;
    while head.get(begin).copied().is_some_and(is_space) {
        begin += 1;
    }
    let mut end = begin;
    while let Some(byte) = head.get(end) {
        if is_space(*byte) || matches!(byte, b'\n' | 0) {
            break;
        }
        end += 1;
    }
    if begin == end {
        return Err(Flaw::NoInterpreter);
    }
    // A name that fills all the kernel looks at may go on.
    match end >= HEAD {
        true => Ok(Kind::Uncertain),
        false => Ok(Kind::Script { begin, end }),
    }
}

fn program(head: &[u8], size: u64) -> Result<Kind, Flaw> {
    let Some(kind) = half(head, 16) else {
        return Err(Flaw::CutOff);
    };
    let Some(processor) = half(head, 18) else {
        return Err(Flaw::CutOff);
    };
    if processor != X86_64 && processor != I386 {
        return Err(Flaw::Processor(processor));
    }
    const EXECUTABLE: u16 = 2;
    const SHARED: u16 = 3;
    if kind != EXECUTABLE && kind != SHARED {
        return Err(Flaw::NoProgram);
    }
    const CLASS_64: u8 = 2;
    if processor != X86_64 || head.get(4) != Some(&CLASS_64) {
        return Ok(Kind::Uncertain);
    }
    let (Some(segments), Some(length), Some(count)) = (word(head, 32), half(head, 54), half(head, 56)) else {
        return Err(Flaw::CutOff);
    };
    if length as usize != SEGMENT || count == 0 {
        return Err(Flaw::NoProgram);
    }
    match segments.checked_add(SEGMENT as u64 * count as u64) {
        Some(end) if end <= size => Ok(Kind::Program { segments, count }),
        _ => Err(Flaw::CutOff),
    }
}

/// One program header: the loader's name as offset and length, if this is where it stands.
pub fn segment(header: &[u8], size: u64) -> Result<Option<(u64, u64)>, Flaw> {
    let (Some(kind), Some(offset), Some(length)) = (double(header, 0), word(header, 8), word(header, 32))
    else {
        return Err(Flaw::CutOff);
    };
    const LOAD: u32 = 1;
    const INTERPRETER: u32 = 3;
    match kind {
        INTERPRETER if length < 2 || length > LOADER_NAME as u64 => Err(Flaw::BadLoader),
        INTERPRETER => match offset.checked_add(length) {
            Some(end) if end <= size => Ok(Some((offset, length))),
            _ => Err(Flaw::CutOff),
        },
        LOAD if length > 0 => {
            // Beyond the last page of a file there is nothing to read, and a signal for who does.
            let there = size.saturating_add(PAGE - 1) / PAGE * PAGE;
            match offset.checked_add(length) {
                Some(end) if end <= there => Ok(None),
                _ => Err(Flaw::CutOff),
            }
        }
        _ => Ok(None),
    }
}

/// The loader itself has to be a program of the same kind.
pub fn loader(head: &[u8]) -> Result<(), Flaw> {
    let processor = match head {
        [0x7f, b'E', b'L', b'F', ..] => half(head, 18),
        _ => None,
    };
    match processor {
        Some(X86_64) => Ok(()),
        _ => Err(Flaw::BadLoader),
    }
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    match bytes.get(at..)? {
        [a, b, ..] => Some(u16::from_le_bytes([*a, *b])),
        _ => None,
    }
}

fn double(bytes: &[u8], at: usize) -> Option<u32> {
    match bytes.get(at..)? {
        [a, b, c, d, ..] => Some(u32::from_le_bytes([*a, *b, *c, *d])),
        _ => None,
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    let (low, high) = (double(bytes, at)?, double(bytes, at.checked_add(4)?)?);
    Some(low as u64 | (high as u64) << 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A 64-bit program with the given headers behind its first 64 bytes.
    fn elf(kind: u16, processor: u16, count: u16) -> Vec<u8> {
        let mut head = vec![0; 64];
        head[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1]);
        head[16..18].copy_from_slice(&kind.to_le_bytes());
        head[18..20].copy_from_slice(&processor.to_le_bytes());
        head[32..40].copy_from_slice(&64u64.to_le_bytes());
        head[54..56].copy_from_slice(&(SEGMENT as u16).to_le_bytes());
        head[56..58].copy_from_slice(&count.to_le_bytes());
        head
    }

    fn header(kind: u32, offset: u64, length: u64) -> Vec<u8> {
        let mut header = vec![0; SEGMENT];
        header[..4].copy_from_slice(&kind.to_le_bytes());
        header[8..16].copy_from_slice(&offset.to_le_bytes());
        header[32..40].copy_from_slice(&length.to_le_bytes());
        header
    }

    #[test]
    fn l_1_what_no_kernel_runs_is_a_flaw_and_what_is_uncertain_is_not() {
        let cases: [(&[u8], Result<Kind, Flaw>); 12] = [
            (b"", Err(Flaw::Empty)),
            (b"echo hello\n", Err(Flaw::NoFormat)),
            (b"\n#!/bin/sh\n", Err(Flaw::NoFormat)),
            (b"#", Err(Flaw::NoFormat)),
            (b"#!", Err(Flaw::NoInterpreter)),
            (b"#! \t\n", Err(Flaw::NoInterpreter)),
            (b"#!/bin/sh", Ok(Kind::Script { begin: 2, end: 9 })),
            (b"#! /bin/sh -e\n", Ok(Kind::Script { begin: 3, end: 10 })),
            (b"#!/bin/sh\r\n", Ok(Kind::Script { begin: 2, end: 10 })),
            (
                &[b"#!".as_slice(), &[b'a'; HEAD - 2]].concat(),
                Ok(Kind::Uncertain),
            ),
            (b"\x7fELF", Err(Flaw::CutOff)),
            (b"MZ", Err(Flaw::NoFormat)),
        ];
        for (head, expected) in cases {
            assert_eq!(look(head, head.len() as u64), expected, "{}", head.escape_ascii());
        }
        let size = 64 + SEGMENT as u64;
        let good = Kind::Program {
            segments: 64,
            count: 1,
        };
        assert_eq!(look(&elf(3, X86_64, 1), size), Ok(good));
        assert_eq!(look(&elf(2, X86_64, 1), size), Ok(good));
        assert_eq!(look(&elf(2, X86_64, 1), size - 1), Err(Flaw::CutOff));
        assert_eq!(look(&elf(2, X86_64, u16::MAX), size), Err(Flaw::CutOff));
        assert_eq!(look(&elf(2, X86_64, 0), size), Err(Flaw::NoProgram));
        assert_eq!(look(&elf(1, X86_64, 1), size), Err(Flaw::NoProgram));
        assert_eq!(look(&elf(3, 183, 1), size), Err(Flaw::Processor(183)));
        assert_eq!(look(&elf(2, I386, 1), size), Ok(Kind::Uncertain));
    }

    #[test]
    fn l_1_segments_have_to_be_in_the_file_as_far_as_pages_go() {
        let loader = |offset, length| segment(&header(3, offset, length), 1000);
        assert_eq!(loader(100, 28), Ok(Some((100, 28))));
        assert_eq!(loader(990, 28), Err(Flaw::CutOff));
        assert_eq!(loader(u64::MAX, 28), Err(Flaw::CutOff));
        assert_eq!(loader(100, 1), Err(Flaw::BadLoader));
        assert_eq!(loader(100, 5000), Err(Flaw::BadLoader));
        let load = |offset, length| segment(&header(1, offset, length), 1000);
        assert_eq!(load(0, 1000), Ok(None));
        // The kernel fills the last page; some linkers count on it.
        assert_eq!(load(0, 4096), Ok(None));
        assert_eq!(load(0, 4097), Err(Flaw::CutOff));
        assert_eq!(load(4096, 0), Ok(None));
        assert_eq!(load(u64::MAX, 2), Err(Flaw::CutOff));
        assert_eq!(segment(&header(6, u64::MAX, u64::MAX), 0), Ok(None));
        assert_eq!(segment(&[0; 20], 1000), Err(Flaw::CutOff));
    }

    #[test]
    fn a_flaw_is_the_same_after_its_way_through_the_report() {
        for flaw in [
            Flaw::Empty,
            Flaw::NoFormat,
            Flaw::Processor(0xffff),
            Flaw::NoProgram,
            Flaw::CutOff,
            Flaw::NoInterpreter,
            Flaw::Interpreter,
            Flaw::Loader,
            Flaw::BadLoader,
        ] {
            assert_eq!(Flaw::of_word(flaw.word(8)), (8, Some(flaw)));
        }
        assert_eq!(Flaw::of_word(2), (2, None));
    }

    #[test]
    fn a_running_program_has_no_flaw() {
        let bytes = std::fs::read("/proc/self/exe").unwrap();
        let size = bytes.len() as u64;
        let Ok(Kind::Program { segments, count }) = look(&bytes[..HEAD], size) else {
            panic!("not a program?");
        };
        for number in 0..count as usize {
            let at = segments as usize + number * SEGMENT;
            segment(&bytes[at..at + SEGMENT], size).unwrap();
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let good = elf(3, X86_64, 1);
        for length in 0..good.len() {
            let _ = look(&good[..length], u64::MAX);
        }
        let mut random = 1u64;
        for _ in 0..20_000 {
            let mut bytes = good.clone();
            for _ in 0..4 {
                random = random
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                let at = (random >> 33) as usize % bytes.len();
                bytes[at] = random as u8;
            }
            let _ = look(&bytes, random);
            let _ = segment(&bytes[..SEGMENT], random);
            let _ = loader(&bytes);
        }
    }
}
