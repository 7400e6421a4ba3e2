//! Checks of exit, fork, exec, wait, getpid, of unknown numbers, and of what a call preserves.

use crate::{Checks, E2BIG, EAGAIN, ECHILD, EFAULT, ENAMETOOLONG, ENOENT, KERNEL_ADDRESS, UNMAPPED_ADDRESS};
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use exo::calls::{self, syscall};
use exo::numbers::{SYS_EXEC, SYS_GETPID, SYS_WAIT};

static SHARED_WORD: AtomicU64 = AtomicU64::new(1);

/// Exit status of a child that runs `child` (or -1 if there was none); a child that returns ends with 0.
pub fn status_of(child: impl FnOnce()) -> i64 {
    let pid = calls::fork();
    if pid == 0 {
        child();
        calls::exit(0);
    }
    let mut status = 0;
    if pid > 0 && calls::wait(pid as u64, &mut status) == pid {
        i64::from(status)
    } else {
        -1
    }
}

pub fn run(checks: &mut Checks) {
    check_numbers(checks);
    check_processes(checks);
    check_exec(checks);
    check_faults(checks);
    check_registers(checks);
    check_flags(checks);
    check_sse(checks);
    check_process_limit(checks);
}

fn check_numbers(checks: &mut Checks) {
    for number in [5, 99, 104, 203, 304, 1 << 32, u64::MAX] {
        checks.equal("an unknown number returns -1", syscall(number, [0; 6]), -1);
    }
    checks.equal("getpid of the first process", calls::getpid(), 1);
    checks.equal("getpid ignores arguments", syscall(SYS_GETPID, [7; 6]), 1);
}

fn check_processes(checks: &mut Checks) {
    checks.equal("exit and wait pass the status on", status_of(|| calls::exit(42)), 42);
    checks.equal("a negative status stays negative", status_of(|| calls::exit(-5)), -5);
    let parent = calls::getpid();
    checks.equal("a child has a pid of its own", status_of(|| calls::exit(i32::from(calls::getpid() != parent))), 1);
    let write = || SHARED_WORD.store(2, Ordering::Relaxed);
    checks.equal("fork copies memory: the child writes", status_of(write), 0);
    checks.equal("fork copies memory: the parent keeps its own", SHARED_WORD.load(Ordering::Relaxed) as i64, 1);
    let mut status = 0;
    checks.equal("wait without children", calls::wait(0, &mut status), ECHILD);
    checks.equal("wait for somebody else's child", calls::wait(1, &mut status), ECHILD);
    check_wait_pointers(checks);
    let grandchild = status_of(|| {
        calls::exit(status_of(|| calls::exit(9)) as i32);
    });
    checks.equal("a child has children", grandchild, 9);
}

fn check_wait_pointers(checks: &mut Checks) {
    let pid = calls::fork();
    if pid == 0 {
        calls::exit(1);
    }
    for pointer in [KERNEL_ADDRESS, UNMAPPED_ADDRESS] {
        checks.equal("wait with a bad pointer", syscall(SYS_WAIT, [0, pointer, 0, 0, 0, 0]), EFAULT);
    }
    checks.equal("wait without a pointer", syscall(SYS_WAIT, [0; 6]), pid);
}

fn exec_path(path: *const u8) -> i64 {
    calls::exec(path, &[])
}

fn check_exec(checks: &mut Checks) {
    let echo = c"/bin/echo".as_ptr().cast::<u8>();
    let arguments = [c"echo", c"one", c"status=17"].map(|text| text.as_ptr().cast::<u8>());
    let run_echo = || calls::exit(calls::exec(echo, &arguments) as i32);
    checks.equal("exec runs another program with arguments", status_of(run_echo), 17);
    let count = || calls::exit(calls::exec(echo, &arguments[..2]) as i32);
    checks.equal("exec passes the number of arguments", status_of(count), 2);
    checks.equal("exec of a missing program", exec_path(c"/bin/none".as_ptr().cast()), ENOENT);
    checks.equal("exec of a device", exec_path(c"/dev/console".as_ptr().cast()), ENOENT);
    checks.equal("exec with a kernel pointer", exec_path(KERNEL_ADDRESS as *const u8), EFAULT);
    checks.equal("exec with an unmapped path", exec_path(UNMAPPED_ADDRESS as *const u8), EFAULT);
    let long = [b'x'; 64];
    checks.equal("exec with a long path", exec_path(long.as_ptr()), ENAMETOOLONG);
    let many = [echo; 17];
    checks.equal("exec with too many arguments", calls::exec(echo, &many), E2BIG);
    let missing = syscall(SYS_EXEC, [echo as u64, UNMAPPED_ADDRESS, 1, 0, 0, 0]);
    checks.equal("exec with an unmapped argument vector", missing, EFAULT);
    let wild = [KERNEL_ADDRESS as *const u8];
    checks.equal("exec with a bad argument", calls::exec(echo, &wild), EFAULT);
}

fn check_faults(checks: &mut Checks) {
    let read_kernel = || {
        // SAFETY: the process dies of it, as of the next three, which is the point.
        unsafe { (KERNEL_ADDRESS as *const u64).read_volatile() };
    };
    checks.equal("reading kernel memory kills (#PF)", status_of(read_kernel), 128 + 14);
    // SAFETY: as above.
    checks.equal("HLT kills (#GP)", status_of(|| unsafe { asm!("hlt") }), 128 + 13);
    // SAFETY: as above.
    checks.equal("an undefined instruction kills (#UD)", status_of(|| unsafe { asm!("ud2") }), 128 + 6);
    let read_msr = || {
        // SAFETY: as above.
        unsafe { asm!("rdmsr", in("ecx") 0xc000_0082_u32, out("eax") _, out("edx") _) }
    };
    checks.equal("RDMSR kills (#GP)", status_of(read_msr), 128 + 13);
    checks.equal("a call with a stack pointer that is not canonical", status_of(call_without_a_stack), 0);
}

/// The kernel must not use the user's rsp, whatever it is.
fn call_without_a_stack() {
    let pid: u64;
    // SAFETY: rsp is put back before anything uses it; the call changes no memory.
    unsafe {
        asm!("mov r12, rsp", "mov rsp, {wild}", "syscall", "mov rsp, r12", wild = in(reg) 0x8000_1234_5678_9abc_u64,
             inout("rax") SYS_GETPID => pid, inout("rdi") 0_u64 => _, inout("rsi") 0_u64 => _, inout("rdx") 0_u64 => _,
             inout("r8") 0_u64 => _, inout("r9") 0_u64 => _, inout("r10") 0_u64 => _, out("rcx") _, out("r11") _,
             out("r12") _);
    }
    calls::exit(i32::from(pid as i64 != calls::getpid()));
}

/// Registers that a call clears: none may carry what the kernel had in it.
fn check_registers(checks: &mut Checks) {
    let (rdi, rsi, rdx, r8, r9, r10): (u64, u64, u64, u64, u64, u64);
    let (rbp, r12, r13, r14, r15): (u64, u64, u64, u64, u64);
    // SAFETY: getpid changes no memory; rbp is put back.
    unsafe {
        asm!("push rbp", "mov ebp, 0x5555", "syscall", "mov rcx, rbp", "pop rbp",
             inout("rax") SYS_GETPID => _, out("rcx") rbp, out("r11") _,
             inout("rdi") 1_u64 => rdi, inout("rsi") 2_u64 => rsi, inout("rdx") 3_u64 => rdx,
             inout("r8") 4_u64 => r8, inout("r9") 5_u64 => r9, inout("r10") 6_u64 => r10,
             inout("r12") 12_u64 => r12, inout("r13") 13_u64 => r13, inout("r14") 14_u64 => r14, inout("r15") 15_u64 => r15);
    }
    checks.holds("callee-saved registers are preserved", [rbp, r12, r13, r14, r15] == [0x5555, 12, 13, 14, 15]);
    let arguments = [rdi, rsi, rdx, r10, r8, r9];
    let user_only = arguments.iter().all(|&value| value < 1 << 47);
    checks.holds("argument registers carry nothing of the kernel", user_only);
}

/// RFLAGS bits that FMASK does not clear: the user keeps them, the kernel is not harmed.
fn check_flags(checks: &mut Checks) {
    let direction: u64;
    // SAFETY: DF is cleared again before any other code runs; the call changes no memory.
    unsafe {
        asm!("std", "syscall", "pushfq", "pop {flags}", "cld", flags = out(reg) direction,
             inout("rax") SYS_GETPID => _, inout("rdi") 0_u64 => _, inout("rsi") 0_u64 => _, inout("rdx") 0_u64 => _,
             inout("r8") 0_u64 => _, inout("r9") 0_u64 => _, inout("r10") 0_u64 => _, out("rcx") _, out("r11") _);
    }
    checks.holds("DF stays the user's", direction & (1 << 10) != 0);
    checks.equal("a fork with DF and NT set", status_of(fork_with_odd_flags), 0);
    checks.equal("TF through a call ends in #DB in ring 3", status_of(single_step_a_call), 128 + 1);
}

fn fork_with_odd_flags() {
    let pid: u64;
    // SAFETY: the flags are put back; the calls change no memory.
    unsafe {
        asm!("pushfq", "or qword ptr [rsp], 0x44400", "popfq", "syscall", "pushfq", "and qword ptr [rsp], ~0x44400", "popfq",
             inout("rax") exo::numbers::SYS_FORK => pid, inout("rdi") 0_u64 => _, inout("rsi") 0_u64 => _,
             inout("rdx") 0_u64 => _, inout("r8") 0_u64 => _, inout("r9") 0_u64 => _, inout("r10") 0_u64 => _,
             out("rcx") _, out("r11") _);
    }
    if pid != 0 {
        syscall(SYS_WAIT, [pid, 0, 0, 0, 0, 0]);
    }
}

fn single_step_a_call() {
    // SAFETY: the process dies of the first #DB in ring 3.
    unsafe {
        asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq", "syscall", "nop",
             inout("rax") SYS_GETPID => _, inout("rdi") 0_u64 => _, inout("rsi") 0_u64 => _, inout("rdx") 0_u64 => _,
             inout("r8") 0_u64 => _, inout("r9") 0_u64 => _, inout("r10") 0_u64 => _, out("rcx") _, out("r11") _);
    }
}

/// SSE registers over a call that runs a lot of kernel code and another process.
fn check_sse(checks: &mut Checks) {
    let mut value = 0x0123_4567_89ab_cdef_u64;
    // SAFETY: fork changes no memory of the parent; xmm0 and xmm15 are declared.
    unsafe {
        asm!("movq xmm0, {value}", "movq xmm15, {value}", "syscall", "test rax, rax", "jnz 2f",
             "xor edi, edi", "xor eax, eax", "pxor xmm0, xmm0", "syscall", "2:",
             "movq {value}, xmm0", "movq rcx, xmm15", "and {value}, rcx", value = inout(reg) value,
             inout("rax") exo::numbers::SYS_FORK => _, inout("rdi") 0_u64 => _, inout("rsi") 0_u64 => _,
             inout("rdx") 0_u64 => _, inout("r8") 0_u64 => _, inout("r9") 0_u64 => _, inout("r10") 0_u64 => _,
             out("rcx") _, out("r11") _, out("xmm0") _, out("xmm15") _);
    }
    syscall(SYS_WAIT, [0; 6]);
    checks.holds("SSE registers are preserved", value == 0x0123_4567_89ab_cdef);
}

/// Children until the table is full: fork fails, and everything still works afterwards.
fn check_process_limit(checks: &mut Checks) {
    let channel = calls::ipc_create(0, 1) as u64;
    let mut children = 0_i64;
    let last = loop {
        let pid = calls::fork();
        if pid == 0 {
            let mut byte = [0];
            calls::ipc_recv(channel, &mut byte); // until the parent closes the channel
            calls::exit(0);
        }
        if pid < 0 {
            break pid;
        }
        children += 1;
    };
    checks.equal("fork with a full table", last, EAGAIN);
    checks.equal("63 children beside the first process", children, 63);
    calls::ipc_close(channel);
    let waited = (0..children).filter(|_| syscall(SYS_WAIT, [0; 6]) > 0).count();
    checks.equal("every child is waited for", waited as i64, children);
    checks.equal("no child is left", syscall(SYS_WAIT, [0; 6]), ECHILD);
}
