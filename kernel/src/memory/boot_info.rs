//! What the boot loader hands over: memory map, command line, and the way to the list of CPUs (PVH, `xen/arch-x86/hvm/start_info.h`).

use crate::arch::acpi::CpuList;
use crate::memory::paging::{physical_to_virtual, PHYSICAL_LIMIT};

const RAM: u32 = 1;

#[repr(C)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    module_count: u32,
    modules: u64,
    command_line: u64,
    rsdp: u64,
    memory_map: u64,
    memory_map_entries: u32,
    reserved: u32,
}

#[repr(C)]
struct MemoryRange {
    address: u64,
    size: u64,
    kind: u32,
    reserved: u32,
}

/// Longest command line kept, in bytes.
pub const COMMAND_LINE_CAPACITY: usize = 256;

/// What the kernel keeps of the start info.
pub struct BootInfo {
    command_line: [u8; COMMAND_LINE_CAPACITY],
    length: usize,
    /// End of the RAM that begins at 1 MiB, a physical address.
    pub ram_end: u64,
    pub cpus: CpuList,
}

impl BootInfo {
    /// Copies what matters out of the start info at a physical address, with the boot page tables in use.
    pub fn read(start_info: u64) -> Self {
        // SAFETY: the boot loader put a valid start info there; the boot page tables map the first 4 GiB.
        let info = unsafe { &*physical_to_virtual(start_info).cast::<StartInfo>() };
        let mut boot = BootInfo {
            command_line: [0; COMMAND_LINE_CAPACITY],
            length: 0,
            ram_end: 0,
            cpus: CpuList::read(info.rsdp),
        };
        for index in 0..u64::from(info.memory_map_entries) {
            // SAFETY: the map has that many entries.
            let range = unsafe { &*physical_to_virtual(info.memory_map).cast::<MemoryRange>().add(index as usize) };
            if range.kind == RAM && range.address <= 0x10_0000 && range.address + range.size > 0x10_0000 {
                boot.ram_end = (range.address + range.size).min(PHYSICAL_LIMIT);
            }
        }
        if info.command_line != 0 {
            boot.copy_command_line(physical_to_virtual(info.command_line));
        }
        boot
    }

    fn copy_command_line(&mut self, text: *const u8) {
        while self.length < COMMAND_LINE_CAPACITY {
            // SAFETY: the text ends with a zero byte, where the loop stops.
            let byte = unsafe { text.add(self.length).read() };
            if byte == 0 {
                return;
            }
            self.command_line[self.length] = byte;
            self.length += 1;
        }
    }

    /// The `-append` text; empty where it is no UTF-8.
    pub fn command_line(&self) -> &str {
        core::str::from_utf8(&self.command_line[..self.length]).unwrap_or("")
    }

    /// The value of `KEY=VALUE` in the command line.
    pub fn option(&self, key: &str) -> Option<&str> {
        self.command_line().split_ascii_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }
}
