/*
 * Boot: from the PVH entry point (32-bit protected mode, paging off) to kernel_main in the higher half, and from a
 * STARTUP IPI (16-bit real mode, below 1 MiB) to ap_main.
 *
 * Everything in .boot is linked at its physical address. The page tables here are complete at link time: they map
 * the first 4 GiB at 0 and at the physical map (ACPI tables lie high), and the first of them at the kernel's base.
 * memory/paging.rs replaces them with tables that honour W^X; they stay for the other CPUs, which need the identity
 * mapping while they switch paging on.
 */
#define KERNEL_BASE 0xffffffff80000000
#define BOOT_STACK_SIZE 16384

    .section .note.pvh, "a", @note
    .balign 4
    .long 4                     /* length of the name */
    .long 8                     /* length of the descriptor */
    .long 18                    /* XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz "Xen"
    .quad pvh_start

    .section .boot.text, "ax", @progbits
    .code32
    .globl pvh_start
    .type pvh_start, @function
pvh_start:
    cld
    movl %ebx, %esi             /* struct hvm_start_info; 0 marks an application processor below */
    jmp enable_long_mode
    .size pvh_start, . - pvh_start

    .type ap_start32, @function
ap_start32:
    movw $0x10, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    xorl %esi, %esi
    jmp enable_long_mode
    .size ap_start32, . - ap_start32

    .type enable_long_mode, @function
enable_long_mode:
    movl %cr4, %eax
    orl $0x620, %eax            /* PAE, OSFXSR, OSXMMEXCPT */
    movl %eax, %cr4
    movl $boot_pml4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx      /* EFER: LME and NXE; SCE is init_syscall's */
    rdmsr
    orl $0x900, %eax
    wrmsr
    movl %cr0, %eax
    andl $0x9ffffffb, %eax      /* not CD, NW, EM */
    orl $0x80010022, %eax       /* PG, WP, NE, MP */
    movl %eax, %cr0
    lgdt boot_gdt_pointer
    ljmp $0x08, $start64
    .size enable_long_mode, . - enable_long_mode

    .code64
    .type start64, @function
start64:
    xorl %eax, %eax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw %ax, %fs
    movw %ax, %gs
    movabsq $start_high, %rax
    jmp *%rax
    .size start64, . - start64

    .section .boot.data, "aw", @progbits
    .balign 4096
boot_pml4:
    .quad boot_pdpt_low + 3     /* identity, for the switch to long mode */
    .fill 272, 8, 0
    .quad boot_pdpt_low + 3     /* entry 273: the physical map at 0xffff888000000000 */
    .fill 237, 8, 0
    .quad boot_pdpt_high + 3    /* entry 511: the kernel */
boot_pdpt_low:
    .quad boot_pd + 3
    .quad boot_pd + 0x1003
    .quad boot_pd + 0x2003
    .quad boot_pd + 0x3003
    .fill 508, 8, 0
boot_pdpt_high:
    .fill 510, 8, 0
    .quad boot_pd + 3           /* 0xffffffff80000000 */
    .quad 0
boot_pd:
    .set page, 0
    .rept 2048
    .quad page + 0x83           /* present, writable, 2 MiB */
    .set page, page + 0x200000
    .endr

    .balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff    /* 0x08: 64-bit code */
    .quad 0x00cf93000000ffff    /* 0x10: data */
    .quad 0x00cf9b000000ffff    /* 0x18: 32-bit code, for the trampoline */
boot_gdt_pointer:
    .word . - boot_gdt - 1
    .long boot_gdt

    /* Copied to AP_TRAMPOLINE (arch/smp.rs) before an application processor is started there. */
    .section .rodata.trampoline, "a", @progbits
    .code16
    .globl ap_trampoline
ap_trampoline:
    cli
    cld
    xorw %ax, %ax
    movw %ax, %ds
    lgdtl 0x8000 + trampoline_gdt_pointer - ap_trampoline
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmpl $0x18, $ap_start32
    .balign 4
trampoline_gdt_pointer:
    .word 31
    .long boot_gdt
    .globl ap_trampoline_end
ap_trampoline_end:

    .text
    .code64
    .type start_high, @function
start_high:
    .cfi_startproc
    .cfi_undefined rip          /* nobody called it: a backtrace ends here */
    xorl %ebp, %ebp
    testl %esi, %esi
    jz 1f
    movq $boot_stack_top, %rsp
    movl %esi, %edi
    call kernel_main
    ud2
1:  movq ap_page_tables(%rip), %rax /* the stack is mapped in the kernel's own tables only */
    movq %rax, %cr3
    movq ap_stack_top(%rip), %rsp
    movq ap_cpu_id(%rip), %rdi
    call ap_main
    ud2
    .cfi_endproc
    .size start_high, . - start_high

    .bss
    .balign 16
    .fill BOOT_STACK_SIZE, 1, 0
boot_stack_top:
    .globl ap_stack_top
    .globl ap_cpu_id
    .globl ap_page_tables
ap_stack_top:
    .quad 0
ap_cpu_id:
    .quad 0
ap_page_tables:
    .quad 0
    .section .note.GNU-stack, "", @progbits
