//! Writing scripts for the init: flat lists of system calls, with a sentence for each.
//!
//! Everything is decided and allocated here, before there is a child; what runs there only walks the list. See
//! `sys/init/format.rs` for the form.

use std::{
    borrow::Cow,
    ffi::CString,
    fs::File,
    io::{self, Write},
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    sync::Arc,
};

use rustix::fs::MemfdFlags;

use crate::sys::init_format::{self as format, Header, Op};

/// A place in the script's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Data(u32);

impl Data {
    /// A place further on.
    pub(super) fn plus(self, bytes: u32) -> Self {
        Self(self.0 + bytes)
    }
}

/// The result of an operation, for later ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Register(u8);

#[derive(Debug, Clone, Copy)]
pub(super) enum Arg {
    Value(u64),
    Data(Data),
    Register(Register),
}

impl From<Data> for Arg {
    fn from(data: Data) -> Self {
        Arg::Data(data)
    }
}

impl From<Register> for Arg {
    fn from(register: Register) -> Self {
        Arg::Register(register)
    }
}

impl From<u64> for Arg {
    fn from(value: u64) -> Self {
        Arg::Value(value)
    }
}

impl From<u32> for Arg {
    fn from(value: u32) -> Self {
        Arg::Value(value.into())
    }
}

/// Signed numbers are extended, as the kernel expects of `AT_FDCWD` or -1.
impl From<i32> for Arg {
    fn from(value: i32) -> Self {
        Arg::Value(value as i64 as u64)
    }
}

/// What a failing step is called: completed to "member `web`: STEP: No such file or directory".
pub(super) type Step = Cow<'static, str>;

/// A descriptor that the script uses: it has to live until the child has been started.
#[derive(Debug)]
enum Kept {
    Owned(OwnedFd),
    Shared(Arc<OwnedFd>),
}

impl Kept {
    fn raw(&self) -> RawFd {
        match self {
            Kept::Owned(fd) => fd.as_raw_fd(),
            Kept::Shared(fd) => fd.as_raw_fd(),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Script {
    ops: Vec<Op>,
    steps: Vec<Step>,
    /// Starts at the offset of the header's end.
    data: Vec<u8>,
    /// Offsets of addresses within the data.
    places: Vec<u32>,
    registers: u8,
    kept: Vec<Kept>,
}

/// Everything a child needs to walk it.
#[derive(Debug)]
pub(super) struct Finished {
    pub image: OwnedFd,
    pub steps: Vec<Step>,
    kept: Vec<Kept>,
}

impl Finished {
    pub(super) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.kept.iter().map(Kept::raw)
    }
}

const HEADER_SIZE: usize = size_of::<Header>();

impl Script {
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Data {
        while !self.data.len().is_multiple_of(8) {
            self.data.push(0);
        }
        let at = Data((HEADER_SIZE + self.data.len()) as u32);
        self.data.extend_from_slice(bytes);
        at
    }

    pub(super) fn words(&mut self, words: &[u64]) -> Data {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        self.bytes(&bytes)
    }

    pub(super) fn text(&mut self, text: &str) -> io::Result<Data> {
        self.c_string(text.as_bytes())
    }

    pub(super) fn path(&mut self, path: &Path) -> io::Result<Data> {
        self.c_string(path.as_os_str().as_bytes())
    }

    fn c_string(&mut self, bytes: &[u8]) -> io::Result<Data> {
        let text = CString::new(bytes).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        Ok(self.bytes(text.as_bytes_with_nul()))
    }

    /// An array of addresses, with a null behind.
    pub(super) fn pointers(&mut self, pointers: &[Data]) -> Data {
        let offsets: Vec<u64> = pointers.iter().map(|data| data.0.into()).chain([0]).collect();
        let at = self.words(&offsets);
        self.places
            .extend((0..pointers.len() as u32).map(|i| at.0 + 8 * i));
        at
    }

    /// Words of which the ones at the given indices are addresses.
    pub(super) fn structure(&mut self, words: &[u64], addresses: &[(usize, Data)]) -> Data {
        let mut words = words.to_vec();
        for &(index, data) in addresses {
            if let Some(word) = words.get_mut(index) {
                *word = data.0.into();
            }
        }
        let at = self.words(&words);
        self.places
            .extend(addresses.iter().map(|&(index, _)| at.0 + 8 * index as u32));
        at
    }

    /// Hands a descriptor over to the child; it has the same number there.
    pub(super) fn keep(&mut self, fd: OwnedFd) -> RawFd {
        let raw = fd.as_raw_fd();
        self.kept.push(Kept::Owned(fd));
        raw
    }

    pub(super) fn keep_shared(&mut self, fd: &Arc<OwnedFd>) -> RawFd {
        self.kept.push(Kept::Shared(Arc::clone(fd)));
        fd.as_raw_fd()
    }

    /// Adds an operation whose result is not needed.
    pub(super) fn call(&mut self, step: impl Into<Step>, number: i64, args: &[Arg]) -> &mut Op {
        let mut op = Op {
            number: number as i32,
            out: format::NO_REGISTER,
            ..Op::default()
        };
        for (i, arg) in args.iter().enumerate().take(6) {
            let (kind, value) = match *arg {
                Arg::Value(value) => (format::VALUE, value),
                Arg::Register(register) => (format::REGISTER, register.0.into()),
                Arg::Data(data) => (ADDRESS, data.0.into()),
            };
            op.kinds[i] = kind;
            op.args[i] = value;
        }
        self.steps.push(step.into());
        self.ops.push(op);
        let last = self.ops.len() - 1;
        &mut self.ops[last]
    }

    /// Adds an operation and keeps its result.
    pub(super) fn open(&mut self, step: impl Into<Step>, number: i64, args: &[Arg]) -> Register {
        // Results of a member with very many mounts take turns; each is used right after it was made, except the
        // few that `reserve` sets apart.
        let register = RESERVED + self.registers % (format::REGISTERS as u8 - RESERVED);
        self.registers = self.registers.wrapping_add(1);
        self.call(step, number, args).out = register;
        Register(register)
    }

    /// Like `open`, into a register that stays: there are [`RESERVED`] of them.
    pub(super) fn open_in(
        &mut self,
        slot: Slot,
        step: impl Into<Step>,
        number: i64,
        args: &[Arg],
    ) -> Register {
        self.call(step, number, args).out = slot as u8;
        Register(slot as u8)
    }

    /// The last operation may fail so; the next `skip` ones are left out then.
    pub(super) fn tolerate_last(&mut self, errors: [i32; 2], skip: u8) {
        if let Some(op) = self.ops.last_mut() {
            op.tolerated = errors.map(|errno| errno as u16);
            op.skip = skip;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ops.len()
    }

    /// Completes an operation with what is known only later.
    pub(super) fn set_argument(&mut self, op: usize, argument: usize, value: u64) {
        if let Some(word) = self.ops.get_mut(op).and_then(|op| op.args.get_mut(argument)) {
            *word = value;
        }
    }

    /// Replaces the named steps by nothing. For tests.
    pub(super) fn leave_out(&mut self, steps: &[&str]) {
        for (op, step) in self.ops.iter_mut().zip(&self.steps) {
            if steps.contains(&step.as_ref()) {
                op.number = libc::SYS_getpid as i32;
            }
        }
    }

    pub(super) fn finish(mut self, report: RawFd, gate: RawFd, status: RawFd) -> io::Result<Finished> {
        while !self.data.len().is_multiple_of(8) {
            self.data.push(0);
        }
        let ops = HEADER_SIZE + self.data.len();
        let places = ops + self.ops.len() * size_of::<Op>();
        for (i, op) in self.ops.iter_mut().enumerate() {
            let args = ops + i * size_of::<Op>() + std::mem::offset_of!(Op, args);
            for (j, kind) in op.kinds.iter_mut().enumerate() {
                if *kind == ADDRESS {
                    *kind = format::VALUE;
                    self.places.push((args + 8 * j) as u32);
                }
            }
        }
        let header = Header {
            magic: format::MAGIC,
            op_count: self.ops.len() as u32,
            ops: ops as u32,
            place_count: self.places.len() as u32,
            places: places as u32,
            report,
            gate,
            status,
        };
        let mut image = Vec::with_capacity(places + 4 * self.places.len());
        image.extend(header_bytes(&header));
        image.extend_from_slice(&self.data);
        for op in &self.ops {
            image.extend(op_bytes(op));
        }
        image.extend(self.places.iter().flat_map(|place| place.to_ne_bytes()));

        let file = rustix::fs::memfd_create(c"podling-script", MemfdFlags::CLOEXEC)?;
        let mut file = File::from(file);
        file.write_all(&image)?;
        Ok(Finished {
            image: file.into(),
            steps: self.steps,
            kept: self.kept,
        })
    }
}

/// Registers with a name.
#[derive(Debug, Clone, Copy)]
pub(super) enum Slot {
    Root = 0,
    Proc = 1,
    Sys = 2,
    Dev = 3,
    Program = 4,
    Terminals = 5,
    Sandbox = 6,
    HostProc = 7,
    Cgroups = 8,
}

impl Register {
    /// One that keeps its value.
    pub(super) fn of(slot: Slot) -> Self {
        Self(slot as u8)
    }
}

const RESERVED: u8 = 9;

/// While a script is written: an argument that is an offset and becomes an address.
const ADDRESS: u8 = 2;

fn header_bytes(header: &Header) -> impl Iterator<Item = u8> {
    let Header {
        magic,
        op_count,
        ops,
        place_count,
        places,
        report,
        gate,
        status,
    } = *header;
    let words = [
        magic,
        op_count,
        ops,
        place_count,
        places,
        report as u32,
        gate as u32,
        status as u32,
    ];
    words.into_iter().flat_map(u32::to_ne_bytes)
}

fn op_bytes(op: &Op) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size_of::<Op>());
    bytes.extend(op.number.to_ne_bytes());
    bytes.extend(op.kinds);
    bytes.extend([op.out, op.skip]);
    bytes.extend(op.tolerated.iter().flat_map(|errno| errno.to_ne_bytes()));
    bytes.extend(op.args.iter().flat_map(|arg| arg.to_ne_bytes()));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_has_no_padding_that_the_writer_forgets() {
        assert_eq!(op_bytes(&Op::default()).len(), size_of::<Op>());
        assert_eq!(header_bytes(&Header::default()).count(), size_of::<Header>());
    }
}
