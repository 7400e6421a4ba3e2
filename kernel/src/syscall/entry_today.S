/*
 * Entry point of the `today` variant: the shape that the kernel has grown into.
 *
 * The frame is 128 bytes, `struct SyscallFrame` in frame.rs, rcx pushed first and rax last. The dispatcher gets a
 * pointer to it, and the exit path reloads every register from it.
 */
#include "../percpu.h"

    .intel_syntax noprefix
    .section .text.syscall_entry_asm, "ax", @progbits
    .globl syscall_entry_asm
    .type syscall_entry_asm, @function
    .balign 16
syscall_entry_asm:
    swapgs
    mov gs:[PERCPU_SCRATCH_RAX], rax
    mov rax, gs:[PERCPU_KERNEL_CR3]     // page-table isolation: the kernel's tables, if there are two
    test rax, rax
    jz 1f
    mov cr3, rax
1:  mov gs:[PERCPU_USER_RSP], rsp
    mov rsp, gs:[PERCPU_KERNEL_RSP]

    push rcx                            // user rip
    push r11                            // user rflags
    push rbp
    push rbx
    push r12
    push r13
    push r14
    push r15
    push qword ptr gs:[PERCPU_USER_RSP] // user rsp
    push rsi
    push rdi
    push rdx
    push r10
    push r8
    push r9
    mov rax, gs:[PERCPU_SCRATCH_RAX]
    push rax                            // number, later the result

    mov rbx, rsp
    and rsp, -16
    mov rdi, rbx
    call syscall_rust_handler
    mov rsp, rbx

    mov r9, [rsp + 8]
    mov r8, [rsp + 16]
    mov r10, [rsp + 24]
    mov rdx, [rsp + 32]
    mov rdi, [rsp + 40]
    mov rsi, [rsp + 48]
    mov r15, [rsp + 64]
    mov r14, [rsp + 72]
    mov r13, [rsp + 80]
    mov r12, [rsp + 88]
    mov rbx, [rsp + 96]
    mov rbp, [rsp + 104]
    mov r11, [rsp + 112]
    mov rcx, [rsp + 120]

    mov rax, rcx                        // SYSRET with an address that is not canonical faults in ring 0
    shl rax, 16
    sar rax, 16
    cmp rax, rcx
    jne 3f
    mov rcx, [rsp + 56]
    mov rax, rcx
    shl rax, 16
    sar rax, 16
    cmp rax, rcx
    mov rcx, [rsp + 120]
    jne 3f

    mov rax, gs:[PERCPU_USER_CR3]
    test rax, rax
    jz 2f
    mov cr3, rax
2:  mov rax, [rsp]
    mov rsp, [rsp + 56]
    swapgs
    sysretq

    // The same by IRETQ, which faults in a way that can be told.
3:  push 0x23                           // SS
    push qword ptr [rsp + 56 + 8]       // RSP
    push r11                            // RFLAGS
    push 0x2b                           // CS
    push qword ptr [rsp + 120 + 32]     // RIP
    mov rax, gs:[PERCPU_USER_CR3]
    test rax, rax
    jz 4f
    mov cr3, rax
4:  mov rax, [rsp + 40]
    swapgs
    iretq
    .size syscall_entry_asm, . - syscall_entry_asm

    // What CSTAR points at: SYSCALL from 32-bit code, which there is none of.
    .section .text.syscall_entry_compatibility, "ax", @progbits
    .globl syscall_entry_compatibility
    .type syscall_entry_compatibility, @function
    .balign 16
syscall_entry_compatibility:
    mov rax, -38
    sysretd
    .size syscall_entry_compatibility, . - syscall_entry_compatibility
    .section .note.GNU-stack, "", @progbits
