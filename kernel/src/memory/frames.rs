//! Physical memory in frames of 4 KiB: a free list on top of memory that was never used.

use crate::memory::paging::physical_to_virtual;
use crate::memory::PAGE_SIZE;

/// Hands out frames. A free frame's first word is the address of the next one.
pub struct Frames {
    first_free: u64,
    never_used: u64,
    end: u64,
    free_count: u64,
}

impl Frames {
    pub const fn new() -> Self {
        Frames { first_free: 0, never_used: 0, end: 0, free_count: 0 }
    }

    /// Takes over physical memory from `start` to `end`.
    pub fn add(&mut self, start: u64, end: u64) {
        self.never_used = start.next_multiple_of(PAGE_SIZE);
        self.end = end / PAGE_SIZE * PAGE_SIZE;
        self.free_count = (self.end - self.never_used) / PAGE_SIZE;
    }

    /// A zeroed frame's physical address, or `None` when memory is used up.
    pub fn allocate(&mut self) -> Option<u64> {
        let frame = if self.first_free != 0 {
            let frame = self.first_free;
            // SAFETY: a frame on the list belongs to it; its first word is the link.
            self.first_free = unsafe { *physical_to_virtual(frame).cast::<u64>() };
            frame
        } else if self.never_used < self.end {
            self.never_used += PAGE_SIZE;
            self.never_used - PAGE_SIZE
        } else {
            return None;
        };
        self.free_count -= 1;
        // SAFETY: the frame is RAM, mapped in the physical map, and nobody's until it is returned here.
        unsafe { physical_to_virtual(frame).write_bytes(0, PAGE_SIZE as usize) };
        Some(frame)
    }

    /// Takes a frame back. Nothing may refer to it any more.
    pub fn free(&mut self, frame: u64) {
        // SAFETY: the frame came from `allocate` and has no user left.
        unsafe { *physical_to_virtual(frame).cast::<u64>() = self.first_free };
        self.first_free = frame;
        self.free_count += 1;
    }

    /// Frames that can still be allocated.
    pub fn free_count(&self) -> u64 {
        self.free_count
    }
}
