//! The form of a script: what the executor writes and the init reads. Shared by both, so it uses `core` only.
//!
//! A script is one flat memory image: a header, the operations, a list of places that hold addresses, and data.
//! Addresses are written as offsets from its start; the init adds where it mapped the image.

/// Says that this is a script, and of which form.
pub const MAGIC: u32 = 0x504f_4405;

/// Results that later operations can use (descriptors, mostly).
pub const REGISTERS: usize = 64;

/// In [`Op::out`]: the result is not kept.
pub const NO_REGISTER: u8 = 0xff;

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Header {
    pub magic: u32,
    pub op_count: u32,
    pub ops: u32,
    pub place_count: u32,
    /// Offset of `place_count` 32-bit offsets of 64-bit words that hold addresses.
    pub places: u32,
    /// Where progress and failures are told, as [`Record`]s. Closed by the exec itself, which is how a start is known.
    pub report: i32,
    /// Bytes that let a waiting process go on; its end means that nobody cares any more.
    pub gate: i32,
    /// Where the init tells the raw wait status of what it started.
    pub status: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Op {
    /// A system call number, or one of the negative numbers below.
    pub number: i32,
    /// For each argument: is it a value, an address or a register?
    pub kinds: [u8; 6],
    /// Register for the result.
    pub out: u8,
    /// How many operations to leave out when the error is a tolerated one.
    pub skip: u8,
    /// Errors that are no failure; 0 for none.
    pub tolerated: [u16; 2],
    pub args: [u64; 6],
}

pub const VALUE: u8 = 0;
pub const REGISTER: u8 = 1;

/// Becomes two processes. The second goes on behind as many operations as the first argument says; these are the
/// first one's, which then stays as the init of the second, or with a second argument of what that hands over to.
pub const FORK: i32 = -1;
/// Waits for the byte in the first argument at the gate.
pub const WAIT: i32 = -2;
/// Tells the two arguments as a [`Record`] of kind [`REACHED`].
pub const TELL: i32 = -3;
/// Opens a path below a root, making what is missing: root, path, kind, mode of new directories.
pub const TARGET: i32 = -4;
/// Chooses the first executable file of a null-terminated list of paths; gives its address.
pub const RESOLVE: i32 = -5;
/// Fails unless the working directory is reachable from the root.
pub const CHECK_CWD: i32 = -6;
/// Stays as an init that has started nothing.
pub const STAY: i32 = -7;
/// Signals that the executor ignores are not ignored any more.
pub const DEFAULT_SIGNALS: i32 = -8;
/// Stores the second argument as a 32-bit word at the address in the first.
pub const STORE: i32 = -9;
/// Fails if the program at the path in the first argument is one that no kernel runs; see `program`.
pub const CHECK_PROGRAM: i32 = -10;
/// A new process, a child of the init, goes on; the old one tells its number as the first argument and ends.
pub const HAND_OVER: i32 = -11;
/// Closes all descriptors but the first three and what is needed to tell and to wait.
pub const CLOSE_REST: i32 = -12;
/// For the first of two processes: has the second, or whom it hands over to, stop at the end of its exec, and tells the
/// first argument with 0, or with the error if that is forbidden here.
pub const SEIZE: i32 = -13;
/// Waits for that stop, tells it as the first argument, and lets the second process go on when the byte in the second
/// argument comes to the gate. Nothing if it could not be seized.
pub const HOLD: i32 = -14;

/// Kinds of [`TARGET`].
pub const TARGET_DIRECTORY: u64 = 0;
pub const TARGET_FILE: u64 = 1;
/// A directory that is no link, and behind none.
pub const TARGET_PLAIN_DIRECTORY: u64 = 2;

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub kind: u32,
    /// Index of the operation, or what was reached.
    pub step: u32,
    /// The error, or what there is to say of what was reached.
    pub value: u32,
}

pub const RECORD_SIZE: usize = core::mem::size_of::<Record>();

pub const REACHED: u32 = 1;
/// The value is a [`Flaw`](super::init_program::Flaw)'s word, or only an error.
pub const FAILED: u32 = 2;
/// What the next failure is about: so many bytes as the value says follow the record.
pub const NAMED: u32 = 3;

/// The most bytes of a name that are told.
pub const NAME_LENGTH: usize = 512;
