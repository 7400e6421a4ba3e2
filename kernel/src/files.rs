//! The in-memory file system: programs (read-only), devices, and files that processes make.

use crate::calls::Errno;
use crate::memory::frames::Frames;
use crate::memory::paging::physical_to_virtual;
use crate::memory::PAGE_SIZE;

/// Open files of one process.
pub const DESCRIPTORS: usize = 16;
/// Longest path, in bytes.
pub const MAX_PATH: usize = 32;
const MAX_FILES: usize = 32;
/// A file's pages: 64 KiB at most.
const FILE_PAGES: usize = 16;
const MAX_FILE_SIZE: u64 = FILE_PAGES as u64 * PAGE_SIZE;

pub const O_ACCESS: i32 = 3;
pub const O_RDONLY: i32 = 0;
pub const O_WRONLY: i32 = 1;
pub const O_CREAT: i32 = 0x40;
pub const O_TRUNC: i32 = 0x200;
pub const O_APPEND: i32 = 0x400;

/// One open file: which, how, and where in it.
#[derive(Clone, Copy)]
pub struct Descriptor {
    pub open: bool,
    pub file: u8,
    pub flags: i32,
    pub offset: u64,
}

impl Descriptor {
    pub const CLOSED: Self = Descriptor { open: false, file: 0, flags: 0, offset: 0 };

    pub fn may_read(&self) -> bool {
        self.open && self.flags & O_ACCESS != O_WRONLY
    }

    pub fn may_write(&self) -> bool {
        self.open && self.flags & O_ACCESS != O_RDONLY
    }
}

/// What is behind a name.
#[derive(Clone, Copy)]
pub enum Node {
    Empty,
    Program(&'static [u8]),
    /// Bytes in frames that are allocated as they are written; 0 stands for a page of zeros.
    Data {
        frames: [u64; FILE_PAGES],
        size: u64,
    },
    /// The serial port.
    Console,
    /// Reading waits for the next timer tick and gives the ticks since boot, 8 bytes.
    Ticks,
    /// Reading gives the number of free frames, 8 bytes.
    FreeFrames,
    /// Reading gives the number of CPUs, 8 bytes.
    Cpus,
    /// Reading gives `SYSCALL_COUNT`, 8 bytes.
    Calls,
}

struct File {
    path: [u8; MAX_PATH],
    length: usize,
    node: Node,
}

/// All files, flat: a path is a name.
pub struct FileSystem {
    files: [File; MAX_FILES],
}

/// Programs that the kernel's image carries.
static PROGRAMS: &[(&[u8], &[u8])] = &[
    (b"/bin/demo", include_bytes!(concat!(env!("EXO_PROGRAMS"), "/demo.stripped"))),
    (b"/bin/sender", include_bytes!(concat!(env!("EXO_PROGRAMS"), "/sender.stripped"))),
    (b"/bin/receiver", include_bytes!(concat!(env!("EXO_PROGRAMS"), "/receiver.stripped"))),
    (b"/bin/worker", include_bytes!(concat!(env!("EXO_PROGRAMS"), "/worker.stripped"))),
    (b"/bin/echo", include_bytes!(concat!(env!("EXO_PROGRAMS"), "/echo.stripped"))),
    (b"/bin/selftest", include_bytes!(concat!(env!("EXO_PROGRAMS"), "/selftest.stripped"))),
    (b"/bin/bench", include_bytes!(concat!(env!("EXO_PROGRAMS"), "/bench.stripped"))),
    (b"/bin/spin", include_bytes!(concat!(env!("EXO_PROGRAMS"), "/spin.stripped"))),
];

impl FileSystem {
    pub const fn new() -> Self {
        FileSystem { files: [const { File { path: [0; MAX_PATH], length: 0, node: Node::Empty } }; MAX_FILES] }
    }

    /// Puts the devices and programs in place.
    pub fn init(&mut self) {
        self.add(b"/dev/console", Node::Console);
        self.add(b"/dev/ticks", Node::Ticks);
        self.add(b"/dev/frames", Node::FreeFrames);
        self.add(b"/dev/cpus", Node::Cpus);
        self.add(b"/dev/calls", Node::Calls);
        for &(path, image) in PROGRAMS {
            self.add(path, Node::Program(image));
        }
    }

    fn add(&mut self, path: &[u8], node: Node) -> Option<usize> {
        let place = self.files.iter().position(|file| matches!(file.node, Node::Empty))?;
        let file = &mut self.files[place];
        file.path[..path.len()].copy_from_slice(path);
        file.length = path.len();
        file.node = node;
        Some(place)
    }

    fn find(&self, path: &[u8]) -> Option<usize> {
        self.files.iter().position(|file| !matches!(file.node, Node::Empty) && &file.path[..file.length] == path)
    }

    /// The image of a program.
    pub fn program(&self, path: &[u8]) -> Option<&'static [u8]> {
        match self.files[self.find(path)?].node {
            Node::Program(image) => Some(image),
            _ => None,
        }
    }

    /// The console, open for reading and writing.
    pub fn console_descriptor(&self) -> Descriptor {
        Descriptor { open: true, file: 0, flags: 2, offset: 0 }
    }

    pub fn node(&self, descriptor: &Descriptor) -> Node {
        self.files[usize::from(descriptor.file)].node
    }

    /// Opens a file, making it if the flags say so.
    ///
    /// # Errors
    /// `ENOENT`, `EINVAL` for an unknown access mode, `EACCES` for writing a program, `ENOSPC` without a free place.
    pub fn open(&mut self, frames: &mut Frames, path: &[u8], flags: i32) -> Result<Descriptor, Errno> {
        if flags & O_ACCESS == O_ACCESS {
            return Err(Errno::InvalidArgument);
        }
        let place = match self.find(path) {
            Some(place) => place,
            None if flags & O_CREAT != 0 && !path.is_empty() => {
                self.add(path, Node::Data { frames: [0; FILE_PAGES], size: 0 }).ok_or(Errno::NoSpace)?
            }
            None => return Err(Errno::NoEntry),
        };
        let writing = flags & O_ACCESS != O_RDONLY;
        match &mut self.files[place].node {
            Node::Program(_) if writing => return Err(Errno::Access),
            Node::Data { frames: pages, size } if writing && flags & O_TRUNC != 0 => {
                pages.iter_mut().filter(|page| **page != 0).for_each(|page| frames.free(core::mem::take(page)));
                *size = 0;
            }
            _ => (),
        }
        Ok(Descriptor { open: true, file: place as u8, flags, offset: 0 })
    }

    /// Copies from a file with contents at the descriptor's offset and returns how much there was.
    pub fn read(&self, descriptor: &Descriptor, buffer: &mut [u8]) -> usize {
        let offset = descriptor.offset;
        match self.node(descriptor) {
            Node::Program(image) => {
                let rest = image.get(offset as usize..).unwrap_or(&[]);
                let length = rest.len().min(buffer.len());
                buffer[..length].copy_from_slice(&rest[..length]);
                length
            }
            Node::Data { frames, size } => {
                let length = size.saturating_sub(offset).min(buffer.len() as u64) as usize;
                for (index, byte) in buffer[..length].iter_mut().enumerate() {
                    let place = offset + index as u64;
                    let frame = frames[(place / PAGE_SIZE) as usize];
                    // SAFETY: a frame that is there is the file's own.
                    *byte = if frame == 0 { 0 } else { unsafe { *physical_to_virtual(frame + place % PAGE_SIZE) } };
                }
                length
            }
            _ => 0,
        }
    }

    /// Writes to a file with contents and returns the new offset.
    ///
    /// # Errors
    /// `ENOSPC` beyond the largest file, `ENOMEM` without memory; what was written before stays.
    pub fn write(&mut self, frames: &mut Frames, descriptor: &Descriptor, bytes: &[u8]) -> Result<u64, Errno> {
        let Node::Data { frames: pages, size } = &mut self.files[usize::from(descriptor.file)].node else {
            return Err(Errno::BadDescriptor);
        };
        let mut place = if descriptor.flags & O_APPEND != 0 { *size } else { descriptor.offset };
        for &byte in bytes {
            if place >= MAX_FILE_SIZE {
                return Err(Errno::NoSpace);
            }
            let page = &mut pages[(place / PAGE_SIZE) as usize];
            if *page == 0 {
                *page = frames.allocate().ok_or(Errno::NoMemory)?;
            }
            // SAFETY: the frame is the file's own.
            unsafe { *physical_to_virtual(*page + place % PAGE_SIZE) = byte };
            place += 1;
            *size = (*size).max(place);
        }
        Ok(place)
    }
}
