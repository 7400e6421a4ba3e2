# The dispatcher is returned to: the stub pushes the place that it returns to, then its address.
syscall_entry:
    swapgs
    mov gs:[0x10], rsp
    mov rsp, gs:[0]
    push rcx
    push r11
    push rbp
    push rax
    mov rdi, rsp
    lea rbx, [rip + back]
    push rbx
    lea rbx, [rip + dispatcher]
    push rbx
    ret
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
