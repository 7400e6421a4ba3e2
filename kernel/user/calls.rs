//! The system calls by name. Results are the kernel's: negative numbers are errors.

use crate::numbers::*;
use core::arch::asm;

/// Makes one system call: number in rax, arguments in rdi, rsi, rdx, r10, r8, r9, result in rax.
#[inline(always)]
pub fn syscall(number: u64, arguments: [u64; 6]) -> i64 {
    let result;
    // SAFETY: the kernel checks what it is given, and changes memory only where a caller in this file lent it.
    unsafe {
        asm!("syscall", inlateout("rax") number as i64 => result,
             inlateout("rdi") arguments[0] => _, inlateout("rsi") arguments[1] => _, inlateout("rdx") arguments[2] => _,
             inlateout("r10") arguments[3] => _, inlateout("r8") arguments[4] => _, inlateout("r9") arguments[5] => _,
             lateout("rcx") _, lateout("r11") _);
    }
    result
}

#[inline(never)]
pub fn exit(status: i32) -> ! {
    syscall(SYS_EXIT, [status as u64, 0, 0, 0, 0, 0]);
    unreachable!("exit returned")
}

#[inline(never)]
pub fn fork() -> i64 {
    syscall(SYS_FORK, [0; 6])
}

/// `path` and every element of `argv` are zero-terminated.
#[inline(never)]
pub fn exec(path: *const u8, argv: &[*const u8]) -> i64 {
    syscall(SYS_EXEC, [path as u64, argv.as_ptr() as u64, argv.len() as u64, 0, 0, 0])
}

#[inline(never)]
pub fn wait(pid: u64, status: &mut i32) -> i64 {
    syscall(SYS_WAIT, [pid, status as *mut i32 as u64, 0, 0, 0, 0])
}

#[inline(never)]
pub fn getpid() -> i64 {
    syscall(SYS_GETPID, [0; 6])
}

#[inline(never)]
pub fn ipc_create(key: u64, capacity: u64) -> i64 {
    syscall(SYS_IPC_CREATE, [key, capacity, 0, 0, 0, 0])
}

#[inline(never)]
pub fn ipc_send(channel: u64, message: &[u8]) -> i64 {
    syscall(SYS_IPC_SEND, [channel, message.as_ptr() as u64, message.len() as u64, 0, 0, 0])
}

#[inline(never)]
pub fn ipc_recv(channel: u64, buffer: &mut [u8]) -> i64 {
    syscall(SYS_IPC_RECV, [channel, buffer.as_mut_ptr() as u64, buffer.len() as u64, 0, 0, 0])
}

#[inline(never)]
pub fn ipc_close(channel: u64) -> i64 {
    syscall(SYS_IPC_CLOSE, [channel, 0, 0, 0, 0, 0])
}

/// Anonymous private pages at a place of the kernel's choice.
#[inline(never)]
pub fn mmap(length: u64, protection: u64) -> i64 {
    syscall(SYS_MMAP, [0, length, protection, 0x22, u64::MAX, 0])
}

#[inline(never)]
pub fn munmap(address: u64, length: u64) -> i64 {
    syscall(SYS_MUNMAP, [address, length, 0, 0, 0, 0])
}

#[inline(never)]
pub fn mprotect(address: u64, length: u64, protection: u64) -> i64 {
    syscall(SYS_MPROTECT, [address, length, protection, 0, 0, 0])
}

/// `path` is zero-terminated.
#[inline(never)]
pub fn open(path: *const u8, flags: u64, mode: u64) -> i64 {
    syscall(SYS_OPEN, [path as u64, flags, mode, 0, 0, 0])
}

#[inline(never)]
pub fn close(descriptor: i32) -> i64 {
    syscall(SYS_CLOSE, [descriptor as u64, 0, 0, 0, 0, 0])
}

#[inline(never)]
pub fn read(descriptor: i32, buffer: &mut [u8]) -> i64 {
    syscall(SYS_READ, [descriptor as u64, buffer.as_mut_ptr() as u64, buffer.len() as u64, 0, 0, 0])
}

#[inline(never)]
pub fn write(descriptor: i32, bytes: &[u8]) -> i64 {
    syscall(SYS_WRITE, [descriptor as u64, bytes.as_ptr() as u64, bytes.len() as u64, 0, 0, 0])
}
