/*
 * Exceptions and interrupts: one stub a vector, all ending in trap(frame) (arch/traps.rs).
 *
 * Frame (struct TrapFrame), lowest address first: r15 r14 r13 r12 r11 r10 r9 r8 rdi rsi rbp rdx rcx rbx rax, vector,
 * error code, rip, cs, rflags, rsp, ss. The user's SSE state is kept below it while trap() runs.
 *
 * An exception may arrive between SYSCALL and swapgs, so the stub asks the MSR which GS is live: the kernel's
 * per-CPU blocks, and nothing a program can choose, lie in the upper half.
 */
#include "../percpu.h"

    .intel_syntax noprefix
    .text
    .macro save register
    push \register
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset \register, 0
    .endm

    .type trap_common, @function
trap_common:
    // What the CPU pushed, for a debugger: a backtrace goes on in the code that was interrupted.
    .cfi_startproc simple
    .cfi_signal_frame
    .cfi_def_cfa rsp, 7 * 8             // vector, error code, rip, cs, rflags, rsp, ss
    .cfi_offset rip, -5 * 8
    .cfi_offset eflags, -3 * 8
    .cfi_offset rsp, -2 * 8
    save rax
    save rbx
    save rcx
    save rdx
    save rbp
    save rsi
    save rdi
    save r8
    save r9
    save r10
    save r11
    save r12
    save r13
    save r14
    save r15
    cld
    xor ebx, ebx                        // rbx = 1: swapgs again on the way out
    mov ecx, 0xc0000101                 // IA32_GS_BASE
    rdmsr
    test edx, edx
    js 1f
    swapgs
    inc ebx
1:
#ifdef KERNEL_PAGE_TABLE_SWITCH
    mov rax, gs:[PERCPU_KERNEL_CR3]
    test rax, rax
    jz 2f
    mov cr3, rax
2:
#endif
    mov r12, rsp
    .cfi_def_cfa_register r12
    lea rdi, [rsp]
    sub rsp, 512
    and rsp, -16
    fxsave64 [rsp]
    call trap
    fxrstor64 [rsp]
    mov rsp, r12
    .cfi_def_cfa_register rsp
    test byte ptr [rsp + 18 * 8], 3     // to ring 3: a CPU may have changed, but its GS is the kernel's
    jnz return_to_user
    test ebx, ebx
    jz 3f
    swapgs
3:  jmp pop_registers
    .cfi_endproc
    .size trap_common, . - trap_common

    // A new process starts here, on its own kernel stack, with a TrapFrame at rsp.
    .globl process_start
    .type process_start, @function
process_start:
    call finish_first_switch            // releases the kernel; rax = the SSE state to begin with
    fxrstor64 [rax]
    // fall through
    .size process_start, . - process_start

    .type return_to_user, @function
return_to_user:
#ifdef KERNEL_PAGE_TABLE_SWITCH
    mov rax, gs:[PERCPU_USER_CR3]
    test rax, rax
    jz 1f
    mov cr3, rax
1:
#endif
    swapgs
pop_registers:
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rbp
    pop rdx
    pop rcx
    pop rbx
    pop rax
    add rsp, 16                         // vector, error code
    iretq
    .size return_to_user, . - return_to_user

    // fn switch_stacks(save: *mut u64, load: u64): parks this kernel stack in *save and continues on `load`.
    .globl switch_stacks
    .type switch_stacks, @function
switch_stacks:
    push rbp
    push rbx
    push r12
    push r13
    push r14
    push r15
    mov [rdi], rsp
    mov rsp, rsi
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    push 2                              // FMASK leaves NT and AC to the user: nobody inherits them
    popfq
    ret
    .size switch_stacks, . - switch_stacks

    .globl trap_stubs
    .type trap_stubs, @function
    .balign 16
trap_stubs:
    .set number, 0
    .rept 35                            // 32 exceptions, timer, wake-up, the APIC's spurious interrupt
    .balign 16
    // #DF, #TS #NP #SS #GP #PF, #AC, #CP, and AMD's #VC and #SX
    .if (number == 8) || ((number >= 10) && (number <= 14)) || (number == 17) || (number == 21) || (number == 29) \
        || (number == 30)
    .else
    push 0                              // this vector has no error code
    .endif
    .byte 0x6a, number                  // push number
    jmp trap_common
    .set number, number + 1
    .endr
    .balign 16
    .size trap_stubs, . - trap_stubs
    .section .note.GNU-stack, "", @progbits
