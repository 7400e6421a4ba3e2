//! System-call numbers. User programs compile this same file.

// Process management
pub const SYS_EXIT: u64 = 0;
pub const SYS_FORK: u64 = 1;
pub const SYS_EXEC: u64 = 2;
pub const SYS_WAIT: u64 = 3;
pub const SYS_GETPID: u64 = 4;

// IPC (Exo-OS specific)
pub const SYS_IPC_CREATE: u64 = 100;
pub const SYS_IPC_SEND: u64 = 101;
pub const SYS_IPC_RECV: u64 = 102;
pub const SYS_IPC_CLOSE: u64 = 103;

// Memory
pub const SYS_MMAP: u64 = 200;
pub const SYS_MUNMAP: u64 = 201;
pub const SYS_MPROTECT: u64 = 202;

// Files
pub const SYS_OPEN: u64 = 300;
pub const SYS_CLOSE: u64 = 301;
pub const SYS_READ: u64 = 302;
pub const SYS_WRITE: u64 = 303;
