# Everything is saved in the per-CPU block, nothing is pushed.
syscall_entry:
    swapgs
    mov gs:[0x20], rsp
    mov gs:[0x28], rcx
    mov gs:[0x30], r11
    mov gs:[0x38], rbx
    mov gs:[0x40], rbp
    mov rsp, gs:[0x8]
    mov rdi, rax
    call dispatcher
    mov rbp, gs:[0x40]
    mov rbx, gs:[0x38]
    mov r11, gs:[0x30]
    mov rcx, gs:[0x28]
    mov rsp, gs:[0x20]
    swapgs
    sysretq
dispatcher:
    mov eax, 1
    jmp rbx
