# The shape of Linux: page-table switch with rsp as scratch register, constants among the pushes, cleared registers,
# a call of a mitigation on the way, exits by SYSRET and IRETQ over a second stack.
syscall_entry:
    swapgs
    mov gs:[0x6014], rsp
    mov rsp, cr3
    and rsp, 0xffffffffffffe7ff
    mov cr3, rsp
    mov rsp, gs:[0x1fb50]
    push 0x2b
    push qword ptr gs:[0x6014]
    push r11
    push 0x33
    push rcx
    push rax
    push rdi
    push rsi
    push rdx
    push rcx
    push -38
    push r8
    push r9
    push r10
    push r11
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    xor esi, esi
    xor edx, edx
    xor ecx, ecx
    xor r8d, r8d
    xor r9d, r9d
    xor r10d, r10d
    xor r11d, r11d
    xor ebx, ebx
    xor ebp, ebp
    mov rdi, rsp
    movsxd rsi, eax
    call mitigation
    call dispatcher
    mov rcx, [rsp + 0x58]
    mov r11, [rsp + 0x80]
    cmp r11, rcx
    jne by_iret
    shl rcx, 16
    sar rcx, 16
    cmp r11, rcx
    jne by_iret
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    pop r11
    pop r10
    pop r9
    pop r8
    pop rax
    pop rcx
    pop rdx
    pop rsi
    mov rdi, rsp
    mov rsp, gs:[0x6004]
    push qword ptr [rdi + 0x28]
    push qword ptr [rdi]
    push rax
    mov rdi, cr3
    or rdi, 0x1000
    mov cr3, rdi
    pop rax
    pop rdi
    pop rsp
    swapgs
by_sysret:
    sysretq
by_iret:
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    pop r11
    pop r10
    pop r9
    pop r8
    pop rax
    pop rcx
    pop rdx
    pop rsi
    mov rdi, rsp
    mov rsp, gs:[0x6004]
    push qword ptr [rdi + 0x30]
    push qword ptr [rdi + 0x28]
    push qword ptr [rdi + 0x20]
    push qword ptr [rdi + 0x18]
    push qword ptr [rdi + 0x10]
    push qword ptr [rdi]
    pop rdi
    swapgs
at_iret:
    iretq
mitigation:
    mov ecx, 0x49
    lfence
    ret
dispatcher:
    mov eax, 1
    ret
