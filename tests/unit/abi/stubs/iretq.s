# ENDBR64, LFENCE behind swapgs, a frame like an interrupt's, the only exit an IRETQ.
syscall_entry:
    endbr64
    swapgs
    lfence
    mov gs:[0x14], rsp
    mov rsp, gs:[0x1c]
    push 0x23
    push qword ptr gs:[0x14]
    push r11
    push 0x2b
    push rcx
    push rax
    push rdi
    push rsi
    push rdx
    push r10
    push r8
    push r9
    mov rdi, rsp
    call dispatcher
    mov [rsp+0x30], rax
    pop r9
    pop r8
    pop r10
    pop rdx
    pop rsi
    pop rdi
    pop rax
    swapgs
    iretq
dispatcher:
    mov eax, 1
    jmp rbx
