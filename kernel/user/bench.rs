//! `run=bench`: what a call costs, from SYSCALL to the next user instruction, in TSC ticks.
//!
//! Under `-icount shift=0` one tick is one instruction, exactly: SYSCALL and SYSRET count, what measuring takes does not.

#![no_std]
#![no_main]

use core::arch::asm;
use exo::numbers::*;
use exo::{calls, println, Arguments};

const ROUNDS: usize = 1001;

/// Ticks from just before SYSCALL to just after its return, measuring included.
macro_rules! ticks {
    ($syscall:literal, $number:expr, $arguments:expr) => {{
        let ticks: u64;
        // SAFETY: the kernel checks what it is given; the buffers named here live as long as the measurement.
        unsafe {
            asm!(
                "rdtsc", "mov r12d, eax", "mov rax, r13", "mov rdx, r14",
                $syscall,
                "rdtsc", "sub eax, r12d",
                out("rax") ticks, out("r12") _, in("r13") $number, in("r14") $arguments[2],
                inout("rdi") $arguments[0] => _, inout("rsi") $arguments[1] => _, out("rdx") _,
                inout("r10") $arguments[3] => _, inout("r8") $arguments[4] => _, inout("r9") $arguments[5] => _,
                out("rcx") _, out("r11") _,
            );
        }
        ticks & 0xffff_ffff
    }};
}

/// Minimum, median and maximum of what `sample` gives.
fn measure(mut sample: impl FnMut() -> u64) -> [u64; 3] {
    let mut samples = [0_u64; ROUNDS];
    samples.fill_with(&mut sample);
    samples.sort_unstable();
    [samples[0], samples[ROUNDS / 2], samples[ROUNDS - 1]]
}

fn report(name: &str, ticks: [u64; 3]) {
    let measuring = measure(|| ticks!("", 0_u64, [0_u64; 6]))[0];
    let [minimum, median, maximum] = ticks.map(|ticks| ticks.saturating_sub(measuring));
    println!("bench: {name:<24} {minimum:>8} {median:>8} {maximum:>8}");
}

#[no_mangle]
extern "C" fn program_main(_arguments: &Arguments) -> i32 {
    let channel = calls::ipc_create(0, 4) as u64;
    let message = [0x55_u8; 8];
    let mut buffer = [0_u8; 8];
    let send = [channel, message.as_ptr() as u64, 8, 0, 0, 0];
    let receive = [channel, buffer.as_mut_ptr() as u64, 8, 0, 0, 0];
    println!("bench: {:<24} {:>8} {:>8} {:>8}", "ticks", "minimum", "median", "maximum");
    report("unknown number", measure(|| ticks!("syscall", u64::MAX, [0_u64; 6])));
    report("getpid", measure(|| ticks!("syscall", SYS_GETPID, [0_u64; 6])));
    let sending = measure(|| {
        let ticks = ticks!("syscall", SYS_IPC_SEND, send);
        calls::syscall(SYS_IPC_RECV, receive);
        ticks
    });
    report("ipc_send, 8 bytes", sending);
    let receiving = measure(|| {
        calls::syscall(SYS_IPC_SEND, send);
        ticks!("syscall", SYS_IPC_RECV, receive)
    });
    report("ipc_recv, 8 bytes", receiving);
    println!("bench: the design says: a call ~50 cycles, IPC ~100; of Linux: a call ~100, IPC ~1200");
    i32::from(buffer != message)
}
