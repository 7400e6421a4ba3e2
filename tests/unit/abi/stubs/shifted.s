# The seed's frame with the C calling convention made right: seven parameters, the last one on the stack.
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
    sub rsp, 8
    push r9
    mov r9, r8
    mov r8, r10
    mov rcx, rdx
    mov rdx, rsi
    mov rsi, rdi
    mov rdi, rax
    call dispatcher
    add rsp, 16
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
