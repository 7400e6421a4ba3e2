"""The frame that stands between kernel and user frames in a backtrace.

GDB ends a backtrace where the stack pointer goes the wrong way (`previous frame inner to this frame`), and from a
kernel stack to a user stack it always does. One exception is built in, for split stacks: a frame whose function is
called `__morestack` may continue anywhere (GDB, frame.c, `get_prev_frame_always_1`). So the unwinder puts a frame
with that name on the boundary, at an address where no code can be, and the frame decorator shows it as
`<system call 101 ipc_send>`.
"""

import struct

__all__ = ["BOUNDARY_PC", "make_boundary_object"]

_TEXT = 0x5359_5343_414C_4C00  # "SYSCALL" in ASCII; not canonical, so nothing is ever mapped there
_SIZE = 16
# Neither the first byte nor the one before may lie outside the symbol: GDB looks up the address and the one below.
BOUNDARY_PC = _TEXT + 8

_NAMES = b"\0__morestack\0"
_SECTION_NAMES = b"\0.text\0.symtab\0.strtab\0.shstrtab\0"
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")


def make_boundary_object() -> bytes:
    """A minimal ELF64 file (System V gABI) for `add-symbol-file`: one symbol and no code.

    >>> make_boundary_object()[:4]
    b'\\x7fELF'
    """
    symbols = bytes(_SYMBOL.size) + _SYMBOL.pack(1, 0x12, 0, 1, _TEXT, _SIZE)  # global function in section 1
    parts = (bytes(_SIZE), symbols, _NAMES, _SECTION_NAMES)
    offsets = [_HEADER.size + sum(map(len, parts[:index])) for index in range(len(parts))]
    text, symtab, strtab, shstrtab = zip(offsets, map(len, parts), strict=True)
    sections = b"".join(
        (
            bytes(_SECTION.size),
            _SECTION.pack(_SECTION_NAMES.index(b".text"), 1, 6, _TEXT, *text, 0, 0, 16, 0),
            _SECTION.pack(_SECTION_NAMES.index(b".symtab"), 2, 0, 0, *symtab, 3, 1, 8, _SYMBOL.size),
            _SECTION.pack(_SECTION_NAMES.index(b".strtab"), 3, 0, 0, *strtab, 0, 0, 1, 0),
            _SECTION.pack(_SECTION_NAMES.index(b".shstrtab"), 3, 0, 0, *shstrtab, 0, 0, 1, 0),
        )
    )
    end = shstrtab[0] + shstrtab[1]
    identity = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = _HEADER.pack(
        identity, 2, 62, 1, 0, 0, end, 0, _HEADER.size, 0, 0, _SECTION.size, len(sections) // _SECTION.size, 4
    )
    return header + b"".join(parts) + sections
