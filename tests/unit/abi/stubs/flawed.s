# What a stub should not do: push before the stack switch, one exit without swapgs, a jump that nothing tells.
syscall_entry:
    push rcx
    swapgs
    pop rcx
    mov gs:[8], rsp
    mov rsp, gs:[0]
    push rcx
    push r11
    test rax, rax
    js without_swapgs
    mov rdi, rax
    call dispatcher
    pop r11
    pop rcx
    mov rsp, gs:[8]
    swapgs
    sysretq
without_swapgs:
    cmp rax, -2
    je unknown
    pop r11
    pop rcx
    mov rsp, gs:[8]
    sysretq
unknown:
    jmp rbx
dispatcher:
    mov eax, 1
    ret
