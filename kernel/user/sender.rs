//! Sends numbered messages on the channel it is given, 16 of them each tick; ends when the channel is closed.

#![no_std]
#![no_main]

use exo::{calls, line, println, Arguments, Clock};

const BURST: u64 = 16;

#[no_mangle]
extern "C" fn program_main(arguments: &Arguments) -> i32 {
    let Some(channel) = arguments.number("channel") else {
        println!("sender: which channel?");
        return 2;
    };
    let paced = arguments.option("pace") != Some("none");
    let clock = Clock::open();
    for number in 0_u64.. {
        if calls::ipc_send(channel, line!("message {number}").as_bytes()) < 0 {
            return 0;
        }
        if paced && number % BURST == BURST - 1 {
            clock.wait();
        }
    }
    unreachable!("the numbers ended")
}
