# Functions are called in front of the dispatcher and behind it, with the number still in rax.
syscall_entry:
    swapgs
    mov gs:[0x10], rsp
    mov rsp, gs:[0x0]
    push qword ptr gs:[0x10]
    push rcx
    push r11
    push rax
    push rdi
    push rsi
    push rdx
    push r10
    push r8
    push r9
    push rbx
    push rbp
    sti
    call enter_hook
    mov rdi, [rsp+0x40]
    mov rsi, [rsp+0x38]
    mov rdx, [rsp+0x30]
    mov rcx, [rsp+0x28]
    mov r8, [rsp+0x20]
    mov r9, [rsp+0x18]
    mov rax, [rsp+0x40]
    call dispatcher
    mov [rsp+0x40], rax
    call exit_hook
    cli
    pop rbp
    pop rbx
    pop r9
    pop r8
    pop r10
    pop rdx
    pop rsi
    pop rdi
    pop rax
    pop r11
    pop rcx
    pop rsp
    swapgs
    sysretq
enter_hook:
    push rbx
    pop rbx
    ret
exit_hook:
    push rbx
    pop rbx
    ret
dispatcher:
    mov eax, 1
    jmp rbx
