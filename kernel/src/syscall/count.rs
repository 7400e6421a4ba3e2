//! How many system calls there were.

use core::sync::atomic::{AtomicU64, Ordering};

/// System calls dispatched since boot, on all CPUs.
#[no_mangle]
pub static mut SYSCALL_COUNT: u64 = 0;

/// Counts one system call.
#[inline(always)]
pub fn count_call() {
    // SAFETY: the counter is only ever used as an atomic.
    unsafe { AtomicU64::from_ptr(&raw mut SYSCALL_COUNT) }.fetch_add(1, Ordering::Relaxed);
}

/// System calls dispatched since boot.
pub fn call_count() -> u64 {
    // SAFETY: as for `count_call`.
    unsafe { AtomicU64::from_ptr(&raw mut SYSCALL_COUNT) }.load(Ordering::Relaxed)
}
