"""Byte patterns in the executable segments of an ELF file. Pure.

Source: System V ABI, ELF-64 Object File Format (file header, program header).
"""

import struct
from collections.abc import Iterator
from mmap import mmap

__all__ = ["find_in_text"]

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_EXECUTABLE, _LOAD = 1, 1


def _executable_segments(elf: bytes | mmap) -> Iterator[tuple[int, bytes]]:
    """Virtual address and file contents of every executable PT_LOAD segment."""
    if len(elf) < _HEADER.size or elf[:6] != b"\x7fELF\x02\x01":
        return
    header = _HEADER.unpack_from(elf)
    table, entry_size, count = header[5], header[9], header[10]
    for number in range(count):
        at = table + number * entry_size
        if at + _SEGMENT.size > len(elf):
            return
        kind, flags, offset, address, _, size, _, _ = _SEGMENT.unpack_from(elf, at)
        if kind == _LOAD and flags & _EXECUTABLE:
            yield address, elf[offset : offset + size]


def find_in_text(elf: bytes | mmap, pattern: bytes) -> Iterator[int]:
    """Virtual addresses of `pattern` in the code of a little-endian ELF64 image, as linked; none for other
    files.
    """
    for address, code in _executable_segments(elf):
        at = code.find(pattern)
        while at >= 0:
            yield address + at
            at = code.find(pattern, at + 1)
