//! Page tables: the kernel's, and the walk that address spaces share.
//!
//! Kernel half: the physical map (RAM, and nothing executable), the kernel's image with W^X, the local APIC, and the
//! kernel stacks. Every address space has the same entries 273 and 511 of its top table.

use crate::arch::cpu;
use crate::memory::frames::Frames;
use crate::memory::{stacks, PAGE_SIZE};
use core::ptr::addr_of;
use core::sync::atomic::{AtomicU64, Ordering};

pub const PRESENT: u64 = 1 << 0;
pub const WRITABLE: u64 = 1 << 1;
pub const USER: u64 = 1 << 2;
const CACHE_DISABLE: u64 = 1 << 4;
const LARGE: u64 = 1 << 7;
/// Software bit: the frame belongs to the address space, also while the page is not accessible.
pub const OWNED: u64 = 1 << 9;
pub const NO_EXECUTE: u64 = 1 << 63;
pub const ADDRESS_MASK: u64 = 0x000f_ffff_ffff_f000;

pub const KERNEL_HALF: u64 = 0xffff_8000_0000_0000;
const PHYSICAL_MAP: u64 = 0xffff_8880_0000_0000;
const KERNEL_BASE: u64 = 0xffff_ffff_8000_0000;
/// Where the local APIC's registers are mapped.
pub const LAPIC_ADDRESS: u64 = 0xffff_ffff_c000_0000;
const LAPIC_PHYSICAL: u64 = 0xfee0_0000;
/// RAM above this is not used: 1 GiB, which one page directory maps.
pub const PHYSICAL_LIMIT: u64 = 1 << 30;
const LARGE_PAGE: u64 = 1 << 21;

/// The kernel's own page tables, used while no process runs.
static KERNEL_ROOT: AtomicU64 = AtomicU64::new(0);

extern "C" {
    static __text_start: u8;
    static __text_end: u8;
    static __rodata_start: u8;
    static __rodata_end: u8;
    static __data_start: u8;
    static __kernel_end: u8;
}

/// Where the physical map shows a physical address below [`PHYSICAL_LIMIT`].
pub fn physical_to_virtual(physical: u64) -> *mut u8 {
    (PHYSICAL_MAP + physical) as *mut u8
}

fn image_to_physical(address: *const u8) -> u64 {
    address as u64 - KERNEL_BASE
}

/// First physical address after the kernel's image.
pub fn image_end() -> u64 {
    image_to_physical(addr_of!(__kernel_end))
}

/// The entry that translates `address` in the table at `root`, creating tables on the way; `None` without memory.
fn make_entry(frames: &mut Frames, root: u64, address: u64, table_flags: u64) -> Option<*mut u64> {
    let mut table = root;
    for level in [39, 30, 21] {
        let entry = table_entry(table, address, level);
        // SAFETY: `table` is a page table's frame, so the entry is a word of it.
        unsafe {
            if *entry & PRESENT == 0 {
                *entry = frames.allocate()? | table_flags;
            }
            table = *entry & ADDRESS_MASK;
        }
    }
    Some(table_entry(table, address, 12))
}

fn table_entry(table: u64, address: u64, shift: u32) -> *mut u64 {
    let index = (address >> shift) as usize & 511;
    physical_to_virtual(table).cast::<u64>().wrapping_add(index)
}

/// The 4 KiB page's entry for `address`, if its tables exist.
pub fn find_entry(root: u64, address: u64) -> Option<*mut u64> {
    let mut table = root;
    for level in [39, 30, 21] {
        // SAFETY: `table` is a page table's frame, so the entry is a word of it.
        let entry = unsafe { *table_entry(table, address, level) };
        if entry & PRESENT == 0 || entry & LARGE != 0 {
            return None;
        }
        table = entry & ADDRESS_MASK;
    }
    Some(table_entry(table, address, 12))
}

/// Frees the tables that translate `address` as far as they have become empty; the top table stays.
pub fn free_empty_tables(frames: &mut Frames, root: u64, address: u64) {
    let mut path = [core::ptr::null_mut::<u64>(); 3];
    let mut depth = 0;
    let mut table = root;
    for level in [39, 30, 21] {
        let place = table_entry(table, address, level);
        // SAFETY: `table` is a page table's frame, so the entry is a word of it.
        let entry = unsafe { *place };
        if entry & PRESENT == 0 {
            break;
        }
        path[depth] = place;
        depth += 1;
        table = entry & ADDRESS_MASK;
    }
    for &place in path[..depth].iter().rev() {
        // SAFETY: the tables are of an address space that only its own process changes.
        unsafe {
            let table = *place & ADDRESS_MASK;
            if table_words(table).iter().any(|&entry| entry != 0) {
                return;
            }
            *place = 0;
            frames.free(table);
        }
    }
}

/// Whether a kernel address can be read with the page tables at `root`.
pub fn is_mapped(root: u64, address: u64) -> bool {
    let mut table = root & ADDRESS_MASK;
    for level in [39, 30, 21, 12] {
        // SAFETY: as for `find_entry`.
        let entry = unsafe { *table_entry(table, address, level) };
        if entry & PRESENT == 0 {
            return false;
        }
        if entry & LARGE != 0 {
            return true;
        }
        table = entry & ADDRESS_MASK;
    }
    true
}

/// Maps a kernel page; `None` without memory.
pub fn map(frames: &mut Frames, root: u64, address: u64, physical: u64, flags: u64) -> Option<()> {
    let entry = make_entry(frames, root, address, PRESENT | WRITABLE)?;
    // SAFETY: the entry is a word of a page table that is being built.
    unsafe { *entry = physical | flags | PRESENT };
    Some(())
}

/// Maps a user page that the address space owns; `None` without memory.
pub fn map_user(frames: &mut Frames, root: u64, address: u64, entry: u64) -> Option<()> {
    let place = make_entry(frames, root, address, PRESENT | WRITABLE | USER)?;
    // SAFETY: the entry is a word of this address space's page table, and only its own process changes it.
    unsafe { *place = entry };
    Some(())
}

/// Builds the kernel's page tables and switches to them.
pub fn init(frames: &mut Frames, ram_end: u64) {
    let root = frames.allocate().expect("memory for the kernel's page tables");
    build(frames, root, ram_end).expect("memory for the kernel's page tables");
    KERNEL_ROOT.store(root, Ordering::Release);
    use_kernel_tables();
}

fn build(frames: &mut Frames, root: u64, ram_end: u64) -> Option<()> {
    map_physical_memory(frames, root, ram_end)?;
    let sections = [
        (addr_of!(__text_start), addr_of!(__text_end), 0),
        (addr_of!(__rodata_start), addr_of!(__rodata_end), NO_EXECUTE),
        (addr_of!(__data_start), addr_of!(__kernel_end), WRITABLE | NO_EXECUTE),
    ];
    for (start, end, flags) in sections {
        for page in (start as u64..end as u64).step_by(PAGE_SIZE as usize) {
            map(frames, root, page, page - KERNEL_BASE, flags)?;
        }
    }
    map(frames, root, LAPIC_ADDRESS, LAPIC_PHYSICAL, WRITABLE | NO_EXECUTE | CACHE_DISABLE)?;
    stacks::map_all(frames, root)
}

/// Maps RAM in large pages, but the kernel's code and constants page by page and read-only.
fn map_physical_memory(frames: &mut Frames, root: u64, ram_end: u64) -> Option<()> {
    let read_only = image_to_physical(addr_of!(__text_start))..image_to_physical(addr_of!(__rodata_end));
    for start in (0..ram_end).step_by(LARGE_PAGE as usize) {
        let overlaps = start < read_only.end && start + LARGE_PAGE > read_only.start;
        let step = if overlaps { PAGE_SIZE } else { LARGE_PAGE };
        for physical in (start..start + LARGE_PAGE).step_by(step as usize) {
            let writable = if read_only.contains(&physical) { 0 } else { WRITABLE };
            let address = PHYSICAL_MAP + physical;
            if overlaps {
                map(frames, root, address, physical, writable | NO_EXECUTE)?;
            } else {
                map_large(frames, root, address, physical)?;
            }
        }
    }
    Some(())
}

fn map_large(frames: &mut Frames, root: u64, address: u64, physical: u64) -> Option<()> {
    let mut table = root;
    for level in [39, 30] {
        let entry = table_entry(table, address, level);
        // SAFETY: `table` is a page table's frame, so the entry is a word of it.
        unsafe {
            if *entry & PRESENT == 0 {
                *entry = frames.allocate()? | PRESENT | WRITABLE;
            }
            table = *entry & ADDRESS_MASK;
        }
    }
    // SAFETY: as above.
    unsafe { *table_entry(table, address, 21) = physical | PRESENT | WRITABLE | LARGE | NO_EXECUTE };
    Some(())
}

/// The kernel's own page tables.
pub fn kernel_root() -> u64 {
    KERNEL_ROOT.load(Ordering::Acquire)
}

/// Switches the calling CPU to the kernel's own page tables.
pub fn use_kernel_tables() {
    // SAFETY: they map the kernel, the stacks included.
    unsafe { cpu::write_cr3(kernel_root()) };
}

/// Gives a new top table the kernel half; `physical_map` says whether RAM is part of it.
pub fn share_kernel_half(root: u64, physical_map: bool) {
    for address in [PHYSICAL_MAP, KERNEL_BASE] {
        if address == PHYSICAL_MAP && !physical_map {
            continue;
        }
        // SAFETY: both are top tables; the kernel's entries never change after boot.
        unsafe { *table_entry(root, address, 39) = *table_entry(kernel_root(), address, 39) };
    }
}

/// The words of a page table.
///
/// # Safety
/// `table` must be the physical address of a page table that nobody else uses meanwhile.
pub unsafe fn table_words(table: u64) -> &'static mut [u64; 512] {
    // SAFETY: the caller's promise.
    unsafe { &mut *physical_to_virtual(table).cast::<[u64; 512]>() }
}
