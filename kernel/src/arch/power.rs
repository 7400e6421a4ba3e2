//! Ends of the machine: leaving QEMU with an exit code.

use crate::arch::cpu::{halt_forever, inb, outb, outw};

/// Where `isa-debug-exit` may be: the port that everybody gives it, and the port it has by default.
const DEBUG_EXIT_PORTS: [u16; 2] = [0xf4, 0x501];
/// PM1a control of the PIIX4 and ICH9 as SeaBIOS sets them up.
const ACPI_CONTROL: u16 = 0x604;
const SLEEP_S5: u16 = 0x2000;

/// The port of `isa-debug-exit`; an absent device reads 0xff.
fn find_debug_exit() -> Option<u16> {
    // SAFETY: both ports belong to that device or to nothing.
    DEBUG_EXIT_PORTS.into_iter().find(|&port| unsafe { inb(port) } != 0xff)
}

/// Leaves QEMU with exit code 0 or 1 when `isa-debug-exit` is present; halts otherwise.
///
/// `isa-debug-exit` can only give odd codes (value * 2 + 1), so success is a power-off, which QEMU ends with 0.
pub fn leave(success: bool) -> ! {
    if let Some(port) = find_debug_exit() {
        // SAFETY: both end the machine.
        unsafe {
            if success {
                outw(ACPI_CONTROL, SLEEP_S5);
            } else {
                outb(port, 0);
            }
        }
    }
    halt_forever()
}
