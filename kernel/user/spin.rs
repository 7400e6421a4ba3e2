//! `run=spin`: on every CPU, one call as fast as it goes, and a rare number once every 65,536 calls.
//!
//! `call=N` chooses the one (4, getpid, unless given) and `rare=N` the other (101). All their arguments are 0, so most
//! fail at once.

#![no_std]
#![no_main]

use exo::numbers::{SYS_GETPID, SYS_IPC_SEND};
use exo::{calls, println, Arguments};

const PERIOD: u64 = 65_536;

#[no_mangle]
extern "C" fn program_main(arguments: &Arguments) -> i32 {
    let call = arguments.number("call").unwrap_or(SYS_GETPID);
    let rare = arguments.number("rare").unwrap_or(SYS_IPC_SEND);
    let cpus = exo::read_device(c"/dev/cpus");
    println!("spin: {cpus} CPUs, number {rare} once every {PERIOD} calls");
    for _ in 1..cpus {
        if calls::fork() == 0 {
            break;
        }
    }
    spin(call, rare)
}

#[no_mangle]
#[inline(never)]
fn spin(call: u64, rare: u64) -> ! {
    loop {
        for _ in 1..PERIOD {
            calls::syscall(call, [0; 6]);
        }
        calls::syscall(rare, [0; 6]);
    }
}
