/*
 * Entry point: what SYSCALL jumps to (IA32_LSTAR).
 *
 * On entry: rcx = user rip, r11 = user rflags, rsp = user rsp, rax = number, rdi rsi rdx r10 r8 r9 = arguments,
 * interrupts off (FMASK). The frame is the seed's, 64 bytes, rcx pushed first:
 *
 *     kernel_rsp -  8   rcx   user rip
 *     kernel_rsp - 16   r11   user rflags
 *     kernel_rsp - 24   rbp
 *     kernel_rsp - 32   rbx
 *     kernel_rsp - 40   r12
 *     kernel_rsp - 48   r13
 *     kernel_rsp - 56   r14
 *     kernel_rsp - 64   r15
 *
 * Below it: 8 bytes of padding and the sixth argument, where the C calling convention expects it.
 * The FLAW_ names are the variants of kernel/README.md; none is defined in the default build.
 */
#include "../percpu.h"

    .intel_syntax noprefix
    .section .text.syscall_entry, "ax", @progbits
    .globl syscall_entry
    .type syscall_entry, @function
    .balign 16
syscall_entry:
#ifndef FLAW_NO_SWAPGS_ENTRY
    swapgs                              // to the kernel's GS
#endif
#ifdef FLAW_USER_RSP_BEFORE_SWITCH
    push rcx                            // on the user's stack: rsp is still what the user chose
    pop rcx
#endif
    mov gs:[PERCPU_USER_RSP], rsp       // save the user stack
    mov rsp, gs:[PERCPU_KERNEL_RSP]     // load the kernel stack
#ifndef FLAW_FMASK_LEAVES_DF_TF_AC
    cld                                 // FMASK leaves DF to the user; compiled code needs it clear
#endif

    push rcx                            // user rip
    push r11                            // user rflags
    push rbp
    push rbx
    push r12
    push r13
    push r14
    push r15

    // syscall_dispatch(num, arg1..arg6) in the C calling convention; the order keeps each source alive.
#ifndef FLAW_MISALIGNED_CALL
    sub rsp, 8                          // keeps rsp a multiple of 16 at the call
#endif
    push r9                             // arg6
    mov r9, r8                          // arg5
    mov r8, r10                         // arg4: SYSCALL took rcx, so it travels in r10
    mov rcx, rdx                        // arg3
    mov rdx, rsi                        // arg2
    mov rsi, rdi                        // arg1
    mov rdi, rax                        // number
    call syscall_dispatch
#ifndef FLAW_MISALIGNED_CALL
    add rsp, 16
#else
    add rsp, 8
#endif

    pop r15
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    pop r11                             // user rflags
    pop rcx                             // user rip

    mov rsp, gs:[PERCPU_USER_RSP]       // back to the user stack

    xor edi, edi                        // what is not restored must not carry kernel values out
    xor esi, esi
    xor edx, edx
    xor r8d, r8d
    xor r9d, r9d
    xor r10d, r10d
#ifndef FLAW_NO_SWAPGS_EXIT
    swapgs                              // back to the user's GS
#endif
    sysretq
    .size syscall_entry, . - syscall_entry

#ifdef FLAW_LSTAR_DIFFERS
    // A second entry point, for CPU 1 alone: works, but is not the one the other CPUs use.
    .section .text.syscall_entry_other, "ax", @progbits
    .globl syscall_entry_other
    .type syscall_entry_other, @function
    .balign 16
syscall_entry_other:
    jmp syscall_entry
    .size syscall_entry_other, . - syscall_entry_other
#endif
    .section .note.GNU-stack, "", @progbits
