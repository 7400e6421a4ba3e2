"""Just enough of ELF64 to know a kernel before it runs: its function symbols and the bytes at an address.

Source: System V Application Binary Interface, "Object Files" (gABI 4.1): file header, section header,
symbol table and program header of the 64-bit class; little-endian only, as x86-64 is.
"""

import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from exogdb.errors import FormatError, MemoryFault

__all__ = ["Elf", "Segment", "read_elf"]

_EM_X86_64 = 62
_PT_LOAD = 1
_SHT_SYMTAB = 2
_SHN_UNDEF = 0
_PAGE_SIZE = 4096
_CLASS32 = b"\x7fELF\x01"
_CLASS64_LITTLE = b"\x7fELF\x02\x01"
_FILE_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
_SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")


@dataclass(frozen=True)
class Segment:
    """A loadable part: `size` bytes at virtual `address`, of which `file_size` are at `offset` of the file."""

    address: int
    size: int
    offset: int
    file_size: int


class Elf:
    """An x86-64 ELF file, held in memory. `read` makes it a `ReadableMemory` of what will be loaded."""

    def __init__(self, data: bytes) -> None:
        """:raise FormatError: not a little-endian ELF64 file for x86-64, or cut short."""
        if data[:5] == _CLASS32:
            raise FormatError("a 32-bit ELF file; exogdb looks at 64-bit kernels")
        if data[:6] != _CLASS64_LITTLE:
            raise FormatError("not a little-endian ELF64 file", 0)
        self._data = data
        header = self._unpack(_FILE_HEADER, 0)
        if header[2] != _EM_X86_64:
            raise FormatError(f"an ELF file for machine {header[2]}, not for x86-64", 18)
        self._program_headers = self._table(header[5], header[9], header[10], _PROGRAM_HEADER)
        self._sections = self._table(header[6], header[11], header[12], _SECTION_HEADER)

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """What is loaded, in the order of the program headers."""
        return tuple(
            Segment(address, size, offset, file_size)
            for kind, _, offset, address, _, file_size, size, _ in self._program_headers
            if kind == _PT_LOAD
        )

    @cached_property
    def symbols(self) -> dict[str, int]:
        """Name to virtual address of everything defined in `.symtab`; empty for a stripped file."""
        return {
            name: value for table in self._sections if table[1] == _SHT_SYMTAB for name, value in self._read(table)
        }

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes that will be at virtual `address`; what no file bytes back (.bss) is zero.

        The page that a segment ends in is loaded whole: its rest is zero, too.

        :raise MemoryFault: some of it is in no segment.
        :raise FormatError: the file was cut short before it.
        """
        for segment in self.segments:
            start = address - segment.address
            if start >= 0 and start + size <= _whole_pages(segment):
                backed = max(0, min(size, segment.file_size - start))
                begin = segment.offset + start
                if backed and begin + backed > len(self._data):
                    raise FormatError(f"the file ends before {size} bytes for {address:#x}", begin)
                return self._data[begin : begin + backed].ljust(size, b"\0")
        raise MemoryFault(address, size, f"the ELF file loads nothing at {address:#x}")

    def _read(self, table: tuple[int, ...]) -> list[tuple[str, int]]:
        _, _, _, _, offset, size, link, _, _, entry_size = table
        if link >= len(self._sections):
            raise FormatError(f"a symbol table names section {link} of {len(self._sections)}")
        symbols = self._table(offset, entry_size, size // max(entry_size, 1), _SYMBOL)
        names = self._sections[link][4]
        return [
            (self._name(names + name), value)
            for name, _, _, section, value, _ in symbols
            if name and section != _SHN_UNDEF
        ]

    def _name(self, offset: int) -> str:
        end = self._data.find(b"\0", offset)
        if end < 0:
            raise FormatError("a symbol's name has no end", offset)
        return self._data[offset:end].decode(errors="replace")

    def _table(self, offset: int, entry_size: int, count: int, layout: struct.Struct) -> list[tuple[int, ...]]:
        return [self._unpack(layout, offset + index * entry_size) for index in range(count)]

    def _unpack(self, layout: struct.Struct, offset: int) -> tuple[int, ...]:
        try:
            return layout.unpack_from(self._data, offset)
        except struct.error:
            raise FormatError(f"the file ends before {layout.size} bytes", offset) from None


def _whole_pages(segment: Segment) -> int:
    """The size of `segment` with the page that it ends in."""
    end = segment.address + segment.size
    return segment.size + -end % _PAGE_SIZE


def read_elf(path: Path) -> Elf:
    """The ELF file at `path`.

    :raise FormatError: it is no x86-64 ELF file; the message names the file.
    :raise OSError: it cannot be read.
    """
    try:
        return Elf(path.read_bytes())
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error
