# swapgs is executed or not: behind it nothing says whose GS base is active, or what rsp was loaded from.
syscall_entry:
    test r15, r15
    js 1f
    swapgs
1:  mov gs:[0x10], rsp
    mov rsp, gs:[0x0]
    push rcx
    push r11
    push rax
    mov rdi, rsp
    call dispatcher
    pop rax
    pop r11
    pop rcx
    mov rsp, gs:[0x10]
    swapgs
    sysretq
dispatcher:
    mov eax, 1
    jmp rbx
