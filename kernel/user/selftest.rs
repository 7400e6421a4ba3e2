//! `run=selftest`: every call, good and bad, from ring 3.
//!
//! One line for each check, then `selftest: N passed, M failed`; the exit status is 0 if none failed.

#![no_std]
#![no_main]

mod selftest_concurrency;
mod selftest_cpu;
mod selftest_files;
mod selftest_ipc;
mod selftest_memory;
mod selftest_pointers;
mod selftest_process;

use exo::{println, Arguments};

// Errors as the kernel returns them (kernel/README.md).
pub const ENOENT: i64 = -2;
pub const E2BIG: i64 = -7;
pub const EBADF: i64 = -9;
pub const ECHILD: i64 = -10;
pub const EAGAIN: i64 = -11;
pub const ENOMEM: i64 = -12;
pub const EACCES: i64 = -13;
pub const EFAULT: i64 = -14;
pub const EEXIST: i64 = -17;
pub const EINVAL: i64 = -22;
pub const EMFILE: i64 = -24;
pub const ENOSPC: i64 = -28;
pub const EPIPE: i64 = -32;
pub const ENAMETOOLONG: i64 = -36;
pub const EMSGSIZE: i64 = -90;

/// An address in the kernel's half, and one in the user's half where nothing is mapped.
pub const KERNEL_ADDRESS: u64 = 0xffff_ffff_8010_0000;
pub const UNMAPPED_ADDRESS: u64 = 0x4000_0000;

/// Counts checks and prints each.
pub struct Checks {
    passed: u32,
    failed: u32,
}

impl Checks {
    /// Notes whether `found` is what it should be.
    pub fn equal(&mut self, what: &str, found: i64, expected: i64) {
        if found == expected {
            self.passed += 1;
            println!("selftest: ok: {what}");
        } else {
            self.failed += 1;
            println!("selftest: FAILED: {what}: {found}, expected {expected}");
        }
    }

    /// Notes whether something holds.
    pub fn holds(&mut self, what: &str, condition: bool) {
        self.equal(what, i64::from(condition), 1);
    }
}

#[no_mangle]
extern "C" fn program_main(_arguments: &Arguments) -> i32 {
    let mut checks = Checks { passed: 0, failed: 0 };
    let free_before = exo::read_device(c"/dev/frames");
    selftest_process::run(&mut checks);
    selftest_cpu::run(&mut checks);
    selftest_ipc::run(&mut checks);
    selftest_concurrency::run(&mut checks);
    selftest_memory::run(&mut checks);
    selftest_pointers::run(&mut checks);
    selftest_files::run(&mut checks);
    let free_after = exo::read_device(c"/dev/frames");
    checks.equal("no frame is lost", free_after as i64, free_before as i64);
    println!("selftest: {} passed, {} failed", checks.passed, checks.failed);
    i32::from(checks.failed > 0)
}
