//! Checks of what a program can do to its CPU: the kernel survives it, and gives back what is the program's.

use crate::selftest_process::status_of;
use crate::{Checks, UNMAPPED_ADDRESS};
use core::arch::asm;
use exo::calls;
use exo::numbers::*;

const PAGE: u64 = 4096;
/// The highest page that a program can map; the next one would end at the hole.
const HIGHEST_PAGE: u64 = 0x7fff_ffff_e000;
const READ_WRITE: u64 = 3;
const READ_EXECUTE: u64 = 5;
const PRIVATE_ANONYMOUS_FIXED: u64 = 0x32;
const INVALID_OPCODE: i64 = 128 + 6;
const GENERAL_PROTECTION: i64 = 128 + 13;
const PAGE_FAULT: i64 = 128 + 14;
/// Long enough for several timer ticks.
const SPIN: u64 = 8_000_000;

pub fn run(checks: &mut Checks) {
    // `today` has a 32-bit code segment and a stub for it, after which #UD ends the process; other kernels have neither.
    let status = status_of(call_from_32_bit_code);
    checks.holds("SYSCALL in 32-bit code harms nobody", [GENERAL_PROTECTION, INVALID_OPCODE].contains(&status));
    checks.equal("calls with other segments in DS, ES, FS and GS", status_of(call_with_other_segments), 1);
    checks.equal("a fault with another segment in GS", status_of(fault_with_another_segment), INVALID_OPCODE);
    checks.equal("SYSCALL at the end of the highest page", status_of(call_at_the_highest_address), PAGE_FAULT);
    checks.equal("a fork with a stack pointer that is not canonical", fork_without_a_stack(), 7);
    check_state_over_calls(checks);
    check_state_over_switches(checks);
}

/// SYSCALL in compatibility mode goes to CSTAR, at CPL 0.
fn call_from_32_bit_code() {
    // SAFETY: the process dies of it, one way or the other. The bytes are `jmp far [rsp]` (a far return would not do: QEMU
    // takes its reads for the kernel's, which SMAP forbids), then `mov eax, 4; syscall; ud2`.
    unsafe {
        asm!(
            "sub rsp, 16",
            "lea rax, [rip + 2f]",
            "mov [rsp], eax",
            "mov word ptr [rsp + 4], 0x1b",
            ".byte 0xff, 0x2c, 0x24",
            "2:",
            ".byte 0xb8, 4, 0, 0, 0, 0x0f, 0x05, 0x0f, 0x0b",
            options(noreturn)
        );
    }
}

fn load_other_segments() {
    // SAFETY: no compiled code here uses FS or GS, and the bases of DS and ES are 0 in any case.
    unsafe {
        asm!("mov ds, {data:e}", "mov es, {data:e}", "mov fs, {data:e}", "mov gs, {data:e}", data = in(reg) 0x23_u64);
    }
}

fn call_with_other_segments() {
    load_other_segments();
    let before = calls::getpid();
    let clock = exo::Clock::open();
    let _ = clock.wait();
    calls::exit(i32::from(before > 0 && calls::getpid() == before));
}

fn fault_with_another_segment() {
    load_other_segments();
    // SAFETY: the process dies of it, which is the point.
    unsafe { asm!("ud2", options(noreturn)) };
}

/// rcx becomes the first address after the page: canonical, because the kernel keeps the last page empty.
fn call_at_the_highest_address() {
    calls::syscall(SYS_MMAP, [HIGHEST_PAGE, PAGE, READ_WRITE, PRIVATE_ANONYMOUS_FIXED, u64::MAX, 0]);
    let place = HIGHEST_PAGE + PAGE - 2;
    // SAFETY: the page has just been mapped, and the process dies at its end.
    unsafe {
        (place as *mut [u8; 2]).write_volatile([0x0f, 0x05]);
        calls::mprotect(HIGHEST_PAGE, PAGE, READ_EXECUTE);
        asm!("jmp {place}", place = in(reg) place, in("rax") SYS_GETPID, options(noreturn));
    }
}

/// The child begins, and meets the timer, with an rsp that nothing can be pushed to.
fn fork_without_a_stack() -> i64 {
    let pid: u64;
    // SAFETY: rsp is put back before anything uses it.
    unsafe {
        asm!("mov r12, rsp", "mov rsp, {wild}", "syscall", "2: dec {spin}", "jnz 2b", "mov rsp, r12",
             wild = in(reg) 0x8000_1234_5678_9abc_u64, spin = inout(reg) SPIN => _,
             inout("rax") SYS_FORK => pid, inout("rdi") 0_u64 => _, inout("rsi") 0_u64 => _, inout("rdx") 0_u64 => _,
             inout("r8") 0_u64 => _, inout("r9") 0_u64 => _, inout("r10") 0_u64 => _, out("rcx") _, out("r11") _,
             out("r12") _);
    }
    if pid == 0 {
        calls::exit(7);
    }
    let mut status = 0;
    calls::wait(pid, &mut status);
    i64::from(status)
}

/// x87 and SSE state as FXSAVE stores it.
#[repr(C, align(16))]
struct FxArea([u8; 512]);

impl FxArea {
    const fn new() -> Self {
        FxArea([0; 512])
    }

    /// All registers full of bytes that depend on a seed; both control words other than at the start.
    fn pattern(seed: u8) -> Self {
        let mut area = Self::new();
        area.0[..2].copy_from_slice(&0x0c7f_u16.to_le_bytes()); // FCW: rounds towards zero
        area.0[4] = 0xff; // all x87 registers in use
        area.0[24..28].copy_from_slice(&0x7f80_u32.to_le_bytes()); // MXCSR: rounds towards zero
        for register in 0..8 {
            area.0[32 + 16 * register..][..10].fill(seed.wrapping_add(register as u8));
        }
        for (index, byte) in area.0[160..416].iter_mut().enumerate() {
            *byte = seed.wrapping_mul(3).wrapping_add(index as u8);
        }
        area
    }

    /// Whether control words and registers are the same; FXSAVE stores other things, too.
    fn agrees(&self, other: &Self) -> bool {
        let same = |start: usize, length: usize| self.0[start..][..length] == other.0[start..][..length];
        same(0, 2) && same(24, 4) && (0..8).all(|register| same(32 + 16 * register, 10)) && same(160, 256)
    }
}

/// Whether the x87 and SSE state survives a call.
fn survives_call(number: u64, arguments: [u64; 6]) -> bool {
    let before = FxArea::pattern(number as u8 | 1);
    let (mut saved, mut after) = (FxArea::new(), FxArea::new());
    // SAFETY: the state is put back; the kernel checks what it is given, and the buffers lent to it are not looked at.
    unsafe {
        asm!("fxsave64 [r12]", "fxrstor64 [r13]", "syscall", "fxsave64 [r14]", "fxrstor64 [r12]",
             in("r12") &mut saved, in("r13") &before, in("r14") &mut after, inout("rax") number => _,
             inout("rdi") arguments[0] => _, inout("rsi") arguments[1] => _, inout("rdx") arguments[2] => _,
             inout("r10") arguments[3] => _, inout("r8") arguments[4] => _, inout("r9") arguments[5] => _,
             out("rcx") _, out("r11") _);
    }
    before.agrees(&after)
}

/// Every call that returns, on a path that works where that is possible.
fn check_state_over_calls(checks: &mut Checks) {
    let channel = calls::ipc_create(0, 1) as u64;
    let ticks = calls::open(c"/dev/ticks".as_ptr().cast(), 0, 0) as u64;
    let mut buffer = [0_u8; 64];
    let place = buffer.as_mut_ptr() as u64;
    let page = calls::mmap(PAGE, READ_WRITE) as u64;
    let cases: [(&str, u64, [u64; 3]); 15] = [
        ("x87 and SSE state over an unknown number", 999, [0; 3]),
        ("x87 and SSE state over exec", SYS_EXEC, [UNMAPPED_ADDRESS, 0, 0]),
        ("x87 and SSE state over wait", SYS_WAIT, [0; 3]),
        ("x87 and SSE state over getpid", SYS_GETPID, [0; 3]),
        ("x87 and SSE state over ipc_create", SYS_IPC_CREATE, [0, 0, 0]),
        ("x87 and SSE state over ipc_send", SYS_IPC_SEND, [channel, place, 64]),
        ("x87 and SSE state over ipc_recv", SYS_IPC_RECV, [channel, place, 64]),
        ("x87 and SSE state over ipc_close", SYS_IPC_CLOSE, [channel, 0, 0]),
        ("x87 and SSE state over mmap", SYS_MMAP, [0, PAGE, 8]),
        ("x87 and SSE state over mprotect", SYS_MPROTECT, [page, PAGE, 1]),
        ("x87 and SSE state over munmap", SYS_MUNMAP, [page, PAGE, 0]),
        ("x87 and SSE state over open", SYS_OPEN, [c"/none".as_ptr() as u64, 0, 0]),
        ("x87 and SSE state over a read that sleeps", SYS_READ, [ticks, place, 8]),
        ("x87 and SSE state over write", SYS_WRITE, [1, place, 0]),
        ("x87 and SSE state over close", SYS_CLOSE, [ticks, 0, 0]),
    ];
    for (what, number, [a, b, c]) in cases {
        checks.holds(what, survives_call(number, [a, b, c, 0, 0, 0]));
    }
}

/// Spins over several timer ticks and says whether the x87 and SSE state is still there.
fn survives_ticks(seed: u8) -> bool {
    let before = FxArea::pattern(seed);
    let (mut saved, mut after) = (FxArea::new(), FxArea::new());
    // SAFETY: the state is put back, and nothing else is changed.
    unsafe {
        asm!("fxsave64 [{saved}]", "fxrstor64 [{before}]", "2: dec {spin}", "jnz 2b", "fxsave64 [{after}]",
             "fxrstor64 [{saved}]", saved = in(reg) &mut saved, before = in(reg) &before, after = in(reg) &mut after,
             spin = inout(reg) SPIN => _);
    }
    before.agrees(&after)
}

/// More processes than CPUs, each with a state of its own, switched by the timer.
fn check_state_over_switches(checks: &mut Checks) {
    const CHILDREN: u8 = 5;
    for seed in 1..=CHILDREN {
        if calls::fork() == 0 {
            calls::exit(i32::from(!survives_ticks(seed * 16)));
        }
    }
    let mut kept = u8::from(survives_ticks(0xe0));
    let mut status = 0;
    while calls::wait(0, &mut status) > 0 {
        kept += u8::from(status == 0);
    }
    checks.equal("x87 and SSE state over switches of six processes", i64::from(kept), i64::from(CHILDREN) + 1);
}
