# Between frame and call an area is filled by FXSAVE and REP STOS, up to the frame and not into it.
syscall_entry:
    swapgs
    mov gs:[0x10], rsp
    mov rsp, gs:[0x0]
    push rcx
    push r11
    push rdi
    push rsi
    push rax
    sub rsp, 0x200
    fxsave64 [rsp]
    lea rdi, [rsp]
    mov ecx, 64
    xor eax, eax
    rep stosq
    mov rdi, rsp
    call dispatcher
    fxrstor64 [rsp]
    add rsp, 0x200
    pop rax
    pop rsi
    pop rdi
    pop r11
    pop rcx
    mov rsp, gs:[0x10]
    swapgs
    sysretq
dispatcher:
    mov eax, 1
    jmp rbx
