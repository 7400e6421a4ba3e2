//! The other CPUs: how many there are, and starting them one after the other.

use crate::arch::cpu::{inb, outb, outw};
use crate::arch::percpu::MAX_CPUS;
use crate::arch::{apic, percpu};
use crate::memory::paging::{kernel_root, physical_to_virtual};
use crate::memory::stacks;
use core::ptr::{addr_of, addr_of_mut, copy_nonoverlapping, write_volatile};
use core::sync::atomic::{AtomicUsize, Ordering};

/// Physical address, below 1 MiB, where an application processor begins in real mode; `boot.S` repeats it.
const AP_TRAMPOLINE: u64 = 0x8000;
const FW_CFG_SELECTOR: u16 = 0x510;
const FW_CFG_DATA: u16 = 0x511;
const FW_CFG_SIGNATURE: u16 = 0;
const FW_CFG_NB_CPUS: u16 = 5;
const PATIENCE: u32 = 200_000;

/// CPUs that have set themselves up.
pub static ONLINE: AtomicUsize = AtomicUsize::new(1);

extern "C" {
    static ap_trampoline: u8;
    static ap_trampoline_end: u8;
    static mut ap_stack_top: u64;
    static mut ap_cpu_id: u64;
    static mut ap_page_tables: u64;
}

fn read_fw_cfg<const N: usize>(item: u16) -> [u8; N] {
    let mut bytes = [0; N];
    // SAFETY: fw_cfg's selector and data ports touch no memory.
    unsafe {
        outw(FW_CFG_SELECTOR, item);
        bytes.fill_with(|| inb(FW_CFG_DATA));
    }
    bytes
}

/// How many CPUs the machine has, as QEMU's fw_cfg says; 1 where there is no fw_cfg.
fn count_cpus() -> usize {
    if &read_fw_cfg::<4>(FW_CFG_SIGNATURE) != b"QEMU" {
        return 1;
    }
    usize::from(u16::from_le_bytes(read_fw_cfg(FW_CFG_NB_CPUS))).clamp(1, MAX_CPUS)
}

/// About a microsecond: a write to a port that nothing listens on.
fn pause_briefly() {
    // SAFETY: port 0x80 is the POST code port; nothing depends on it.
    unsafe { outb(0x80, 0) };
}

/// Starts every other CPU and waits until it is set up.
///
/// APIC identifiers count from 0 in QEMU's default topology; with others some are missing, so more are tried.
pub fn start_others() {
    let count = count_cpus();
    // SAFETY: the trampoline's page is RAM below 1 MiB that nothing else uses.
    unsafe {
        let length = addr_of!(ap_trampoline_end) as usize - addr_of!(ap_trampoline) as usize;
        copy_nonoverlapping(addr_of!(ap_trampoline), physical_to_virtual(AP_TRAMPOLINE), length);
    }
    let boot_lapic = apic::id();
    let mut candidates = (0..4 * count as u64).filter(|&lapic_id| lapic_id != boot_lapic);
    while ONLINE.load(Ordering::Acquire) < count {
        let Some(lapic_id) = candidates.next() else {
            crate::println!("smp: not all of {count} CPUs answer");
            return;
        };
        start(ONLINE.load(Ordering::Acquire), lapic_id);
    }
}

/// Starts one CPU as number `cpu_id`; returns when it is set up, or after a while if there is no such CPU.
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
}

/// Where an application processor enters Rust, on its own stack, with the kernel's page tables.
#[no_mangle]
extern "C" fn ap_main(cpu_id: usize) -> ! {
    percpu::init(cpu_id, apic::id());
    crate::init_this_cpu(cpu_id);
    ONLINE.fetch_add(1, Ordering::AcqRel);
    crate::process::scheduler::idle()
}
