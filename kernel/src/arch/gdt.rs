//! Segments: one GDT and one TSS for each CPU, with the selectors that STAR counts on.

use crate::arch::percpu::PerCpu;
use core::arch::asm;

pub const KERNEL_CODE: u16 = 0x08;
pub const KERNEL_DATA: u16 = 0x10;
pub const USER_DATA: u16 = 0x20 | 3;
pub const USER_CODE: u16 = 0x28 | 3;
const TSS: u16 = 0x30;

/// The 32-bit code segment that STAR's arithmetic leaves a place for. SYSCALL in 32-bit code goes to CSTAR, at CPL 0,
/// and only `today` has a stub there; without one no program may get into such code.
const USER_CODE_32: u64 = if cfg!(variant = "today") { 0x00cf_fb00_0000_ffff } else { 0 };

/// The task-state segment of a 64-bit CPU, 104 bytes (Intel SDM Vol. 3A, Task Management in 64-bit Mode).
#[repr(C, packed(4))]
#[derive(Clone, Copy)]
pub struct Tss {
    reserved0: u32,
    pub rsp: [u64; 3],
    reserved1: u64,
    pub ist: [u64; 7],
    reserved2: u64,
    reserved3: u16,
    iomap_base: u16,
}

impl Tss {
    pub const fn new() -> Self {
        Tss { reserved0: 0, rsp: [0; 3], reserved1: 0, ist: [0; 7], reserved2: 0, reserved3: 0, iomap_base: 104 }
    }
}

/// The eight descriptors of one CPU: six segments and a TSS, which takes two.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct Gdt {
    pub descriptors: [u64; 8],
}

impl Gdt {
    pub const fn new() -> Self {
        Gdt {
            descriptors: [
                0,
                0x00af_9b00_0000_ffff, // 0x08 kernel code
                0x00cf_9300_0000_ffff, // 0x10 kernel data
                USER_CODE_32,          // 0x18 user code, 32-bit, or nothing
                0x00cf_f300_0000_ffff, // 0x20 user data
                0x00af_fb00_0000_ffff, // 0x28 user code
                0,                     // 0x30 TSS
                0,
            ],
        }
    }
}

/// The operand of LGDT and LIDT.
#[repr(C, packed)]
pub struct TablePointer {
    pub limit: u16,
    pub base: u64,
}

/// Loads the GDT and the task register of the calling CPU's block. The GS base is lost with the segment registers; the
/// caller sets it. DS, ES, FS and GS get the null selector: SYSRET would carry another one to the user.
///
/// # Safety
/// `cpu` must be the calling CPU's block, which nobody else uses yet.
pub unsafe fn load(cpu: *mut PerCpu) {
    // SAFETY: the caller's promise. The GDT is in the block, which lives for ever; its code and stack selectors are the
    // ones in use, and the far return reloads CS from it.
    unsafe {
        let tss = &raw const (*cpu).tss as u64;
        let limit = size_of::<Tss>() as u64 - 1;
        (*cpu).gdt.descriptors[6] = limit | ((tss & 0xff_ffff) << 16) | (0x89 << 40) | ((tss >> 24 & 0xff) << 56);
        (*cpu).gdt.descriptors[7] = tss >> 32;
        let pointer = TablePointer { limit: size_of::<Gdt>() as u16 - 1, base: &raw const (*cpu).gdt as u64 };
        asm!(
            "lgdt [{pointer}]",
            "push {code}",
            "lea {scratch}, [rip + 2f]",
            "push {scratch}",
            "retfq",
            "2:",
            "mov ss, {data:e}",
            "mov ds, {zero:e}",
            "mov es, {zero:e}",
            "mov fs, {zero:e}",
            "mov gs, {zero:e}",
            "ltr {tss:x}",
            pointer = in(reg) &pointer,
            code = in(reg) u64::from(KERNEL_CODE),
            data = in(reg) u64::from(KERNEL_DATA),
            zero = in(reg) 0_u64,
            tss = in(reg) TSS,
            scratch = out(reg) _,
        );
    }
}

/// Addresses of the tables that the calling CPU uses, as the CPU itself says.
#[cfg(not(variant = "truth-less"))]
pub struct LoadedTables {
    pub gdt: u64,
    pub idt: u64,
    pub tss: u64,
}

/// Asks the CPU (SGDT, SIDT, STR) for its tables.
#[cfg(not(variant = "truth-less"))]
pub fn loaded_tables() -> LoadedTables {
    let mut gdt = TablePointer { limit: 0, base: 0 };
    let mut idt = TablePointer { limit: 0, base: 0 };
    let selector: u64;
    // SAFETY: the three instructions store into the operands only; the task register names a descriptor of the GDT.
    unsafe {
        asm!("sgdt [{}]", in(reg) &mut gdt, options(nostack));
        asm!("sidt [{}]", in(reg) &mut idt, options(nostack));
        asm!("str {}", out(reg) selector, options(nomem, nostack));
        let [low, high] = *((gdt.base + selector) as *const [u64; 2]);
        let tss = (low >> 16 & 0xff_ffff) | (low >> 56 << 24) | (high << 32);
        LoadedTables { gdt: gdt.base, idt: idt.base, tss }
    }
}
