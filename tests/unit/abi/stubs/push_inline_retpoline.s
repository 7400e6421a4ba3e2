# The same with the thunk's code in the stub itself, as compilers write it with inline thunks.
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
    call 2f
1:  pause
    lfence
    jmp 1b
2:  mov [rsp], rbx
    ret
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
