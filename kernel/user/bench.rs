//! `run=bench`: what a call costs, from SYSCALL to the next user instruction, in TSC ticks.
//!
//! Under `-icount shift=0` one tick is one instruction, exactly. Ticks of the two RDTSC are taken off.

#![no_std]
#![no_main]

use core::arch::x86_64::_rdtsc;
use exo::numbers::*;
use exo::{calls, println, Arguments};

const ROUNDS: usize = 1001;
const KEY: u64 = 0;

/// Minimum, median and maximum of the ticks that `operation` takes, without those of measuring.
fn measure(mut operation: impl FnMut()) -> [u64; 3] {
    let mut samples = [0_u64; ROUNDS];
    for sample in &mut samples {
        // SAFETY: RDTSC is always allowed here.
        let start = unsafe { _rdtsc() };
        operation();
        // SAFETY: as above.
        *sample = unsafe { _rdtsc() } - start;
    }
    samples.sort_unstable();
    [samples[0], samples[ROUNDS / 2], samples[ROUNDS - 1]]
}

fn report(name: &str, idle: u64, ticks: [u64; 3]) {
    let [minimum, median, maximum] = ticks.map(|ticks| ticks.saturating_sub(idle));
    println!("bench: {name:<28} {minimum:>8} {median:>8} {maximum:>8}");
}

#[no_mangle]
extern "C" fn program_main(_arguments: &Arguments) -> i32 {
    let channel = calls::ipc_create(KEY, 4) as u64;
    let message = [0x55_u8; 8];
    let mut buffer = [0_u8; 8];
    let (sent, received) = (message.as_ptr() as u64, buffer.as_mut_ptr() as u64);
    // Without touching the pages first, nothing would differ: pages are there from the start.
    let idle = measure(|| ())[0];
    println!("bench: {:<28} {:>8} {:>8} {:>8}", "ticks", "minimum", "median", "maximum");
    report(
        "unknown number",
        idle,
        measure(|| {
            let _ = calls::syscall(u64::MAX, [0; 6]);
        }),
    );
    report(
        "getpid",
        idle,
        measure(|| {
            let _ = calls::syscall(SYS_GETPID, [0; 6]);
        }),
    );
    let send = || {
        let _ = calls::syscall(SYS_IPC_SEND, [channel, sent, 8, 0, 0, 0]);
    };
    let receive = || {
        let _ = calls::syscall(SYS_IPC_RECV, [channel, received, 8, 0, 0, 0]);
    };
    report(
        "ipc_send + ipc_recv, 8 bytes",
        idle,
        measure(|| {
            send();
            receive();
        }),
    );
    report("ipc_send, 8 bytes", idle, measure_between(send, receive));
    report("ipc_recv, 8 bytes", idle, measure_between_after(send, receive));
    0
}

/// As [`measure`], with something to undo the operation after each sample.
fn measure_between(operation: impl Fn(), undo: impl Fn()) -> [u64; 3] {
    let mut samples = [0_u64; ROUNDS];
    for sample in &mut samples {
        // SAFETY: RDTSC is always allowed here.
        let start = unsafe { _rdtsc() };
        operation();
        // SAFETY: as above.
        *sample = unsafe { _rdtsc() } - start;
        undo();
    }
    samples.sort_unstable();
    [samples[0], samples[ROUNDS / 2], samples[ROUNDS - 1]]
}

/// As [`measure`], with something to prepare the operation before each sample.
fn measure_between_after(prepare: impl Fn(), operation: impl Fn()) -> [u64; 3] {
    let mut samples = [0_u64; ROUNDS];
    for sample in &mut samples {
        prepare();
        // SAFETY: RDTSC is always allowed here.
        let start = unsafe { _rdtsc() };
        operation();
        // SAFETY: as above.
        *sample = unsafe { _rdtsc() } - start;
    }
    samples.sort_unstable();
    [samples[0], samples[ROUNDS / 2], samples[ROUNDS - 1]]
}
