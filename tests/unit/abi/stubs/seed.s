# The reference kernel's design as printed: the number stays in rax, argument 4 moves to rcx.
syscall_entry:
    swapgs
    mov gs:[8], rsp
    mov rsp, gs:[0]
    push rcx
    push r11
    push rbp
    push rbx
    push r12
    push r13
    push r14
    push r15
    mov rcx, r10
    call dispatcher
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    pop r11
    pop rcx
    mov rsp, gs:[8]
    swapgs
    sysretq
dispatcher:
    ret
