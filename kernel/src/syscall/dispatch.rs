//! Dispatch: from the number to the handler.

use crate::calls::files::{sys_close, sys_open, sys_read, sys_write};
use crate::calls::ipc::{sys_ipc_close, sys_ipc_create, sys_ipc_recv, sys_ipc_send};
use crate::calls::memory::{sys_mmap, sys_mprotect, sys_munmap};
use crate::calls::process::{sys_exec, sys_exit, sys_fork, sys_getpid, sys_wait};
use crate::syscall::count::count_call;
use crate::syscall::numbers::*;
use crate::truth;

/// The one way into the handlers; `syscall_entry` calls it.
#[no_mangle]
pub extern "C" fn syscall_dispatch(num: u64, arg1: u64, arg2: u64, arg3: u64, arg4: u64, arg5: u64, arg6: u64) -> u64 {
    count_call();
    let call = truth::begin_call(num, arg1, arg2, arg3, arg4, arg5, arg6);
    let result = match num {
        // Process
        SYS_EXIT => sys_exit(arg1 as i32),
        SYS_FORK => sys_fork(),
        SYS_EXEC => sys_exec(arg1 as *const u8, arg2 as *const *const u8, arg3),
        SYS_WAIT => sys_wait(arg1, arg2 as *mut i32),
        SYS_GETPID => sys_getpid(),

        // IPC
        SYS_IPC_SEND => sys_ipc_send(arg1, arg2 as *const u8, arg3),
        SYS_IPC_RECV => sys_ipc_recv(arg1, arg2 as *mut u8, arg3),
        SYS_IPC_CREATE => sys_ipc_create(arg1, arg2),
        SYS_IPC_CLOSE => sys_ipc_close(arg1),

        // Memory
        SYS_MMAP => sys_mmap(arg1, arg2, arg3, arg4, arg5 as i32, arg6),
        SYS_MUNMAP => sys_munmap(arg1, arg2),
        SYS_MPROTECT => sys_mprotect(arg1, arg2, arg3),

        // Files
        SYS_OPEN => sys_open(arg1 as *const u8, arg2 as i32, arg3 as u32),
        SYS_CLOSE => sys_close(arg1 as i32),
        SYS_READ => sys_read(arg1 as i32, arg2 as *mut u8, arg3),
        SYS_WRITE => sys_write(arg1 as i32, arg2 as *const u8, arg3),

        _ => (-1i64) as u64, // ENOSYS
    };
    truth::end_call(call, result);
    result
}
