# The number is sign-extended by CDQE and indexes a table of functions in the stub itself.
syscall_entry:
    swapgs
    mov gs:[0x10], rsp
    mov rsp, gs:[0x0]
    push rcx
    push r11
    cdqe
    push rax
    cmp rax, 500
    ja 1f
    mov rcx, r10
    call [table+rax*8]
1:  pop rdx
    pop r11
    pop rcx
    mov rsp, gs:[0x10]
    swapgs
    sysretq
table: .quad dispatcher, dispatcher
dispatcher:
    mov eax, 1
    jmp rbx
