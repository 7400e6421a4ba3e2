//! The memory routines that compiled code calls by name.

use core::arch::asm;

/// C's `memcpy`.
///
/// # Safety
/// As in C.
#[no_mangle]
pub unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    // SAFETY: the caller's promise; DF is clear in the kernel.
    unsafe {
        asm!("rep movsq", "mov rcx, {rest}", "rep movsb", rest = in(reg) length & 7,
             inout("rcx") length >> 3 => _, inout("rdi") to => _, inout("rsi") from => _, options(nostack));
    }
    to
}

/// C's `memmove`.
///
/// # Safety
/// As in C.
#[no_mangle]
pub unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    if (to as usize).wrapping_sub(from as usize) >= length {
        // SAFETY: copying upwards does not overwrite what is still to be read.
        return unsafe { memcpy(to, from, length) };
    }
    // SAFETY: the caller's promise; downwards, because `to` lies inside the source. DF is clear again at the end.
    unsafe {
        asm!("std", "rep movsb", "cld",
             inout("rcx") length => _, inout("rdi") to.wrapping_add(length).wrapping_sub(1) => _,
             inout("rsi") from.wrapping_add(length).wrapping_sub(1) => _, options(nostack));
    }
    to
}

/// C's `memset`.
///
/// # Safety
/// As in C.
#[no_mangle]
pub unsafe extern "C" fn memset(to: *mut u8, byte: i32, length: usize) -> *mut u8 {
    let pattern = u64::from(byte as u8) * 0x0101_0101_0101_0101;
    // SAFETY: the caller's promise; DF is clear in the kernel.
    unsafe {
        asm!("rep stosq", "mov rcx, {rest}", "rep stosb", rest = in(reg) length & 7,
             inout("rcx") length >> 3 => _, inout("rdi") to => _, in("rax") pattern, options(nostack));
    }
    to
}

/// C's `memcmp`.
///
/// # Safety
/// As in C.
#[no_mangle]
pub unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, length: usize) -> i32 {
    for index in 0..length {
        // SAFETY: the caller's promise; volatile, so that this loop is not turned into a call of itself.
        let (a, b) = unsafe { (left.add(index).read_volatile(), right.add(index).read_volatile()) };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
    }
    0
}

/// C's `bcmp`.
///
/// # Safety
/// As in C.
#[no_mangle]
pub unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, length: usize) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { memcmp(left, right, length) }
}

/// The prebuilt `core` names it; with `panic=abort` nothing calls it.
#[no_mangle]
pub extern "C" fn rust_eh_personality() {}

/// C's `strlen`.
///
/// # Safety
/// As in C.
#[no_mangle]
pub unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut length = 0;
    // SAFETY: the caller's promise: a zero byte ends the text.
    while unsafe { text.add(length).read_volatile() } != 0 {
        length += 1;
    }
    length
}
