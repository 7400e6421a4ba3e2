//! Memory: mmap, munmap, mprotect, all on anonymous private pages.

use crate::calls::{encode, Errno};
use crate::memory::space::{page_range, PROT_EXEC, PROT_READ, PROT_WRITE};
use crate::memory::PAGE_SIZE;
use crate::process::{enter, KernelGuard};

const MAP_PRIVATE: u64 = 0x02;
const MAP_FIXED: u64 = 0x10;
const MAP_ANONYMOUS: u64 = 0x20;

/// Maps new zeroed pages and returns their address.
///
/// `flags` must be private and anonymous (0x22), `descriptor` -1 and `offset` 0. `address` is a hint, or with
/// `MAP_FIXED` (0x10) the place, which must be free.
#[no_mangle]
#[inline(never)]
pub extern "C" fn sys_mmap(
    address: u64,
    length: u64,
    protection: u64,
    flags: u64,
    descriptor: i32,
    offset: u64,
) -> u64 {
    if flags & !MAP_FIXED != MAP_PRIVATE | MAP_ANONYMOUS || descriptor != -1 || offset != 0 {
        return encode(Err(Errno::InvalidArgument));
    }
    encode(map(&mut enter(), address, length, protection, flags & MAP_FIXED != 0))
}

/// A protection that is allowed: nothing unknown, and never writable and executable at once.
fn check_protection(protection: u64) -> Result<(), Errno> {
    if protection & !(PROT_READ | PROT_WRITE | PROT_EXEC) != 0 {
        return Err(Errno::InvalidArgument);
    }
    if protection & (PROT_WRITE | PROT_EXEC) == PROT_WRITE | PROT_EXEC {
        return Err(Errno::Access);
    }
    Ok(())
}

fn map(kernel: &mut KernelGuard, address: u64, length: u64, protection: u64, fixed: bool) -> Result<u64, Errno> {
    check_protection(protection)?;
    if length == 0 {
        return Err(Errno::InvalidArgument);
    }
    if length.div_ceil(PAGE_SIZE) > kernel.frames.free_count() {
        return Err(Errno::NoMemory);
    }
    let (process, frames) = kernel.current_and_frames();
    let space = &mut process.space;
    let hinted = page_range(address, length).ok().filter(|pages| space.is_free(pages.clone()));
    let pages = match hinted {
        Some(pages) => pages,
        None if fixed => {
            page_range(address, length)?;
            return Err(Errno::Exists);
        }
        None => {
            let start = space.find_free(length.next_multiple_of(PAGE_SIZE)).ok_or(Errno::NoMemory)?;
            page_range(start, length)?
        }
    };
    space.map_range(frames, pages.clone(), protection)?;
    Ok(pages.start)
}

/// Unmaps whole pages, all of which must be mapped.
#[no_mangle]
#[inline(never)]
pub extern "C" fn sys_munmap(address: u64, length: u64) -> u64 {
    let mut kernel = enter();
    let (process, frames) = kernel.current_and_frames();
    encode(page_range(address, length).and_then(|pages| {
        if !process.space.is_fully_mapped(pages.clone()) {
            return Err(Errno::InvalidArgument);
        }
        process.space.unmap_range(frames, pages);
        Ok(0)
    }))
}

/// Changes what may be done with whole pages, all of which must be mapped.
#[no_mangle]
#[inline(never)]
pub extern "C" fn sys_mprotect(address: u64, length: u64, protection: u64) -> u64 {
    let mut kernel = enter();
    let space = &mut kernel.current().space;
    encode(check_protection(protection).and_then(|()| page_range(address, length)).and_then(|pages| {
        if !space.is_fully_mapped(pages.clone()) {
            return Err(Errno::NoMemory);
        }
        space.protect_range(pages, protection);
        Ok(0)
    }))
}
