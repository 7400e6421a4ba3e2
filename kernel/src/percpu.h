/* Offsets into the per-CPU block (arch/percpu.rs holds the struct and checks these numbers at compile time). */
#define PERCPU_KERNEL_RSP   0x00
#define PERCPU_USER_RSP     0x08
#define PERCPU_KERNEL_CR3   0x40
#define PERCPU_USER_CR3     0x48
#define PERCPU_SCRATCH_RAX  0x50
