# A stub that breaks no rule of the doctor; tests/unit/abi/check/test_stubs.py breaks it, one line at a time.
syscall_entry:
    swapgs
    mov gs:[8], rsp
    mov rsp, gs:[0]
    cld
    push rcx
    push r11
    push rbp
    push rbx
    push r12
    push r13
    push r14
    push r15
    sub rsp, 8
    push r9
    mov r9, r8
    mov r8, r10
    mov rcx, rdx
    mov rdx, rsi
    mov rsi, rdi
    mov rdi, rax
    sti
    call dispatcher
    cli
    add rsp, 16
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    pop r11
    pop rcx
    mov rdx, rcx
    shr rdx, 47
    jnz by_iret
cleared:
    xor edi, edi
    xor esi, esi
    xor edx, edx
    xor r8d, r8d
    xor r9d, r9d
    xor r10d, r10d
    mov rsp, gs:[8]
    swapgs
    sysretq
by_iret:
    push 0x23
    push gs:[8]
    push r11
    push 0x2b
    push rcx
    xor edi, edi
    xor esi, esi
    xor edx, edx
    xor r8d, r8d
    xor r9d, r9d
    xor r10d, r10d
    swapgs
    iretq
dispatcher:
    ret
