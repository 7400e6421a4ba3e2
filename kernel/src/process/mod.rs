//! Processes: what one is, the table of them, and the lock that guards all kernel state.

pub mod program;
pub mod scheduler;

use crate::arch::percpu::current_process;
use crate::files::{Descriptor, FileSystem, DESCRIPTORS};
use crate::ipc::Channels;
use crate::memory::frames::Frames;
use crate::memory::space::AddressSpace;
use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, Ordering};

/// At most this many processes at a time: sets of them are 64-bit masks.
pub const MAX_PROCESSES: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum State {
    Free,
    /// In the table, being built by its parent.
    New,
    Ready,
    Running,
    Blocked,
    Zombie,
}

/// The x87 and SSE state as FXSAVE stores it.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct FxState(pub [u8; 512]);

impl FxState {
    /// The state that a program begins with: all exceptions masked, registers zero.
    pub const fn initial() -> Self {
        let mut bytes = [0; 512];
        bytes[0] = 0x7f; // FCW 0x037f
        bytes[1] = 0x03;
        bytes[24] = 0x80; // MXCSR 0x1f80
        bytes[25] = 0x1f;
        FxState(bytes)
    }
}

/// One process: one thread, one address space. 1,024 bytes, so that a shift turns its address into its slot.
#[repr(C, align(1024))]
pub struct Process {
    pub pid: u64,
    pub parent: u64,
    pub state: State,
    /// Index in the table; its kernel stack goes with it.
    pub slot: usize,
    pub exit_status: i32,
    pub space: AddressSpace,
    /// Parked kernel stack while not running.
    pub saved_rsp: u64,
    /// The user's rsp, kept here while another process uses the CPU's slot for it.
    pub user_rsp: u64,
    pub fs_base: u64,
    pub gs_base: u64,
    pub descriptors: [Descriptor; DESCRIPTORS],
    name: [u8; 16],
    /// SSE state while the process is in the kernel.
    pub fx_state: FxState,
}

impl Process {
    const fn new() -> Self {
        Process {
            pid: 0,
            parent: 0,
            state: State::Free,
            slot: 0,
            exit_status: 0,
            space: AddressSpace { root: 0, user_root: 0 },
            saved_rsp: 0,
            user_rsp: 0,
            fs_base: 0,
            gs_base: 0,
            descriptors: [Descriptor::CLOSED; DESCRIPTORS],
            name: [0; 16],
            fx_state: FxState::initial(),
        }
    }

    /// The program's name, for messages.
    pub fn name(&self) -> &str {
        let length = self.name.iter().position(|&byte| byte == 0).unwrap_or(self.name.len());
        core::str::from_utf8(&self.name[..length]).unwrap_or("?")
    }

    /// What a child has from its parent beside the memory.
    fn inherit(&mut self, parent: &Process) {
        self.fs_base = parent.fs_base;
        self.gs_base = parent.gs_base;
        self.descriptors = parent.descriptors;
        self.fx_state = parent.fx_state;
        self.name = parent.name;
    }

    /// Takes the last part of a path as the name.
    pub fn set_name(&mut self, path: &[u8]) {
        let base = path.rsplit(|&byte| byte == b'/').next().unwrap_or(path);
        let length = base.len().min(self.name.len());
        self.name = [0; 16];
        self.name[..length].copy_from_slice(&base[..length]);
    }
}

/// Everything that more than one CPU changes.
pub struct Kernel {
    pub processes: [Process; MAX_PROCESSES],
    /// CPUs to wake when the lock is released: earlier, they would only wait for it.
    pub to_wake: u64,
    /// Slot after which the scheduler looks first.
    pub cursor: usize,
    pub next_pid: u64,
    /// Timer ticks since boot.
    pub ticks: u64,
    /// Slots waiting for the next tick.
    pub tick_waiters: u64,
    pub frames: Frames,
    pub channels: Channels,
    pub files: FileSystem,
}

impl Kernel {
    const fn new() -> Self {
        Kernel {
            processes: [const { Process::new() }; MAX_PROCESSES],
            to_wake: 0,
            cursor: 0,
            next_pid: 1,
            ticks: 0,
            tick_waiters: 0,
            frames: Frames::new(),
            channels: Channels::new(),
            files: FileSystem::new(),
        }
    }

    /// A free slot of the table, now [`State::New`] with a fresh pid.
    pub fn allocate_process(&mut self, parent: u64) -> Option<usize> {
        let slot = self.processes.iter().position(|process| process.state == State::Free)?;
        self.processes[slot] = Process { pid: self.next_pid, parent, state: State::New, slot, ..Process::new() };
        self.next_pid += 1;
        Some(slot)
    }

    /// Gives a child what it has from its parent beside the memory.
    pub fn inherit(&mut self, child: usize, parent: usize) {
        let (low, high) = self.processes.split_at_mut(child.max(parent));
        if child < parent {
            low[child].inherit(&high[0]);
        } else {
            high[0].inherit(&low[parent]);
        }
    }

    /// Gives back a slot that never ran, or a zombie that has been waited for.
    pub fn release_process(&mut self, slot: usize) {
        let process = &mut self.processes[slot];
        process.space.free(&mut self.frames);
        process.state = State::Free;
        process.pid = 0;
    }

    pub fn find_process(&self, pid: u64) -> Option<usize> {
        self.processes.iter().position(|process| process.state != State::Free && process.pid == pid)
    }

    /// The slot of the calling CPU's running process.
    pub fn current_slot(&self) -> usize {
        (current_process() as usize - self.processes.as_ptr() as usize) / size_of::<Process>()
    }

    /// The running process of the calling CPU.
    pub fn current(&mut self) -> &mut Process {
        &mut self.processes[self.current_slot()]
    }

    /// The running process and the frames, which address-space changes need together.
    pub fn current_and_frames(&mut self) -> (&mut Process, &mut Frames) {
        let slot = self.current_slot();
        (&mut self.processes[slot], &mut self.frames)
    }
}

/// One lock for all kernel state. It stays held over a stack switch: who comes back to life releases it.
struct BigLock {
    held: AtomicBool,
    kernel: UnsafeCell<Kernel>,
}

// SAFETY: the cell is reached through a `KernelGuard` only, and there is one at a time.
unsafe impl Sync for BigLock {}

static KERNEL: BigLock = BigLock { held: AtomicBool::new(false), kernel: UnsafeCell::new(Kernel::new()) };

/// Possession of the kernel's state; dropping it lets the next CPU in.
pub struct KernelGuard {
    restore_fx_state: bool,
}

/// A process's place in the table, for what is used without the lock: its own CPU's part of it.
pub fn process_place(slot: usize) -> *mut Process {
    assert!(slot < MAX_PROCESSES);
    // SAFETY: the place is inside the table; no reference to the kernel's state is made.
    unsafe { (&raw mut (*KERNEL.kernel.get()).processes).cast::<Process>().add(slot) }
}

/// Takes the lock, in a trap or on the idle loop's behalf.
pub fn lock() -> KernelGuard {
    while KERNEL.held.swap(true, Ordering::Acquire) {
        while KERNEL.held.load(Ordering::Relaxed) {
            core::hint::spin_loop();
        }
    }
    KernelGuard { restore_fx_state: false }
}

/// Takes the lock if nobody holds it.
pub fn try_lock() -> Option<KernelGuard> {
    (!KERNEL.held.swap(true, Ordering::Acquire)).then(|| KernelGuard { restore_fx_state: false })
}

/// Takes the lock in a system call: from here on compiled code may use SSE registers, so the user's are kept.
#[inline(never)] // one copy of it, which a stack trace shows
pub fn enter() -> KernelGuard {
    let process = current_process();
    // SAFETY: the running process is this CPU's alone, and its FXSAVE area is aligned.
    unsafe { core::arch::asm!("fxsave64 [{}]", in(reg) &raw mut (*process).fx_state, options(nostack)) };
    let mut guard = lock();
    guard.restore_fx_state = true;
    guard
}

impl KernelGuard {
    /// A guard for code that a stack switch brought to life with the lock held.
    ///
    /// # Safety
    /// The calling CPU must hold the lock, and have no other guard.
    pub unsafe fn adopt() -> Self {
        KernelGuard { restore_fx_state: false }
    }
}

impl Deref for KernelGuard {
    type Target = Kernel;
    fn deref(&self) -> &Kernel {
        // SAFETY: this guard is the only one.
        unsafe { &*KERNEL.kernel.get() }
    }
}

impl DerefMut for KernelGuard {
    fn deref_mut(&mut self) -> &mut Kernel {
        // SAFETY: this guard is the only one.
        unsafe { &mut *KERNEL.kernel.get() }
    }
}

impl Drop for KernelGuard {
    fn drop(&mut self) {
        let to_wake = core::mem::take(&mut self.to_wake);
        KERNEL.held.store(false, Ordering::Release);
        scheduler::wake_cpus(to_wake);
        if self.restore_fx_state {
            let process = current_process();
            // SAFETY: the area holds what FXSAVE or `FxState::initial` put there.
            unsafe { core::arch::asm!("fxrstor64 [{}]", in(reg) &raw const (*process).fx_state, options(nostack)) };
        }
    }
}
