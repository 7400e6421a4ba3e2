//! The reference kernel: the design's system-call path on a small kernel that publishes what is true.
//!
//! Boot is in `boot.S`, which ends in [`kernel_main`]. `kernel/README.md` explains the rest.

#![no_std]
#![no_main]

mod arch;
mod calls;
mod files;
mod ipc;
mod memory;
mod process;
mod syscall;
#[cfg_attr(variant = "truth-less", path = "truth_less.rs")]
mod truth;

use crate::arch::{apic, cpu, percpu, power, serial, smp, traps};
use crate::memory::boot_info::BootInfo;
use crate::memory::{paging, stacks};
use crate::process::program::{self, Arguments};
use crate::process::{lock, scheduler};
use core::sync::atomic::Ordering;

/// Where the boot CPU enters Rust, on the boot stack, with the boot page tables.
#[no_mangle]
extern "C" fn kernel_main(start_info: u64) -> ! {
    serial::init();
    let boot = BootInfo::read(start_info);
    set_up_memory(boot.ram_end);
    percpu::init(0, 0);
    percpu::this_cpu().set_lapic_id(apic::id());
    traps::mask_legacy_interrupts();
    traps::init();
    init_this_cpu(0);
    smp::start_others(boot.cpus.lapic_ids());
    greet(&boot);
    start_user_space(&boot);
    stacks::leave_boot_stack(scheduler::idle)
}

/// Says what the kernel runs on and with: everybody who waits for the kernel waits for this line.
fn greet(boot: &BootInfo) {
    let cpus = smp::ONLINE.load(Ordering::Acquire);
    let plural = if cpus == 1 { "" } else { "s" };
    let command_line = if boot.command_line().is_empty() { "run=demo" } else { boot.command_line() };
    println!("exo-os: {cpus} CPU{plural}, {} MiB, {command_line}", boot.ram_end >> 20);
}

fn set_up_memory(ram_end: u64) {
    let mut kernel = lock();
    kernel.frames.add(paging::image_end(), ram_end);
    paging::init(&mut kernel.frames, ram_end);
    kernel.files.init();
}

/// Set-up that every CPU does for itself, once its GDT and GS base are in place.
pub fn init_this_cpu(cpu_id: usize) {
    cpu::enable_protections();
    traps::load();
    syscall::configuration::init_syscall();
    truth::note_cpu(cpu_id);
    apic::init();
}

/// Starts `/bin/NAME` for `run=NAME`, with the words of the command line as its arguments.
fn start_user_space(boot: &BootInfo) {
    let name = boot.option("run").unwrap_or("demo");
    let mut path = [0; 32];
    let length = (name.len() + 5).min(path.len());
    path[..5].copy_from_slice(b"/bin/");
    path[5..length].copy_from_slice(&name.as_bytes()[..length - 5]);
    let mut arguments = Arguments::new();
    let words = core::iter::once(name).chain(boot.command_line().split_ascii_whitespace());
    let fit = words.into_iter().all(|word| arguments.push(word.as_bytes()).is_ok());
    if !fit {
        println!("exo-os: the command line is too long; the rest of it is ignored");
    }
    if let Err(error) = program::start_first(lock(), &path[..length], &arguments) {
        println!("exo-os: cannot run {name}: {error:?}");
        power::leave(false);
    }
}

#[panic_handler]
fn panic(information: &core::panic::PanicInfo) -> ! {
    let cpu_id = percpu::cpu_id_at_any_time();
    traps::stop_others(cpu_id);
    println!("kernel panic on CPU {cpu_id}: {information}");
    let rbp: u64;
    // SAFETY: reading rbp changes nothing.
    unsafe { core::arch::asm!("mov {}, rbp", out(reg) rbp, options(nomem, nostack)) };
    traps::print_stack_trace(0, rbp);
    println!("kernel stopped");
    cpu::halt_forever()
}
