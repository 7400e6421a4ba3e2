//! What every user program is made of: the start, the system calls by name, printing.

#![no_std]

pub mod calls;
#[path = "../src/syscall/numbers.rs"]
pub mod numbers;
#[path = "../src/memory/routines.rs"]
mod routines;

use core::fmt;

// The kernel leaves, at rsp: the number of arguments, a pointer to each, 0.
core::arch::global_asm!(
    ".section .text._start, \"ax\", @progbits",
    ".globl _start",
    ".type _start, @function",
    "_start:",
    ".cfi_startproc",
    ".cfi_undefined rip", // the outermost frame: a backtrace ends here
    "xor ebp, ebp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call start_program",
    "ud2",
    ".cfi_endproc",
    ".size _start, . - _start",
    ".text",
);

extern "C" {
    /// The program: its result is the exit status.
    fn program_main(arguments: &Arguments) -> i32;
}

#[no_mangle]
extern "C" fn start_program(stack: *const u64) -> ! {
    // SAFETY: the kernel put the argument vector there; every program defines `program_main`.
    let status = unsafe { program_main(&Arguments { vector: stack }) };
    calls::exit(status)
}

/// The program's arguments; the first is its name.
#[repr(transparent)]
pub struct Arguments {
    vector: *const u64,
}

impl Arguments {
    pub fn count(&self) -> usize {
        // SAFETY: the vector begins with the count.
        unsafe { *self.vector as usize }
    }

    /// The argument at a place, if there is one and it is UTF-8.
    pub fn get(&self, index: usize) -> Option<&str> {
        if index >= self.count() {
            return None;
        }
        // SAFETY: the vector has a pointer to a zero-terminated string at every place below the count.
        let bytes = unsafe { core::ffi::CStr::from_ptr(*self.vector.add(1 + index) as *const _) };
        bytes.to_str().ok()
    }

    /// The value of an argument `KEY=VALUE`.
    pub fn option(&self, key: &str) -> Option<&str> {
        (1..self.count()).find_map(|index| self.get(index)?.strip_prefix(key)?.strip_prefix('='))
    }

    /// The number in an argument `KEY=NUMBER`.
    pub fn number(&self, key: &str) -> Option<u64> {
        self.option(key)?.parse().ok()
    }
}

/// Text of limited length, to be written with one call or passed on. What does not fit is cut off.
pub struct Line {
    bytes: [u8; 160],
    length: usize,
}

impl Line {
    pub fn new(arguments: fmt::Arguments) -> Self {
        let mut line = Line { bytes: [0; 160], length: 0 };
        // Writing to a `Line` never fails.
        let _ = fmt::write(&mut line, arguments);
        line
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// The text with a zero byte at its end, for `exec` and `open`.
    pub fn as_c_string(&self) -> *const u8 {
        self.bytes.as_ptr()
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let count = text.len().min(self.bytes.len() - 1 - self.length);
        self.bytes[self.length..self.length + count].copy_from_slice(&text.as_bytes()[..count]);
        self.length += count;
        Ok(())
    }
}

/// Makes a [`Line`] from a format and its arguments.
#[macro_export]
macro_rules! line {
    ($($argument:tt)*) => { $crate::Line::new(format_args!($($argument)*)) };
}

/// Prints one line on the console, with one `write`.
#[macro_export]
macro_rules! println {
    ($($argument:tt)*) => { $crate::calls::write(1, $crate::line!("{}\n", format_args!($($argument)*)).as_bytes()) };
}

/// Reads the number that a device file gives.
///
/// # Panics
/// If the device is missing.
pub fn read_device(path: &core::ffi::CStr) -> u64 {
    let mut value = [0; 8];
    let descriptor = calls::open(path.to_bytes_with_nul().as_ptr(), 0, 0);
    assert!(descriptor >= 0 && calls::read(descriptor as i32, &mut value) == 8, "{path:?}");
    calls::close(descriptor as i32);
    u64::from_le_bytes(value)
}

/// A clock whose `wait` sleeps until the next tick (a hundredth of a second).
pub struct Clock {
    descriptor: i32,
}

impl Clock {
    pub fn open() -> Self {
        Clock { descriptor: calls::open(c"/dev/ticks".as_ptr().cast(), 0, 0) as i32 }
    }

    pub fn close(self) {
        calls::close(self.descriptor);
    }

    /// Sleeps until the next tick and returns the ticks since boot.
    pub fn wait(&self) -> u64 {
        let mut value = [0; 8];
        calls::read(self.descriptor, &mut value);
        u64::from_le_bytes(value)
    }
}

#[panic_handler]
fn panic(information: &core::panic::PanicInfo) -> ! {
    println!("{information}");
    calls::exit(101)
}
