//! COM1: the console. Polled, 115200 8N1.

use crate::arch::cpu::{inb, outb};
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

const COM1: u16 = 0x3f8;
const LINE_STATUS: u16 = COM1 + 5;
const RECEIVED: u8 = 1 << 0;
const TRANSMITTER_EMPTY: u8 = 1 << 5;

static BUSY: AtomicBool = AtomicBool::new(false);
/// The kernel is dying, and who is printing may never come to an end.
static HURRIED: AtomicBool = AtomicBool::new(false);
/// Turns to wait for another CPU then: enough for it to end its line, if it still runs.
const PATIENCE: u32 = 2_000_000;

/// Sets the line up; before this nothing can be printed.
pub fn init() {
    let set_up: [(u16, u8); 7] = [(1, 0), (3, 0x80), (0, 1), (1, 0), (3, 3), (2, 0xc7), (4, 3)];
    for (register, value) in set_up {
        // SAFETY: COM1's registers touch no memory.
        unsafe { outb(COM1 + register, value) };
    }
}

/// Sends bytes, a newline as CR LF. Does not lock: [`write`] does.
fn send(bytes: &[u8]) {
    for &byte in bytes {
        if byte == b'\n' {
            send_byte(b'\r');
        }
        send_byte(byte);
    }
}

fn send_byte(byte: u8) {
    // SAFETY: COM1's registers touch no memory.
    unsafe {
        while inb(LINE_STATUS) & TRANSMITTER_EMPTY == 0 {
            core::hint::spin_loop();
        }
        outb(COM1, byte);
    }
}

/// From now on nobody waits long for another CPU to end its line, so that a fault can be told in any case.
pub fn hurry() {
    HURRIED.store(true, Ordering::Release);
}

/// Runs `print` while no other CPU prints.
fn exclusively(print: impl FnOnce()) {
    let mut patience = PATIENCE;
    while BUSY.swap(true, Ordering::Acquire) && patience > 0 {
        core::hint::spin_loop();
        patience -= u32::from(HURRIED.load(Ordering::Acquire));
    }
    print();
    BUSY.store(false, Ordering::Release);
}

/// Sends bytes to the console without mixing them with another CPU's.
pub fn write(bytes: &[u8]) {
    exclusively(|| send(bytes));
}

/// A byte that has been received, if there is one.
pub fn receive() -> Option<u8> {
    // SAFETY: COM1's registers touch no memory; nobody else reads what is received.
    unsafe { (inb(LINE_STATUS) & RECEIVED != 0).then(|| inb(COM1)) }
}

struct Line;

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        send(text.as_bytes());
        Ok(())
    }
}

/// Prints formatted text as one piece; `println!` calls it.
pub fn print(arguments: fmt::Arguments) {
    exclusively(|| {
        // `Line` never fails.
        let _ = fmt::write(&mut Line, arguments);
    });
}

/// Prints one line on the serial console.
#[macro_export]
macro_rules! println {
    ($($argument:tt)*) => {
        $crate::arch::serial::print(format_args!("{}\n", format_args!($($argument)*)))
    };
}
