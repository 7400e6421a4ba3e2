//! The handlers, one file for each group of numbers, and the errors they return.

pub mod files;
pub mod ipc;
pub mod memory;
pub mod process;

/// Why a call failed; it returns the negative of the number, which is the one that Linux uses.
///
/// An unknown system-call number returns -1, as the design has it; no handler returns that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Errno {
    NoEntry = 2,
    TooBig = 7,
    NotExecutable = 8,
    BadDescriptor = 9,
    NoChild = 10,
    Again = 11,
    NoMemory = 12,
    Access = 13,
    Fault = 14,
    Exists = 17,
    InvalidArgument = 22,
    TooManyOpen = 24,
    NoSpace = 28,
    BrokenPipe = 32,
    NameTooLong = 36,
    MessageTooLong = 90,
}

/// A result as rax carries it.
fn encode(result: Result<u64, Errno>) -> u64 {
    match result {
        Ok(value) => value,
        Err(error) => (error as u64).wrapping_neg(),
    }
}
