//! Checks of ipc_create, ipc_send, ipc_recv, ipc_close.

use crate::selftest_process::status_of;
use crate::{Checks, EAGAIN, EFAULT, EINVAL, EMSGSIZE, EPIPE, KERNEL_ADDRESS, UNMAPPED_ADDRESS};
use exo::calls::{self, syscall};
use exo::numbers::{SYS_IPC_RECV, SYS_IPC_SEND};

pub fn run(checks: &mut Checks) {
    check_messages(checks);
    check_bad_arguments(checks);
    check_blocking(checks);
    check_keys(checks);
    check_channel_limit(checks);
}

fn check_messages(checks: &mut Checks) {
    let channel = calls::ipc_create(0, 2) as u64;
    let mut buffer = [0; 16];
    checks.equal("send returns the length", calls::ipc_send(channel, b"hello"), 5);
    checks.equal("send an empty message", calls::ipc_send(channel, b""), 0);
    checks.equal("receive returns the length", calls::ipc_recv(channel, &mut buffer), 5);
    checks.holds("receive returns the bytes", &buffer[..5] == b"hello");
    checks.equal("receive an empty message", calls::ipc_recv(channel, &mut buffer), 0);
    let long = [7; 256];
    checks.equal("send the longest message", calls::ipc_send(channel, &long), 256);
    checks.equal("receive into a small buffer", calls::ipc_recv(channel, &mut buffer), EMSGSIZE);
    let mut large = [0; 256];
    checks.equal("the message is still there", calls::ipc_recv(channel, &mut large), 256);
    checks.holds("all of it", large == long);
    checks.equal("close", calls::ipc_close(channel), 0);
    checks.equal("close again", calls::ipc_close(channel), EPIPE);
    checks.equal("send to a closed channel", calls::ipc_send(channel, b"x"), EPIPE);
    checks.equal("receive from a closed channel", calls::ipc_recv(channel, &mut buffer), EPIPE);
}

fn check_bad_arguments(checks: &mut Checks) {
    checks.equal("create with capacity 0", calls::ipc_create(0, 0), EINVAL);
    checks.equal("create with capacity 17", calls::ipc_create(0, 17), EINVAL);
    let mut buffer = [0; 257];
    for channel in [0, 1, 31, 63, u64::MAX] {
        checks.equal("send to no channel", calls::ipc_send(channel, b"x"), EINVAL);
        checks.equal("receive from no channel", calls::ipc_recv(channel, &mut buffer), EINVAL);
        checks.equal("close no channel", calls::ipc_close(channel), EINVAL);
    }
    let channel = calls::ipc_create(0, 1) as u64;
    checks.equal("send a message too long", calls::ipc_send(channel, &buffer), EMSGSIZE);
    for address in [KERNEL_ADDRESS, UNMAPPED_ADDRESS, u64::MAX, 0] {
        checks.equal("send from a bad address", syscall(SYS_IPC_SEND, [channel, address, 8, 0, 0, 0]), EFAULT);
        checks.equal("receive to a bad address", syscall(SYS_IPC_RECV, [channel, address, 8, 0, 0, 0]), EFAULT);
    }
    calls::ipc_close(channel);
}

fn check_blocking(checks: &mut Checks) {
    let (request, answer) = (calls::ipc_create(0, 1) as u64, calls::ipc_create(0, 1) as u64);
    let rounds = 100;
    let pid = calls::fork();
    if pid == 0 {
        let mut byte = [0];
        for _ in 0..rounds {
            calls::ipc_recv(request, &mut byte);
            calls::ipc_send(answer, &[byte[0].wrapping_add(1)]);
        }
        calls::exit(0);
    }
    let mut byte = [0];
    let correct = (0..rounds).all(|round| {
        calls::ipc_send(request, &[round as u8]);
        calls::ipc_recv(answer, &mut byte) == 1 && byte[0] == (round as u8).wrapping_add(1)
    });
    checks.holds("100 questions and answers between two processes", correct);
    checks.equal("the other process ends", calls::wait(pid as u64, &mut 0), pid);
    calls::ipc_close(request);
    calls::ipc_close(answer);
    checks.equal(
        "close wakes a receiver with an error",
        closed_while(|channel| calls::ipc_recv(channel, &mut [0])),
        EPIPE,
    );
    let fill_and_send = |channel| {
        calls::ipc_send(channel, b"fills it");
        calls::ipc_send(channel, b"waits")
    };
    checks.equal("close wakes a sender with an error", closed_while(fill_and_send), EPIPE);
}

/// What `wait` returned in a child that was blocked on a channel which the parent then closed.
fn closed_while(wait: impl FnOnce(u64) -> i64) -> i64 {
    let (channel, about_to) = (calls::ipc_create(0, 1) as u64, calls::ipc_create(0, 1) as u64);
    let pid = calls::fork();
    if pid == 0 {
        calls::ipc_send(about_to, b"");
        calls::exit(-wait(channel) as i32);
    }
    calls::ipc_recv(about_to, &mut [0]);
    let clock = exo::Clock::open();
    (0..5).for_each(|_| drop_number(clock.wait())); // most likely the child is asleep by then; if not, it finds the channel closed
    clock.close();
    calls::ipc_close(channel);
    calls::ipc_close(about_to);
    let mut status = 0;
    calls::wait(pid as u64, &mut status);
    i64::from(-status)
}

fn drop_number(_: u64) {}

fn check_keys(checks: &mut Checks) {
    let channel = calls::ipc_create(0xfeed, 1);
    checks.equal("a key finds its channel", calls::ipc_create(0xfeed, 1), channel);
    let send = || calls::exit(calls::ipc_send(calls::ipc_create(0xfeed, 1) as u64, b"hi") as i32);
    checks.equal("a key finds it in another process", status_of(send), 2);
    calls::ipc_close(channel as u64);
    let in_child = || calls::exit(i32::from(calls::ipc_send(calls::ipc_create(0xbeef, 1) as u64, b"full") != 4));
    checks.equal("a child fills its channel", status_of(in_child), 0);
    let made_here = calls::ipc_create(0xbeef, 1);
    checks.equal("its key then names a new, empty channel", calls::ipc_send(made_here as u64, b"fits"), 4);
    checks.equal("an identifier is not used again", calls::ipc_send(channel as u64, b"x"), EPIPE);
    calls::ipc_close(made_here as u64);
}

fn check_channel_limit(checks: &mut Checks) {
    let mut made = [0_i64; 33];
    made.fill_with(|| calls::ipc_create(0, 1));
    checks.equal("create with a full table", made[32], EAGAIN);
    let closed = made[..32].iter().filter(|&&channel| calls::ipc_close(channel as u64) == 0).count();
    checks.equal("32 channels at a time", closed as i64, 32);
}
