# CR3 is made by masks and BTS: context numbers and the bit that keeps the TLB.
syscall_entry:
    swapgs
    mov gs:[0x10], rsp
    mov rsp, cr3
    bts rsp, 63
    and rsp, 0xffffffffffffe7ff
    mov cr3, rsp
    mov rsp, gs:[0x0]
    push rcx
    push r11
    push rax
    mov rdi, rsp
    call dispatcher
    pop rax
    pop r11
    pop rcx
    mov rdi, gs:[0x20]
    or rdi, 0x1000
    bts rdi, 63
    mov cr3, rdi
    xor edi, edi
    mov rsp, gs:[0x10]
    swapgs
    sysretq
dispatcher:
    mov eax, 1
    jmp rbx
