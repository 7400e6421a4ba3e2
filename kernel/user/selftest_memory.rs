//! Checks of mmap, munmap, mprotect: protections must really fault.

use crate::selftest_process::status_of;
use crate::{Checks, EACCES, EEXIST, EINVAL, ENOMEM, KERNEL_ADDRESS};
use exo::calls::{self, syscall};
use exo::numbers::SYS_MMAP;

const PAGE: u64 = 4096;
const NONE: u64 = 0;
const READ: u64 = 1;
const WRITE: u64 = 2;
const EXECUTE: u64 = 4;
const PRIVATE_ANONYMOUS: u64 = 0x22;
const FIXED: u64 = 0x10;
const PAGE_FAULT: i64 = 128 + 14;

pub fn run(checks: &mut Checks) {
    check_mapping(checks);
    check_protection(checks);
    check_fixed(checks);
    check_bad_arguments(checks);
    check_exhaustion(checks);
}

fn store(address: u64, value: u64) {
    // SAFETY: the page is this process's own, or the store faults, which is the point.
    unsafe { (address as *mut u64).write_volatile(value) };
}

fn fetch(address: u64) -> u64 {
    // SAFETY: as for `store`.
    unsafe { (address as *const u64).read_volatile() }
}

fn call(address: u64) {
    // SAFETY: the page begins with a RET, or the fetch faults, which is the point.
    unsafe { core::mem::transmute::<*const (), extern "C" fn()>(address as *const ())() };
}

fn check_mapping(checks: &mut Checks) {
    let address = calls::mmap(3 * PAGE, READ | WRITE) as u64;
    checks.holds("mmap gives an address in user space", (1 << 16..1 << 47).contains(&address));
    checks.holds("new pages are zero", (0..3 * PAGE).step_by(8).all(|offset| fetch(address + offset) == 0));
    store(address + PAGE, 0x1234);
    checks.holds("new pages keep what is stored", fetch(address + PAGE) == 0x1234);
    checks.equal("munmap of the middle page", calls::munmap(address + PAGE, PAGE), 0);
    checks.equal("the unmapped page faults", status_of(|| store(address + PAGE, 1)), PAGE_FAULT);
    checks.equal("its neighbour does not", status_of(|| store(address + 2 * PAGE, 1)), 0);
    checks.equal("munmap of a range with a hole", calls::munmap(address, 3 * PAGE), EINVAL);
    checks.equal("munmap of the rest", calls::munmap(address, PAGE) + calls::munmap(address + 2 * PAGE, PAGE), 0);
    checks.equal("the place is used again", calls::mmap(PAGE, READ), address as i64);
    calls::munmap(address, PAGE);
}

fn check_protection(checks: &mut Checks) {
    let address = calls::mmap(PAGE, READ | WRITE) as u64;
    store(address, 0xc3); // RET
    checks.equal("code in a writable page faults", status_of(|| call(address)), PAGE_FAULT);
    checks.equal("mprotect to read-only", calls::mprotect(address, PAGE, READ), 0);
    checks.holds("it can be read", fetch(address) == 0xc3);
    checks.equal("a store faults", status_of(|| store(address, 1)), PAGE_FAULT);
    checks.equal("read() into it fails", calls_read_into(address), -14);
    checks.equal("mprotect to executable", calls::mprotect(address, PAGE, READ | EXECUTE), 0);
    checks.equal("its code runs", status_of(|| call(address)), 0);
    checks.equal("mprotect to nothing", calls::mprotect(address, PAGE, NONE), 0);
    checks.equal("a load faults", status_of(|| drop_word(fetch(address))), PAGE_FAULT);
    checks.equal("mprotect back", calls::mprotect(address, PAGE, READ | WRITE), 0);
    checks.holds("the contents are still there", fetch(address) == 0xc3);
    checks.equal("mprotect to writable and executable", calls::mprotect(address, PAGE, 7), EACCES);
    calls::munmap(address, PAGE);
}

fn drop_word(_: u64) {}

/// What `read` from a device into that address returns.
fn calls_read_into(address: u64) -> i64 {
    let descriptor = calls::open(c"/dev/cpus".as_ptr().cast(), 0, 0);
    let result = syscall(exo::numbers::SYS_READ, [descriptor as u64, address, 8, 0, 0, 0]);
    calls::close(descriptor as i32);
    result
}

fn map_at(address: u64, flags: u64) -> i64 {
    syscall(SYS_MMAP, [address, PAGE, READ, flags, u64::MAX, 0])
}

fn check_fixed(checks: &mut Checks) {
    let place = 0x3000_0000_0000;
    checks.equal("mmap at a free place", map_at(place, PRIVATE_ANONYMOUS | FIXED), place as i64);
    checks.equal("mmap at a used place", map_at(place, PRIVATE_ANONYMOUS | FIXED), EEXIST);
    let elsewhere = map_at(place, PRIVATE_ANONYMOUS);
    checks.holds("a hint that is used goes elsewhere", elsewhere > 0 && elsewhere as u64 != place);
    checks.equal("munmap both", calls::munmap(place, PAGE) + calls::munmap(elsewhere as u64, PAGE), 0);
    checks.equal("mmap in the kernel's half", map_at(0xffff_ffff_9000_0000, PRIVATE_ANONYMOUS | FIXED), EINVAL);
    checks.equal("mmap at page 0", map_at(0, PRIVATE_ANONYMOUS | FIXED), EINVAL);
    checks.equal("mmap of the last page", map_at(0x7fff_ffff_f000, PRIVATE_ANONYMOUS | FIXED), EINVAL);
    checks.equal("mmap at an odd address", map_at(place + 1, PRIVATE_ANONYMOUS | FIXED), EINVAL);
}

fn check_bad_arguments(checks: &mut Checks) {
    checks.equal("mmap of nothing", calls::mmap(0, READ), EINVAL);
    checks.equal("mmap writable and executable", calls::mmap(PAGE, WRITE | EXECUTE), EACCES);
    checks.equal("mmap with an unknown protection", calls::mmap(PAGE, 8), EINVAL);
    checks.equal("mmap of a file", syscall(SYS_MMAP, [0, PAGE, READ, PRIVATE_ANONYMOUS, 0, 0]), EINVAL);
    checks.equal("mmap with an offset", syscall(SYS_MMAP, [0, PAGE, READ, PRIVATE_ANONYMOUS, u64::MAX, PAGE]), EINVAL);
    checks.equal("mmap shared", syscall(SYS_MMAP, [0, PAGE, READ, 0x21, u64::MAX, 0]), EINVAL);
    for (address, length) in [(KERNEL_ADDRESS, PAGE), (0x4000_0001, PAGE), (0x4000_0000, 0), (0x4000_0000, u64::MAX)] {
        checks.equal("munmap of a bad range", calls::munmap(address, length), EINVAL);
        checks.equal("mprotect of a bad range", calls::mprotect(address, length, READ), EINVAL);
    }
    checks.equal("munmap of an unmapped page", calls::munmap(0x4000_0000, PAGE), EINVAL);
    checks.equal("mprotect of an unmapped page", calls::mprotect(0x4000_0000, PAGE, READ), ENOMEM);
}

/// Takes all the memory there is; the kernel says no, and has it back afterwards.
fn check_exhaustion(checks: &mut Checks) {
    checks.equal("mmap of more than there is", calls::mmap(1 << 40, READ), ENOMEM);
    checks.equal("mmap of everything", calls::mmap(u64::MAX, READ), ENOMEM);
    let take_all_and_fork = || calls::exit(if take_all() > 1 << 20 && calls::fork() == ENOMEM { 5 } else { 6 });
    checks.equal("without memory left mmap and fork fail", status_of(take_all_and_fork), 5);
    checks.equal("with too little left mmap, fork and exec keep nothing of it", status_of(fail_at_every_page), 17);
    checks.equal("afterwards there is memory again", status_of(|| ()), 0);
}

/// Takes memory until there is none, and returns how much it was.
fn take_all() -> u64 {
    let mut taken = 0_u64;
    let mut size = 1 << 24;
    while size >= PAGE {
        if calls::mmap(size, READ | WRITE) < 0 {
            size /= 2;
        } else {
            taken += size;
        }
    }
    taken
}

/// With 0, 1, 2 and so on pages left: mmap and fork fail, and exec until there are enough for it.
fn fail_at_every_page() {
    const FAR: u64 = 0x5000_0000_0000; // needs page tables of its own
    const SPARE_PAGES: u64 = 128;
    let free = || exo::read_device(c"/dev/frames");
    let spare = calls::mmap(SPARE_PAGES * PAGE, READ | WRITE) as u64;
    take_all();
    for page in 0..SPARE_PAGES {
        let before = free();
        let map = |pages: u64| syscall(SYS_MMAP, [FAR, pages * PAGE, READ, PRIVATE_ANONYMOUS | FIXED, u64::MAX, 0]);
        if (before > 0 && map(before) != ENOMEM) || calls::fork() != ENOMEM || free() != before {
            calls::exit(7);
        }
        let arguments = [c"echo", c"status=17"].map(|text| text.as_ptr().cast());
        if calls::exec(c"/bin/echo".as_ptr().cast(), &arguments) != ENOMEM || free() != before {
            calls::exit(8);
        }
        calls::munmap(spare + page * PAGE, PAGE);
    }
}
