# Page-table switch, sixteen pushes, a pointer to the frame, restore by mov, a canonical check with an iretq path.
syscall_entry:
    swapgs
    mov gs:[0x50], rax
    mov rax, gs:[0x40]
    test rax, rax
    jz 1f
    mov cr3, rax
1:  mov rax, gs:[0x50]
    mov gs:[8], rsp
    mov rsp, gs:[0]
    push rcx
    push r11
    push rbp
    push rbx
    push r12
    push r13
    push r14
    push r15
    push qword ptr gs:[8]
    push rsi
    push rdi
    push rdx
    push r10
    push r8
    push r9
    push rax
    mov rbx, rsp
    and rsp, -16
    mov rdi, rbx
    call dispatcher
    mov rsp, rbx
    mov rax, [rsp]
    mov r9, [rsp + 8]
    mov r8, [rsp + 16]
    mov r10, [rsp + 24]
    mov rdx, [rsp + 32]
    mov rdi, [rsp + 40]
    mov rsi, [rsp + 48]
    mov r15, [rsp + 64]
    mov r14, [rsp + 72]
    mov r13, [rsp + 80]
    mov r12, [rsp + 88]
    mov rbp, [rsp + 104]
    mov r11, [rsp + 112]
    mov rcx, [rsp + 120]
    mov rbx, rcx
    shr rbx, 47
    jnz 3f
    mov rbx, [rsp + 56]
    shr rbx, 47
    jnz 3f
    mov rbx, [rsp + 96]
    mov rsp, [rsp + 56]
    push_free:
    mov gs:[0x50], rax
    mov rax, gs:[0x48]
    test rax, rax
    jz 2f
    mov cr3, rax
2:  mov rax, gs:[0x50]
    swapgs
    sysretq
3:  mov rbx, [rsp + 56]
    push 0x23
    push rbx
    push r11
    push 0x2b
    push rcx
    mov rbx, [rsp + 136]
    swapgs
    iretq
dispatcher:
    ret
