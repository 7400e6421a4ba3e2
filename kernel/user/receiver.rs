//! Receives from the channel it is given and prints how many messages came; ends when the channel is closed.

#![no_std]
#![no_main]

use exo::{calls, println, Arguments};

#[no_mangle]
extern "C" fn program_main(arguments: &Arguments) -> i32 {
    let Some(channel) = arguments.number("channel") else {
        println!("receiver: which channel?");
        return 2;
    };
    let report_every = if arguments.option("pace") == Some("none") { 1_000_000 } else { 1024 };
    let mut buffer = [0; 256];
    for count in 1_u64.. {
        let length = calls::ipc_recv(channel, &mut buffer);
        if length < 0 {
            return 0;
        }
        if count % report_every == 0 {
            let text = core::str::from_utf8(&buffer[..length as usize]).unwrap_or("?");
            println!("receiver: {count} messages, the last is \"{text}\"");
        }
    }
    unreachable!("the numbers ended")
}
