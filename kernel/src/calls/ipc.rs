//! IPC: create, send, recv, close.

use crate::calls::{encode, Errno};
use crate::ipc::{MAX_CAPACITY, MAX_MESSAGE};
use crate::memory::user;
use crate::process::{enter, scheduler, Kernel, KernelGuard};

/// Makes a channel that holds up to `capacity` messages (1 to 16), or finds the one that `key` names.
///
/// Key 0 always makes a new channel. The channel ends with the process that made it. Returns its identifier.
#[no_mangle]
#[inline(never)]
pub extern "C" fn sys_ipc_create(key: u64, capacity: u64) -> u64 {
    encode(create(&mut enter(), key, capacity))
}

fn create(kernel: &mut KernelGuard, key: u64, capacity: u64) -> Result<u64, Errno> {
    if capacity == 0 || capacity > MAX_CAPACITY as u64 {
        return Err(Errno::InvalidArgument);
    }
    if let Some(id) = kernel.channels.find_key(key) {
        return Ok(id);
    }
    let pid = kernel.current().pid;
    kernel.channels.create(pid, key, capacity as usize).ok_or(Errno::Again)
}

/// Sends a message of up to 256 bytes; waits while the channel is full. Returns the length.
#[no_mangle]
#[inline(never)]
pub extern "C" fn sys_ipc_send(channel: u64, message: *const u8, length: u64) -> u64 {
    encode(send(&mut enter(), channel, message as u64, length))
}

fn send(kernel: &mut KernelGuard, id: u64, message: u64, length: u64) -> Result<u64, Errno> {
    if length > MAX_MESSAGE as u64 {
        return Err(Errno::MessageTooLong);
    }
    let slot = kernel.current_slot();
    loop {
        let Kernel { processes, channels, .. } = &mut **kernel;
        let (space, channel) = (&processes[slot].space, channels.find(id)?);
        if !channel.is_full() {
            user::copy_in(space, message, channel.back(length as usize))?;
            let receivers = channel.push(length as usize);
            scheduler::wake_all(kernel, receivers);
            return Ok(length);
        }
        user::check(space, message, length as usize, false)?;
        channel.senders |= 1 << slot;
        scheduler::sleep(kernel);
    }
}

/// Receives the oldest message; waits while there is none. Returns its length.
///
/// A message longer than the buffer stays in the channel, and the call fails.
#[no_mangle]
#[inline(never)]
pub extern "C" fn sys_ipc_recv(channel: u64, buffer: *mut u8, length: u64) -> u64 {
    encode(receive(&mut enter(), channel, buffer as u64, length))
}

fn receive(kernel: &mut KernelGuard, id: u64, buffer: u64, length: u64) -> Result<u64, Errno> {
    let slot = kernel.current_slot();
    loop {
        let Kernel { processes, channels, .. } = &mut **kernel;
        let (space, channel) = (&processes[slot].space, channels.find(id)?);
        if let Some(message) = channel.front() {
            let size = message.len() as u64;
            if size > length {
                return Err(Errno::MessageTooLong);
            }
            user::copy_out(space, buffer, message)?;
            let senders = channel.pop();
            scheduler::wake_all(kernel, senders);
            return Ok(size);
        }
        user::check(space, buffer, length.min(MAX_MESSAGE as u64) as usize, true)?;
        channel.receivers |= 1 << slot;
        scheduler::sleep(kernel);
    }
}

/// Ends a channel; whoever waits at it gets an error.
#[no_mangle]
#[inline(never)]
pub extern "C" fn sys_ipc_close(channel: u64) -> u64 {
    let mut kernel = enter();
    let closed = kernel.channels.close(channel);
    encode(closed.map(|waiters| {
        scheduler::wake_all(&mut kernel, waiters);
        0
    }))
}
