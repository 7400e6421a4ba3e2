//! Physical frames, page tables, kernel stacks, and access to user memory.

pub mod boot_info;
pub mod frames;
pub mod paging;
pub mod routines;
pub mod space;
pub mod stacks;
pub mod user;

pub const PAGE_SIZE: u64 = 4096;
