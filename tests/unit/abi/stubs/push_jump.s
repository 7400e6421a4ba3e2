# The dispatcher is jumped to, with the place it returns to pushed by the stub; the first jump only skips a table.
syscall_entry:
    swapgs
    mov gs:[0x10], rsp
    mov rsp, gs:[0]
    push rcx
    push r11
    push rbp
    push rax
    mov rdi, rsp
    push offset back
    jmp 1f
    .quad 0
1:  mov rsi, rax
    jmp dispatcher
    int3
back:
    pop rax
    pop rbp
    pop r11
    pop rcx
    mov rsp, gs:[0x10]
    swapgs
    sysretq
dispatcher:
    push rbx
    call handler
    pop rbx
    ret
handler:
    mov eax, 1
    ret
