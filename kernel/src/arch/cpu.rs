//! Instructions that Rust has no name for: model-specific registers, port I/O, control registers.

use core::arch::asm;

/// A model-specific register that every x86-64 CPU has: reading one of these never faults.
#[derive(Clone, Copy)]
pub struct Msr(u32);

pub const IA32_EFER: Msr = Msr(0xc000_0080);
pub const IA32_STAR: Msr = Msr(0xc000_0081);
pub const IA32_LSTAR: Msr = Msr(0xc000_0082);
pub const IA32_CSTAR: Msr = Msr(0xc000_0083);
pub const IA32_FMASK: Msr = Msr(0xc000_0084);
pub const IA32_FS_BASE: Msr = Msr(0xc000_0100);
pub const IA32_GS_BASE: Msr = Msr(0xc000_0101);
pub const IA32_KERNEL_GS_BASE: Msr = Msr(0xc000_0102);

const CR4_UMIP: u64 = 1 << 11;
const CR4_SMEP: u64 = 1 << 20;
const CR4_SMAP: u64 = 1 << 21;

/// Reads a model-specific register.
pub fn rdmsr(msr: Msr) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the register exists, and the kernel runs at CPL 0; reading it changes nothing.
    unsafe { asm!("rdmsr", in("ecx") msr.0, out("eax") low, out("edx") high, options(nomem, nostack)) };
    (u64::from(high) << 32) | u64::from(low)
}

/// Writes a model-specific register.
///
/// # Safety
/// The value must leave the kernel able to run: a GS base that is no per-CPU block, for one, does not.
pub unsafe fn wrmsr(msr: Msr, value: u64) {
    // SAFETY: the caller's promise.
    unsafe { asm!("wrmsr", in("ecx") msr.0, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack)) };
}

/// Writes a byte to an I/O port.
///
/// # Safety
/// The device behind the port must not write to memory that Rust owns.
pub unsafe fn outb(port: u16, value: u8) {
    // SAFETY: the caller's promise.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack)) };
}

/// Writes a 16-bit word to an I/O port.
///
/// # Safety
/// As for [`outb`].
pub unsafe fn outw(port: u16, value: u16) {
    // SAFETY: the caller's promise.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nomem, nostack)) };
}

/// Reads a byte from an I/O port; an absent device reads 0xff.
///
/// # Safety
/// Reading must not change a device in a way its driver does not expect.
pub unsafe fn inb(port: u16) -> u8 {
    let value;
    // SAFETY: the caller's promise.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack)) };
    value
}

/// CR2: the address of the last page fault on this CPU.
pub fn read_cr2() -> u64 {
    let value;
    // SAFETY: reading a control register changes nothing.
    unsafe { asm!("mov {}, cr2", out(reg) value, options(nomem, nostack)) };
    value
}

/// CR3: the physical address of the page tables in use.
pub fn read_cr3() -> u64 {
    let value;
    // SAFETY: reading a control register changes nothing.
    unsafe { asm!("mov {}, cr3", out(reg) value, options(nomem, nostack)) };
    value
}

/// Loads CR3, which also forgets every cached translation.
///
/// # Safety
/// `root` must be a page table that maps the kernel.
pub unsafe fn write_cr3(root: u64) {
    // SAFETY: the caller's promise.
    unsafe { asm!("mov cr3, {}", in(reg) root, options(nostack)) };
}

/// Forgets the cached translation of one page.
pub fn invlpg(address: u64) {
    // SAFETY: forgetting a translation is always sound; the page tables say what holds next.
    unsafe { asm!("invlpg [{}]", in(reg) address, options(nostack)) };
}

/// Switches on SMEP, SMAP and UMIP where the CPU has them. The kernel reads user memory through the physical map only.
pub fn enable_protections() {
    // SAFETY: the leaf is checked to exist. Newer compilers count CPUID as safe, older ones do not.
    #[allow(unused_unsafe)]
    let features = unsafe {
        if core::arch::x86_64::__cpuid(0).eax < 7 {
            return;
        }
        core::arch::x86_64::__cpuid_count(7, 0)
    };
    let mut bits = 0;
    if features.ebx & (1 << 7) != 0 {
        bits |= CR4_SMEP;
    }
    if features.ebx & (1 << 20) != 0 {
        bits |= CR4_SMAP;
    }
    if features.ecx & (1 << 2) != 0 {
        bits |= CR4_UMIP;
    }
    // SAFETY: only bits that CPUID announces are set, and the kernel never touches a user page by its user address.
    unsafe { asm!("mov {t}, cr4", "or {t}, {b}", "mov cr4, {t}", t = out(reg) _, b = in(reg) bits, options(nostack)) };
}

/// Waits for an interrupt with interrupts on, and returns with them off.
pub fn wait_for_interrupt() {
    // SAFETY: the idle loop holds no lock here, and STI's shadow leaves no gap in which a wake-up could be missed.
    unsafe { asm!("sti", "hlt", "cli") };
}

/// Stops this CPU for good.
pub fn halt_forever() -> ! {
    loop {
        // SAFETY: with interrupts off HLT ends only by an NMI, after which the loop halts again.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}
