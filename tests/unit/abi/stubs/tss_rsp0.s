# The kernel stack's top is RSP0 of a TSS whose address is in a per-CPU slot.
syscall_entry:
    swapgs
    mov gs:[0x10], rsp
    mov rsp, gs:[0x50]
    mov rsp, [rsp+4]
    push qword ptr gs:[0x10]
    push rcx
    push r11
    push rax
    mov rdi, rsp
    call dispatcher
    add rsp, 8
    pop r11
    pop rcx
    pop rsp
    swapgs
    sysretq
dispatcher:
    mov eax, 1
    jmp rbx
