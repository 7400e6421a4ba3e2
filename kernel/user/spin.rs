//! `run=spin`: on every CPU, getpid as fast as it goes, and a rare number once every 65,536 calls.
//!
//! `rare=N` chooses the rare number (101 unless given). It is called with channel 0, so it fails at once.

#![no_std]
#![no_main]

use exo::numbers::{SYS_GETPID, SYS_IPC_SEND};
use exo::{calls, println, Arguments};

const PERIOD: u64 = 65_536;

#[no_mangle]
extern "C" fn program_main(arguments: &Arguments) -> i32 {
    let rare = arguments.number("rare").unwrap_or(SYS_IPC_SEND);
    let cpus = exo::read_device(c"/dev/cpus");
    println!("spin: {cpus} CPUs, number {rare} once every {PERIOD} calls");
    for _ in 1..cpus {
        if calls::fork() == 0 {
            break;
        }
    }
    spin(rare)
}

#[no_mangle]
#[inline(never)]
fn spin(rare: u64) -> ! {
    loop {
        for _ in 1..PERIOD {
            calls::syscall(SYS_GETPID, [0; 6]);
        }
        calls::syscall(rare, [0; 6]);
    }
}
