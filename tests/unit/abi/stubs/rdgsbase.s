# The per-CPU block is reached through RDGSBASE.
syscall_entry:
    swapgs
    mov gs:[0x10], rax
    rdgsbase rax
    mov [rax+0x18], rsp
    mov rsp, [rax+0x20]
    push rcx
    push r11
    mov rax, gs:[0x10]
    push rax
    mov rdi, rax
    mov rsi, rsp
    call dispatcher
    add rsp, 8
    pop r11
    pop rcx
    mov rsp, gs:[0x18]
    swapgs
    sysretq
dispatcher:
    mov eax, 1
    jmp rbx
