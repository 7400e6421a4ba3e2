"""The frame that stands between kernel and user frames in a backtrace.

GDB ends a backtrace where the stack pointer goes the wrong way (`previous frame inner to this frame`), and from a
kernel stack to a user stack it always does. One exception is built in, for split stacks: a frame whose address
belongs to the minimal symbol `__morestack` may continue anywhere (GDB, frame.c, `get_prev_frame_always_1`). So the
unwinder puts a frame on the boundary at an address where no code can be, which has that symbol.

What GDB shows is another name: that of the function that debug info has there, `<system call>`. So `up` and MI say
it too; in `bt` the frame decorator adds the number, `<system call 101 ipc_send>`. The function is entered at that
very address, by the order of its ranges: `info frame` reads a function's code up to the frame's address.
"""

import struct
from collections.abc import Sequence

__all__ = ["BOUNDARY_NAME", "BOUNDARY_PC", "make_boundary_object"]

_TEXT = 0x5359_5343_414C_4C00  # "SYSCALL" in ASCII; not canonical, so nothing is ever mapped there
_SIZE = 16
# Neither the first byte nor the one before may lie outside the symbol: GDB looks up the address and the one below.
BOUNDARY_PC = _TEXT + 8
BOUNDARY_NAME = "<system call>"

_NAMES = b"\0__morestack\0"
_SECTION_NAMES = (
    b"", b".text", b".symtab", b".strtab", b".shstrtab", b".debug_abbrev", b".debug_info", b".debug_ranges",
)  # fmt: skip
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
# DWARF 4, 7.5: code, tag, whether it has children, pairs of attribute and form, a pair of zeros.
_NAME, _EXTERNAL, _LANGUAGE = (0x03, 0x08), (0x3F, 0x19), (0x13, 0x0B)
_LOW_PC, _HIGH_PC, _RANGES = (0x11, 0x01), (0x12, 0x07), (0x55, 0x17)
_C99 = 0x0C  # DW_LANG_C99


def make_boundary_object() -> bytes:
    """A minimal ELF64 file (System V gABI) for `add-symbol-file`: one symbol, one DWARF function and no code.

    >>> make_boundary_object()[:4]
    b'\\x7fELF'
    """
    symbols = bytes(_SYMBOL.size) + _SYMBOL.pack(1, 0x12, 0, 1, _TEXT, _SIZE)  # global function in section 1
    section_names = b"\0".join(_SECTION_NAMES) + b"\0"
    # (type, flags, address, link, info, alignment, size of an entry), contents: progbits, symtab, strtab...
    sections = [
        ((1, 6, _TEXT, 0, 0, 16, 0), bytes(_SIZE)),
        ((2, 0, 0, 3, 1, 8, _SYMBOL.size), symbols),
        ((3, 0, 0, 0, 0, 1, 0), _NAMES),
        ((3, 0, 0, 0, 0, 1, 0), section_names),
        ((1, 0, 0, 0, 0, 1, 0), _make_abbreviations()),
        ((1, 0, 0, 0, 0, 1, 0), _make_debug_info()),
        ((1, 0, 0, 0, 0, 1, 0), _make_ranges()),
    ]
    return _link(sections, section_names)


def _link(sections: Sequence[tuple[tuple[int, ...], bytes]], section_names: bytes) -> bytes:
    """The file: its header, the contents of `sections`, the table of sections with an empty one in front."""
    contents, table = b"", bytes(_SECTION.size)
    for name, ((kind, flags, address, *rest), data) in zip(_SECTION_NAMES[1:], sections, strict=True):
        place = (address, _HEADER.size + len(contents), len(data))
        table += _SECTION.pack(section_names.index(name + b"\0"), kind, flags, *place, *rest)
        contents += data
    identity = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    count = len(sections) + 1
    sizes = (_HEADER.size, 0, 0, _SECTION.size, count, _SECTION_NAMES.index(b".shstrtab"))
    header = _HEADER.pack(identity, 2, 62, 1, 0, 0, _HEADER.size + len(contents), 0, *sizes)
    return header + contents + table


def _make_abbreviations() -> bytes:
    unit = (_NAME, _LANGUAGE, _LOW_PC, _HIGH_PC)
    function = (_NAME, _EXTERNAL, _RANGES)
    entries = ((1, 0x11, 1, unit), (2, 0x2E, 0, function))  # DW_TAG_compile_unit, DW_TAG_subprogram
    packed = b"".join(bytes((*head, *sum(pairs, ()), 0, 0)) for *head, pairs in entries)
    return packed + b"\0"


def _make_debug_info() -> bytes:
    place = struct.pack("<QQ", _TEXT, _SIZE)
    unit = b"\x01" + b"system-call boundary\0" + bytes([_C99]) + place
    function = b"\x02" + BOUNDARY_NAME.encode() + b"\0" + bytes(4)  # its ranges are the first in .debug_ranges
    entries = struct.pack("<HIB", 4, 0, 8) + unit + function + b"\0"  # version, abbreviations, size of an address
    return struct.pack("<I", len(entries)) + entries


def _make_ranges() -> bytes:
    """DWARF 4, 2.17.3: pairs of offsets from the unit's base address. With the first one the function begins."""
    middle = BOUNDARY_PC - _TEXT
    return struct.pack("<6Q", middle, _SIZE, 0, middle, 0, 0)
