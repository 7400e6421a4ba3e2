//! Who runs: round robin over all CPUs, a switch at each timer tick, sleep and wake-up.

use crate::arch::cpu::{read_cr3, wait_for_interrupt, write_cr3, wrmsr, IA32_FS_BASE, IA32_KERNEL_GS_BASE};
use crate::arch::percpu::{current_process, lapic_id, take_idle_cpu, this_cpu, ThisCpu, MAX_CPUS};
use crate::arch::traps::TrapFrame;
use crate::arch::{apic, power};
use crate::memory::{paging, stacks};
use crate::process::{lock, process_place, try_lock, FxState, Kernel, KernelGuard, Process, State};
use crate::{println, truth};
use core::mem::ManuallyDrop;
use core::ptr::{addr_of, null_mut};
use core::sync::atomic::{AtomicU64, Ordering};

/// The first process: when it ends, the machine does.
const FIRST_PID: u64 = 1;

/// Slots of the processes that are [`State::Ready`]. It changes under the kernel's lock only; without the lock it tells
/// whether taking it is worth while: a CPU that looks for work at each tick would hold up those that have some.
static READY: AtomicU64 = AtomicU64::new(0);

extern "C" {
    fn switch_stacks(save: *mut u64, load: u64);
    fn process_start();
}

/// Lets a process run, on a CPU that has nothing to do if there is one: it is woken when the lock is released.
pub fn make_ready(kernel: &mut Kernel, slot: usize) {
    kernel.processes[slot].state = State::Ready;
    READY.fetch_or(1 << slot, Ordering::Release);
    if let Some(cpu) = take_idle_cpu() {
        kernel.to_wake |= 1 << cpu;
    }
}

/// Wakes CPUs, each of which had nothing to do.
pub fn wake_cpus(cpus: u64) {
    for cpu in (0..MAX_CPUS).filter(|cpu| cpus & 1 << cpu != 0) {
        apic::send_wake(lapic_id(cpu));
    }
}

/// Makes every process of a set ready and empties the set.
pub fn wake_all(kernel: &mut Kernel, waiters: u64) {
    let mut rest = waiters;
    while rest != 0 {
        let slot = rest.trailing_zeros() as usize;
        rest &= rest - 1;
        if kernel.processes[slot].state == State::Blocked {
            make_ready(kernel, slot);
        }
    }
}

/// Puts the running process to sleep until somebody wakes it; the caller has noted it as a waiter.
pub fn sleep(kernel: &mut KernelGuard) {
    kernel.current().state = State::Blocked;
    switch_to_next(kernel);
}

/// The timer: counts, wakes those who wait for a tick, and gives the CPU to the next process.
pub fn on_timer(from_ring_3: bool) {
    if !from_ring_3 && !current_process().is_null() {
        return; // in a system call, where a correct FMASK lets no interrupt in
    }
    let keeps_time = this_cpu().cpu_id() == 0;
    let guard = if keeps_time {
        Some(lock())
    } else if from_ring_3 && is_anyone_ready() {
        try_lock() // a turn that ends a tick later is better than waiting for the lock
    } else {
        None
    };
    let Some(mut kernel) = guard else { return };
    if keeps_time {
        kernel.ticks += 1;
        let waiters = core::mem::take(&mut kernel.tick_waiters);
        wake_all(&mut kernel, waiters);
    }
    if from_ring_3 && is_anyone_ready() {
        let slot = kernel.current_slot();
        kernel.current().state = State::Ready;
        READY.fetch_or(1 << slot, Ordering::Release);
        switch_to_next(&mut kernel);
    }
}

fn is_anyone_ready() -> bool {
    READY.load(Ordering::Acquire) != 0
}

/// Takes the next ready process out of the set, round robin.
fn take_next(kernel: &mut Kernel) -> Option<*mut Process> {
    let ready = READY.load(Ordering::Acquire);
    if ready == 0 {
        return None;
    }
    let turn = kernel.cursor as u32 + 1;
    let slot = (ready.rotate_right(turn).trailing_zeros() + turn) as usize % 64;
    kernel.cursor = slot;
    READY.fetch_and(!(1 << slot), Ordering::Release);
    kernel.processes[slot].state = State::Running;
    Some(process_place(slot))
}

/// Leaves the running process, whose state already says why, for the next one or the idle loop.
fn switch_to_next(kernel: &mut KernelGuard) {
    let cpu = this_cpu();
    let previous = cpu.current_process();
    let next = take_next(kernel).unwrap_or(null_mut());
    if next == previous {
        return;
    }
    // SAFETY: `previous` is the running process, `next` one that was parked; both stay in the table, and the lock is
    // held until the other side releases it.
    unsafe {
        (*previous).user_rsp = cpu.user_rsp();
        let load = if next.is_null() { deactivate(cpu) } else { activate(cpu, next) };
        switch_stacks(&raw mut (*previous).saved_rsp, load);
    }
}

/// Makes the calling CPU use the running process's address space, thread block and page tables: they have changed.
pub fn use_space_of(process: &Process) {
    let cpu = this_cpu();
    if process.space.user_root != 0 {
        cpu.set_kernel_cr3(process.space.root);
        cpu.set_user_cr3(process.space.user_root);
    }
    // SAFETY: in the kernel the waiting GS base is the user's; the tables map the kernel.
    unsafe {
        wrmsr(IA32_FS_BASE, process.fs_base);
        wrmsr(IA32_KERNEL_GS_BASE, process.gs_base);
        if read_cr3() != process.space.root {
            write_cr3(process.space.root);
        }
    }
}

/// Makes a process the CPU's own and returns its parked stack.
///
/// # Safety
/// The lock must be held and the process must be parked.
unsafe fn activate(cpu: ThisCpu, next: *mut Process) -> u64 {
    // SAFETY: the caller's promise.
    let process = unsafe { &*next };
    let stack = stacks::process_stack_top(process.slot);
    cpu.set_current_process(next);
    cpu.set_kernel_rsp(stack);
    cpu.set_interrupt_stack(stack);
    cpu.set_user_rsp(process.user_rsp);
    use_space_of(process);
    truth::note_current_process(cpu.cpu_id() as usize, process.pid);
    process.saved_rsp
}

/// Makes the calling CPU use the kernel's own page tables: a process's are about to go, or not wanted.
fn use_no_space(cpu: ThisCpu) {
    cpu.set_kernel_cr3(0);
    cpu.set_user_cr3(0);
    paging::use_kernel_tables();
}

/// Makes the CPU idle and returns the idle loop's parked stack.
fn deactivate(cpu: ThisCpu) -> u64 {
    cpu.set_current_process(null_mut());
    use_no_space(cpu);
    truth::note_current_process(cpu.cpu_id() as usize, 0);
    cpu.idle_rsp()
}

/// What a CPU does between processes.
pub extern "C" fn idle() -> ! {
    loop {
        let mut kernel = lock();
        let cpu = this_cpu();
        cpu.set_idle(false);
        if let Some(next) = take_next(&mut kernel) {
            // SAFETY: the lock is held, and `next` was parked. It comes back here through `deactivate`.
            unsafe {
                let load = activate(cpu, next);
                switch_stacks(cpu.idle_rsp_place(), load);
            }
            continue;
        }
        cpu.set_idle(true);
        drop(kernel);
        wait_for_work(cpu);
    }
}

/// Sleeps, without the lock, until another CPU says that there is work, or a tick finds some.
///
/// Interrupts are off from the moment the lock was let go to the HLT, so that the wake-up call is not missed. Where somebody
/// else took the work meanwhile, the mark is gone: only the idle loop sets it again, under the lock.
fn wait_for_work(cpu: ThisCpu) {
    loop {
        wait_for_interrupt();
        if !cpu.idle() || is_anyone_ready() {
            return;
        }
    }
}

/// Prepares a new process's kernel stack so that the first switch to it continues in ring 3 with these registers.
pub fn prepare(process: &mut Process, registers: TrapFrame) {
    /// What `switch_stacks` pops, then the registers that `process_start` leads to.
    #[repr(C)]
    struct FirstStack {
        callee_saved: [u64; 6],
        return_address: u64,
        registers: TrapFrame,
    }
    let place = (stacks::process_stack_top(process.slot) - size_of::<FirstStack>() as u64) as *mut FirstStack;
    // SAFETY: the stack belongs to this process, which does not run yet; it is large enough, and aligned for words.
    unsafe {
        place.write(FirstStack { callee_saved: [0; 6], return_address: process_start as *const () as u64, registers })
    };
    process.saved_rsp = place as u64;
}

/// Called on a new process's first switch: releases the kernel, and says which SSE state to begin with.
#[no_mangle]
extern "C" fn finish_first_switch() -> *const FxState {
    // SAFETY: whoever switched here held the lock, and its guard stayed behind on the other stack.
    drop(unsafe { KernelGuard::adopt() });
    // SAFETY: a process runs here.
    unsafe { addr_of!((*current_process()).fx_state) }
}

/// Ends the running process after a fault.
pub fn terminate_current(status: i32) -> ! {
    terminate(lock(), status)
}

/// Ends the running process: frees what it has, tells its parent, and never comes back.
pub fn terminate(mut kernel: KernelGuard, status: i32) -> ! {
    use_no_space(this_cpu());
    let (process, frames) = kernel.current_and_frames();
    let (pid, parent, slot) = (process.pid, process.parent, process.slot);
    process.space.free(frames);
    process.exit_status = status;
    process.state = State::Zombie;
    truth::note_no_return(this_cpu().syscall_sequence(), pid);
    if pid == FIRST_PID {
        println!("process 1 ended with status {status}");
        power::leave(status == 0);
    }
    let waiters = kernel.channels.close_all_of(pid);
    wake_all(&mut kernel, waiters);
    adopt_orphans(&mut kernel, pid);
    match kernel.find_process(parent) {
        Some(parent_slot) if kernel.processes[parent_slot].state != State::Zombie => {
            wake_all(&mut kernel, 1 << parent_slot)
        }
        _ => kernel.release_process(slot),
    }
    // The guard stays behind on this stack for ever; whoever runs next releases the lock.
    switch_to_next(&mut ManuallyDrop::new(kernel));
    unreachable!("a process that ended came back")
}

/// Children of a process that ends: zombies go at once, the others go when they end.
fn adopt_orphans(kernel: &mut Kernel, parent: u64) {
    for slot in 0..kernel.processes.len() {
        if kernel.processes[slot].state != State::Free && kernel.processes[slot].parent == parent {
            kernel.processes[slot].parent = 0;
            if kernel.processes[slot].state == State::Zombie {
                kernel.release_process(slot);
            }
        }
    }
}
