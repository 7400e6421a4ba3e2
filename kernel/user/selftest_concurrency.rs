//! Checks of many processes at once: no message is lost, nobody sleeps for ever, and no CPU keeps a stale translation.

use crate::selftest_process::status_of;
use crate::{Checks, EPIPE};
use exo::calls::{self, syscall};
use exo::numbers::{SYS_MMAP, SYS_WAIT};

const PAGE: u64 = 4096;
const READ_WRITE: u64 = 3;
const PRIVATE_ANONYMOUS_FIXED: u64 = 0x32;
const PEERS: u64 = 4;
const MESSAGES: u64 = 24;
/// Ticks in which everybody who is about to sleep does so, also on a busy host, and after which nobody is waited for.
const SETTLE: usize = 5;
const PATIENCE: usize = 500;

pub fn run(checks: &mut Checks) {
    check_messages(checks);
    check_closing(checks);
    check_end_of_the_maker(checks);
    check_orphans(checks);
    check_forks(checks);
    check_translations(checks);
}

/// Forks a child that runs `child` and ends with its result.
fn start(child: impl FnOnce() -> i64) {
    if calls::fork() == 0 {
        calls::exit(child() as i32);
    }
}

/// Waits for `count` children and says how many of them ended with `status`.
fn count_status(count: u64, status: i64) -> i64 {
    let mut found = 0;
    (0..count).filter(|_| calls::wait(0, &mut found) > 0 && i64::from(found) == status).count() as i64
}

fn send_number(channel: u64, number: u64) -> i64 {
    calls::ipc_send(channel, &number.to_le_bytes())
}

fn receive_number(channel: u64) -> u64 {
    let mut bytes = [0; 8];
    if calls::ipc_recv(channel, &mut bytes) == 8 {
        u64::from_le_bytes(bytes)
    } else {
        u64::MAX
    }
}

fn settle() {
    let clock = exo::Clock::open();
    for _ in 0..SETTLE {
        clock.wait();
    }
    clock.close();
}

/// As many senders as receivers on one small channel: every number arrives once.
fn check_messages(checks: &mut Checks) {
    let (channel, sums) = (calls::ipc_create(0, 2) as u64, calls::ipc_create(0, 1) as u64);
    for peer in 0..PEERS {
        start(|| (0..MESSAGES).map(|number| send_number(channel, peer * MESSAGES + number) - 8).sum());
        start(|| send_number(sums, (0..MESSAGES).map(|_| receive_number(channel)).fold(0, u64::wrapping_add)) - 8);
    }
    let sum = (0..PEERS).map(|_| receive_number(sums)).fold(0, u64::wrapping_add);
    let all = PEERS * MESSAGES;
    checks.equal(
        "four senders, four receivers, one channel: every message once",
        sum as i64,
        (all * (all - 1) / 2) as i64,
    );
    checks.equal("all of them end", count_status(2 * PEERS, 0), 2 * PEERS as i64);
    calls::ipc_close(channel);
    calls::ipc_close(sums);
}

/// Forks children that tell `ready` and then wait at `channel`: receivers, or senders of a second message.
fn start_waiting(channel: u64, ready: u64, sending: bool) {
    for _ in 0..PEERS {
        start(|| {
            send_number(ready, 0);
            let result = if sending { send_number(channel, 0) } else { calls::ipc_recv(channel, &mut [0; 8]) };
            -result
        });
    }
    (0..PEERS).for_each(|_| drop_number(receive_number(ready)));
    settle();
}

fn drop_number(_: u64) {}

fn check_closing(checks: &mut Checks) {
    let ready = calls::ipc_create(0, 1) as u64;
    for (sending, what) in [(false, "close wakes every receiver"), (true, "close wakes every sender")] {
        let channel = calls::ipc_create(0, 1) as u64;
        if sending {
            send_number(channel, 0);
        }
        start_waiting(channel, ready, sending);
        calls::ipc_close(channel);
        checks.equal(what, count_status(PEERS, -EPIPE), PEERS as i64);
    }
    calls::ipc_close(ready);
}

/// A channel ends with the process that made it, and whoever waits at it is told.
fn check_end_of_the_maker(checks: &mut Checks) {
    let (ready, go) = (calls::ipc_create(0, 1) as u64, calls::ipc_create(0, 1) as u64);
    start(|| {
        send_number(ready, calls::ipc_create(0, 1) as u64);
        receive_number(go);
        -EPIPE
    });
    let channel = receive_number(ready);
    start_waiting(channel, ready, false);
    send_number(go, 0);
    checks.equal("the maker's end wakes who waits at its channel", count_status(PEERS + 1, -EPIPE), 1 + PEERS as i64);
    checks.equal("its channel is closed", send_number(channel, 0), EPIPE);
    calls::ipc_close(ready);
    calls::ipc_close(go);
}

/// Children whose parent has ended while they slept: nobody waits for them, and nothing of them stays.
fn check_orphans(checks: &mut Checks) {
    let free_before = exo::read_device(c"/dev/frames");
    let (channel, ready) = (calls::ipc_create(0, 1) as u64, calls::ipc_create(0, 1) as u64);
    checks.equal("a parent ends before its children", status_of(|| start_waiting(channel, ready, false)), 0);
    calls::ipc_close(channel);
    calls::ipc_close(ready);
    let clock = exo::Clock::open();
    let gone = (0..PATIENCE).any(|_| clock.wait() > 0 && exo::read_device(c"/dev/frames") == free_before);
    clock.close();
    checks.holds("nothing stays of children without a parent", gone);
}

/// Several processes that fork and wait at the same time.
fn check_forks(checks: &mut Checks) {
    for peer in 0..PEERS as i64 {
        start(|| {
            let correct =
                (0..5).all(|round| status_of(|| calls::exit((10 * peer + round) as i32)) == 10 * peer + round);
            i64::from(!correct || syscall(SYS_WAIT, [0; 6]) > 0)
        });
    }
    checks.equal("four processes fork and wait at once", count_status(PEERS, 0), PEERS as i64);
}

/// Two processes that wake each other, so that both move between CPUs, and map a place anew in between.
fn check_translations(checks: &mut Checks) {
    let (there, back) = (calls::ipc_create(0, 1) as u64, calls::ipc_create(0, 1) as u64);
    start(|| i64::from(!maps_anew(there, back)));
    start(|| {
        send_number(there, 0);
        i64::from(!maps_anew(back, there))
    });
    checks.equal("a place mapped anew is empty on every CPU", count_status(2, 0), 2);
    calls::ipc_close(there);
    calls::ipc_close(back);
}

fn maps_anew(mine: u64, other: u64) -> bool {
    const PLACE: u64 = 0x6100_0000_0000;
    let word = PLACE as *mut u64;
    (1..=MESSAGES).all(|round| {
        let mapped = syscall(SYS_MMAP, [PLACE, PAGE, READ_WRITE, PRIVATE_ANONYMOUS_FIXED, u64::MAX, 0]);
        // SAFETY: the page has just been mapped, and nobody else knows it.
        let empty = mapped == PLACE as i64 && unsafe { word.read_volatile() } == 0;
        // SAFETY: as above.
        unsafe { word.write_volatile(round) };
        receive_number(mine);
        // SAFETY: as above.
        let kept = unsafe { word.read_volatile() } == round;
        empty && kept && calls::munmap(PLACE, PAGE) == 0 && send_number(other, round) == 8
    })
}
