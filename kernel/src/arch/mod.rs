//! What the CPU and the board define: registers, descriptor tables, interrupts, other CPUs, the serial port.

pub mod acpi;
pub mod apic;
pub mod cpu;
pub mod gdt;
pub mod percpu;
pub mod power;
pub mod serial;
pub mod smp;
pub mod traps;
