//! `run=selftest`: every call, good and bad, from ring 3.

#![no_std]
#![no_main]

use exo::{calls, println, Arguments};

#[no_mangle]
extern "C" fn program_main(_arguments: &Arguments) -> i32 {
    println!("selftest: getpid {}", calls::getpid());
    i32::from(calls::getpid() != 1)
}
