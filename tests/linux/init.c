/*
 * The only program of the Linux guest: tells the truth about the machine, then makes system calls for ever.
 *
 * On the console, one line each:
 *   msr cpu=0 c0000081=0x...      what RDMSR gave inside the guest, by /dev/cpu/N/msr, for every CPU
 *   symbol entry_SYSCALL_64=0x... from /proc/kallsyms
 *   ready
 * Then one process per CPU, pinned to it, repeats: 64 times getpid, once getppid with the registers below, a short sleep.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

static const unsigned MSRS[] = {0xc0000080, 0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084,
                                0xc0000100, 0xc0000101, 0xc0000102};
static const char *const SYMBOLS[] = {"entry_SYSCALL_64", "do_syscall_64", "__x64_sys_getppid", "sys_call_table"};

/* One counter per CPU, written before the call it counts: a test compares it with the stops it saw. */
volatile unsigned long getppid_calls[8];

/* Puts a pattern into every register that the kernel saves, then calls getppid from getppid_syscall. */
void call_getppid(void);
asm(".globl call_getppid, getppid_syscall\n"
    "call_getppid:\n"
    "  .cfi_startproc\n"
    "  push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
    "  .cfi_def_cfa_offset 56\n"
    "  .cfi_offset rbx, -16; .cfi_offset rbp, -24; .cfi_offset r12, -32\n"
    "  .cfi_offset r13, -40; .cfi_offset r14, -48; .cfi_offset r15, -56\n"
    "  movabs $0xb0b0b0b0b0b0b0b0, %rbx\n"
    "  movabs $0xb1b1b1b1b1b1b1b1, %rbp\n"
    "  movabs $0x1212121212121212, %r12\n"
    "  movabs $0x1313131313131313, %r13\n"
    "  movabs $0x1414141414141414, %r14\n"
    "  movabs $0x1515151515151515, %r15\n"
    "  mov $0x11, %edi; mov $0x22, %esi; mov $0x33, %edx; mov $0x44, %r10d; mov $0x55, %r8d; mov $0x66, %r9d\n"
    "  mov $110, %eax\n"
    "getppid_syscall:\n"
    "  syscall\n"
    "  pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
    "  .cfi_def_cfa_offset 8\n"
    "  ret\n"
    "  .cfi_endproc\n");

static void load_msr_driver(void) {
    int module = open("/msr.ko", O_RDONLY);
    if (module < 0 || syscall(SYS_finit_module, module, "", 0) != 0)
        perror("msr.ko");
}

static void print_msrs(int cpu) {
    char path[32];
    snprintf(path, sizeof path, "/msr%d", cpu);
    mknod(path, S_IFCHR | 0600, makedev(202, cpu));
    int file = open(path, O_RDONLY);
    for (unsigned i = 0; i < sizeof MSRS / sizeof *MSRS; i++) {
        unsigned long value;
        if (pread(file, &value, sizeof value, MSRS[i]) == sizeof value)
            printf("msr cpu=%d %x=0x%lx\n", cpu, MSRS[i], value);
        else
            perror(path);
    }
    close(file);
}

static void print_symbols(void) {
    FILE *table = fopen("/proc/kallsyms", "r");
    char name[256], kind;
    unsigned long address;
    while (table && fscanf(table, "%lx %c %255s%*[^\n]", &address, &kind, name) == 3)
        for (unsigned i = 0; i < sizeof SYMBOLS / sizeof *SYMBOLS; i++)
            if (strcmp(name, SYMBOLS[i]) == 0)
                printf("symbol %s=0x%lx\n", name, address);
    if (table)
        fclose(table);
}

static void call_for_ever(int cpu) {
    cpu_set_t only;
    CPU_ZERO(&only);
    CPU_SET(cpu, &only);
    sched_setaffinity(0, sizeof only, &only);
    for (;;) {
        for (int i = 0; i < 64; i++)
            syscall(SYS_getpid);
        getppid_calls[cpu]++;
        call_getppid();
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

int main(void) {
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    setvbuf(stdout, NULL, _IOLBF, 0);
    mkdir("/proc", 0755);
    mount("proc", "/proc", "proc", 0, "");
    load_msr_driver();
    for (int cpu = 0; cpu < cpus; cpu++)
        print_msrs(cpu);
    print_symbols();
    puts("ready");
    for (int cpu = 1; cpu < cpus; cpu++)
        if (fork() == 0)
            call_for_ever(cpu);
    call_for_ever(0);
}
