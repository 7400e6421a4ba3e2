# The dispatcher is called through a retpoline thunk; the thunk's own call only stuffs the return predictor.
syscall_entry:
    swapgs
    mov gs:[0x10], rsp
    mov rsp, gs:[0]
    push rcx
    push r11
    push rax
    mov rdi, rsp
    lea rbx, [rip + dispatcher]
    call thunk
    pop rax
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
    ret
