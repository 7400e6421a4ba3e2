/*
 * Entry point of the `seed-literal` variant: the design's stub exactly as it is printed.
 *
 * It leaves the number in rax and the first argument in rdi, where syscall_dispatch(num, arg1..arg6) looks for the
 * number and finds the first argument. See docs/adr/0002-stub-and-dispatcher.md.
 */
#include "../percpu.h"

    .intel_syntax noprefix
    .section .text.syscall_entry, "ax", @progbits
    .globl syscall_entry
    .type syscall_entry, @function
    .balign 16
syscall_entry:
    // Swap to kernel GS
    swapgs

    // Save user stack
    mov gs:[PERCPU_USER_RSP], rsp

    // Load kernel stack
    mov rsp, gs:[PERCPU_KERNEL_RSP]

    // Save registers
    push rcx        // User RIP
    push r11        // User RFLAGS
    push rbp
    push rbx
    push r12
    push r13
    push r14
    push r15

    // Call Rust handler
    // rax = syscall number
    // rdi, rsi, rdx, r10, r8, r9 = arguments
    mov rcx, r10    // Argument 4 (Linux ABI uses r10)
    call syscall_dispatch

    // Restore registers
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    pop r11         // User RFLAGS
    pop rcx         // User RIP

    // Restore user stack
    mov rsp, gs:[PERCPU_USER_RSP]

    // Swap back to user GS
    swapgs

    // Return to userspace
    sysretq
    .size syscall_entry, . - syscall_entry
    .section .note.GNU-stack, "", @progbits
