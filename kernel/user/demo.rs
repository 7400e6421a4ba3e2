//! `run=demo`: a sender and a receiver on a channel, a worker for memory and files, and this program, which forks.
//!
//! Together they keep every system-call number happening at least once a second, and sleep in between.
//! `pace=none` takes the sleeping out. `calls=N` ends everything after N system calls and compares the free memory
//! with what it was: exit status 0 if nothing leaked.

#![no_std]
#![no_main]

use exo::{calls, line, println, Arguments, Clock};

const DEMO_KEY: u64 = 0x6f64_656d; // "demo"
const CAPACITY: u64 = 8;

/// Starts `/bin/NAME` with the channel and the pace as its arguments.
fn start(name: &str, channel: u64, pace: &str) {
    if calls::fork() == 0 {
        let (path, name) = (line!("/bin/{name}"), line!("{name}"));
        let (channel, pace) = (line!("channel={channel}"), line!("pace={pace}"));
        let arguments = [name.as_c_string(), channel.as_c_string(), pace.as_c_string()];
        let error = calls::exec(path.as_c_string(), &arguments);
        println!("demo: exec failed with {error}");
        calls::exit(1);
    }
}

/// One child that becomes `/bin/echo` and tells by its exit status how many arguments it got.
fn run_echo() -> bool {
    let child = calls::fork();
    if child == 0 {
        let arguments = [c"echo", c"status=3"].map(|text| text.as_ptr().cast());
        calls::exit(calls::exec(c"/bin/echo".as_ptr().cast(), &arguments) as i32);
    }
    let mut status = 0;
    child > 0 && calls::wait(child as u64, &mut status) == child && status == 3
}

#[no_mangle]
extern "C" fn program_main(arguments: &Arguments) -> i32 {
    let pace = arguments.option("pace").unwrap_or("ticks");
    let limit = arguments.number("calls");
    let clock = Clock::open();
    let free_before = exo::read_device(c"/dev/frames");
    let channel = calls::ipc_create(DEMO_KEY, CAPACITY) as u64;
    println!("demo: pid {}, channel {channel}", calls::getpid());
    for name in ["sender", "receiver", "worker"] {
        start(name, channel, pace);
    }
    loop {
        if !run_echo() {
            println!("demo: echo failed");
            return 1;
        }
        if limit.is_some_and(|limit| exo::read_device(c"/dev/calls") >= limit) {
            return finish(channel, free_before);
        }
        let start = clock.wait();
        while clock.wait() < start + 50 {}
    }
}

/// Ends the children by closing their channel and looks for leaks.
fn finish(channel: u64, free_before: u64) -> i32 {
    calls::ipc_close(channel);
    let mut status = 0;
    while calls::wait(0, &mut status) > 0 {}
    calls::close(calls::open(c"/tmp/worker".as_ptr().cast(), 0x201, 0) as i32);
    let free_after = exo::read_device(c"/dev/frames");
    let count = exo::read_device(c"/dev/calls");
    println!("demo: {count} calls, free frames {free_before} before, {free_after} after");
    i32::from(free_before != free_after)
}
