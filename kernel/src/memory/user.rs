//! Access to user memory: every page is checked before a byte of it is used.

use crate::calls::Errno;
use crate::memory::space::AddressSpace;
use crate::memory::PAGE_SIZE;

/// Calls `each(kernel address, offset, length)` for the piece of every page in a user range.
fn for_each_piece(
    space: &AddressSpace,
    address: u64,
    length: usize,
    write: bool,
    mut each: impl FnMut(*mut u8, usize, usize),
) -> Result<(), Errno> {
    let mut done = 0;
    while done < length {
        let place = address.checked_add(done as u64).ok_or(Errno::Fault)?;
        let piece = (length - done).min((PAGE_SIZE - place % PAGE_SIZE) as usize);
        each(space.translate(place, write).ok_or(Errno::Fault)?, done, piece);
        done += piece;
    }
    Ok(())
}

/// Checks that ring 3 may read (or write) the whole range.
///
/// # Errors
/// `EFAULT` if any page is missing, the kernel's, or protected.
pub fn check(space: &AddressSpace, address: u64, length: usize, write: bool) -> Result<(), Errno> {
    for_each_piece(space, address, length, write, |_, _, _| ())
}

/// Copies from user memory.
///
/// # Errors
/// `EFAULT` as for [`check`]; the buffer may be partly filled then.
pub fn copy_in(space: &AddressSpace, address: u64, buffer: &mut [u8]) -> Result<(), Errno> {
    for_each_piece(space, address, buffer.len(), false, |source, offset, piece| {
        // SAFETY: the piece lies in one frame that the process owns, and in the buffer.
        unsafe { source.copy_to_nonoverlapping(buffer[offset..].as_mut_ptr(), piece) };
    })
}

/// Copies to user memory: all of it or nothing.
///
/// # Errors
/// `EFAULT` as for [`check`].
pub fn copy_out(space: &AddressSpace, address: u64, bytes: &[u8]) -> Result<(), Errno> {
    if address % PAGE_SIZE + bytes.len() as u64 > PAGE_SIZE {
        check(space, address, bytes.len(), true)?; // on more than one page, some may be bad after a good one
    }
    for_each_piece(space, address, bytes.len(), true, |target, offset, piece| {
        // SAFETY: the piece lies in one frame that the process owns, and in `bytes`.
        unsafe { target.copy_from_nonoverlapping(bytes[offset..].as_ptr(), piece) };
    })
}

/// A zero-terminated string from user memory, at most `N` bytes without the zero.
pub struct UserString<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> UserString<N> {
    /// Reads up to the zero byte.
    ///
    /// # Errors
    /// `EFAULT` as for [`check`]; `ENAMETOOLONG` without a zero in the first `N` + 1 bytes.
    pub fn read(space: &AddressSpace, address: u64) -> Result<Self, Errno> {
        let mut string = UserString { bytes: [0; N], length: 0 };
        loop {
            let place = address.checked_add(string.length as u64).ok_or(Errno::Fault)?;
            let mut byte = [0];
            copy_in(space, place, &mut byte)?;
            if byte[0] == 0 {
                return Ok(string);
            }
            if string.length == N {
                return Err(Errno::NameTooLong);
            }
            string.bytes[string.length] = byte[0];
            string.length += 1;
        }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}
