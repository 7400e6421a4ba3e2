# Two functions for two ranges of numbers.
syscall_entry:
    swapgs
    mov gs:[0x10], rsp
    mov rsp, gs:[0x0]
    push rcx
    push r11
    push rax
    bt eax, 30
    jc 1f
    mov rdi, rsp
    call dispatcher
    jmp 2f
1:  mov rdi, rsp
    call dispatcher2
2:  mov [rsp], rax
    pop rax
    pop r11
    pop rcx
    mov rsp, gs:[0x10]
    swapgs
    sysretq
dispatcher:
    mov eax, 1
    jmp rbx
dispatcher2:
    mov eax, 2
    jmp rbx
