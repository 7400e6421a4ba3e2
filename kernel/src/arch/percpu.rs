//! The per-CPU block: what the kernel's GS base points at.
//!
//! The entry stub uses the first fields by the offsets of `percpu.h`.

use crate::arch::cpu::{rdmsr, wrmsr, IA32_GS_BASE, IA32_KERNEL_GS_BASE};
use crate::arch::gdt::{self, Gdt, Tss};
use crate::memory::stacks;
use crate::process::Process;
use core::arch::asm;
use core::mem::offset_of;
use core::ptr::{addr_of, addr_of_mut, null_mut};
use core::sync::atomic::{AtomicBool, Ordering};

pub const MAX_CPUS: usize = 8;

/// One CPU's own data, 8-byte fields at the offsets that the assembly uses.
#[repr(C, align(64))]
pub struct PerCpu {
    /// Top of the running process's kernel stack: what the entry stub loads into rsp.
    pub kernel_rsp: u64,
    /// The user's rsp while a system call runs.
    pub user_rsp: u64,
    pub cpu_id: u64,
    pub lapic_id: u64,
    /// The running process; null while the CPU idles.
    pub current_process: *mut Process,
    /// The parked stack of the idle loop while a process runs.
    pub idle_rsp: u64,
    /// This block's own address, so that `gs:` can be turned into a pointer.
    pub self_address: *mut PerCpu,
    /// Sequence number in `EXO_TRUTH` of the last system call that started here.
    pub syscall_sequence: u64,
    /// Page tables to load on entry from ring 3, or 0 where kernel and user share theirs.
    pub kernel_cr3: u64,
    /// Page tables to load on return to ring 3, or 0.
    pub user_cr3: u64,
    /// Where the `today` entry stub parks rax.
    pub scratch_rax: u64,
    /// The CPU waits in HLT for something to run.
    pub idle: bool,
    /// A kernel fault is being printed.
    pub in_fault: bool,
    pub gdt: Gdt,
    pub tss: Tss,
}

const _: () = assert!(offset_of!(PerCpu, kernel_rsp) == 0x00);
const _: () = assert!(offset_of!(PerCpu, user_rsp) == 0x08);
const _: () = assert!(offset_of!(PerCpu, self_address) == 0x30);
const _: () = assert!(offset_of!(PerCpu, kernel_cr3) == 0x40);
const _: () = assert!(offset_of!(PerCpu, user_cr3) == 0x48);
const _: () = assert!(offset_of!(PerCpu, scratch_rax) == 0x50);

impl PerCpu {
    const fn new() -> Self {
        PerCpu {
            kernel_rsp: 0,
            user_rsp: 0,
            cpu_id: 0,
            lapic_id: 0,
            current_process: null_mut(),
            idle_rsp: 0,
            self_address: null_mut(),
            syscall_sequence: 0,
            kernel_cr3: 0,
            user_cr3: 0,
            scratch_rax: 0,
            idle: false,
            in_fault: false,
            gdt: Gdt::new(),
            tss: Tss::new(),
        }
    }
}

/// The blocks of all CPUs; `PERCPU[n]` is behind the GS of CPU n.
#[no_mangle]
pub static mut PERCPU: [PerCpu; MAX_CPUS] = [const { PerCpu::new() }; MAX_CPUS];

/// Interrupt stack table slots: every exception has its own stack, so that one in the entry stub (where rsp is
/// still the user's) can be told. Numbers are TSS slots, from 1.
pub const IST_EXCEPTION: u8 = 1;
pub const IST_DOUBLE_FAULT: u8 = 2;
pub const IST_NMI: u8 = 3;
pub const IST_DEBUG: u8 = 4;

/// Gives the calling CPU its block, GDT, TSS and GS base.
pub fn init(cpu_id: usize, lapic_id: u64) {
    // SAFETY: each CPU initialises its own block, once, before anything else reads it.
    unsafe {
        let cpu = addr_of_mut!(PERCPU[cpu_id]);
        (*cpu).cpu_id = cpu_id as u64;
        (*cpu).lapic_id = lapic_id;
        (*cpu).self_address = cpu;
        for slot in [IST_EXCEPTION, IST_DOUBLE_FAULT, IST_NMI, IST_DEBUG] {
            (*cpu).tss.ist[usize::from(slot) - 1] = stacks::cpu_stack_top(cpu_id, usize::from(slot));
        }
        gdt::load(cpu);
    }
    #[cfg(variant = "shared-gs-block")]
    let cpu_id = if cpu_id == 1 { 0 } else { cpu_id };
    // SAFETY: the base is this CPU's block; the user's waits at 0 until a process brings its own.
    unsafe {
        wrmsr(IA32_GS_BASE, addr_of_mut!(PERCPU[cpu_id]) as u64);
        wrmsr(IA32_KERNEL_GS_BASE, 0);
    }
}

/// The block of the CPU that runs this code, field by field.
///
/// The block is never borrowed: an interrupt handler, the idle loop's parked stack and, for `idle`, other CPUs use it,
/// too. The handle must not be kept across a stack switch: the process may continue on another CPU.
#[derive(Clone, Copy)]
pub struct ThisCpu(*mut PerCpu);

/// The calling CPU's block.
#[inline(always)]
pub fn this_cpu() -> ThisCpu {
    let block: *mut PerCpu;
    // SAFETY: in the kernel GS is the CPU's own block, which names itself.
    unsafe { asm!("mov {}, gs:[0x30]", out(reg) block, options(nostack, preserves_flags, pure, readonly)) };
    ThisCpu(block)
}

macro_rules! readable {
    ($($field:ident: $kind:ty,)*) => {
        impl ThisCpu {$(
            #[inline(always)]
            pub fn $field(self) -> $kind {
                // SAFETY: the pointer names a block for as long as the kernel runs; only this CPU writes the field.
                unsafe { (*self.0).$field }
            }
        )*}
    };
}

macro_rules! writable {
    ($($set:ident, $field:ident: $kind:ty,)*) => {
        impl ThisCpu {$(
            #[inline(always)]
            pub fn $set(self, value: $kind) {
                // SAFETY: as for reading.
                unsafe { (*self.0).$field = value };
            }
        )*}
    };
}

readable! {
    kernel_rsp: u64,
    user_rsp: u64,
    cpu_id: u64,
    current_process: *mut Process,
    idle_rsp: u64,
    syscall_sequence: u64,
    in_fault: bool,
}

writable! {
    set_kernel_rsp, kernel_rsp: u64,
    set_user_rsp, user_rsp: u64,
    set_lapic_id, lapic_id: u64,
    set_current_process, current_process: *mut Process,
    set_kernel_cr3, kernel_cr3: u64,
    set_user_cr3, user_cr3: u64,
    set_in_fault, in_fault: bool,
}

impl ThisCpu {
    #[cfg(not(variant = "truth-less"))]
    #[inline(always)]
    pub fn set_syscall_sequence(self, sequence: u64) {
        // SAFETY: as for reading.
        unsafe { (*self.0).syscall_sequence = sequence };
    }

    /// Whether the CPU is marked as idle: other CPUs take the mark away, see [`take_idle_cpu`].
    pub fn idle(self) -> bool {
        // SAFETY: the pointer names a block for as long as the kernel runs; `idle` is only ever used as an atomic.
        unsafe { AtomicBool::from_ptr(&raw mut (*self.0).idle) }.load(Ordering::Acquire)
    }

    pub fn set_idle(self, idle: bool) {
        // SAFETY: as for reading.
        unsafe { AtomicBool::from_ptr(&raw mut (*self.0).idle) }.store(idle, Ordering::Release);
    }

    /// Where `switch_stacks` parks the idle loop's stack.
    pub fn idle_rsp_place(self) -> *mut u64 {
        // SAFETY: the pointer names a block; no reference to it is made.
        unsafe { &raw mut (*self.0).idle_rsp }
    }

    /// Sets the stack that interrupts from ring 3 get.
    pub fn set_interrupt_stack(self, top: u64) {
        // SAFETY: the CPU reads its TSS only when an interrupt comes, and they are off.
        unsafe { (*self.0).tss.rsp[0] = top };
    }
}

/// The running process, read in one instruction.
#[inline(always)]
pub fn current_process() -> *mut Process {
    let process;
    // SAFETY: as for `this_cpu`.
    unsafe { asm!("mov {}, gs:[0x20]", out(reg) process, options(nostack, preserves_flags, pure, readonly)) };
    process
}
const _: () = assert!(offset_of!(PerCpu, current_process) == 0x20);

/// The number of a CPU that waited for something to run; it is no longer marked as idle.
pub fn take_idle_cpu() -> Option<usize> {
    // SAFETY: `idle` is only ever used as an atomic.
    (0..MAX_CPUS)
        .find(|&cpu| unsafe { AtomicBool::from_ptr(addr_of_mut!(PERCPU[cpu].idle)) }.swap(false, Ordering::AcqRel))
}

/// The identifier of a CPU's local APIC, which does not change once the CPU is set up.
pub fn lapic_id(cpu: usize) -> u64 {
    // SAFETY: the CPU is set up: it was idle.
    unsafe { addr_of!(PERCPU[cpu].lapic_id).read() }
}

/// The calling CPU's number, also where it has no block yet: the boot CPU then.
pub fn cpu_id_at_any_time() -> u64 {
    let blocks = &raw const PERCPU as u64;
    if (blocks..blocks + size_of::<[PerCpu; MAX_CPUS]>() as u64).contains(&rdmsr(IA32_GS_BASE)) {
        this_cpu().cpu_id()
    } else {
        0
    }
}
