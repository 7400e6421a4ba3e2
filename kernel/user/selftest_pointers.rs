//! Checks of pointers: every call that takes one, with every kind of bad one. What fails must leave no trace.

use crate::selftest_process::status_of;
use crate::{Checks, E2BIG, EACCES, EFAULT, EINVAL, EMSGSIZE, ENOMEM, KERNEL_ADDRESS, UNMAPPED_ADDRESS};
use exo::calls::{self, syscall};
use exo::numbers::*;
use exo::println;

const PAGE: u64 = 4096;
const READ: u64 = 1;
const READ_WRITE: u64 = 3;
const WRITE_EXECUTE: u64 = 6;
const PRIVATE_ANONYMOUS_FIXED: u64 = 0x32;
/// Bytes that each call is asked to read or write.
const SIZE: u64 = 8;
const FILL: u8 = b'x';
const MESSAGE: &[u8; 8] = b"messages";
const ECHO: &core::ffi::CStr = c"/bin/echo";

/// Seven pages: writable, hole, writable, inaccessible, writable, read-only, hole.
const PLACE: u64 = 0x6000_0000_0000;
const BEFORE_HOLE: u64 = PLACE + PAGE - SIZE / 2;
const BEFORE_INACCESSIBLE: u64 = PLACE + 3 * PAGE - SIZE / 2;
const INACCESSIBLE: u64 = PLACE + 3 * PAGE;
const BEFORE_READ_ONLY: u64 = PLACE + 5 * PAGE - SIZE / 2;
const READ_ONLY: u64 = PLACE + 5 * PAGE;

/// Where nothing can be read.
const BAD_SOURCES: [u64; 14] = [
    1,
    UNMAPPED_ADDRESS,
    BEFORE_HOLE,
    BEFORE_INACCESSIBLE,
    INACCESSIBLE,
    0x7fff_ffff_f000,      // the last page of the user's half, which the kernel keeps empty
    0x7fff_ffff_fffc,      // over the end of the user's half
    0x0000_8000_0000_0000, // not canonical
    0xffff_7fff_ffff_fffc, // not canonical, and over the beginning of the kernel's half
    0xffff_8880_0000_0000, // the physical map
    KERNEL_ADDRESS,
    0xffff_ffff_c000_0000, // the local APIC
    u64::MAX - 3,          // over the end of all addresses
    u64::MAX,
];
/// Where something can be read, but not written.
const BAD_TARGETS: [u64; 3] = [BEFORE_READ_ONLY, READ_ONLY, READ_ONLY + PAGE - SIZE];

pub fn run(checks: &mut Checks) {
    map_pages();
    check_sources(checks);
    check_targets(checks);
    check_lengths(checks);
    check_protection(checks);
    for page in [0, 2, 3, 4, 5] {
        calls::munmap(PLACE + page * PAGE, PAGE);
    }
}

fn map_pages() {
    for page in [0, 2, 3, 4, 5] {
        let address = PLACE + page * PAGE;
        syscall(SYS_MMAP, [address, PAGE, READ_WRITE, PRIVATE_ANONYMOUS_FIXED, u64::MAX, 0]);
        // SAFETY: the page has just been mapped, and nobody else knows it.
        unsafe { (address as *mut u8).write_bytes(FILL, PAGE as usize) };
    }
    calls::mprotect(INACCESSIBLE, PAGE, 0);
    calls::mprotect(READ_ONLY, PAGE, READ);
}

/// The first result that is not EFAULT, with a line that says where; EFAULT if there is none.
fn first_other(pointers: impl IntoIterator<Item = u64>, mut call: impl FnMut(u64) -> i64) -> i64 {
    for pointer in pointers {
        let result = call(pointer);
        if result != EFAULT {
            println!("selftest: with the pointer {pointer:#x}:");
            return result;
        }
    }
    EFAULT
}

fn check_sources(checks: &mut Checks) {
    let channel = calls::ipc_create(0, 1) as u64;
    let echo = ECHO.as_ptr() as u64;
    let exec = |path, argv, count| syscall(SYS_EXEC, [path, argv, count, 0, 0, 0]);
    let mut check = |what, call: &dyn Fn(u64) -> i64| checks.equal(what, first_other(BAD_SOURCES, call), EFAULT);
    check("exec with every bad path", &|pointer| exec(pointer, 0, 0));
    check("exec with every bad argument vector", &|pointer| exec(echo, pointer, 1));
    check("exec with every bad argument", &|pointer| exec(echo, &raw const pointer as u64, 1));
    check("open with every bad path", &|pointer| syscall(SYS_OPEN, [pointer, 0x42, 0, 0, 0, 0]));
    check("write from every bad address", &|pointer| syscall(SYS_WRITE, [1, pointer, SIZE, 0, 0, 0]));
    check("send from every bad address", &|pointer| syscall(SYS_IPC_SEND, [channel, pointer, SIZE, 0, 0, 0]));
    calls::ipc_send(channel, b"fills it");
    check("send from every bad address, when full", &|pointer| {
        syscall(SYS_IPC_SEND, [channel, pointer, SIZE, 0, 0, 0])
    });
    calls::ipc_close(channel);
}

fn check_targets(checks: &mut Checks) {
    let channel = calls::ipc_create(0, 1) as u64;
    let device = calls::open(c"/dev/cpus".as_ptr().cast(), 0, 0) as u64;
    let program = calls::open(ECHO.as_ptr().cast(), 0, 0) as u64;
    let text = [run as *const () as u64];
    let targets = || BAD_SOURCES.into_iter().chain(BAD_TARGETS).chain(text);
    let receive = |pointer| syscall(SYS_IPC_RECV, [channel, pointer, SIZE, 0, 0, 0]);
    let mut check = |what, call: &dyn Fn(u64) -> i64| checks.equal(what, first_other(targets(), call), EFAULT);
    check("receive to every bad address, when empty", &receive);
    calls::ipc_send(channel, MESSAGE);
    check("receive to every bad address", &receive);
    check("read from a device to every bad address", &|pointer| syscall(SYS_READ, [device, pointer, SIZE, 0, 0, 0]));
    check("read from a file to every bad address", &|pointer| syscall(SYS_READ, [program, pointer, SIZE, 0, 0, 0]));
    let child = calls::fork();
    if child == 0 {
        calls::exit(3);
    }
    // A status has four bytes: two of them before the end of a page.
    let shorter = |pointer: u64| if pointer % PAGE == PAGE - SIZE / 2 { pointer + 2 } else { pointer };
    check("wait with every bad pointer", &|pointer| syscall(SYS_WAIT, [0, shorter(pointer), 0, 0, 0, 0]));
    let mut status = 0;
    checks.equal("the child is still there", calls::wait(0, &mut status), child);
    check_kept(checks, channel, program);
    for descriptor in [device, program] {
        calls::close(descriptor as i32);
    }
    calls::ipc_close(channel);
}

/// What the calls that failed must have left as it was.
fn check_kept(checks: &mut Checks, channel: u64, program: u64) {
    let mut buffer = [0; SIZE as usize];
    checks.equal("the message is still there", calls::ipc_recv(channel, &mut buffer), SIZE as i64);
    checks.holds("all of the message", &buffer == MESSAGE);
    calls::read(program as i32, &mut buffer);
    checks.holds("the file's offset is where it was", buffer.starts_with(b"\x7fELF"));
    let kept = [BEFORE_HOLE, BEFORE_INACCESSIBLE, BEFORE_READ_ONLY].into_iter().all(|start| {
        // SAFETY: the last bytes of the writable pages.
        (start..start + SIZE / 2).all(|place| unsafe { *(place as *const u8) } == FILL)
    });
    checks.holds("nothing was written up to the end of a page", kept);
}

fn check_lengths(checks: &mut Checks) {
    let channel = calls::ipc_create(0, 1) as u64;
    let send = syscall(SYS_IPC_SEND, [channel, PLACE, u64::MAX, 0, 0, 0]);
    checks.equal("send as long as can be", send, EMSGSIZE);
    calls::ipc_send(channel, MESSAGE);
    let receive = syscall(SYS_IPC_RECV, [channel, PLACE, u64::MAX, 0, 0, 0]);
    checks.equal("receive into a buffer said to be endless", receive, SIZE as i64);
    calls::ipc_close(channel);
    checks.equal("write as much as can be", syscall(SYS_WRITE, [1, PLACE, u64::MAX, 0, 0, 0]), EFAULT);
    checks.equal("read as much as can be", syscall(SYS_READ, [0, PLACE, u64::MAX, 0, 0, 0]), EFAULT);
    let exec = syscall(SYS_EXEC, [ECHO.as_ptr() as u64, PLACE, u64::MAX, 0, 0, 0]);
    checks.equal("exec with endless arguments", exec, E2BIG);
    let ranges = [
        (PLACE, u64::MAX),
        (PLACE, u64::MAX - PAGE + 1),
        (PLACE, 0u64.wrapping_sub(PLACE)),
        (0x7fff_ffff_e000, 2 * PAGE),
        (0u64.wrapping_sub(PAGE), PAGE),
        (0u64.wrapping_sub(PAGE), 2 * PAGE),
    ];
    let refused = ranges.iter().all(|&(address, length)| {
        let fixed = syscall(SYS_MMAP, [address, length, READ, PRIVATE_ANONYMOUS_FIXED, u64::MAX, 0]);
        let unmapped = calls::munmap(address, length);
        [EINVAL, ENOMEM].contains(&fixed) && unmapped == EINVAL && calls::mprotect(address, length, READ) == EINVAL
    });
    checks.holds("ranges that leave the user's half or wrap around are refused", refused);
}

/// Writable and executable at once, and a range with a hole: refused as a whole.
fn check_protection(checks: &mut Checks) {
    checks.equal("mprotect to W and X without R", calls::mprotect(PLACE, PAGE, WRITE_EXECUTE), EACCES);
    checks.equal("mprotect with an unknown bit", calls::mprotect(PLACE, PAGE, READ | 8), EINVAL);
    checks.equal("mprotect over a hole", calls::mprotect(PLACE, 3 * PAGE, READ), ENOMEM);
    checks.equal("munmap over a hole", calls::munmap(PLACE, 3 * PAGE), EINVAL);
    // SAFETY: the page is this process's own, or the store faults, which is what the check looks for.
    let store = || unsafe { (PLACE as *mut u8).write_volatile(FILL) };
    checks.equal("neither changed the page before the hole", status_of(store), 0);
}
