//! The other CPUs: starting them one after the other.

use crate::arch::cpu::outb;
use crate::arch::{apic, percpu};
use crate::memory::paging::{kernel_root, physical_to_virtual};
use crate::memory::stacks;
use core::ptr::{addr_of, addr_of_mut, copy_nonoverlapping, write_volatile};
use core::sync::atomic::{AtomicUsize, Ordering};

/// Physical address, below 1 MiB, where an application processor begins in real mode; `boot.S` repeats it.
const AP_TRAMPOLINE: u64 = 0x8000;
/// How long a CPU may take to set itself up, in pauses of about a microsecond: a host may be busy with other things.
const PATIENCE: u32 = 20_000_000;

/// CPUs that have set themselves up.
pub static ONLINE: AtomicUsize = AtomicUsize::new(1);

extern "C" {
    static ap_trampoline: u8;
    static ap_trampoline_end: u8;
    static mut ap_stack_top: u64;
    static mut ap_cpu_id: u64;
    static mut ap_page_tables: u64;
}

/// About a microsecond: a write to a port that nothing listens on.
fn pause_briefly() {
    // SAFETY: port 0x80 is the POST code port; nothing depends on it.
    unsafe { outb(0x80, 0) };
}

/// Starts every CPU of a list of APIC identifiers but the calling one, one after the other.
pub fn start_others(lapic_ids: &[u8]) {
    // SAFETY: the trampoline's page is RAM below 1 MiB that nothing else uses.
    unsafe {
        let length = addr_of!(ap_trampoline_end) as usize - addr_of!(ap_trampoline) as usize;
        copy_nonoverlapping(addr_of!(ap_trampoline), physical_to_virtual(AP_TRAMPOLINE), length);
    }
    let boot_lapic = apic::id();
    for lapic_id in lapic_ids.iter().map(|&id| u64::from(id)).filter(|&id| id != boot_lapic) {
        start(ONLINE.load(Ordering::Acquire), lapic_id);
    }
}

/// Starts one CPU as number `cpu_id` and waits until it is set up.
fn start(cpu_id: usize, lapic_id: u64) {
    // SAFETY: no CPU reads these until it is started, and they are started one at a time.
    unsafe {
        write_volatile(addr_of_mut!(ap_stack_top), stacks::cpu_stack_top(cpu_id, 0));
        write_volatile(addr_of_mut!(ap_cpu_id), cpu_id as u64);
        write_volatile(addr_of_mut!(ap_page_tables), kernel_root());
    }
    apic::send_init(lapic_id);
    (0..10_000).for_each(|_| pause_briefly());
    apic::send_startup(lapic_id, (AP_TRAMPOLINE >> 12) as u32);
    for _ in 0..PATIENCE {
        if ONLINE.load(Ordering::Acquire) > cpu_id {
            return;
        }
        pause_briefly();
    }
    apic::send_init(lapic_id); // whatever it does, it does no more of it: its stack goes to the next one
    crate::println!("smp: the CPU with APIC identifier {lapic_id} does not answer");
}

/// Where an application processor enters Rust, on its own stack, with the kernel's page tables.
#[no_mangle]
extern "C" fn ap_main(cpu_id: usize) -> ! {
    percpu::init(cpu_id, apic::id());
    crate::init_this_cpu(cpu_id);
    ONLINE.fetch_add(1, Ordering::AcqRel);
    crate::process::scheduler::idle()
}
