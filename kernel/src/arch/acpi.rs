//! Which CPUs the machine has: the local APICs that the ACPI tables list (ACPI 6.5, 5.2.5 to 5.2.12).
//!
//! The tables may lie above what the kernel maps later, so they are read while the boot page tables are in use.

use crate::arch::percpu::MAX_CPUS;
use crate::memory::paging::physical_to_virtual;

const RSDT_ADDRESS: u64 = 16;
const HEADER_LENGTH: u64 = 36;
const MADT_ENTRIES: u64 = HEADER_LENGTH + 8;
const LOCAL_APIC: u8 = 0;
const ENABLED: u32 = 1;

/// APIC identifiers of the CPUs, at most as many as the kernel runs.
#[derive(Clone, Copy)]
pub struct CpuList {
    lapic_ids: [u8; MAX_CPUS],
    count: usize,
}

impl CpuList {
    /// The identifiers, in the order of the table.
    pub fn lapic_ids(&self) -> &[u8] {
        &self.lapic_ids[..self.count]
    }

    /// Reads the list, starting from the root pointer at a physical address; empty without one.
    pub fn read(root_pointer: u64) -> Self {
        let mut list = CpuList { lapic_ids: [0; MAX_CPUS], count: 0 };
        if let Some(madt) = find_madt(root_pointer) {
            list.fill(madt);
        }
        list
    }

    fn fill(&mut self, madt: u64) {
        let end = madt + u64::from(word(madt + 4));
        let mut entry = madt + MADT_ENTRIES;
        while entry + 8 <= end && self.count < MAX_CPUS {
            if byte(entry) == LOCAL_APIC && word(entry + 4) & ENABLED != 0 {
                self.lapic_ids[self.count] = byte(entry + 3);
                self.count += 1;
            }
            entry += u64::from(byte(entry + 1).max(2));
        }
    }
}

/// The physical address of the table that lists the APICs.
fn find_madt(root_pointer: u64) -> Option<u64> {
    if root_pointer == 0 {
        return None;
    }
    let rsdt = u64::from(word(root_pointer + RSDT_ADDRESS));
    if word(rsdt).to_le_bytes() != *b"RSDT" {
        return None; // a machine with an XSDT only: the boot CPU is all that is used
    }
    let end = rsdt + u64::from(word(rsdt + 4));
    let tables = (rsdt + HEADER_LENGTH..end).step_by(4).map(|place| u64::from(word(place)));
    tables.into_iter().find(|&table| word(table).to_le_bytes() == *b"APIC")
}

fn byte(physical: u64) -> u8 {
    // SAFETY: the boot page tables map the first 4 GiB, where firmware keeps its tables.
    unsafe { physical_to_virtual(physical).read() }
}

fn word(physical: u64) -> u32 {
    // SAFETY: as for `byte`; the tables need not be aligned.
    unsafe { physical_to_virtual(physical).cast::<u32>().read_unaligned() }
}
