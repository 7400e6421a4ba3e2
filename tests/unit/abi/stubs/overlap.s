# Narrow stores into slots that hold registers: those are not whole any more.
syscall_entry:
    swapgs
    mov gs:[0x10], rsp
    mov rsp, gs:[0x0]
    push rcx
    push r11
    push rax
    mov dword ptr [rsp+4], 0
    mov byte ptr [rsp+8], 1
    mov rdi, rsp
    call dispatcher
    pop rax
    pop r11
    pop rcx
    mov rsp, gs:[0x10]
    swapgs
    sysretq
dispatcher:
    mov eax, 1
    jmp rbx
