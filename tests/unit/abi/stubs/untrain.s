# A call for the sake of AMD's return predictor, made as Linux makes it since 2023: the bytes of a constant are code that
# a call gets into, which drops that call's return address.
syscall_entry:
    swapgs
    mov gs:[8], rsp
    mov rsp, gs:[0]
    push qword ptr gs:[8]
    push r11
    push rcx
    push rax
    push rdi
    mov rdi, rsp
    movsxd rsi, eax
    call untrain
    call dispatcher
    pop rdi
    pop rax
    pop rcx
    pop r11
    pop rsp
    swapgs
    sysretq
untrain:
    jmp constant
    int3
constant:
    .byte 0x48, 0xb8            # movabs rax, ...
alias:
    lea rsp, [rsp + 8]          # ... of these five bytes
    ret                         # and this one
    int3
    int3
    lfence
    call alias
    ud2
dispatcher:
    mov eax, 1
    ret
