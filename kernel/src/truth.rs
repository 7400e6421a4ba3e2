//! The truth record: what the kernel itself knows, for a debugger's answers to be checked against.
//!
//! `EXO_TRUTH` is one static of plain integers. Everything in it is written by the kernel's own code as it happens.
//! The variant `truth-less` has `truth_less.rs` instead, to measure what it costs. Readers start with `magic` and
//! `version`.

use crate::arch::cpu::*;
use crate::arch::gdt;
use crate::arch::percpu::{this_cpu, MAX_CPUS};
use crate::syscall::frame::{self, SyscallFrame};
use core::ptr::addr_of_mut;
use core::sync::atomic::{AtomicU64, Ordering};

/// "EXOTRUTH", read as bytes.
pub const MAGIC: u64 = u64::from_le_bytes(*b"EXOTRUTH");
/// Grows when the layout changes.
pub const VERSION: u64 = 2;
/// System calls that the ring remembers; in the variant `truth-long` more than `run=selftest` makes.
pub const CALLS: usize = if cfg!(variant = "truth-long") { 16_384 } else { 256 };

/// `CallTruth::state`: this place of the ring was never used.
pub const CALL_NONE: u64 = 0;
/// The call has not returned yet; `result` means nothing.
pub const CALL_IN_PROGRESS: u64 = 1;
/// The call returned `result`.
pub const CALL_RETURNED: u64 = 2;
/// The call ended its process.
pub const CALL_NEVER_RETURNS: u64 = 3;
/// A CPU is writing to this place right now, and has it for itself until it stores another state.
pub const CALL_BEING_WRITTEN: u64 = 4;

/// One CPU, as RDMSR and the kernel's tables have it after set-up; 16 words.
#[repr(C)]
pub struct CpuTruth {
    /// 1 once the CPU has set itself up.
    pub online: u64,
    pub cpu_id: u64,
    pub lapic_id: u64,
    pub efer: u64,
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub fmask: u64,
    pub fs_base: u64,
    pub gs_base: u64,
    pub kernel_gs_base: u64,
    pub gdt: u64,
    pub idt: u64,
    pub tss: u64,
    /// Pid of the running process, 0 while idle. Kept up to date, as is the next field.
    pub current_process: u64,
    /// Sequence number of the last system call that started on this CPU.
    pub last_sequence: u64,
}

/// One system call; 24 words.
#[repr(C)]
pub struct CallTruth {
    /// Counts from 1; call n is in `calls[n % 256]`.
    pub sequence: u64,
    pub state: u64,
    /// The CPU on which the call started.
    pub cpu: u64,
    pub process: u64,
    pub number: u64,
    pub arguments: [u64; 6],
    /// What the call returned, once `state` is `CALL_RETURNED`.
    pub result: u64,
    pub user_rip: u64,
    pub user_rsp: u64,
    pub user_rflags: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    /// Where the stub saved the frame, and the end of it (the top of the kernel stack).
    pub frame: u64,
    pub kernel_rsp: u64,
    pub reserved: u64,
}

/// The whole record.
#[repr(C)]
pub struct ExoTruth {
    pub magic: u64,
    pub version: u64,
    /// Sizes, so that a reader can walk the arrays of a later version: bytes of one `CpuTruth`, of one `CallTruth`.
    pub cpu_size: u64,
    pub call_size: u64,
    /// CPUs that are set up.
    pub cpu_count: u64,
    /// Sequence number of the last call that started anywhere.
    pub last_sequence: u64,
    pub cpus: [CpuTruth; MAX_CPUS],
    pub calls: [CallTruth; CALLS],
}

const NO_CPU: CpuTruth = CpuTruth {
    online: 0,
    cpu_id: 0,
    lapic_id: 0,
    efer: 0,
    star: 0,
    lstar: 0,
    cstar: 0,
    fmask: 0,
    fs_base: 0,
    gs_base: 0,
    kernel_gs_base: 0,
    gdt: 0,
    idt: 0,
    tss: 0,
    current_process: 0,
    last_sequence: 0,
};

const NO_CALL: CallTruth = CallTruth {
    sequence: 0,
    state: CALL_NONE,
    cpu: 0,
    process: 0,
    number: 0,
    arguments: [0; 6],
    result: 0,
    user_rip: 0,
    user_rsp: 0,
    user_rflags: 0,
    rbp: 0,
    rbx: 0,
    r12: 0,
    r13: 0,
    r14: 0,
    r15: 0,
    frame: 0,
    kernel_rsp: 0,
    reserved: 0,
};

#[no_mangle]
pub static mut EXO_TRUTH: ExoTruth = ExoTruth {
    magic: MAGIC,
    version: VERSION,
    cpu_size: size_of::<CpuTruth>() as u64,
    call_size: size_of::<CallTruth>() as u64,
    cpu_count: 0,
    last_sequence: 0,
    cpus: [NO_CPU; MAX_CPUS],
    calls: [NO_CALL; CALLS],
};

/// Writes down what this CPU's registers hold after set-up.
///
/// The number is passed, not read from the per-CPU block: in one variant two CPUs share a block.
pub fn note_cpu(cpu: usize) {
    let tables = gdt::loaded_tables();
    let truth = CpuTruth {
        online: 1,
        cpu_id: cpu as u64,
        lapic_id: crate::arch::apic::id(),
        efer: rdmsr(IA32_EFER),
        star: rdmsr(IA32_STAR),
        lstar: rdmsr(IA32_LSTAR),
        cstar: rdmsr(IA32_CSTAR),
        fmask: rdmsr(IA32_FMASK),
        fs_base: rdmsr(IA32_FS_BASE),
        gs_base: rdmsr(IA32_GS_BASE),
        kernel_gs_base: rdmsr(IA32_KERNEL_GS_BASE),
        gdt: tables.gdt,
        idt: tables.idt,
        tss: tables.tss,
        current_process: 0,
        last_sequence: 0,
    };
    // SAFETY: CPUs start one after the other, and each writes its own place.
    unsafe {
        addr_of_mut!(EXO_TRUTH.cpus[cpu]).write(truth);
        AtomicU64::from_ptr(&raw mut EXO_TRUTH.cpu_count).fetch_add(1, Ordering::Release);
    }
}

/// Writes down which process runs on a CPU.
pub fn note_current_process(cpu: usize, pid: u64) {
    // SAFETY: only the CPU itself writes its place.
    unsafe { addr_of_mut!(EXO_TRUTH.cpus[cpu].current_process).write_volatile(pid) };
}

/// A place of the ring that the calling CPU has for itself.
struct Place {
    call: *mut CallTruth,
    /// What `state` was before.
    state: u64,
}

impl Place {
    /// Takes the place of a call.
    ///
    /// A virtual CPU may stand still at any instruction for as long as the others need for 256 calls. So a place is
    /// written by one CPU at a time, which then looks whose it is.
    #[inline(always)]
    fn take(sequence: u64) -> Self {
        // SAFETY: the index is below CALLS, and `state` is only ever used as an atomic.
        unsafe {
            let call = addr_of_mut!(EXO_TRUTH.calls).cast::<CallTruth>().add(sequence as usize % CALLS);
            let lock = AtomicU64::from_ptr(addr_of_mut!((*call).state));
            loop {
                let state = lock.swap(CALL_BEING_WRITTEN, Ordering::Acquire);
                if state != CALL_BEING_WRITTEN {
                    return Place { call, state };
                }
                core::hint::spin_loop();
            }
        }
    }

    /// The call that the place belongs to; 0 if it was never used.
    #[inline(always)]
    fn sequence(&self) -> u64 {
        // SAFETY: the place is this CPU's.
        unsafe { addr_of_mut!((*self.call).sequence).read_volatile() }
    }

    /// Gives the place back.
    #[inline(always)]
    fn release(self, state: u64) {
        // SAFETY: as for `take`.
        unsafe { AtomicU64::from_ptr(addr_of_mut!((*self.call).state)) }.store(state, Ordering::Release);
    }
}

/// Writes down a system call that starts, and returns its sequence number.
///
/// Words are passed and stored one by one (volatile), so that no SSE register, which the user owns, is used for
/// it, not even without optimisation.
#[inline(always)]
pub fn begin_call(number: u64, a1: u64, a2: u64, a3: u64, a4: u64, a5: u64, a6: u64) -> u64 {
    let cpu = this_cpu();
    let frame = SyscallFrame::current();
    // SAFETY: the stub has just saved the frame, a process runs, every CPU has a record, and the place is this CPU's.
    unsafe {
        let sequence = AtomicU64::from_ptr(&raw mut EXO_TRUTH.last_sequence).fetch_add(1, Ordering::Relaxed) + 1;
        cpu.set_syscall_sequence(sequence);
        let cpu_truth = addr_of_mut!(EXO_TRUTH.cpus).cast::<CpuTruth>().add(cpu.cpu_id() as usize);
        addr_of_mut!((*cpu_truth).last_sequence).write_volatile(sequence);
        let place = Place::take(sequence);
        if place.sequence() > sequence {
            let state = place.state;
            place.release(state); // this CPU stood still, and the ring has gone on to a later call
            return sequence;
        }
        let call = place.call;
        macro_rules! store {
            ($($field:ident $([$index:literal])? = $value:expr),*) => {
                $( addr_of_mut!((*call).$field $([$index])?).write_volatile($value); )*
            };
        }
        store!(sequence = sequence, cpu = cpu.cpu_id(), process = (*cpu.current_process()).pid, number = number);
        store!(arguments[0] = a1, arguments[1] = a2, arguments[2] = a3);
        store!(arguments[3] = a4, arguments[4] = a5, arguments[5] = a6);
        store!(user_rip = (*frame).rcx, user_rsp = frame::user_rsp(), user_rflags = (*frame).r11);
        store!(rbp = (*frame).rbp, rbx = (*frame).rbx, r12 = (*frame).r12, r13 = (*frame).r13);
        store!(r14 = (*frame).r14, r15 = (*frame).r15, frame = frame as u64, kernel_rsp = cpu.kernel_rsp());
        place.release(CALL_IN_PROGRESS);
        sequence
    }
}

/// Writes down what a call returned, if the ring still remembers the call.
#[inline(always)]
pub fn end_call(sequence: u64, result: u64) {
    let place = Place::take(sequence);
    let mut state = place.state;
    if place.sequence() == sequence {
        // SAFETY: the place is this CPU's.
        unsafe { addr_of_mut!((*place.call).result).write_volatile(result) };
        state = CALL_RETURNED;
    }
    place.release(state);
}

/// Writes down that a process ended; the call it was in, if any, stays without a result.
pub fn note_no_return(sequence: u64, pid: u64) {
    let place = Place::take(sequence);
    let mut state = place.state;
    // SAFETY: the place is this CPU's.
    let process = unsafe { addr_of_mut!((*place.call).process).read_volatile() };
    if state == CALL_IN_PROGRESS && place.sequence() == sequence && process == pid {
        state = CALL_NEVER_RETURNS;
    }
    place.release(state);
}
