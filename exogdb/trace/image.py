"""What a program's ELF file says can never change: its read-only sections.

While the guest runs its memory cannot be read at the moment of a call. A string constant need not be: it is in the
program's file, and the program has no right to write there.
"""

import struct
from bisect import bisect_right
from dataclasses import dataclass, field

from exogdb.errors import FormatError

__all__ = ["ConstantData", "parse_constant_data"]

_MAGIC = b"\x7fELF\x02\x01"  # 64-bit, little-endian
_HEADER = struct.Struct("<16x2xH4x8x8xQ4xHHHHHH")
_SECTION = struct.Struct("<IIQQQQ")
_PROGBITS, _WRITE, _ALLOC = 1, 1, 2
_X86_64 = 62


@dataclass(frozen=True)
class ConstantData:
    """Pieces of read-only content by virtual address, sorted. `start` and `end` span everything that is loaded."""

    start: int
    end: int
    pieces: tuple[tuple[int, bytes], ...]
    _starts: list[int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_starts", [address for address, _ in self.pieces])

    def covers(self, address: int) -> bool:
        """Whether the program has anything at `address`."""
        return self.start <= address < self.end

    def find(self, address: int, size: int) -> bytes | None:
        """Up to `size` bytes at `address`; None if it is not read-only content."""
        index = bisect_right(self._starts, address) - 1
        if index < 0:
            return None
        start, content = self.pieces[index]
        offset = address - start
        return content[offset : offset + size] if offset < len(content) else None

    def find_text(self, address: int, most: int) -> bytes | None:
        """The zero-terminated text at `address`, at most `most` bytes; None if it does not end in constant
        data."""
        content = self.find(address, most)
        if content is None:
            return None
        text, end, _ = content.partition(b"\0")
        return text if end or len(content) == most else None


def parse_constant_data(data: bytes) -> ConstantData:
    """The read-only content of an x86-64 ELF file.

    :raise FormatError: not such a file, or its section table is not inside it.
    """
    if not data.startswith(_MAGIC) or len(data) < 64:
        raise FormatError("not a 64-bit little-endian ELF file")
    machine, table, _, _, _, size, count, _ = _HEADER.unpack_from(data)
    if machine != _X86_64 or size != 64 or table + size * count > len(data):
        raise FormatError("not an x86-64 program, or its section table is cut off")
    pieces, bounds = [], []
    for index in range(count):
        _, kind, flags, address, offset, length = _SECTION.unpack_from(data, table + index * size)
        if not flags & _ALLOC or not length:
            continue
        bounds.append((address, address + length))
        if kind == _PROGBITS and not flags & _WRITE:
            pieces.append((address, data[offset : offset + length]))
    if not bounds:
        raise FormatError("a program that loads nothing")
    start, end = min(low for low, _ in bounds), max(high for _, high in bounds)
    return ConstantData(start, end, tuple(sorted(pieces)))
