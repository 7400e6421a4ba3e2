# Back to the user's GS base by WRGSBASE instead of swapgs.
syscall_entry:
    swapgs
    mov gs:[0x10], rsp
    mov rsp, gs:[0x0]
    push rcx
    push r11
    push rax
    mov rdi, rsp
    call dispatcher
    pop rax
    mov rdx, gs:[0x60]
    pop r11
    pop rcx
    mov rsp, gs:[0x10]
    wrgsbase rdx
    xor edx, edx
    sysretq
dispatcher:
    mov eax, 1
    jmp rbx
