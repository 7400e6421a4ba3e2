//! The local APIC (xAPIC): timer, end of interrupt, and messages between CPUs.

use crate::memory::paging::LAPIC_ADDRESS;

pub const TIMER_VECTOR: u8 = 0x20;
pub const WAKE_VECTOR: u8 = 0x21;
pub const SPURIOUS_VECTOR: u32 = 0xff;
/// Ticks of the scheduler's clock in one second.
pub const TICKS_PER_SECOND: u64 = 100;

const ID: usize = 0x20;
const END_OF_INTERRUPT: usize = 0xb0;
const SPURIOUS: usize = 0xf0;
const COMMAND_LOW: usize = 0x300;
const COMMAND_HIGH: usize = 0x310;
const LVT_TIMER: usize = 0x320;
const INITIAL_COUNT: usize = 0x380;
const DIVIDE: usize = 0x3e0;

const PERIODIC: u32 = 1 << 17;
const DIVIDE_BY_16: u32 = 3;
/// QEMU's (and KVM's) APIC timer runs at 1 GHz.
const TIMER_HZ: u64 = 1_000_000_000;

const DELIVERY_PENDING: u32 = 1 << 12;
const FIXED: u32 = 0x4000;
const NMI_ALL_OTHERS: u32 = 0xc4400;
const INIT: u32 = 0x4500;
const STARTUP: u32 = 0x4600;

fn read(register: usize) -> u32 {
    // SAFETY: LAPIC_ADDRESS is mapped, uncached, to the local APIC in every address space.
    unsafe { core::ptr::read_volatile((LAPIC_ADDRESS as usize + register) as *const u32) }
}

fn write(register: usize, value: u32) {
    // SAFETY: as for `read`; the registers written here change interrupts only.
    unsafe { core::ptr::write_volatile((LAPIC_ADDRESS as usize + register) as *mut u32, value) };
}

/// The calling CPU's APIC identifier.
pub fn id() -> u64 {
    u64::from(read(ID) >> 24)
}

/// Switches the calling CPU's APIC on and starts its timer.
pub fn init() {
    write(SPURIOUS, 0x100 | SPURIOUS_VECTOR);
    write(DIVIDE, DIVIDE_BY_16);
    write(LVT_TIMER, PERIODIC | u32::from(TIMER_VECTOR));
    write(INITIAL_COUNT, (TIMER_HZ / 16 / TICKS_PER_SECOND) as u32);
}

/// Tells the APIC that the interrupt has been taken care of.
pub fn end_of_interrupt() {
    write(END_OF_INTERRUPT, 0);
}

fn command(lapic_id: u64, low: u32) {
    write(COMMAND_HIGH, (lapic_id as u32) << 24);
    write(COMMAND_LOW, low);
    while read(COMMAND_LOW) & DELIVERY_PENDING != 0 {
        core::hint::spin_loop();
    }
}

/// Makes a sleeping CPU look for work.
pub fn send_wake(lapic_id: u64) {
    command(lapic_id, FIXED | u32::from(WAKE_VECTOR));
}

/// Resets another CPU.
pub fn send_init(lapic_id: u64) {
    command(lapic_id, INIT);
}

/// Starts another CPU in real mode at `page` * 4096.
pub fn send_startup(lapic_id: u64, page: u32) {
    command(lapic_id, STARTUP | page);
}

/// Interrupts every other CPU, whatever it does; the kernel stops them this way.
pub fn send_nmi_to_others() {
    write(COMMAND_LOW, NMI_ALL_OTHERS);
}
