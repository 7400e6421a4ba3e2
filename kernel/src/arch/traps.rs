//! Exceptions and interrupts: the IDT, ring-3 faults (the process dies), kernel faults (everything stops), the timer.

use crate::arch::cpu::{self, halt_forever};
use crate::arch::gdt::{TablePointer, KERNEL_CODE};
use crate::arch::percpu::{this_cpu, IST_DEBUG, IST_DOUBLE_FAULT, IST_EXCEPTION, IST_NMI};
use crate::arch::{apic, serial, smp};
use crate::memory::paging;
use crate::println;
use crate::process::scheduler;
use core::arch::asm;
use core::ptr::addr_of;
use core::sync::atomic::{AtomicU64, Ordering};

/// Stubs in `traps.S`; the last one is for the APIC's spurious interrupts.
const VECTORS: usize = 35;
const SPURIOUS_STUB: u64 = 34;
const DEBUG_EXCEPTION: u64 = 1;
const NMI: u64 = 2;
const DOUBLE_FAULT: u64 = 8;
const PAGE_FAULT: u64 = 14;
const MACHINE_CHECK: u64 = 18;
/// What the interrupted program has no part in, not even when it is in ring 3.
const NOT_OF_THE_PROGRAM: [u64; 3] = [NMI, DOUBLE_FAULT, MACHINE_CHECK];
const TRAP_FLAG: u64 = 1 << 8;

const NAMES: [&str; 22] = [
    "#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "#09", "#TS", "#NP", "#SS", "#GP", "#PF", "#15",
    "#MF", "#AC", "#MC", "#XM", "#VE", "#CP",
];

/// Registers at an exception or interrupt, as the stubs of `traps.S` push them.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct TrapFrame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rbp: u64,
    pub rdx: u64,
    pub rcx: u64,
    pub rbx: u64,
    pub rax: u64,
    pub vector: u64,
    pub error: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

/// One gate of the IDT (Intel SDM Vol. 3A, 64-Bit Mode IDT).
#[repr(C)]
#[derive(Clone, Copy)]
struct Gate {
    offset_low: u16,
    selector: u16,
    ist: u8,
    kind: u8,
    offset_middle: u16,
    offset_high: u32,
    reserved: u32,
}

const NO_GATE: Gate =
    Gate { offset_low: 0, selector: 0, ist: 0, kind: 0, offset_middle: 0, offset_high: 0, reserved: 0 };
const INTERRUPT_GATE: u8 = 0x8e;

static mut IDT: [Gate; 256] = [NO_GATE; 256];
const NOBODY: u64 = u64::MAX;
/// The CPU that stops the kernel and tells why, once there is one.
static STOPPING: AtomicU64 = AtomicU64::new(NOBODY);

extern "C" {
    static trap_stubs: u8;
}

/// The address of the IDT, the same on every CPU.
pub fn idt_address() -> u64 {
    addr_of!(IDT) as u64
}

/// Fills the IDT; the boot CPU does it once.
pub fn init() {
    for vector in 0..VECTORS {
        let stub = addr_of!(trap_stubs) as u64 + 16 * vector as u64;
        let ist = match vector as u64 {
            DEBUG_EXCEPTION => IST_DEBUG,
            NMI => IST_NMI,
            DOUBLE_FAULT => IST_DOUBLE_FAULT,
            0..=31 => IST_EXCEPTION,
            _ => 0,
        };
        set_gate(vector, stub, ist);
    }
    set_gate(apic::SPURIOUS_VECTOR as usize, addr_of!(trap_stubs) as u64 + 16 * SPURIOUS_STUB, 0);
}

fn set_gate(vector: usize, stub: u64, ist: u8) {
    let gate = Gate {
        offset_low: stub as u16,
        selector: KERNEL_CODE,
        ist,
        kind: INTERRUPT_GATE,
        offset_middle: (stub >> 16) as u16,
        offset_high: (stub >> 32) as u32,
        reserved: 0,
    };
    // SAFETY: only the boot CPU writes the IDT, before any CPU loads it.
    unsafe { IDT[vector] = gate };
}

/// Makes the calling CPU use the IDT.
pub fn load() {
    let pointer = TablePointer { limit: (size_of::<[Gate; 256]>() - 1) as u16, base: idt_address() };
    // SAFETY: the IDT is a static whose gates point at the stubs.
    unsafe { asm!("lidt [{}]", in(reg) &pointer, options(nostack)) };
}

/// Masks the two 8259 interrupt controllers, which SeaBIOS leaves on.
pub fn mask_legacy_interrupts() {
    // SAFETY: ports 0x21 and 0xa1 are the controllers' mask registers.
    unsafe {
        cpu::outb(0x21, 0xff);
        cpu::outb(0xa1, 0xff);
    }
}

/// Every exception and interrupt ends up here, with interrupts off.
#[no_mangle]
extern "C" fn trap(frame: &mut TrapFrame) {
    match frame.vector {
        vector if vector == u64::from(apic::TIMER_VECTOR) => {
            apic::end_of_interrupt();
            scheduler::on_timer(frame.cs & 3 == 3);
        }
        vector if vector == u64::from(apic::WAKE_VECTOR) => apic::end_of_interrupt(),
        SPURIOUS_STUB => (), // nothing is in service, so nothing is ended
        NMI if STOPPING.load(Ordering::Acquire) != NOBODY => halt_forever(),
        DEBUG_EXCEPTION if frame.cs & 3 == 0 && frame.rflags & TRAP_FLAG != 0 => {
            // The user's TF came along through SYSCALL, because FMASK leaves it: it waits in r11 for the way back.
            frame.rflags &= !TRAP_FLAG;
        }
        vector if frame.cs & 3 == 3 && !NOT_OF_THE_PROGRAM.contains(&vector) => kill_current(frame),
        _ => stop_on_fault(frame),
    }
}

fn name(vector: u64) -> &'static str {
    NAMES.get(vector as usize).copied().unwrap_or("interrupt")
}

fn kill_current(frame: &TrapFrame) -> ! {
    // SAFETY: a trap from ring 3 comes from the running process.
    let process = unsafe { &*this_cpu().current_process() };
    println!(
        "process {} ({}): killed by {} at {:#x}, error {:#x}, address {:#x}",
        process.pid,
        process.name(),
        name(frame.vector),
        frame.rip,
        frame.error,
        if frame.vector == PAGE_FAULT { cpu::read_cr2() } else { 0 },
    );
    print_registers(frame);
    scheduler::terminate_current(128 + frame.vector as i32)
}

fn stop_on_fault(frame: &TrapFrame) -> ! {
    let cpu = this_cpu();
    if cpu.in_fault() {
        halt_forever();
    }
    cpu.set_in_fault(true);
    stop_others(cpu.cpu_id());
    println!(
        "kernel fault: {} on CPU {}, error {:#x}, CR2 {:#x}",
        name(frame.vector),
        cpu.cpu_id(),
        frame.error,
        cpu::read_cr2()
    );
    print_registers(frame);
    print_stack_trace(frame.rip, frame.rbp);
    println!("kernel stopped");
    halt_forever()
}

/// Stops every other CPU by NMI. Where another CPU is already telling why the kernel stops, this one halts.
pub fn stop_others(cpu_id: u64) {
    match STOPPING.compare_exchange(NOBODY, cpu_id, Ordering::AcqRel, Ordering::Acquire) {
        Err(first) if first != cpu_id => halt_forever(),
        _ => serial::hurry(),
    }
    if smp::ONLINE.load(Ordering::Acquire) > 1 {
        apic::send_nmi_to_others();
    }
}

/// Prints in one piece, so that no other CPU's line comes in between.
fn print_registers(frame: &TrapFrame) {
    println!(
        "rip {:016x} cs  {:016x} rfl {:016x} cr3 {:016x}\n\
         rsp {:016x} ss  {:016x} rax {:016x} rbx {:016x}\n\
         rcx {:016x} rdx {:016x} rsi {:016x} rdi {:016x}\n\
         rbp {:016x} r8  {:016x} r9  {:016x} r10 {:016x}\n\
         r11 {:016x} r12 {:016x} r13 {:016x} r14 {:016x}\n\
         r15 {:016x}",
        frame.rip,
        frame.cs,
        frame.rflags,
        cpu::read_cr3(),
        frame.rsp,
        frame.ss,
        frame.rax,
        frame.rbx,
        frame.rcx,
        frame.rdx,
        frame.rsi,
        frame.rdi,
        frame.rbp,
        frame.r8,
        frame.r9,
        frame.r10,
        frame.r11,
        frame.r12,
        frame.r13,
        frame.r14,
        frame.r15,
    );
}

/// Prints the return addresses that the chain of frame pointers gives.
pub fn print_stack_trace(rip: u64, mut rbp: u64) {
    println!("stack trace:\n  {rip:#018x}");
    for _ in 0..32 {
        let Some([next, return_address]) = read_frame_link(rbp) else { return };
        println!("  {return_address:#018x}");
        rbp = next;
    }
}

/// The saved frame pointer and return address at `rbp`, if that is mapped kernel memory.
fn read_frame_link(rbp: u64) -> Option<[u64; 2]> {
    if rbp % 8 != 0 || !(paging::KERNEL_HALF..=u64::MAX - 16).contains(&rbp) {
        return None;
    }
    if !paging::is_mapped(cpu::read_cr3(), rbp) || !paging::is_mapped(cpu::read_cr3(), rbp + 8) {
        return None;
    }
    // SAFETY: both words are mapped and aligned.
    let link = unsafe { *(rbp as *const [u64; 2]) };
    (link[1] != 0).then_some(link)
}
