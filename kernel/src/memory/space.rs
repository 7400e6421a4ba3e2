//! The user half of an address space: mapping, unmapping, changing protection, copying, freeing.

use crate::arch::cpu;
use crate::calls::Errno;
use crate::memory::frames::Frames;
use crate::memory::paging::{self, ADDRESS_MASK, NO_EXECUTE, OWNED, PRESENT, USER, WRITABLE};
use crate::memory::PAGE_SIZE;

/// First address that user space may use.
pub const USER_START: u64 = 0x1_0000;
/// First address above user space. The last page below the hole stays empty: a SYSCALL at its end would return to
/// a non-canonical address.
pub const USER_END: u64 = 0x7fff_ffff_f000;
/// Where `mmap` looks first.
pub const MAP_START: u64 = 0x2000_0000_0000;

pub const PROT_READ: u64 = 1;
pub const PROT_WRITE: u64 = 2;
pub const PROT_EXEC: u64 = 4;

/// One process's page tables.
pub struct AddressSpace {
    /// Physical address of the top table.
    pub root: u64,
    /// The top table in use in ring 3 where the kernel's RAM is hidden there; 0 where there is only one.
    pub user_root: u64,
}

/// The page-table entry for a frame with a protection.
fn entry_for(frame: u64, protection: u64) -> u64 {
    let mut entry = frame | OWNED;
    if protection != 0 {
        entry |= PRESENT | USER;
    }
    if protection & PROT_WRITE != 0 {
        entry |= WRITABLE;
    }
    if protection & PROT_EXEC == 0 {
        entry |= NO_EXECUTE;
    }
    entry
}

/// The pages from `address`, `length` bytes: whole, in the user half, and not none.
///
/// # Errors
/// `EINVAL` for an unaligned address, an empty range, or one that leaves user space.
pub fn page_range(address: u64, length: u64) -> Result<core::ops::Range<u64>, Errno> {
    let end = length
        .checked_add(PAGE_SIZE - 1)
        .map(|bytes| bytes & !(PAGE_SIZE - 1))
        .and_then(|bytes| address.checked_add(bytes));
    match end {
        Some(end) if address % PAGE_SIZE == 0 && length > 0 && address >= USER_START && end <= USER_END => {
            Ok(address..end)
        }
        _ => Err(Errno::InvalidArgument),
    }
}

impl AddressSpace {
    /// An empty user half below the kernel's half.
    pub fn new(frames: &mut Frames) -> Option<Self> {
        let root = frames.allocate()?;
        paging::share_kernel_half(root, true);
        let mut space = AddressSpace { root, user_root: 0 };
        if cfg!(variant = "today") {
            let Some(user_root) = frames.allocate() else {
                frames.free(root);
                return None;
            };
            paging::share_kernel_half(user_root, false);
            space.user_root = user_root;
        }
        Some(space)
    }

    /// Ring 3's top table follows the kernel's.
    fn follow(&self) {
        if self.user_root != 0 {
            // SAFETY: both tables are this address space's, and only its own process changes them.
            unsafe {
                let source = paging::table_words(self.root);
                paging::table_words(self.user_root)[..256].copy_from_slice(&source[..256]);
            }
        }
    }

    /// Maps one new zeroed page and returns its frame.
    ///
    /// # Errors
    /// `ENOMEM` without memory; nothing is mapped then.
    pub fn map_page(&mut self, frames: &mut Frames, address: u64, protection: u64) -> Result<u64, Errno> {
        let frame = frames.allocate().ok_or(Errno::NoMemory)?;
        let mapped = paging::map_user(frames, self.root, address, entry_for(frame, protection));
        self.follow();
        if mapped.is_none() {
            frames.free(frame);
            return Err(Errno::NoMemory);
        }
        Ok(frame)
    }

    /// Maps new zeroed pages over a range that [`Self::is_free`].
    ///
    /// # Errors
    /// `ENOMEM` without memory; nothing stays mapped then.
    pub fn map_range(
        &mut self,
        frames: &mut Frames,
        pages: core::ops::Range<u64>,
        protection: u64,
    ) -> Result<(), Errno> {
        for page in pages.clone().step_by(PAGE_SIZE as usize) {
            if let Err(error) = self.map_page(frames, page, protection) {
                self.unmap_range(frames, pages.start..page + PAGE_SIZE); // the last one may have left tables behind
                return Err(error);
            }
        }
        Ok(())
    }

    /// The entry of a page that the address space owns.
    fn owned_entry(&self, address: u64) -> Option<*mut u64> {
        // SAFETY: an entry found is a word of this address space's tables.
        paging::find_entry(self.root, address).filter(|&entry| unsafe { *entry } & OWNED != 0)
    }

    /// Frees the pages of a range, and the tables that it leaves empty; holes in it are skipped.
    pub fn unmap_range(&mut self, frames: &mut Frames, pages: core::ops::Range<u64>) {
        for page in pages.clone().step_by(PAGE_SIZE as usize) {
            if let Some(entry) = self.owned_entry(page) {
                // SAFETY: the entry is this address space's; its frame has no other user.
                unsafe {
                    frames.free(*entry & ADDRESS_MASK);
                    *entry = 0;
                }
            }
        }
        const TABLE_SPAN: u64 = 512 * PAGE_SIZE;
        for start in (pages.start & !(TABLE_SPAN - 1)..pages.end).step_by(TABLE_SPAN as usize) {
            paging::free_empty_tables(frames, self.root, start);
        }
        self.follow();
        pages.step_by(PAGE_SIZE as usize).for_each(cpu::invlpg);
    }

    /// Changes the protection of a range that [`Self::is_fully_mapped`].
    pub fn protect_range(&mut self, pages: core::ops::Range<u64>, protection: u64) {
        for page in pages.step_by(PAGE_SIZE as usize) {
            if let Some(entry) = self.owned_entry(page) {
                // SAFETY: the entry is this address space's.
                unsafe { *entry = entry_for(*entry & ADDRESS_MASK, protection) };
                cpu::invlpg(page);
            }
        }
    }

    pub fn is_free(&self, pages: core::ops::Range<u64>) -> bool {
        pages.step_by(PAGE_SIZE as usize).all(|page| self.owned_entry(page).is_none())
    }

    pub fn is_fully_mapped(&self, pages: core::ops::Range<u64>) -> bool {
        pages.step_by(PAGE_SIZE as usize).all(|page| self.owned_entry(page).is_some())
    }

    /// The first free range of `length` bytes (whole pages) from [`MAP_START`] on.
    pub fn find_free(&self, length: u64) -> Option<u64> {
        let mut start = MAP_START;
        let mut page = start;
        while page < start + length {
            if page >= USER_END {
                return None;
            }
            if self.owned_entry(page).is_some() {
                start = page + PAGE_SIZE;
            }
            page += PAGE_SIZE;
        }
        Some(start)
    }

    /// Where the kernel finds a user byte, if ring 3 may read it (or write it, if `write`).
    pub fn translate(&self, address: u64, write: bool) -> Option<*mut u8> {
        if !(USER_START..USER_END).contains(&address) {
            return None;
        }
        let wanted = PRESENT | USER | if write { WRITABLE } else { 0 };
        // SAFETY: an entry found is a word of this address space's tables.
        let entry = unsafe { *paging::find_entry(self.root, address)? };
        (entry & wanted == wanted).then(|| paging::physical_to_virtual((entry & ADDRESS_MASK) + address % PAGE_SIZE))
    }

    /// A copy of the whole user half in frames of its own; `None` without memory, and then nothing is kept.
    pub fn duplicate(&self, frames: &mut Frames) -> Option<Self> {
        let mut copy = AddressSpace::new(frames)?;
        if copy_tables(frames, self.root, copy.root, 4).is_none() {
            copy.free(frames);
            return None;
        }
        copy.follow();
        Some(copy)
    }

    /// Gives back every frame. The CPU must not be using these tables.
    pub fn free(&mut self, frames: &mut Frames) {
        if self.root == 0 {
            return;
        }
        free_tables(frames, self.root, 4);
        if self.user_root != 0 {
            frames.free(self.user_root);
        }
        self.root = 0;
        self.user_root = 0;
    }
}

/// How many entries of a table belong to user space: the lower half of the top table, all of any other.
fn user_entries(level: u32) -> usize {
    if level == 4 {
        256
    } else {
        512
    }
}

fn copy_tables(frames: &mut Frames, from: u64, to: u64, level: u32) -> Option<()> {
    // SAFETY: `from` belongs to a process that is in a system call, `to` to nobody yet.
    let (source, target) = unsafe { (paging::table_words(from), paging::table_words(to)) };
    for index in 0..user_entries(level) {
        let entry = source[index];
        if entry & (PRESENT | OWNED) == 0 {
            continue;
        }
        let frame = frames.allocate()?;
        target[index] = frame | (entry & !ADDRESS_MASK);
        if level > 1 {
            copy_tables(frames, entry & ADDRESS_MASK, frame, level - 1)?;
        } else {
            // SAFETY: both are whole frames; the new one is nobody's yet.
            unsafe {
                let page = paging::physical_to_virtual(entry & ADDRESS_MASK);
                paging::physical_to_virtual(frame).copy_from_nonoverlapping(page, PAGE_SIZE as usize);
            }
        }
    }
    Some(())
}

fn free_tables(frames: &mut Frames, table: u64, level: u32) {
    // SAFETY: nobody uses these tables any more.
    let words = unsafe { paging::table_words(table) };
    for entry in &words[..user_entries(level)] {
        if entry & (PRESENT | OWNED) == 0 {
            continue;
        }
        if level > 1 {
            free_tables(frames, entry & ADDRESS_MASK, level - 1);
        } else {
            frames.free(entry & ADDRESS_MASK);
        }
    }
    frames.free(table);
}
