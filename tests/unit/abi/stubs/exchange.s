# The stack switch is an exchange: the slot holds the kernel's rsp before, the user's during the call.
syscall_entry:
    swapgs
    xchg rsp, gs:[0]
    push rcx
    push r11
    push rbx
    mov rcx, r10
    push rax
    call dispatcher
    add rsp, 8
    pop rbx
    pop r11
    pop rcx
    xchg rsp, gs:[0]
    swapgs
    sysretq
dispatcher:
    mov eax, 1
    jmp rbx
