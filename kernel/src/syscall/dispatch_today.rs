//! Dispatch of the `today` variant: a pointer to the frame, checks, a fast path, then a handler looked up by number.

use crate::calls::files::{sys_close, sys_open, sys_read, sys_write};
use crate::calls::ipc::{sys_ipc_close, sys_ipc_create, sys_ipc_recv, sys_ipc_send};
use crate::calls::memory::{sys_mmap, sys_mprotect, sys_munmap};
use crate::calls::process::{sys_exec, sys_exit, sys_fork, sys_getpid, sys_wait};
use crate::syscall::count::count_call;
use crate::syscall::frame::SyscallFrame;
use crate::syscall::numbers::*;
use crate::truth;

/// Numbers from here on are refused before anything is looked up.
const TABLE_SIZE: u64 = 550;

/// What a system call that does not exist returns.
const ENOSYS: i64 = -1;

type Handler = fn(u64, u64, u64, u64, u64, u64) -> i64;

/// The one way into the handlers; `syscall_entry_asm` calls it with the frame that it saved.
///
/// # Safety
/// `frame` must be the frame of the running system call.
#[no_mangle]
pub unsafe extern "C" fn syscall_rust_handler(frame: *mut SyscallFrame) {
    // SAFETY: the caller's promise; nobody else uses the frame meanwhile.
    dispatch(unsafe { &mut *frame });
}

#[inline(never)]
fn dispatch(frame: &mut SyscallFrame) {
    let number = frame.rax;
    count_call();
    let call = truth::begin_call(number, frame.rdi, frame.rsi, frame.rdx, frame.r10, frame.r8, frame.r9);
    let result = run(number, frame) as u64;
    truth::end_call(call, result);
    frame.rax = result;
}

#[inline(always)]
fn run(number: u64, frame: &mut SyscallFrame) -> i64 {
    if number >= TABLE_SIZE {
        return ENOSYS;
    }
    match number {
        // The fast path: nothing to check.
        SYS_GETPID => return sys_getpid() as i64,
        // These change the frame they return through.
        SYS_FORK => return sys_fork() as i64,
        SYS_EXEC => return sys_exec(frame.rdi as *const u8, frame.rsi as *const *const u8, frame.rdx) as i64,
        _ => (),
    }
    get_handler(number)(frame.rdi, frame.rsi, frame.rdx, frame.r10, frame.r8, frame.r9)
}

/// The handler of a number; all numbers without one share [`sys_enosys`].
#[inline(never)]
fn get_handler(number: u64) -> Handler {
    match number {
        // Process
        SYS_EXIT => |a1, _, _, _, _, _| sys_exit(a1 as i32),
        SYS_WAIT => |a1, a2, _, _, _, _| sys_wait(a1, a2 as *mut i32) as i64,

        // IPC
        SYS_IPC_SEND => |a1, a2, a3, _, _, _| sys_ipc_send(a1, a2 as *const u8, a3) as i64,
        SYS_IPC_RECV => |a1, a2, a3, _, _, _| sys_ipc_recv(a1, a2 as *mut u8, a3) as i64,
        SYS_IPC_CREATE => |a1, a2, _, _, _, _| sys_ipc_create(a1, a2) as i64,
        SYS_IPC_CLOSE => |a1, _, _, _, _, _| sys_ipc_close(a1) as i64,

        // Memory
        SYS_MMAP => |a1, a2, a3, a4, a5, a6| sys_mmap(a1, a2, a3, a4, a5 as i32, a6) as i64,
        SYS_MUNMAP => |a1, a2, _, _, _, _| sys_munmap(a1, a2) as i64,
        SYS_MPROTECT => |a1, a2, a3, _, _, _| sys_mprotect(a1, a2, a3) as i64,

        // Files
        SYS_OPEN => |a1, a2, a3, _, _, _| sys_open(a1 as *const u8, a2 as i32, a3 as u32) as i64,
        SYS_CLOSE => |a1, _, _, _, _, _| sys_close(a1 as i32) as i64,
        SYS_READ => |a1, a2, a3, _, _, _| sys_read(a1 as i32, a2 as *mut u8, a3) as i64,
        SYS_WRITE => |a1, a2, a3, _, _, _| sys_write(a1 as i32, a2 as *const u8, a3) as i64,

        _ => sys_enosys,
    }
}

fn sys_enosys(_: u64, _: u64, _: u64, _: u64, _: u64, _: u64) -> i64 {
    ENOSYS
}
