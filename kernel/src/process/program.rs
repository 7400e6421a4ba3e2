//! Program images: checking an ELF file and mapping it, the user stack with the arguments, the first process.

use crate::arch::gdt::{USER_CODE, USER_DATA};
use crate::arch::traps::TrapFrame;
use crate::calls::Errno;
use crate::memory::frames::Frames;
use crate::memory::space::{AddressSpace, PROT_EXEC, PROT_READ, PROT_WRITE, USER_END, USER_START};
use crate::memory::{user, PAGE_SIZE};
use crate::process::{scheduler, KernelGuard};

const STACK_TOP: u64 = 0x7fff_ffff_0000;
const STACK_PAGES: u64 = 16;
/// The page behind the user's FS and GS: FS_BASE points at its start, GS_BASE at its second half.
const THREAD_BLOCK: u64 = 0x7fff_f000_0000;
const THREAD_GS_OFFSET: u64 = 0x800;
/// Most arguments a program can get, and most bytes of all of them together with their zeros.
pub const MAX_ARGUMENTS: usize = 16;
pub const ARGUMENT_BYTES: usize = 1024;

const LOAD: u32 = 1;
const SEGMENT_EXECUTE: u32 = 1;
const SEGMENT_WRITE: u32 = 2;

/// Arguments on their way from one image to the next: zero-terminated, one after the other.
pub struct Arguments {
    pub bytes: [u8; ARGUMENT_BYTES],
    pub used: usize,
    pub count: usize,
}

impl Arguments {
    pub const fn new() -> Self {
        Arguments { bytes: [0; ARGUMENT_BYTES], used: 0, count: 0 }
    }

    /// Adds one argument.
    ///
    /// # Errors
    /// `E2BIG` if there are too many, or too much of them.
    pub fn push(&mut self, argument: &[u8]) -> Result<(), Errno> {
        if self.count == MAX_ARGUMENTS || self.used + argument.len() + 1 > ARGUMENT_BYTES {
            return Err(Errno::TooBig);
        }
        self.bytes[self.used..self.used + argument.len()].copy_from_slice(argument);
        self.used += argument.len();
        self.bytes[self.used] = 0;
        self.used += 1;
        self.count += 1;
        Ok(())
    }
}

/// A program ready to run.
pub struct Image {
    pub space: AddressSpace,
    pub entry: u64,
    pub stack: u64,
    pub fs_base: u64,
    pub gs_base: u64,
}

/// A little-endian number of `N` bytes at `offset` of a file.
fn field<const N: usize>(file: &[u8], offset: usize) -> Result<u64, Errno> {
    let bytes = file.get(offset..offset + N).ok_or(Errno::NotExecutable)?;
    let mut value = [0; 8];
    value[..N].copy_from_slice(bytes);
    Ok(u64::from_le_bytes(value))
}

/// Builds the address space for a program.
///
/// # Errors
/// `ENOEXEC` for a file that is no static x86-64 ELF executable, `ENOMEM` without memory. Nothing is kept then.
pub fn load(frames: &mut Frames, file: &[u8], arguments: &Arguments) -> Result<Image, Errno> {
    let mut space = AddressSpace::new(frames).ok_or(Errno::NoMemory)?;
    match fill(&mut space, frames, file, arguments) {
        Ok((entry, stack)) => {
            Ok(Image { space, entry, stack, fs_base: THREAD_BLOCK, gs_base: THREAD_BLOCK + THREAD_GS_OFFSET })
        }
        Err(error) => {
            space.free(frames);
            Err(error)
        }
    }
}

fn fill(
    space: &mut AddressSpace,
    frames: &mut Frames,
    file: &[u8],
    arguments: &Arguments,
) -> Result<(u64, u64), Errno> {
    const ELF64_LITTLE_ENDIAN: &[u8] = b"\x7fELF\x02\x01\x01";
    const X86_64: u64 = 62;
    if !file.starts_with(ELF64_LITTLE_ENDIAN) || field::<2>(file, 18)? != X86_64 {
        return Err(Errno::NotExecutable);
    }
    let (headers, count) = (field::<8>(file, 32)? as usize, field::<2>(file, 56)? as usize);
    for index in 0..count {
        let header = headers.checked_add(index * 56).ok_or(Errno::NotExecutable)?;
        let header = file.get(header..header + 56).ok_or(Errno::NotExecutable)?;
        if field::<4>(header, 0)? as u32 == LOAD {
            load_segment(space, frames, file, header)?;
        }
    }
    space.map_range(frames, STACK_TOP - STACK_PAGES * PAGE_SIZE..STACK_TOP, PROT_READ | PROT_WRITE)?;
    space.map_page(frames, THREAD_BLOCK, PROT_READ | PROT_WRITE)?;
    let gs_self = THREAD_BLOCK + THREAD_GS_OFFSET;
    user::copy_out(space, THREAD_BLOCK, &THREAD_BLOCK.to_le_bytes())?;
    user::copy_out(space, gs_self, &gs_self.to_le_bytes())?;
    let entry = field::<8>(file, 24)?;
    if !(USER_START..USER_END).contains(&entry) {
        return Err(Errno::NotExecutable); // SYSRET faults in ring 0 where the address is not canonical
    }
    Ok((entry, push_arguments(space, arguments)?))
}

fn load_segment(space: &mut AddressSpace, frames: &mut Frames, file: &[u8], header: &[u8]) -> Result<(), Errno> {
    let flags = field::<4>(header, 4)? as u32;
    let offset = field::<8>(header, 8)? as usize;
    let address = field::<8>(header, 16)?;
    let file_size = field::<8>(header, 32)? as usize;
    let memory_size = field::<8>(header, 40)?;
    let content = offset.checked_add(file_size).and_then(|end| file.get(offset..end)).ok_or(Errno::NotExecutable)?;
    let end = address.checked_add(memory_size).ok_or(Errno::NotExecutable)?;
    if address < USER_START || end > USER_END || memory_size < file_size as u64 {
        return Err(Errno::NotExecutable);
    }
    let mut protection = PROT_READ;
    if flags & SEGMENT_WRITE != 0 {
        protection |= PROT_WRITE;
    }
    if flags & SEGMENT_EXECUTE != 0 {
        protection |= PROT_EXEC;
    }
    if protection & (PROT_WRITE | PROT_EXEC) == PROT_WRITE | PROT_EXEC {
        return Err(Errno::NotExecutable);
    }
    let start = address & !(PAGE_SIZE - 1);
    for page in (start..end).step_by(PAGE_SIZE as usize) {
        if !space.is_free(page..page + PAGE_SIZE) {
            return Err(Errno::NotExecutable);
        }
        let frame = space.map_page(frames, page, protection)?;
        copy_to_page(frame, page, address, content);
    }
    Ok(())
}

/// Fills the part of a page that the file holds.
fn copy_to_page(frame: u64, page: u64, address: u64, content: &[u8]) {
    let from = page.max(address);
    let to = (page + PAGE_SIZE).min(address + content.len() as u64);
    if from < to {
        let bytes = &content[(from - address) as usize..(to - address) as usize];
        // SAFETY: the frame is new and the process's alone; the bytes fit in the page.
        unsafe {
            let target = crate::memory::paging::physical_to_virtual(frame + (from - page));
            target.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
    }
}

/// Puts the arguments on the user stack. At the stack pointer: their count, then a pointer to each, then 0.
fn push_arguments(space: &AddressSpace, arguments: &Arguments) -> Result<u64, Errno> {
    let text = STACK_TOP - ARGUMENT_BYTES as u64;
    user::copy_out(space, text, &arguments.bytes[..arguments.used])?;
    let stack = (text - 8 * (arguments.count as u64 + 2)) & !15;
    user::copy_out(space, stack, &(arguments.count as u64).to_le_bytes())?;
    let mut start = 0;
    let mut place = stack + 8;
    for argument in arguments.bytes[..arguments.used].split_inclusive(|&byte| byte == 0) {
        user::copy_out(space, place, &(text + start).to_le_bytes())?;
        start += argument.len() as u64;
        place += 8;
    }
    user::copy_out(space, place, &0_u64.to_le_bytes())?;
    Ok(stack)
}

/// Registers of a program that is about to run its first instruction, or of a fork's child.
pub fn user_registers(rip: u64, rsp: u64, rflags: u64) -> TrapFrame {
    TrapFrame { rip, rsp, rflags, cs: u64::from(USER_CODE), ss: u64::from(USER_DATA), ..TrapFrame::default() }
}

/// Interrupts on, and bit 1, which is always set.
pub const INITIAL_RFLAGS: u64 = 0x202;

/// Starts the first process.
///
/// # Errors
/// `ENOENT` if there is no such program, and those of [`load`].
pub fn start_first(mut kernel: KernelGuard, path: &[u8], arguments: &Arguments) -> Result<(), Errno> {
    let kernel = &mut *kernel;
    let file = kernel.files.program(path).ok_or(Errno::NoEntry)?;
    let image = load(&mut kernel.frames, file, arguments)?;
    let slot = kernel.allocate_process(0).ok_or(Errno::Again)?;
    let console = kernel.files.console_descriptor();
    let process = &mut kernel.processes[slot];
    process.set_name(path);
    process.descriptors[..3].fill(console);
    process.space = image.space;
    process.fs_base = image.fs_base;
    process.gs_base = image.gs_base;
    scheduler::prepare(process, user_registers(image.entry, image.stack, INITIAL_RFLAGS));
    scheduler::make_ready(kernel, slot);
    Ok(())
}
