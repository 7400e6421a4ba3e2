"""exogdb/launch/elf.py against ELF files laid out by hand from the gABI, and against cut-off ones."""

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exogdb.errors import FormatError, MemoryFault
from exogdb.launch.elf import Elf, Segment

BASE = 0xFFFFFFFF80100000
CODE = bytes(range(16))
NAMES = b"\0syscall_entry\0printk\0"


def elf_file() -> bytes:
    """A file with one segment (16 bytes, 32 in memory), and two defined symbols and an undefined one."""
    code, names, symbols, sections = 0x100, 0x110, 0x140, 0x200
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, 62, 1, BASE, 64, sections, 0, 64, 56, 1, 64, 3, 2
    )
    program = struct.pack("<IIQQQQQQ", 1, 5, code, BASE, 0x100000, 16, 32, 0x1000)
    table = struct.pack("<IBBHQQ", 0, 0, 0, 0, 0, 0)
    table += struct.pack("<IBBHQQ", 1, 0x12, 0, 1, BASE + 4, 8)
    table += struct.pack("<IBBHQQ", 15, 0x12, 0, 0, 0, 0)
    heads = bytes(64)
    heads += struct.pack("<IIQQQQIIQQ", 1, 2, 0, 0, symbols, len(table), 2, 1, 8, 24)
    heads += struct.pack("<IIQQQQIIQQ", 9, 3, 0, 0, names, len(NAMES), 0, 0, 1, 0)
    data = bytearray(sections + len(heads))
    for offset, part in (
        (0, header),
        (64, program),
        (code, CODE),
        (names, NAMES),
        (symbols, table),
        (sections, heads),
    ):
        data[offset : offset + len(part)] = part
    return bytes(data)


def test_segments_and_defined_symbols_are_found() -> None:
    elf = Elf(elf_file())
    assert elf.segments == (Segment(BASE, 32, 0x100, 16),)
    assert elf.symbols == {"syscall_entry": BASE + 4}


def test_bytes_come_from_the_file_and_bss_is_zero() -> None:
    elf = Elf(elf_file())
    assert elf.read(BASE + 4, 4) == CODE[4:8]
    assert elf.read(BASE + 12, 8) == CODE[12:] + bytes(4)
    assert elf.read(BASE + 24, 8) == bytes(8)
    assert elf.read(BASE + 0xFF8, 8) == bytes(8)


@pytest.mark.parametrize("address", [BASE - 1, BASE + 0x1000, BASE + 0xFF9, 0])
def test_what_is_not_loaded_is_a_fault(address: int) -> None:
    with pytest.raises(MemoryFault, match="loads nothing"):
        Elf(elf_file()).read(address, 8)


@pytest.mark.parametrize(
    ("offset", "byte", "message"),
    [
        (0, 0, "not a little-endian ELF64"),
        (4, 1, "a 32-bit ELF file"),
        (18, 3, "for machine 3, not for x86-64"),
    ],
)
def test_other_files_are_refused(offset: int, byte: int, message: str) -> None:
    data = bytearray(elf_file())
    data[offset] = byte
    with pytest.raises(FormatError, match=message):
        Elf(bytes(data))


@given(st.integers(0, len(elf_file()) - 1))
def test_a_file_cut_anywhere_is_a_format_error_or_has_only_true_symbols(length: int) -> None:
    with suppress(FormatError):
        assert set(Elf(elf_file()[:length]).symbols.items()) <= {("syscall_entry", BASE + 4)}


def test_bytes_that_a_cut_file_lacks_are_no_zeros() -> None:
    data = bytearray(elf_file())
    struct.pack_into("<Q", data, 64 + 8, len(data) - 8)  # the segment's file offset
    with pytest.raises(FormatError, match="the file ends before 16 bytes"):
        Elf(bytes(data)).read(BASE, 16)
