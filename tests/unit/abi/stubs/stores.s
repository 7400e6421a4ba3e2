# Room is made by SUB, the frame filled by MOV from two pointers, rbp being one of them.
syscall_entry:
    swapgs
    mov gs:[0x10], rsp
    mov rsp, gs:[0x0]
    sub rsp, 0x60
    mov [rsp+0x58], rcx
    mov [rsp+0x50], r11
    mov [rsp+0x48], rbp
    lea rbp, [rsp+0x60]
    mov [rbp-0x20], rbx
    mov [rbp-0x28], r12
    mov r11, gs:[0x10]
    mov [rbp-0x30], r11
    mov [rsp], rax
    mov rdi, rsp
    call dispatcher
    mov rcx, [rsp+0x58]
    mov r11, [rsp+0x50]
    mov rbp, [rsp+0x48]
    mov rbx, [rsp+0x40]
    mov r12, [rsp+0x38]
    mov rsp, [rsp+0x30]
    swapgs
    sysretq
dispatcher:
    mov eax, 1
    jmp rbx
