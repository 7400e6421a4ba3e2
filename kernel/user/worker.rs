//! Uses memory, files and a channel of its own four times a second; ends when the channel it is given is closed.

#![no_std]
#![no_main]

use exo::{calls, println, Arguments, Clock};

const PATH: &core::ffi::CStr = c"/tmp/worker";
const PAGES: u64 = 8192;
const READ: u64 = 1;
const READ_WRITE: u64 = 3;
const CREATE_READ_WRITE: u64 = 0x42;

/// One round; the result says whether every call did what it should.
fn work(round: u64) -> bool {
    let address = calls::mmap(PAGES, READ_WRITE);
    if address < 0 {
        return false;
    }
    // SAFETY: the two pages have just been mapped for reading and writing, and nobody else knows them.
    let kept = unsafe {
        let word = address as u64 as *mut u64;
        word.write_volatile(round);
        calls::mprotect(address as u64, PAGES, READ) == 0 && word.read_volatile() == round
    };
    let unmapped = calls::munmap(address as u64, PAGES) == 0;
    let descriptor = calls::open(PATH.as_ptr().cast(), CREATE_READ_WRITE, 0) as i32;
    let written = calls::write(descriptor, &round.to_le_bytes()) == 8 && calls::close(descriptor) == 0;
    let mut bytes = [0; 8];
    let descriptor = calls::open(PATH.as_ptr().cast(), 0, 0) as i32;
    let read = calls::read(descriptor, &mut bytes) == 8 && u64::from_le_bytes(bytes) == round;
    calls::close(descriptor);
    let channel = calls::ipc_create(0, 1) as u64;
    kept && unmapped && written && read && calls::ipc_close(channel) == 0 && calls::getpid() > 0
}

#[no_mangle]
extern "C" fn program_main(arguments: &Arguments) -> i32 {
    let channel = arguments.number("channel").unwrap_or(0);
    let paced = arguments.option("pace") != Some("none");
    let clock = Clock::open();
    for round in 0_u64.. {
        if !work(round) {
            println!("worker: round {round} failed");
            return 1;
        }
        if calls::ipc_send(channel, b"worker") < 0 {
            return 0;
        }
        if paced {
            let start = clock.wait();
            while clock.wait() < start + 25 {}
        }
    }
    unreachable!("the numbers ended")
}
