# The dispatcher is jumped to through a retpoline thunk, with the place that it returns to pushed by the stub.
syscall_entry:
    swapgs
    mov gs:[0x10], rsp
    mov rsp, gs:[0]
    push rcx
    push r11
    push rbp
    push rax
    mov rdi, rsp
    lea rbx, [rip + dispatcher]
    push offset back
    jmp thunk
    int3
back:
    lfence
    pop rax
    pop rbp
    pop r11
    pop rcx
    mov rsp, gs:[0x10]
    swapgs
    sysretq
thunk:
    call 2f
1:  pause
    lfence
    jmp 1b
2:  mov [rsp], rbx
    ret
dispatcher:
    push rbx
    call handler
    pop rbx
    ret
handler:
    mov eax, 1
    ret
