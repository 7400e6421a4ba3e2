//! Process management: exit, fork, exec, wait, getpid.

use crate::arch::percpu::current_process;
use crate::calls::{encode, Errno};
use crate::files::MAX_PATH;
use crate::memory::user::{self, UserString};
use crate::process::program::{self, Arguments, ARGUMENT_BYTES, INITIAL_RFLAGS, MAX_ARGUMENTS};
use crate::process::{enter, scheduler, FxState, KernelGuard, State};
use crate::syscall::frame::{restart_at, user_rsp, SyscallFrame};

/// Ends the calling process with a status.
#[no_mangle]
#[inline(never)]
pub extern "C" fn sys_exit(code: i32) -> ! {
    scheduler::terminate(enter(), code)
}

/// Makes a copy of the calling process: returns the child's pid, and 0 in the child.
#[no_mangle]
#[inline(never)]
pub extern "C" fn sys_fork() -> u64 {
    encode(fork(&mut enter()))
}

fn fork(kernel: &mut KernelGuard) -> Result<u64, Errno> {
    let pid = kernel.current().pid;
    let slot = kernel.allocate_process(pid).ok_or(Errno::Again)?;
    let (process, frames) = kernel.current_and_frames();
    let Some(space) = process.space.duplicate(frames) else {
        kernel.release_process(slot);
        return Err(Errno::NoMemory);
    };
    let parent = kernel.current_slot();
    kernel.inherit(slot, parent);
    let child = &mut kernel.processes[slot];
    child.space = space;
    // SAFETY: a system call runs, so its frame is there, and only its own CPU uses it.
    let frame = unsafe { &*SyscallFrame::current() };
    let mut registers = program::user_registers(frame.rcx, user_rsp(), frame.r11);
    (registers.rbp, registers.rbx, registers.r12) = (frame.rbp, frame.rbx, frame.r12);
    (registers.r13, registers.r14, registers.r15) = (frame.r13, frame.r14, frame.r15);
    scheduler::prepare(child, registers);
    let child_pid = child.pid;
    scheduler::make_ready(kernel, slot);
    Ok(child_pid)
}

/// Replaces the calling process's program. `argv` is an array of `argc` pointers to zero-terminated strings.
#[no_mangle]
#[inline(never)]
pub extern "C" fn sys_exec(path: *const u8, argv: *const *const u8, argc: u64) -> u64 {
    encode(exec(&mut enter(), path, argv as u64, argc))
}

fn exec(kernel: &mut KernelGuard, path: *const u8, argv: u64, argc: u64) -> Result<u64, Errno> {
    let space = &kernel.current().space;
    let path = UserString::<MAX_PATH>::read(space, path as u64)?;
    if argc > MAX_ARGUMENTS as u64 {
        return Err(Errno::TooBig);
    }
    let mut arguments = Arguments::new();
    for index in 0..argc {
        let mut pointer = [0; 8];
        user::copy_in(space, argv.checked_add(8 * index).ok_or(Errno::Fault)?, &mut pointer)?;
        let argument =
            UserString::<ARGUMENT_BYTES>::read(space, u64::from_le_bytes(pointer)).map_err(|error| match error {
                Errno::NameTooLong => Errno::TooBig,
                other => other,
            })?;
        arguments.push(argument.as_bytes())?;
    }
    let file = kernel.files.program(path.as_bytes()).ok_or(Errno::NoEntry)?;
    let (process, frames) = kernel.current_and_frames();
    let image = program::load(frames, file, &arguments)?;
    let mut old = core::mem::replace(&mut process.space, image.space);
    process.set_name(path.as_bytes());
    process.fs_base = image.fs_base;
    process.gs_base = image.gs_base;
    process.fx_state = FxState::initial();
    scheduler::use_space_of(process);
    old.free(frames);
    restart_at(image.entry, image.stack, INITIAL_RFLAGS);
    Ok(0)
}

/// Waits until a child ends (any, for pid 0), stores its exit status unless `status` is null, and returns its pid.
#[no_mangle]
#[inline(never)]
pub extern "C" fn sys_wait(pid: u64, status: *mut i32) -> u64 {
    encode(wait(&mut enter(), pid, status as u64))
}

fn wait(kernel: &mut KernelGuard, pid: u64, status: u64) -> Result<u64, Errno> {
    if status != 0 {
        user::check(&kernel.current().space, status, size_of::<i32>(), true)?;
    }
    let me = kernel.current().pid;
    loop {
        let mut children = false;
        for slot in 0..kernel.processes.len() {
            let child = &kernel.processes[slot];
            if child.state == State::Free || child.parent != me || (pid != 0 && child.pid != pid) {
                continue;
            }
            children = true;
            if child.state == State::Zombie {
                let (child_pid, exit_status) = (child.pid, child.exit_status);
                kernel.release_process(slot);
                if status != 0 {
                    user::copy_out(&kernel.current().space, status, &exit_status.to_le_bytes())?;
                }
                return Ok(child_pid);
            }
        }
        if !children {
            return Err(Errno::NoChild);
        }
        scheduler::sleep(kernel);
    }
}

/// The calling process's pid.
#[no_mangle]
#[inline(never)]
pub extern "C" fn sys_getpid() -> u64 {
    // SAFETY: a process runs, and nobody changes the pid of one that does.
    unsafe { (*current_process()).pid }
}
