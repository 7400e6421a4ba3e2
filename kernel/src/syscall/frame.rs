//! The frame that the entry stub saves at the top of the kernel stack.

use crate::arch::percpu::this_cpu;

/// What `syscall_entry` pushes, lowest address first: exactly 64 bytes, ending at `kernel_rsp`.
#[cfg(not(variant = "today"))]
#[repr(C)]
pub struct SyscallFrame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbx: u64,
    pub rbp: u64,
    /// The user's rflags, where SYSCALL put them.
    pub r11: u64,
    /// The user's rip, where SYSCALL put it.
    pub rcx: u64,
}

/// What `syscall_entry_asm` pushes, lowest address first: exactly 128 bytes, ending at `kernel_rsp`.
#[cfg(variant = "today")]
#[repr(C)]
pub struct SyscallFrame {
    pub rax: u64,
    pub r9: u64,
    pub r8: u64,
    pub r10: u64,
    pub rdx: u64,
    pub rdi: u64,
    pub rsi: u64,
    /// The user's rsp.
    pub rsp: u64,
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbx: u64,
    pub rbp: u64,
    /// The user's rflags, where SYSCALL put them.
    pub r11: u64,
    /// The user's rip, where SYSCALL put it.
    pub rcx: u64,
}

impl SyscallFrame {
    /// Where the stub put the running system call's frame.
    pub fn current() -> *mut SyscallFrame {
        (this_cpu().kernel_rsp() as *mut SyscallFrame).wrapping_sub(1)
    }
}

/// The user's rsp of the running system call.
pub fn user_rsp() -> u64 {
    #[cfg(variant = "today")]
    // SAFETY: a system call runs, so its frame is there.
    return unsafe { (*SyscallFrame::current()).rsp };
    #[cfg(not(variant = "today"))]
    return this_cpu().user_rsp();
}

/// Makes the running system call return to another place with other registers: a new program.
pub fn restart_at(rip: u64, rsp: u64, rflags: u64) {
    // SAFETY: a system call runs, so its frame is there, and only its own CPU uses it.
    let frame = unsafe { &mut *SyscallFrame::current() };
    (frame.r15, frame.r14, frame.r13, frame.r12, frame.rbx, frame.rbp) = (0, 0, 0, 0, 0, 0);
    frame.r11 = rflags;
    frame.rcx = rip;
    #[cfg(variant = "today")]
    {
        (frame.r9, frame.r8, frame.r10, frame.rdx, frame.rdi, frame.rsi) = (0, 0, 0, 0, 0, 0);
        frame.rsp = rsp;
    }
    this_cpu().set_user_rsp(rsp);
}
