//! Kernel stacks: 16 KiB each, with an unmapped guard of the same size below.

use crate::arch::percpu::MAX_CPUS;
use crate::memory::frames::Frames;
use crate::memory::paging::{self, NO_EXECUTE, WRITABLE};
use crate::memory::PAGE_SIZE;
use crate::process::MAX_PROCESSES;
use core::arch::asm;

const STACKS_ADDRESS: u64 = 0xffff_ffff_d000_0000;
const STRIDE: u64 = 0x8000;
const STACK_SIZE: u64 = 0x4000;
/// One for the idle loop and one for each interrupt stack table slot in use.
const STACKS_PER_CPU: usize = 5;

/// Top of a process slot's kernel stack.
pub fn process_stack_top(slot: usize) -> u64 {
    STACKS_ADDRESS + STRIDE * (slot as u64 + 1)
}

/// Top of a CPU's own stack: 0 is the idle loop's, 1 to 4 are the interrupt stack table's.
pub fn cpu_stack_top(cpu: usize, index: usize) -> u64 {
    process_stack_top(MAX_PROCESSES + cpu * STACKS_PER_CPU + index)
}

/// Goes on on the calling CPU's own stack, and leaves the boot stack, which has no guard below it.
pub fn leave_boot_stack(next: extern "C" fn() -> !) -> ! {
    let top = cpu_stack_top(0, 0);
    // SAFETY: the boot CPU's own stack is mapped and empty, and nothing on the old one is used any more.
    unsafe {
        asm!("mov rsp, {top}", "xor ebp, ebp", "call {next}", "ud2", top = in(reg) top, next = in(reg) next, options(noreturn))
    }
}

/// Maps every stack. They are never freed, so that running out of memory cannot happen in the middle of a fork.
pub fn map_all(frames: &mut Frames, root: u64) -> Option<()> {
    for slot in 0..MAX_PROCESSES + MAX_CPUS * STACKS_PER_CPU {
        let top = process_stack_top(slot);
        for page in (top - STACK_SIZE..top).step_by(PAGE_SIZE as usize) {
            let frame = frames.allocate()?;
            paging::map(frames, root, page, frame, WRITABLE | NO_EXECUTE)?;
        }
    }
    Some(())
}
