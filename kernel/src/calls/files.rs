//! Files: open, close, read, write, on the in-memory file system and the console.

use crate::arch::{serial, smp};
use crate::calls::{encode, Errno};
use crate::files::{Descriptor, Node, MAX_PATH};
use crate::memory::user::{self, UserString};
use crate::process::{enter, scheduler, KernelGuard};
use crate::syscall::count::call_count;
use core::sync::atomic::Ordering;

/// Bytes moved at a time between user memory and a file.
const CHUNK: usize = 256;
/// Most bytes that one call moves; the result says how many it were.
const MAX_TRANSFER: u64 = 1 << 20;

/// Opens a file and returns the lowest free descriptor. `mode` is accepted and not used: there are no owners.
#[no_mangle]
#[inline(never)]
pub extern "C" fn sys_open(path: *const u8, flags: i32, mode: u32) -> u64 {
    let _ = mode;
    encode(open(&mut enter(), path as u64, flags))
}

fn open(kernel: &mut KernelGuard, path: u64, flags: i32) -> Result<u64, Errno> {
    let path = UserString::<MAX_PATH>::read(&kernel.current().space, path)?;
    let kernel = &mut **kernel;
    let free = kernel.current().descriptors.iter().position(|descriptor| !descriptor.open);
    let number = free.ok_or(Errno::TooManyOpen)?;
    let descriptor = kernel.files.open(&mut kernel.frames, path.as_bytes(), flags)?;
    kernel.current().descriptors[number] = descriptor;
    Ok(number as u64)
}

fn find(kernel: &mut KernelGuard, number: i32) -> Result<&mut Descriptor, Errno> {
    let descriptors = &mut kernel.current().descriptors;
    let descriptor = usize::try_from(number).ok().and_then(|number| descriptors.get_mut(number));
    descriptor.filter(|descriptor| descriptor.open).ok_or(Errno::BadDescriptor)
}

/// Closes a descriptor.
#[no_mangle]
#[inline(never)]
pub extern "C" fn sys_close(descriptor: i32) -> u64 {
    encode(find(&mut enter(), descriptor).map(|open| {
        *open = Descriptor::CLOSED;
        0
    }))
}

/// Reads up to `length` bytes and returns how many; 0 at the end of a file, or when nothing was typed.
#[no_mangle]
#[inline(never)]
pub extern "C" fn sys_read(descriptor: i32, buffer: *mut u8, length: u64) -> u64 {
    encode(read(&mut enter(), descriptor, buffer as u64, length.min(MAX_TRANSFER)))
}

fn read(kernel: &mut KernelGuard, number: i32, buffer: u64, length: u64) -> Result<u64, Errno> {
    let descriptor = *find(kernel, number)?;
    if !descriptor.may_read() {
        return Err(Errno::BadDescriptor);
    }
    user::check(&kernel.current().space, buffer, length as usize, true)?;
    match kernel.files.node(&descriptor) {
        Node::Console => read_console(kernel, buffer, length),
        Node::Ticks => {
            let slot = kernel.current_slot();
            let before = kernel.ticks;
            while kernel.ticks == before {
                kernel.tick_waiters |= 1 << slot;
                scheduler::sleep(kernel);
            }
            let ticks = kernel.ticks;
            copy_number(kernel, buffer, length, ticks)
        }
        Node::FreeFrames => {
            let free = kernel.frames.free_count();
            copy_number(kernel, buffer, length, free)
        }
        Node::Cpus => copy_number(kernel, buffer, length, smp::ONLINE.load(Ordering::Acquire) as u64),
        Node::Calls => copy_number(kernel, buffer, length, call_count()),
        _ => read_file(kernel, number, buffer, length),
    }
}

/// What the device files give: a number of 8 bytes, cut to the buffer.
fn copy_number(kernel: &mut KernelGuard, buffer: u64, length: u64, value: u64) -> Result<u64, Errno> {
    let length = length.min(8);
    user::copy_out(&kernel.current().space, buffer, &value.to_le_bytes()[..length as usize])?;
    Ok(length)
}

fn read_console(kernel: &mut KernelGuard, buffer: u64, length: u64) -> Result<u64, Errno> {
    let mut done = 0;
    while done < length {
        let Some(byte) = serial::receive() else { break };
        user::copy_out(&kernel.current().space, buffer + done, &[byte])?;
        done += 1;
    }
    Ok(done)
}

fn read_file(kernel: &mut KernelGuard, number: i32, buffer: u64, length: u64) -> Result<u64, Errno> {
    let mut done = 0;
    while done < length {
        let mut chunk = [0; CHUNK];
        let wanted = (length - done).min(CHUNK as u64) as usize;
        let descriptor = *find(kernel, number)?;
        let count = kernel.files.read(&descriptor, &mut chunk[..wanted]);
        if count == 0 {
            break;
        }
        user::copy_out(&kernel.current().space, buffer + done, &chunk[..count])?;
        find(kernel, number)?.offset += count as u64;
        done += count as u64;
    }
    Ok(done)
}

/// Writes `length` bytes and returns how many were written.
#[no_mangle]
#[inline(never)]
pub extern "C" fn sys_write(descriptor: i32, buffer: *const u8, length: u64) -> u64 {
    encode(write(&mut enter(), descriptor, buffer as u64, length.min(MAX_TRANSFER)))
}

fn write(kernel: &mut KernelGuard, number: i32, buffer: u64, length: u64) -> Result<u64, Errno> {
    let descriptor = *find(kernel, number)?;
    if !descriptor.may_write() {
        return Err(Errno::BadDescriptor);
    }
    user::check(&kernel.current().space, buffer, length as usize, false)?;
    let mut done = 0;
    while done < length {
        let mut chunk = [0; CHUNK];
        let count = (length - done).min(CHUNK as u64) as usize;
        user::copy_in(&kernel.current().space, buffer + done, &mut chunk[..count])?;
        let descriptor = *find(kernel, number)?;
        match kernel.files.node(&descriptor) {
            Node::Console => serial::write(&chunk[..count]),
            _ => {
                let kernel = &mut **kernel;
                let offset = kernel.files.write(&mut kernel.frames, &descriptor, &chunk[..count])?;
                kernel.current().descriptors[number as usize].offset = offset;
            }
        }
        done += count as u64;
    }
    Ok(done)
}
