//! Checks of open, close, read, write, on files, devices and the console.

use crate::selftest_process::status_of;
use crate::{
    Checks, EACCES, EBADF, EFAULT, EINVAL, EMFILE, ENAMETOOLONG, ENOENT, ENOSPC, KERNEL_ADDRESS, UNMAPPED_ADDRESS,
};
use exo::calls::{self, syscall};
use exo::numbers::{SYS_OPEN, SYS_READ, SYS_WRITE};

const PATH: &core::ffi::CStr = c"/tmp/selftest";
const READ_ONLY: u64 = 0;
const WRITE_ONLY: u64 = 1;
const READ_WRITE: u64 = 2;
const CREATE: u64 = 0x40;
const TRUNCATE: u64 = 0x200;
const APPEND: u64 = 0x400;

fn open(path: &core::ffi::CStr, flags: u64) -> i64 {
    calls::open(path.as_ptr().cast(), flags, 0o644)
}

pub fn run(checks: &mut Checks) {
    check_contents(checks);
    check_descriptors(checks);
    check_bad_arguments(checks);
    check_devices(checks);
    check_limits(checks);
}

fn check_contents(checks: &mut Checks) {
    checks.equal("open of a missing file", open(PATH, READ_WRITE), ENOENT);
    let file = open(PATH, READ_WRITE | CREATE) as i32;
    checks.equal("the lowest free descriptor", i64::from(file), 3);
    checks.equal("write returns the length", calls::write(file, b"first line\n"), 11);
    let mut buffer = [0; 32];
    checks.equal("read at the end", calls::read(file, &mut buffer), 0);
    checks.equal("close", calls::close(file), 0);
    let file = open(PATH, WRITE_ONLY | APPEND) as i32;
    checks.equal("append", calls::write(file, b"second"), 6);
    checks.equal("read of a file open for writing", calls::read(file, &mut buffer), EBADF);
    calls::close(file);
    let file = open(PATH, READ_ONLY) as i32;
    checks.equal("read returns the length", calls::read(file, &mut buffer[..6]), 6);
    checks.equal("read goes on", calls::read(file, &mut buffer[6..]), 11);
    checks.holds("read returns the bytes", &buffer[..17] == b"first line\nsecond");
    checks.equal("write of a file open for reading", calls::write(file, b"x"), EBADF);
    calls::close(file);
    check_large(checks);
    check_hole(checks);
}

/// A file that was emptied while somebody stood far into it, and then went on: what was never written is zero.
fn check_hole(checks: &mut Checks) {
    let writer = open(PATH, READ_WRITE | TRUNCATE) as i32;
    let mut block = [7; 1000];
    let written: i64 = (0..9).map(|_| calls::write(writer, &block)).sum();
    checks.equal("write 9,000 bytes", written, 9000);
    calls::close(open(PATH, READ_WRITE | TRUNCATE) as i32);
    checks.equal("write far into an empty file", calls::write(writer, b"end"), 3);
    let reader = open(PATH, READ_ONLY) as i32;
    let zeros = (0..9).all(|_| calls::read(reader, &mut block) == 1000 && block == [0; 1000]);
    checks.holds("a hole in a file reads as zeros", zeros);
    checks.holds("what follows it was written", calls::read(reader, &mut block) == 3 && &block[..3] == b"end");
    calls::close(reader);
    calls::close(writer);
    calls::close(open(PATH, READ_WRITE | TRUNCATE) as i32);
}

fn check_large(checks: &mut Checks) {
    let file = open(PATH, READ_WRITE | TRUNCATE) as i32;
    let mut block = [0; 1000];
    let written = (0..65_u8).all(|number| {
        block.fill(number);
        calls::write(file, &block) == 1000
    });
    checks.holds("write 65,000 bytes", written);
    checks.equal("write beyond 64 KiB", calls::write(file, &block), ENOSPC);
    calls::close(file);
    let file = open(PATH, READ_ONLY) as i32;
    let read = (0..65_u8).all(|number| calls::read(file, &mut block) == 1000 && block == [number; 1000]);
    checks.holds("read 65,000 bytes", read);
    calls::close(file);
    calls::close(open(PATH, READ_WRITE | TRUNCATE) as i32);
}

fn check_descriptors(checks: &mut Checks) {
    let mut byte = [0];
    for descriptor in [-1, 3, 15, 16, i32::MAX, i32::MIN] {
        checks.equal("read of a bad descriptor", calls::read(descriptor, &mut byte), EBADF);
        checks.equal("write of a bad descriptor", calls::write(descriptor, &byte), EBADF);
        checks.equal("close of a bad descriptor", calls::close(descriptor), EBADF);
    }
    let file = open(PATH, READ_WRITE) as i32;
    calls::write(file, b"parent");
    let in_child = status_of(|| calls::exit(calls::write(file, b" and child") as i32));
    checks.equal("a child has its parent's descriptors", in_child, 10);
    checks.equal("the parent's is still open", calls::close(file), 0);
    let mut opened = [0_i64; 14];
    opened.fill_with(|| open(PATH, READ_ONLY));
    checks.equal("open with 16 files open", opened[13], EMFILE);
    checks.equal("the last of them", opened[12], 15);
    checks.equal("close them", opened[..13].iter().map(|&file| calls::close(file as i32)).sum(), 0);
    calls::close(open(PATH, READ_WRITE | TRUNCATE) as i32);
}

fn check_bad_arguments(checks: &mut Checks) {
    for address in [KERNEL_ADDRESS, UNMAPPED_ADDRESS, u64::MAX, 0] {
        checks.equal("open with a bad path", syscall(SYS_OPEN, [address, 0, 0, 0, 0, 0]), EFAULT);
        checks.equal("write from a bad address", syscall(SYS_WRITE, [1, address, 1, 0, 0, 0]), EFAULT);
        checks.equal("read to a bad address", syscall(SYS_READ, [0, address, 1, 0, 0, 0]), EFAULT);
    }
    let stack = &checks as *const _ as u64;
    let over_the_end = 0x7fff_ffff_0000 - stack + 1;
    checks.equal("write past the end of the stack", syscall(SYS_WRITE, [1, stack, over_the_end, 0, 0, 0]), EFAULT);
    checks.equal("read to program text", syscall(SYS_READ, [0, run as *const () as u64, 1, 0, 0, 0]), EFAULT);
    checks.equal("open with mode 3", open(PATH, 3), EINVAL);
    checks.equal("open a program for writing", open(c"/bin/echo", READ_WRITE), EACCES);
    checks.equal("open with an empty path", open(c"", READ_WRITE | CREATE), ENOENT);
    checks.equal("open with a long path", open(c"/tmp/a-name-of-more-than-32-bytes", CREATE), ENAMETOOLONG);
}

fn check_devices(checks: &mut Checks) {
    checks.equal("write to the console", calls::write(1, b"selftest: this line is a check\n"), 31);
    checks.equal("write nothing", calls::write(1, b""), 0);
    checks.equal("read from the console, when nobody types", calls::read(0, &mut [0; 4]), 0);
    let program = open(c"/bin/echo", READ_ONLY) as i32;
    let mut magic = [0; 4];
    checks.holds("a program can be read", calls::read(program, &mut magic) == 4 && &magic == b"\x7fELF");
    calls::close(program);
    let clock = exo::Clock::open();
    let (first, second) = (clock.wait(), clock.wait());
    checks.holds("ticks go forward", second > first);
    clock.close();
    checks.holds("the system-call count grows", {
        let before = exo::read_device(c"/dev/calls");
        exo::read_device(c"/dev/calls") >= before + 3
    });
}

/// Files until there is no place; they stay, empty, so this check comes last.
fn check_limits(checks: &mut Checks) {
    let mut result = 0;
    let mut number = 0;
    while result >= 0 && number < 64 {
        let path = exo::line!("/tmp/{number}");
        result = calls::open(path.as_c_string(), READ_WRITE | CREATE, 0);
        calls::close(result as i32);
        number += 1;
    }
    checks.equal("create with no place left", result, ENOSPC);
}
