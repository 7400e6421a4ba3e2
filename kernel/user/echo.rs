//! Ends with the exit status that its argument `status=N` asks for; with `print=1` it prints its arguments first.

#![no_std]
#![no_main]

use exo::{println, Arguments};

#[no_mangle]
extern "C" fn program_main(arguments: &Arguments) -> i32 {
    if arguments.number("print") == Some(1) {
        for index in 0..arguments.count() {
            println!("echo: {}", arguments.get(index).unwrap_or("?"));
        }
    }
    arguments.number("status").map_or(arguments.count() as i32, |status| status as i32)
}
